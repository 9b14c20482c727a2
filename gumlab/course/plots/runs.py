"""Figures of runs: methods side by side, loss against keep, training step by step, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from gumlab.course.plots.checks import (
    check_has,
    check_lines,
    check_mapping,
    check_numbers,
    check_table,
)
from gumlab.course.plots.cuts import folded_map, kept_widths
from gumlab.course.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    MARGINS,
    ORANGE,
    STYLES,
    Plot,
    joined,
    new_figure,
)
from gumlab.errors import GumlabError, check_list, check_whole

if TYPE_CHECKING:
    import pandas as pd

    from gumlab.training import Frame, History


A_ROW_EACH = "gumlab.study.run gives such a row, and a study's table has them for each seed."


def method_bars(table: pd.DataFrame, metric: str) -> Plot:
    """Show loss and task metric of each method.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each method, with columns method, keep, loss and `metric`, such as `gumlab demo`
        writes; the first row is dense, which its keep of 1 shows.
    metric : str
        The column of the task's metric.

    Returns
    -------
    Plot
        Two panels with a row for each method, the lowest loss at the top; the dense model is a
        dashed line. The sentence names the lowest and the highest loss; rows without a loss are
        left out.

    Raises
    ------
    GumlabError
        If the table lacks columns, its first row is not dense, or a method has several rows.
    """
    check_table(
        table,
        *dict.fromkeys(("method", "keep", "loss", metric)),
        what="a table of one row a method, the dense one first,",
        source=A_ROW_EACH,
        unit="method",
    )
    check_numbers(table, "loss")
    check_numbers(table, metric)
    _check_a_row_each(table)
    dense = table.iloc[0]
    others = table.iloc[1:].dropna(subset="loss")
    pruned = others.sort_values("loss", ascending=False)
    figure, axes = new_figure(2, width=9, height=0.6 + 0.42 * (1 + len(pruned)))
    _method_points(axes[0], "loss", "loss (nats per target token)", "{:.3f}", dense, pruned)
    _method_points(axes[1], metric, metric, "{:.1f}", dense, pruned)
    axes[1].tick_params(labelleft=False)
    best = pruned.iloc[-1]
    worst = pruned.iloc[0]
    fewest = f"{pruned['keep'].min():.0%}"
    most = f"{pruned['keep'].max():.0%}"
    return Plot(
        figure,
        f"With {fewest if fewest == most else f'{fewest} to {most}'} of the neurons left, "
        f"{best['method']} has the lowest loss ({best['loss']:.3f}) and {worst['method']} the "
        f"highest ({worst['loss']:.3f}); dense: {dense['loss']:.3f}.",
    )


def _check_a_row_each(table: pd.DataFrame) -> None:
    """Raise GumlabError unless the first row is dense, and each other one of another method."""
    dense = table.iloc[0]
    if not dense["keep"] == 1 or np.isnan(dense["loss"]):
        raise GumlabError(
            f"The first row must be the dense run, with keep 1 and a loss; got {dense['method']}, "
            f"keep {dense['keep']:g}, loss {dense['loss']:g}. Sort the table: "
            "table.sort_values('keep', ascending=False)."
        )
    repeated = table["method"][table["method"].duplicated()]
    if len(repeated):
        raise GumlabError(
            f"method_bars takes one row a method; {repeated.iloc[0]!r} has several. Take one seed "
            "and share of a study's table, such as table.query('seed == 0 and asked in (1, 0.25)')"
            ", or show all of them: gumlab.plots.bands(table)."
        )
    if table["loss"].iloc[1:].isna().all():
        raise GumlabError("The table has a loss of the dense run alone; add rows of other methods.")


def _method_points(
    ax: Axes, column: str, label: str, number_format: str, dense: pd.Series, pruned: pd.DataFrame
) -> None:
    """A row with a point and its number for each method, and the dense model's dashed line."""
    ax.plot(pruned[column], pruned["method"], "o", color=BLUE, markersize=8)
    for method, value in zip(pruned["method"], pruned[column], strict=True):
        ax.annotate(
            number_format.format(value),
            (value, method),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.axvline(dense[column], color=GREY, linestyle="--", linewidth=1.2)
    ax.set_xlabel(f"{label}; dashed: {dense['method']}")
    ax.margins(x=0.12, y=0.15)


def keep_curves(curves: Mapping[str, Mapping[float, float]], dense: float) -> Plot:
    """Show the loss against the fraction of neurons kept, a line for each way of choosing them.

    Parameters
    ----------
    curves : mapping of str to mapping of float to float
        For each label the loss, in nats per target token, at each fraction of neurons kept; all
        have the first one's smallest fraction. At most eight.
    dense : float
        The whole model's loss, a dashed line.

    Returns
    -------
    Plot
        The lines; the sentence gives the range of the losses at the smallest fraction.

    Raises
    ------
    GumlabError
        For more than eight curves, and one without the first one's smallest fraction.
    """
    check_lines("curves", curves, "labels to {fraction kept: loss}")
    least = min(next(iter(curves.values())))
    for name, curve in curves.items():
        check_has(f"The curve {name!r}", least, curve)
    figure, (ax,) = new_figure(width=7.5)
    colours: dict[str, str] = {}  # of a way of choosing; its seeds differ by marker and line
    for (name, curve), style in zip(curves.items(), STYLES, strict=False):
        way = name.partition(", seed")[0]
        colour = colours.setdefault(way, STYLES[len(colours)].colour)
        shares = sorted(curve)
        ax.plot(
            [100 * share for share in shares],
            [curve[share] for share in shares],
            style.fmt,
            color=colour,
            label=name,
        )
    ax.axhline(dense, color=GREY, linestyle="--", linewidth=1.2)
    # on the left, where the other lines are high
    left_edge = ax.get_yaxis_transform()
    ax.annotate("dense", (0, dense), (3, 3), left_edge, "offset points", color="#555555")
    ax.set(xlabel="neurons kept (%)", ylabel="loss (nats per target token)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    losses = [curve[least] for curve in curves.values()]
    return Plot(
        figure,
        f"The fewer neurons stay, the higher the loss: dense {dense:.2f}; with {least:.0%} kept, "
        f"{min(losses):.2f} to {max(losses):.2f}.",
    )


def quality_against_keep(table: pd.DataFrame, metric: str, label: str) -> Plot:
    """Show loss and a task's metric against the share of neurons kept, for one way to remove.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each fraction of neurons kept, with columns keep, loss and `metric`.
    metric : str
        The column of the metric.
    label : str
        What the metric is called on its axis and in the sentence.

    Returns
    -------
    Plot
        Two panels; the largest keep is the reference, a dashed line. The sentence gives all values.

    Raises
    ------
    GumlabError
        If the table lacks columns, or holds several rows with one keep.
    """
    check_table(
        table,
        *dict.fromkeys(("keep", "loss", metric)),
        what="a table of one row a fraction of neurons kept",
        source=A_ROW_EACH,
        unit="row",
    )
    for column in ("keep", "loss", metric):
        check_numbers(table, column)
    repeated = table["keep"][table["keep"].duplicated()]
    methods = table.get("method", table["keep"])[table["keep"] < 1]
    if len(repeated) or ("method" in table and methods.nunique() > 1):
        raise GumlabError(
            "quality_against_keep draws one line, of one method and seed; this table has several "
            "rows with one keep, or several methods. Take one of them with table.query, or show "
            "all: gumlab.plots.bands(table, metric)."
        )
    rows = table.sort_values("keep")
    most = rows["keep"].iloc[-1]
    reference = "all kept" if most == 1 else f"{most:.0%} kept"
    figure, axes = new_figure(2, width=9, height=3.4)
    panels = (("loss", "loss (nats per target token)"), (metric, label))
    for ax, (column, name) in zip(axes, panels, strict=True):
        ax.plot(100 * rows["keep"], rows[column], "o-", color=BLUE)
        ax.axhline(rows[column].iloc[-1], color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlim=(0, 105), xlabel=f"neurons kept (%); dashed: {reference}", ylabel=name)
        ax.set_ylim(bottom=0)
    most_first = rows[::-1]
    values = [
        f"{row[metric]:.0f} and {row['loss']:.2f} with {row['keep']:.0%}"
        for _, row in most_first.iterrows()
    ]
    return Plot(figure, f"{label}, and loss, by neurons kept: {', '.join(values)}.")


def training_runs(histories: Mapping[str, History], window: int = 8) -> Plot:
    """Show the share of neurons kept and the training loss at each step of some runs.

    Parameters
    ----------
    histories : mapping of str to History
        What `gumlab.train` returned for each label; at most three.
    window : int, default 8
        Over how many steps the loss is averaged; at most as many as the shortest run has.

    Returns
    -------
    Plot
        Left the share kept, right the running mean of the loss; the sentence gives the last means.
    """
    check_whole("window", window)
    if not isinstance(histories, Mapping):
        raise GumlabError(
            "histories must be a mapping of labels to what gumlab.train returned; got "
            f"{type(histories).__name__}."
        )
    if not 1 <= len(histories) <= 3:
        raise GumlabError(f"training_runs shows one to three runs; got {len(histories)}.")
    for name, history in histories.items():
        if not getattr(history, "losses", None):
            raise GumlabError(
                f"{name!r} must be a History with steps in it, as gumlab.train returns; got "
                f"{history!r:.60}."
            )
    window = min(window, *(len(history.losses) for history in histories.values()))
    figure, (left, right) = new_figure(2, width=9.4, height=3.4)
    looks = ((BLUE, "-"), (ORANGE, "--"), (GREEN, ":"))
    for (name, history), (colour, line) in zip(histories.items(), looks, strict=False):
        steps = np.arange(1, len(history.losses) + 1)
        percents = [100 * share for share in history.kept]
        running_mean = np.convolve(history.losses, np.ones(window) / window, "valid")
        left.plot(steps, percents, line, color=colour, lw=2, label=name)
        right.plot(steps[window - 1 :], running_mean, line, color=colour, lw=2, label=name)
    left.set(ylim=(0, 105), xlabel="step", ylabel="neurons kept (%)")
    right.set(xlabel="step", ylabel=f"training loss (mean of {window} steps)")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    last = [
        f"{name} {np.mean(history.losses[-window:]):.2f}" for name, history in histories.items()
    ]
    return Plot(figure, f"Training loss over the last {window} steps: {', '.join(last)}.")


def replay(history: History, index: int, layer: int) -> Plot:
    """Show one step of a recorded run: who is there, how far the run is, a layer's scores.

    Parameters
    ----------
    history : History
        A run that was recorded: `gumlab.train(..., record=1)`.
    index : int
        Which of its frames.
    layer : int
        Whose scores are shown.

    Returns
    -------
    Plot
        Left the map of the neurons, in the middle share kept and loss by step, right the scores of
        about sixty of the layer's neurons up to this step, and the lowest score that is there.
    """
    if not getattr(history, "frames", None):
        raise GumlabError(
            f"Expected a History with frames; got {history!r:.40}. Ask for them: "
            "gumlab.train(model, tokenizer, task, pruner=pruner, record=1)."
        )
    check_whole("index", index, 0, len(history.frames) - 1)
    check_whole("layer", layer, 0, len(history.frames[0].masks) - 1)
    frame = history.frames[index]
    room = MARGINS._replace(left=1.0)  # of a map's label that stands left of its axes
    figure, (left, middle, right) = new_figure(3, width=12.4, height=3.9, margins=room)
    cells = folded_map(left, frame.masks, frame.scores)
    _draw_progress(middle, history, frame.step)
    _draw_scores(right, history, index, layer)
    widths = kept_widths(frame.masks)
    total = sum(len(mask) for mask in frame.masks)
    returned = _returned(history.frames[: index + 1], layer)
    return Plot(
        figure,
        f"Step {frame.step}: {sum(widths):,} of {total:,} neurons are "
        f"there, by layer {joined(widths)}. In layer {layer}, {returned} came back so "
        f"far. Training loss {history.losses[frame.step - 1]:.2f}.",
        [cells],
    )


def _draw_progress(ax: Axes, history: History, now: int) -> None:
    """Share kept and loss at every step of the run, with a line at the present one."""
    steps = np.arange(1, len(history.losses) + 1)
    percents = [100 * share for share in history.kept]
    losses = 100 * np.array(history.losses) / max(history.losses)
    ax.plot(steps, percents, "-", color=BLUE, label="neurons kept (%)")
    ax.plot(steps, losses, ":", color=GREY, label="training loss (% of its largest)")
    top = 135  # room for the legend
    ax.axvline(now, ymax=105 / top, color="black", lw=1.2)
    ax.set(ylim=(0, top), yticks=range(0, 101, 20), xlabel="step (line: now)")
    ax.legend(frameon=False, fontsize=9, loc="upper right")


def _draw_scores(ax: Axes, history: History, index: int, layer: int) -> None:
    """A layer's scores up to frame `index`: those of some neurons, and the lowest that is there."""
    so_far = history.frames[: index + 1]
    steps = [frame.step for frame in so_far]
    all_scores = np.stack([np.asarray(frame.scores[layer]) for frame in history.frames])
    scores = all_scores[: index + 1]  # (frames so far, N)
    there = _there(so_far, layer)
    neurons = scores.shape[1]
    shown = np.arange(neurons) % max(1, neurons // 60) == 0
    for group, line, colour, label in (
        (shown & ~there[-1], ":", ORANGE, "is out (some of them)"),
        (shown & there[-1], "-", BLUE, "is there (some of them)"),
    ):
        paths = [np.column_stack([steps, path]) for path in scores[:, group].T]
        ax.add_collection(
            LineCollection(
                paths, linestyles=line, colors=colour, linewidths=0.8, alpha=0.8, label=label
            )
        )
    lowest_there = np.where(there, scores, np.inf).min(1)
    ax.plot(steps, lowest_there, color="black", lw=2, label="the lowest that is there")
    ax.set(xlabel="step", ylabel=f"score, layer {layer}", xlim=(0, len(history.losses)))
    bottom = all_scores.min()
    ax.set_ylim(bottom, bottom + 1.4 * np.ptp(all_scores) + 1e-9)  # room for the legend
    ax.legend(frameon=False, fontsize=9, loc="upper left")


def _there(frames: Sequence[Frame], layer: int) -> np.ndarray:
    """Who of a layer is there at each frame, (frames, N) bool."""
    return np.stack([np.asarray(frame.masks[layer]) for frame in frames])


def _returned(frames: Sequence[Frame], layer: int) -> int:
    """How often a neuron of a layer was there again that had been out at the frame before."""
    there = _there(frames, layer)
    return int((there[1:] & ~there[:-1]).sum())


def seed_dots(runs: Mapping[str, Sequence[float]], label: str = "test loss") -> Plot:
    """Show every run as a dot, and the mean of each condition.

    Parameters
    ----------
    runs : mapping of str to sequence of float
        For each condition a value for each seed.
    label : str, default "test loss"
        What the values are.

    Returns
    -------
    Plot
        A row for each condition, with a bar at the mean; the sentence gives the means.

    Raises
    ------
    GumlabError
        For something else than such a mapping, a table for one.
    """
    check_mapping(
        "runs",
        runs,
        "conditions to a list of values, one a seed",
        "Of a study's table it is table.groupby('method')['loss'].apply(list).to_dict().",
    )
    for condition, values in runs.items():
        check_list(f"runs[{condition!r}]", values, "numbers, one a seed")
    figure, (ax,) = new_figure(width=8, height=1 + 0.5 * len(runs))
    for row, values in enumerate(runs.values()):
        ax.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.7, markersize=8)
        mean = float(np.mean(values))
        ax.plot([mean, mean], [row - 0.25, row + 0.25], color="black", lw=2)
        ax.annotate(f"{mean:.3f}", (mean, row - 0.27), ha="center", va="bottom", fontsize=9)
    ax.set_yticks(range(len(runs)), list(runs))
    ax.set(ylim=(len(runs) - 0.5, -0.7), xlabel=f"{label} (dot: a seed, bar: the mean)")
    ax.margins(x=0.1)
    means = [f"{condition} {np.mean(values):.3f}" for condition, values in runs.items()]
    return Plot(figure, f"Mean {label}: {', '.join(means)}.")
