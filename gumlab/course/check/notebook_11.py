"""Exercises of notebook 11, the paper, table by table."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.study.intervals import t_95


@exercise(
    cases=[(2.0, 3.0, 2.25), (1.5, 1.6, 1.62), (0.44, 0.5, 0.46)],
    hints=[
        ("That is the share that is left; avoided is what random lost and the method did not.",
         lambda dense, random, method: (method - dense) / (random - dense)),
        ("You divide by random's loss; its damage is only what it added to the dense loss.",
         lambda dense, random, method: (random - method) / random),
        ("You divide by the method's own damage; the question is the share of random's.",
         lambda dense, random, method: (random - method) / (method - dense)),
        ("The sign: a method with a lower loss than random's avoids something, a share above 0.",
         lambda dense, random, method: (method - random) / (random - dense)),
        ("A method may be worse than random: a share below 0. Do not clip it.",
         lambda dense, random, method: max(0.0, (random - method) / (random - dense))),
    ],
)  # fmt: skip
def damage_avoided(dense: float, random: float, method: float) -> float:
    """The share of random pruning's damage that a method avoids, from three losses."""
    return (random - method) / (random - dense)


def _sure(differences: Tensor, factor: float | None = None, power: float = 0.5) -> str:
    count = len(differences)
    half = (factor or t_95(count)) * differences.std() / count**power
    if differences.mean().abs() <= half:
        return "no difference shown"
    return "lower" if differences.mean() < 0 else "higher"


_CASES = (
    [-1.0, -1.3, -0.9], [-0.2, -1.0, -0.6], [-1.0, 1.1, 0.1], [0.9, 1.0, 1.1],
    [-0.5, -2.5, 1.0, -0.4, -2.0], [-0.5, -2.5, -1.0, -0.4, -2.0], [0.1, 1.0, 0.2, 1.2],
)  # fmt: skip


@exercise(
    cases=[(torch.tensor(case),) for case in _CASES],
    hints=[
        ("The bug is still there: 1.96 is for a spread that is known. Of few seeds the spread is "
         "a guess too; take Student's t, `t_95(number of seeds)`.",
         lambda differences: _sure(differences, 1.96)),
        ("You use the spread of one run; a mean of n runs is surer by the root of n.",
         lambda differences: _sure(differences, power=0.0)),
        ("You divide by n; the spread of a mean falls with the root of n.",
         lambda differences: _sure(differences, power=1.0)),
        ("You only look at the sign of the mean. Is it further from 0 than chance would take it?",
         lambda differences: _sure(differences, 1e-9)),
    ],
)  # fmt: skip
def told(differences: Tensor) -> str:
    """What differences by seed, (S,), tell: "lower", "higher" or "no difference shown"."""
    return _sure(differences)


def _share(loss: Tensor, columns: list[Tensor], about: Tensor | float) -> float:
    x = torch.stack(columns, 1)
    rest = loss - x @ torch.linalg.lstsq(x, loss[:, None]).solution[:, 0]
    return 1 - float(rest.square().sum() / (loss - about).square().sum())


_LOSS, _SENSITIVITY, _UNIQUENESS = (x.double() for x in random_tensors((9,), (9,), (9,)))
_SENSITIVITY, _UNIQUENESS = _SENSITIVITY.exp(), 0.9 + 0.1 * _UNIQUENESS.sigmoid()
_LOSS = 2 + 0.3 * _LOSS - 0.4 * _SENSITIVITY.log() - 3 * _UNIQUENESS


@exercise(
    cases=[(_LOSS, _SENSITIVITY, _UNIQUENESS), (_UNIQUENESS, _LOSS.exp(), _SENSITIVITY.log())],
    hints=[
        ("Your fit must pass through the origin; add a column of ones.",
         lambda y, s, u: _share(y, [s.log(), u], y.mean())),
        ("Take the log of the sensitivity: it spans powers of ten.",
         lambda y, s, u: _share(y, [torch.ones_like(y), s, u], y.mean())),
        ("Sensitivity alone; the claim is about both together.",
         lambda y, s, u: _share(y, [torch.ones_like(y), s.log()], y.mean())),
        ("Uniqueness alone; the claim is about both together.",
         lambda y, s, u: _share(y, [torch.ones_like(y), u], y.mean())),
        ("R2 compares with the mean: divide by the squares of loss less its mean.",
         lambda y, s, u: _share(y, [torch.ones_like(y), s.log(), u], 0.0)),
        ("That is the share that is *not* explained.",
         lambda y, s, u: 1 - _share(y, [torch.ones_like(y), s.log(), u], y.mean())),
    ],
)  # fmt: skip
def explained(loss: Tensor, sensitivity: Tensor, uniqueness: Tensor) -> float:
    """R2 of the least-squares fit of loss on log sensitivity and uniqueness, all (M,)."""
    return _share(loss, [torch.ones_like(loss), sensitivity.log(), uniqueness], loss.mean())
