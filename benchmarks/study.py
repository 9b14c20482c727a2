"""The paper's grid with error bars, and methods it never tried: results/study.md|png.

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
from grid import MADE_WITH, ROOT, made_by, markdown

import gumlab as gl
from gumlab.study import PAPER_METHODS, RECOMMENDED_METHOD, Method, Study
from gumlab.study.intervals import half_interval, verdict
from gumlab.study.paper import STUDY as CSV

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
    "wide, tables": part("tiny-wide", "tables", [0.5, 0.25, 0.1], [0.1]),
    "GPT-2, tables": part("tiny-gpt2", "tables", [0.25, 0.1], [0.1]),
    "GPT-Neo, E2E": part("tiny-gpt-neo", "e2e", [0.1], []),
    "twins, restaurants": part("tiny-twins", "restaurants", [0.25], []),
}  # fmt: skip


def compared(runs: pd.DataFrame, chance: pd.DataFrame) -> str:
    """A cell: the mean loss, half its 95 % interval, and an arrow where it differs from random."""
    text = f"{runs['loss'].mean():.3f} +- {half_interval(runs['loss']):.3f}"
    difference = runs.set_index("seed")["loss"] - chance.set_index("seed")["loss"]
    return text + {"lower": " ↓", "higher": " ↑"}.get(verdict(difference), "")


def losses(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One part as in the paper's Table 4: a row per method, a column per keep and distillation."""
    pruned, rows = table[table["method"] != "dense"], []
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
    table = pd.concat(tables.values(), ignore_index=True)
    if "error" in table:
        raise SystemExit(table.dropna(subset="error")[["model", "method", "error"]].to_string())
    drop = [*MADE_WITH, "scope", "lambda_gum", "floor", "neurons", "perplexity"]
    table.drop(columns=drop).to_csv(CSV, index=False, float_format="%.6g")
    main_part = table[(table["model"] == "tiny-gpt-neo") & (table["task"] == "restaurants")]
    paper_alone = main_part["method"].isin([m.label for m in PAPER_METHODS])
    shown = main_part[paper_alone & ~main_part["distilled"]]
    (ROOT / "results" / "study.png").write_bytes(gl.plots.bands(shown, "uniqueness").png())
    command = "python benchmarks/study.py --data-dir FOLDER"
    text = (
        "# The study: the paper's grid with error bars\n\n"
        f"{made_by(command)} {len(table)} runs of one thread, {table['seconds'].sum() / 3600:.1f} "
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
        text += f"## {name} (dense {head})\n\n{markdown(losses(one))}\n"
    (ROOT / "results" / "study.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
