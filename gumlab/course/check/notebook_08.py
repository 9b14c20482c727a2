"""Exercises of notebook 08, GUM."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import cosine_matrix, exercise, random_tensors
from gumlab.gram import cosine
from gumlab.scoring import gum_factor, mean_similarity, penalty_gradient

_SCORE, _SIMILARITY = random_tensors((6,), (6,))


def _slope(score: Tensor) -> Tensor:
    """The derivative of the sigmoid."""
    return torch.sigmoid(score) * (1 - torch.sigmoid(score))


@exercise(
    cases=[
        (_SCORE, _SIMILARITY.abs(), 4.0, 2),
        (3 * _SCORE, _SIMILARITY.abs() / 9, 1.0, 5),
    ],
    hints=[
        (
            "q_i = 1 + lambda_gum u_i; without the 1, a neuron that is like nobody is never "
            "pressed.",
            lambda score, u, lambda_gum, layers: (
                lambda_gum * u * _slope(score) / (len(score) * layers)
            ),
        ),
        (
            "That is the penalty itself; its slope is q_i s (1 - s), s = sigmoid(S_i).",
            lambda score, u, lambda_gum, layers: (
                (1 + lambda_gum * u) * torch.sigmoid(score) / (len(score) * layers)
            ),
        ),
        (
            "R is a mean over the N neurons of the layer: divide by N.",
            lambda score, u, lambda_gum, layers: (1 + lambda_gum * u) * _slope(score) / layers,
        ),
        (
            "The loss holds the mean of R over the layers: divide by their number.",
            lambda score, u, lambda_gum, layers: (1 + lambda_gum * u) * _slope(score) / len(score),
        ),
        (
            "The sign: this is the slope of the penalty; it is the optimiser that goes down.",
            lambda score, u, lambda_gum, layers: (
                -(1 + lambda_gum * u) * _slope(score) / (len(score) * layers)
            ),
        ),
    ],
)
def gum_gradient(score: Tensor, u: Tensor, lambda_gum: float, layers: int) -> Tensor:
    """Give the slope of GUM's penalty on one layer's scores.

    Parameters
    ----------
    score : Tensor
        The scores S, (N,).
    u : Tensor
        How similar each neuron is to those that are kept, (N,).
    lambda_gum : float
        How much similarity counts: q_i = 1 + lambda_gum u_i.
    layers : int
        The number of layers L.

    Returns
    -------
    Tensor
        d/dS of the mean over the L layers of R = (1/N) sum of q_i sigmoid(S_i), (N,).
    """
    return penalty_gradient(score, gum_factor(u, lambda_gum), layers)


(_H,) = random_tensors((20, 5))
_GRAM = _H.T @ _H


@exercise(
    cases=[
        (_GRAM, torch.tensor([True, False, True, True, False])),
        (_GRAM, torch.tensor([True, True, True, True, True])),
        (_GRAM[1:, 1:], torch.tensor([True, False, False, True])),
    ],
    hints=[
        (
            "You count a kept neuron as its own neighbour; leave the diagonal out.",
            lambda gram, mask: (cosine(gram).abs() * mask).sum(1) / mask.sum(),
        ),
        (
            "Divide by the number of kept neurons, not by all N.",
            lambda gram, mask: mean_similarity(gram, mask) * mask.float().mean(),
        ),
        (
            "You took the signed cosine; opposite neurons are alike too, so take |cos|.",
            lambda gram, mask: (cosine(gram) * mask).fill_diagonal_(0).sum(1) / mask.sum(),
        ),
        (
            "You mean over all the others; removed neurons do not count.",
            lambda gram, mask: mean_similarity(gram, torch.ones_like(mask)),
        ),
        (
            "Removed neurons get their u as well: it presses on them while they are away.",
            lambda gram, mask: mean_similarity(gram, mask) * mask,
        ),
    ],
)
def similarity_to_kept(gram: Tensor, mask: Tensor) -> Tensor:
    """Give u, how similar each neuron is to those that are kept.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N).
    mask : Tensor
        (N,) bool, True for a neuron that is kept.

    Returns
    -------
    Tensor
        u_i = (sum over kept j != i of |cos_ij|) / (number kept), (N,).
    """
    return mean_similarity(gram, mask)


def _alike(cosines: Tensor) -> Tensor:
    """Which pairs are twins, (N, N) bool."""
    return (cosines.abs() > 0.8).fill_diagonal_(False)


def _behind(scores: Tensor, cosines: Tensor) -> Tensor:
    """Who has a twin before it in the ranking, (N,) bool."""
    rank = scores.argsort(descending=True, stable=True).argsort()
    partner_is_before = rank[None] < rank[:, None]
    return (_alike(cosines) & partner_is_before).any(1)


@exercise(
    cases=[
        (torch.tensor([0.1, 0.9, 0.5, 0.4]), cosine_matrix(4, {(0, 1): 0.9, (2, 3): 0.3})),
        (torch.tensor([0.3, 0.1, 0.2]), cosine_matrix(3, {(0, 1): -0.95, (1, 2): 0.85})),
        (torch.tensor([0.5, 0.5, 0.2, 0.5]), cosine_matrix(4, {(0, 1): 0.99, (2, 3): -0.9})),
    ],
    hints=[
        (
            "The bug is still there: both twins go to the back. Only the lower-scored one should.",
            lambda scores, cosines: _alike(cosines).any(1),
        ),
        (
            "Of two equal scores neither goes back, so both may stay; the first one is the higher.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] > scores[:, None])).any(1),
        ),
        (
            "Of two equal scores both go back; the first one is the higher, and stays in front.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] >= scores[:, None])).any(1),
        ),
        (
            "It is the *lower*-scored twin that goes to the back.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] < scores[:, None])).any(1),
        ),
        (
            "|cosine|: an opposite neuron says the same with the other sign.",
            lambda scores, cosines: _behind(scores, cosines.clamp_min(0)),
        ),
    ],
)
def behind_its_twin(scores: Tensor, cosines: Tensor) -> Tensor:
    """Find the neurons that the twin filter sends to the back of the queue.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,).
    cosines : Tensor
        The signed cosine of every pair of neurons, (N, N).

    Returns
    -------
    Tensor
        (N,) bool, True for a neuron with a higher-scored partner at |cosine| above 0.8; of
        equal scores the first is the higher.
    """
    return _behind(scores, cosines)
