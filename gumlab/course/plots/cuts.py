"""Figures of a cut: who stays, and what is left of the model, with each score and share kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from gumlab.course.plots.checks import (
    check_count,
    check_has,
    check_lines,
    check_map,
    check_mapping,
    check_same_keys,
)
from gumlab.course.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    MARGINS,
    ORANGE,
    RED,
    STYLES,
    Plot,
    joined,
    new_figure,
    point_at,
)
from gumlab.course.plots.places import Block, Cells
from gumlab.errors import GumlabError

if TYPE_CHECKING:
    from torch import Tensor


def neuron_map(
    masks: Sequence[Tensor], title: str = "", scores: Sequence[Tensor] | None = None
) -> Plot:
    """Show which neurons stay: every neuron a cell, kept dark, removed light.

    Parameters
    ----------
    masks : sequence of Tensor
        A (N,) bool tensor per layer, True for a neuron that stays.
    title : str, optional
        What stands above the map.
    scores : sequence of Tensor, optional
        A (N,) tensor per layer, which the pointer tells.

    Returns
    -------
    Plot
        A row of cells, or several, for each layer, with its count; the sentence gives the widths.

    Raises
    ------
    GumlabError
        If the masks are no bool tensors, the title is no text, or the scores do not match.
    """
    check_map(masks, scores)
    if not isinstance(title, str):
        raise GumlabError(
            f"title must be a text; got {type(title).__name__}. Scores come by name: "
            "neuron_map(masks, scores=scores)."
        )
    figure, (ax,) = new_figure(width=7, height=0.8 + 0.6 * len(masks))
    cells = folded_map(ax, masks, scores)
    ax.set_title(title, fontsize=10, loc="left")
    widths = kept_widths(masks)
    kept = sum(widths)
    total = sum(len(mask) for mask in masks)
    return Plot(
        figure,
        f"{kept:,} of {total:,} neurons stay ({kept / total:.0%}): {joined(widths)} by layer.",
        [cells],
    )


def kept_widths(masks: Sequence[Tensor]) -> list[int]:
    """How many neurons each layer's mask keeps."""
    return [int(mask.sum()) for mask in masks]


def folded_map(ax: Axes, masks: Sequence[Tensor], scores: Sequence[Tensor] | None = None) -> Cells:
    """Draw every neuron as a cell into axes, each layer folded into rows: kept dark, removed light.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    masks : sequence of Tensor
        A (N,) bool tensor per layer, True for a neuron that stays.
    scores : sequence of Tensor, optional
        A (N,) tensor per layer, which the pointer tells.

    Returns
    -------
    Cells
        Where each neuron is.

    Raises
    ------
    GumlabError
        If the masks are no bool tensors, or the scores do not match.
    """
    check_map(masks, scores)
    total = sum(len(mask) for mask in masks)
    widest = max(len(mask) for mask in masks)
    columns = min(2 ** round(np.log2(2 * total) / 2), widest)  # about twice as wide as high
    empty_row = np.full(columns, np.nan)
    rows: list[np.ndarray] = []
    middles: list[float] = []
    blocks: list[Block] = []
    for layer, mask in enumerate(masks):
        height = -(-len(mask) // columns)  # rounded up
        cells = np.full(height * columns, np.nan)
        cells[: len(mask)] = np.asarray(mask, dtype=float)
        texts = _fates(mask, None if scores is None else scores[layer])
        blocks.append(Block(layer, len(rows), range(len(mask)), texts))
        middles.append(len(rows) + height / 2 - 0.5)
        rows.extend(cells.reshape(height, columns))
        rows.append(empty_row)
    image = np.array(rows[:-1])
    ax.imshow(image, aspect="auto", vmin=0, vmax=1, cmap=ListedColormap(["#F1E3C8", BLUE]))
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks([])
    labels = [
        f"layer {layer}\n{width} of {len(mask)}"
        for layer, (width, mask) in enumerate(zip(kept_widths(masks), masks, strict=True))
    ]
    ax.set_yticks(middles, labels)
    ax.set_xlabel("each cell is a neuron; dark: stays")
    return Cells(ax, len(image), columns, blocks)


def _fates(mask: Tensor, scores: Tensor | None) -> list[str]:
    """Whether each neuron stays, and its score where there are scores."""
    fates = ["stays" if stays else "goes" for stays in mask.tolist()]
    if scores is None:
        return fates
    return [
        f"{fate}, score {score:.3g}" for fate, score in zip(fates, scores.tolist(), strict=True)
    ]


def removal(
    masks: Sequence[Tensor],
    curves: Mapping[str, Mapping[float, float]],
    keep: float,
    scores: Sequence[Tensor] | None = None,
) -> Plot:
    """Show who stays, beside the loss against the fraction of neurons kept; nothing is trained.

    Parameters
    ----------
    masks : sequence of Tensor
        A (N,) bool tensor per layer, True for a neuron that stays.
    curves : mapping of str to mapping of float to float
        For each label the loss, in nats per target token, at each fraction of neurons kept; at most
        eight. The present curve comes first; it has the dense model's loss at 1.
    keep : float
        The fraction of the present curve's point that is marked.
    scores : sequence of Tensor, optional
        A (N,) tensor per layer, which the pointer tells.

    Returns
    -------
    Plot
        Left the map of the neurons, right the curves; the sentence gives widths and losses.

    Raises
    ------
    GumlabError
        If the masks are no bool tensors, there are more than eight curves, or the present one lacks
        `keep` or 1.
    """
    check_map(masks, scores)
    check_lines("curves", curves, "labels to {fraction kept: loss}")
    _check_points(curves, keep)
    figure, (left, right) = new_figure(2, width=9.4, height=3.8, margins=(0.85, 0.1, 0.5, 0.1))
    cells = folded_map(left, masks, scores)
    for (name, curve), style in zip(curves.items(), STYLES, strict=False):
        shares = sorted(curve)
        right.plot(
            [100 * share for share in shares],
            [curve[share] for share in shares],
            style.fmt,
            color=style.colour,
            markersize=5,
            label=name,
        )
    name, curve = next(iter(curves.items()))
    loss = curve[keep]
    dense_loss = curve[1.0]
    point_at(right, 100 * keep, loss)
    right.annotate(
        f"{loss:.2f}",
        (100 * keep, loss),
        (10, 9),
        textcoords="offset points",
        weight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
    right.axhline(dense_loss, color=GREY, linestyle="--", linewidth=1.2)
    right.text(1, dense_loss, "dense", color="#555555", va="bottom")
    right.set(xlim=(0, 113), xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    highest = max(max(one.values()) for one in curves.values())
    right.set_ylim(0, 1.12 * highest)
    right.legend(frameon=False, fontsize=9, loc="upper right")
    widths = kept_widths(masks)
    kept = sum(widths)
    total = sum(len(mask) for mask in masks)
    return Plot(
        figure,
        f"{name}: {kept:,} of {total:,} neurons stay ({kept / total:.0%}), by layer "
        f"{joined(widths)}. Loss {loss:.2f}; dense {dense_loss:.2f}.",
        [cells],
    )


def tradeoff(
    masks: Sequence[Tensor],
    paths: Mapping[str, Mapping[float, Mapping[str, float]]],
    keep: float,
    scores: Sequence[Tensor] | None = None,
) -> Plot:
    """Show who stays, how sensitive and unique those neurons are, and the loss without training.

    Parameters
    ----------
    masks : sequence of Tensor
        A (N,) bool tensor per layer, True for a neuron that stays.
    paths : mapping of str to mapping of float to mapping of str to float
        For each label and each fraction of neurons kept: "sensitivity" and "uniqueness" of the
        neurons that stay, divided by those of all neurons, and "loss" in nats per target token. The
        present path comes first; each has the dense model at 1.
    keep : float
        The fraction of the present path's point that is marked.
    scores : sequence of Tensor, optional
        A (N,) tensor per layer, which the pointer tells.

    Returns
    -------
    Plot
        Left the map of the neurons, in the middle sensitivity against uniqueness, right the loss
        against the share kept; the sentence gives the marked point's numbers.

    Raises
    ------
    GumlabError
        If the masks are no bool tensors, there are more than eight paths, or the present one lacks
        `keep` or 1.

    References
    ----------
    arXiv 2302.03773, Figure 1: sensitivity against uniqueness.
    """
    check_map(masks, scores)
    check_lines("paths", paths, "labels to {fraction kept: values}")
    _check_points(paths, keep)
    room = MARGINS._replace(left=1.0)  # of a map's label that stands left of its axes
    figure, (left, middle, right) = new_figure(3, width=12.4, height=3.9, margins=room)
    cells = folded_map(left, masks, scores)
    for (name, path), style in zip(paths.items(), STYLES, strict=False):
        shares = sorted(path)
        looks: dict[str, Any] = {"color": style.colour, "markersize": 5, "label": name}
        middle.plot(
            [path[share]["uniqueness"] for share in shares],
            [path[share]["sensitivity"] for share in shares],
            style.fmt,
            **looks,
        )
        right.plot(
            [100 * share for share in shares],
            [path[share]["loss"] for share in shares],
            style.fmt,
            **looks,
        )
    name, path = next(iter(paths.items()))
    now = path[keep]
    dense_loss = path[1.0]["loss"]
    point_at(middle, now["uniqueness"], now["sensitivity"])
    point_at(right, 100 * keep, now["loss"])
    middle.plot(1, 1, "*", markersize=13, color="black", zorder=3)
    middle.annotate("all", (1, 1), (6, 6), textcoords="offset points", fontsize=9)
    middle.set(xlabel="uniqueness, all neurons = 1", ylabel="mean sensitivity, all neurons = 1")
    middle.margins(0.12)
    middle.set_ylim(0, 1.15 * middle.dataLim.y1)
    right.axhline(dense_loss, color=GREY, linestyle="--", linewidth=1.2)
    right.set(xlim=(0, 105), xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=9, loc="upper right")
    widths = kept_widths(masks)
    kept = sum(widths)
    total = sum(len(mask) for mask in masks)
    return Plot(
        figure,
        f"{name}: {kept:,} of {total:,} neurons stay ({kept / total:.0%}), by layer "
        f"{joined(widths)}. They are {now['sensitivity']:.2f} times "
        f"as sensitive and {now['uniqueness']:.2f} times as unique as all neurons. Loss "
        f"{now['loss']:.2f}; dense {dense_loss:.2f}.",
        [cells],
    )


def _check_points(lines: Mapping[str, Mapping[float, Any]], keep: float) -> None:
    """Raise GumlabError unless the first line has the marked point and the dense model's."""
    name, present = next(iter(lines.items()))
    for share in (keep, 1.0):
        check_has(f"The first line, {name!r},", share, present)


def refit_gain(losses: Mapping[str, Mapping[str, float]], dense: float) -> Plot:
    """Show the loss after a removal by each score, as cut and after what was done then.

    Parameters
    ----------
    losses : mapping of str to mapping of str to float
        For each score the loss, in nats per target token, after each treatment of the cut model,
        such as "as cut" and "refitted": the same treatments, in the same order, for all scores. At
        most four.
    dense : float
        The whole model's loss, a dashed line.

    Returns
    -------
    Plot
        A row for each score, the best as cut at the top; the sentence gives each treatment's range.

    Raises
    ------
    GumlabError
        If the scores have other treatments, or more than four.
    """
    check_mapping("losses", losses, "scores to {treatment: loss}")
    check_same_keys("losses", losses)
    treatments = list(next(iter(losses.values())))
    check_count("treatments", treatments, 4)
    order = sorted(losses, key=lambda score: losses[score][treatments[0]], reverse=True)
    by_treatment = {
        treatment: [losses[score][treatment] for score in order] for treatment in treatments
    }
    figure, (ax,) = new_figure(width=8, height=1.2 + 0.36 * len(order))
    looks = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", RED))
    for (treatment, values), (marker, colour) in zip(by_treatment.items(), looks, strict=False):
        ax.plot(values, order, marker, color=colour, markersize=8, label=treatment)
    for score in order:
        values = list(losses[score].values())
        ax.plot([min(values), max(values)], [score, score], "-", color=GREY, lw=1, zorder=0)
    ax.axvline(dense, color=GREY, linestyle="--", linewidth=1.2)
    ax.margins(y=0.5 / len(order))
    ax.set_xlabel("loss (nats per target token); dashed: dense")
    low, high = ax.get_xlim()
    if high > 2.5 * low:
        ax.set_xscale("log")
        ax.set_xticks([t for t in (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10) if low < t < high])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    figure.legend(frameon=False, ncols=len(treatments), loc="outside upper right")
    spans = [
        f"{treatment}: {min(values):.2f} to {max(values):.2f}"
        for treatment, values in by_treatment.items()
    ]
    return Plot(figure, f"Loss by score: {'; '.join(spans)}; dense {dense:.2f}.")
