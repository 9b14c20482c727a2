"""The house style of the figures, and `Plot`: a figure and the sentence it shows.

No pyplot, no global state. Colours are Okabe and Ito's, safe for colour-blind readers, and every
difference is also shown by position, marker or label.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from gumlab.course.plots.places import Cells, Dots

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


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """Give each method a style: the paper's methods have theirs in every figure.

    Parameters
    ----------
    names : iterable of str
        What is drawn; others than the paper's methods take the styles that are left.

    Returns
    -------
    dict of str to Style
        The first eight names, in their order.
    """
    from gumlab.study.paper import METHODS  # here, so that figures come without pandas

    shown = list(dict.fromkeys(names))[: len(STYLES)]
    own = {name: style for name, style in zip(METHODS, STYLES, strict=False) if name in shown}
    left = iter(style for style in STYLES if style not in own.values())
    return {name: own[name] if name in own else next(left) for name in shown}


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
    places : sequence of (Dots or Cells)
        Where its neurons are, for a pointer over the picture.
    """

    figure: Figure
    sentence: str
    places: Sequence[Dots | Cells] = ()

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
        buffer = io.BytesIO()
        self.figure.savefig(
            buffer,
            format="png",
            dpi=DPI,
            metadata={"Software": None},
            pil_kwargs={"compress_level": compress},
        )
        return buffer.getvalue()

    def placed(self) -> list[dict[str, Any]]:
        """Where the neurons are in the picture, in fractions of its width and height.

        Returns
        -------
        list of dict
            What `pointer.Pointer` reads, one for each group of neurons in `places`.
        """
        if self.places and self.figure.get_layout_engine() is not None:
            self.figure.draw_without_rendering()  # only a drawing fits the margins
        for group in self.places:
            group.ax.apply_aspect()
        return [group.placed() for group in self.places]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        look = {"image/png": {"alt": self.sentence}}
        return {"image/png": self.png(), "text/plain": self.sentence}, look

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


def text_width(text: str, size: float) -> float:
    """How wide the widest line of a text is, in inches; size is in points."""
    font = FontProperties(size=size)
    return max(
        text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] / 72
        for line in text.splitlines()
    )


def point_at(
    ax: Axes, x: float, y: float, marker: str = "o", size: float = 13, width: float = 1.8
) -> None:
    """Draw a black outline around a point, by default a ring; size and width are in points."""
    ax.plot(x, y, marker, markersize=size, markeredgewidth=width, fillstyle="none", color="black")


def joined(numbers: Sequence[int]) -> str:
    """The numbers as a sentence lists them: "12, 30, 7"."""
    return ", ".join(str(number) for number in numbers)
