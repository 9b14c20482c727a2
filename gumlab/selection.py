"""Which neurons stay: exact Top_v, local or global, floors, rounding, the cubic schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from gumlab.errors import (
    GumlabError,
    check_choice,
    check_flag,
    check_list,
    check_number,
    check_whole,
    warn_caller,
)
from gumlab.gram import TWINS_ABOVE, twin_pairs

SCOPES = ("layer", "global")
SOFT_THRESHOLD = 0.1


def select(
    scores: Sequence[Tensor],
    keep: float = 0.5,
    scope: str = "layer",
    *,
    floor: int = 1,
    multiple_of: int = 1,
    widths: Sequence[int] | None = None,
    standardise: bool = False,
    grams: Sequence[Tensor] | None = None,
    twin_filter: float = TWINS_ABOVE,
) -> list[Tensor]:
    """Top_v: keep exactly round(keep * N) neurons of the model, those with the highest scores.

    Parameters
    ----------
    scores : sequence of Tensor
        (N,) per layer, high = keep; ties go to the neuron that comes first.
    keep : float
        Fraction in (0, 1] of all feed-forward neurons.
    scope : {"layer", "global"}
        "layer" gives every layer the same fraction, "global" ranks all layers' neurons together.
        A global ranking needs scores that mean the same in every layer: see Notes.
    floor : int
        Neurons that stay in every layer, taken from the same total; a layer that hits it is named
        in a warning.
    multiple_of : int
        Every width is a multiple of it (or the layer's whole width).
    widths : sequence of int, optional
        Kept neurons by layer, instead of `keep` and `scope`.
    standardise : bool
        Give every layer's scores mean 0 and variance 1 first (as FLAP does).
    grams : sequence of Tensor, optional
        Each layer's G, (N, N), as in `redundancy(...).gram`. With them the twin filter is on: a
        neuron with a higher-scored partner at |cosine| above `twin_filter` goes to the back of the
        queue.
    twin_filter : float
        The twin filter's threshold.

    Returns
    -------
    list of Tensor
        (N,) bool per layer.

    Raises
    ------
    GumlabError
        For values that cannot be met.

    Notes
    -----
    These scores mean the same in every layer: the change of the loss (movement, GUM, taylor,
    fisher) and what is written into the residual stream (wanda, flap, obs, greedy_obs). Weights or
    activations alone do not (magnitude, activation_norm, minitron, peak_to_peak): their scale is
    each layer's own. Notebook 10 shows both.

    Examples
    --------
    >>> [m.tolist() for m in select([torch.tensor([3., 1., 2., 2.])], keep=0.5)]
    [[True, False, True, False]]
    """
    check_scores(scores)
    sizes = [len(s) for s in scores]
    budget = Budget(sizes, keep, scope, floor, multiple_of, widths)
    check_twin_filter(twin_filter, grams, sizes)
    return choose(scores, budget, standardise=standardise, grams=grams, twin_filter=twin_filter)


@dataclass(frozen=True)
class Budget:
    """How many neurons may stay, and how they are shared out: checked once, then handed on.

    Parameters
    ----------
    sizes : sequence of int
        The neurons of each layer.
    keep, scope, floor, multiple_of, widths
        As in `select`. With `widths`, `keep` becomes the fraction that they are of all neurons.

    Raises
    ------
    GumlabError
        Where the layers cannot meet it.
    """

    sizes: Sequence[int]
    keep: float
    scope: str = "layer"
    floor: int = 1
    multiple_of: int = 1
    widths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", check_keep(self.keep))
        check_choice("scope", self.scope, SCOPES)
        object.__setattr__(self, "floor", check_whole("floor", self.floor, least=0))
        object.__setattr__(self, "multiple_of", check_whole("multiple_of", self.multiple_of))
        if self.widths is not None:
            check_widths(self.widths, self.sizes)
            object.__setattr__(self, "widths", [int(width) for width in self.widths])
            object.__setattr__(self, "keep", sum(self.widths) / sum(self.sizes))
            return
        if self.floor > min(self.sizes):
            raise GumlabError(
                f"floor={self.floor} is larger than the smallest layer ({min(self.sizes)} "
                "neurons); lower it."
            )
        total = round(self.keep * sum(self.sizes))
        least = sum(self.least_widths)
        if total < least:
            raise GumlabError(
                f"keep={self.keep} leaves {total} neurons, but {len(self.sizes)} layers need "
                f"{least} (floor={self.floor}, multiple_of={self.multiple_of}). "
                "Raise keep, or lower floor or multiple_of."
            )

    @property
    def least_widths(self) -> list[int]:
        """The fewest neurons that each layer may keep."""
        least = -(-max(self.floor, 1) // self.multiple_of) * self.multiple_of  # rounded up
        return [min(size, least) for size in self.sizes]

    def widths_at(
        self, scores: Sequence[Tensor], kept_now: float | None = None, *, warn: bool = True
    ) -> list[int]:
        """How many neurons each layer keeps.

        Parameters
        ----------
        scores : sequence of Tensor
            (N,) per layer; a global budget goes by their rank.
        kept_now : float, optional
            v_t, on the way to `keep`; by default `keep` itself. Fixed widths are approached from
            the full ones.
        warn : bool
            Name the layers that hit the floor in a warning.

        Returns
        -------
        list of int
            Their sum is round(kept_now * N) exactly; with `multiple_of` within one multiple of it.
        """
        if kept_now is None:
            kept_now = self.keep
        if self.widths is not None:
            above = (kept_now - self.keep) / (1 - self.keep) if self.keep < 1 else 0.0
            pairs = zip(self.widths, self.sizes, strict=True)
            return [width + round(above * (size - width)) for width, size in pairs]
        total = round(kept_now * sum(self.sizes))
        if self.scope == "layer":
            wanted = [size * total / sum(self.sizes) for size in self.sizes]
            short = [layer for layer, width in enumerate(wanted) if width < self.floor]
        else:  # with the floors' neurons set first, the rest goes by rank over all layers
            everywhere = torch.cat([s.double() for s in scores])
            on_the_floor = torch.cat([top(s, self.floor) for s in scores])
            floored = everywhere.masked_fill(on_the_floor, math.inf)
            sizes = list(self.sizes)
            wanted = [float(mask.sum()) for mask in top(floored, total).split(sizes)]
            without_floor = top(everywhere, total).split(sizes) if warn else ()
            short = [i for i, mask in enumerate(without_floor) if mask.sum() < self.floor]
        if warn and short:
            warn_caller(
                f"Top_v would leave fewer than floor={self.floor} neurons in layer(s) "
                f"{', '.join(map(str, short))}; they keep {self.floor}, taken from the same total."
            )
        return apportion(wanted, total, self.least_widths, self.sizes, self.multiple_of)


def choose(
    scores: Sequence[Tensor],
    budget: Budget,
    *,
    standardise: bool = False,
    grams: Sequence[Tensor] | None = None,
    twin_filter: float = TWINS_ABOVE,
) -> list[Tensor]:
    """`select` by a budget that was checked before.

    Parameters
    ----------
    scores, standardise, grams, twin_filter
        As in `select`.
    budget : Budget
        Of layers of these sizes.

    Returns
    -------
    list of Tensor
        (N,) bool per layer.
    """
    twin_filter = check_number("twin_filter", twin_filter, most=1)
    if check_flag("standardise", standardise):
        if not all(s.isfinite().all() for s in scores):
            raise GumlabError(
                "Infinite scores have no mean to be standardised by. Give finite ones, or leave "
                "standardise out."
            )
        scores = [_standardised(s.double()) for s in scores]
    if grams is not None:
        scores = demote_twins(scores, [twin_pairs(gram, twin_filter) for gram in grams])
    widths = budget.widths_at(scores)
    return [top(s, width) for s, width in zip(scores, widths, strict=True)]


def top(scores: Tensor, count: int) -> Tensor:
    """The mask of the `count` highest scores; ties go to the lower index.

    Parameters
    ----------
    scores : Tensor
        (N,).
    count : int
        How many stay, 0 or more; more than N is N.

    Returns
    -------
    Tensor
        (N,) bool.

    Raises
    ------
    GumlabError
        For a count below 0.
    """
    count = check_whole("count", count, least=0)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[scores.argsort(descending=True, stable=True)[:count]] = True
    return mask


def above_threshold(scores: Sequence[Tensor], v: float, keep: float) -> list[Tensor]:
    """Soft movement's masks: sigmoid(S_i) > tau, but at least int(keep N) + 1 neurons of a layer.

    tau rises from 0 to SOFT_THRESHOLD as v_t falls from 1 to keep (reference code).

    Parameters
    ----------
    scores : sequence of Tensor
        S, (N,) per layer.
    v, keep : float
        v_t, the fraction that the schedule keeps now, and the fraction at the end.

    Returns
    -------
    list of Tensor
        (N,) bool per layer.
    """
    tau = SOFT_THRESHOLD * (1 - v) / (1 - keep) if keep < 1 else 0.0
    return [(torch.sigmoid(s) > tau) | top(s, int(keep * len(s)) + 1) for s in scores]


def layer_widths(
    scores: Sequence[Tensor],
    keep: float,
    scope: str = "layer",
    *,
    floor: int = 1,
    multiple_of: int = 1,
    warn: bool = True,
) -> list[int]:
    """How many neurons each layer keeps under `select`.

    Parameters
    ----------
    scores, keep, scope, floor, multiple_of
        As in `select`.
    warn : bool
        Name the layers that hit the floor in a warning.

    Returns
    -------
    list of int
        Their sum is round(keep * N) exactly; with `multiple_of` within one multiple of it.
    """
    check_scores(scores)
    budget = Budget([len(s) for s in scores], keep, scope, floor, multiple_of)
    return budget.widths_at(scores, warn=warn)


def apportion(
    wanted: Sequence[float], total: int, low: Sequence[int], high: Sequence[int], unit: int = 1
) -> list[int]:
    """Whole multiples of `unit` near what is wanted, within bounds, that sum to a total.

    Rounds down, then gives the missing units to the layers that lost most by rounding.

    Parameters
    ----------
    wanted : sequence of float
        One per layer.
    total : int
        What they are to sum to; met to within one `unit`, where the bounds allow it.
    low, high : sequence of int
        The bounds, one per layer.
    unit : int
        Every width is a multiple of it, or a bound.

    Examples
    --------
    >>> apportion([2.5, 2.5, 2.5], 8, [1, 1, 1], [5, 5, 5])
    [3, 3, 2]
    """
    bounds = zip(wanted, low, high, strict=True)
    widths = [min(most, max(least, int(wish // unit) * unit)) for wish, least, most in bounds]
    while sum(widths) != total:
        step = unit if sum(widths) < total else -unit
        best = _next_to_move(wanted, widths, low, high, step, unit)
        if best is None:
            break
        layer, moved = best
        after = sum(widths) + moved - widths[layer]
        if abs(after - total) >= abs(sum(widths) - total):
            break
        widths[layer] = moved
    return widths


def _next_to_move(
    wanted: Sequence[float],
    widths: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    step: int,
    unit: int,
) -> tuple[int, int] | None:
    """The layer that lacks most in the direction of `step`, and its new width."""
    best = None
    best_gap = -math.inf
    for layer, width in enumerate(widths):
        moved = min(high[layer], width + step) if step > 0 else (width - 1) // unit * unit
        gap = (wanted[layer] - width) * step
        if moved != width and moved >= low[layer] and gap > best_gap:
            best = (layer, moved)
            best_gap = gap
    return best


def demote_twins(scores: Sequence[Tensor], pairs: Sequence[Tensor]) -> list[Tensor]:
    """The twin filter: a neuron with a higher-scored partner ranks behind all that have none.

    Parameters
    ----------
    scores : sequence of Tensor
        (N,) per layer. Of equal scores the first is the higher.
    pairs : sequence of Tensor
        (P, 2) per layer, as `gumlab.gram.twin_pairs` gives them.

    Returns
    -------
    list of Tensor
        (N,) float64 per layer: ranks over all layers, ties included, in which the demoted neurons
        keep their order. Ranks, because sums of scores would lose digits.
    """
    sizes = [len(s) for s in scores]
    everywhere = torch.cat([s.double() for s in scores])
    _, ranks = everywhere.unique(return_inverse=True)
    demoted = []
    for layer_scores, layer_ranks, layer_pairs in zip(
        scores, ranks.split(sizes), pairs, strict=True
    ):
        neuron, partner = layer_pairs.unbind(1)
        place = layer_scores.argsort(descending=True, stable=True).argsort()
        behind = torch.zeros_like(layer_scores, dtype=torch.bool)
        behind[neuron[place[partner] < place[neuron]]] = True
        demoted.append(layer_ranks.double() - sum(sizes) * behind)
    return demoted


def schedule(step: int, steps: int, keep: float, start: float = 0.1, end: float = 0.7) -> float:
    """v_t, the fraction kept at a step: 1, then cubic down to `keep`, then constant.

    v_t = keep + (1 - keep) m^3 with m = 1 - (t - start T) / ((end - start) T), the reference
    code's schedule (dense for 10 % of the steps, the target from 70 %).

    Parameters
    ----------
    step, steps : int
        t and T.
    keep : float
        The fraction at the end.
    start, end : float
        The shares of the steps at which the fall begins and ends.

    Raises
    ------
    GumlabError
        Unless 0 <= start < end <= 1, and for a step, steps or keep that cannot be.

    Examples
    --------
    >>> [round(schedule(t, 100, 0.2), 3) for t in (0, 10, 40, 70, 100)]
    [1.0, 1.0, 0.3, 0.2, 0.2]
    """
    step = check_whole("step", step, least=0)
    steps = check_whole("steps", steps)
    keep = check_keep(keep)
    check_number("start", start, least=-math.inf)
    check_number("end", end, least=-math.inf)
    if not 0 <= start < end <= 1:
        raise GumlabError(f"The schedule needs 0 <= start < end <= 1, got {start} and {end}.")
    m = 1 - (step / steps - start) / (end - start)
    return keep + (1 - keep) * min(1.0, max(0.0, m)) ** 3


def check_grams(grams: Sequence[Tensor], sizes: Sequence[int]) -> None:
    """Raise GumlabError unless there is one (N, N) matrix per layer of N neurons."""
    shapes = _shapes("grams", grams)
    if shapes != [(size, size) for size in sizes]:
        raise GumlabError(
            f"The Gram matrices have shapes {shapes}, the layers {list(sizes)} neurons; expected "
            "one (N, N) matrix per layer, as in redundancy(...).gram."
        )


def check_twin_filter(
    twin_filter: float, grams: Sequence[Tensor] | None, sizes: Sequence[int]
) -> None:
    """Raise GumlabError unless the threshold is one, and there are Gram matrices to use it on."""
    check_number("twin_filter", twin_filter, most=1)
    if grams is not None:
        check_grams(grams, sizes)
    elif twin_filter != TWINS_ABOVE:
        raise GumlabError(
            f"twin_filter={twin_filter:g} would change nothing: the filter is on where grams are "
            "given, as in grams=redundancy(...).gram. Give them, or leave twin_filter out."
        )


def check_keep(keep: float) -> float:
    """The fraction `keep`; GumlabError unless it is a number in (0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, Real) or not 0 < keep <= 1:
        raise GumlabError(
            f"keep must be a fraction in (0, 1], got {keep!r}. It is the share of feed-forward "
            "neurons that stay: keep=0.25 removes three of four."
        )
    return float(keep)


def check_widths(widths: Sequence[int], sizes: Sequence[int]) -> None:
    """Raise GumlabError unless there is one width per layer, from 1 to the layer's size."""
    for layer, width in enumerate(check_list("widths", widths, "whole numbers, one per layer")):
        check_whole(f"widths[{layer}]", width, least=0)
    if len(widths) != len(sizes) or any(not 0 < w <= n for w, n in zip(widths, sizes, strict=True)):
        raise GumlabError(
            f"widths {list(widths)} do not fit layers of {list(sizes)} neurons. Give one width per "
            "layer, each between 1 and the layer's size."
        )


def check_masks(masks: Sequence[Tensor], widths: Sequence[int]) -> None:
    """Raise GumlabError unless masks are one bool (N,) tensor per layer with a neuron in each."""
    shapes = _shapes("masks", masks)
    if shapes != [(w,) for w in widths]:
        raise GumlabError(
            f"The masks have shapes {shapes}, the model's layers have widths {list(widths)}. "
            "Make them with gumlab.select from this model's scores."
        )
    for layer, mask in enumerate(masks):
        if mask.dtype != torch.bool or not mask.any():
            found = "keeps no neuron" if mask.dtype == torch.bool else f"has dtype {mask.dtype}"
            raise GumlabError(
                f"The mask of layer {layer} {found}; expected bool with one True or more."
            )


def _standardised(s: Tensor) -> Tensor:
    """(s - mean) / standard deviation; equal scores give 0, not the rounding of their mean."""
    least = 1e-9 * float(s.abs().max()) + 1e-300
    return (s - s.mean()) / s.std(correction=0).clamp_min(least)


def check_scores(scores: Sequence[Tensor]) -> None:
    """Raise GumlabError unless there is one (N,) tensor of numbers per layer."""
    if isinstance(scores, Sequence) and not len(scores):
        raise GumlabError("There are no scores; expected one (N,) tensor per layer.")
    _shapes("scores", scores)
    for layer, s in enumerate(scores):
        if s.ndim != 1 or s.is_complex() or torch.isnan(s).any():
            odd = "NaN" if not s.is_complex() else f"dtype {s.dtype}"
            found = f"shape {tuple(s.shape)}" if s.ndim != 1 else odd
            raise GumlabError(
                f"Layer {layer}'s scores have {found}; expected one number per neuron, (N,)."
            )


def _shapes(name: str, tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """The shapes of an argument's tensors; GumlabError where it is no list of tensors."""
    for layer, tensor in enumerate(check_list(name, tensors, "tensors, one per layer")):
        if not isinstance(tensor, Tensor):
            raise GumlabError(
                f"{name}[{layer}] must be a tensor; got {type(tensor).__name__} {tensor!r:.40}. "
                "gumlab.score and gumlab.select give lists of tensors, one per layer."
            )
    return [tuple(tensor.shape) for tensor in tensors]
