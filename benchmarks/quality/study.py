"""The paper's grid with error bars, and methods it never tried: results/study.md|png.

    python benchmarks/quality/study.py --data-dir FOLDER    # E2E's; without it no e2e

One `gumlab.Study` in five parts, a base and a task each: two GPT-Neo-shaped ones (one of them on
real data), a GPT-2-shaped one and the two redundant bases. Every run of a part gets the same base,
200 steps of 8 examples, batches and dropout (by seed), and optimiser. The knobs are the defaults;
they were chosen on validation, four trials a method, by `methods.py --tune` and `recipes.py --tune`
(results/tuning_restaurants.csv and recipes_tuning.csv). The first part is the whole grid; the
others hold what can change a claim of the paper there. Stopped, it goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd

import gumlab as gl
from gumlab.study import PAPER_METHODS, Method
from gumlab.study.intervals import half_interval, verdict
from gumlab.study.paper import STUDY

ONE_SHOT = Method("greedy OBS + refit, global", "greedy_obs", {"scope": "global"}, one_shot=True)
METHODS = (*PAPER_METHODS[1:], ONE_SHOT)
REFITTED = tuple(
    Method(f"{name} + refit", name, {"scope": "global", "floor": 10}, one_shot=True)
    for name in ("activation_norm", "wanda")
)
PLAIN = Method("GUM, lambda_gum 0", "gum", {"lambda_gum": 0.0})
CONTROLS = {  # random neurons at the widths of another method's run, for what chose the neurons
    "GUM": Method("random at GUM's widths", "random"),
    ONE_SHOT.label: Method("random + refit, at greedy OBS's widths", "random", one_shot=True),
}
SAME = {"seed": range(3), "steps": 200, "batch_size": 8, "generated": 100}
ALL = [0.75, 0.5, 0.25, 0.1]


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
    "GPT-Neo, restaurants": part("tiny-gpt-neo", "restaurants", ALL, ALL),
    "wide, tables": part("tiny-wide", "tables", [0.5, 0.25, 0.1], [0.1]),
    "GPT-2, tables": part("tiny-gpt2", "tables", [0.25, 0.1], [0.1]),
    "GPT-Neo, E2E": part("tiny-gpt-neo", "e2e", [0.1], []),
    "twins, restaurants": part("tiny-twins", "restaurants", [0.25], []),
}
QUICK = {"GPT-Neo, restaurants": part("tiny-gpt-neo", "restaurants", [0.25], [])}


def compared(runs: pd.DataFrame, chance: pd.DataFrame) -> str:
    """A cell: the mean loss, half its 95 % interval, and an arrow where it differs from random."""
    text = f"{runs['loss'].mean():.3f} +- {half_interval(runs['loss']):.3f}"
    difference = runs.set_index("seed")["loss"] - chance.set_index("seed")["loss"]
    return text + {"lower": " ↓", "higher": " ↑"}.get(verdict(difference), "")


def losses(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One part as in the paper's Table 4: a row per method, a column per keep and distillation."""
    pruned = table[table["method"] != "dense"]
    rows = []
    columns = {*zip(pruned["asked"], pruned["distilled"], strict=True)}
    for method, mine in pruned.groupby("method", sort=False):
        row = {"method": method}
        for keep, distilled in sorted(columns, key=lambda column: (-column[0], column[1])):
            here = pruned[(pruned["asked"] == keep) & (pruned["distilled"] == distilled)]
            runs = here[here["method"] == method]
            name = f"{keep:.0%}" + " + distil" * distilled
            row[name] = compared(runs, here[here["method"] == "random"]) if len(runs) else ""
        best = mine[~mine["distilled"] & (mine["asked"] == pruned["asked"].min())]
        metric = "bleu" if mine["bleu"].notna().all() else "execution"
        row[metric] = f"{best[metric].mean():.1f}" if len(best) else ""
        rows.append(row)
    return rows


def report(command: str, tables: dict[str, pd.DataFrame]) -> str:
    """results/study.md, from a table for each part."""
    table = pd.concat(tables.values(), ignore_index=True)
    text = (
        "# The study: the paper's grid with error bars\n\n"
        f"{harness.made_by(command)} {len(table)} runs of one thread, "
        f"{table['seconds'].sum() / 3600:.1f} "
        f"hours in all; {table['steps'].iloc[0]} steps of {table['batch_size'].iloc[0]} examples, "
        f"{table['seed'].nunique()} seeds. Loss on the test split (e2e: validation), in nats per "
        "target token, with half its 95 % t interval; an arrow where it differs from random's at "
        "equal seeds, beyond the 95 % interval of the paired difference (no arrow: no difference "
        "shown). bleu, execution (%): with the fewest kept, not distilled. Every run: "
        "`gumlab/assets/study.csv`, or `gumlab.paper.study()`.\n\n![](study.png)\n\n"
    )
    for name, one in tables.items():
        one = one.reindex(columns=table.columns)
        dense = one[one["method"] == "dense"]["loss"]
        head = f"{dense.mean():.3f} +- {half_interval(dense):.3f}"
        text += f"## {name} (dense {head})\n\n{harness.markdown(losses(one))}\n"
    return text


def main() -> None:
    parser = harness.grid_options(__doc__, data="the E2E challenge's folder; without it no e2e")
    args = harness.parsed(parser)
    parts = QUICK if args.quick else PARTS
    tables = {}
    for name, grids in parts.items():
        if grids[0]["task"] != "e2e" or args.data_dir:
            print(name, flush=True)
            tables[name] = harness.finished(args, "study", grids)
    table = pd.concat(tables.values(), ignore_index=True)
    path = args.out / STUDY.name if args.quick else STUDY
    table.drop(columns=["neurons", "perplexity"]).to_csv(path, index=False, float_format="%.6g")
    first = table[(table["model"] == "tiny-gpt-neo") & (table["task"] == "restaurants")]
    by_the_paper = first["method"].isin([method.label for method in PAPER_METHODS])
    shown = first[by_the_paper & ~first["distilled"]]
    (args.out / "study.png").write_bytes(gl.plots.bands(shown, "uniqueness").png())
    harness.write(args, "study.md", report(f"{args.command} --data-dir FOLDER", tables))


if __name__ == "__main__":
    main()
