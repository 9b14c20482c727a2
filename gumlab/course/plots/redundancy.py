"""Figures of redundancy: used and unique, deletions, scores with and without refit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gumlab.course.plots.figure import BLUE, GREEN, GREY, MARGINS, ORANGE, RED, Plot, new_figure


def used_and_unique(
    used: Any, unique: Any, mask: Any, selected: tuple[int, int] | None = None, title: str = ""
) -> Plot:
    """One layer's neurons: how much each is used against how unique it is, kept or removed.

    used, unique, mask: (N,) tensors. selected: a neuron and its twin. The dashed lines join neurons
    of equal product: what deleting one and refitting the others costs.
    """
    x, y, kept = (np.asarray(v, dtype=float) for v in (used, unique, mask))
    alive = (x > 0) & (y > 0)
    figure, (ax,) = new_figure(width=7.5, height=4.4, margins=MARGINS)
    for stays, marker, colour, label in (
        (1.0, "o", BLUE, "stays"),
        (0.0, "x", ORANGE, "goes"),
    ):
        chosen = alive & (kept == stays)
        label = f"{label} ({int(chosen.sum())})"
        ax.plot(x[chosen], y[chosen], marker, color=colour, ms=4, alpha=0.7, label=label)
    ax.set(xscale="log", yscale="log", title=title)
    ax.minorticks_off()  # nobody reads them, and they are most of the drawing
    ax.set(xlabel="used: $||w_i||^2\\,G_{ii}$", ylabel="unique: $1 - R^2_i$")
    ax.set_ylim(top=1.3)
    low, high = ax.get_xlim()
    lines = np.percentile(np.log10((x * y)[alive]), [10, 50, 90])
    for power in lines:
        ends = np.array([low, high])
        name = "equal product" if power == lines[0] else None
        ax.plot(ends, 10**power / ends, "--", color=GREY, lw=0.9, zorder=0, label=name)
    ax.set_xlim(low, high)
    ax.set_ylim(0.7 * y[alive].min(), 1.3)
    if selected is not None:
        one, twin = selected
        ax.plot(x[[one, twin]], y[[one, twin]], "-", color="black", lw=1)
        ax.plot(x[one], y[one], "o", ms=12, fillstyle="none", color="black", mew=1.8)
        ax.plot(x[twin], y[twin], "s", ms=11, fillstyle="none", color="black", mew=1.4)
    ax.legend(frameon=False, loc="lower left")
    spread = [np.percentile(v[alive], 95) / np.percentile(v[alive], 5) for v in (x, y)]
    return Plot(
        figure,
        f"{title + ': ' if title else ''}{int(kept.sum())} of {len(kept)} neurons stay. Between "
        f"the 5th and the 95th percentile, use varies {spread[0]:.0f}-fold and uniqueness "
        f"{spread[1]:.1f}-fold.",
    )


def deletions(
    tried: Mapping[tuple[int, int, bool], Mapping[str, float]], now: tuple[int, int, bool]
) -> Plot:
    """Deleted neurons: the change of loss and of the layer's output, predicted and measured.

    tried: (layer, neuron, refitted) -> told, measured (loss), error_told, error_measured (output).
    now: the one to point at.
    """
    figure, (left, right) = new_figure(2, width=9.4, height=3.8, margins=MARGINS)
    for refit, marker, colour, label in (
        (False, "o", BLUE, "deleted"),
        (True, "s", ORANGE, "deleted, the others refitted"),
    ):
        rows = [row for (_, _, r), row in tried.items() if r == refit]
        for ax, told, measured in (
            (left, "told", "measured"),
            (right, "error_told", "error_measured"),
        ):
            points = [[row[told] for row in rows], [row[measured] for row in rows]]
            ax.plot(*points, marker, color=colour, ms=6, alpha=0.8, label=label)
    row = tried[now]
    for ax, told, measured in ((left, "told", "measured"), (right, "error_told", "error_measured")):
        ax.plot(row[told], row[measured], "o", ms=13, fillstyle="none", color="black", mew=1.8)
    values = [v for r in tried.values() for v in (r["told"], r["measured"])]
    reach = 1.3 * max(map(abs, values)) or 1.0  # a dead neuron changes nothing
    left.plot([-reach, reach], [-reach, reach], "--", color=GREY, lw=1, zorder=0)
    left.set(xlim=(-reach, reach), ylim=(-reach, reach))
    left.set(xlabel="told by the slope, $-dL/dm$", ylabel="measured change of the loss")
    left.ticklabel_format(style="sci", scilimits=(-2, 2), axis="both")
    right.set(xscale="log", yscale="log")
    right.minorticks_off()
    errors = [v for r in tried.values() for v in (r["error_told"], r["error_measured"]) if v > 0]
    low, high = np.log10(min(errors, default=0.1) / 2), np.log10(2 * max(errors, default=1.0))
    ends = 10 ** np.floor(low), 10 ** np.ceil(high)  # whole decades, so that some are labelled
    right.plot(ends, ends, "--", color=GREY, lw=1, zorder=0)
    right.set(xlim=ends, ylim=ends)
    right.set(xlabel="told: $||w||^2 G_{ii}$, with refit OBS", ylabel="measured output error")
    right.legend(frameon=False, fontsize=9)
    layer, i, refit = now
    return Plot(
        figure,
        f"Neuron {i} of layer {layer} deleted{', the others refitted' if refit else ''}: the loss "
        f"changes by {row['measured']:+.1e}, the slope said {row['told']:+.1e}; the layer's output "
        f"error is {row['error_measured']:.3g}, "
        f"{'OBS' if refit else 'its use'} said {row['error_told']:.3g}.",
    )


def against(
    x: Any, y: Any, labels: tuple[str, str], marked: Mapping[int, str] | None = None
) -> Plot:
    """Two figures of the same neurons against each other, some of them named.

    x, y: (N,) tensors. labels: of the axes. marked: neuron -> its name in the figure. The sentence
    gives Spearman's rank correlation.
    """
    x, y = (np.asarray(v, dtype=float) for v in (x, y))
    figure, (ax,) = new_figure(width=7, height=4)
    ax.plot(x, y, "o", color=BLUE, ms=4, alpha=0.5)
    for i, name in (marked or {}).items():
        ax.plot(x[i], y[i], "o", ms=11, fillstyle="none", color="black", mew=1.6)
        ax.annotate(name, (x[i], y[i]), (8, 6), textcoords="offset points", fontsize=9)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    rho = float(np.asarray(np.corrcoef(ranks))[0, 1])
    return Plot(
        figure,
        f"{len(x)} neurons: {labels[0]} and {labels[1]} have a rank correlation of {rho:.2f}.",
    )


def refit_gain(losses: Mapping[str, Mapping[str, float]], dense: float) -> Plot:
    """The loss after removal by each score, as cut and after the refit.

    losses: score -> {what was done after the cut: loss in nats per target token}, the same for all.
    """
    kinds = list(next(iter(losses.values())))
    order = sorted(losses, key=lambda name: losses[name][kinds[0]], reverse=True)
    figure, (ax,) = new_figure(width=8, height=1.2 + 0.36 * len(order))
    for kind, marker, colour in zip(kinds, "os^D", (BLUE, ORANGE, GREEN, RED), strict=False):
        ax.plot([losses[n][kind] for n in order], order, marker, color=colour, ms=8, label=kind)
    for name in order:
        ends = [losses[name][kind] for kind in kinds]
        ax.plot([min(ends), max(ends)], [name, name], "-", color=GREY, lw=1, zorder=0)
    ax.axvline(dense, color=GREY, linestyle="--", linewidth=1.2)
    ax.margins(y=0.5 / len(order))
    ax.set_xlabel("loss (nats per target token); dashed: dense")
    low, high = ax.get_xlim()
    if high > 2.5 * low:
        ax.set_xscale("log")
        ax.set_xticks([t for t in (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10) if low < t < high])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    figure.legend(frameon=False, ncols=len(kinds), loc="outside upper right")
    spans = [
        f"{k} {min(losses[n][k] for n in order):.2f} to {max(losses[n][k] for n in order):.2f}"
        for k in kinds
    ]
    return Plot(figure, f"Loss by score: {', '.join(spans)}; dense {dense:.2f}.")
