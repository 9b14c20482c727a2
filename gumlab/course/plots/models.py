"""Figures of a model: who stays, what fires, where the parameters are, what a version costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedFormatter, FixedLocator

from gumlab.course.plots.figure import BLUE, GREEN, GREY, ORANGE, STYLES, Plot, new_figure


def neuron_map(masks: Sequence[Any], title: str = "") -> Plot:
    """Which neurons stay: every neuron a cell, kept dark, removed light, each layer's count.

    masks: one (N,) bool tensor per layer.
    """
    figure, (ax,) = new_figure(width=7, height=0.8 + 0.6 * len(masks))
    folded_map(ax, masks)
    ax.set_title(title, fontsize=10, loc="left")
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
    starts: list[float] = []
    rows: list[Any] = []
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
    figure, (left, right) = new_figure(2, width=9.4, height=3.8, margins=(0.85, 0.1, 0.5, 0.1))
    folded_map(left, masks)
    for (name, curve), (style, colour) in zip(curves.items(), STYLES, strict=False):
        points = [(100 * k, loss) for k, loss in sorted(curve.items())]
        right.plot(*zip(*points, strict=True), style, color=colour, markersize=5, label=name)
    name, curve = next(iter(curves.items()))
    now, dense = curve[keep], curve[1.0]
    right.plot(100 * keep, now, "o", markersize=13, fillstyle="none", color="black", mew=1.8)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    right.annotate(
        f"{now:.2f}",
        (100 * keep, now),
        (10, 9),
        textcoords="offset points",
        weight="bold",
        bbox=paper,
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
    figure, (ax,) = new_figure(1, 9.4, 1.3 + 0.34 * len(names), margins=(1.0, 0.1, 1.0, 0.1))
    ax.grid(False)
    image = ax.imshow(rows, aspect="auto", **colours)
    for row, strongest in enumerate(rows.argmax(1)):
        ax.plot(strongest, row, "o", color="black", markersize=4)
    ax.xaxis.set_major_locator(FixedLocator(range(len(tokens))))  # set_xticks is slow
    ax.xaxis.set_major_formatter(FixedFormatter(list(tokens)))
    ax.tick_params(axis="x", labelrotation=90, labelsize=8, labelfontfamily="monospace")
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
    left, height = 0.3 + 0.09 * max(map(len, measures)), 1.3 + 0.45 * len(measures)
    figure, (ax,) = new_figure(width=8, height=height, margins=(left, 0.15, 0.55, 0.4))
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
    figure.legend(frameon=False, ncols=3, loc="upper right")
    last = others[-1]
    shares = [f"{costs[last][m] / costs[first][m]:.0%} of the {m}" for m in measures]
    return Plot(figure, f"The {last} model has {', '.join(shares)} of the {first} one.")
