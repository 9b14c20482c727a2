"""Exercises of notebook 04, magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top

_IN, _OUT, _SQUARE_IN, _SQUARE_OUT = random_tensors((6, 4), (6, 3), (3, 3), (3, 3))


def _norms(incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
    return incoming.norm(dim=1), outgoing.norm(dim=1)


@exercise(
    cases=[(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[12.0], [1.0]])), (_IN, _OUT),
           (_SQUARE_IN, _SQUARE_OUT)],
    hints=[
        ("You forgot the root.", lambda a, b: a.square().sum(1) + b.square().sum(1)),
        ("You add the two norms; add the squares of all weights, then take one root.",
         lambda a, b: a.norm(dim=1) + b.norm(dim=1)),
        ("You add absolute values (L1); L2 adds squares and takes the root.",
         lambda a, b: a.abs().sum(1) + b.abs().sum(1)),
        ("The outgoing weights are missing.", lambda a, b: a.norm(dim=1)),
        ("The incoming weights are missing.", lambda a, b: b.norm(dim=1)),
        ("You add up columns; a neuron is a row: sum over dim=1.",
         lambda a, b: (a.square().sum(0) + b.square().sum(0)).sqrt()),
    ],
)  # fmt: skip
def neuron_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """sqrt(||W_in,i||^2 + ||w_i||^2), (N,); a row of each matrix belongs to one neuron."""
    return torch.hypot(*_norms(incoming, outgoing))


def _both(a: Tensor, b: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The masks of the two matrices, each by its own norms."""
    count = round(keep * len(a))
    return top(a, count), top(b, count)


@exercise(
    cases=[(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5),
           (torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), 0.4),
           (_IN.norm(dim=1), _OUT.norm(dim=1), 0.6)],
    hints=[
        ("Those keep at least one side; whole means both sides.",
         lambda a, b, keep: torch.logical_or(*_both(a, b, keep))),
        ("Those keep one side alone; whole means both sides.",
         lambda a, b, keep: torch.logical_xor(*_both(a, b, keep))),
        ("You rank the neuron as one, as gumlab does; here each matrix ranks by its own norms.",
         lambda a, b, keep: top(torch.hypot(a, b), round(keep * len(a)))),
        ("That is the mask of the incoming matrix alone.", lambda a, b, keep: _both(a, b, keep)[0]),
        ("That is the mask of the outgoing matrix alone.", lambda a, b, keep: _both(a, b, keep)[1]),
        ("You keep the smallest norms; a large norm means stay.",
         lambda a, b, keep: torch.logical_and(*_both(-a, -b, keep))),
        ("That is how many; return the mask, one bool per neuron.",
         lambda a, b, keep: int(torch.logical_and(*_both(a, b, keep)).sum())),
    ],
)  # fmt: skip
def stay_whole(norm_in: Tensor, norm_out: Tensor, keep: float) -> Tensor:
    """Mask (N,) bool of the neurons that both matrices keep, each by its own norms (N,)."""
    return torch.logical_and(*_both(norm_in, norm_out, keep))


@exercise(
    cases=[(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[10.0], [2.0]])), (_IN, _OUT)],
    hints=[
        ("You take the smallest sum of squares, 2 I O; a magnitude is its root.",
         lambda a, b: 2 * a.norm(dim=1) * b.norm(dim=1)),
        ("I O gives the same ranks, but it is no magnitude: put the best a into the formula.",
         lambda a, b: a.norm(dim=1) * b.norm(dim=1)),
        ("At the best a the two sides are equal, I O each; both belong under the root.",
         lambda a, b: (a.norm(dim=1) * b.norm(dim=1)).sqrt()),
        ("You made the incoming norm 1. That is one rescaling, not the one with the least weight.",
         lambda a, b: torch.hypot(torch.ones(len(a)), a.norm(dim=1) * b.norm(dim=1))),
        ("That is the magnitude as it stands, a = 1; look for the best a.",
         lambda a, b: torch.hypot(*_norms(a, b))),
        ("The smaller of the two norms changes with a as well.",
         lambda a, b: torch.minimum(*_norms(a, b))),
    ],
)  # fmt: skip
def smallest_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """The least magnitude that a rescaling a > 0 of each neuron gives, sqrt(2 I O), (N,)."""
    i, o = _norms(incoming, outgoing)
    return (2 * i * o).sqrt()
