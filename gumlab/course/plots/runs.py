"""Figures of runs: methods side by side, loss against keep, training, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gumlab.course.plots.figure import BLUE, GREEN, GREY, ORANGE, STYLES, Plot, new_figure


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
            looks = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
            ax.annotate(text, (value, name), (0, 7), **looks)
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


def keep_curves(curves: dict[str, dict[float, float]], dense: float) -> Plot:
    """Loss against the fraction of neurons kept, one line for each way of choosing them.

    curves: label -> {keep: loss in nats per target token}. dense: the whole model's loss.
    """
    figure, (ax,) = new_figure(width=7.5)
    for (style, colour), (name, curve) in zip(STYLES, curves.items(), strict=False):
        points = [(100 * k, loss) for k, loss in sorted(curve.items())]
        ax.plot(*zip(*points, strict=True), style, color=colour, label=name)
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
