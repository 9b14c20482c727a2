"""The paper's grid with error bars, and methods it never tried: results/study.csv|md|png.

    python benchmarks/study.py --data-dir FOLDER     # the E2E challenge's folder; without it no e2e

One `gumlab.Study` in five parts, a base and a task each: two GPT-Neo-shaped ones (one of them on
real data), a GPT-2-shaped one and the two redundant bases. Every run of a part gets the same base,
200 steps of 8 examples, batches and dropout (by seed), and optimiser. The knobs are the defaults;
they were chosen on validation, four trials a method, by `methods.py --tune` and `recipes.py --tune`
(results/tuning_restaurants.csv and recipes_tuning.csv). The first part is the whole grid; the
others hold what can change a claim of the paper there. Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from grid import ROOT, made_by, markdown, pair_text

from gumlab.intervals import half_interval, paired, verdict
from gumlab.study import PAPER_METHODS, RECOMMENDED_METHOD, Method, Study

FOLDER = ROOT / "runs" / "study"
METHODS = (*PAPER_METHODS[1:], RECOMMENDED_METHOD)
REFITTED = tuple(
    Method(f"{name} + refit", name, {"scope": "global", "floor": 10}, one_shot=True)
    for name in ("activation_norm", "wanda")
)
PLAIN = Method("GUM, lambda_gum 0", "gum", {"lambda_gum": 0.0})
CONTROLS = {  # random neurons at the widths of another method's run, for what chose the neurons
    "GUM": Method("random at GUM's widths", "random"),
    "recommended": Method("random + refit at recommended's widths", "random", one_shot=True),
}
SAME = {"seed": range(3), "steps": 200, "batch_size": 8, "generated": 100}
BOTH = [False, True]


def part(model: str, task: str, full: list[float], distilled: list[float]) -> list[dict[str, Any]]:
    """A base and a task: all methods at the budgets `full`, those with a teacher at `distilled`."""
    setting = {"model": model, "task": task, **SAME}
    fewest = min(full)
    grids: list[dict[str, Any]] = [
        {**setting, "method": "dense"},
        {**setting, "method": METHODS, "keep": fewest},
        {**setting, "method": METHODS, "keep": distilled, "distil": True},
        {**setting, "method": METHODS, "keep": full},
        {**setting, "method": [PLAIN, *REFITTED], "keep": fewest},
    ]
    for label, control in CONTROLS.items():
        grids.append({**setting, "method": control, "keep": fewest, "widths_of": label})
    return grids


PARTS = {
    "GPT-Neo, restaurants": part("tiny-gpt-neo", "restaurants", [0.75, 0.5, 0.25, 0.1],
                                 [0.75, 0.5, 0.25, 0.1]),
    "GPT-2, tables": part("tiny-gpt2", "tables", [0.5, 0.25, 0.1], [0.1]),
    "wide, tables": part("tiny-wide", "tables", [0.5, 0.25, 0.1], [0.1]),
    "twins, restaurants": part("tiny-twins", "restaurants", [0.5, 0.25], [0.25]),
    "GPT-Neo, E2E": part("tiny-gpt-neo", "e2e", [0.25, 0.1], [0.1]),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the E2E challenge's folder; without it no e2e")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    parts = {k: v for k, v in PARTS.items() if args.data_dir or v[0]["task"] != "e2e"}
    tables = {}
    for name, grids in parts.items():
        print(name, flush=True)
        study = Study(grids, FOLDER, data_dir=args.data_dir).run(args.jobs, threads=1)
        tables[name] = study.table()


if __name__ == "__main__":
    main()
