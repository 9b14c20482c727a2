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
    figure.set_layout_engine(None)  # the axes stay where they are from one state to the next
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


def activations(h: Any, tokens: Sequence[str], names: Sequence[int]) -> Plot:
    """How strongly some neurons fire at each token of a text.

    h: (T, N) tensor. tokens: T strings. names: the neurons shown, one row each.
    """
    rows = np.asarray(h)[:, list(names)].T
    low, high = float(rows.min()), float(np.abs(rows).max())
    colours = {"vmin": 0, "vmax": high, "cmap": "Oranges"}  # GELU's h is hardly ever below 0
    if low < -0.2 * high:
        colours = {"vmin": -high, "vmax": high, "cmap": "PuOr_r"}
    figure, (ax,) = new_figure(width=9.4, height=1.3 + 0.34 * len(names))
    ax.grid(False)
    image = ax.imshow(rows, aspect="auto", **colours)
    for row, strongest in enumerate(rows.argmax(1)):
        ax.plot(strongest, row, "o", color="black", markersize=4)
    ax.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8, family="monospace")
    ax.set_yticks(range(len(names)), [f"neuron {n}" for n in names])
    figure.colorbar(image, ax=ax, label="activation h", pad=0.01)
    peaks = [f"{n} at {tokens[k]!r}" for n, k in zip(names, rows.argmax(1), strict=True)]
    return Plot(figure, f"Where each neuron fires most (the dot): {', '.join(peaks)}.")


def parameter_shares(models: dict[str, dict[str, int]]) -> Plot:
    """Where each model's parameters are: one bar per model, cut into its parts.

    models: model -> {part: parameters}, the same parts for each; the first part is named.
    """
    figure, (ax,) = new_figure(width=9, height=1.1 + 0.5 * len(models))
    left = np.zeros(len(models))
    totals = np.array([sum(parts.values()) for parts in models.values()])
    shown = zip((BLUE, ORANGE, GREY), ("", "//", ".."), next(iter(models.values())), strict=False)
    for colour, hatch, part in shown:
        share = np.array([parts[part] for parts in models.values()]) / totals * 100
        ax.barh(list(models), share, left=left, color=colour, hatch=hatch, ec="white", label=part)
        for row, (start, size) in enumerate(zip(left, share, strict=True)):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            ax.text(start + size / 2, row, f"{size:.0f} %", ha="center", va="center", bbox=box)
        left += share
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of the parameters (%)")
    figure.legend(frameon=False, ncols=3, loc="outside upper right")
    first = next(iter(next(iter(models.values()))))
    shares = [f"{parts[first] / sum(parts.values()):.0%} in {m}" for m, parts in models.items()]
    return Plot(figure, f"Share of the parameters in {first}: {', '.join(shares)}.")


def relative_costs(costs: dict[str, dict[str, float]]) -> Plot:
    """What each version of a model costs, in percent of the first version, one row per measure.

    costs: version -> {measure: value}, the same measures for each.
    """
    first, *others = costs
    measures = list(costs[first])
    figure, (ax,) = new_figure(width=8, height=1.3 + 0.45 * len(measures))
    ax.axvline(100, color=GREY, linestyle="--", linewidth=1.2)
    places = zip((BLUE, ORANGE, GREEN), ("o", "s", "^"), others, strict=False)
    for lane, (colour, marker, name) in enumerate(places):
        values = [100 * costs[name][m] / costs[first][m] for m in measures]
        rows = np.arange(len(measures)) + 0.24 * (lane - (len(others) - 1) / 2)
        ax.plot(values, rows, marker, color=colour, markersize=9, label=name)
        for value, row in zip(values, rows, strict=True):
            ax.annotate(
                f"{value:.0f} %", (value, row), (9, 0), textcoords="offset points", va="center"
            )
    ax.set_yticks(range(len(measures)), measures)
    ax.invert_yaxis()
    ax.set(xlabel=f"percent of {first} (dashed line)", ylim=(len(measures) - 0.4, -0.6))
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
    figure.legend(frameon=False, ncols=3, loc="outside upper right")
    last = others[-1]
    shares = [f"{costs[last][m] / costs[first][m]:.0%} of the {m}" for m in measures]
    return Plot(figure, f"The {last} model has {', '.join(shares)} of the {first} one.")


def keep_curves(curves: dict[str, dict[float, float]], dense: float) -> Plot:
    """Loss against the fraction of neurons kept, one line for each way of choosing them.

    curves: label -> {keep: loss in nats per target token}. dense: the whole model's loss.
    """
    figure, (ax,) = new_figure(width=7.5)
    lines = zip(
        (BLUE, ORANGE, GREEN, RED), ("o-", "s--", "^:", "D-."), curves.items(), strict=False
    )
    for colour, style, (name, curve) in lines:
        points = sorted(curve.items())
        ax.plot(
            [100 * k for k, _ in points], [x for _, x in points], style, color=colour, label=name
        )
    ax.axhline(dense, color=GREY, linestyle="--", linewidth=1.2)
    ax.annotate("dense", (100, dense), (0, 4), textcoords="offset points", ha="right")
    ax.set(xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    least = min(next(iter(curves.values())))
    ends = [curve[least] for curve in curves.values()]
    return Plot(
        figure,
        f"The fewer neurons stay, the higher the loss: dense {dense:.2f}; with {least:.0%} kept, "
        f"{min(ends):.2f} to {max(ends):.2f}.",
    )


def training_runs(histories: dict[str, Any], window: int = 8) -> Plot:
    """The share of neurons kept and the training loss (a running mean) at each step of some runs.

    histories: label -> History.
    """
    figure, (left, right) = new_figure(2, width=9.4, height=3.4)
    lines = zip((BLUE, ORANGE, GREEN), ("-", "--", ":"), histories.items(), strict=False)
    for colour, style, (name, history) in lines:
        steps = np.arange(1, len(history.losses) + 1)
        left.plot(steps, [100 * k for k in history.kept], style, color=colour, lw=2, label=name)
        mean = np.convolve(history.losses, np.ones(window) / window, "valid")
        right.plot(steps[window - 1 :], mean, style, color=colour, lw=2, label=name)
    left.set(ylim=(0, 105), xlabel="step", ylabel="neurons kept (%)")
    right.set(xlabel="step", ylabel=f"training loss (mean of {window} steps)")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    ends = [f"{n} {np.mean(h.losses[-window:]):.2f}" for n, h in histories.items()]
    return Plot(figure, f"Training loss over the last {window} steps: {', '.join(ends)}.")


def seed_dots(runs: dict[str, Sequence[float]], label: str = "test loss") -> Plot:
    """Every run as a dot, one row per condition; the bar is the mean of the condition.

    runs: condition -> one value per seed.
    """
    figure, (ax,) = new_figure(width=8, height=1 + 0.5 * len(runs))
    for row, values in enumerate(runs.values()):
        ax.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.7, markersize=8)
        mean = float(np.mean(values))
        ax.plot([mean, mean], [row - 0.25, row + 0.25], color="black", lw=2)
        ax.annotate(f"{mean:.3f}", (mean, row - 0.27), ha="center", va="bottom", fontsize=9)
    ax.set_yticks(range(len(runs)), list(runs))
    ax.set(ylim=(len(runs) - 0.5, -0.7), xlabel=f"{label} (dot: a seed, bar: the mean)")
    ax.margins(x=0.1)
    means = [f"{n} {np.mean(v):.3f}" for n, v in runs.items()]
    return Plot(figure, f"Mean {label}: {', '.join(means)}.")


def quality_against_keep(table: Any, metric: str, label: str) -> Plot:
    """Loss and a task's metric against the share of neurons kept, for one way to remove.

    table: one row per keep with columns keep, loss and `metric`; the largest keep is the reference
    (dashed). label: the metric's name on its axis.
    """
    rows = table.sort_values("keep")
    figure, axes = new_figure(2, width=9, height=3.4)
    for ax, column, name in zip(
        axes, ("loss", metric), ("loss (nats per target token)", label), strict=True
    ):
        ax.plot(100 * rows["keep"], rows[column], "o-", color=BLUE)
        ax.axhline(rows[column].iloc[-1], color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlim=(0, 105), xlabel="neurons kept (%); dashed: all kept", ylabel=name)
        ax.set_ylim(bottom=0)
    values = ", ".join(
        f"{r[metric]:.0f} and {r['loss']:.2f} with {r['keep']:.0%}"
        for _, r in rows[::-1].iterrows()
    )
    return Plot(figure, f"{label}, and loss, by neurons kept: {values}.")
