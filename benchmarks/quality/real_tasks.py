"""Real WikiSQL and MTS-Dialog through the whole lifecycle: results/real_tasks.csv|md.

    python benchmarks/quality/real_tasks.py --data-dir FOLDER    # with wikisql and mts_dialog in it

A built-in model is fine-tuned on each task's train split; from there every method gets the same
steps, batches (by seed) and optimiser to keep a quarter of the neurons, is shrunk, evaluated on
the validation split (the test splits are left alone), saved, and loaded back. One thread a run.

It is no `gumlab.Study`: that loads a task whole, by its name, and these are drawn from and cut to
what fits the model. Each run is a file all the same; stopped, it goes on where it was.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch
from harness import mean_text

import gumlab as gl
from gumlab.evaluation import generate, mean_target_loss
from gumlab.study import Method, run
from gumlab.study.intervals import compared
from gumlab.tasks.batches import tokens_of

BASE = "tiny-gpt-neo"
KEEP = 0.25
STEPS = 100
BATCH = 16
SEEDS = range(3)
FOLDERS = {"wikisql": "wikisql", "samsum": "mts_dialog"}  # task -> its folder
BASE_STEPS = {"wikisql": 1500, "samsum": 300}
TRAIN, VALIDATION = 40_000, 200  # examples, drawn once by a fixed seed
GENERATED = 100
ONE_SHOT = Method("greedy OBS + refit, global", "greedy_obs", {"scope": "global"}, one_shot=True)
METHODS = (Method("dense"), ONE_SHOT, Method("GUM", "gum"), Method("random", "random"))


def task_of(name: str, data_dir: Path, tokenizer: Any, context: int) -> tuple[Any, dict[str, Any]]:
    """(the task, cut to size; what that left out).

    Targets of more than 3/4 of the context go, so that every prompt keeps a quarter of it.
    """
    task = gl.load_task(name, data_dir / FOLDERS[name])
    row = {"task": FOLDERS[name]}
    for split, most in (("train", TRAIN), ("validation", VALIDATION)):
        examples = task.split(split)
        lengths = [len(ids) + 1 for ids in tokens_of(tokenizer, [" " + e.target for e in examples])]
        fit = [e for e, n in zip(examples, lengths, strict=True) if n <= 3 * context // 4]
        drawn = random.Random(0).sample(fit, min(most, len(fit)))
        prompts = tokens_of(tokenizer, [e.prompt for e in drawn])
        targets = tokens_of(tokenizer, [" " + e.target for e in drawn])
        cut = sum(len(p) + len(t) + 1 > context for p, t in zip(prompts, targets, strict=True))
        setattr(task, split, drawn)
        row[split] = f"{len(drawn):,} of {len(examples):,}"
        row[f"{split}: target too long"] = f"{len(examples) - len(fit):,}"
        row[f"{split}: prompts cut"] = f"{cut:,}"
    return task, row


def perform(
    name: str, task: Any, method: Method, seed: int, steps: dict[str, int], folder: Path
) -> dict[str, Any]:
    """One run's row, from its file where it is there; the file appears whole or not at all.

    steps: of the run ("run"), and of each task's base.
    """
    path = folder / f"{name}-{method.label}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    base = harness.fine_tuned(BASE, task, folder / name, steps[name], BATCH)
    model, tokenizer = gl.load(base, device="cpu")
    done = run(
        model,
        tokenizer,
        task,
        method,
        keep=KEEP,
        steps=steps["run"],
        seed=seed,
        split="validation",
        generated=GENERATED,
        batch_size=BATCH,
        progress=False,
    )
    saved = path.with_suffix("")
    gl.save(done.model, tokenizer, saved)
    few = task.validation[:10]
    pairs = [(done.model, tokenizer), gl.load(saved, device="cpu")]
    losses = [mean_target_loss(*pair, few) for pair in pairs]
    texts = [generate(*pair, few) for pair in pairs]
    row = {
        "task": FOLDERS[name],
        **done.row,
        "bytes": (saved / "model.safetensors").stat().st_size,
        "loads back": losses[0] == losses[1] and texts[0] == texts[1],
    }
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(row))
    os.replace(fresh, path)
    return row


def summary(table: pd.DataFrame) -> str:
    """One row per task and method: mean and standard deviation over the seeds."""
    rows = []
    for (task, method), runs in table.groupby(["task", "method"], sort=False):
        metric = "logical_form" if task == "wikisql" else "rougeL"
        rows.append(
            {
                "task": task,
                "method": method,
                "neurons": f"{runs['keep'].mean():.0%}",
                "parameters": f"{runs['parameters_kept'].mean():.1%}",
                "MB": f"{runs['bytes'].mean() / 1e6:.2f}",
                "loss": mean_text(runs["loss"]),
                "perplexity": mean_text(runs["perplexity"], ".1f"),
                "metric": f"{metric} {mean_text(runs[metric], '.1f')}",
                "uniqueness": mean_text(runs["uniqueness"]),
                "loads back the same": f"{runs['loads back'].sum()} of {len(runs)}",
            }
        )
    return harness.markdown(rows)


def differences(table: pd.DataFrame) -> str:
    """Pairs of methods, paired by seed, with 95 % intervals."""
    pairs = ((ONE_SHOT.label, "GUM"), (ONE_SHOT.label, "random"), ("GUM", "random"))
    return harness.markdown(
        [
            {"task": task, **compared(runs, *pair)}
            for task, runs in table.groupby("task", sort=False)
            for pair in pairs
        ]
    )


def report(command: str, table: pd.DataFrame, data: list[dict[str, Any]]) -> str:
    """results/real_tasks.md; data: what was left out of each task."""
    tuned = ", ".join(f"{FOLDERS[n]} {s} steps of {BATCH}" for n, s in BASE_STEPS.items())
    return (
        f"# Real tasks, the whole lifecycle\n\n`{BASE}`, fine-tuned on each task's train split "
        f"({tuned}); then {STEPS} steps of {BATCH} for every method, {KEEP:.0%} of the neurons "
        f"kept. Figures on the validation split, the metric on its first {GENERATED} examples; "
        f"+- is the standard deviation over {len(SEEDS)} seeds. A model is loaded back "
        f"the same if its loss on 10 examples is equal to the last digit and its texts are equal. "
        f"{harness.made_by(command, table)}\n\n"
        f"{summary(table)}\n## Differences, paired by seed, with 95 % t intervals\n\n"
        f"{differences(table)}\n## The data\n\nExamples drawn at random; targets that do not "
        f"fit leave the example out, prompts that do not fit are cut from the left.\n\n"
        f"{harness.markdown(data)}"
    )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--data-dir", type=Path, help="a folder with wikisql and mts_dialog in it")
    args = harness.parsed(parser)
    if args.data_dir is None:
        print("The real tasks are not in the package: give --data-dir. Nothing was run.")
        return
    torch.set_num_threads(1)
    folder = args.runs / "real_tasks"
    folder.mkdir(parents=True, exist_ok=True)
    steps = BASE_STEPS | {"run": STEPS}
    if args.quick:
        steps = dict.fromkeys(steps, 4)
    model, tokenizer = gl.load(BASE, device="cpu")
    rows = []
    data = []
    for name in FOLDERS:
        task, counts = task_of(name, args.data_dir, tokenizer, model.config.max_position_embeddings)
        data.append(counts)
        for seed in SEEDS[:1] if args.quick else SEEDS:
            for method in METHODS:
                rows.append(perform(name, task, method, seed, steps, folder))
                print(name, method.label, seed, f"loss {rows[-1]['loss']:.3f}", flush=True)
    table = pd.DataFrame(rows)
    table.drop(columns=["seconds"]).to_csv(args.out / "real_tasks.csv", index=False)
    harness.write(args, "real_tasks.md", report(f"{args.command} --data-dir FOLDER", table, data))


if __name__ == "__main__":
    main()
