"""How much each neuron matters: every criterion as its formula, high = keep.

Two families. Scores read off the weights (random, magnitude) are functions of the model. Learned
scores (movement, soft movement, GUM) are a variable S that follows a gradient while the model
trains; their formulas are here, `pruner` applies them step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import FeedForward, neurons


def random_scores(layers: Sequence[FeedForward], seed: int = 0) -> list[Tensor]:
    """S_i uniform in (-1, 1), drawn once (PAPER: gradual random, the honest baseline)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(layer.width, generator=generator) * 2 - 1 for layer in layers]


def magnitude(layer: FeedForward) -> Tensor:
    """L2 magnitude, (N,): || all weights of the neuron || = sqrt(||W_in,i||^2 + ||w_i||^2).

    The reference code masks the two matrices by their own norms, so that a neuron may lose one
    side only; here a neuron stays or goes as a whole. Biases are left out, as there.
    """
    squares = [layer.incoming().pow(2).sum(1), layer.outgoing().pow(2).sum(1)]
    return sum(squares).sqrt().detach().float()


def neuron_gradient(layer: FeedForward, mask: Tensor) -> Tensor:
    """Movement by the reference code: dL/dS_i = sum over the neuron's weights of w dL/dw, (N,).

    Incoming and outgoing weights, biases left out. A removed neuron has no gradient, so it can
    only come back because others sink. Needs the gradients of a backward pass.
    """
    incoming = (layer.incoming() * layer.incoming(grad=True)).sum(1)
    outgoing = torch.linalg.vecdot(layer.outgoing(), layer.outgoing(grad=True))
    return ((incoming + outgoing) * mask).detach().float()


def penalty_gradient(score: Tensor, q: Tensor | float, layers: int) -> Tensor:
    """d/dS of the mean over layers of R = (1/N) sum_i q_i sigmoid(S_i), (N,); q fixed.

    q = 1 is the plain L1 penalty of soft movement; GUM's q_i is `gum_factor`.
    """
    s = torch.sigmoid(score)
    return q * s * (1 - s) / (len(score) * layers)


def gum_factor(similarity: Tensor, lambda_gum: float) -> Tensor:
    """GUM's weight of each neuron's penalty, (N,): q_i = 1 + lambda_gum u_i.

    similarity: u, (N,), a neuron's mean |cosine| with the kept neurons of its layer.
    """
    return 1 + lambda_gum * similarity


def mean_similarity(gram: Tensor, mask: Tensor) -> Tensor:
    """u_i = sum over kept j != i of |G_ij| / (sqrt(G_ii G_jj)) / (number kept), (N,).

    gram: (N, N), mask: (N,). The reference code divides by H v_t, the same number. A dead neuron
    (G_ii = 0) is similar to nothing.
    """
    energy = gram.diagonal()
    inverse = torch.where(energy > 0, energy.clamp_min(1e-30).rsqrt(), 0.0)
    kept = inverse * mask
    return inverse * (gram.abs() @ kept - energy * kept) / mask.sum()


WEIGHT_SCORES: dict[str, Callable[[FeedForward], Tensor]] = {"magnitude": magnitude}
LEARNED = ("movement", "soft_movement", "gum")
SCORES = ("random", *WEIGHT_SCORES)


def score(
    model: nn.Module, method: str, tokenizer=None, task=None, *, seed: int = 0
) -> list[Tensor]:
    """One score per neuron, a list of (N,) float tensors, one per layer; high = keep.

    method: "random" or "magnitude" (data-free: no tokenizer, no task needed). Movement and GUM
    learn their scores during training: use `gumlab.Pruner`. Raises GumlabError for an unknown name.
    """
    layers = neurons(model)
    if method in LEARNED:
        raise GumlabError(
            f"Method {method!r} learns its scores while the model trains. Use "
            f"gumlab.Pruner(model, {method!r}, ...) with gumlab.train, then pruner.scores."
        )
    if method == "random":
        return random_scores(layers, seed)
    if method not in WEIGHT_SCORES:
        raise unknown("method", method, SCORES + LEARNED)
    return [WEIGHT_SCORES[method](layer) for layer in layers]
