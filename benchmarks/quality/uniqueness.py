"""What uniqueness is worth where neurons really are redundant: results/uniqueness.csv|md|png.

    python benchmarks/quality/uniqueness.py

Two bases. In `tiny-twins` a random half of each layer's neurons has a planted copy, so a method's
choice can be marked: of each pair it keeps both (a waste), one, or none, and "both" is set against
chance at the method's own layer widths. `tiny-wide` is redundant by nature. Every method gets the
same steps, batches (by seed) and optimiser; the knobs are those tuned elsewhere, but for lambda_gum
and GUM's multiplier, which are what is studied. The figure shows four suspected reasons why GUM's
uniqueness term does little: a twin is one of N neurons in a mean; twins get equal scores; Adam
takes the scale of a penalty away; a penalty on kept neurons alone makes neurons come and go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import numpy as np
import pandas as pd
import torch
from harness import markdown, mean_text

import gumlab as gl
from gumlab.gram import cosine, lifted, unrebuilt
from gumlab.io.loading import ASSETS
from gumlab.scoring import LEARNED, mean_similarity
from gumlab.study import Cell, Method, Run
from gumlab.study.intervals import compared

STEPS = 200
SEEDS = range(3)
SETTINGS = {"tiny-twins": ("restaurants", 0.25), "tiny-wide": ("tables", 0.10)}
FILTER = "plain L1 + twin filter"
PLAIN = "plain L1"
CONTROL = Method("random, at the filter's widths", "random")


def largest_cosine(gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The largest |cosine| with another kept neuron, (N,): GUM's multiplier without the mean."""
    others = cosine(gram).abs() * mask
    return others.fill_diagonal_(0).amax(1)


def count_alike(gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How many other kept neurons have |cosine| >= 0.8, (N,)."""
    others = cosine(gram).abs() * mask
    return (others.fill_diagonal_(0) >= 0.8).sum(1).float()


def rebuilt_share(gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """R2 = 1 - exact uniqueness: the share of a neuron's energy the others rebuild, (N,)."""
    return (1 - unrebuilt(gram, kept=mask) / lifted(gram).diagonal()).float()


def on_kept_alone(gram: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Such that 1 + lambda_gum u is 0 for removed neurons and 1 + 4 mean |cosine| for kept ones."""
    return mask * (1 + 4 * mean_similarity(gram, mask)) - 1


FOUR = {"lambda_gum": 4.0}
NO_TERM = {"lambda_gum": 0.0}
FILTERED = {"twin_filter": 0.8}
EVERYWHERE = {"scope": "global"}
METHODS = (
    Method("dense"),
    Method("random", "random"),
    Method("magnitude", "magnitude"),
    Method("movement, local", "movement"),
    Method("movement, global", "movement", EVERYWHERE),
    Method(PLAIN, "gum", NO_TERM),
    *(Method(f"GUM, lambda_gum {x}", "gum", {"lambda_gum": x}) for x in (1, 4, 20, 200)),
    Method("GUM, largest cosine", "gum", {**FOUR, "similarity": largest_cosine}),
    Method("GUM, count of cosines >= 0.8", "gum", {**FOUR, "similarity": count_alike}),
    Method("GUM, 1 - exact uniqueness", "gum", {**FOUR, "similarity": rebuilt_share}),
    Method("GUM, penalty on kept neurons alone", "gum", {"similarity": on_kept_alone}),
    Method(FILTER, "gum", {**NO_TERM, **FILTERED}),
    Method("GUM, lambda_gum 4 + twin filter", "gum", {**FOUR, **FILTERED}),
    Method("random + twin filter", "random", FILTERED),
    Method("magnitude + twin filter", "magnitude", FILTERED),
    Method("movement, global + twin filter", "movement", {**EVERYWHERE, **FILTERED}),
    Method("OBS, renewed", "obs"),
    Method(
        "greedy OBS + refit, global", "greedy_obs", {"scope": "global", "floor": 10}, one_shot=True
    ),
)


def twins() -> list[torch.Tensor]:
    """The planted pairs of `tiny-twins`, (P, 2) per layer."""
    return [torch.tensor(p) for p in json.loads((ASSETS / "tiny-twins/twins.json").read_text())]


def marks(masks: list[torch.Tensor], pairs: list[torch.Tensor]) -> dict[str, float]:
    """Shares of the planted pairs of which both, one or none stayed, and both over chance."""
    stayed = [mask[p].sum(1) for mask, p in zip(masks, pairs, strict=True)]  # 0, 1 or 2 of each
    expected = sum(
        len(p) * int(m.sum()) * (int(m.sum()) - 1) / (len(m) * (len(m) - 1))
        for m, p in zip(masks, pairs, strict=True)
    )
    none, one, both = (int((torch.cat(stayed) == count).sum()) for count in (0, 1, 2))
    total = none + one + both
    return {
        "none": none / total,
        "one": one / total,
        "both": both / total,
        "both_over_chance": both / expected,
    }


def more_columns(done: Run, cell: Cell) -> dict[str, Any]:
    """What became of the planted pairs; the scores' spread, and how often neurons came back."""
    planted = cell.model == "tiny-twins"
    columns: dict[str, Any] = {}
    if planted and done.masks is not None:
        columns.update(marks([mask.cpu() for mask in done.masks], twins()))
    if done.pruner is not None:
        columns["returned"] = done.pruner.returned
        if planted and cell.seed == 0 and cell.method.name in LEARNED:
            columns["scores"] = [
                [round(score, 5) for score in scores.tolist()] for scores in done.pruner.scores
            ]
    return columns


def grids(bases: list[str]) -> list[dict[str, Any]]:
    """Every method on each base, and random neurons at the twin filter's widths."""
    todo = []
    for base in bases:
        task, keep = SETTINGS[base]
        setting = {"model": base, "task": task, "keep": keep, "seed": SEEDS}
        setting |= {"steps": STEPS, "generated": 100}
        todo.append({**setting, "method": METHODS})
        todo.append({**setting, "method": CONTROL, "widths_of": FILTER})
    return todo


def summary(table: pd.DataFrame, base: str) -> str:
    """A Markdown table of one base: loss, uniqueness over dense, the planted pairs, the returns."""
    runs = table[table["base"] == base]
    dense = runs[runs["method"] == "dense"].set_index("seed")
    rows = []
    for method, mine in runs.groupby("method", sort=False):
        ratio = mine.set_index("seed")["uniqueness"] / dense["uniqueness"]
        row = {"method": method, "loss": mean_text(mine["loss"], ".4f")}
        row["uniqueness / dense"] = mean_text(ratio, ".2f")
        if base == "tiny-twins":
            pruned = method != "dense"
            for share in ("both", "one", "none"):
                row[share] = f"{mine[share].mean():.3f}" if pruned else ""
            row["both / chance"] = mean_text(mine["both_over_chance"], ".2f") if pruned else ""
        returns = mine["returned"]
        row["returned"] = f"{returns.mean():,.0f}" if returns.notna().all() else ""
        rows.append(row)
    return markdown(rows)


PAIRS = (
    ("random", "magnitude"),
    ("movement, global", "movement, local"),
    (PLAIN, "movement, global"),
    ("GUM, lambda_gum 4", PLAIN),
    ("GUM, lambda_gum 200", PLAIN),
    (FILTER, PLAIN),
    ("GUM, largest cosine", PLAIN),
    ("GUM, count of cosines >= 0.8", PLAIN),
    ("GUM, 1 - exact uniqueness", PLAIN),
    ("GUM, lambda_gum 4 + twin filter", "GUM, lambda_gum 4"),
    ("random + twin filter", "random"),
    ("magnitude + twin filter", "magnitude"),
    ("movement, global + twin filter", "movement, global"),
    (FILTER, CONTROL.label),
    ("greedy OBS + refit, global", FILTER),
    ("OBS, renewed", PLAIN),
)


def differences(table: pd.DataFrame) -> str:
    """Pairs of methods, paired by seed, with 95 % intervals."""
    return markdown(
        [
            {"base": base, **compared(table[table["base"] == base], *pair)}
            for base in table["base"].unique()
            for pair in PAIRS
        ]
    )


def mechanisms(table: pd.DataFrame) -> Any:
    """One panel for each suspected reason why GUM's uniqueness term does little."""
    from gumlab.course.plots.figure import new_figure

    figure, (one, two, three, four) = new_figure(4, width=16, height=4)
    planted = table[table["base"] == "tiny-twins"]
    scores = {
        row["method"]: [torch.tensor(s) for s in row["scores"]]
        for _, row in planted[planted["seed"] == 0].iterrows()
        if isinstance(row["scores"], list)
    }
    draw_dilution(one)
    draw_equal_scores(two, scores["movement, global"])
    draw_spread(three, scores)
    draw_returns(four, planted)
    return figure


def draw_dilution(ax: Any) -> None:
    """u of neurons with and without a planted twin, and what one twin adds to it."""
    from gumlab.course.plots.figure import BLUE, ORANGE

    base, tokenizer = gl.load("tiny-twins", device="cpu")
    groups = {"has a twin": [], "has none": []}
    added = []
    grams = gl.redundancy(base, tokenizer, gl.load_task("restaurants")).gram
    for gram, pairs in zip(grams, twins(), strict=True):
        everyone = torch.ones(len(gram), dtype=torch.bool)
        u = mean_similarity(gram, everyone)
        twinned = torch.zeros_like(everyone)
        twinned[pairs.flatten()] = True
        groups["has a twin"].append(u[twinned])
        groups["has none"].append(u[~twinned])
        for a, b in pairs[:40].tolist():
            without = everyone.clone()
            without[b] = False
            added.append(float(u[a] - mean_similarity(gram, without)[a]))
    largest = max(float(u.max()) for group in groups.values() for u in group)
    for (label, values), colour in zip(groups.items(), (ORANGE, BLUE), strict=True):
        bins = np.linspace(0, largest, 40)
        u = torch.cat(values).numpy()
        share = np.full(len(u), 100 / len(u))
        ax.hist(u, bins, weights=share, histtype="step", color=colour, lw=2, label=label)
    ax.set(xlabel="u, mean |cosine| with the others", ylabel="share of the group (%)")
    ax.set_title(f"1/N: one twin adds {np.median(added):.4f} to u (median)", fontsize=10)
    ax.legend(frameon=False)


def draw_equal_scores(ax: Any, scores: list[torch.Tensor]) -> None:
    """The scores of planted twins against each other, beside random partners."""
    from gumlab.course.plots.figure import GREY, ORANGE

    pairs = list(zip(scores, twins(), strict=True))
    firsts = torch.cat([of_layer[pair[:, 0]] for of_layer, pair in pairs])
    seconds = torch.cat([of_layer[pair[:, 1]] for of_layer, pair in pairs])
    order = torch.randperm(len(seconds), generator=torch.Generator().manual_seed(0))
    label = "random partners"
    ax.plot(firsts, seconds[order], "x", color=GREY, ms=3, alpha=0.5, label=label)
    ax.plot(firsts, seconds, "o", color=ORANGE, ms=3, alpha=0.7, label="twins")
    ax.set(xlabel="score of a neuron", ylabel="score of its partner")
    correlation = float(torch.corrcoef(torch.stack([firsts, seconds]))[0, 1])
    ax.set_title(f"equal scores: twins correlate {correlation:.2f} (movement)", fontsize=10)
    ax.legend(frameon=False, markerscale=2)


def draw_spread(ax: Any, scores: dict[str, list[torch.Tensor]]) -> None:
    """The scores at the end of the run for growing lambda_gum."""
    from gumlab.course.plots.figure import BLUE

    labels = {PLAIN: "0", **{f"GUM, lambda_gum {x}": str(x) for x in (1, 4, 20, 200)}}
    for row, name in enumerate(labels):
        values = np.percentile(torch.cat(scores[name]).numpy(), [5, 25, 50, 75, 95])
        ax.plot(values[[0, 4]], [row, row], "-", color=BLUE)
        ax.plot(values[[1, 3]], [row, row], "-", color=BLUE, lw=6)
        ax.plot(values[2], row, "|", color="white", ms=8)
    ax.set_yticks(range(len(labels)), list(labels.values()))
    ax.set(xlabel="score at the end (5, 25, 50, 75, 95 %)", ylabel="lambda_gum")
    ax.set_title("Adam: what is left of the penalty's scale", fontsize=10)


def draw_returns(ax: Any, runs: pd.DataFrame) -> None:
    """How often removed neurons came back, a dot for each seed."""
    from gumlab.course.plots.figure import GREEN

    names = ["movement, global", PLAIN, "GUM, lambda_gum 4", "GUM, penalty on kept neurons alone"]
    values = {name: runs[runs["method"] == name]["returned"] for name in names}
    for row, returns in enumerate(values.values()):
        ax.plot(returns, [row] * len(returns), "o", color=GREEN)
    ax.set_yticks(range(len(names)), [n.replace(", penalty on", ",\npenalty on") for n in names])
    ax.set_xscale("symlog")
    ax.set(xlabel="times a removed neuron came back", ylim=(-0.5, len(names) - 0.5))
    ax.set_xlim(0, 2 * max(max(returns) for returns in values.values()))
    ax.set_title("churn", fontsize=10)


def report(command: str, table: pd.DataFrame) -> str:
    """results/uniqueness.md."""
    parts = [
        f"# What uniqueness is worth\n\n{harness.made_by(command, table)} "
        f"{STEPS} steps of 16; +- is the standard deviation over {len(SEEDS)} seeds; loss on the "
        "test split. both, one, none: shares of the planted pairs of which so many stayed; chance "
        "is that of a random choice at the method's own layer widths. returned: how often a "
        "removed neuron came back.\n"
    ]
    for base in table["base"].unique():
        task, keep = SETTINGS[base]
        parts.append(f"## {base}, {task}, {keep:.0%} kept\n\n{summary(table, base)}")
    parts.append(f"## Differences, paired by seed, with 95 % t intervals\n\n{differences(table)}")
    return "\n".join(parts)


def main() -> None:
    args = harness.parsed(harness.grid_options(__doc__))
    bases = ["tiny-twins"] if args.quick else list(SETTINGS)
    table = harness.finished(args, "uniqueness", grids(bases), extra=more_columns)
    table = table.rename(columns={"model": "base"})
    harness.save_figure(args, "uniqueness.png", mechanisms(table))
    table = table.drop(columns=["seconds", "scores"])
    table.to_csv(args.out / "uniqueness.csv", index=False)
    harness.write(args, "uniqueness.md", report(args.command, table))


if __name__ == "__main__":
    main()
