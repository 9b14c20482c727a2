"""Figures of a study's table: loss and metric against keep, the paper's Figure 1, what distillation
narrows, widths by layer, score x refit, and a claim in every setting."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gumlab.course.plots.figure import BLUE, GREY, ORANGE, RED, STYLES, Plot, new_figure
from gumlab.study.claims import values
from gumlab.study.intervals import half_interval


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


def gaps(table: Any) -> Plot:
    """The worst method's loss less the best one's, against the share kept, distilled and not.

    table: a study's, or `gumlab.paper.table()`, of one task and model; of the paper's methods those
    count that ran both ways. A point is the mean over the seeds, a band its 95 % t interval.
    """
    found = values(table)["gap"].rename("gap").reset_index()
    figure, (ax,) = new_figure(width=6.5)
    means = {}
    for (distilled, rows), (style, colour) in zip(found.groupby("distilled"), STYLES, strict=False):
        cells = rows.groupby("keep")["gap"]
        mean, half = cells.mean(), cells.apply(half_interval)
        means[distilled], label = mean, "distilled" if distilled else "labels only"
        ax.plot(100 * mean.index, mean, style, color=colour, label=label)
        ax.fill_between(100 * mean.index, mean - half, mean + half, color=colour, alpha=0.15)
    ax.set(xlabel="neurons kept (%)", ylabel="loss, worst less best (nats)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    told = [
        f"{means[False][k]:.3f} to {means[True][k]:.3f} with {k:.0%}" for k in means[True].index
    ]
    return Plot(
        figure, f"Distillation takes the gap between best and worst from {', '.join(told)} kept."
    )


def layer_widths(table: Any) -> Plot:
    """The share of each layer's neurons that a method keeps; a line per method, mean over seeds.

    table: a study's, of one task, model, keep and distillation, with dense runs. At most eight
    methods.
    """
    rows = table.dropna(subset="widths")
    widths = rows["widths"].map(lambda w: json.loads(w) if isinstance(w, str) else w)
    full = np.array(widths[rows["method"] == "dense"].iloc[0])
    figure, (ax,) = new_figure(width=7.0, height=3.8)
    pruned, found = rows[rows["method"] != "dense"], {}
    lines = zip(STYLES, pruned.groupby("method", sort=False), strict=False)
    for (style, colour), (method, runs) in lines:
        found[method] = np.array([*widths[runs.index]]).mean(0) / full
        ax.plot(range(len(full)), 100 * found[method], style, color=colour, label=method)
    ax.set_xticks(range(len(full)))
    ax.set(xlabel="layer (0: nearest the input)", ylabel="neurons kept (% of the layer)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    uneven = max(found, key=lambda m: np.ptp(found[m]))
    low, high = found[uneven].min(), found[uneven].max()
    return Plot(figure, f"{uneven} divides its neurons most unevenly: {low:.0%} of one layer stay, "
                f"{high:.0%} of another.")  # fmt: skip


def refit_heat(table: Any) -> Plot:
    """Loss without any training: a row per score, a column per refit, the mean over the seeds.

    table: rows of one task, scope and keep, with columns score, refit and loss
    (results/one_shot.csv); refits in the order of the table, the best score at the top.
    """
    order = [*dict.fromkeys(table["refit"])]
    loss = table.pivot_table(index="score", columns="refit", values="loss")[order].dropna(axis=1)
    loss = loss.sort_values(loss.columns[-1])
    figure, (ax,) = new_figure(width=6.0, height=0.9 + 0.34 * len(loss))
    ax.grid(visible=False)
    picture = ax.imshow(np.log(loss), cmap="cividis", aspect="auto")
    for (i, j), value in np.ndenumerate(loss.to_numpy()):
        colour = "black" if picture.norm(np.log(value)) > 0.5 else "white"
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(loss.shape[1]), loss.columns)
    ax.set_yticks(range(len(loss)), loss.index)
    ax.set(xlabel="refit (number: loss in nats per target token; yellow: high)")
    best = loss.min()
    told = [f"{best[c]:.2f} ({loss[c].idxmin()}) to {loss[c].max():.2f} with {c}" for c in loss]
    return Plot(figure, f"By refit, the loss of the scores is {', '.join(told)}.")


def forest(effects: Any) -> Plot:
    """A claim in every setting: mean effect and its 95 % t interval, sorted; below 0 as claimed.

    effects: rows of `gumlab.paper.effects` of one claim.
    """
    rows = effects.sort_values("effect", ascending=False)
    looks = {"as claimed": ("o", BLUE), "open": ("s", GREY), "opposite": ("X", RED)}
    figure, (ax,) = new_figure(width=8.5, height=0.9 + 0.24 * max(4, len(rows)))
    ax.axvline(0, color=ORANGE, linestyle="--", linewidth=1.2)
    places = np.arange(len(rows))
    for says, (marker, colour) in looks.items():
        mine = (rows["says"] == says).to_numpy()
        bars = {"xerr": rows["half"][mine], "fmt": marker, "color": colour, "label": says}
        ax.errorbar(rows["effect"][mine], places[mine], **bars)
    ax.set_yticks(places, rows["where"], fontsize=7)
    ax.set(xlabel="effect, 95 % interval (left of the dashed line: as claimed)")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    counts = ", ".join(f"{(rows['says'] == says).sum()} {says}" for says in looks)
    return Plot(figure, f"Of {len(rows)} settings: {counts}.")
