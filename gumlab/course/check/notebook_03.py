"""Exercises of notebook 03, random, the honest baseline."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise
from gumlab.selection import schedule, top


def _cubic(step: int, steps: int, keep: float, power: int = 3, start: float = 0.1) -> float:
    return keep + (1 - keep) * (1 - (step / steps - start) / (0.7 - start)) ** power


@exercise(
    cases=[(t, 100, 0.25) for t in (40, 20, 10, 0, 70, 85, 100)],
    hints=[
        ("You forgot the clamp: m must stay between 0 and 1, before the start and after the end.",
         _cubic),
        ("You forgot that v_t stays 1 at the start: m is above 1 there; clamp it to 1.",
         lambda t, T, keep: _cubic(min(t, 0.7 * T), T, keep)),
        ("You forgot that v_t stays at keep after 70 %: m is below 0 there; clamp it to 0.",
         lambda t, T, keep: _cubic(max(t, 0.1 * T), T, keep)),
        ("Your curve is a straight line; the schedule is cubic.",
         lambda t, T, keep: _cubic(min(max(t, 0.1 * T), 0.7 * T), T, keep, 1)),
        ("Your curve is a square; the schedule is cubic.",
         lambda t, T, keep: _cubic(min(max(t, 0.1 * T), 0.7 * T), T, keep, 2)),
        ("Your curve falls from step 0; the first 10 % of the steps stay dense.",
         lambda t, T, keep: _cubic(min(t, 0.7 * T), T, keep, start=0.0)),
    ],
)  # fmt: skip
def schedule_value(step: int, steps: int, keep: float) -> float:
    """v_t: 1 for the first 10 % of the steps, cubic down to keep at 70 %, constant after."""
    return schedule(step, steps, keep)


def _scores(*values: float) -> Tensor:
    return torch.tensor(values)


def _count(scores: Tensor, keep: float) -> int:
    return round(keep * len(scores))


@exercise(
    cases=[(_scores(0.1, 0.9, 0.3, 0.7), 0.5), (_scores(3, 1, 2, 2, 2, 0), 0.5),
           (_scores(5, 4, 3, 2, 1), 0.35), (_scores(1, 1, 1, 1, 1), 0.4)],
    hints=[
        ("A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
         lambda s, keep: s >= s.sort(descending=True).values[_count(s, keep) - 1]),
        ("A threshold with > loses a neuron; keep exactly round(keep * N).",
         lambda s, keep: s > s.sort(descending=True).values[_count(s, keep) - 1]),
        ("int() cuts the fraction off; keep exactly round(keep * N).",
         lambda s, keep: top(s, int(keep * len(s)))),
        ("You keep the lowest scores; a high score means stay.",
         lambda s, keep: top(-s, _count(s, keep))),
        ("Your ties go to the last neuron; they go to the first (a stable sort).",
         lambda s, keep: top(s.flip(0), _count(s, keep)).flip(0)),
        ("Those are the positions; a mask is one bool per neuron.",
         lambda s, keep: s.argsort(descending=True, stable=True)[: _count(s, keep)]),
    ],
)  # fmt: skip
def top_v(scores: Tensor, keep: float) -> Tensor:
    """Mask (N,) bool of exactly the round(keep * N) highest scores, ties to the first."""
    return top(scores, round(keep * len(scores)))


@exercise(
    cases=[([1.0, 2.0, 3.0],), ([1.57, 1.55, 1.59, 1.57],)],
    hints=[
        ("That is the spread of single runs; the error of their mean is smaller by sqrt(n).",
         lambda x: (statistics.mean(x), statistics.stdev(x))),
        ("Divide by n - 1 inside the spread: the mean was made from the same numbers.",
         lambda x: (statistics.mean(x), statistics.pstdev(x) / math.sqrt(len(x)))),
        ("Divide the spread by sqrt(n), not by n.",
         lambda x: (statistics.mean(x), statistics.stdev(x) / len(x))),
        ("That is the variance; take the root.",
         lambda x: (statistics.mean(x), statistics.variance(x) / math.sqrt(len(x)))),
    ],
)  # fmt: skip
def mean_and_error(losses: list[float]) -> tuple[float, float]:
    """The mean of some runs, and its standard error: the spread (n - 1) divided by sqrt(n)."""
    return statistics.mean(losses), statistics.stdev(losses) / math.sqrt(len(losses))
