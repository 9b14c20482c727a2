"""Pruning without training: score x refit x scope x keep x calibration set: results/one_shot.*

    python benchmarks/one_shot.py --data-dir FOLDER      # restaurants and e2e; without it no e2e

The base of restaurants is `tiny-gpt-neo` as it is; for e2e it is first fine-tuned there, dense, and
never trained again. A seed draws the 256 training examples that scores and refit see. The refit is
none, "bias" (FLAP's), or the least squares of `shrink`; the statistics are those of the dense model
(sequential=False), so that one pass serves all scores; the last table compares with sequential.
A run of the `gumlab.Study` is a calibration set: a dense run without training, whose row holds all
cuts. Stopped, it goes on with the next set.
"""

from __future__ import annotations

import copy
import random
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch

import gumlab as gl
from gumlab.collecting import Statistics, collect
from gumlab.evaluation import mean_target_loss
from gumlab.removal import refit_layer
from gumlab.scoring import DATA_SCORES, random_scores
from gumlab.study import Cell, Run
from gumlab.study.intervals import half_interval

BASE = "tiny-gpt-neo"
SEEDS = range(3)
KEEPS = (0.5, 0.25, 0.1)
EVALUATED = 200
REFITS = {"none": None, "bias": False, "weights": True}  # refit_layer's `weights`
SCOPES = {
    "layer": {},
    "global": {"scope": "global"},
    "global, standardised": {"scope": "global", "standardise": True},
}


def gated(
    model: Any, masks: list[torch.Tensor], statistics: list[Statistics], weights: bool | None
) -> Any:
    """A copy behind the masks, its outgoing weights or bias refitted from the statistics."""
    model = copy.deepcopy(model)
    if weights is not None:
        for layer, mask, seen in zip(gl.neurons(model), masks, statistics, strict=True):
            refit_layer(layer, mask, seen, weights=weights)
    gl.gate(model, masks)
    return model


def every_cut(
    done: Run, cell: Cell, data_dir: str | None, keeps: Sequence[float], evaluated: int
) -> dict[str, Any]:
    """The loss of every cut by one calibration set, as one column: a list of rows."""
    warnings.simplefilter("ignore")
    task = gl.load_task(cell.task, data_dir if cell.task == "e2e" else None)
    model, tokenizer = gl.load(cell.model, device="cpu")
    examples = (task.test or task.validation)[:evaluated]
    calibration = random.Random(cell.seed).sample(task.train, 256)

    def loss(small: Any) -> float:
        return mean_target_loss(small, tokenizer, examples)

    layers = gl.neurons(model)
    statistics = collect(model, tokenizer, calibration, gradients=True)
    scores = {
        "random": random_scores(layers, cell.seed),
        "magnitude": gl.score(model, "magnitude"),
    }
    for name, of in DATA_SCORES.items():
        scores[name] = [of(layer, seen) for layer, seen in zip(layers, statistics, strict=True)]
    rows: list[dict[str, Any]] = [{"score": "dense", "loss": loss(model)}]
    for name, values in scores.items():
        for scope, options in SCOPES.items():
            for keep in keeps:
                masks = gl.select(values, keep, **options)
                row = {"score": name, "scope": scope, "keep": keep}
                row["widths"] = [int(mask.sum()) for mask in masks]
                for refit, weights in REFITS.items():
                    small = gated(model, masks, statistics, weights)
                    rows.append({**row, "refit": refit, "loss": loss(small)})
                if name in ("random", "greedy_obs") and scope != "global, standardised":
                    small = gl.shrink(model, masks, tokenizer, calibration, refit=True)
                    rows.append({**row, "refit": "sequential", "loss": loss(small)})
    return {"cuts": rows}


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
    return harness.markdown(lines)


def at_a_quarter(runs: pd.DataFrame) -> str:
    """One line per score with a quarter kept: as cut, FLAP's bias, the refit, the global refit."""
    lines = []
    for score, mine in runs[runs["keep"] == 0.25].groupby("score", sort=False):
        line = {"score": score}
        for name, scope, refit in (
            ("as cut", "layer", "none"),
            ("bias refitted", "layer", "bias"),
            ("refitted", "layer", "weights"),
            ("refitted, one global budget", "global", "weights"),
        ):
            line[name] = cell(mine[(mine["scope"] == scope) & (mine["refit"] == refit)]["loss"])
        lines.append(line)
    return harness.markdown(lines)


def report(command: str, table: pd.DataFrame) -> str:
    """results/one_shot.md."""
    parts = [
        f"# Pruning without training\n\nBase `{BASE}`, for e2e fine-tuned there first, dense, "
        f"600 steps of 32. {harness.made_by(command)} Loss in nats per target token on "
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
    parser = harness.grid_options(__doc__, data="the E2E challenge's folder; without it no e2e")
    args = harness.parsed(parser)
    setting = {"method": "dense", "seed": SEEDS, "steps": 0, "generated": 0}
    grids = [{"model": BASE, "task": "restaurants", **setting}]
    if args.data_dir:
        grids.append({"model": harness.trained_for_e2e(args), "task": "e2e", **setting})
    keeps, evaluated = ((0.25,), 8) if args.quick else (KEEPS, EVALUATED)
    cuts = partial(every_cut, data_dir=args.data_dir, keeps=keeps, evaluated=evaluated)
    runs = harness.finished(args, "one_shot", grids, extra=cuts)
    table = pd.DataFrame(
        {"task": run.task, "seed": run.seed, **row} for run in runs.itertuples() for row in run.cuts
    )
    table.to_csv(args.out / "one_shot.csv", index=False)
    harness.write(args, "one_shot.md", report(f"{args.command} --data-dir FOLDER", table))


if __name__ == "__main__":
    main()
