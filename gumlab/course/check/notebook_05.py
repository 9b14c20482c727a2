"""Exercises of notebook 05, movement."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top

S, W, G = random_tensors((4,), (4, 4), (4, 4))
S3, W3, G3 = random_tensors((3,), (3, 5), (3, 5))


@exercise(
    cases=[(S, W, G, 0.1), (S3, W3, G3, 0.5)],
    hints=[
        ("The sign is wrong: the gradient points uphill, and the score goes down the loss.",
         lambda s, w, g, rate: s + rate * (w * g).sum(1)),
        ("Movement keeps the sign: |sum| would praise the neuron that the loss wants smaller.",
         lambda s, w, g, rate: s - rate * (w * g).sum(1).abs()),
        ("You forgot the weights: each gradient is multiplied by its own weight, then added up.",
         lambda s, w, g, rate: s - rate * g.sum(1)),
        ("You added up over the neurons; a neuron is a row, so add up along it.",
         lambda s, w, g, rate: s - rate * (w * g).sum(0)),
        ("Take the sum over the neuron's weights, not the mean.",
         lambda s, w, g, rate: s - rate * (w * g).mean(1)),
        ("You forgot the old score: movement accumulates.",
         lambda s, w, g, rate: -rate * (w * g).sum(1)),
        ("You forgot the rate.", lambda s, w, g, rate: s - (w * g).sum(1)),
    ],
)  # fmt: skip
def movement_update(scores: Tensor, weights: Tensor, grads: Tensor, rate: float) -> Tensor:
    """The scores (N,) after one step S <- S - rate * sum of w dL/dw. weights, grads: (N, K)."""
    return scores - rate * (weights * grads).sum(1)


H, BACK = random_tensors((2, 3, 4), (2, 3, 4))
SOME = torch.tensor([True, False, True, False])


@exercise(
    cases=[(H, SOME, BACK), (H, torch.ones(4, dtype=torch.bool), BACK)],
    hints=[
        ("h' = m h, so what flows back to h is m times the gradient: mask the first result.",
         lambda h, m, g: (g, (h * g).sum((0, 1)))),
        ("You masked the score's gradient: straight-through uses h, so the removed hear as well.",
         lambda h, m, g: (g * m, (h * m * g).sum((0, 1)))),
        ("The score has one number per neuron: add up over the batch and the tokens.",
         lambda h, m, g: (g * m, h * g)),
        ("You added up over the batch alone; the tokens are the second dimension.",
         lambda h, m, g: (g * m, (h * g).sum(0))),
        ("The score's gradient is h times the gradient: dh'/dm = h.",
         lambda h, m, g: (g * m, g.sum((0, 1)))),
        ("Add up, do not take the mean.", lambda h, m, g: (g * m, (h * g).mean((0, 1)))),
        ("The order is (to h, to the score).", lambda h, m, g: ((h * g).sum((0, 1)), g * m)),
    ],
)  # fmt: skip
def straight_through(h: Tensor, mask: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Backward of h' = m h: to h (B, T, N) and to the score (N,). grad: dL/dh', (B, T, N)."""
    return grad * mask, (h * grad).sum((0, 1))


def _ranked(scores: Tensor) -> Tensor:
    return scores.sort(descending=True).values


@exercise(
    cases=[(torch.tensor([0.1, 0.5, -0.2, 0.3, -0.4]), 0.4), (torch.zeros(4), 0.5),
           (torch.tensor([0.2, 0.0, 0.0, 0.0, -0.1]), 0.6), (torch.tensor([0.3, -0.1, 0.2]), 1.0)],
    hints=[
        ("The bug is still there: positions begin at 0, so ranked[count] has to leave already.",
         lambda s, v: s >= _ranked(s)[round(v * len(s))]),
        ("The count is right now, but a tie keeps everybody in it; take exactly `count`.",
         lambda s, v: s >= _ranked(s)[round(v * len(s)) - 1]),
        ("With > a tie loses everybody in it, and v = 1 has no next score; take exactly `count`.",
         lambda s, v: s > _ranked(s)[round(v * len(s))]),
        ("You keep the lowest scores.", lambda s, v: top(-s, round(v * len(s)))),
        ("Ties go to the first neuron; sort with stable=True.",
         lambda s, v: top(s.flip(0), round(v * len(s))).flip(0)),
    ],
)  # fmt: skip
def who_stays(scores: Tensor, v: float) -> Tensor:
    """Mask (N,) bool of exactly the round(v N) highest scores, ties to the first."""
    return top(scores, round(v * len(scores)))
