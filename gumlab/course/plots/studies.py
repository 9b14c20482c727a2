"""Figures of a study's table: loss and metric against keep, the paper's Figure 1, what distillation
narrows, widths by layer, score x refit, and a claim in every setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from gumlab.course.plots.checks import (
    SEEDS,
    check_count,
    check_numbers,
    check_one_run,
    check_table,
)
from gumlab.course.plots.figure import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    STYLES,
    Plot,
    Style,
    new_figure,
    styles_of,
    text_width,
)
from gumlab.errors import GumlabError
from gumlab.study.claims import GUM, NOT_GUM, values
from gumlab.study.intervals import half_interval

if TYPE_CHECKING:
    import pandas as pd

RATIOS = ["sensitivity", "uniqueness"]
MOST_NAMED = 24  # settings of a claim; more are grouped
LABELS = 8  # points, the settings' names


def _finished(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not fail, with `keep` as the grid asked for it."""
    check_table(table, "method", "keep", "seed", "loss", "sensitivity")
    result = "loss" if table["loss"].notna().any() else "sensitivity"
    return _as_asked(table).dropna(subset=result)


def _as_asked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `keep` as the grid asked for it, where it says so."""
    if "asked" not in table:
        return table
    return table.assign(keep=table["asked"].fillna(table["keep"]))


def _check_dense_and_others(rows: pd.DataFrame) -> None:
    """Raise GumlabError unless there are dense rows, and those of one to eight methods."""
    is_dense = rows["method"] == "dense"
    if not is_dense.any() or is_dense.all():
        raise GumlabError(
            'The table needs dense runs, whose method is "dense", to compare with, and others.'
        )
    check_count("methods", rows["method"][~is_dense].dropna().unique(), len(STYLES))


def _draw_band(ax: Axes, by_keep: pd.Series, style: Style, label: str) -> pd.Series:
    """Draw the means of values grouped by keep, a band with their intervals; return the means."""
    mean = by_keep.mean()
    half = by_keep.apply(half_interval)
    percents = 100 * mean.index
    ax.plot(percents, mean, style.fmt, color=style.colour, label=label)
    ax.fill_between(percents, mean - half, mean + half, color=style.colour, alpha=0.15)
    return mean


def _draw_intervals(ax: Axes, by_keep: pd.Series, style: Style, label: str, aside: float) -> None:
    """Draw the means of values grouped by keep with their intervals, a little beside the share."""
    mean = by_keep.mean()
    half = by_keep.apply(half_interval)
    ax.errorbar(
        100 * mean.index + aside,
        mean,
        half,
        fmt=style.fmt,
        color=style.colour,
        lw=0.8,
        elinewidth=1.4,
        markersize=5,
        label=label,
    )


def bands(table: pd.DataFrame, metric: str | None = None, name: str | None = None) -> Plot:
    """Show the loss, and a metric, of each method against the share of neurons kept.

    Parameters
    ----------
    table : pandas.DataFrame
        A study's table, of one task and model, distilled or not, with at most eight methods; the
        dense runs, if any, give the dashed line.
    metric : str, optional
        The column of a metric to show beside the loss.
    name : str, optional
        What the metric's axis is called, by default `metric`.

    Returns
    -------
    Plot
        A line for each method, the mean over the seeds, with its 95 % t interval as an upright bar;
        the methods stand side by side at each share. The sentence names the best and the worst at
        the smallest share, and how many seeds a mean is of; runs without a loss are left out.

    Raises
    ------
    GumlabError
        If the table lacks columns, or holds several runs of a method, share and seed.
    """
    rows = _finished(table)
    check_numbers(rows, "loss")
    if metric is not None:
        check_table(table, metric)
        check_numbers(rows, metric)
    check_one_run(rows, "method", "keep", "seed")
    is_dense = rows["method"] == "dense"
    dense = rows[is_dense]
    pruned = rows[~is_dense]
    check_count("methods", pruned["method"].unique(), len(STYLES))
    labels = {"loss": "loss (nats per target token)"}
    if metric:
        labels[metric] = name or metric
    styles = styles_of(pruned["method"])
    figure, axes = new_figure(len(labels), width=1.5 + 5.5 * len(labels), height=3.8)
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        for place, (method, style) in enumerate(styles.items()):
            runs = pruned[pruned["method"] == method]
            aside = 1.1 * (place - (len(styles) - 1) / 2)
            _draw_intervals(ax, runs.groupby("keep")[column], style, method, aside)
        if len(dense):
            ax.axhline(dense[column].mean(), color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlabel="neurons kept (%); dashed: dense", ylabel=label)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right center")

    least = pruned["keep"].min()
    losses = pruned[pruned["keep"] == least].groupby("method")["loss"]
    mean = losses.mean()
    half = losses.apply(half_interval)
    best = mean.idxmin()
    worst = mean.idxmax()
    sentence = (
        f"With {least:.0%} of the neurons kept, the lowest mean loss is that of "
        f"{best} {_with_interval(mean[best], half[best])}, the highest that of "
        f"{worst} {_with_interval(mean[worst], half[worst])} ({_seeds_told(pruned)})."
    )
    if len(rows) < len(table):
        sentence += f" Runs without a loss, which are left out: {len(table) - len(rows)}."
    return Plot(figure, sentence)


def _with_interval(mean: float, half: float) -> str:
    """A mean and half its interval, where there is one."""
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} +- {half:.3f}"


def _seeds_told(pruned: pd.DataFrame) -> str:
    """Of how many seeds the means of the loss are, and what that gives."""
    counts = pruned.groupby(["method", "keep"])["loss"].count()
    fewest = counts.min()
    most = counts.max()
    if most == 1:
        return "1 seed, which has no interval"
    if fewest == most:
        return f"{most} seeds, 95 % intervals"
    alone = "; 1 seed has none" if fewest == 1 else ""
    return f"{fewest} to {most} seeds, 95 % intervals{alone}"


def ratios(table: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Plot:
    """Show sensitivity and uniqueness of each method as ratios to the dense model's.

    Parameters
    ----------
    table : pandas.DataFrame, or mapping of str to pandas.DataFrame
        A study's table, or `gumlab.paper.table()`, of one task and model, with dense runs and at
        most eight methods; or several with their titles, side by side. A ratio is taken at equal
        seeds.

    Returns
    -------
    Plot
        A point for each method and share of neurons kept, the mean over the seeds: the fewer
        neurons, the smaller the point; hollow points are distilled. The sentence names the methods
        that are highest on average.

    Raises
    ------
    GumlabError
        If a table lacks columns or dense runs, or holds several runs of a method, share and seed.

    References
    ----------
    arXiv 2302.03773, Figure 1.
    """
    tables = table if isinstance(table, Mapping) else {"": table}
    found = {title: _ratios_to_dense(rows) for title, rows in tables.items()}
    names = [method for rows in found.values() for method in rows["method"]]
    check_count("methods", dict.fromkeys(names), len(STYLES))
    styles = styles_of(names)
    width = 7.5 if len(tables) == 1 else 4.3 * len(tables)
    figure, axes = new_figure(len(tables), width=width, height=4.4)
    sentences = []
    for ax, (title, rows) in zip(axes, found.items(), strict=True):
        _draw_ratios(ax, rows, styles)
        ax.set_title(title, fontsize=10)
        sentences.append(f"{title}: {_highest(rows)}" if title else _highest(rows))
    axes[0].set_ylabel("uniqueness / dense")
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles, frameon=False, ncols=len(handles), loc="outside upper center"
    )
    return Plot(figure, " ".join(sentences))


def _ratios_to_dense(table: pd.DataFrame) -> pd.DataFrame:
    """The pruned runs; their sensitivity and uniqueness are divided by those of the dense runs."""
    check_table(table, "method", "keep", "seed", "distilled", "loss", *RATIOS)
    finished = _finished(table)
    _check_dense_and_others(finished)
    check_one_run(finished, "method", "keep", "distilled", "seed")
    rows = finished.set_index("seed")
    is_dense = rows["method"] == "dense"
    dense = rows[is_dense]
    pruned = rows[~is_dense]
    if not pruned.index.isin(dense.index).any():
        raise GumlabError(
            "A ratio is taken at equal seeds, and no pruned run has the seed of a dense one. Give "
            "the dense runs of those seeds."
        )
    for measure in RATIOS:
        ratio = pruned[measure] / dense[measure].reindex(pruned.index)
        pruned = pruned.assign(**{measure: ratio})
    return pruned


def _draw_ratios(ax: Axes, pruned: pd.DataFrame, styles: Mapping[str, Style]) -> None:
    """A line and points for each method, distilled or not."""
    for (method, distilled), runs in pruned.groupby(["method", "distilled"], sort=False):
        style = styles[method]
        mean = runs.groupby("keep")[RATIOS].mean()
        x, y = mean["sensitivity"], mean["uniqueness"]
        ax.plot(x, y, color=style.colour, lw=0.8)
        ax.scatter(
            x,
            y,
            20 + 160 * mean.index.to_numpy(),
            marker=style.marker,
            edgecolors=style.colour,
            facecolors="none" if distilled else style.colour,
            label=None if distilled else method,
        )
    ax.axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1.2)
    if np.ptp(pruned["sensitivity"]) > 10:
        ax.set_xscale("log")
    ax.set(xlabel="sensitivity / dense")


def _highest(pruned: pd.DataFrame) -> str:
    """Which methods have the highest ratios on average."""
    averages = pruned.groupby("method", sort=False)[RATIOS].mean()
    best = averages.idxmax()
    top = averages.max()
    return (
        f"On average {best['sensitivity']} keeps the highest sensitivity "
        f"({top['sensitivity']:.2f} of dense), and {best['uniqueness']} the highest "
        f"uniqueness ({top['uniqueness']:.2f} of dense)."
    )


def gaps(table: pd.DataFrame) -> Plot:
    """Show by how much the worst method's loss is above the best one's, distilled and not.

    Parameters
    ----------
    table : pandas.DataFrame
        A study's table, or `gumlab.paper.table()`, of one task and model. Of the paper's methods
        those count that ran both ways.

    Returns
    -------
    Plot
        The gap against the share of neurons kept: a point is the mean over the seeds, a band its
        95 % t interval. The sentence gives the gap without and with distillation at each share.

    Raises
    ------
    GumlabError
        If the table has no losses of methods that ran both distilled and not, or several runs of a
        method, share and seed.
    """
    check_table(table, "method", "keep", "seed", "distilled", "loss")
    runs = _as_asked(table).dropna(subset="loss")
    of_the_paper = runs[runs["method"].isin((*GUM, *NOT_GUM))]
    check_one_run(of_the_paper, "method", "keep", "distilled", "seed")
    rows = values(table)["gap"].rename("gap").reset_index()
    figure, (ax,) = new_figure(width=6.5)
    means = {}
    for style, (distilled, runs) in zip(STYLES, rows.groupby("distilled"), strict=False):
        label = "distilled" if distilled else "labels only"
        means[distilled] = _draw_band(ax, runs.groupby("keep")["gap"], style, label)
    if len(means) < 2:
        raise GumlabError(
            f"No gaps to compare: of the table's {len(table)} rows none has the loss of a method "
            "that ran both distilled and not. Give the runs of both."
        )
    ax.set(xlabel="neurons kept (%)", ylabel="loss, worst less best (nats)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    from_labels = means[False]
    distilled_gaps = means[True]
    changes = [
        f"{from_labels[share]:.3f} to {distilled_gaps[share]:.3f} with {share:.0%}"
        for share in distilled_gaps.index
    ]
    return Plot(
        figure,
        f"Distillation takes the gap between best and worst from {', '.join(changes)} kept.",
    )


def layer_widths(table: pd.DataFrame) -> Plot:
    """Show the share of each layer's neurons that the methods keep.

    Parameters
    ----------
    table : pandas.DataFrame
        A study's table, of one task, model, keep and distillation, with dense runs and at most
        eight methods.

    Returns
    -------
    Plot
        A line for each method, the mean over the seeds; the sentence names the most uneven one.

    Raises
    ------
    GumlabError
        If the table lacks columns or dense runs, or holds several runs of a method and seed.
    """
    check_table(table, "method", "widths")
    rows = table.dropna(subset=["method", "widths"]).reset_index(drop=True)
    _check_dense_and_others(rows)
    is_dense = rows["method"] == "dense"
    if any(column in rows for column in SEEDS):  # else nothing tells runs apart
        check_one_run(rows[~is_dense], "method", *SEEDS)
    widths = rows["widths"].map(lambda cell: json.loads(cell) if isinstance(cell, str) else cell)
    full = np.array(widths[is_dense].iloc[0])
    if any(len(run) != len(full) for run in widths) or len(set(map(str, widths[is_dense]))) > 1:
        raise GumlabError(
            "The runs are of models with other layers: their dense widths or numbers of layers "
            "differ. Give the runs of one model."
        )
    layers = range(len(full))
    figure, (ax,) = new_figure(width=7.0, height=3.8)
    shares = {}
    of_methods = rows[~is_dense]
    for method, style in styles_of(of_methods["method"]).items():
        runs = of_methods[of_methods["method"] == method]
        of_method = np.array(widths[runs.index].tolist())  # (seeds, L)
        shares[method] = of_method.mean(0) / full
        ax.plot(layers, 100 * shares[method], style.fmt, color=style.colour, label=method)
    ax.set_xticks(layers[:: 1 if len(full) <= 16 else 5])
    ax.set(xlabel="layer (0: nearest the input)", ylabel="neurons kept (% of the layer)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    uneven = max(shares, key=lambda method: np.ptp(shares[method]))
    return Plot(
        figure,
        f"{uneven} divides its neurons most unevenly: {shares[uneven].min():.0%} of one layer "
        f"stay, {shares[uneven].max():.0%} of another.",
    )


def refit_heat(table: pd.DataFrame) -> Plot:
    """Show the loss without any training by score and by refit.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of one task, scope and keep, with columns score, refit and loss, such as those of
        results/one_shot.csv.

    Returns
    -------
    Plot
        A row for each score, the best at the top, and a column for each refit, in the order of the
        table; a cell is the mean over the seeds. The sentence gives each refit's range.

    Raises
    ------
    GumlabError
        If the table lacks columns, or holds several runs of a score, refit and seed.
    """
    check_table(table, "score", "refit", "loss")
    rows = table.dropna(subset=["score", "refit", "loss"])
    if any(column in rows for column in SEEDS):  # else nothing tells runs apart
        check_one_run(rows, "score", "refit", *SEEDS)
    refits = list(dict.fromkeys(rows["refit"]))
    loss = rows.pivot_table(index="score", columns="refit", values="loss")
    loss = loss[refits].dropna(axis=1)
    if loss.empty:
        raise GumlabError(
            f"No refit has the loss of every score; of {len(table)} rows {len(rows)} have a score, "
            "a refit and a loss. Give the rows of the scores that were tried with the same refit."
        )
    last_refit = loss.columns[-1]
    loss = loss.sort_values(last_refit)
    figure, (ax,) = new_figure(width=6.0, height=0.9 + 0.34 * len(loss))
    ax.grid(visible=False)
    logs = np.log(loss.to_numpy())
    picture = ax.imshow(logs, cmap="cividis", aspect="auto")
    on_yellow = np.asarray(picture.norm(logs)) > 0.5
    for (row, column), value in np.ndenumerate(loss.to_numpy()):
        colour = "black" if on_yellow[row, column] else "white"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(loss.shape[1]), loss.columns)
    ax.set_yticks(range(len(loss)), loss.index)
    ax.set(xlabel="refit (number: loss in nats per target token; yellow: high)")
    spans = [
        f"{loss[refit].min():.2f} ({loss[refit].idxmin()}) to {loss[refit].max():.2f} with {refit}"
        for refit in loss
    ]
    return Plot(figure, f"By refit, the loss of the scores is {', '.join(spans)}.")


def forest(effects: pd.DataFrame) -> Plot:
    """Show a claim in every setting.

    Parameters
    ----------
    effects : pandas.DataFrame
        The rows of `gumlab.paper.effects` of one claim.

    Returns
    -------
    Plot
        A row for each setting, sorted: its mean effect, below 0 as claimed, and the 95 % t
        interval. More settings than can be read one by one are grouped by base and task. The
        sentence counts the settings by what they say.

    Raises
    ------
    GumlabError
        For something else than these rows, and for the rows of several claims.
    """
    check_table(
        effects,
        *("where", "effect", "half", "says"),
        what="the rows of one claim",
        source="gumlab.paper.effects(table, gumlab.paper.margin()) makes them of a study's table.",
        unit="setting",
    )
    if "number" in effects and effects["number"].nunique() > 1:
        raise GumlabError(
            f"A forest is of one claim; these rows are of {effects['number'].nunique()}. Take one: "
            f"effects.query('number == {effects['number'].iloc[0]}')."
        )
    rows = effects.sort_values("effect", ascending=False, ignore_index=True)
    is_long = len(rows) > MOST_NAMED
    if is_long:
        rows, places, labels = _grouped(rows)
    else:
        places = np.arange(len(rows))
        labels = {float(place): name for place, name in enumerate(rows["where"])}
    lines = float(np.ptp(places)) + 1
    height = 1.1 + max(1.0, (0.07 if is_long else 0.26) * lines)
    left = 1.05 * text_width("\n".join(labels.values()), LABELS) + 0.25  # drawn a little wider
    width = max(8.5, left + 4)  # long names do not take the room of what they name
    figure, (ax,) = new_figure(width=width, height=height, margins=(left, 0.2, 0.7, 0.4))
    ax.axvline(0, color=ORANGE, linestyle="--", linewidth=1.2)
    counts = []
    for verdict, marker, colour in (
        ("as claimed", "o", BLUE),
        ("open", "s", GREY),
        ("opposite", "X", RED),
    ):
        agrees = (rows["says"] == verdict).to_numpy()
        ax.errorbar(
            rows["effect"][agrees],
            places[agrees],
            xerr=rows["half"][agrees],
            fmt=marker,
            color=colour,
            markersize=3.5 if is_long else 6,
            label=verdict,
        )
        counts.append(f"{agrees.sum()} {verdict}")
    reach = rows["effect"].abs() + rows["half"].fillna(0)
    outer = ""
    if reach.max() > 8 * reach.median() > 0:  # else the widest interval leaves the others no room
        ax.set_xscale("symlog", linthresh=reach.median(), linscale=2)
        outer = "\nthe outer parts of the axis are logarithmic"
    ax.set_yticks(list(labels), list(labels.values()), fontsize=LABELS)
    ax.margins(y=0.5 / lines)
    ax.set_xlabel(f"effect, 95 % interval; left of the dashed line: as claimed{outer}")
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="upper right")
    return Plot(figure, f"Of {len(rows)} settings: {', '.join(counts)}.")


def _grouped(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, dict[float, str]]:
    """The rows by base and task, where each stands, and the groups' names at their middles."""
    names = rows["where"].str.partition(",")[0]
    rows = rows.loc[names.sort_values(kind="stable", ascending=False).index]
    names = names[rows.index]
    group = (names != names.shift()).cumsum() - 1
    places = np.arange(len(rows)) + 4 * group.to_numpy()  # a gap between two groups
    labels = {}
    for name in names.unique():
        own = places[names == name]
        labels[float(own.mean())] = f"{name}\n{len(own)} settings"
    return rows, places, labels
