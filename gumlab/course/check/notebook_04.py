"""Exercises of notebook 04, magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top

_INCOMING, _OUTGOING, _SQUARE_INCOMING, _SQUARE_OUTGOING = random_tensors(
    (6, 4), (6, 3), (3, 3), (3, 3)
)


def _norms(incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
    """Each neuron's norm in the two matrices, (N,) each."""
    return incoming.norm(dim=1), outgoing.norm(dim=1)


@exercise(
    cases=[
        (torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[12.0], [1.0]])),
        (_INCOMING, _OUTGOING),
        (_SQUARE_INCOMING, _SQUARE_OUTGOING),
    ],
    hints=[
        (
            "You forgot the root.",
            lambda incoming, outgoing: incoming.square().sum(1) + outgoing.square().sum(1),
        ),
        (
            "You add the two norms; add the squares of all weights, then take one root.",
            lambda incoming, outgoing: incoming.norm(dim=1) + outgoing.norm(dim=1),
        ),
        (
            "You add absolute values (L1); L2 adds squares and takes the root.",
            lambda incoming, outgoing: incoming.abs().sum(1) + outgoing.abs().sum(1),
        ),
        ("The outgoing weights are missing.", lambda incoming, outgoing: incoming.norm(dim=1)),
        ("The incoming weights are missing.", lambda incoming, outgoing: outgoing.norm(dim=1)),
        (
            "You add up columns; a neuron is a row: sum over dim=1.",
            lambda incoming, outgoing: (incoming.square().sum(0) + outgoing.square().sum(0)).sqrt(),
        ),
    ],
)
def neuron_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Give the magnitude of each neuron.

    Parameters
    ----------
    incoming, outgoing : Tensor
        The weights, (N, K) and (N, D), a row for each neuron.

    Returns
    -------
    Tensor
        sqrt(||W_in,i||^2 + ||w_i||^2), (N,).
    """
    return torch.hypot(*_norms(incoming, outgoing))


def _both(norm_in: Tensor, norm_out: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The masks of the two matrices, each by its own norms."""
    count = round(keep * len(norm_in))
    return top(norm_in, count), top(norm_out, count)


@exercise(
    cases=[
        (torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5),
        (torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), 0.4),
        (_INCOMING.norm(dim=1), _OUTGOING.norm(dim=1), 0.6),
    ],
    hints=[
        (
            "Those keep at least one side; whole means both sides.",
            lambda norm_in, norm_out, keep: torch.logical_or(*_both(norm_in, norm_out, keep)),
        ),
        (
            "Those keep one side alone; whole means both sides.",
            lambda norm_in, norm_out, keep: torch.logical_xor(*_both(norm_in, norm_out, keep)),
        ),
        (
            "You rank the neuron as one, as gumlab does; here each matrix ranks by its own norms.",
            lambda norm_in, norm_out, keep: top(
                torch.hypot(norm_in, norm_out), round(keep * len(norm_in))
            ),
        ),
        (
            "That is the mask of the incoming matrix alone.",
            lambda norm_in, norm_out, keep: _both(norm_in, norm_out, keep)[0],
        ),
        (
            "That is the mask of the outgoing matrix alone.",
            lambda norm_in, norm_out, keep: _both(norm_in, norm_out, keep)[1],
        ),
        (
            "You keep the smallest norms; a large norm means stay.",
            lambda norm_in, norm_out, keep: torch.logical_and(*_both(-norm_in, -norm_out, keep)),
        ),
        (
            "That is how many; return the mask, one bool per neuron.",
            lambda norm_in, norm_out, keep: int(
                torch.logical_and(*_both(norm_in, norm_out, keep)).sum()
            ),
        ),
    ],
)
def stay_whole(norm_in: Tensor, norm_out: Tensor, keep: float) -> Tensor:
    """Find the neurons that stay whole when each matrix is pruned by itself.

    Parameters
    ----------
    norm_in, norm_out : Tensor
        The norm of each neuron's incoming and of its outgoing weights, (N,) each.
    keep : float
        The fraction of neurons that each matrix keeps.

    Returns
    -------
    Tensor
        The mask, (N,) bool, of the neurons that both matrices keep.
    """
    return torch.logical_and(*_both(norm_in, norm_out, keep))


@exercise(
    cases=[
        (torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[10.0], [2.0]])),
        (_INCOMING, _OUTGOING),
    ],
    hints=[
        (
            "You take the smallest sum of squares, 2 I O; a magnitude is its root.",
            lambda incoming, outgoing: 2 * incoming.norm(dim=1) * outgoing.norm(dim=1),
        ),
        (
            "I O gives the same ranks, but it is no magnitude: put the best a into the formula.",
            lambda incoming, outgoing: incoming.norm(dim=1) * outgoing.norm(dim=1),
        ),
        (
            "At the best a the two sides are equal, I O each; both belong under the root.",
            lambda incoming, outgoing: (incoming.norm(dim=1) * outgoing.norm(dim=1)).sqrt(),
        ),
        (
            "You made the incoming norm 1. That is one rescaling, not the one with the least "
            "weight.",
            lambda incoming, outgoing: torch.hypot(
                torch.ones(len(incoming)), incoming.norm(dim=1) * outgoing.norm(dim=1)
            ),
        ),
        (
            "That is the magnitude as it stands, a = 1; look for the best a.",
            lambda incoming, outgoing: torch.hypot(*_norms(incoming, outgoing)),
        ),
        (
            "The smaller of the two norms changes with a as well.",
            lambda incoming, outgoing: torch.minimum(*_norms(incoming, outgoing)),
        ),
    ],
)
def smallest_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Give the least magnitude that rescaling can give each neuron.

    Parameters
    ----------
    incoming, outgoing : Tensor
        The weights, (N, K) and (N, D), a row for each neuron. A rescaling multiplies a
        neuron's incoming weights by some a > 0 and divides its outgoing weights by it.

    Returns
    -------
    Tensor
        The least magnitude, sqrt(2 I O) with the norms I and O, (N,).
    """
    norm_in, norm_out = _norms(incoming, outgoing)
    return (2 * norm_in * norm_out).sqrt()
