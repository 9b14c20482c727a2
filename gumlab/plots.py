"""Pure figure builders: data in, a `Plot` out, which is a figure and the sentence it shows.

No pyplot, no global state. Colours are Okabe and Ito's, safe for colour-blind readers, and every
difference is also shown by position, marker or label.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
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


def new_figure(
    columns: int = 1, width: float = 7.0, height: float = 3.4
) -> tuple[Figure, list[Any]]:
    """An empty figure in the house style and its axes, side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="both", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def method_bars(table: Any, metric: str) -> Plot:
    """Loss and task metric of each method, best at the top; the dense run is a dashed line.

    table: one row per method with columns method, keep, loss and `metric`; the first row is dense.
    """
    dense, pruned = table.iloc[0], table.iloc[1:].sort_values("loss", ascending=False)
    figure, axes = new_figure(2, width=9, height=0.6 + 0.42 * len(table))
    for ax, column, label in (
        (axes[0], "loss", "loss (nats per target token)"),
        (axes[1], metric, metric),
    ):
        ax.plot(pruned[column], pruned["method"], "o", color=BLUE, markersize=8)
        for name, value in zip(pruned["method"], pruned[column], strict=True):
            text = f"{value:.3f}" if column == "loss" else f"{value:.1f}"
            ax.annotate(
                text,
                (value, name),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        ax.axvline(dense[column], color=GREY, linestyle="--", linewidth=1.2)
        ax.set_xlabel(f"{label}; dashed: {dense['method']}")
        ax.margins(x=0.12, y=0.15)
    axes[1].tick_params(labelleft=False)
    best, worst = pruned.iloc[-1], pruned.iloc[0]
    sentence = (
        f"With {best['keep']:.0%} of the neurons left, {best['method']} has the lowest loss "
        f"({best['loss']:.3f}) and {worst['method']} the highest ({worst['loss']:.3f}); "
        f"dense: {dense['loss']:.3f}."
    )
    return Plot(figure, sentence)


def neuron_map(masks: Sequence[Any], title: str = "") -> Plot:
    """Which neurons stay: one row of cells per layer, kept dark, removed light, widths at the side.

    masks: one (N,) bool tensor per layer.
    """
    widest = max(len(m) for m in masks)
    grid = np.full((len(masks), widest), np.nan)
    for row, mask in enumerate(masks):
        grid[row, : len(mask)] = np.asarray(mask, dtype=float)
    figure, (ax,) = new_figure(width=9, height=0.9 + 0.42 * len(masks))
    ax.grid(False)
    ax.imshow(
        grid,
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=1,
        cmap=ListedColormap(["#F1E3C8", BLUE]),
    )
    ax.set_yticks(range(len(masks)), [f"layer {i}" for i in range(len(masks))])
    ax.set_xlabel("neuron (dark: stays)")
    ax.set_title(title, fontsize=10, loc="left")
    for row, mask in enumerate(masks):
        ax.text(
            widest + widest * 0.01,
            row,
            f"{int(mask.sum())} of {len(mask)}",
            va="center",
            fontsize=9,
        )
    kept, total = sum(int(m.sum()) for m in masks), sum(len(m) for m in masks)
    widths = ", ".join(str(int(m.sum())) for m in masks)
    return Plot(
        figure, f"{kept:,} of {total:,} neurons stay ({kept / total:.0%}): {widths} by layer."
    )


def folded_map(ax: Any, masks: Sequence[Any]) -> None:
    """Draw every neuron as a cell, each layer folded into rows: kept dark, removed light.

    masks: one (N,) bool tensor per layer.
    """
    total = sum(len(m) for m in masks)
    columns = min(2 ** round(np.log2(2 * total) / 2), max(len(m) for m in masks))
    starts, rows = [], []
    for mask in masks:
        height = -(-len(mask) // columns)
        cells = np.full(height * columns, np.nan)
        cells[: len(mask)] = np.asarray(mask, dtype=float)
        starts.append(len(rows) + height / 2 - 0.5)
        rows += [*cells.reshape(height, columns), np.full(columns, np.nan)]
    colours = ListedColormap(["#F1E3C8", BLUE])
    ax.imshow(np.array(rows[:-1]), aspect="auto", vmin=0, vmax=1, cmap=colours)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks([])
    labels = [f"layer {i}\n{int(m.sum())} of {len(m)}" for i, m in enumerate(masks)]
    ax.set_yticks(starts, labels)
    ax.set_xlabel("each cell is a neuron; dark: stays")


def removal(masks: Sequence[Any], curves: dict[str, dict[float, float]], keep: float) -> Plot:
    """Who stays, beside the loss against the fraction of neurons kept; nothing is trained.

    masks: one (N,) bool tensor per layer. curves: label -> {keep: loss in nats per target token},
    the present curve first, each with the dense model's loss at 1. keep: the present point.
    """
    figure, (left, right) = new_figure(2, width=9.4, height=3.8)
    figure.set_layout_engine("none")  # the axes stay where they are from one state to the next
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.13, top=0.98, wspace=0.16)
    folded_map(left, masks)
    styles = zip(("o-", "s--", "^:", "D-."), (BLUE, ORANGE, GREEN, RED), strict=True)
    for (name, curve), (style, colour) in zip(curves.items(), styles, strict=False):
        points = [(100 * k, loss) for k, loss in sorted(curve.items())]
        right.plot(*zip(*points, strict=True), style, color=colour, markersize=5, label=name)
    name, curve = next(iter(curves.items()))
    now, dense = curve[keep], curve[1.0]
    right.plot(100 * keep, now, "o", markersize=13, fillstyle="none", color="black", mew=1.8)
    right.annotate(
        f"{now:.2f}", (100 * keep, now), (8, 8), textcoords="offset points", weight="bold"
    )
    right.axhline(dense, color=GREY, linestyle="--", linewidth=1.2)
    right.text(1, dense, "dense", color="#555555", va="bottom")
    right.set(xlim=(0, 113), xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    right.set_ylim(0, 1.12 * max(max(c.values()) for c in curves.values()))
    right.legend(frameon=False, fontsize=9, loc="upper right")
    widths = [int(m.sum()) for m in masks]
    total = sum(len(m) for m in masks)
    return Plot(
        figure,
        f"{name}: {sum(widths):,} of {total:,} neurons stay ({sum(widths) / total:.0%}), by layer "
        f"{', '.join(map(str, widths))}. Loss {now:.2f}; dense {dense:.2f}.",
    )
