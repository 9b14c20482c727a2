"""Exercises of notebook 06, local or global."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise
from gumlab.selection import layer_widths, select, top

Layers = list[Tensor]


def _rows(*rows: list[float]) -> Layers:
    return [torch.tensor(row, dtype=torch.float) for row in rows]


def _masks(*rows: str) -> Layers:
    return [torch.tensor([c == "x" for c in row]) for row in rows]


def _count(scores: Layers, keep: float) -> int:
    return round(keep * sum(map(len, scores)))


def _all(scores: Layers, count: int) -> Layers:
    """The `count` highest scores of all layers, as one mask per layer."""
    return list(top(torch.cat(scores), count).split([len(s) for s in scores]))


@exercise(
    cases=[(_masks("xx.x.", ".x..."), _rows([1, 5, 2, 4, 3], [9, 8, 7, 6, 5])),
           (_masks("x..", "xxxx", ".xx."), _rows([2, 2, 1], [1, 2, 3, 4], [0, 5, 0, 7]))],
    hints=[
        ("Those are the masks themselves; keep as many, but other neurons: those of the scores.",
         lambda masks, scores: masks),
        ("You share the total out anew over the layers; each layer keeps as many as its mask does.",
         lambda masks, scores: _all(scores, int(torch.cat(masks).sum()))),
        ("You keep the lowest scores; a high score means stay.",
         lambda masks, scores: [top(-s, int(m.sum())) for m, s in zip(masks, scores, strict=True)]),
    ],
)  # fmt: skip
def at_widths_of(masks: Layers, scores: Layers) -> Layers:
    """In each layer as many neurons as `masks` keep there, those with the highest scores."""
    return select(scores, widths=[int(mask.sum()) for mask in masks])


@exercise(
    cases=[(_rows([1, 9, 2], [8, 7, 6, 0]), 0.5), (_rows([2, 1, 2, 2], [2, 0], [2, 3]), 0.4),
           (_rows([5, 4, 3], [2, 1, 0, -1]), 0.38), (_rows([0, 0, 0], [0, 0, 0]), 0.5)],
    hints=[
        ("That is Top_v in each layer on its own; put the scores of all layers in one row first.",
         lambda scores, keep: [top(s, round(keep * len(s))) for s in scores]),
        ("You rank inside each layer, so every layer's best counts the same; compare the scores.",
         lambda scores, keep: _all(
             [-1.0 * s.argsort(descending=True, stable=True).argsort() for s in scores],
             _count(scores, keep))),
        ("A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
         lambda scores, keep: [s >= torch.cat(scores).sort(descending=True)
                               .values[_count(scores, keep) - 1] for s in scores]),
        ("int() cuts the fraction off; keep exactly round(keep * N), N over all layers.",
         lambda scores, keep: _all(scores, int(keep * sum(map(len, scores))))),
    ],
)  # fmt: skip
def global_top_v(scores: Layers, keep: float) -> Layers:
    """Masks of exactly the round(keep * N) highest scores of all layers; a layer may be emptied."""
    return _all(scores, _count(scores, keep))


def _added(scores: Layers, count: int, floor: int) -> Layers:
    """The `count` highest scores of all layers, and the best `floor` of each layer on top."""
    return [m | top(s, floor) for m, s in zip(_all(scores, count), scores, strict=True)]


def _from_the_widest(scores: Layers, keep: float, floor: int) -> Layers:
    widths = [int(m.sum()) for m in _added(scores, _count(scores, keep), floor)]
    widths[widths.index(max(widths))] -= sum(widths) - _count(scores, keep)
    return select(scores, widths=widths)


@exercise(
    cases=[(_rows([9, 8, 7, 6, 5, 4], [0, 3, 2, 1], [5.4, 5.5, 5.6, 0]), 0.5, 2),
           (_rows([1, 2, 3, 4], [8, 7, 6, 5]), 0.5, 1), (_rows([9, 8, 7], [1, 2, 3]), 0.5, 1)],
    hints=[
        ("The bug is still there: count the neurons. A floor's neurons come out of the same total.",
         lambda scores, keep, floor: _added(scores, _count(scores, keep), floor)),
        ("The total is right, but the widest layer pays for all; the lowest scores of all should.",
         _from_the_widest),
        ("You take a floor off the total for layers that need none, too; then too few stay.",
         lambda scores, keep, floor: _added(
             scores, _count(scores, keep) - floor * len(scores), floor)),
    ],
)  # fmt: skip
def with_floor(scores: Layers, keep: float, floor: int) -> Layers:
    """Global Top_v with `floor` neurons sure in each layer, exactly round(keep * N) in total."""
    return select(scores, widths=layer_widths(scores, keep, "global", floor=floor, warn=False))
