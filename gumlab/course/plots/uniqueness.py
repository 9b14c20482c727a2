"""Figures of redundancy: how used and how unique each neuron is, its twin, what its loss costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from gumlab.course.plots.checks import check_has, check_mapping
from gumlab.course.plots.figure import (
    BLUE,
    GREY,
    MARGINS,
    ORANGE,
    RED,
    Plot,
    new_figure,
    point_at,
)
from gumlab.course.plots.places import Block, Cells, Dots
from gumlab.errors import GumlabError, check_whole
from gumlab.study.intervals import rank_correlation


def used_and_unique(
    used: ArrayLike,
    unique: ArrayLike,
    mask: ArrayLike,
    selected: tuple[int, int] | None = None,
    title: str = "",
    layer: int | None = None,
) -> Plot:
    """Show how much each neuron of a layer is used against how unique it is, kept or removed.

    Parameters
    ----------
    used : array_like
        (N,), ||w_i||^2 G_ii.
    unique : array_like
        (N,), exact uniqueness, 1 - R2.
    mask : array_like
        (N,) bool, True for a neuron that stays.
    selected : tuple of int, optional
        A neuron and its twin, which are marked and joined.
    title : str, optional
        What stands above the figure and begins the sentence, such as "layer 2".
    layer : int, optional
        Whose neurons these are, for the pointer.

    Returns
    -------
    Plot
        A point for each neuron, both axes logarithmic. The dashed lines join neurons of equal
        product, which is what deleting one and refitting the others costs.

    Raises
    ------
    GumlabError
        If these are not as many numbers and truth values, or no neuron has both above 0.
    """
    x, y = _same_neurons(used=used, unique=unique)
    if np.asarray(mask).dtype != bool or np.shape(mask) != x.shape:
        raise GumlabError(
            f"mask must be bool, {x.shape}; got {np.asarray(mask).dtype}, {np.shape(mask)}. "
            "gumlab.select makes masks of scores."
        )
    stays = np.asarray(mask)
    alive = (x > 0) & (y > 0)
    if not alive.any():
        raise GumlabError("No neuron has use and uniqueness above 0, and both axes are in powers.")
    room = MARGINS._replace(top=0.35)
    figure, (ax,) = new_figure(width=7.5, height=4.4, margins=room)
    for group, marker, colour, fate in (
        (alive & stays, "o", BLUE, "stays"),
        (alive & ~stays, "x", ORANGE, "goes"),
    ):
        ax.plot(
            x[group],
            y[group],
            marker,
            color=colour,
            markersize=4,
            alpha=0.7,
            label=f"{fate} ({int(group.sum())})",
        )
    ax.set(xscale="log", yscale="log")
    ax.set_title(title, loc="left", fontsize=11)
    ax.minorticks_off()  # nobody reads them, and they are most of the drawing
    ax.set(xlabel="used: $||w_i||^2\\,G_{ii}$", ylabel="unique: $1 - R^2_i$")
    ax.set_ylim(top=1.3)
    ends = np.array(ax.get_xlim())
    powers = np.percentile(np.log10((x * y)[alive]), [10, 50, 90])
    for number, power in enumerate(powers):
        label = "equal product" if number == 0 else None
        ax.plot(ends, 10**power / ends, "--", color=GREY, lw=0.9, zorder=0, label=label)
    ax.set_xlim(*ends)
    ax.set_ylim(0.7 * y[alive].min(), 1.3)
    if selected is not None:
        one, twin = selected
        ax.plot(x[[one, twin]], y[[one, twin]], "-", color="black", lw=1)
        point_at(ax, x[one], y[one], size=12)
        point_at(ax, x[twin], y[twin], marker="s", size=11, width=1.4)
    # above the axes: there is no corner without points
    ax.legend(
        frameon=False, ncols=3, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0
    )
    texts = [
        f"used {its_use:.3g}, unique {its_uniqueness:.3g}, {'stays' if kept else 'goes'}"
        for its_use, its_uniqueness, kept in zip(x, y, stays, strict=True)
    ]
    beginning = f"{title}: " if title else ""
    return Plot(
        figure,
        f"{beginning}{int(stays.sum())} of {len(stays)} neurons stay. Between "
        f"the 5th and the 95th percentile, use varies {_spread(x[alive]):.0f}-fold and uniqueness "
        f"{_spread(y[alive]):.1f}-fold.",
        [Dots(ax, x, y, range(len(x)), texts, [layer] * len(x))],
    )


def _same_neurons(**numbers: ArrayLike) -> list[np.ndarray]:
    """The arguments as arrays; GumlabError unless each is a number for every neuron, (N,)."""
    arrays = [np.asarray(values, dtype=float) for values in numbers.values()]
    shapes = [values.shape for values in arrays]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise GumlabError(
            f"{' and '.join(numbers)} must be a number for every neuron each, (N,); got the shapes "
            f"{' and '.join(map(str, shapes))}."
        )
    return arrays


def _spread(values: np.ndarray) -> float:
    """How many times the 5th percentile the 95th is."""
    return float(np.percentile(values, 95) / np.percentile(values, 5))


def deletions(
    tried: Mapping[tuple[int, int, bool], Mapping[str, float]], now: tuple[int, int, bool]
) -> Plot:
    """Show what deleting single neurons changes, predicted and measured.

    Parameters
    ----------
    tried : mapping of (int, int, bool) to mapping of str to float
        For each deletion (layer, neuron, whether the others were refitted): the change of the loss,
        predicted ("told") and "measured", and the squared error of the layer's output, predicted
        ("error_told") and measured ("error_measured").
    now : tuple of (int, int, bool)
        The deletion that is marked and told in the sentence.

    Returns
    -------
    Plot
        Left the change of the loss, right the error of the output, a point for each deletion; on
        the dashed lines the prediction is right.

    Raises
    ------
    GumlabError
        If the marked deletion was not tried.
    """
    check_mapping("tried", tried, "(layer, neuron, refitted) to what was told and measured")
    check_has("tried", now, tried)
    figure, (left, right) = new_figure(2, width=9.4, height=3.8, margins=MARGINS)
    panels = ((left, "told", "measured"), (right, "error_told", "error_measured"))
    for refitted, marker, colour, label in (
        (False, "o", BLUE, "deleted"),
        (True, "s", ORANGE, "deleted, the others refitted"),
    ):
        rows = [row for (_, _, refit), row in tried.items() if refit == refitted]
        for ax, predicted, measured in panels:
            ax.plot(
                [row[predicted] for row in rows],
                [row[measured] for row in rows],
                marker,
                color=colour,
                markersize=6,
                alpha=0.8,
                label=label,
            )
    marked = tried[now]
    for ax, predicted, measured in panels:
        point_at(ax, marked[predicted], marked[measured])

    changes = [abs(row[name]) for row in tried.values() for name in ("told", "measured")]
    reach = 1.3 * max(changes) or 1.0  # a dead neuron changes nothing
    left.plot([-reach, reach], [-reach, reach], "--", color=GREY, lw=1, zorder=0)
    left.set(xlim=(-reach, reach), ylim=(-reach, reach))
    power = int(np.floor(np.log10(reach)))
    unit = f", in 1e{power}" if power < -1 else ""
    left.set(
        xlabel=f"told by the slope, $-dL/dm${unit}", ylabel=f"measured change of the loss{unit}"
    )
    if unit:
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_formatter(lambda change, _: f"{change / 10.0**power:.3g}")

    right.set(xscale="log", yscale="log")
    right.minorticks_off()
    errors = [row[name] for row in tried.values() for name in ("error_told", "error_measured")]
    positive = [error for error in errors if error > 0]
    lowest = np.log10(min(positive, default=0.1) / 2)
    highest = np.log10(2 * max(positive, default=1.0))
    ends = (10 ** np.floor(lowest), 10 ** np.ceil(highest))  # whole decades: some are labelled
    right.plot(ends, ends, "--", color=GREY, lw=1, zorder=0)
    right.set(xlim=ends, ylim=ends)
    right.set(xlabel="told: $||w||^2 G_{ii}$, with refit OBS", ylabel="measured output error")
    right.legend(frameon=False, fontsize=9)

    layer, neuron, refit = now
    how = _how(refit)
    predictor = "OBS" if refit else "its use"
    return Plot(
        figure,
        f"Neuron {neuron} of layer {layer} {how}: the loss "
        f"changes by {marked['measured']:+.1e}, the slope said {marked['told']:+.1e}; the layer's "
        f"output error is {marked['error_measured']:.3g}, "
        f"{predictor} said {marked['error_told']:.3g}.",
        [_dots_of(tried, ax, predicted, measured) for ax, predicted, measured in panels],
    )


def _how(refit: bool) -> str:
    return "deleted, the others refitted" if refit else "deleted"


def _dots_of(
    tried: Mapping[tuple[int, int, bool], Mapping[str, float]],
    ax: Axes,
    predicted: str,
    measured: str,
) -> Dots:
    """Where the deletions stand in one panel."""
    return Dots(
        ax,
        [row[predicted] for row in tried.values()],
        [row[measured] for row in tried.values()],
        [neuron for _, neuron, _ in tried],
        [
            f"{_how(refit)}; told {row[predicted]:.3g}, measured {row[measured]:.3g}"
            for (_, _, refit), row in tried.items()
        ],
        [layer for layer, _, _ in tried],
    )


def against(
    x: ArrayLike,
    y: ArrayLike,
    labels: tuple[str, str],
    marked: Mapping[int, str] | None = None,
    layer: int | None = None,
) -> Plot:
    """Show two numbers of the same neurons against each other, some of them named.

    Parameters
    ----------
    x, y : array_like
        (N,) each, a number for every neuron.
    labels : tuple of str
        What x and y are.
    marked : mapping of int to str, optional
        Neurons to mark, and what is written beside each.
    layer : int, optional
        Whose neurons these are, for the pointer.

    Returns
    -------
    Plot
        A point for each neuron; the sentence gives Spearman's rank correlation.

    Raises
    ------
    GumlabError
        If x and y are not of the same neurons, or a marked one is none of them.
    """
    across, up = _same_neurons(x=x, y=y)
    for neuron in marked or {}:
        check_whole("marked: a neuron", neuron, 0, len(across) - 1)
    figure, (ax,) = new_figure(width=7, height=4)
    ax.plot(across, up, "o", color=BLUE, markersize=4, alpha=0.5)
    for neuron, name in (marked or {}).items():
        point_at(ax, across[neuron], up[neuron], size=11, width=1.6)
        place = (across[neuron], up[neuron])
        ax.annotate(name, place, (8, 6), textcoords="offset points", fontsize=9)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    rho = rank_correlation(across, up)
    texts = [
        f"{labels[0]} {one:.3g}, {labels[1]} {other:.3g}"
        for one, other in zip(across, up, strict=True)
    ]
    return Plot(
        figure,
        f"{len(across)} neurons: {labels[0]} and {labels[1]} have a rank correlation of {rho:.2f}.",
        [Dots(ax, across, up, range(len(across)), texts, [layer] * len(across))],
    )


def twins(
    cosines: ArrayLike,
    r2: ArrayLike,
    selected: int,
    neighbours: Sequence[int],
    title: str,
    layer: int | None = None,
) -> Plot:
    """Show every pair of a layer's neurons, and each one's twin against all others together.

    Parameters
    ----------
    cosines : array_like
        (N, N), the signed cosine of every pair of neurons.
    r2 : array_like
        (N,), reconstructability: the share of each neuron's energy that all others rebuild.
    selected : int
        The neuron that is marked.
    neighbours : sequence of int
        The neurons nearest to the selected one, the nearest first.
    title : str
        What stands above the left figure and begins the sentence, such as "layer 2".
    layer : int, optional
        Whose neurons these are, for the pointer.

    Returns
    -------
    Plot
        Left |cosine| of every pair, rows and columns ordered so that neurons alike stand together;
        right the share of a neuron that its twin rebuilds against the share that all others do.

    Raises
    ------
    GumlabError
        If these are not an (N, N) and an (N,) array of one layer, or a neuron is none of its own.
    """
    signed = np.asarray(cosines)
    if np.shape(r2) != signed.shape[:1] or signed.shape != signed.shape[:1] * 2:
        raise GumlabError(
            f"cosines must be (N, N) and r2 (N,) of the same layer; got {signed.shape} and "
            f"{np.shape(r2)}."
        )
    for neuron in (selected, *neighbours):
        check_whole("selected and neighbours: a neuron", neuron, 0, len(signed) - 1)
    sizes = np.abs(signed)
    np.fill_diagonal(sizes, 0)
    order = _neighbours_together(sizes)
    figure, (heat, ax) = new_figure(2, 9.8, 4.3, margins=(0.1, 0.15, 0.55, 0.35))
    heat.grid(False)
    image = heat.imshow(
        sizes[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1, interpolation="nearest"
    )
    place = order.index(selected)
    heat.axhline(place, color=RED, lw=1.2)
    heat.axvline(place, color=RED, lw=1.2)
    heat.set(title=title, xlabel="neuron (neighbours together)", xticks=[], yticks=[])
    figure.colorbar(image, ax=heat, label="|cosine|", shrink=0.85)

    by_twin = sizes.max(1) ** 2
    by_all = np.asarray(r2)
    ax.plot(by_twin, by_all, "o", color=BLUE, markersize=4, alpha=0.6)
    ax.plot([0, 1], [0, 1], "--", color=GREY, label="rebuilt by its twin alone")
    point_at(ax, by_twin[selected], by_all[selected])
    ax.set(xlabel="what the twin rebuilds: cosine squared", ylabel="what all others rebuild: $R^2$")
    lowest = min(0.0, float(by_all.min()))
    ax.set(xlim=(-0.03, 1.03), ylim=(lowest - 0.03, 1.03))
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    nearest = [f"{neuron} ({float(signed[selected][neuron]):+.2f})" for neuron in neighbours]
    texts = [
        f"its twin rebuilds {alone:.0%}, all others {together:.1%}"
        for alone, together in zip(by_twin, by_all, strict=True)
    ]
    column = Block(layer, 0, order, [texts[neuron] for neuron in order])
    return Plot(
        figure,
        f"{title}, neuron {selected}: its nearest are {', '.join(nearest)}. The twin rebuilds "
        f"{by_twin[selected]:.0%} of it, all others together {by_all[selected]:.1%}.",
        [
            Cells(heat, 1, len(order), [column]),  # a neuron's column, as high as the map
            Dots(ax, by_twin, by_all, range(len(texts)), texts, [layer] * len(texts)),
        ],
    )


def _neighbours_together(sizes: np.ndarray) -> list[int]:
    """Order the neurons: one with the closest twin first, then whoever is nearest to the last.

    sizes: (N, N), |cosine|, the diagonal 0.
    """
    order = [int(sizes.max(1).argmax())]
    waiting = np.ones(len(sizes), dtype=bool)
    for _ in range(len(sizes) - 1):
        last = order[-1]
        waiting[last] = False
        nearest = np.where(waiting, sizes[last], -1).argmax()
        order.append(int(nearest))
    return order
