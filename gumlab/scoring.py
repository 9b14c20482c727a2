"""How much each neuron matters: every criterion as its formula, high = keep.

Three families. Scores read off the weights (random, magnitude) are functions of the model. Scores
without training need one pass over data (`statistics.collect`). Learned scores (movement, soft
movement, GUM) are a variable S that follows a gradient while the model trains; their formulas are
here, `pruner` applies them step by step. w_i is a neuron's row of outgoing weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, collect, one_by_one
from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import FeedForward, neurons
from gumlab.gram import RIDGE, inverse, unrebuilt
from gumlab.tasks import Example, Task


def random_scores(layers: Sequence[FeedForward], seed: int = 0) -> list[Tensor]:
    """S_i uniform in (-1, 1), drawn once (PAPER: gradual random, the honest baseline)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(layer.width, generator=generator) * 2 - 1 for layer in layers]


def magnitude(layer: FeedForward) -> Tensor:
    """L2 magnitude, (N,): || all weights of the neuron || = sqrt(||W_in,i||^2 + ||w_i||^2).

    The reference code masks the two matrices by their own norms, so that a neuron may lose one
    side only; here a neuron stays or goes as a whole. Biases are left out, as there.
    """
    return torch.stack([w.detach().square().sum(1) for w in layer.maps()]).sum(0).sqrt().float()


def neuron_gradient(layer: FeedForward, mask: Tensor) -> Tensor:
    """Movement by the reference code: dL/dS_i = sum over the neuron's weights of w dL/dw, (N,).

    Incoming and outgoing weights, biases left out. A removed neuron has no gradient: it comes back
    only where others sink, or on the momentum of its last ones. Needs a backward pass's gradients.
    """
    pairs = zip(layer.maps(), layer.maps(grad=True), strict=True)
    return sum(torch.linalg.vecdot(w.detach(), g) for w, g in pairs).mul(mask).float()


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
    sums = torch.cat([rows.abs() @ kept for rows in gram.split(256)])  # |G| would not fit a cache
    return inverse * (sums - energy * kept) / mask.sum()


def activation_norm(layer: FeedForward, found: Statistics) -> Tensor:
    """||h_i|| over the tokens, (N,)."""
    return found.energy.sqrt()


def wanda(layer: FeedForward, found: Statistics) -> Tensor:
    """Wanda-sp: (mean over j of |w_ij|) * ||h_i||, (N,) (Sun et al. 2023; An et al. 2023)."""
    return layer.outgoing().abs().mean(1).detach().float() * found.energy.sqrt()


def flap(layer: FeedForward, found: Statistics) -> Tensor:
    """FLAP: Var(h_i) * ||w_i||^2, (N,) (An et al. 2023); its bias compensation is
    `shrink(..., refit="bias")`."""
    variance = found.energy / found.tokens - found.mean.square()
    return variance.clamp_min(0) * squared_norm(layer)


def taylor(layer: FeedForward, found: Statistics) -> Tensor:
    """First-order Taylor: the sensitivity, mean over sequences of |sum of w dL/dw|, (N,)."""
    return found.sensitivity


def fisher(layer: FeedForward, found: Statistics) -> Tensor:
    """Mask Fisher: mean over sequences of (dL/dm_i)^2, (N,) (Kwon et al. 2022)."""
    return found.fisher


def minitron(layer: FeedForward, found: Statistics) -> Tensor:
    """Root of the sum over sequences of (mean over tokens of |h_i|)^2, (N,) (Muralidharan 2024)."""
    return found.squared_means.sqrt()


def peak_to_peak(layer: FeedForward, found: Statistics) -> Tensor:
    """max h_i - min h_i over the tokens, (N,)."""
    return found.high - found.low


def obs(layer: FeedForward, found: Statistics, ridge: float = RIDGE) -> Tensor:
    """Optimal Brain Surgeon: ||w_i||^2 / [G^-1]_ii, (N,): used times exactly unique.

    ||w_i||^2 G_ii says how much the neuron is used, 1 - R2_i = 1 / (G_ii [G^-1]_ii) how little of
    it the others can rebuild. The product is the squared error of the layer's output, summed over
    the tokens, after neuron i is deleted and the others' outgoing weights are refitted (with the
    ridge as part of G). GUM's mean |cosine| is a cheap, pairwise stand-in for the second factor.
    """
    return (squared_norm(layer) * unrebuilt(found.gram, ridge)).float()


def greedy_obs(layer: FeedForward, found: Statistics, ridge: float = RIDGE) -> Tensor:
    """OBS one neuron at a time: remove the cheapest, refit, downdate G^-1, and go on, (N,).

    Both factors of ||w_i||^2 / [G^-1]_ii follow the removals: w_i takes over what the removed ones
    did, G^-1 becomes that of the neurons left. A neuron's score is the largest error of a single
    removal up to its own, so the order of removal is kept and scores of several layers share one
    scale (error energy, summed over the tokens).
    """
    h, w = inverse(found.gram, ridge), layer.outgoing().detach().double().clone()
    left = torch.arange(len(h), device=h.device)  # the neuron of each row of h and w
    score, worst = torch.zeros(len(h), dtype=h.dtype, device=h.device), 0.0
    while len(left):
        gone = torch.zeros(len(left), dtype=torch.bool, device=h.device)
        for _ in range(-(-len(left) // 8)):  # then drop the rows that are zero by now
            cost = torch.where(gone, torch.inf, w.square().sum(1) / h.diagonal())
            i = int(cost.argmin())
            worst = max(worst * (1 + 1e-9), float(cost[i]))  # later removals rank above earlier
            score[left[i]], gone[i] = worst, True
            column = h[:, i] / h[i, i]
            w -= torch.outer(column, w[i])  # the others take over what neuron i did
            h -= torch.outer(column, h[i].clone())
            h[i], h[:, i], h[i, i], w[i] = 0.0, 0.0, 1.0, 0.0
        left, h, w = left[~gone], h[~gone][:, ~gone], w[~gone]
    return score


def squared_norm(layer: FeedForward) -> Tensor:
    """||w_i||^2 of the outgoing weights, (N,)."""
    return layer.outgoing().detach().float().square().sum(1)


WEIGHT_SCORES: dict[str, Callable[[FeedForward], Tensor]] = {"magnitude": magnitude}
Criterion = Callable[[FeedForward, Statistics], Tensor]
DATA_SCORES: dict[str, Criterion] = {
    "activation_norm": activation_norm,
    "wanda": wanda,
    "flap": flap,
    "taylor": taylor,
    "fisher": fisher,
    "minitron": minitron,
    "peak_to_peak": peak_to_peak,
    "obs": obs,
    "greedy_obs": greedy_obs,
}
NEED_GRADIENTS = ("taylor", "fisher")
LEARNED = ("movement", "soft_movement", "gum")
SCORES = ("random", *WEIGHT_SCORES, *DATA_SCORES)


def score(
    model: nn.Module,
    method: str | Criterion,
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> list[Tensor]:
    """One score per neuron, a list of (N,) float tensors, one per layer; high = keep.

    method: "random" and "magnitude" need no data; the scores without training (DATA_SCORES) need
    tokenizer and task, and take the options of `statistics.collect` (split, limit, batch_size).
    A criterion of your own is a function (layer, `Statistics`) -> (N,), all of it filled in.
    Movement and GUM learn their scores during training: use `gumlab.Pruner`. Raises GumlabError
    for an unknown name, missing data, or a criterion that returns something else.
    """
    layers = neurons(model)
    if method in LEARNED:
        raise GumlabError(
            f"Method {method!r} learns its scores while the model trains. Use "
            f"gumlab.Pruner(model, {method!r}, ...) with gumlab.train, then pruner.scores."
        )
    if method == "random":
        return [s.to(layers[0].proj.weight.device) for s in random_scores(layers, seed)]
    if method in WEIGHT_SCORES:
        return [WEIGHT_SCORES[method](layer) for layer in layers]
    own = callable(method)
    if not own and method not in DATA_SCORES:
        raise unknown("method", method, SCORES + LEARNED)
    if tokenizer is None or task is None:
        name = "your criterion" if own else repr(method)
        raise GumlabError(
            f"Method {name} is measured on data. Give them: "
            f"gumlab.score(model, {name}, tokenizer, task)."
        )
    gradients = options.pop("gradients", own or method in NEED_GRADIENTS)
    measure = partial(collect, gradients=True) if gradients else one_by_one
    found = measure(model, tokenizer, task, **options)
    criterion = DATA_SCORES[method] if isinstance(method, str) else _checked(method)
    return [criterion(layer, f) for layer, f in zip(layers, found, strict=True)]


def _checked(criterion: Criterion) -> Criterion:
    """A user's criterion that says so where it returns anything but one number per neuron."""

    def scored(layer: FeedForward, found: Statistics) -> Tensor:
        mine = criterion(layer, found)
        if isinstance(mine, Tensor) and mine.shape == (layer.width,) and not mine.isnan().any():
            return mine.detach().float()
        got = f"shape {tuple(mine.shape)}" if isinstance(mine, Tensor) else type(mine).__name__
        raise GumlabError(
            f"A criterion returns one number per neuron, a tensor of shape ({layer.width},) "
            f"without NaN; yours gave {got}. Mind the axis it sums over, and 0 / 0."
        )

    return scored
