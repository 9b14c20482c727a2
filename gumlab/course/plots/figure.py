"""The house style of the figures, and `Plot`: a figure and the sentence it shows.

No pyplot, no global state. Colours are Okabe and Ito's, safe for colour-blind readers, and every
difference is also shown by position, marker or label.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"


@dataclass
class Plot:
    """A figure and one sentence that says what it shows."""

    figure: Figure
    sentence: str

    def png(self, compress: int = 6) -> bytes:
        """The figure as PNG bytes; compress: 1 (larger, and sooner there) to 9."""
        if self.figure.get_layout_engine() is None:
            _flatten(self.figure)
        buffer, options = io.BytesIO(), {"compress_level": compress}
        self.figure.savefig(
            buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs=options
        )
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png(), "text/plain": self.sentence}, {}

    def __repr__(self) -> str:
        return f"Plot({self.sentence})"


COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#000000", "#F0E442")
STYLES = tuple(zip(("o-", "s--", "^:", "D-.", "v-", "P--", "X:", "*-."), COLOURS, strict=True))
DPI = 110
Margins = tuple[float, float, float, float]
MARGINS: Margins = (0.8, 0.15, 0.55, 0.3)


def new_figure(
    columns: int = 1, width: float = 7.0, height: float = 3.4, margins: Margins | None = None
) -> tuple[Figure, list[Any]]:
    """An empty figure in the house style and its axes, side by side.

    margins: left, right, bottom and top, in inches, for a figure that is drawn again and again: its
    axes stay where they are, and it is drawn sooner. Else the margins are fitted.
    """
    figure = Figure(figsize=(width, height), layout="constrained" if margins is None else None)
    if margins is not None:
        left, right, bottom, top = margins
        across, up = {"left": left / width, "right": 1 - right / width}, 1 - top / height
        figure.subplots_adjust(**across, bottom=bottom / height, top=up, wspace=0.22)
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="both", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def _flatten(figure: Figure) -> None:
    """Replace each axis by a few lines and texts: matplotlib's own take most of the drawing."""
    figure.set_dpi(DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for ax in figure.axes:
        locator = ax.get_axes_locator()
        ax.apply_aspect(
            locator(ax, renderer) if locator is not None else None
        )  # where it will be drawn
        for axis in (ax.xaxis, ax.yaxis):
            if ax.axison and axis.get_visible():
                _flatten_axis(ax, axis, renderer)
                axis.set_visible(False)


def _flatten_axis(ax: Any, axis: Any, renderer: Any) -> None:
    """Grid lines, tick labels on the axis' own side (bottom, left, right), the label beyond."""
    side, style = axis.get_ticks_position(), axis.get_tick_params()
    low, high = sorted(axis.get_view_interval())
    ticks = axis.get_majorticklocs()
    names = axis.get_major_formatter().format_ticks(ticks)
    shown = [(t, n) for t, n in zip(ticks, names, strict=True) if low <= t <= high]
    grid, frame = {
        "bottom": (ax.get_xaxis_transform(), ax.get_xaxis_text1_transform),
        "left": (ax.get_yaxis_transform(), ax.get_yaxis_text1_transform),
        "right": (ax.get_yaxis_transform(), ax.get_yaxis_text2_transform),
    }[side]

    turn = -1 if side != "bottom" else 1  # (tick, other) is (x, y), or (y, x)
    if style.get("gridOn"):
        ends = [[(t, 0)[::turn], (t, 1)[::turn]] for t, _ in shown]
        looks = {"colors": style["grid_color"], "lw": style["grid_linewidth"], "zorder": 0.5}
        ax.add_collection(LineCollection(ends, transform=grid, **looks), autolim=False)
    place, va, ha = frame(3)  # points between the axis and its tick labels
    looks = {"transform": place, "va": va, "ha": ha, "fontsize": style.get("labelsize", "medium")}
    looks |= {"family": style.get("labelfontfamily"), "rotation": style.get("rotation", 0)}
    texts = [ax.text(*(t, float(side == "right"))[::turn], name, **looks) for t, name in shown]
    longest = sorted(texts, key=lambda text: len(text.get_text()))[-1:]  # measuring takes time
    box = Bbox.union([ax.bbox, *(text.get_window_extent(renderer) for text in longest)])
    (x0, y0), (x1, _) = ax.transAxes.inverted().transform(box.get_points())
    spot, gap, looks = {
        "bottom": ((0.5, y0), (0, -4), {"ha": "center", "va": "top", "rotation": 0}),
        "left": ((x0, 0.5), (-4, 0), {"ha": "right", "va": "center", "rotation": 90}),
        "right": ((x1, 0.5), (4, 0), {"ha": "left", "va": "center", "rotation": 90}),
    }[side]
    offset = axis.get_major_formatter().get_offset()
    name = axis.get_label_text() + (f", in {offset}" if offset else "")
    looks["fontproperties"] = axis.label.get_fontproperties()
    ax.annotate(name, spot, gap, xycoords="axes fraction", textcoords="offset points", **looks)
