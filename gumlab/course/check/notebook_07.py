"""Exercises of notebook 07, sensitivity and uniqueness."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import cosine_matrix, exercise, random_tensors
from gumlab.gram import cosine
from gumlab.inspection import unique

(_NOISE,) = random_tensors((30, 4))
_SUM = _NOISE[:, :1] + _NOISE[:, 1:2]
_H = torch.cat([_NOISE + 0.5, _SUM], 1)  # not centred; the last neuron is near a sum of two
_GRAM = _H.T @ _H


@exercise(
    cases=[(_GRAM, 0, 1), (_GRAM, 4, 0), (torch.tensor([[4.0, -3.0], [-3.0, 9.0]]), 0, 1)],
    hints=[
        (
            "You forgot the root: the length of h_i is sqrt(G_ii).",
            lambda gram, i, j: float(gram[i, j] / (gram[i, i] * gram[j, j])),
        ),
        (
            "You divide by G_ii alone; both lengths belong below the line.",
            lambda gram, i, j: float(gram[i, j] / gram[i, i]),
        ),
        ("A cosine has a sign; leave it there.", lambda gram, i, j: abs(float(cosine(gram)[i, j]))),
    ],
)
def cosine_of(gram: Tensor, i: int, j: int) -> float:
    """Give the cosine of two neurons' activations.

    Parameters
    ----------
    gram : Tensor
        Their layer's Gram matrix G, (N, N).
    i, j : int
        The neurons.

    Returns
    -------
    float
        G_ij / sqrt(G_ii G_jj), with its sign.
    """
    return float(cosine(gram)[i, j])


def _cosines(neurons: int, pairs: dict[tuple[int, int], float]) -> Tensor:
    """Cosines in double precision, in which 0.8 is the threshold to the last digit."""
    return cosine_matrix(neurons, pairs, dtype=torch.float64)


def _share(alike: Tensor) -> float:
    """The share of neurons whose row of `alike`, (N, N) bool, has no True."""
    return float((~alike.any(1)).double().mean())


@exercise(
    cases=[
        (_cosines(4, {(0, 1): 0.9, (2, 3): 0.5}),),
        (_cosines(4, {(0, 3): 0.8}),),
        (_cosines(5, {(0, 1): -0.95, (2, 4): 0.85}),),
        (_cosines(5, {(0, 1): 0.9, (0, 2): 0.9, (0, 3): 0.9}),),
    ],
    hints=[
        (
            "You count both neurons of a pair; only the one with a *later* partner is not unique.",
            lambda cosines: _share((cosines >= 0.8) & ~torch.eye(len(cosines), dtype=torch.bool)),
        ),
        (
            "The rule is signed: opposite neurons, at -0.95, are no pair.",
            lambda cosines: _share((cosines.abs() >= 0.8).triu(1)),
        ),
        (
            "Exactly 0.8 counts as alike: >=, not >.",
            lambda cosines: _share((cosines > 0.8).triu(1)),
        ),
        (
            "Everybody is like itself: leave the diagonal out.",
            lambda cosines: _share((cosines >= 0.8).triu(0)),
        ),
        (
            "You look at earlier partners; the rule looks at later ones, j > i.",
            lambda cosines: _share((cosines >= 0.8).tril(-1)),
        ),
        (
            "That is the share that is *not* unique.",
            lambda cosines: 1 - _share((cosines >= 0.8).triu(1)),
        ),
    ],
)
def share_unique(cosines: Tensor) -> float:
    """Give the share of a layer's neurons that are unique, as the paper counts.

    Parameters
    ----------
    cosines : Tensor
        The signed cosine of every pair of neurons, (N, N).

    Returns
    -------
    float
        The share of neurons i with no later neuron j > i at cosine 0.8 or more.
    """
    return float(unique(cosines).double().mean())


def _r2(h: Tensor, i: int, others: Tensor) -> float:
    """The share of neuron i's energy that a least-squares fit on `others`, (tokens, k), has."""
    target = h[:, i : i + 1]
    weights = torch.linalg.lstsq(others, target, driver="gelsd").solution
    rest = target - others @ weights
    return float(1 - rest.square().sum() / target.square().sum())


def _without(h: Tensor, i: int) -> Tensor:
    """The activations of all neurons but i."""
    return h[:, torch.arange(h.shape[1]) != i]


@exercise(
    cases=[(_H, 0), (_H, 3), (_H[:, :4], 1), (_H[:, :2], 0)],
    hints=[
        (
            "The bug is still there: row i is a token. Neuron i is column i, still among the "
            "others.",
            lambda h, i: _r2(h, i, h.where(torch.arange(len(h))[:, None] != i, 0)),
        ),
        (
            "Neuron i is still among the others, and rebuilds itself: R2 is 1 for everybody.",
            lambda h, i: _r2(h, i, h),
        ),
        (
            "Do not centre: a cosine and an R2 of activations are measured from zero.",
            lambda h, i: _r2(h - h.mean(0), i, _without(h - h.mean(0), i)),
        ),
        (
            "That is 1 - R2, the share that the others cannot rebuild.",
            lambda h, i: 1 - _r2(h, i, _without(h, i)),
        ),
    ],
)
def rebuilt(h: Tensor, i: int) -> float:
    """Give R2 of a neuron: how much of it the others rebuild.

    Parameters
    ----------
    h : Tensor
        The layer's activations, (tokens, N).
    i : int
        The neuron.

    Returns
    -------
    float
        The share of its energy, sum over tokens of h_i^2, that the best combination of all
        others rebuilds.
    """
    return _r2(h, i, _without(h, i))
