"""All methods of the paper and the controls at one budget, several seeds: results/methods_*.csv|md.

    python benchmarks/methods.py restaurants
    python benchmarks/methods.py e2e --data-dir FOLDER
    python benchmarks/methods.py restaurants --tune     # the knobs, on the validation split

Every run is one JSON file under runs/, so a run that was stopped goes on where it was. All methods
get the same base, steps, batches (by seed) and optimiser; widths of the control "random at GUM's
widths" are those of the GUM run with the same seed. The teacher is the dense run of that seed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd
from grid import ROOT, Job, made_by, markdown, pair_text, perform_all

BASE, KEEP, STEPS, SEEDS, TUNING_SEED = "tiny-gpt-neo", 0.10, 300, (0, 1, 2), 100
CONTROL = "random at GUM's widths"


def methods(task: str) -> list[Any]:
    """The rows of the table: the paper's methods, a control, and the other gradient."""
    from gumlab.study import PAPER_METHODS, Method

    chosen = [*PAPER_METHODS, Method("GUM, lambda_gum = 0", "gum", {"lambda_gum": 0.0})]
    if task == "restaurants":
        gate = {"gradient": "gate"}
        chosen.append(Method("movement, global, gate", "movement", {"scope": "global", **gate}))
        chosen.append(Method("GUM, gate", "gum", gate))
    return chosen


def trials() -> list[Any]:
    """Four settings for each method that has knobs, the same number for each."""
    from gumlab.study import Method

    both = ("gate", "neuron")
    grid = {
        ("movement, local", "movement"): [
            {"gradient": g, "freeze": f} for g in both for f in (True, False)
        ],
        ("movement, global", "movement"): [
            {"gradient": g, "floor": f, "scope": "global"} for g in both for f in (1, 10)
        ],
        ("soft movement", "soft_movement"): [{"score_lr": lr} for lr in (0.01, 0.03, 0.1, 0.3)],
        ("GUM", "gum"): [{"penalty": p} for p in (0.03, 0.1, 0.3, 1.0)],
    }
    return [
        Method(f"{label} {json.dumps(options)}", name, options)
        for (label, name), settings in grid.items()
        for options in settings
    ]


def waves(task: str) -> list[list[Job]]:
    """First what needs nothing, then what needs GUM's widths or the dense run as teacher."""
    from gumlab.study import Method

    def job(method: Any, seed: int, **more: Any) -> Job:
        return Job(BASE, task, method, KEEP, seed, STEPS, **more)

    chosen = methods(task)
    first = [job(m, s) for s in SEEDS for m in chosen]
    second = [job(Method(CONTROL, "random"), s, widths_of="GUM") for s in SEEDS]
    taught = [m for m in chosen if m.label in ("random", "GUM")]
    second += [job(m, s, distilled=True) for s in SEEDS for m in taught]
    return [first, second]


def summary(table: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds of each method, best loss first."""
    rows = []
    for (method, distilled), runs in table.groupby(["method", "distilled"]):
        row = {
            "method": method,
            "distilled": "yes" if distilled else "no",
            "seeds": len(runs),
            "neurons": f"{runs['keep'].mean():.1%}",
            "parameters": f"{runs['parameters_kept'].mean():.1%}",
            "loss": pair_text(runs["loss"]),
            metric: pair_text(runs[metric], ".1f"),
            "sensitivity": f"{runs['sensitivity'].mean():.2e} +- {runs['sensitivity'].std():.1e}",
            "uniqueness": pair_text(runs["uniqueness"]),
        }
        rows.append((runs["loss"].mean(), row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?", default="restaurants")
    parser.add_argument("--data-dir")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    import gumlab as gl
    from gumlab.study import metric_of

    todo = waves(args.task)
    if args.tune:
        todo = [
            [
                Job(BASE, args.task, m, KEEP, TUNING_SEED, STEPS, split="validation", generated=0)
                for m in trials()
            ]
        ]
    folder = ROOT / "runs" / ("tuning" if args.tune else "methods")
    table = perform_all(folder, todo, args.data_dir, workers=args.jobs)
    name = f"{'tuning' if args.tune else 'methods'}_{args.task}"
    table.drop(columns=["seconds"]).to_csv(ROOT / "results" / f"{name}.csv", index=False)
    if args.tune:
        print(table[["method", "keep", "loss"]].to_string(index=False))
        return
    task = gl.load_task(args.task, args.data_dir)
    command = f"python benchmarks/methods.py {args.task}"
    command += " --data-dir FOLDER" if args.data_dir else ""
    text = (
        f"# {args.task}: {KEEP:.0%} of the neurons, {STEPS} steps of 16, "
        f"{table['split'].iloc[0]} split\n\n"
        f"Base `{BASE}`. {made_by(command, table)} "
        "+- is the standard deviation over the seeds.\n\n"
        + markdown(summary(table, metric_of(task)))
    )
    (ROOT / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
