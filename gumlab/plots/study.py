"""Figures of a study's table: loss and metric against keep, and the paper's Figure 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from gumlab.intervals import half_interval
from gumlab.plots.figure import GREY, STYLES, Plot, new_figure


def _asked(table: Any) -> Any:
    """The table with `keep` as the grid asked for it, and no failed runs."""
    column = "loss" if table["loss"].notna().any() else "sensitivity"
    return table.assign(keep=table.get("asked", table["keep"])).dropna(subset=column)


def bands(table: Any, metric: str | None = None, name: str | None = None) -> Plot:
    """Loss, and a metric, against the share of neurons kept: a line per method, the mean over the
    seeds, with its 95 % t interval as a band.

    table: a study's, of one task and model, distilled or not; dense runs give the dashed line.
    metric: a column; name: what its axis is called. At most eight methods.
    """
    rows, columns = _asked(table), {"loss": "loss (nats per target token)"}
    if metric:
        columns[metric] = name or metric
    figure, axes = new_figure(len(columns), width=4.9 * len(columns), height=3.8)
    dense, pruned = rows[rows["method"] == "dense"], rows[rows["method"] != "dense"]
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        lines = zip(STYLES, pruned.groupby("method", sort=False), strict=False)
        for (style, colour), (method, runs) in lines:
            cells = runs.groupby("keep")[column]
            mean, half = cells.mean(), cells.apply(half_interval)
            ax.plot(100 * mean.index, mean, style, color=colour, label=method)
            ax.fill_between(100 * mean.index, mean - half, mean + half, color=colour, alpha=0.15)
        if len(dense):
            ax.axhline(dense[column].mean(), color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlabel="neurons kept (%); dashed: dense", ylabel=label)
    axes[-1].legend(frameon=False, fontsize=8)
    least = pruned["keep"].min()
    ends = pruned[pruned["keep"] == least].groupby("method")["loss"]
    mean, half = ends.mean(), ends.apply(half_interval)
    best, worst = (f"{m} {mean[m]:.3f} +- {half[m]:.3f}" for m in (mean.idxmin(), mean.idxmax()))
    return Plot(
        figure,
        f"With {least:.0%} of the neurons kept, the lowest mean loss is that of {best}, the "
        f"highest that of {worst} ({rows['seed'].nunique()} seeds, 95 % intervals).",
    )


def ratios(table: Any) -> Plot:
    """The paper's Figure 1: sensitivity and uniqueness as ratios to the dense run, by method.

    table: a study's, or `gumlab.paper.table()`, of one task and model, with dense runs; a ratio is
    taken at equal seeds, a point is the mean over them. The fewer neurons are kept, the smaller the
    point; hollow points are distilled.
    """
    rows = _asked(table).set_index("seed")
    dense = rows[rows["method"] == "dense"]
    figure, (ax,) = new_figure(width=7.5, height=4.4)
    pruned, found = rows[rows["method"] != "dense"], {}
    for column in ("sensitivity", "uniqueness"):
        pruned = pruned.assign(**{column: pruned[column] / dense[column].reindex(pruned.index)})
    groups = zip(STYLES, pruned.groupby("method", sort=False), strict=False)
    for (style, colour), (method, runs) in groups:
        for distilled, part in runs.groupby("distilled"):
            mean = part.groupby("keep")[["sensitivity", "uniqueness"]].mean()
            fill, label = ("none", None) if distilled else (colour, method)
            sizes = 20 + 160 * mean.index.to_numpy()
            ax.plot(mean["sensitivity"], mean["uniqueness"], color=colour, lw=0.8)
            ax.scatter(*mean.T.to_numpy(), sizes, marker=style[0], edgecolors=colour,
                       facecolors=fill, label=label)  # fmt: skip
        found[method] = runs[["sensitivity", "uniqueness"]].mean()
    ax.axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1.2)
    if np.ptp(pruned["sensitivity"]) > 10:
        ax.set_xscale("log")
    ax.set(xlabel="sensitivity / dense", ylabel="uniqueness / dense")
    ax.legend(frameon=False, fontsize=8)
    most = {c: max(found, key=lambda m: found[m][c]) for c in ("sensitivity", "uniqueness")}
    one, other = (f"{m} the highest {c} ({found[m][c]:.2f} of dense)" for c, m in most.items())
    return Plot(figure, f"On average {one.replace(' the', ' keeps the', 1)}, and {other}.")
