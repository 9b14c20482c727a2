"""The house style of the figures, and `Plot`: a figure and the sentence it shows.

No pyplot, no global state. Colours are Okabe and Ito's, safe for colour-blind readers, and every
difference is also shown by position, marker or label.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
BLACK = "#000000"
YELLOW = "#F0E442"
GREY = "#7F7F7F"
DPI = 110


class Style(NamedTuple):
    """How a line is drawn: its marker and line style in matplotlib's letters, and its colour."""

    marker: str
    line: str
    colour: str

    @property
    def fmt(self) -> str:
        """What `Axes.plot` takes as its format."""
        return self.marker + self.line


STYLES = (
    Style("o", "-", BLUE),
    Style("s", "--", ORANGE),
    Style("^", ":", GREEN),
    Style("D", "-.", RED),
    Style("v", "-", PURPLE),
    Style("P", "--", SKY),
    Style("X", ":", BLACK),
    Style("*", "-.", YELLOW),
)


class Margins(NamedTuple):
    """The room around the axes of a figure, in inches."""

    left: float
    right: float
    bottom: float
    top: float


MARGINS = Margins(left=0.8, right=0.15, bottom=0.55, top=0.3)


@dataclass
class Plot:
    """A figure and one sentence that says what it shows; a notebook displays both.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    sentence : str
        What it shows, with its numbers.
    """

    figure: Figure
    sentence: str

    def png(self, compress: int = 6) -> bytes:
        """Draw the figure.

        Parameters
        ----------
        compress : int, default 6
            From 1 (a larger picture, and sooner there) to 9.

        Returns
        -------
        bytes
            The picture as a PNG file's bytes.
        """
        if self.figure.get_layout_engine() is None:
            _flatten(self.figure)
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer,
            format="png",
            dpi=DPI,
            metadata={"Software": None},
            pil_kwargs={"compress_level": compress},
        )
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png(), "text/plain": self.sentence}, {}

    def __repr__(self) -> str:
        return f"Plot({self.sentence})"


def new_figure(
    columns: int = 1,
    width: float = 7.0,
    height: float = 3.4,
    margins: tuple[float, float, float, float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Make an empty figure in the house style.

    Parameters
    ----------
    columns : int, default 1
        How many axes stand side by side.
    width, height : float
        Size of the whole figure in inches.
    margins : tuple of float, optional
        Left, right, bottom and top, in inches, for a figure that is drawn again and again: its axes
        stay where they are, and it is drawn sooner. By default the margins are fitted.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure; it belongs to no window.
    axes : list of matplotlib.axes.Axes
        Its axes, from left to right.
    """
    figure = Figure(figsize=(width, height), layout="constrained" if margins is None else None)
    if margins is not None:
        room = Margins(*margins)
        figure.subplots_adjust(
            left=room.left / width,
            right=1 - room.right / width,
            bottom=room.bottom / height,
            top=1 - room.top / height,
            wspace=0.22,
        )
    axes = [figure.add_subplot(1, columns, number) for number in range(1, columns + 1)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="both", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def point_at(
    ax: Axes, x: float, y: float, marker: str = "o", size: float = 13, width: float = 1.8
) -> None:
    """Draw a black outline around a point, by default a ring; size and width are in points."""
    ax.plot(x, y, marker, markersize=size, markeredgewidth=width, fillstyle="none", color="black")


def joined(numbers: Sequence[int]) -> str:
    """The numbers as a sentence lists them: "12, 30, 7"."""
    return ", ".join(str(number) for number in numbers)


def _flatten(figure: Figure) -> None:
    """Replace each axis by a few lines and texts: matplotlib's own take most of the drawing."""
    figure.set_dpi(DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for ax in figure.axes:
        locator = ax.get_axes_locator()
        final_position = None if locator is None else locator(ax, renderer)
        ax.apply_aspect(final_position)
        for axis in (ax.xaxis, ax.yaxis):
            if ax.axison and axis.get_visible():
                _flatten_axis(ax, axis, renderer)
                axis.set_visible(False)


def _flatten_axis(ax: Axes, axis: Any, renderer: Any) -> None:
    """Draw an axis' grid, its tick labels on its own side, and the axis' label beyond them."""
    side = axis.get_ticks_position()
    style = axis.get_tick_params()
    low, high = sorted(axis.get_view_interval())
    positions = axis.get_majorticklocs()
    names = axis.get_major_formatter().format_ticks(positions)
    ticks = [
        (position, name)
        for position, name in zip(positions, names, strict=True)
        if low <= position <= high
    ]
    if style.get("gridOn"):
        _draw_grid(ax, side, [position for position, _ in ticks], style)
    tick_labels = _draw_tick_labels(ax, side, ticks, style)
    _draw_axis_label(ax, axis, side, tick_labels, renderer)


def _on(side: str, along: float, across: float) -> tuple[float, float]:
    """The x and y of a place that lies so far along an axis of this side, and across it."""
    return (along, across) if side == "bottom" else (across, along)


def _draw_grid(ax: Axes, side: str, positions: Sequence[float], style: dict[str, Any]) -> None:
    transform = ax.get_xaxis_transform() if side == "bottom" else ax.get_yaxis_transform()
    lines = LineCollection(
        [[_on(side, position, 0), _on(side, position, 1)] for position in positions],
        transform=transform,
        colors=style["grid_color"],
        linewidths=style["grid_linewidth"],
        zorder=0.5,
    )
    ax.add_collection(lines, autolim=False)


def _draw_tick_labels(
    ax: Axes, side: str, ticks: Sequence[tuple[float, str]], style: dict[str, Any]
) -> list[Text]:
    place_labels = {
        "bottom": ax.get_xaxis_text1_transform,
        "left": ax.get_yaxis_text1_transform,
        "right": ax.get_yaxis_text2_transform,
    }[side]
    transform, vertical, horizontal = place_labels(3)  # points between the axis and its labels
    across = 1.0 if side == "right" else 0.0
    return [
        ax.text(
            *_on(side, position, across),
            name,
            transform=transform,
            verticalalignment=vertical,
            horizontalalignment=horizontal,
            fontsize=style.get("labelsize", "medium"),
            family=style.get("labelfontfamily"),
            rotation=style.get("rotation", 0),
        )
        for position, name in ticks
    ]


def _draw_axis_label(
    ax: Axes, axis: Any, side: str, tick_labels: Sequence[Text], renderer: Any
) -> None:
    """Write the axis' label outside its tick labels, with the power of ten that those leave out."""
    boxes = [ax.bbox]
    if tick_labels:  # the longest alone: measuring takes time
        longest = max(reversed(tick_labels), key=lambda label: len(label.get_text()))
        boxes.append(longest.get_window_extent(renderer))
    corners = Bbox.union(boxes).get_points()
    (left, bottom), (right, _) = ax.transAxes.inverted().transform(corners)
    spot, gap, horizontal, vertical, rotation = {
        "bottom": ((0.5, bottom), (0, -4), "center", "top", 0),
        "left": ((left, 0.5), (-4, 0), "right", "center", 90),
        "right": ((right, 0.5), (4, 0), "left", "center", 90),
    }[side]
    name = axis.get_label_text()
    left_out = axis.get_major_formatter().get_offset()
    if left_out:
        name += f", in {left_out}"
    ax.annotate(
        name,
        spot,
        gap,
        xycoords="axes fraction",
        textcoords="offset points",
        horizontalalignment=horizontal,
        verticalalignment=vertical,
        rotation=rotation,
        fontproperties=axis.label.get_fontproperties(),
    )
