"""Exercises of notebook 11, the paper, table by table."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.study.intervals import t_95


@exercise(
    cases=[(2.0, 3.0, 2.25), (1.5, 1.6, 1.62), (0.44, 0.5, 0.46)],
    hints=[
        (
            "That is the share that is left; avoided is what random lost and the method did not.",
            lambda dense, random, method: (method - dense) / (random - dense),
        ),
        (
            "You divide by random's loss; its damage is only what it added to the dense loss.",
            lambda dense, random, method: (random - method) / random,
        ),
        (
            "You divide by the method's own damage; the question is the share of random's.",
            lambda dense, random, method: (random - method) / (method - dense),
        ),
        (
            "The sign: a method with a lower loss than random's avoids something, a share above 0.",
            lambda dense, random, method: (method - random) / (random - dense),
        ),
        (
            "A method may be worse than random: a share below 0. Do not clip it.",
            lambda dense, random, method: max(0.0, (random - method) / (random - dense)),
        ),
    ],
)
def damage_avoided(dense: float, random: float, method: float) -> float:
    """Give the share of random pruning's damage that a method avoids.

    Parameters
    ----------
    dense, random, method : float
        The loss of the dense model, after random pruning, and after the method's.

    Returns
    -------
    float
        0 if the method is as bad as random, 1 if it is as good as dense.
    """
    return (random - method) / (random - dense)


def _verdict(differences: Tensor, t: float | None = None, power: float = 0.5) -> str:
    """What differences tell, with `t` for Student's t and n^power for the root of n."""
    count = len(differences)
    factor = t_95(count) if t is None else t
    half_width = factor * differences.std() / count**power
    mean = differences.mean()
    if mean.abs() <= half_width:
        return "no difference shown"
    return "lower" if mean < 0 else "higher"


@exercise(
    cases=[
        (torch.tensor([-1.0, -1.3, -0.9]),),
        (torch.tensor([-0.2, -1.0, -0.6]),),
        (torch.tensor([-1.0, 1.1, 0.1]),),
        (torch.tensor([0.9, 1.0, 1.1]),),
        (torch.tensor([-0.5, -2.5, 1.0, -0.4, -2.0]),),
        (torch.tensor([-0.5, -2.5, -1.0, -0.4, -2.0]),),
        (torch.tensor([0.1, 1.0, 0.2, 1.2]),),
    ],
    hints=[
        (
            "The bug is still there: 1.96 is for a spread that is known. Of few seeds the spread "
            "is a guess too; take Student's t, `t_95(number of seeds)`.",
            lambda differences: _verdict(differences, t=1.96),
        ),
        (
            "You use the spread of one run; a mean of n runs is surer by the root of n.",
            lambda differences: _verdict(differences, power=0.0),
        ),
        (
            "You divide by n; the spread of a mean falls with the root of n.",
            lambda differences: _verdict(differences, power=1.0),
        ),
        (
            "You only look at the sign of the mean. Is it further from 0 than chance would take "
            "it?",
            lambda differences: _verdict(differences, t=1e-9),
        ),
    ],
)
def told(differences: Tensor) -> str:
    """Say what the differences between two methods tell.

    Parameters
    ----------
    differences : Tensor
        A difference of losses for each of S seeds, (S,).

    Returns
    -------
    str
        "lower" or "higher" where the mean's 95 % t interval leaves 0 out, else "no
        difference shown".
    """
    return _verdict(differences)


def _share(loss: Tensor, columns: list[Tensor], about: Tensor | float) -> float:
    """The share of the loss's squares about a value that a least-squares fit on columns takes."""
    x = torch.stack(columns, 1)
    coefficients = torch.linalg.lstsq(x, loss[:, None]).solution[:, 0]
    rest = loss - x @ coefficients
    return 1 - float(rest.square().sum() / (loss - about).square().sum())


_NOISE, _LOG_SENSITIVITY, _LOGIT = (values.double() for values in random_tensors((9,), (9,), (9,)))
_SENSITIVITY = _LOG_SENSITIVITY.exp()
_UNIQUENESS = 0.9 + 0.1 * _LOGIT.sigmoid()
_LOSS = 2 + 0.3 * _NOISE - 0.4 * _SENSITIVITY.log() - 3 * _UNIQUENESS


@exercise(
    cases=[(_LOSS, _SENSITIVITY, _UNIQUENESS), (_UNIQUENESS, _LOSS.exp(), _SENSITIVITY.log())],
    hints=[
        (
            "Your fit must pass through the origin; add a column of ones.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [sensitivity.log(), uniqueness], loss.mean()
            ),
        ),
        (
            "Take the log of the sensitivity: it spans powers of ten.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [torch.ones_like(loss), sensitivity, uniqueness], loss.mean()
            ),
        ),
        (
            "Sensitivity alone; the claim is about both together.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [torch.ones_like(loss), sensitivity.log()], loss.mean()
            ),
        ),
        (
            "Uniqueness alone; the claim is about both together.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [torch.ones_like(loss), uniqueness], loss.mean()
            ),
        ),
        (
            "R2 compares with the mean: divide by the squares of loss less its mean.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [torch.ones_like(loss), sensitivity.log(), uniqueness], 0.0
            ),
        ),
        (
            "That is the share that is *not* explained.",
            lambda loss, sensitivity, uniqueness: (
                1
                - _share(loss, [torch.ones_like(loss), sensitivity.log(), uniqueness], loss.mean())
            ),
        ),
    ],
)
def explained(loss: Tensor, sensitivity: Tensor, uniqueness: Tensor) -> float:
    """Give how much of the loss sensitivity and uniqueness explain.

    Parameters
    ----------
    loss, sensitivity, uniqueness : Tensor
        Those of M models, (M,) each.

    Returns
    -------
    float
        R2 of the least-squares fit of the loss on log sensitivity and uniqueness.
    """
    return _share(loss, [torch.ones_like(loss), sensitivity.log(), uniqueness], loss.mean())
