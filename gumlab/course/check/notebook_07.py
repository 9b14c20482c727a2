"""Exercises of notebook 07, sensitivity and uniqueness."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.gram import cosine
from gumlab.inspection import unique

(_H,) = random_tensors((30, 4))
_H = torch.cat([_H + 0.5, _H[:, :1] + _H[:, 1:2]], 1)  # not centred; the last is near a sum
_GRAM = _H.T @ _H


@exercise(
    cases=[(_GRAM, 0, 1), (_GRAM, 4, 0), (torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), 0, 1)],
    hints=[
        ("You forgot the root: the length of h_i is sqrt(G_ii).",
         lambda g, i, j: float(g[i, j] / (g[i, i] * g[j, j]))),
        ("You divide by G_ii alone; both lengths belong below the line.",
         lambda g, i, j: float(g[i, j] / g[i, i])),
        ("A cosine has a sign; leave it there.", lambda g, i, j: abs(float(cosine(g)[i, j]))),
    ],
)  # fmt: skip
def cosine_of(gram: Tensor, i: int, j: int) -> float:
    """The cosine of two neurons from their layer's Gram matrix, G_ij / sqrt(G_ii G_jj)."""
    return float(cosine(gram)[i, j])


def _cosines(n: int, pairs: dict[tuple[int, int], float]) -> Tensor:
    c = torch.eye(n, dtype=torch.float64)
    for (i, j), value in pairs.items():
        c[i, j] = c[j, i] = value
    return c


def _share(alike: Tensor) -> float:
    """The share of neurons whose row of `alike`, (N, N) bool, has no True."""
    return float((~alike.any(1)).double().mean())


@exercise(
    cases=[(_cosines(4, {(0, 1): 0.9, (2, 3): 0.5}),), (_cosines(4, {(0, 3): 0.8}),),
           (_cosines(5, {(0, 1): -0.95, (2, 4): 0.85}),),
           (_cosines(5, {(0, 1): 0.9, (0, 2): 0.9, (0, 3): 0.9}),)],
    hints=[
        ("You count both neurons of a pair; only the one with a *later* partner is not unique.",
         lambda c: _share((c >= 0.8) & ~torch.eye(len(c), dtype=torch.bool))),
        ("The rule is signed: opposite neurons, at -0.95, are no pair.",
         lambda c: _share((c.abs() >= 0.8).triu(1))),
        ("Exactly 0.8 counts as alike: >=, not >.", lambda c: _share((c > 0.8).triu(1))),
        ("Everybody is like itself: leave the diagonal out.", lambda c: _share((c >= 0.8).triu(0))),
        ("You look at earlier partners; the rule looks at later ones, j > i.",
         lambda c: _share((c >= 0.8).tril(-1))),
        ("That is the share that is *not* unique.", lambda c: 1 - _share((c >= 0.8).triu(1))),
    ],
)  # fmt: skip
def share_unique(cosines: Tensor) -> float:
    """The share of neurons with no later neuron j > i at cosine 0.8 or more; cosines (N, N)."""
    return float(unique(cosines).double().mean())


def _r2(h: Tensor, i: int, others: Tensor) -> float:
    target = h[:, i : i + 1]
    rest = target - others @ torch.linalg.lstsq(others, target, driver="gelsd").solution
    return float(1 - rest.square().sum() / target.square().sum())


def _without(h: Tensor, i: int) -> Tensor:
    return h[:, torch.arange(h.shape[1]) != i]


@exercise(
    cases=[(_H, 0), (_H, 3), (_H[:, :4], 1), (_H[:, :2], 0)],
    hints=[
        ("The bug is still there: row i is a token. Neuron i is column i, still among the others.",
         lambda h, i: _r2(h, i, h.where(torch.arange(len(h))[:, None] != i, 0))),
        ("Neuron i is still among the others, and rebuilds itself: R2 is 1 for everybody.",
         lambda h, i: _r2(h, i, h)),
        ("Do not centre: a cosine and an R2 of activations are measured from zero.",
         lambda h, i: _r2(h - h.mean(0), i, _without(h - h.mean(0), i))),
        ("That is 1 - R2, the share that the others cannot rebuild.",
         lambda h, i: 1 - _r2(h, i, _without(h, i))),
    ],
)  # fmt: skip
def rebuilt(h: Tensor, i: int) -> float:
    """R2 of neuron i: the share of its energy that the others rebuild best; h (tokens, N)."""
    return _r2(h, i, _without(h, i))
