"""How much each neuron matters: every criterion as its formula, high = keep.

Three families. Scores read off the weights (random, magnitude) are functions of the model. Scores
without training need one pass over data (`collecting.collect`). Learned scores (movement, soft
movement, GUM) are a variable S that follows a gradient while the model trains; their formulas are
here, `rules` applies them step by step. w_i is a neuron's row of outgoing weights, D numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import (
    CURRENCIES,
    TOKENS,
    Calibration,
    Statistics,
    collect,
    currencies,
    one_by_one,
)
from gumlab.errors import GumlabError, check_choice, check_flag, check_seed, unknown
from gumlab.feedforward import FeedForward, check_values, neurons
from gumlab.gram import RIDGE, inverse, removal_costs, unrebuilt
from gumlab.offloading import held, is_offloaded
from gumlab.progress import shown
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import by_itself

Criterion = Callable[[FeedForward, Statistics], Tensor]


def random_scores(layers: Sequence[FeedForward], seed: int = 0) -> list[Tensor]:
    """S_i uniform in (-1, 1), drawn once: gradual random, the honest baseline.

    Parameters
    ----------
    layers : sequence of FeedForward
        Drawn for in order.
    seed : int
        The same seed gives the same scores.

    Returns
    -------
    list of Tensor
        (N,) per layer, on the CPU.

    Raises
    ------
    GumlabError
        For a seed that cannot be.
    """
    generator = torch.Generator().manual_seed(check_seed(seed))
    return [
        torch.rand(layer.width, generator=generator, dtype=torch.float32) * 2 - 1
        for layer in layers
    ]


def magnitude(layer: FeedForward) -> Tensor:
    """L2 magnitude: || all weights of the neuron || = sqrt(||W_in,i||^2 + ||w_i||^2), (N,).

    The reference code masks the two matrices by their own norms, so that a neuron may lose one
    side only; here a neuron stays or goes as a whole. Biases are left out, as there.
    """
    squares = [_at_least_float32(weights).square().sum(1) for weights in layer.maps()]
    return torch.stack(squares).sum(0).sqrt().float()


def neuron_gradient(layer: FeedForward, mask: Tensor) -> Tensor:
    """Movement by the reference code: dL/dS_i = sum over the neuron's weights of w dL/dw, (N,).

    Incoming and outgoing weights, biases left out. A removed neuron has no gradient: it comes back
    only where others sink, or on the momentum of its last ones.

    Parameters
    ----------
    layer : FeedForward
        With the gradients of a backward pass.
    mask : Tensor
        (N,) bool, the mask in force.

    Raises
    ------
    GumlabError
        Where there are no gradients.
    """
    pairs = zip(layer.maps(), layer.maps(grad=True), strict=True)
    products = [
        torch.linalg.vecdot(_at_least_float32(weights), _at_least_float32(gradient))
        for weights, gradient in pairs
    ]
    return sum(products).mul(mask).float()


def penalty_gradient(score: Tensor, q: Tensor | float, layers: int) -> Tensor:
    """d/dS of the mean over layers of R = (1/N) sum_i q_i sigmoid(S_i), q fixed, (N,).

    Parameters
    ----------
    score : Tensor
        S, (N,).
    q : Tensor or float
        (N,) or one number: 1 is the plain L1 penalty, GUM's is `gum_factor`.
    layers : int
        L, how many layers the mean is over.
    """
    s = torch.sigmoid(score)
    return q * s * (1 - s) / (len(score) * layers)


def gum_factor(similarity: Tensor, lambda_gum: float) -> Tensor:
    """GUM's weight of each neuron's penalty: q_i = 1 + lambda_gum u_i, (N,).

    Parameters
    ----------
    similarity : Tensor
        u, (N,), a neuron's mean |cosine| with the kept neurons of its layer.
    lambda_gum : float
        0 is a plain L1 penalty.
    """
    return 1 + lambda_gum * similarity


def mean_similarity(gram: Tensor, mask: Tensor) -> Tensor:
    """u_i = sum over kept j != i of |G_ij| / (sqrt(G_ii G_jj)) / (number kept), (N,).

    The reference code divides by H v_t, the same number. A dead neuron (G_ii = 0) is similar to
    nothing.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    mask : Tensor
        (N,) bool, the kept neurons.
    """
    energy = gram.diagonal()
    inverse_norm = torch.where(energy > 0, energy.clamp_min(1e-30).rsqrt(), 0.0)
    kept = inverse_norm * mask
    sums = torch.cat([rows.abs() @ kept for rows in gram.split(256)])  # |G| would not fit a cache
    return inverse_norm * (sums - energy * kept) / mask.sum()


def activation_norm(layer: FeedForward, statistics: Statistics) -> Tensor:
    """||h_i|| over the tokens, (N,)."""
    return statistics.energy.sqrt()


def wanda(layer: FeedForward, statistics: Statistics) -> Tensor:
    """Wanda-sp: (mean over j of |w_ij|) * ||h_i||, (N,).

    References
    ----------
    Sun et al. 2023; the structured form: An et al. 2023.
    """
    mean_size = written(layer, statistics).abs().mean(1).float()
    return mean_size * statistics.energy.sqrt()


def flap(layer: FeedForward, statistics: Statistics) -> Tensor:
    """FLAP: Var(h_i) * ||w_i||^2, (N,); its bias compensation is `shrink(..., refit="bias")`.

    References
    ----------
    An et al. 2023.
    """
    variance = statistics.energy / statistics.tokens - statistics.mean.square()
    return variance.clamp_min(0) * squared_norm(layer, statistics.currency)


def taylor(layer: FeedForward, statistics: Statistics) -> Tensor:
    """First-order Taylor: the sensitivity, mean over sequences of |sum of w dL/dw|, (N,)."""
    return statistics.sensitivity


def fisher(layer: FeedForward, statistics: Statistics) -> Tensor:
    """Mask Fisher: mean over sequences of (dL/dm_i)^2, (N,).

    References
    ----------
    Kwon et al. 2022.
    """
    return statistics.fisher


def minitron(layer: FeedForward, statistics: Statistics) -> Tensor:
    """Root of the sum over sequences of (mean over tokens of |h_i|)^2, (N,).

    References
    ----------
    Muralidharan et al. 2024.
    """
    return statistics.squared_means.sqrt()


def peak_to_peak(layer: FeedForward, statistics: Statistics) -> Tensor:
    """max h_i - min h_i over the tokens, (N,)."""
    return statistics.high - statistics.low


def obs(layer: FeedForward, statistics: Statistics, ridge: float = RIDGE) -> Tensor:
    """Optimal Brain Surgeon: ||w_i||^2 / [G^-1]_ii, (N,): used times exactly unique.

    ||w_i||^2 G_ii says how much the neuron is used, 1 - R2_i = 1 / (G_ii [G^-1]_ii) how little of
    it the others can rebuild. The product is the squared error of the layer's output, summed over
    the tokens, after neuron i is deleted and the others' outgoing weights are refitted (with the
    ridge as part of G). GUM's mean |cosine| is a cheap, pairwise stand-in for the second factor.

    Parameters
    ----------
    layer : FeedForward
        Read only.
    statistics : Statistics
        Of this layer.
    ridge : float
        See `gumlab.gram.lifted`.

    References
    ----------
    Hassibi, Stork 1992, with the output's squared error as the loss.
    """
    price = squared_norm(layer, statistics.currency)
    return (price * unrebuilt(statistics.gram, ridge)).float()


def greedy_obs(layer: FeedForward, statistics: Statistics, ridge: float = RIDGE) -> Tensor:
    """OBS one neuron at a time: remove the cheapest, refit, downdate G^-1, and go on, (N,).

    Both factors of ||w_i||^2 / [G^-1]_ii follow the removals: w_i takes over what the removed ones
    did, G^-1 becomes that of the neurons left. A neuron's score is the largest error of a single
    removal up to its own, so the order of removal is kept and scores of several layers share one
    scale (error energy, summed over the tokens).

    Parameters
    ----------
    layer, statistics, ridge
        As in `obs`.

    Returns
    -------
    Tensor
        (N,), float64.
    """
    weights = in_currency(layer.outgoing().detach().double(), statistics.currency)
    return removal_costs(inverse(statistics.gram, ridge), weights @ weights.T)


def _at_least_float32(weights: Tensor) -> Tensor:
    """The weights without gradient, in a type whose sums tell neurons apart."""
    return weights.detach().to(torch.promote_types(weights.dtype, torch.float32))


def in_currency(weights: Tensor, currency: Tensor | None) -> Tensor:
    """What outgoing weights write, measured by what an error costs: w C, (N, D).

    Parameters
    ----------
    weights : Tensor
        (N, D).
    currency : Tensor or None
        C, (D, D) or one number (`gumlab.collecting.currencies`); None is the output as it is.
    """
    if currency is None:
        return weights
    currency = currency.to(weights)
    return weights @ currency if currency.ndim else weights * currency


def written(layer: FeedForward, statistics: Statistics) -> Tensor:
    """w_i C of every neuron, (N, D), float32 or better: its outgoing weights in the currency."""
    return in_currency(_at_least_float32(layer.outgoing()), statistics.currency)


def squared_norm(layer: FeedForward, currency: Tensor | None = None) -> Tensor:
    """||w_i C||^2 of the outgoing weights, (N,) float32."""
    return in_currency(layer.outgoing().detach().float(), currency).square().sum(1)


WEIGHT_SCORES: dict[str, Callable[[FeedForward], Tensor]] = {"magnitude": magnitude}
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
MEASURE_OUTPUT = ("wanda", "flap", "obs", "greedy_obs")  # an error of the output: of any currency
NEED_NO_DATA = ("random", *WEIGHT_SCORES)
LEARNED = ("movement", "soft_movement", "gum")
SCORES = (*NEED_NO_DATA, *DATA_SCORES)


@by_itself()
def score(
    model: nn.Module,
    method: str | Criterion,
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    seed: int = 0,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    currency: str = "output",
    gradients: bool | None = None,
) -> list[Tensor]:
    """One score per neuron, high = keep.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    method : str or callable
        "random" and "magnitude" need no data; the scores without training (`DATA_SCORES`) need
        tokenizer and task. A criterion of your own is a function (layer, `Statistics`) -> (N,).
        Movement and GUM learn their scores during training: use `gumlab.Pruner`.
    tokenizer, task
        The data, as `gumlab.collecting.collect` takes it.
    seed : int
        Of the random score.
    split, limit, tokens, batch_size
        The calibration: which split, how many examples, how many tokens of running text, how many
        sequences at a time.
    currency : {"output", "loss", "loss_scalar"}
        What a score that measures an output's error (`MEASURE_OUTPUT`) counts it in: the output
        itself, or what the error costs the loss, by direction or by layer alone. See
        `gumlab.collecting.currencies`. A criterion of your own finds it in `Statistics.currency`.
    gradients : bool, optional
        Whether a criterion of your own finds the statistics of gradients filled in too; by default
        it does.

    Returns
    -------
    list of Tensor
        (N,) per layer, float32 or, of greedy_obs, float64.

    Raises
    ------
    GumlabError
        For an unknown name, missing data, or a criterion that returns something else.
    """
    check_method(method, tokenizer, task)
    check_currency(currency, method)
    if gradients is not None:
        check_flag("gradients", gradients)
        if isinstance(method, str):
            raise GumlabError(
                f"gradients is for a criterion of your own; {method!r} knows what it needs. "
                "Leave it out."
            )
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    return score_layers(
        neurons(model),
        method,
        model,
        calibration,
        seed=seed,
        currency=currency,
        gradients=gradients,
    )


def check_method(method: str | Criterion, tokenizer: Any, task: Any) -> None:
    """Raise GumlabError for a method that `score` does not have, or that lacks its data."""
    if not isinstance(method, str) and not callable(method):
        raise GumlabError(
            f"method must be the name of a score or a function of your own; got {method!r:.60}. "
            f"The names: {', '.join(SCORES)}."
        )
    if isinstance(method, str) and method in LEARNED:
        raise GumlabError(
            f"Method {method!r} learns its scores while the model trains. Use "
            f"gumlab.Pruner(model, {method!r}, ...) with gumlab.train, then pruner.scores."
        )
    if isinstance(method, str) and method not in SCORES:
        raise unknown("method", method, SCORES + LEARNED)
    if not isinstance(method, str) and not _takes(method, 2):
        raise GumlabError(
            "A criterion of your own is called with a layer and its Statistics: "
            f"def mine(layer, statistics); {getattr(method, '__name__', 'yours')} cannot be. What "
            "needs no data may leave the second one unused."
        )
    needs_data = not isinstance(method, str) or method in DATA_SCORES
    if needs_data and (tokenizer is None or task is None):
        name = repr(method) if isinstance(method, str) else "your criterion"
        raise GumlabError(
            f"Method {name} is measured on data. Give them: "
            f"gumlab.score(model, {name}, tokenizer, task)."
        )


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments by place; True where none can say."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin's own secret
        return True
    return True


def check_currency(currency: str, method: str | Criterion) -> None:
    """Raise GumlabError for a currency that does not exist, or that a score cannot count in."""
    check_choice("currency", currency, CURRENCIES)
    if currency != "output" and isinstance(method, str) and method not in MEASURE_OUTPUT:
        raise GumlabError(
            f"Method {method!r} does not measure an error of the output, so it has no currency. "
            f"Leave currency out, or take one of {', '.join(MEASURE_OUTPUT)}."
        )


def score_layers(
    layers: Sequence[FeedForward],
    method: str | Criterion,
    model: nn.Module,
    calibration: Calibration,
    *,
    seed: int,
    currency: str = "output",
    gradients: bool | None = None,
    then: Callable[[Tensor, Statistics], None] | None = None,
) -> list[Tensor]:
    """`score` of all layers of a model, by a method that was checked before.

    Of a score that is measured on data, `then` is called with each layer's score and statistics as
    soon as they are there. It may cut that layer, if the score needs no gradients.
    """
    check_seed(seed)
    check_values(layers)
    if method == "random":
        return [s.to(layers[0].device) for s in random_scores(layers, seed)]
    if isinstance(method, str) and method in WEIGHT_SCORES:
        scores = [_by_weights(method, layer) for layer in layers]
        for layer, found in zip(layers, scores, strict=True):
            _check_finite(found, layer)
        return scores
    criterion = DATA_SCORES[method] if isinstance(method, str) else _checked(method)
    if gradients is None:
        gradients = not isinstance(method, str) or method in NEED_GRADIENTS
    prices = currencies(model, currency=currency, **calibration.options(), layers=layers)
    options = {**calibration.options(), "gradients": gradients, "layers": layers}
    in_one_pass = gradients and not is_offloaded(model)
    looks = _each(collect(model, **options)) if in_one_pass else one_by_one(model, **options)
    scores = []
    counted = shown(layers, "scores", "layer")  # and nothing that holds a layer's statistics
    with closing(looks) as statistics:
        for layer, price in zip(counted, prices, strict=True):
            seen = next(statistics)  # zip would hold them until the next layer's are made
            seen.currency = price
            scores.append(criterion(layer, seen))
            if not callable(method):
                _check_finite(scores[-1], layer)
            if then is not None:
                then(scores[-1], seen)
            del seen
    return scores


def _each(statistics: list[Statistics]) -> Generator[Statistics, None, None]:
    """Each layer's statistics in turn, as `one_by_one` gives them."""
    yield from statistics


def _by_weights(method: str, layer: FeedForward) -> Tensor:
    """A score that is read off a layer's weights."""
    with held(*layer.linear_maps):
        return WEIGHT_SCORES[method](layer)


def _check_finite(scores: Tensor, layer: FeedForward) -> None:
    """Raise GumlabError where a score is infinite or no number."""
    if not scores.isfinite().all():
        raise GumlabError(
            f"The scores of {layer.name} are not finite: its weights, or what is computed of "
            "them, are NaN or infinite. Check the model's weights; where they are float16, "
            "take model.float() or model.bfloat16()."
        )


def _checked(criterion: Criterion) -> Criterion:
    """A user's criterion that says so where it returns anything but one number per neuron."""

    def checked(layer: FeedForward, statistics: Statistics) -> Tensor:
        scores = criterion(layer, statistics)
        if isinstance(scores, Tensor):
            if scores.shape == (layer.width,) and not scores.isnan().any():
                return scores.detach().float()
            got = "NaN" if scores.shape == (layer.width,) else f"shape {tuple(scores.shape)}"
        else:
            got = type(scores).__name__
        raise GumlabError(
            f"A criterion returns one number per neuron, a tensor of shape ({layer.width},) "
            f"without NaN; yours gave {got}. Mind the axis it sums over, and 0 / 0."
        )

    return checked
