"""The house style of the figures, and `Plot`: a figure and the sentence it shows.

No pyplot, no global state. Colours are Okabe and Ito's, safe for colour-blind readers, and every
difference is also shown by position, marker or label.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"


@dataclass
class Plot:
    """A figure and one sentence that says what it shows."""

    figure: Figure
    sentence: str

    def png(self) -> bytes:
        """The figure as PNG bytes."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.png(), "text/plain": self.sentence}, {}

    def __repr__(self) -> str:
        return f"Plot({self.sentence})"


Margins = tuple[float, float, float, float]
MARGINS: Margins = (0.8, 0.15, 0.55, 0.3)


def new_figure(
    columns: int = 1, width: float = 7.0, height: float = 3.4, margins: Margins | None = None
) -> tuple[Figure, list[Any]]:
    """An empty figure in the house style and its axes, side by side.

    margins: left, right, bottom and top, in inches, for a figure that is drawn again and again: its
    axes stay where they are, and it is drawn in half the time. Else the margins are fitted.
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
