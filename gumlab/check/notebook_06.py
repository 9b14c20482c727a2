"""Exercises of notebook 06, local or global."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.check.judging import exercise
from gumlab.selection import layer_widths, select, top

Layers = list[Tensor]


def _rows(*rows: list[float]) -> Layers:
    return [torch.tensor(row, dtype=torch.float) for row in rows]


def _masks(*rows: str) -> Layers:
    return [torch.tensor([c == "x" for c in row]) for row in rows]


def _split(mask: Tensor, like: Layers) -> Layers:
    return list(mask.split([len(x) for x in like]))


def _count(scores: Layers, keep: float) -> int:
    return round(keep * sum(map(len, scores)))


@exercise(
    cases=[(_masks("xx.x.", ".x..."), _rows([1, 5, 2, 4, 3], [9, 8, 7, 6, 5])),
           (_masks("x..", "xxxx", ".xx."), _rows([2, 2, 1], [1, 2, 3, 4], [0, 5, 0, 7]))],
    hints=[
        ("Those are the masks themselves; keep as many, but other neurons: those of the scores.",
         lambda masks, scores: masks),
        ("You share the total out anew over the layers; each layer keeps as many as its mask does.",
         lambda masks, scores: _split(top(torch.cat(scores), int(torch.cat(masks).sum())), scores)),
        ("You give every layer the mean width; each layer keeps as many as its mask does.",
         lambda masks, scores: [top(s, int(torch.cat(masks).sum()) // len(masks)) for s in scores]),
        ("You keep the lowest scores; a high score means stay.",
         lambda masks, scores: [top(-s, int(m.sum())) for m, s in zip(masks, scores, strict=True)]),
        ("You keep as many as the mask removes.",
         lambda masks, scores: [top(s, int((~m).sum()))
                                for m, s in zip(masks, scores, strict=True)]),
    ],
)  # fmt: skip
def at_widths_of(masks: Layers, scores: Layers) -> Layers:
    """In each layer as many neurons as `masks` keep there, those with the highest scores."""
    return select(scores, widths=[int(mask.sum()) for mask in masks])


def _ranks_inside(scores: Layers) -> Tensor:
    return torch.cat([s.argsort(descending=True, stable=True).argsort() for s in scores])


@exercise(
    cases=[(_rows([1, 9, 2], [8, 7, 6, 0]), 0.5), (_rows([2, 1, 2, 2], [2, 0], [2, 3]), 0.4),
           (_rows([5, 4, 3], [2, 1, 0, -1]), 0.38), (_rows([0, 0, 0], [0, 0, 0]), 0.5)],
    hints=[
        ("That is Top_v in each layer on its own; put the scores of all layers in one row first.",
         lambda scores, keep: [top(s, round(keep * len(s))) for s in scores]),
        ("You rank inside each layer, so every layer's best counts the same; compare the scores.",
         lambda scores, keep: _split(top(-_ranks_inside(scores), _count(scores, keep)), scores)),
        ("A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
         lambda scores, keep: [s >= torch.cat(scores).sort(descending=True)
                               .values[_count(scores, keep) - 1] for s in scores]),
        ("int() cuts the fraction off; keep exactly round(keep * N), N over all layers.",
         lambda scores, keep: _split(
             top(torch.cat(scores), int(keep * sum(map(len, scores)))), scores)),
        ("Your ties go to the last neuron; they go to the first (a stable sort).",
         lambda scores, keep: _split(
             top(torch.cat(scores).flip(0), _count(scores, keep)).flip(0), scores)),
        ("That is one mask for all layers; split it into one per layer.",
         lambda scores, keep: top(torch.cat(scores), _count(scores, keep))),
    ],
)  # fmt: skip
def global_top_v(scores: Layers, keep: float) -> Layers:
    """Masks of exactly the round(keep * N) highest scores of all layers; a layer may be emptied."""
    return _split(top(torch.cat(scores), _count(scores, keep)), scores)


def _added(scores: Layers, keep: float, floor: int) -> Layers:
    return [m | top(s, floor) for m, s in zip(global_top_v.reference(scores, keep), scores,
                                              strict=True)]  # fmt: skip


def _from_the_widest(scores: Layers, keep: float, floor: int) -> Layers:
    widths = [int(m.sum()) for m in _added(scores, keep, floor)]
    widths[widths.index(max(widths))] -= sum(widths) - _count(scores, keep)
    return select(scores, widths=widths)


def _rest(scores: Layers, keep: float, floor: int) -> Layers:
    rest = top(torch.cat(scores), _count(scores, keep) - floor * len(scores))
    return [m | top(s, floor) for m, s in zip(_split(rest, scores), scores, strict=True)]


def _first(scores: Layers, keep: float, floor: int) -> Layers:
    lifted = [s.masked_fill(torch.arange(len(s)) < floor, torch.inf) for s in scores]
    return _split(top(torch.cat(lifted), _count(scores, keep)), scores)


@exercise(
    cases=[(_rows([9, 8, 7, 6, 5, 4], [0, 3, 2, 1], [2, 5.5, 5.6, 0]), 0.5, 2),
           (_rows([1, 2, 3, 4], [8, 7, 6, 5]), 0.5, 1), (_rows([9, 8, 7], [1, 2, 3]), 0.5, 1)],
    hints=[
        ("The bug is still there: count the neurons. A floor's neurons come out of the same total.",
         _added),
        ("The total is right, but the widest layer pays for all; the lowest scores of all should.",
         _from_the_widest),
        ("You take the floor off the total in layers that need none, too; then too few stay.",
         _rest),
        ("The floor keeps a layer's best neurons, not its first.", _first),
        ("A floor is not a share for everybody; what is left goes by the scores of all layers.",
         lambda scores, keep, floor: select(scores, keep, floor=floor)),
    ],
)  # fmt: skip
def with_floor(scores: Layers, keep: float, floor: int) -> Layers:
    """Global Top_v with `floor` neurons sure in each layer, exactly round(keep * N) in total."""
    return select(scores, widths=layer_widths(scores, keep, "global", floor=floor, warn=False))
