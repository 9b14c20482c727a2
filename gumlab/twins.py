"""The twin filter: of two alike neurons, the lower-scored goes to the back of the queue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gumlab.errors import GumlabError
from gumlab.statistics import cosine


def twin_pairs(gram: Tensor, threshold: float = 0.8) -> Tensor:
    """The pairs of neurons with |cosine| above `threshold`, each in both orders, (P, 2)."""
    return (cosine(gram).abs() > threshold).fill_diagonal_(False).nonzero()


def demote_twins(scores: Sequence[Tensor], pairs: Sequence[Tensor]) -> list[Tensor]:
    """The twin filter: a neuron with a higher-scored partner ranks behind all that have none.

    pairs: one (P, 2) tensor of `twin_pairs` per layer. Equal scores: the first is the higher. The
    demoted neurons keep their order. What comes back are ranks over all layers, in float64.
    """
    sizes = [len(s) for s in scores]  # ranks over all layers, ties included: sums lose no digit
    _, ranks = torch.cat([s.double() for s in scores]).unique(return_inverse=True)
    demoted = []
    for s, whole, pair in zip(scores, ranks.split(sizes), pairs, strict=True):
        one, partner = pair.unbind(1)
        rank = s.argsort(descending=True, stable=True).argsort()
        behind = torch.zeros_like(s, dtype=torch.bool)
        behind[one[rank[partner] < rank[one]]] = True
        demoted.append(whole.double() - sum(sizes) * behind)
    return demoted


def check_grams(grams: Sequence[Tensor], scores: Sequence[Tensor]) -> None:
    """Raise GumlabError unless there is one (N, N) matrix per layer of N scores."""
    shapes = [tuple(g.shape) for g in grams]
    if shapes != [(len(s), len(s)) for s in scores]:
        raise GumlabError(
            f"The Gram matrices have shapes {shapes}, the layers {[len(s) for s in scores]} "
            "neurons; expected one (N, N) matrix per layer, as in redundancy(...).gram."
        )
