"""All methods of the paper and the controls at one budget, several seeds: results/methods_*.csv|md.

    python benchmarks/quality/methods.py restaurants
    python benchmarks/quality/methods.py e2e --data-dir FOLDER
    python benchmarks/quality/methods.py restaurants --tune     # the knobs, on the validation split

All methods get the same base, steps, batches (by seed) and optimiser; widths of the control "random
at GUM's widths" are those of the GUM run with the same seed. The teacher is the dense run of that
seed. A `gumlab.Study` in runs/: stopped, it goes on where it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
from harness import mean_text

import gumlab as gl
from gumlab.study import PAPER_METHODS, Method, metric_of

BASE = "tiny-gpt-neo"
KEEP = 0.10
STEPS = 300
SEEDS = range(3)
TUNING_SEED = 100
CONTROL = Method("random at GUM's widths", "random")
GATE = {"gradient": "gate"}
OTHER_GRADIENT = (
    Method("movement, global, gate", "movement", {"scope": "global", **GATE}),
    Method("GUM, gate", "gum", GATE),
)


def grids(task: str) -> list[dict[str, Any]]:
    """The paper's methods, the controls, the other gradient, and two with a teacher."""
    setting = {"model": BASE, "task": task, "keep": KEEP, "seed": SEEDS, "steps": STEPS}
    chosen = [*PAPER_METHODS, Method("GUM, lambda_gum = 0", "gum", {"lambda_gum": 0.0})]
    if task == "restaurants":
        chosen += OTHER_GRADIENT
    taught = [method for method in chosen if method.label in ("random", "GUM")]
    return [
        {**setting, "method": chosen},
        {**setting, "method": CONTROL, "widths_of": "GUM"},
        {**setting, "method": taught, "distil": True},
    ]


def trials() -> list[Method]:
    """Four settings for each method that has knobs, the same number for each."""
    both = ("gate", "neuron")
    settings = {
        ("movement, local", "movement"): [
            {"gradient": gradient, "freeze": freeze}
            for gradient in both
            for freeze in (True, False)
        ],
        ("movement, global", "movement"): [
            {"gradient": gradient, "floor": floor, "scope": "global"}
            for gradient in both
            for floor in (1, 10)
        ],
        ("soft movement", "soft_movement"): [{"score_lr": lr} for lr in (0.01, 0.03, 0.1, 0.3)],
        ("GUM", "gum"): [{"penalty": penalty} for penalty in (0.03, 0.1, 0.3, 1.0)],
    }
    return [
        Method(f"{label} {json.dumps(knobs)}", name, knobs)
        for (label, name), choices in settings.items()
        for knobs in choices
    ]


def summary(table: pd.DataFrame, metric: str) -> str:
    """Mean and standard deviation over the seeds of each method, best loss first."""
    rows = []
    for (method, distilled), runs in table.groupby(["method", "distilled"]):
        row = {
            "method": method,
            "distilled": "yes" if distilled else "no",
            "seeds": len(runs),
            "neurons": f"{runs['keep'].mean():.1%}",
            "parameters": f"{runs['parameters_kept'].mean():.1%}",
            "loss": mean_text(runs["loss"]),
            metric: mean_text(runs[metric], ".1f"),
            "sensitivity": f"{runs['sensitivity'].mean():.2e} +- {runs['sensitivity'].std():.1e}",
            "uniqueness": mean_text(runs["uniqueness"]),
        }
        rows.append((runs["loss"].mean(), row))
    return harness.markdown([row for _, row in sorted(rows, key=lambda pair: pair[0])])


def report(command: str, table: pd.DataFrame, task: str, metric: str) -> str:
    """results/methods_TASK.md."""
    return (
        f"# {task}: {KEEP:.0%} of the neurons, {STEPS} steps of 16, {table['split'].iloc[0]} "
        f"split\n\nBase `{BASE}`. {harness.made_by(command, table)} "
        f"+- is the standard deviation over the seeds.\n\n{summary(table, metric)}"
    )


def main() -> None:
    parser = harness.grid_options(__doc__, data="the folder of a real task's files")
    parser.add_argument("task", nargs="?", default="restaurants")
    parser.add_argument("--tune", action="store_true", help="the knobs, on the validation split")
    args = harness.parsed(parser)
    todo = grids(args.task)
    if args.tune:
        tuning = {"method": trials(), "seed": TUNING_SEED, "split": "validation", "generated": 0}
        todo = [{"model": BASE, "task": args.task, "keep": KEEP, "steps": STEPS, **tuning}]
    table = harness.finished(args, "tuning" if args.tune else "methods", todo)
    name = f"{'tuning' if args.tune else 'methods'}_{args.task}"
    table.drop(columns=["seconds"]).to_csv(args.out / f"{name}.csv", index=False)
    if args.tune:
        print(table[["method", "keep", "loss"]].to_string(index=False))
        return
    metric = metric_of(gl.load_task(args.task, args.data_dir))
    command = f"{args.command} {args.task}" + " --data-dir FOLDER" * bool(args.data_dir)
    harness.write(args, f"{name}.md", report(command, table, args.task, metric))


if __name__ == "__main__":
    main()
