"""Exercises of notebook 05, movement."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top


@exercise(
    cases=[
        (*random_tensors((4,), (4, 4), (4, 4)), 0.1),
        (*random_tensors((3,), (3, 5), (3, 5)), 0.5),
    ],
    hints=[
        (
            "The sign is wrong: the gradient points uphill, and the score goes down the loss.",
            lambda scores, weights, grads, rate: scores + rate * (weights * grads).sum(1),
        ),
        (
            "Movement keeps the sign: |sum| would praise the neuron that the loss wants smaller.",
            lambda scores, weights, grads, rate: scores - rate * (weights * grads).sum(1).abs(),
        ),
        (
            "You forgot the weights: each gradient is multiplied by its own weight, then added up.",
            lambda scores, weights, grads, rate: scores - rate * grads.sum(1),
        ),
        (
            "You added up over the neurons; a neuron is a row, so add up along it.",
            lambda scores, weights, grads, rate: scores - rate * (weights * grads).sum(0),
        ),
        (
            "Take the sum over the neuron's weights, not the mean.",
            lambda scores, weights, grads, rate: scores - rate * (weights * grads).mean(1),
        ),
        (
            "You forgot the old score: movement accumulates.",
            lambda scores, weights, grads, rate: -rate * (weights * grads).sum(1),
        ),
        (
            "You forgot the rate.",
            lambda scores, weights, grads, rate: scores - (weights * grads).sum(1),
        ),
    ],
)
def movement_update(scores: Tensor, weights: Tensor, grads: Tensor, rate: float) -> Tensor:
    """Move the scores by one step of movement pruning.

    Parameters
    ----------
    scores : Tensor
        The scores S before the step, (N,).
    weights, grads : Tensor
        The neurons' weights and dL/dw, (N, K) each, a row for each neuron.
    rate : float
        The rate.

    Returns
    -------
    Tensor
        The scores after it, S - rate * (sum over a neuron's weights of w dL/dw), (N,).
    """
    return scores - rate * (weights * grads).sum(1)


_H, _GRAD = random_tensors((2, 3, 4), (2, 3, 4))


@exercise(
    cases=[
        (_H, torch.tensor([True, False, True, False]), _GRAD),
        (_H, torch.tensor([True, True, True, True]), _GRAD),
    ],
    hints=[
        (
            "h' = m h, so what flows back to h is m times the gradient: mask the first result.",
            lambda h, mask, grad: (grad, (h * grad).sum((0, 1))),
        ),
        (
            "You masked the score's gradient: straight-through uses h, so the removed hear as "
            "well.",
            lambda h, mask, grad: (grad * mask, (h * mask * grad).sum((0, 1))),
        ),
        (
            "The score has one number per neuron: add up over the batch and the tokens.",
            lambda h, mask, grad: (grad * mask, h * grad),
        ),
        (
            "You added up over the batch alone; the tokens are the second dimension.",
            lambda h, mask, grad: (grad * mask, (h * grad).sum(0)),
        ),
        (
            "The score's gradient is h times the gradient: dh'/dm = h.",
            lambda h, mask, grad: (grad * mask, grad.sum((0, 1))),
        ),
        (
            "Add up, do not take the mean.",
            lambda h, mask, grad: (grad * mask, (h * grad).mean((0, 1))),
        ),
        (
            "The order is (to h, to the score).",
            lambda h, mask, grad: ((h * grad).sum((0, 1)), grad * mask),
        ),
    ],
)
def straight_through(h: Tensor, mask: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradients behind a gate h' = m h, straight through to the score.

    Parameters
    ----------
    h : Tensor
        The activations, (B, T, N).
    mask : Tensor
        m, (N,) bool.
    grad : Tensor
        dL/dh', (B, T, N).

    Returns
    -------
    to_h : Tensor
        The gradient that goes on to h, (B, T, N).
    to_score : Tensor
        The gradient that the scores get, (N,).
    """
    return grad * mask, (h * grad).sum((0, 1))


def _ranked(scores: Tensor) -> Tensor:
    """The scores, the highest first."""
    return scores.sort(descending=True).values


def _count(scores: Tensor, v: float) -> int:
    """How many neurons stay."""
    return round(v * len(scores))


@exercise(
    cases=[
        (torch.tensor([0.1, 0.5, -0.2, 0.3, -0.4]), 0.4),
        (torch.zeros(4), 0.5),
        (torch.tensor([0.2, 0.0, 0.0, 0.0, -0.1]), 0.6),
        (torch.tensor([0.3, -0.1, 0.2]), 1.0),
    ],
    hints=[
        (
            "The bug is still there: positions begin at 0, so ranked[count] has to leave already.",
            lambda scores, v: scores >= _ranked(scores)[_count(scores, v)],
        ),
        (
            "The count is right now, but a tie keeps everybody in it; take exactly `count`.",
            lambda scores, v: scores >= _ranked(scores)[_count(scores, v) - 1],
        ),
        (
            "With > a tie loses everybody in it, and v = 1 has no next score; take exactly "
            "`count`.",
            lambda scores, v: scores > _ranked(scores)[_count(scores, v)],
        ),
        ("You keep the lowest scores.", lambda scores, v: top(-scores, _count(scores, v))),
        (
            "Ties go to the first neuron; sort with stable=True.",
            lambda scores, v: top(scores.flip(0), _count(scores, v)).flip(0),
        ),
    ],
)
def who_stays(scores: Tensor, v: float) -> Tensor:
    """Choose who stays at one step: the highest scores.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,).
    v : float
        v_t, the fraction of neurons that stays.

    Returns
    -------
    Tensor
        The mask, (N,) bool: exactly round(v N) are True, of a tie the first.
    """
    return top(scores, _count(scores, v))
