"""Exercises of notebook 08, GUM."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.gram import cosine
from gumlab.scoring import gum_factor, mean_similarity, penalty_gradient

_S, _U = random_tensors((6,), (6,))


def _slope(score: Tensor) -> Tensor:
    return torch.sigmoid(score) * (1 - torch.sigmoid(score))


@exercise(
    cases=[(_S, _U.abs(), 4.0, 2), (3 * _S, _U.abs() / 9, 1.0, 5)],
    hints=[
        ("q_i = 1 + lambda_gum u_i; without the 1, a neuron that is like nobody is never pressed.",
         lambda s, u, x, n: x * u * _slope(s) / (len(s) * n)),
        ("That is the penalty itself; its slope is q_i s (1 - s), s = sigmoid(S_i).",
         lambda s, u, x, n: (1 + x * u) * torch.sigmoid(s) / (len(s) * n)),
        ("R is a mean over the N neurons of the layer: divide by N.",
         lambda s, u, x, n: (1 + x * u) * _slope(s) / n),
        ("The loss holds the mean of R over the layers: divide by their number.",
         lambda s, u, x, n: (1 + x * u) * _slope(s) / len(s)),
        ("The sign: this is the slope of the penalty; it is the optimiser that goes down.",
         lambda s, u, x, n: -(1 + x * u) * _slope(s) / (len(s) * n)),
    ],
)  # fmt: skip
def gum_gradient(score: Tensor, u: Tensor, lambda_gum: float, layers: int) -> Tensor:
    """d/dS of the mean over `layers` of R = (1/N) sum of q_i sigmoid(S_i), (N,)."""
    return penalty_gradient(score, gum_factor(u, lambda_gum), layers)


(_H,) = random_tensors((20, 5))
_GRAM, _KEPT = _H.T @ _H, torch.tensor([True, False, True, True, False])
_FEW = torch.tensor([False, True, False, False, True])


@exercise(
    cases=[(_GRAM, _KEPT), (_GRAM, torch.ones(5, dtype=torch.bool)), (_GRAM[1:, 1:], _FEW[1:])],
    hints=[
        ("You count a kept neuron as its own neighbour; leave the diagonal out.",
         lambda g, m: (cosine(g).abs() * m).sum(1) / m.sum()),
        ("Divide by the number of kept neurons, not by all N.",
         lambda g, m: mean_similarity(g, m) * m.float().mean()),
        ("You took the signed cosine; opposite neurons are alike too, so take |cos|.",
         lambda g, m: (cosine(g) * m).fill_diagonal_(0).sum(1) / m.sum()),
        ("You mean over all the others; removed neurons do not count.",
         lambda g, m: mean_similarity(g, torch.ones_like(m))),
        ("Removed neurons get their u as well: it presses on them while they are away.",
         lambda g, m: mean_similarity(g, m) * m),
    ],
)  # fmt: skip
def similarity_to_kept(gram: Tensor, mask: Tensor) -> Tensor:
    """u_i = sum over kept j != i of |cos_ij|, divided by the number kept; gram (N, N), (N,)."""
    return mean_similarity(gram, mask)


def _alike(cosines: Tensor) -> Tensor:
    return (cosines.abs() > 0.8).fill_diagonal_(False)


def _behind(scores: Tensor, cosines: Tensor) -> Tensor:
    rank = scores.argsort(descending=True, stable=True).argsort()
    return (_alike(cosines) & (rank[None] < rank[:, None])).any(1)


def _pairs(n: int, pairs: dict[tuple[int, int], float]) -> Tensor:
    c = torch.eye(n)
    for (i, j), value in pairs.items():
        c[i, j] = c[j, i] = value
    return c


@exercise(
    cases=[(torch.tensor([0.1, 0.9, 0.5, 0.4]), _pairs(4, {(0, 1): 0.9, (2, 3): 0.3})),
           (torch.tensor([0.3, 0.1, 0.2]), _pairs(3, {(0, 1): -0.95, (1, 2): 0.85})),
           (torch.tensor([0.5, 0.5, 0.2, 0.5]), _pairs(4, {(0, 1): 0.99, (2, 3): -0.9}))],
    hints=[
        ("The bug is still there: both twins go to the back. Only the lower-scored one should.",
         lambda s, c: _alike(c).any(1)),
        ("Of two equal scores neither goes back, so both may stay; the first one is the higher.",
         lambda s, c: (_alike(c) & (s[None] > s[:, None])).any(1)),
        ("Of two equal scores both go back; the first one is the higher, and stays in front.",
         lambda s, c: (_alike(c) & (s[None] >= s[:, None])).any(1)),
        ("It is the *lower*-scored twin that goes to the back.",
         lambda s, c: (_alike(c) & (s[None] < s[:, None])).any(1)),
        ("|cosine|: an opposite neuron says the same with the other sign.",
         lambda s, c: _behind(s, c.clamp_min(0))),
    ],
)  # fmt: skip
def behind_its_twin(scores: Tensor, cosines: Tensor) -> Tensor:
    """True, (N,), for a neuron with a higher-scored partner at |cosine| above 0.8; ties: first."""
    return _behind(scores, cosines)
