"""Which neurons stay: exact Top_v, local or global, floors, rounding, the cubic schedule."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from gumlab.errors import GumlabError, unknown
from gumlab.gram import twin_pairs

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
    twin_filter: float = 0.8,
) -> list[Tensor]:
    """Top_v: keep exactly round(keep * N) neurons of the model, those with the highest scores.

    scores: one (N,) tensor per layer, high = keep; ties go to the neuron that comes first.
    keep: fraction in (0, 1] of all feed-forward neurons. scope: "layer" gives every layer the same
    fraction, "global" ranks all layers' neurons together. floor: neurons that stay in every layer,
    taken from the same total; a layer that hits it is named in a warning. multiple_of: every width
    is a multiple of it (or the layer's whole width). widths: kept neurons by layer, instead of
    keep and scope. grams: each layer's G, as in `redundancy(...).gram`; with them the twin filter
    is on, which sends a neuron with a higher-scored partner at |cosine| above `twin_filter` to the
    back of the queue.

    standardise: give every layer's scores mean 0 and variance 1 first (as FLAP does). A global
    ranking needs scores that mean the same in every layer. These do: the change of the loss
    (movement, GUM, taylor, fisher) and what is written into the residual stream (wanda, flap, obs,
    greedy_obs). Weights or activations alone do not (magnitude, activation_norm, minitron,
    peak_to_peak): their scale is each layer's own. Notebook 10 shows both.

    Returns one (N,) bool tensor per layer. Raises GumlabError for values that cannot be met.

    >>> [m.tolist() for m in select([torch.tensor([3., 1., 2., 2.])], keep=0.5)]
    [[True, False, True, False]]
    """
    _check_scores(scores)
    if standardise:
        scores = [_standardised(s.double()) for s in scores]
    if grams is not None:
        check_grams(grams, scores)
        scores = demote_twins(scores, [twin_pairs(gram, twin_filter) for gram in grams])
    if widths is None:
        widths = layer_widths(scores, keep, scope, floor=floor, multiple_of=multiple_of)
    check_widths(widths, [len(s) for s in scores])
    return [top(s, w) for s, w in zip(scores, widths, strict=True)]


def top(scores: Tensor, count: int) -> Tensor:
    """Mask (N,) of the `count` highest of the scores (N,); ties go to the lower index."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[scores.argsort(descending=True, stable=True)[:count]] = True
    return mask


def above_threshold(scores: Sequence[Tensor], v: float, keep: float) -> list[Tensor]:
    """Soft movement's masks: sigmoid(S_i) > tau, but at least int(keep N) + 1 neurons of a layer.

    tau rises from 0 to SOFT_THRESHOLD as v_t falls from 1 to keep (reference code).
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
    """How many neurons each layer keeps under `select`: the sum is round(keep * N) exactly.

    With multiple_of the sum is within one multiple of it.
    """
    sizes = [len(s) for s in scores]
    total = _check_budget(sizes, keep, scope, floor, multiple_of)
    if scope == "layer":
        wanted = [n * total / sum(sizes) for n in sizes]
        short = [layer for layer, w in enumerate(wanted) if w < floor]
    else:  # with the floors' neurons set first, the rest of the budget goes by rank over all layers
        free = torch.cat([s.double() for s in scores])
        lifted = free.masked_fill(torch.cat([top(s, floor) for s in scores]), math.inf)
        wanted = [float(m.sum()) for m in top(lifted, total).split(sizes)]
        left = top(free, total).split(sizes) if warn else ()
        short = [i for i, m in enumerate(left) if m.sum() < floor]
    if warn and short:
        warnings.warn(
            f"Top_v would leave fewer than floor={floor} neurons in layer(s) "
            f"{', '.join(map(str, short))}; they keep {floor}, taken from the same total.",
            stacklevel=3,
        )
    low = [min(n, _ceil(max(floor, 1), multiple_of)) for n in sizes]
    return apportion(wanted, total, low, sizes, multiple_of)


def apportion(
    wanted: Sequence[float], total: int, low: Sequence[int], high: Sequence[int], unit: int = 1
) -> list[int]:
    """Whole multiples of `unit` near `wanted`, between low and high, that sum nearest to total.

    Rounds down, then gives the missing units to the layers that lost most by rounding.

    >>> apportion([2.5, 2.5, 2.5], 8, [1, 1, 1], [5, 5, 5])
    [3, 3, 2]
    """
    widths = [
        min(h, max(lo, int(w // unit) * unit)) for w, lo, h in zip(wanted, low, high, strict=True)
    ]
    while sum(widths) != total:
        step = unit if sum(widths) < total else -unit
        gaps = [(w - x) * step for w, x in zip(wanted, widths, strict=True)]
        moved = [
            min(h, x + step) if step > 0 else (x - 1) // unit * unit
            for x, h in zip(widths, high, strict=True)
        ]
        allowed = [i for i, x in enumerate(moved) if x != widths[i] and x >= low[i]]
        best = max(allowed, key=lambda i: (gaps[i], -i), default=None)
        if best is None:
            break
        after = sum(widths) + moved[best] - widths[best]
        if abs(after - total) >= abs(sum(widths) - total):
            break
        widths[best] = moved[best]
    return widths


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


def schedule(step: int, steps: int, keep: float, start: float = 0.1, end: float = 0.7) -> float:
    """v_t, the fraction kept at `step` of `steps`: 1, then cubic down to `keep`, then constant.

    v_t = keep + (1 - keep) m^3 with m = 1 - (t - start T) / ((end - start) T), the reference
    code's schedule (dense for 10 % of the steps, the target from 70 %).

    >>> [round(schedule(t, 100, 0.2), 3) for t in (0, 10, 40, 70, 100)]
    [1.0, 1.0, 0.3, 0.2, 0.2]
    """
    if not 0 <= start < end <= 1:
        raise GumlabError(f"The schedule needs 0 <= start < end <= 1, got {start} and {end}.")
    m = 1 - (step / steps - start) / (end - start)
    return keep + (1 - keep) * min(1.0, max(0.0, m)) ** 3


def check_keep(keep: float) -> None:
    """Raise GumlabError unless `keep` is a fraction in (0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise GumlabError(
            f"keep must be a fraction in (0, 1], got {keep!r}. It is the share of feed-forward "
            "neurons that stay: keep=0.25 removes three of four."
        )


def check_widths(widths: Sequence[int], sizes: Sequence[int]) -> None:
    """Raise GumlabError unless there is one width per layer, from 1 to the layer's size."""
    if len(widths) != len(sizes) or any(not 0 < w <= n for w, n in zip(widths, sizes, strict=True)):
        raise GumlabError(
            f"widths {list(widths)} do not fit layers of {list(sizes)} neurons. Give one width per "
            "layer, each between 1 and the layer's size."
        )


def check_masks(masks: Sequence[Tensor], widths: Sequence[int]) -> None:
    """Raise GumlabError unless masks are one bool (N,) tensor per layer with a neuron in each."""
    shapes = [tuple(m.shape) for m in masks]
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


def _check_scores(scores: Sequence[Tensor]) -> None:
    if len(scores) == 0:
        raise GumlabError("There are no scores; expected one (N,) tensor per layer.")
    for layer, s in enumerate(scores):
        if s.ndim != 1 or torch.isnan(s).any():
            found = f"shape {tuple(s.shape)}" if s.ndim != 1 else "NaN"
            raise GumlabError(
                f"Layer {layer}'s scores have {found}; expected one number per neuron, (N,)."
            )


def _check_budget(sizes: list[int], keep: float, scope: str, floor: int, multiple_of: int) -> int:
    check_keep(keep)
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    total = round(keep * sum(sizes))
    if multiple_of < 1:
        raise GumlabError(f"multiple_of must be 1 or more, got {multiple_of}.")
    if floor > min(sizes):
        raise GumlabError(
            f"floor={floor} is larger than the smallest layer ({min(sizes)} neurons); lower it."
        )
    least = sum(min(n, _ceil(max(floor, 1), multiple_of)) for n in sizes)
    if total < least:
        raise GumlabError(
            f"keep={keep} leaves {total} neurons, but {len(sizes)} layers need {least} "
            f"(floor={floor}, multiple_of={multiple_of}). "
            "Raise keep, or lower floor or multiple_of."
        )
    return total


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit) * unit
