"""Exercises of notebook 11, the paper, table by table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

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
        (
            "That is in percent; a share is 1 if all of the damage is avoided.",
            lambda dense, random, method: 100 * (random - method) / (random - dense),
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


def _interval(
    differences: Tensor,
    t: Callable[[int], float] = t_95,
    power: float = 0.5,
    correction: int = 1,
) -> tuple[float, float]:
    """Mean and half interval of differences; t(n) for Student's t, n^power for the root of n."""
    count = len(differences)
    if count < 2:
        return float(differences.mean()), math.nan  # one seed has no spread
    half = t(count) * differences.std(correction=correction) / count**power
    return float(differences.mean()), float(half)


def _differences(one: Mapping[int, float], other: Mapping[int, float]) -> Tensor:
    """One less the other, for every seed that both have."""
    return torch.tensor([one[seed] - other[seed] for seed in one if seed in other]).double()


def _by_place(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """The mistake: the first with the first, whatever their seeds."""
    pairs = zip(one.values(), other.values(), strict=False)
    return _interval(torch.tensor([a - b for a, b in pairs]).double())


def _unpaired(
    one: Mapping[int, float], other: Mapping[int, float], common: bool = False
) -> tuple[float, float]:
    """The mistake: each method's own spread, as if the seeds were not the same."""
    if common:
        both = [seed for seed in one if seed in other]
        one, other = ({seed: losses[seed] for seed in both} for losses in (one, other))
    groups = [torch.tensor([*losses.values()]).double() for losses in (one, other)]
    spread = math.hypot(*(float(losses.std()) / len(losses) ** 0.5 for losses in groups))
    return float(groups[0].mean() - groups[1].mean()), t_95(len(groups[0])) * spread


_GUM = {0: 0.495, 1: 0.498, 2: 0.491}
_RANDOM = {0: 0.530, 1: 0.526, 2: 0.529}


@exercise(
    cases=[
        (_GUM, _RANDOM),
        ({0: 1.0, 1: 1.4, 2: 1.9}, {2: 1.8, 0: 1.1, 1: 1.5}),
        ({0: 2.0, 1: 2.5, 2: 2.1, 3: 9.0}, {0: 1.9, 1: 2.1, 2: 1.7}),
        ({3: 2.0, 7: 2.5, 4: 1.0}, {3: 1.9, 7: 2.1}),
    ],
    hints=[
        (
            "1.96 is for a spread that is known. Of few seeds the spread is a guess too: take "
            "Student's t, `t_95(number of seeds)`.",
            lambda one, other: _interval(_differences(one, other), t=lambda count: 1.96),
        ),
        (
            "You took the values in the order in which they stand; pair them by their seed.",
            _by_place,
        ),
        (
            "That is each method's own spread. Both ran with the same seeds: take the differences "
            "first, then their spread.",
            _unpaired,
        ),
        (
            "That is each method's own spread. Take the differences first, then their spread.",
            partial(_unpaired, common=True),
        ),
        (
            "t_95 takes the number of seeds; you gave it one less.",
            lambda one, other: _interval(_differences(one, other), t=lambda count: t_95(count - 1)),
        ),
        (
            "You take Student's t of three seeds, however many there are.",
            lambda one, other: _interval(_differences(one, other), t=lambda count: t_95(3)),
        ),
        (
            "You use the spread of one run; a mean of n runs is surer by the root of n.",
            lambda one, other: _interval(_differences(one, other), power=0.0),
        ),
        (
            "That is the whole width of the interval; return half of it.",
            lambda one, other: _interval(_differences(one, other), t=lambda count: 2 * t_95(count)),
        ),
        (
            "You divide by n; the spread of a mean falls with the root of n.",
            lambda one, other: _interval(_differences(one, other), power=1.0),
        ),
        (
            "Of a sample the spread divides by n - 1 (torch's std does so by itself).",
            lambda one, other: _interval(_differences(one, other), correction=0),
        ),
        (
            "The sign: one less the other.",
            lambda one, other: _interval(-_differences(one, other)),
        ),
    ],
)
def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """Compare two methods that ran with the same seeds.

    Parameters
    ----------
    one, other : mapping of int to float
        The loss by seed; seeds that only one of them has do not count.

    Returns
    -------
    mean : float
        The mean of one - other over the seeds.
    half : float
        Half of its 95 % t interval, t s / sqrt(n).
    """
    return _interval(_differences(one, other))


def _says(mean: float, half: float) -> str:
    if abs(mean) > half:
        return "as claimed" if mean < 0 else "opposite"
    return "open"


@exercise(
    cases=[(-0.5, 0.2), (0.5, 0.2), (-0.1, 0.2), (0.1, 0.2), (-0.25, 0.25), (-0.3, math.nan)],
    hints=[
        (
            "Above 0 is the opposite of the claim, but only if the whole interval is.",
            lambda mean, half: "as claimed" if mean < 0 else "opposite",
        ),
        (
            "The mean may lie on either side: compare its distance from 0, abs(mean), with half.",
            lambda mean, half: (
                "as claimed" if -mean > half else "open" if mean <= 0 else "opposite"
            ),
        ),
        (
            "Below 0 is as claimed, above is the opposite; yours has them swapped.",
            lambda mean, half: _says(-mean, half),
        ),
        (
            "An interval that just touches 0 does not leave it out: it is open.",
            lambda mean, half: _says(mean, half - 1e-12),
        ),
        (
            "With one seed there is no interval: half is nan, and nothing is shown. Ask whether "
            "abs(mean) > half, not whether it is <= half: every comparison with nan is False.",
            lambda mean, half: (
                "open" if abs(mean) <= half else "as claimed" if mean < 0 else "opposite"
            ),
        ),
        (
            "With one seed there is no interval: half is nan, and every comparison with nan is "
            'False. So let "open" be what is left over.',
            lambda mean, half: (
                "as claimed" if mean + half < 0 else "open" if mean - half <= 0 else "opposite"
            ),
        ),
    ],
)
def says(mean: float, half: float) -> str:
    """Say what one setting says to a claim, whose effect is below 0 where it is as claimed.

    Parameters
    ----------
    mean, half : float
        The mean effect and half of its interval, as `paired_difference` gives them.

    Returns
    -------
    str
        "as claimed" where the whole interval is below 0, "opposite" where it is above, else "open".
    """
    return _says(mean, half)


UNTOLD = "cannot be told"


def _ruled(said: Sequence[str], of: Sequence[str], exactly: bool = False) -> str:
    """What more than half of `of` say; at least half, where `exactly` counts too."""
    for word, ruling_of_it in (("as claimed", "holds"), ("opposite", "does not hold")):
        count = [*said].count(word)
        if 2 * count > len(of) or (exactly and of and 2 * count == len(of)):
            return ruling_of_it
    return UNTOLD


_YES, _NO, _OPEN = "as claimed", "opposite", "open"


def _at_least_half(said: Sequence[str]) -> str:
    if 2 * [*said].count(_YES) >= len(said):
        return "holds"
    return "does not hold" if 2 * [*said].count(_NO) >= len(said) else UNTOLD


@exercise(
    cases=[
        ([_YES, _YES, _OPEN],),
        ([_NO, _NO, _OPEN],),
        ([_YES, _OPEN],),
        ([_YES, _OPEN, _OPEN, _OPEN],),
        ([_YES, _NO, _NO, _OPEN],),
        ([_YES, _YES, _NO, _OPEN, _OPEN],),
        ([],),
    ],
    hints=[
        (
            "Half of the settings is not more than half.",
            lambda said: _ruled(said, said, exactly=True),
        ),
        (
            "Half of the settings is not more than half, and of no settings nothing holds: >, "
            "not >=.",
            _at_least_half,
        ),
        (
            "The open settings count too: more than half of *all* settings, not of those alone "
            "that say something.",
            lambda said: _ruled(said, [word for word in said if word != _OPEN]),
        ),
        (
            "What does not hold is more than an absence of proof: more than half must say "
            '"opposite", else it cannot be told.',
            lambda said: "holds" if 2 * [*said].count(_YES) > len(said) else "does not hold",
        ),
        (
            "One setting that says so is not enough; it takes more than half.",
            lambda said: "holds" if _YES in said else "does not hold" if _NO in said else UNTOLD,
        ),
    ],
)
def ruling(said: Sequence[str]) -> str:
    """Give the verdict on a claim by what its settings say.

    Parameters
    ----------
    said : sequence of str
        "as claimed", "opposite" or "open", for each setting.

    Returns
    -------
    str
        "holds" if more than half of the settings are as claimed, "does not hold" if more than half
        are opposite, else "cannot be told".
    """
    return _ruled(said, said)


def _share(loss: Tensor, columns: list[Tensor], about: Tensor | float) -> float:
    """The share of the loss's squares about a value that a least-squares fit on columns takes."""
    x = torch.stack(columns, 1)
    coefficients = torch.linalg.lstsq(x, loss[:, None]).solution[:, 0]
    rest = loss - x @ coefficients
    return 1 - float(rest.square().sum() / (loss - about).square().sum())


def _each_from_each(loss: Tensor, sensitivity: Tensor, uniqueness: Tensor) -> float:
    """The mistake: (M,) less (M, 1)."""
    x = torch.stack([torch.ones_like(loss), sensitivity.log(), uniqueness], 1)
    rest = loss - x @ torch.linalg.lstsq(x, loss[:, None]).solution
    return 1 - float(rest.square().sum() / (loss - loss.mean()).square().sum())


_NOISE, _LOG_SENSITIVITY, _LOGIT = (values.double() for values in random_tensors((9,), (9,), (9,)))
_SENSITIVITY = _LOG_SENSITIVITY.exp()
_UNIQUENESS = 0.9 + 0.1 * _LOGIT.sigmoid()
_LOSS = 2 + 0.3 * _NOISE - 0.4 * _SENSITIVITY.log() - 3 * _UNIQUENESS


@exercise(
    cases=[(_LOSS, _SENSITIVITY, _UNIQUENESS), (_UNIQUENESS, _LOSS.exp(), _SENSITIVITY)],
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
            "Only the sensitivity is taken by its log; uniqueness goes in as it is.",
            lambda loss, sensitivity, uniqueness: _share(
                loss, [torch.ones_like(loss), sensitivity.log(), uniqueness.log()], loss.mean()
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
            "Your rest is a table, (M, M): (M,) less (M, 1) subtracts each from each. Take "
            "solution[:, 0].",
            _each_from_each,
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


@exercise(
    cases=[(0.6, 6, 2), (0.36, 9, 2), (0.2, 6, 2), (1.0, 5, 3)],
    hints=[
        (
            "The fit has one more coefficient than causes, the constant: it leaves rows - causes "
            "- 1.",
            lambda r2, rows, causes: 1 - (1 - r2) * (rows - 1) / (rows - causes),
        ),
        (
            "The loss's own spread has rows - 1 to divide by, not rows.",
            lambda r2, rows, causes: 1 - (1 - r2) * rows / (rows - causes - 1),
        ),
        (
            "The fraction is upside down: the share that is left must grow.",
            lambda r2, rows, causes: 1 - (1 - r2) * (rows - causes - 1) / (rows - 1),
        ),
        (
            "That is the share that is left; take it from 1.",
            lambda r2, rows, causes: (1 - r2) * (rows - 1) / (rows - causes - 1),
        ),
        (
            "It may be below 0: then the causes say less than chance would. Do not clip it.",
            lambda r2, rows, causes: max(0.0, 1 - (1 - r2) * (rows - 1) / (rows - causes - 1)),
        ),
        (
            "Correct what is *left*, 1 - R2, not R2 itself.",
            lambda r2, rows, causes: r2 * (rows - 1) / (rows - causes - 1),
        ),
    ],
)
def adjusted(r2: float, rows: int, causes: int) -> float:
    """Take from R2 what chance alone would explain.

    Parameters
    ----------
    r2 : float
        The share that a fit explains.
    rows : int
        How many models it was fitted on.
    causes : int
        How many columns explain, the constant not counted.

    Returns
    -------
    float
        1 - (1 - R2) (rows - 1) / (rows - causes - 1): 0 on average where the causes are noise.
    """
    return 1 - (1 - r2) * (rows - 1) / (rows - causes - 1)
