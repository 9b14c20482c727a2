"""Which recipe prunes best under one budget, beyond the paper's methods: results/recipes.csv|md.

    python benchmarks/quality/recipes.py --data-dir FOLDER    # restaurants, tables, and e2e
    python benchmarks/quality/recipes.py --tune               # the knobs, on the validation split

Every recipe gets the same base, training steps, batches (by seed) and optimiser. One-shot recipes
are scored and refitted on 256 training examples (drawn by the seed) before the first step, or "cut
at half": after half of the steps, which train the whole model. "at its widths": the control that
keeps as many neurons of each layer as the run named, but random ones, with the same refit. A
`gumlab.Study` in runs/: stopped, it goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
from harness import mean_text

from gumlab.study import Method
from gumlab.study.intervals import compared

BASE = "tiny-gpt-neo"
STEPS = 200
SEEDS = range(3)
TUNING_SEED = 100
KEEPS = (0.5, 0.25, 0.1, 0.05)
FILTER = "plain L1 + twin filter"
GREEDY = "greedy OBS + refit, global"
LATE = "greedy OBS + refit, global, cut at half"
MAIN = ("random", "GUM", FILTER, GREEDY, LATE)
CONTROL = Method("random + refit, at greedy OBS's widths", "random", one_shot=True)
LATE_CONTROL = Method(
    "random + refit, at its widths, cut at half", "random", one_shot=True, cut_at=0.5
)
EVERYWHERE = {"scope": "global", "floor": 10}
RECIPES = {
    method.label: method
    for method in (
        Method("random", "random"),
        Method("GUM", "gum"),
        Method("plain L1", "gum", {"lambda_gum": 0.0}),
        Method(FILTER, "gum", {"lambda_gum": 0.0, "twin_filter": 0.8}),
        Method("OBS, renewed", "obs"),
        Method("random + refit, uniform", "random", one_shot=True),
        Method("greedy OBS + refit, uniform", "greedy_obs", one_shot=True),
        Method(GREEDY, "greedy_obs", EVERYWHERE, one_shot=True),
        Method(LATE, "greedy_obs", EVERYWHERE, one_shot=True, cut_at=0.5),
    )
}


def trials() -> list[Method]:
    """Four settings for each new recipe with knobs; those of plain L1 and GUM are in methods.py."""
    filters = [
        Method(f"{FILTER} at {threshold}", "gum", {"lambda_gum": 0.0, "twin_filter": threshold})
        for threshold in (0.6, 0.7, 0.8, 0.9)
    ]
    renewed = [
        Method(f"OBS, renewed {json.dumps(knobs)}", "obs", knobs)
        for knobs in (
            {},
            {"gram_memory": 0.5},
            {"scope": "layer"},
            {"gram_every": 4, "gram_tokens": 0.5, "gram_memory": 0.8},
        )
    ]
    floors = [
        Method(f"{GREEDY}, floor {floor}", "greedy_obs", {**EVERYWHERE, "floor": floor}, True)
        for floor in (1, 10, 25)
    ]
    return [*filters, *renewed, *floors, RECIPES["greedy OBS + refit, uniform"]]


def grids(tasks: Sequence[str], known: str | None = None) -> list[dict[str, Any]]:
    """The dense runs, the recipes, and what takes its widths from them, for each fraction kept.

    With 10 % kept every recipe, and some distilled; with 25 % the main ones, with 50 and 5 % fewer.
    For e2e the main ones also from a base that was trained for e2e before, the folder `known`.
    """
    shared = {"seed": SEEDS, "steps": STEPS, "generated": 100}
    setting = {"model": BASE, "task": list(tasks), **shared}
    early = {"method": CONTROL, "widths_of": GREEDY}
    late = {"method": LATE_CONTROL, "widths_of": LATE}
    todo = [
        {**setting, "method": "dense"},
        {**setting, "method": chosen(*RECIPES), "keep": 0.1},
        {**setting, **early, "keep": 0.1},
        {**setting, **late, "keep": 0.1},
        {**setting, "method": chosen("random", FILTER, GREEDY, LATE), "keep": 0.1, "distil": True},
    ]
    if known is not None:
        trained = {"model": known, "task": "e2e", **shared, "keep": [0.1, 0.25]}
        todo += [
            {**trained, "method": "dense"},
            {**trained, "method": chosen("random", "GUM", FILTER, GREEDY)},
            {**trained, **early},
        ]
    todo += [
        {**setting, "method": chosen(*MAIN), "keep": 0.25},
        {**setting, **early, "keep": 0.25},
        {**setting, "method": chosen("random", "GUM", GREEDY), "keep": [0.05, 0.5]},
    ]
    return todo


def chosen(*labels: str) -> list[Method]:
    """The recipes of these labels."""
    return [RECIPES[label] for label in labels]


def summary(table: pd.DataFrame) -> str:
    """One Markdown table per task: mean loss and standard deviation over the seeds, by keep."""
    parts = []
    for (base, task), runs in table.groupby(["base", "task"], sort=False):
        dense = runs[runs["method"] == "dense"]["loss"]
        rows = []
        pruned = runs[runs["method"] != "dense"]
        for (method, distilled), mine in pruned.groupby(["method", "distilled"], sort=False):
            row = {"recipe": method, "distilled": "yes" if distilled else "no"}
            for keep in KEEPS:
                cell = mine[mine["asked"] == keep]["loss"]
                row[f"{keep:.0%}"] = mean_text(cell) if len(cell) else ""
            rows.append(row)
        parts.append(
            f"## {task}, base {base} (dense {mean_text(dense)})\n\n{harness.markdown(rows)}"
        )
    return "\n".join(parts)


COMPARED = (
    (GREEDY, CONTROL.label),
    (GREEDY, "random + refit, uniform"),
    (GREEDY, "GUM"),
    (GREEDY, "greedy OBS + refit, uniform"),
    (FILTER, "plain L1"),
    ("GUM", "plain L1"),
    ("random + refit, uniform", "random"),
    ("OBS, renewed", "GUM"),
    (LATE, "GUM"),
    (LATE, FILTER),
    (LATE, GREEDY),
    (LATE, LATE_CONTROL.label),
)


def differences(table: pd.DataFrame) -> str:
    """Pairs of recipes, not distilled, paired by seed, with 95 % intervals."""
    runs = table[~table["distilled"] & (table["method"] != "dense")]
    return harness.markdown(
        [
            {"base": base, "task": task, "kept": f"{keep:.0%}", **compared(mine, *pair)}
            for (base, task, keep), mine in runs.groupby(["base", "task", "asked"], sort=False)
            for pair in COMPARED
            if set(pair) <= set(mine["method"])
        ]
    )


def report(command: str, table: pd.DataFrame) -> str:
    """results/recipes.md."""
    return (
        f"# Recipes under one budget: {STEPS} steps of 16\n\n"
        f"Base `{BASE}`; loss on the test split (e2e: validation), in nats per target token. "
        f"{harness.made_by(command, table)} +- is the standard deviation over the seeds.\n\n"
        f"{summary(table)}\n## Differences, paired by seed, with 95 % t intervals\n\n"
        f"{differences(table)}"
    )


def main() -> None:
    parser = harness.grid_options(__doc__, data="the E2E challenge's folder; without it no e2e")
    parser.add_argument("--tune", action="store_true", help="the knobs, on the validation split")
    args = harness.parsed(parser)
    if args.tune:
        tuning = {"method": trials(), "seed": TUNING_SEED, "split": "validation", "generated": 0}
        todo = {"model": BASE, "task": "restaurants", "keep": 0.1, "steps": STEPS, **tuning}
        table = harness.finished(args, "recipes-tuning", [todo])
        columns = ["method", "asked", "seed", "steps", "split", "keep", "loss", "widths"]
        table[columns].to_csv(args.out / "recipes_tuning.csv", index=False)
        print(table[["method", "keep", "loss", "widths"]].to_string(index=False))
        return
    tasks = ["restaurants"] if args.quick else ["restaurants", "tables"]
    known = None
    if args.data_dir:
        tasks.append("e2e")
        known = harness.trained_for_e2e(args)
    table = harness.finished(args, "recipes", grids(tasks, known)).rename(columns={"model": "base"})
    table.drop(columns=["seconds"]).to_csv(args.out / "recipes.csv", index=False)
    harness.write(args, "recipes.md", report(f"{args.command} --data-dir FOLDER", table))


if __name__ == "__main__":
    main()
