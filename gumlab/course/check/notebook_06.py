"""Exercises of notebook 06, local or global."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise
from gumlab.selection import layer_widths, select, top

Layers = list[Tensor]  # a (N,) tensor per layer


def _scores(*rows: list[float]) -> Layers:
    """The scores of layers."""
    return [torch.tensor(row, dtype=torch.float) for row in rows]


def _masks(*rows: str) -> Layers:
    """The masks of layers: True where a row has an x."""
    return [torch.tensor([letter == "x" for letter in row]) for row in rows]


def _count(scores: Layers, keep: float) -> int:
    """How many neurons stay in all layers together."""
    return round(keep * sum(len(layer) for layer in scores))


def _highest(scores: Layers, count: int) -> Layers:
    """The `count` highest scores of all layers, as one mask per layer."""
    widths = [len(layer) for layer in scores]
    return list(top(torch.cat(scores), count).split(widths))


def _ranks(layer: Tensor) -> Tensor:
    """The scores' ranks within their layer, as scores: the best is the highest."""
    return -1.0 * layer.argsort(descending=True, stable=True).argsort()


@exercise(
    cases=[
        (_masks("xx.x.", ".x..."), _scores([1, 5, 2, 4, 3], [9, 8, 7, 6, 5])),
        (_masks("x..", "xxxx", ".xx."), _scores([2, 2, 1], [1, 2, 3, 4], [0, 5, 0, 7])),
    ],
    hints=[
        (
            "Those are the masks themselves; keep as many, but other neurons: those of the scores.",
            lambda masks, scores: masks,
        ),
        (
            "You share the total out anew over the layers; each layer keeps as many as its mask "
            "does.",
            lambda masks, scores: _highest(scores, int(torch.cat(masks).sum())),
        ),
        (
            "You keep the lowest scores; a high score means stay.",
            lambda masks, scores: [
                top(-layer, int(mask.sum())) for mask, layer in zip(masks, scores, strict=True)
            ],
        ),
    ],
)
def at_widths_of(masks: Layers, scores: Layers) -> Layers:
    """Keep as many neurons in each layer as given masks do, but others.

    Parameters
    ----------
    masks : list of Tensor
        A (N,) bool tensor per layer.
    scores : list of Tensor
        A (N,) tensor per layer.

    Returns
    -------
    list of Tensor
        Masks of the same widths, of the highest scores in each layer.
    """
    return select(scores, widths=[int(mask.sum()) for mask in masks])


@exercise(
    cases=[
        (_scores([1, 9, 2], [8, 7, 6, 0]), 0.5),
        (_scores([2, 1, 2, 2], [2, 0], [2, 3]), 0.4),
        (_scores([5, 4, 3], [2, 1, 0, -1]), 0.38),
        (_scores([0, 0, 0], [0, 0, 0]), 0.5),
    ],
    hints=[
        (
            "That is Top_v in each layer on its own; put the scores of all layers in one row "
            "first.",
            lambda scores, keep: [top(layer, round(keep * len(layer))) for layer in scores],
        ),
        (
            "You rank inside each layer, so every layer's best counts the same; compare the "
            "scores.",
            lambda scores, keep: _highest(
                [_ranks(layer) for layer in scores], _count(scores, keep)
            ),
        ),
        (
            "A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
            lambda scores, keep: [
                layer >= torch.cat(scores).sort(descending=True).values[_count(scores, keep) - 1]
                for layer in scores
            ],
        ),
        (
            "int() cuts the fraction off; keep exactly round(keep * N), N over all layers.",
            lambda scores, keep: _highest(scores, int(keep * sum(len(layer) for layer in scores))),
        ),
    ],
)
def global_top_v(scores: Layers, keep: float) -> Layers:
    """Choose who stays in a ranking of all layers' neurons together.

    Parameters
    ----------
    scores : list of Tensor
        A (N,) tensor per layer.
    keep : float
        The fraction of all neurons that stays.

    Returns
    -------
    list of Tensor
        A (N,) bool mask per layer: exactly round(keep * total) are True in all. A layer may
        be emptied.
    """
    return _highest(scores, _count(scores, keep))


def _added(scores: Layers, count: int, floor: int) -> Layers:
    """The `count` highest scores of all layers, and the best `floor` of each layer on top."""
    masks = _highest(scores, count)
    return [mask | top(layer, floor) for mask, layer in zip(masks, scores, strict=True)]


def _from_the_widest(scores: Layers, keep: float, floor: int) -> Layers:
    """The floors on top of the total, which the widest layer then pays for."""
    count = _count(scores, keep)
    widths = [int(mask.sum()) for mask in _added(scores, count, floor)]
    widest = widths.index(max(widths))
    widths[widest] -= sum(widths) - count
    return select(scores, widths=widths)


@exercise(
    cases=[
        (_scores([9, 8, 7, 6, 5, 4], [0, 3, 2, 1], [5.4, 5.5, 5.6, 0]), 0.5, 2),
        (_scores([1, 2, 3, 4], [8, 7, 6, 5]), 0.5, 1),
        (_scores([9, 8, 7], [1, 2, 3]), 0.5, 1),
    ],
    hints=[
        (
            "The bug is still there: count the neurons. A floor's neurons come out of the same "
            "total.",
            lambda scores, keep, floor: _added(scores, _count(scores, keep), floor),
        ),
        (
            "The total is right, but the widest layer pays for all; the lowest scores of all "
            "should.",
            _from_the_widest,
        ),
        (
            "You take a floor off the total for layers that need none, too; then too few stay.",
            lambda scores, keep, floor: _added(
                scores, _count(scores, keep) - floor * len(scores), floor
            ),
        ),
    ],
)
def with_floor(scores: Layers, keep: float, floor: int) -> Layers:
    """Choose who stays in a ranking of all neurons, with some sure in each layer.

    Parameters
    ----------
    scores : list of Tensor
        A (N,) tensor per layer.
    keep : float
        The fraction of all neurons that stays.
    floor : int
        How many neurons stay in each layer at least.

    Returns
    -------
    list of Tensor
        A (N,) bool mask per layer: exactly round(keep * total) are True in all.
    """
    widths = layer_widths(scores, keep, "global", floor=floor, warn=False)
    return select(scores, widths=widths)
