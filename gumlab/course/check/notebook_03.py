"""Exercises of notebook 03, random, the honest baseline."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise
from gumlab.selection import schedule, top


def _cubic(step: float, steps: int, keep: float, power: int = 3, start: float = 0.1) -> float:
    """The falling part of the schedule, also outside the steps that it is meant for."""
    remaining = 1 - (step / steps - start) / (0.7 - start)
    return keep + (1 - keep) * remaining**power


def _clamped(step: int, steps: int) -> float:
    """The step, moved into the part of the run where the schedule falls."""
    return min(max(step, 0.1 * steps), 0.7 * steps)


@exercise(
    cases=[(step, 100, 0.25) for step in (40, 20, 10, 0, 70, 85, 100)],
    hints=[
        (
            "You forgot the clamp: m must stay between 0 and 1, before the start and after the "
            "end.",
            _cubic,
        ),
        (
            "You forgot that v_t stays 1 at the start: m is above 1 there; clamp it to 1.",
            lambda step, steps, keep: _cubic(min(step, 0.7 * steps), steps, keep),
        ),
        (
            "You forgot that v_t stays at keep after 70 %: m is below 0 there; clamp it to 0.",
            lambda step, steps, keep: _cubic(max(step, 0.1 * steps), steps, keep),
        ),
        (
            "Your curve is a straight line; the schedule is cubic.",
            lambda step, steps, keep: _cubic(_clamped(step, steps), steps, keep, power=1),
        ),
        (
            "Your curve is a square; the schedule is cubic.",
            lambda step, steps, keep: _cubic(_clamped(step, steps), steps, keep, power=2),
        ),
        (
            "Your curve falls from step 0; the first 10 % of the steps stay dense.",
            lambda step, steps, keep: _cubic(min(step, 0.7 * steps), steps, keep, start=0.0),
        ),
    ],
)
def schedule_value(step: int, steps: int, keep: float) -> float:
    """Give v_t, the fraction of neurons that is kept at a step.

    Parameters
    ----------
    step : int
        The step, from 0 on.
    steps : int
        How many steps the run has.
    keep : float
        The fraction at the end.

    Returns
    -------
    float
        1 for the first 10 % of the steps, cubic down to `keep` at 70 %, constant after.
    """
    return schedule(step, steps, keep)


def _count(scores: Tensor, keep: float) -> int:
    """How many neurons stay."""
    return round(keep * len(scores))


def _ranked(scores: Tensor) -> Tensor:
    """The scores, the highest first."""
    return scores.sort(descending=True).values


@exercise(
    cases=[
        (torch.tensor([0.1, 0.9, 0.3, 0.7]), 0.5),
        (torch.tensor([3, 1, 2, 2, 2, 0]), 0.5),
        (torch.tensor([5, 4, 3, 2, 1]), 0.35),
        (torch.tensor([1, 1, 1, 1, 1]), 0.4),
    ],
    hints=[
        (
            "A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
            lambda scores, keep: scores >= _ranked(scores)[_count(scores, keep) - 1],
        ),
        (
            "A threshold with > loses a neuron; keep exactly round(keep * N).",
            lambda scores, keep: scores > _ranked(scores)[_count(scores, keep) - 1],
        ),
        (
            "int() cuts the fraction off; keep exactly round(keep * N).",
            lambda scores, keep: top(scores, int(keep * len(scores))),
        ),
        (
            "You keep the lowest scores; a high score means stay.",
            lambda scores, keep: top(-scores, _count(scores, keep)),
        ),
        (
            "Your ties go to the last neuron; they go to the first (a stable sort).",
            lambda scores, keep: top(scores.flip(0), _count(scores, keep)).flip(0),
        ),
        (
            "Those are the positions; a mask is one bool per neuron.",
            lambda scores, keep: scores.argsort(descending=True, stable=True)[
                : _count(scores, keep)
            ],
        ),
    ],
)
def top_v(scores: Tensor, keep: float) -> Tensor:
    """Choose who stays: the highest scores.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,).
    keep : float
        The fraction of neurons that stays.

    Returns
    -------
    Tensor
        The mask, (N,) bool: exactly round(keep * N) are True, of a tie the first.
    """
    return top(scores, _count(scores, keep))


@exercise(
    cases=[([1.0, 2.0, 3.0],), ([1.57, 1.55, 1.59, 1.57],)],
    hints=[
        (
            "That is the spread of single runs; the error of their mean is smaller by sqrt(n).",
            lambda losses: (statistics.mean(losses), statistics.stdev(losses)),
        ),
        (
            "Divide by n - 1 inside the spread: the mean was made from the same numbers.",
            lambda losses: (
                statistics.mean(losses),
                statistics.pstdev(losses) / math.sqrt(len(losses)),
            ),
        ),
        (
            "Divide the spread by sqrt(n), not by n.",
            lambda losses: (statistics.mean(losses), statistics.stdev(losses) / len(losses)),
        ),
        (
            "That is the variance; take the root.",
            lambda losses: (
                statistics.mean(losses),
                statistics.variance(losses) / math.sqrt(len(losses)),
            ),
        ),
    ],
)
def mean_and_error(losses: list[float]) -> tuple[float, float]:
    """Give the mean of some runs, and how sure it is.

    Parameters
    ----------
    losses : list of float
        The losses of at least two runs.

    Returns
    -------
    mean : float
        Their mean.
    error : float
        Its standard error: their spread (with n - 1) divided by sqrt(n).
    """
    return statistics.mean(losses), statistics.stdev(losses) / math.sqrt(len(losses))
