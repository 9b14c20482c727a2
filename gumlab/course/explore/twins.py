"""Explorer of twins: nearest neighbours, every pair's cosine, exact reconstructability."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gumlab.course import plots
from gumlab.course.explore.base import Explorer
from gumlab.course.explore.redundancy import pickers
from gumlab.feedforward import neurons
from gumlab.gram import cosine
from gumlab.inspection import redundancy
from gumlab.tasks import Task


class Twins(Explorer):
    """Who looks like whom in a layer; see `twins`."""

    alt = (
        "Left: |cosine| of every pair of a layer's neurons, neighbours together. Right: what the "
        "twin alone rebuilds of each neuron against what all others rebuild."
    )

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, limit: int = 256) -> None:
        self.report = redundancy(model, tokenizer, task, limit=limit)
        self.cosines = [cosine(gram).cpu() for gram in self.report.gram]
        first = int(self.report.max_cosine[0].abs().argmax())
        super().__init__(pickers(neurons(model), first))

    def compute(self, layer: int, neuron: int) -> tuple[int, list[int]]:
        """The neuron (the last one where the layer is too narrow) and its five nearest."""
        size: Tensor = self.cosines[layer].abs()
        i = min(neuron, len(size) - 1)
        nearest = size[i].argsort(descending=True).tolist()
        return i, [j for j in nearest if j != i][:5]

    def draw(self, answer: tuple[int, list[int]], layer: int, neuron: int) -> plots.Plot:
        i, nearest = answer
        r2 = self.report.reconstructability[layer].cpu()
        return plots.twins(self.cosines[layer], r2, i, nearest, f"layer {layer}")


def twins(model: nn.Module, tokenizer: Any, task: Task, limit: int = 256) -> Twins:
    """Pairwise and exact uniqueness side by side, from the first `limit` training examples.

    Left: |cosine| of every pair. Right: a neuron's best pair (cosine squared: the share of its
    energy that the twin rebuilds) and R2 (what the best mixture of all others rebuilds); the second
    is never below the first.
    """
    return Twins(model, tokenizer, task, limit)
