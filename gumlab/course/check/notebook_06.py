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


def _above_the_last(scores: Layers, keep: float) -> Layers:
    """The neurons above the score of the last that should stay, so without it."""
    last = torch.cat(scores).sort(descending=True).values[_count(scores, keep) - 1]
    return [layer > last for layer in scores]


def _ranks(layer: Tensor) -> Tensor:
    """The scores' ranks within their layer, as scores: the best is the highest."""
    return -1.0 * layer.argsort(descending=True, stable=True).argsort()


@exercise(
    cases=[
        (_masks("xx.x", ".x"),),
        (_masks("x....", "xxx.", "...."),),
    ],
    hints=[
        (
            "Those are the counts; divide each by the number of neurons in its layer.",
            lambda masks: [int(mask.sum()) for mask in masks],
        ),
        (
            "Those are the shares that go; a mask is True for a neuron that stays.",
            lambda masks: [1 - float(mask.float().mean()) for mask in masks],
        ),
        (
            "You divide by the neurons of all layers; divide by those of the layer.",
            lambda masks: [int(mask.sum()) / len(torch.cat(masks)) for mask in masks],
        ),
        (
            "You divide by all that stay; divide by the number of neurons in the layer.",
            lambda masks: [float(mask.sum() / torch.cat(masks).sum()) for mask in masks],
        ),
        (
            "That is the share of all layers together; give one for each layer.",
            lambda masks: float(torch.cat(masks).float().mean()),
        ),
    ],
)
def kept_by_layer(masks: Layers) -> list[float]:
    """Give the fraction of its neurons that each layer keeps.

    Parameters
    ----------
    masks : list of Tensor
        A (N,) bool tensor per layer.

    Returns
    -------
    list of float
        A fraction per layer.
    """
    return [int(mask.sum()) / len(mask) for mask in masks]


@exercise(
    cases=[
        (_masks("xx.x.", ".x..."), _scores([1, 5, 2, 4, 3], [9, 8, 7, 6, 5])),
        (_masks("x..", "xxxx", ".xx."), _scores([2, 2, 1], [1, 2, 3, 4], [0, 5, 0, 7])),
        (_masks("xx..", "x."), _scores([4, 3, 3, 1], [0, 9])),
    ],
    hints=[
        (
            "Those are the masks themselves; keep as many, but other neurons: those of the scores.",
            lambda masks, scores: masks,
        ),
        (
            "You choose over all layers together; each layer keeps as many as its mask does.",
            lambda masks, scores: _highest(scores, int(torch.cat(masks).sum())),
        ),
        (
            "You keep the lowest scores; a high score means stay.",
            lambda masks, scores: [
                top(-layer, int(mask.sum())) for mask, layer in zip(masks, scores, strict=True)
            ],
        ),
        (
            "A threshold keeps every neuron of a tie; keep exactly as many as the mask does.",
            lambda masks, scores: [
                layer >= layer.sort(descending=True).values[int(mask.sum()) - 1]
                for mask, layer in zip(masks, scores, strict=True)
            ],
        ),
        (
            "You give every layer the same share; each keeps as many as its own mask does.",
            lambda masks, scores: [
                top(layer, round(float(torch.cat(masks).float().mean()) * len(layer)))
                for layer in scores
            ],
        ),
        (
            "You give every layer as many as the first one has; each has a width of its own.",
            lambda masks, scores: [top(layer, int(masks[0].sum())) for layer in scores],
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
            "A threshold with > leaves out the last neuron that should stay, and all that tie with "
            "it.",
            _above_the_last,
        ),
        (
            "You keep the lowest scores; a high score means stay.",
            lambda scores, keep: _highest([-layer for layer in scores], _count(scores, keep)),
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


def _ahead(layer: Tensor, sure: Tensor) -> Tensor:
    """The scores of a layer, with some neurons at the head of every queue."""
    return layer.masked_fill(sure, torch.inf)


def _floors_and_the_rest(scores: Layers, keep: float, floor: int) -> Layers:
    """The floors first, and then the whole total once more."""
    sure = [top(layer, floor) for layer in scores]
    others = [layer.masked_fill(mask, -torch.inf) for layer, mask in zip(scores, sure, strict=True)]
    rest = _highest(others, _count(scores, keep))
    return [mask | more for mask, more in zip(sure, rest, strict=True)]


def _lifted(scores: Layers, keep: float, floor: int) -> Layers:
    """The sure neurons get a large number on top, which is not large enough for all scores."""
    lifted = [layer + 1000 * top(layer, floor) for layer in scores]
    return _highest(lifted, _count(scores, keep))


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
        (_scores([9, 8, 7, 6, 5, 4, 3], [12, 11, 10, 2, 1, 0.5, 0]), 0.4, 1),  # 5.6: six stay
        (_scores([8000, 7000, 6000, 5000], [9, 8, 1, 0]), 0.5, 1),  # scores may be large
    ],
    hints=[
        (
            "You add the floors on top of the total; a floor's neurons come out of the same total.",
            lambda scores, keep, floor: _added(scores, _count(scores, keep), floor),
        ),
        (
            "The total is right, but the widest layer pays for all; the lowest scores of all "
            "should.",
            _from_the_widest,
        ),
        (
            "The floors come first, but then the rest has only what they leave of the total.",
            _floors_and_the_rest,
        ),
        (
            "The number that you add for the sure neurons is smaller than some scores; torch.inf "
            "is not.",
            _lifted,
        ),
        (
            "You take a floor off the total for layers that need none, too; then too few stay.",
            lambda scores, keep, floor: _added(
                scores, _count(scores, keep) - floor * len(scores), floor
            ),
        ),
        (
            "There is no floor yet: a layer may still end with fewer than `floor` neurons.",
            lambda scores, keep, floor: _highest(scores, _count(scores, keep)),
        ),
        (
            "You make the first neurons of each layer sure; a floor is for those with the highest "
            "scores.",
            lambda scores, keep, floor: _highest(
                [_ahead(layer, torch.arange(len(layer)) < floor) for layer in scores],
                _count(scores, keep),
            ),
        ),
        (
            "You rank inside each layer; the places that the floors leave go by the scores.",
            lambda scores, keep, floor: _highest(
                [_ranks(layer) for layer in scores], _count(scores, keep)
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


@exercise(
    cases=[
        (_scores([1, 2, 3, 6], [10, 30, 20]),),
        (_scores([-1, 0, 5], [100, 104], [7, 7, 7, 9]),),
    ],
    hints=[
        (
            "Divide by N inside the root, not by N - 1: std(correction=0).",
            lambda scores: [(layer - layer.mean()) / layer.std() for layer in scores],
        ),
        (
            "You forgot to take the layer's mean away.",
            lambda scores: [layer / layer.std(correction=0) for layer in scores],
        ),
        (
            "You divide by the variance; divide by its root, the standard deviation.",
            lambda scores: [(layer - layer.mean()) / layer.var(correction=0) for layer in scores],
        ),
        (
            "The mean is right now; divide by the layer's standard deviation as well.",
            lambda scores: [layer - layer.mean() for layer in scores],
        ),
        (
            "You take mean and spread over all layers; each layer has its own.",
            lambda scores: [
                (layer - torch.cat(scores).mean()) / torch.cat(scores).std(correction=0)
                for layer in scores
            ],
        ),
    ],
)
def standardised(scores: Layers) -> Layers:
    """Give the scores of every layer the same mean and the same spread.

    Parameters
    ----------
    scores : list of Tensor
        A (N,) tensor per layer, its numbers not all equal.

    Returns
    -------
    list of Tensor
        In each layer (s - mean) / standard deviation, (N,), with the mean square under the root.
    """
    return [(layer - layer.mean()) / layer.std(correction=0) for layer in scores]


def _mean(values: list[float]) -> float:
    """The mean of some losses."""
    return sum(values) / len(values)


@exercise(
    cases=[
        ([1.0, 1.2, 1.1], [0.8, 0.7, 0.9], [0.7, 0.75, 0.65]),
        ([2.0, 1.0], [1.0, 0.9], [0.5, 0.8]),
        ([0.9], [0.8], [0.4]),
        ([1.0, 0.9], [1.1, 1.2], [0.5, 0.6]),  # the control is worse than random
        ([0.9], [0.2], [0.4]),  # and here better than the method
    ],
    hints=[
        (
            "You average the shares seed by seed; a small gain would count as much as a large one. "
            "Take the means of the losses first.",
            lambda random, control, method: _mean(
                [(r - c) / (r - m) for r, c, m in zip(random, control, method, strict=True)]
            ),
        ),
        (
            "That is the part of the neurons; the widths' part is from random to the control.",
            lambda random, control, method: (
                (_mean(control) - _mean(method)) / (_mean(random) - _mean(method))
            ),
        ),
        (
            "You divide by random's loss; divide by the whole gain, from random to the method.",
            lambda random, control, method: (_mean(random) - _mean(control)) / _mean(random),
        ),
        (
            "That is the gain; divide it by the whole gain, from random to the method.",
            lambda random, control, method: _mean(random) - _mean(control),
        ),
        (
            "It is upside down: the whole gain, from random to the method, stands below the line.",
            lambda random, control, method: (
                (_mean(random) - _mean(method)) / (_mean(random) - _mean(control))
            ),
        ),
        (
            "Leave abs() out: where the control is worse than random, the share is below 0.",
            lambda random, control, method: abs(
                (_mean(random) - _mean(control)) / (_mean(random) - _mean(method))
            ),
        ),
        (
            "Cut nothing off: the share may be below 0 or above 1, and that is news.",
            lambda random, control, method: min(
                max((_mean(random) - _mean(control)) / (_mean(random) - _mean(method)), 0.0), 1.0
            ),
        ),
        (
            "That is the first seed alone; take the mean over the seeds.",
            lambda random, control, method: (random[0] - control[0]) / (random[0] - method[0]),
        ),
    ],
)
def share_of_widths(random: list[float], control: list[float], method: list[float]) -> float:
    """Say how much of a method's gain over random its layer widths have.

    Parameters
    ----------
    random, control, method : list of float
        The losses by seed of random with equal shares, of random at the method's widths, and of
        the method.

    Returns
    -------
    float
        (random - control) / (random - method), each the mean over the seeds.
    """
    return (_mean(random) - _mean(control)) / (_mean(random) - _mean(method))
