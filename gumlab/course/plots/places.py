"""Where the neurons are in a figure, so that a pointer over its picture can name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike


@dataclass
class Dots:
    """Neurons that stand as points in axes.

    Attributes
    ----------
    ax : matplotlib.axes.Axes
        Where they stand.
    x, y : array_like
        (n,) each, in the axes' own units.
    neurons : sequence of int
        Their numbers.
    texts : sequence of str
        What is to be said of each, besides layer and number.
    layers : sequence of int or None
        The layer of each; None where it is not known.
    """

    ax: Axes
    x: ArrayLike
    y: ArrayLike
    neurons: Sequence[int]
    texts: Sequence[str]
    layers: Sequence[int | None]

    def placed(self) -> dict[str, Any]:
        """The points that can be seen, as fractions of the picture from its left and its top."""
        data = np.column_stack([np.asarray(self.x, float), np.asarray(self.y, float)])
        inside = self.ax.transAxes.inverted().transform(self.ax.transData.transform(data))
        seen = np.flatnonzero(((inside >= 0) & (inside <= 1)).all(1)).tolist()
        box = self.ax.get_position()
        return {
            "x": np.round(box.x0 + box.width * inside[seen, 0], 4).tolist(),
            "y": np.round(1 - box.y0 - box.height * inside[seen, 1], 4).tolist(),
            "layers": [self.layers[place] for place in seen],
            "neurons": [int(self.neurons[place]) for place in seen],
            "texts": [self.texts[place] for place in seen],
        }


class Block(NamedTuple):
    """Some neurons of one layer in a grid of cells, from the first cell of a row on.

    Attributes
    ----------
    layer : int or None
        Their layer; None where it is not known.
    row : int
        The row of the first one; after the last column they go on in the next row.
    neurons : sequence of int
        Their numbers.
    texts : sequence of str
        What is to be said of each, besides layer and number.
    """

    layer: int | None
    row: int
    neurons: Sequence[int]
    texts: Sequence[str]


@dataclass
class Cells:
    """Neurons that stand as the cells of a grid which fills axes.

    Attributes
    ----------
    ax : matplotlib.axes.Axes
        What the grid fills.
    rows, columns : int
        The size of the grid.
    blocks : sequence of Block
        Which neurons stand where.
    """

    ax: Axes
    rows: int
    columns: int
    blocks: Sequence[Block]

    def placed(self) -> dict[str, Any]:
        """The grid's edges, as fractions of the picture from its left and its top, and its blocks.

        Where each cell is follows from these; the browser computes it.
        """
        box = self.ax.get_position()
        edges = (box.x0, 1 - box.y1, box.x1, 1 - box.y0)  # left, top, right, bottom
        return {
            "box": [round(float(edge), 4) for edge in edges],
            "rows": self.rows,
            "columns": self.columns,
            "blocks": [
                {
                    "layer": block.layer,
                    "row": block.row,
                    "neurons": [int(neuron) for neuron in block.neurons],
                    "texts": list(block.texts),
                }
                for block in self.blocks
            ],
        }


def text_of(placed: Iterable[Mapping[str, Any]], layer: int | None, neuron: int) -> str:
    """What is to be said of a neuron, as the first of its places has it; "" where it has none.

    Parameters
    ----------
    placed : iterable of mapping
        As `Plot.placed` gives it.
    layer, neuron : int
        Which one.
    """
    for group in placed:
        if "blocks" in group:
            blocks = [block for block in group["blocks"] if block["layer"] == layer]
            named = [pair for block in blocks for pair in _pairs(block)]
        else:
            layers = zip(group["layers"], _pairs(group), strict=True)
            named = [pair for its_layer, pair in layers if its_layer == layer]
        for number, text in named:
            if number == neuron:
                return text
    return ""


def _pairs(group: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The numbers of some neurons, each with its text."""
    return list(zip(group["neurons"], group["texts"], strict=True))
