"""Pruning without training: score x refit x scope x keep x calibration set: results/one_shot.*

    python benchmarks/one_shot.py --data-dir FOLDER      # restaurants and e2e; without it no e2e

The base of restaurants is `tiny-gpt-neo` as it is; for e2e it is first fine-tuned there, dense, and
never trained again. A seed draws the 256 training examples that scores and refit see. The refit is
none, "bias" (FLAP's), or the least squares of `shrink`; the statistics are those of the dense model
(sequential=False), so that one pass serves all scores; the last table compares with sequential.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from grid import ROOT, made_by, markdown

from gumlab.study.intervals import half_interval

SEEDS, KEEPS = (0, 1, 2), (0.5, 0.25, 0.1)
REFITS = {"none": None, "bias": False, "weights": True}  # refit_layer's `weights`
SCOPES = {"layer": {}, "global": {"scope": "global"},
          "global, standardised": {"scope": "global", "standardise": True}}  # fmt: skip
BASE, BASE_STEPS, EVALUATED = "tiny-gpt-neo", 600, 200


def base_of(task_name: str, task: Any, folder: Path) -> tuple[Any, Any]:
    """The dense model that is pruned, and its tokenizer."""
    import gumlab as gl

    if task_name != "e2e":
        return gl.load(BASE, device="cpu")
    if not (folder / "e2e-base").exists():
        model, tokenizer = gl.load(BASE, device="cpu")
        gl.train(model, tokenizer, task, steps=BASE_STEPS, batch_size=32, progress=False)
        gl.save(model, tokenizer, folder / "e2e-base")
    return gl.load(folder / "e2e-base", device="cpu")


def removed(model: Any, masks: list[Any], found: list[Any], weights: bool | None) -> Any:
    """A gated copy with the masks, its outgoing weights or bias refitted from the statistics."""
    import gumlab as gl
    from gumlab.removal import refit_layer

    model = copy.deepcopy(model)
    if weights is not None:
        for layer, mask, seen in zip(gl.neurons(model), masks, found, strict=True):
            refit_layer(layer, mask, seen, weights=weights)
    gl.gate(model, masks)
    return model


def one(folder: Path, task_name: str, data_dir: str | None, seed: int) -> None:
    """All cells of one task and calibration set, into one file, unless it is there."""
    path = folder / f"{task_name}-seed{seed}.json"
    if path.exists():
        return
    import torch

    import gumlab as gl
    from gumlab.collecting import collect
    from gumlab.evaluation import mean_target_loss
    from gumlab.scoring import DATA_SCORES, random_scores

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = gl.load_task(task_name, data_dir)
    model, tokenizer = base_of(task_name, task, folder)
    examples = (task.test or task.validation)[:EVALUATED]
    seen = random.Random(seed).sample(task.train, 256)
    found, layers = collect(model, tokenizer, seen, gradients=True), gl.neurons(model)
    scores = {"random": random_scores(layers, seed), "magnitude": gl.score(model, "magnitude")}
    for name, of in DATA_SCORES.items():
        scores[name] = [of(layer, f) for layer, f in zip(layers, found, strict=True)]
    rows = [{"score": "dense", "loss": mean_target_loss(model, tokenizer, examples)}]
    for name, values in scores.items():
        for scope, options in SCOPES.items():
            for keep in KEEPS:
                masks = gl.select(values, keep, **options)
                row = {"score": name, "scope": scope, "keep": keep}
                row["widths"] = [int(m.sum()) for m in masks]
                for refit, weights in REFITS.items():
                    small = removed(model, masks, found, weights)
                    loss = mean_target_loss(small, tokenizer, examples)
                    rows.append(row | {"refit": refit, "loss": loss})
                if name in ("random", "greedy_obs") and scope != "global, standardised":
                    small = gl.shrink(model, masks, tokenizer, seen, refit=True)
                    loss = mean_target_loss(small, tokenizer, examples)
                    rows.append(row | {"refit": "sequential", "loss": loss})
    rows = [{"task": task_name, "seed": seed, **row} for row in rows]
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(rows))
    os.replace(fresh, path)


def cell(losses: pd.Series) -> str:
    """Mean over the calibration sets and half its 95 % t interval."""
    return f"{losses.mean():.3f} +- {half_interval(losses):.3f}"


def pivot(table: pd.DataFrame, row: list[str], column: str) -> str:
    """A Markdown table of loss cells: one line per `row`, columns keep x `column`."""
    lines = []
    for key, mine in table.groupby(row, sort=False):
        line = dict(zip(row, key, strict=True))
        for (keep, what), losses in mine.groupby(["keep", column], sort=False)["loss"]:
            line[f"{keep:.0%}, {what}"] = cell(losses)
        lines.append(line)
    return markdown(lines)


def at_a_quarter(runs: pd.DataFrame) -> str:
    """One line per score with a quarter kept: as cut, FLAP's bias, the refit, the global refit."""
    lines = []
    for score, mine in runs[runs["keep"] == 0.25].groupby("score", sort=False):
        line = {"score": score}
        for name, scope, refit in (
            ("as cut", "layer", "none"), ("bias refitted", "layer", "bias"),
            ("refitted", "layer", "weights"), ("refitted, one global budget", "global", "weights"),
        ):  # fmt: skip
            line[name] = cell(mine[(mine["scope"] == scope) & (mine["refit"] == refit)]["loss"])
        lines.append(line)
    return markdown(lines)


def report(table: pd.DataFrame, command: str) -> str:
    """The Markdown text of all tables."""
    parts = [
        f"# Pruning without training\n\nBase `{BASE}`, for e2e fine-tuned there first, dense, "
        f"{BASE_STEPS} steps of 32. {made_by(command)} Loss in nats per target token on "
        f"{EVALUATED} examples of the test split (e2e: validation); +- is half the 95 % t interval "
        f"over {len(SEEDS)} calibration sets of 256 training examples.\n"
    ]
    for task, runs in table.groupby("task", sort=False):
        dense = runs[runs["score"] == "dense"]["loss"].mean()
        runs = runs[runs["score"] != "dense"]
        parts.append(f"## {task} (dense {dense:.3f}): 25% kept\n\n{at_a_quarter(runs)}")
        parts.append(
            f"## {task} (dense {dense:.3f}): score x refit, the same share of every layer\n"
        )
        local = runs[(runs["scope"] == "layer") & (runs["refit"] != "sequential")]
        parts.append(pivot(local, ["score"], "refit"))
        parts.append(f"## {task}: who shares the budget, with the least-squares refit\n")
        parts.append(pivot(runs[runs["refit"] == "weights"], ["score"], "scope"))
        parts.append(
            f"## {task}: statistics of the dense model, or layer by layer behind the cut\n"
        )
        mine = runs[runs["score"].isin(["random", "greedy_obs"])]
        mine = mine[mine["refit"].isin(["weights", "sequential"])]
        mine = mine[mine["scope"] != "global, standardised"]
        parts.append(pivot(mine, ["score", "scope"], "refit"))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the E2E challenge's folder; without it no e2e")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    import gumlab as gl

    folder = ROOT / "runs" / "one_shot"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = ["restaurants", *(["e2e"] if args.data_dir else [])]
    if args.data_dir:
        base_of("e2e", gl.load_task("e2e", args.data_dir), folder)
    cells = [(t, args.data_dir if t == "e2e" else None, s) for t in tasks for s in SEEDS]
    joblib.Parallel(n_jobs=args.jobs)(joblib.delayed(one)(folder, *c) for c in cells)
    rows = [
        row for t, _, s in cells for row in json.loads((folder / f"{t}-seed{s}.json").read_text())
    ]
    table = pd.DataFrame(rows)
    table.to_csv(ROOT / "results" / "one_shot.csv", index=False)
    text = report(table, "python benchmarks/one_shot.py --data-dir FOLDER")
    (ROOT / "results" / "one_shot.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
