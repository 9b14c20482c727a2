"""Which recipe prunes best under one budget, beyond the paper's methods: results/recipes.csv|md.

    python benchmarks/recipes.py --data-dir FOLDER          # restaurants, tables, and e2e
    python benchmarks/recipes.py --tune                     # the knobs, on the validation split

Every recipe gets the same base, training steps, batches (by seed) and optimiser. One-shot recipes
are scored and refitted on 256 training examples (drawn by the seed) before the first step, or "cut
at half": after half of the steps, which train the whole model. "at its widths": the control that
keeps as many neurons of each layer as the run named, but random ones, with the same refit.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd
from grid import ROOT, Job, made_by, markdown, pair_text, perform_all

from gumlab.study.intervals import compared

BASE, STEPS, SEEDS, TUNING_SEED = "tiny-gpt-neo", 200, (0, 1, 2), 100
KEEPS, TASKS = (0.5, 0.25, 0.1, 0.05), ("restaurants", "tables", "e2e")
KNOWN = str(ROOT / "runs" / "one_shot" / "e2e-base")  # trained for e2e before
GREEDY, FILTER = "greedy OBS + refit, global", "plain L1 + twin filter"
CONTROL = "random + refit, at greedy OBS's widths"
LATE = "greedy OBS + refit, global, cut at half"
LATE_CONTROL = "random + refit, at its widths, cut at half"
MAIN = ("random", "GUM", FILTER, GREEDY, LATE)


def recipes() -> dict[str, Any]:
    """The recipes that need no other run, by label."""
    from gumlab.study import Method

    chosen = [
        Method("random", "random"),
        Method("GUM", "gum"),
        Method("plain L1", "gum", {"lambda_gum": 0.0}),
        Method(FILTER, "gum", {"lambda_gum": 0.0, "twin_filter": 0.8}),
        Method("OBS, renewed", "obs"),
        Method("random + refit, uniform", "random", one_shot=True),
        Method("greedy OBS + refit, uniform", "greedy_obs", one_shot=True),
        Method(GREEDY, "greedy_obs", {"scope": "global", "floor": 10}, one_shot=True),
        Method(LATE, "greedy_obs", {"scope": "global", "floor": 10}, one_shot=True, cut_at=0.5),
    ]
    return {method.label: method for method in chosen}


def trials() -> list[Any]:
    """Four settings for each new recipe with knobs; those of plain L1 and GUM are in methods.py."""
    from gumlab.study import Method

    found = [
        Method(f"{FILTER} at {t}", "gum", {"lambda_gum": 0.0, "twin_filter": t})
        for t in (0.6, 0.7, 0.8, 0.9)
    ]
    found += [
        Method(f"OBS, renewed {json.dumps(o)}", "obs", o)
        for o in (
            {},
            {"gram_memory": 0.5},
            {"scope": "layer"},
            {"gram_every": 4, "gram_tokens": 0.5, "gram_memory": 0.8},
        )
    ]
    found += [
        Method(f"{GREEDY}, floor {f}", "greedy_obs", {"scope": "global", "floor": f}, one_shot=True)
        for f in (1, 10, 25)
    ]
    found.append(Method("greedy OBS + refit, uniform", "greedy_obs", one_shot=True))
    return found


def waves(tasks: tuple[str, ...]) -> list[list[Job]]:
    """The dense runs, then the recipes, then what needs either of them, for each fraction kept.

    With 10 % kept every recipe, and some distilled; with 25 % the main ones, with 50 and 5 % fewer.
    For e2e the main ones also from a base that was trained for e2e before (`one_shot.base_of`).
    """
    from gumlab.study import Method

    chosen = recipes()
    early = Method(CONTROL, "random", one_shot=True)
    late = Method(LATE_CONTROL, "random", one_shot=True, cut_at=0.5)

    def jobs(labels: Any, keep: float, base: str = BASE, **more: Any) -> list[Job]:
        """The recipes of these labels, or one control, for every task and seed."""
        ran = [labels] if isinstance(labels, Method) else [chosen[label] for label in labels]
        here = tasks if base == BASE else ("e2e",)
        return [
            Job(base, t, m, keep, s, STEPS, generated=100, **more)
            for t in here
            for s in SEEDS
            for m in ran
        ]

    found = [jobs(Method("dense"), 1.0), jobs(chosen, 0.1), jobs(early, 0.1, widths_of=GREEDY)]
    found[-1] += jobs(late, 0.1, widths_of=LATE)
    found[-1] += jobs(("random", FILTER, GREEDY, LATE), 0.1, distilled=True)
    if "e2e" in tasks:
        found.append(jobs(Method("dense"), 1.0, KNOWN))
        for keep in (0.1, 0.25):
            found[-1] += jobs(("random", "GUM", FILTER, GREEDY), keep, KNOWN)
        found.append([j for k in (0.1, 0.25) for j in jobs(early, k, KNOWN, widths_of=GREEDY)])
    found += [jobs(MAIN, 0.25), jobs(early, 0.25, widths_of=GREEDY)]
    found += [jobs(("random", "GUM", GREEDY), keep) for keep in (0.05, 0.5)]
    return found


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
                row[f"{keep:.0%}"] = pair_text(cell) if len(cell) else ""
            rows.append(row)
        parts.append(f"## {task}, base {base} (dense {pair_text(dense)})\n\n{markdown(rows)}")
    return "\n".join(parts)


COMPARED = (
    (GREEDY, CONTROL), (GREEDY, "random + refit, uniform"), (GREEDY, "GUM"),
    (GREEDY, "greedy OBS + refit, uniform"), (FILTER, "plain L1"), ("GUM", "plain L1"),
    ("random + refit, uniform", "random"), ("OBS, renewed", "GUM"), (LATE, "GUM"),
    (LATE, FILTER), (LATE, GREEDY), (LATE, LATE_CONTROL),
)  # fmt: skip


def differences(table: pd.DataFrame) -> str:
    """Pairs of recipes, not distilled, paired by seed, with 95 % intervals."""
    runs = table[~table["distilled"] & (table["method"] != "dense")]
    return markdown(
        [
            {"base": base, "task": task, "kept": f"{keep:.0%}", **compared(mine, *pair)}
            for (base, task, keep), mine in runs.groupby(["base", "task", "asked"], sort=False)
            for pair in COMPARED
            if set(pair) <= set(mine["method"])
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the E2E challenge's folder; without it no e2e")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    if args.tune:
        jobs = [
            Job(BASE, "restaurants", m, 0.1, TUNING_SEED, STEPS, split="validation", generated=0)
            for m in trials()
        ]
        table = perform_all(ROOT / "runs" / "recipes-tuning", [jobs], workers=args.jobs)
        columns = ["method", "asked", "seed", "steps", "split", "keep", "loss", "widths"]
        table[columns].to_csv(ROOT / "results" / "recipes_tuning.csv", index=False)
        print(table[["method", "keep", "loss", "widths"]].to_string(index=False))
        return
    tasks = TASKS if args.data_dir else TASKS[:2]
    table = perform_all(ROOT / "runs" / "recipes", waves(tasks), args.data_dir, workers=args.jobs)
    table.drop(columns=["seconds"]).to_csv(ROOT / "results" / "recipes.csv", index=False)
    command = "python benchmarks/recipes.py --data-dir FOLDER"
    text = (
        f"# Recipes under one budget: {STEPS} steps of 16\n\n"
        f"Base `{BASE}`; loss on the test split (e2e: validation), in nats per target token. "
        f"{made_by(command, table)} +- is the standard deviation over the seeds.\n\n"
        f"{summary(table)}\n## Differences, paired by seed, with 95 % t intervals\n\n"
        f"{differences(table)}"
    )
    (ROOT / "results" / "recipes.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
