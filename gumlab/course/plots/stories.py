"""Figures of the explorers that tell a story: a trade-off, a run's steps, twins, texts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection

from gumlab.course.plots.figure import BLUE, GREY, MARGINS, ORANGE, RED, STYLES, Plot, new_figure
from gumlab.course.plots.models import folded_map


def tradeoff(
    masks: Sequence[Any], paths: Mapping[str, Mapping[float, Mapping[str, float]]], keep: float
) -> Plot:
    """Who stays; sensitivity against uniqueness of those who stay (PAPER: Figure 1); the loss.

    masks: one (N,) bool tensor per layer. paths: label -> {keep: {"sensitivity" and "uniqueness",
    divided by those of all neurons, "loss"}}, the present one first, each with all neurons at 1.
    """
    figure, (left, middle, right) = new_figure(3, width=12.4, height=3.9, margins=MARGINS)
    folded_map(left, masks)
    for (name, path), (style, colour) in zip(paths.items(), STYLES, strict=False):
        shares = sorted(path)
        x, y, loss = (
            [path[k][what] for k in shares] for what in ("uniqueness", "sensitivity", "loss")
        )
        middle.plot(x, y, style, color=colour, ms=5, label=name)
        right.plot([100 * k for k in shares], loss, style, color=colour, ms=5, label=name)
    now, dense = next(iter(paths.values()))[keep], next(iter(paths.values()))[1.0]
    ring = {"ms": 13, "fillstyle": "none", "color": "black", "mew": 1.8}
    middle.plot(now["uniqueness"], now["sensitivity"], "o", **ring)
    right.plot(100 * keep, now["loss"], "o", **ring)
    middle.plot(1, 1, "*", ms=13, color="black", zorder=3)
    middle.annotate("all", (1, 1), (6, 6), textcoords="offset points", fontsize=9)
    middle.set(xlabel="uniqueness, all neurons = 1", ylabel="mean sensitivity, all neurons = 1")
    middle.margins(0.12)
    middle.set_ylim(bottom=0)
    right.axhline(dense["loss"], color=GREY, linestyle="--", linewidth=1.2)
    right.set(xlim=(0, 105), xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=9, loc="upper right")
    kept, total = sum(int(m.sum()) for m in masks), sum(len(m) for m in masks)
    return Plot(
        figure,
        f"{next(iter(paths))}: {kept:,} of {total:,} neurons stay ({kept / total:.0%}), by layer "
        f"{', '.join(str(int(m.sum())) for m in masks)}. They are {now['sensitivity']:.2f} times "
        f"as sensitive and {now['uniqueness']:.2f} times as unique as all neurons. Loss "
        f"{now['loss']:.2f}; dense {dense['loss']:.2f}.",
    )


def replay(history: Any, index: int, layer: int) -> Plot:
    """A step of a recorded run: who is there, how far the run is, one layer's scores.

    history: a `History` with frames; index: which of them.
    """
    frame = history.frames[index]
    figure, (left, middle, right) = new_figure(3, width=12.4, height=3.9, margins=MARGINS)
    folded_map(left, frame.masks)
    steps = np.arange(1, len(history.losses) + 1)
    middle.plot(steps, [100 * k for k in history.kept], "-", color=BLUE, label="neurons kept (%)")
    losses = 100 * np.array(history.losses) / max(history.losses)
    middle.plot(steps, losses, ":", color=GREY, label="training loss (% of its largest)")
    middle.axvline(frame.step, color="black", lw=1.2)
    middle.set(ylim=(0, 105), xlabel="step (line: now)")
    middle.legend(frameon=False, fontsize=9, loc="upper right")
    paths = np.stack([np.asarray(f.scores[layer]) for f in history.frames])  # (frames, N)
    here = np.stack([np.asarray(f.masks[layer]) for f in history.frames[: index + 1]])
    at = [f.step for f in history.frames[: index + 1]]
    some = np.arange(paths.shape[1]) % max(1, paths.shape[1] // 60) == 0
    for chosen, style, colour, label in (
        (some & ~here[-1], ":", ORANGE, "is out"),
        (some & here[-1], "-", BLUE, "is there"),
    ):
        lines = [np.column_stack([at, path]) for path in paths[: index + 1, chosen].T]
        looks: dict[str, Any] = {"linestyles": style, "colors": colour, "lw": 0.8, "alpha": 0.8}
        right.add_collection(LineCollection(lines, label=f"{label} (some of them)", **looks))
    bar = np.where(here, paths[: index + 1], np.inf).min(1)
    right.plot(at, bar, color="black", lw=2, label="the lowest that is there")
    right.set(xlabel="step", ylabel=f"score, layer {layer}", xlim=(0, len(history.losses)))
    right.set_ylim(paths.min(), paths.min() + 1.3 * np.ptp(paths) + 1e-9)  # room for the legend
    right.legend(frameon=False, fontsize=9, loc="upper left")
    counts = [int(m.sum()) for m in frame.masks]
    back = int((here[1:] & ~here[:-1]).sum())
    return Plot(
        figure,
        f"Step {frame.step}: {sum(counts):,} of {sum(len(m) for m in frame.masks):,} neurons are "
        f"there, by layer {', '.join(map(str, counts))}. In layer {layer}, {back} came back so "
        f"far. Training loss {history.losses[frame.step - 1]:.2f}.",
    )


def twins(cosines: Any, r2: Any, selected: int, neighbours: Sequence[int], title: str) -> Plot:
    """One layer's |cosine| of every pair, and its best pair against its exact reconstructability.

    cosines: (N, N), signed. r2: (N,). neighbours: the selected neuron's nearest, best first. Rows
    and columns are ordered so that neurons alike stand together.
    """
    size = np.abs(np.asarray(cosines))
    np.fill_diagonal(size, 0)
    order, left = [int(size.max(1).argmax())], np.ones(len(size), dtype=bool)
    for _ in range(len(size) - 1):  # go on with whoever is nearest to the last one
        left[order[-1]] = False
        order.append(int(np.where(left, size[order[-1]], -1).argmax()))
    figure, (heat, ax) = new_figure(2, 9.8, 4.3, margins=(0.1, 0.15, 0.55, 0.35))
    heat.grid(False)
    image = heat.imshow(
        size[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1, interpolation="nearest"
    )
    place = order.index(selected)
    for line in (heat.axhline, heat.axvline):
        line(place, color=RED, lw=1.2)
    heat.set(title=title, xlabel="neuron (neighbours together)", xticks=[], yticks=[])
    figure.colorbar(image, ax=heat, label="|cosine|", shrink=0.85)
    best, y = size.max(1), np.asarray(r2)
    ax.plot(best**2, y, "o", color=BLUE, ms=4, alpha=0.6)
    ax.plot([0, 1], [0, 1], "--", color=GREY, label="rebuilt by its twin alone")
    ax.plot(best[selected] ** 2, y[selected], "o", ms=13, fillstyle="none", color="black", mew=1.8)
    ax.set(xlabel="what the twin rebuilds: cosine squared", ylabel="what all others rebuild: $R^2$")
    ax.set(xlim=(-0.03, 1.03), ylim=(min(0.0, float(y.min())) - 0.03, 1.03))
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    signed = ", ".join(f"{j} ({float(cosines[selected][j]):+.2f})" for j in neighbours)
    return Plot(
        figure,
        f"{title}, neuron {selected}: its nearest are {signed}. The twin rebuilds "
        f"{best[selected] ** 2:.0%} of it, all others together {y[selected]:.1%}.",
    )


def texts(
    prompt: str, reference: str, written: Mapping[str, str], loss: Mapping[str, float]
) -> Plot:
    """A prompt, its reference, and what models write; [words] that the first does not have.

    written: model -> its text, the first is the one compared with. loss: model -> loss per token.
    """
    first = next(iter(written.values())).split()
    blocks = [("prompt", prompt), ("reference", reference)]
    for name, text in written.items():
        marked = " ".join(w if w in first else f"[{w}]" for w in text.split())
        blocks.append((f"{name}\nloss {loss[name]:.2f}", marked or "(nothing)"))
    wrapped = [(name, textwrap.wrap(text, 80) or [""]) for name, text in blocks]
    rows = sum(max(len(lines), name.count("\n") + 1) + 0.6 for name, lines in wrapped)
    figure, (ax,) = new_figure(width=9.8, height=0.3 + 0.21 * rows, margins=(0.1,) * 4)
    ax.set_axis_off()
    y = 0.0
    for name, lines in wrapped:
        ax.text(0, y, name, va="top", weight="bold", fontsize=9)
        ax.text(0.22, y, "\n".join(lines), va="top", family="monospace", fontsize=9)
        y += max(len(lines), name.count("\n") + 1) + 0.6
    ax.set(xlim=(0, 1), ylim=(rows, 0))
    same = [name for name, text in list(written.items())[1:] if text.split() == first]
    said = "; ".join(f"{n} writes: {t.rstrip('.') or '(nothing)'}" for n, t in written.items())
    return Plot(
        figure,
        f"{said}. {len(same)} of {len(written) - 1} write the same as {next(iter(written))}; in "
        "[brackets]: words that it does not have.",
    )
