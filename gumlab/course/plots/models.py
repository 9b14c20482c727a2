"""Figures of a model: what fires, what it writes, where its parameters are, what it costs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator
from numpy.typing import ArrayLike

from gumlab.course.plots.checks import check_count, check_has, check_mapping, check_same_keys
from gumlab.course.plots.figure import BLUE, GREEN, GREY, ORANGE, Plot, new_figure
from gumlab.errors import GumlabError, check_whole


def activations(h: ArrayLike, tokens: Sequence[str], names: Sequence[int]) -> Plot:
    """Show how strongly some neurons fire at each token of a text.

    Parameters
    ----------
    h : array_like
        (T, N), the activations of a layer's neurons, as they enter proj.
    tokens : sequence of str
        The T tokens.
    names : sequence of int
        The indices of the neurons to show.

    Returns
    -------
    Plot
        A row for each neuron and a column for each token; the sentence says where each fires most.

    Raises
    ------
    GumlabError
        If there is not a row for each token, or a neuron to show is not there.
    """
    fired = np.asarray(h)
    if fired.ndim != 2 or len(fired) != len(tokens):
        raise GumlabError(
            f"h must have a row for each of the {len(tokens)} tokens and a column for each neuron, "
            f"(T, N); got shape {fired.shape}."
        )
    for name in names:
        check_whole("names: a neuron", name, 0, fired.shape[1] - 1)
    rows = fired[:, list(names)].T
    peaks = rows.argmax(1)
    low = float(rows.min())
    high = float(np.abs(rows).max())
    scale: dict[str, Any]
    if low < -0.2 * high:
        scale = {"vmin": -high, "vmax": high, "cmap": "PuOr_r"}
    else:  # GELU's h is hardly ever below 0
        scale = {"vmin": 0, "vmax": high, "cmap": "Oranges"}
    below = 0.2 + 0.07 * max(len(token) for token in tokens)  # the tokens stand upright
    figure, (ax,) = new_figure(
        1, 9.4, 0.1 + 0.34 * len(names) + below, margins=(1.0, 0.1, below, 0.1)
    )
    ax.grid(False)
    image = ax.imshow(rows, aspect="auto", **scale)
    for row, peak in enumerate(peaks):
        ax.plot(peak, row, "o", color="black", markersize=4)
    ax.xaxis.set_major_locator(FixedLocator(range(len(tokens))))  # set_xticks is slow
    ax.xaxis.set_major_formatter(FixedFormatter(list(tokens)))
    ax.tick_params(axis="x", labelrotation=90, labelsize=8, labelfontfamily="monospace")
    ax.set_yticks(range(len(names)), [f"neuron {name}" for name in names])
    figure.colorbar(image, ax=ax, label="activation h", pad=0.01)
    places = [f"{name} at {tokens[peak]!r}" for name, peak in zip(names, peaks, strict=True)]
    return Plot(figure, f"Where each neuron fires most (the dot): {', '.join(places)}.")


def texts(
    prompt: str, reference: str, written: Mapping[str, str], loss: Mapping[str, float]
) -> Plot:
    """Show a prompt, its reference, and what some models write after it.

    Parameters
    ----------
    prompt, reference : str
        What the models read, and what they should write.
    written : mapping of str to str
        What each model wrote; the first model is the one that the others are compared with.
    loss : mapping of str to float
        Each model's loss on the reference, in nats per target token.

    Returns
    -------
    Plot
        The texts, with words that the first model does not have in [brackets]; the sentence repeats
        what the models wrote, and how many wrote the same as the first.
    """
    check_mapping("written", written, "models to what each wrote")
    for model in written:
        check_has("loss", model, loss)
    first, *others = written
    known_words = written[first].split()
    blocks = [
        ("prompt", _wrapped(prompt)),
        ("reference", _wrapped(reference)),
    ]
    for name, text in written.items():
        words = [word if word in known_words else f"[{word}]" for word in text.split()]
        blocks.append((f"{name}\nloss {loss[name]:.2f}", _wrapped(" ".join(words) or "(nothing)")))
    heights = [max(len(lines), heading.count("\n") + 1) + 0.6 for heading, lines in blocks]
    total_height = sum(heights)
    figure, (ax,) = new_figure(
        width=9.8, height=0.3 + 0.21 * total_height, margins=(0.1, 0.1, 0.1, 0.1)
    )
    ax.set_axis_off()
    y = 0.0
    for (heading, lines), height in zip(blocks, heights, strict=True):
        ax.text(0, y, heading, va="top", weight="bold", fontsize=9)
        ax.text(0.22, y, "\n".join(lines), va="top", family="monospace", fontsize=9)
        y += height
    ax.set(xlim=(0, 1), ylim=(total_height, 0))
    same = sum(written[name].split() == known_words for name in others)
    sayings = [
        f"{name} writes: {text.rstrip('.') or '(nothing)'}" for name, text in written.items()
    ]
    return Plot(
        figure,
        f"{'; '.join(sayings)}. {same} of {len(others)} write the same as {first}; in "
        "[brackets]: words that it does not have.",
    )


def _wrapped(text: str) -> list[str]:
    """The text in lines of 80 characters, at least one."""
    return textwrap.wrap(text, 80) or [""]


def parameter_shares(models: Mapping[str, Mapping[str, int]]) -> Plot:
    """Show where each model's parameters are.

    Parameters
    ----------
    models : mapping of str to mapping of str to int
        How many parameters each part of each model has: the same parts, at most three, for each
        model.

    Returns
    -------
    Plot
        A bar for each model, cut into its parts; the sentence gives the share of the first part.

    Raises
    ------
    GumlabError
        If the models have other parts, or more than three.
    """
    check_mapping("models", models, "models to {part: parameters}")
    check_same_keys("models", models)
    check_count("parts", next(iter(models.values())), 3)
    parts = list(next(iter(models.values())))
    totals = np.array([sum(counts.values()) for counts in models.values()])
    figure, (ax,) = new_figure(width=9, height=1.1 + 0.5 * len(models))
    looks = ((BLUE, ""), (ORANGE, "//"), (GREY, ".."))
    starts = np.zeros(len(models))
    for part, (colour, hatch) in zip(parts, looks, strict=False):
        shares = np.array([counts[part] for counts in models.values()]) / totals * 100
        ax.barh(
            list(models),
            shares,
            left=starts,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=part,
        )
        for row, (start, share) in enumerate(zip(starts, shares, strict=True)):
            ax.text(
                start + share / 2,
                row,
                f"{share:.0f} %",
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
        starts += shares
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of the parameters (%)")
    figure.legend(frameon=False, ncols=3, loc="outside upper right")
    sayings = [
        f"{counts[parts[0]] / sum(counts.values()):.0%} in {model}"
        for model, counts in models.items()
    ]
    return Plot(figure, f"Share of the parameters in {parts[0]}: {', '.join(sayings)}.")


def relative_costs(costs: Mapping[str, Mapping[str, float]]) -> Plot:
    """Show what each version of a model costs, in percent of the first version.

    Parameters
    ----------
    costs : mapping of str to mapping of str to float
        The value of each measure, in any unit, for each version: the same measures for each. The
        first version is the one compared with; at most three others.

    Returns
    -------
    Plot
        A row for each measure, a point for each version; the sentence gives those of the last.

    Raises
    ------
    GumlabError
        If the versions have other measures, there are not two to four, or the first has a cost of
        0.
    """
    check_mapping("costs", costs, "versions to {measure: value}")
    check_same_keys("costs", costs)
    first, *others = costs
    check_count("versions beside the first", others, 3)
    for measure, value in costs[first].items():
        if not value > 0:
            raise GumlabError(
                f"Costs are drawn in percent of those of {first!r}, whose {measure!r} is {value}; "
                "expected a number above 0. Leave that measure out."
            )
    measures = list(costs[first])
    room_for_names = 0.3 + 0.09 * max(len(measure) for measure in measures)
    figure, (ax,) = new_figure(
        width=8,
        height=1.3 + 0.45 * len(measures),
        margins=(room_for_names, 0.15, 0.55, 0.4),
    )
    ax.axvline(100, color=GREY, linestyle="--", linewidth=1.2)
    looks = (("o", BLUE), ("s", ORANGE), ("^", GREEN))
    for lane, (name, (marker, colour)) in enumerate(zip(others, looks, strict=False)):
        percents = [100 * costs[name][measure] / costs[first][measure] for measure in measures]
        rows = np.arange(len(measures)) + 0.24 * (lane - (len(others) - 1) / 2)
        ax.plot(percents, rows, marker, color=colour, markersize=9, label=name)
        for percent, row in zip(percents, rows, strict=True):
            ax.annotate(
                f"{percent:.0f} %", (percent, row), (9, 0), textcoords="offset points", va="center"
            )
    ax.set_yticks(range(len(measures)), [measure.replace("_", " ") for measure in measures])
    ax.set(ylim=(len(measures) - 0.4, -0.6))
    ax.set_xlim(0, 1.12 * ax.get_xlim()[1])
    last = others[-1]
    if len(others) > 1:
        figure.legend(frameon=False, ncols=3, loc="upper right")
        ax.set_xlabel(f"percent of {first} (dashed line)")
    else:
        ax.set_xlabel(f"{last}, in percent of {first} (dashed line)")
    sayings = [
        f"{costs[last][measure] / costs[first][measure]:.0%} of the {measure}"
        for measure in measures
    ]
    return Plot(figure, f"The {last} model has {', '.join(sayings)} of the {first} one.")
