"""A plot that can be touched: an explorer without controls."""

from __future__ import annotations

from typing import Any

from torch import nn

from gumlab.course.explore.base import Explorer, first_examples
from gumlab.course.explore.portraits import Portraits
from gumlab.course.plots import Plot
from gumlab.errors import GumlabError


class Touched(Explorer):
    """Show a plot whose neurons can be pointed at and selected; `touch` makes one."""

    alt = "A picture of neurons; the sentence below it says what it shows."

    def __init__(self, plot: Plot, portraits: Portraits | None) -> None:
        self.portraits = portraits
        self._shown = plot
        super().__init__({})

    def compute(self) -> Plot:
        """Nothing: the plot is there."""
        return self._shown

    def draw(self, answer: Plot) -> Plot:
        """The plot as it is."""
        return answer


def touch(
    plot: Plot, model: nn.Module | None = None, tokenizer: Any = None, task: Any = None
) -> Touched:
    """Make a plot of neurons one that can be touched: point at a neuron, click or press Enter.

    Parameters
    ----------
    plot : Plot
        Such as `gumlab.plots.neuron_map` and `gumlab.plots.against` make.
    model, tokenizer, task : optional
        Whose neurons these are. With them a selected neuron's twin is told, and on which of the
        task's first 64 training examples it fires most.

    Returns
    -------
    Touched
        The plot with its sentence below it.

    Raises
    ------
    GumlabError
        For something else than a plot of neurons.
    """
    if not isinstance(plot, Plot) or not plot.places:
        raise GumlabError(f"touch takes a plot of single neurons; got {plot!r:.60}.")
    if model is None:
        return Touched(plot, None)
    return Touched(plot, Portraits(model, tokenizer, first_examples(task, "train", 64)))
