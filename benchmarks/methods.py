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
import os
import platform
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

ROOT = Path(__file__).parents[1]
BASE, KEEP, STEPS, SEEDS, TUNING_SEED = "tiny-gpt-neo", 0.10, 300, (0, 1, 2), 100
CONTROL = "random at GUM's widths"


def methods(task: str) -> dict[str, Any]:
    """The rows of the table: the paper's methods, the controls, and the other gradient."""
    from gumlab.study import PAPER_METHODS, Method

    chosen = {m.label: m for m in PAPER_METHODS}
    chosen["GUM, lambda_gum = 0"] = Method("GUM, lambda_gum = 0", "gum", {"lambda_gum": 0.0})
    if task == "restaurants":
        gate = {"gradient": "gate"}
        chosen["movement, global, gate"] = Method(
            "movement, global, gate", "movement", {"scope": "global", **gate}
        )
        chosen["GUM, gate"] = Method("GUM, gate", "gum", gate)
    chosen[CONTROL] = Method(CONTROL, "random")
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


def run_file(folder: Path, label: str, seed: int, distilled: bool) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in label)
    return folder / f"{name}-seed{seed}{'-distilled' if distilled else ''}.json"


def one(folder: Path, task_name: str, data_dir: str | None, method: Any, seed: int, distilled: bool,
        split: str, generated: int) -> None:  # fmt: skip
    """Do one run unless its file is there; the file appears whole or not at all."""
    path = run_file(folder, method.label, seed, distilled)
    if path.exists():
        return
    import torch

    import gumlab as gl
    from gumlab.study import run

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    base, tokenizer = gl.load(BASE, device="cpu")
    task = gl.load_task(task_name, data_dir)
    dense = folder / f"dense-{seed}"
    if method.label == CONTROL:
        gum = json.loads(run_file(folder, "GUM", seed, distilled).read_text())
        method = replace(method, options={"widths": gum["widths"]})
    done = run(
        base, tokenizer, task, method, keep=KEEP, steps=STEPS, seed=seed, split=split,
        teacher=gl.load(dense, device="cpu")[0] if distilled else None,
        generated=generated, progress=False,
    )  # fmt: skip
    if method.label == "dense" and not dense.exists():
        gl.save(done.model, tokenizer, dense)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps({"task": task_name, **done.row}, default=str))
    os.replace(fresh, path)


def summary(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of each method, best loss first."""
    columns = ["keep", "parameters_kept", "loss", metric, "sensitivity", "uniqueness"]
    groups = table.groupby(["method", "distilled"])
    wide = groups[columns].agg(["mean", "std"])
    wide["seeds"] = groups.size()
    return wide.sort_values(("loss", "mean"))


def as_markdown(table: pd.DataFrame, metric: str) -> str:
    """The summary as a Markdown table; +- is the standard deviation over the seeds."""
    head = f"method distilled seeds neurons parameters loss {metric} sensitivity uniqueness".split()
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (method, distilled), row in summary(table, metric).iterrows():
        pair = {
            c: (row[(c, "mean")], row[(c, "std")])
            for c in ("loss", metric, "sensitivity", "uniqueness")
        }
        cells = [
            method,
            "yes" if distilled else "no",
            f"{int(row['seeds'].iloc[0])}",
            f"{row[('keep', 'mean')]:.1%}",
            f"{row[('parameters_kept', 'mean')]:.1%}",
            "{:.3f} +- {:.3f}".format(*pair["loss"]),
            "{:.1f} +- {:.1f}".format(*pair[metric]),
            "{:.2e} +- {:.1e}".format(*pair["sensitivity"]),
            "{:.3f} +- {:.3f}".format(*pair["uniqueness"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--data-dir")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    import gumlab as gl
    from gumlab.study import metric_of

    task = gl.load_task(args.task, args.data_dir)
    folder = ROOT / "runs" / "methods" / f"{args.task}{'-tuning' if args.tune else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    split = "validation" if args.tune or not task.test else "test"
    call = joblib.delayed(one)
    common = {"split": split, "generated": 0 if args.tune else 200}
    began = time.perf_counter()
    if args.tune:
        waves = [[(m, TUNING_SEED, False) for m in trials()]]
    else:
        chosen = methods(args.task)
        first = [(m, s, False) for s in SEEDS for m in chosen.values() if m.label != CONTROL]
        second = [(chosen[CONTROL], s, False) for s in SEEDS]
        second += [(chosen[label], s, True) for s in SEEDS for label in ("random", "GUM")]
        waves = [first, second]
    for wave in waves:
        joblib.Parallel(n_jobs=args.jobs)(
            call(folder, args.task, args.data_dir, m, s, d, **common) for m, s, d in wave
        )
    rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    table = pd.DataFrame(rows)
    name = f"{'tuning' if args.tune else 'methods'}_{args.task}"
    table.drop(columns=["seconds"]).to_csv(ROOT / "results" / f"{name}.csv", index=False)
    if args.tune:
        print(table[["method", "keep", "loss"]].to_string(index=False))
        return
    command = f"python benchmarks/methods.py {args.task}" + (
        " --data-dir FOLDER" if args.data_dir else ""
    )
    text = (
        f"# {args.task}: {KEEP:.0%} of the neurons, {STEPS} steps of 16, {split} split\n\n"
        f"Base `{BASE}`; made by `{command}` with gumlab {gl.__version__}, torch "
        f"{__import__('torch').__version__}, Python {platform.python_version()}, "
        f"{table['train_seconds'].sum() / 3600:.2f} hours of training on one core each. "
        "+- is the standard deviation over the seeds.\n\n" + as_markdown(table, metric_of(task))
    )
    (ROOT / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text, f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
