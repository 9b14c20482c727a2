"""Real WikiSQL and MTS-Dialog through the whole lifecycle: results/real_tasks.csv|md.

    python benchmarks/real_tasks.py --data-dir FOLDER    # with the folders wikisql and mts_dialog

A built-in model is fine-tuned on each task's train split; from there every method gets the same
steps, batches (by seed) and optimiser to keep a quarter of the neurons, is shrunk, evaluated on
the validation split (the test splits are left alone), saved, and loaded back. One thread a run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from grid import ROOT, made_by, markdown, pair_text

from gumlab.study.intervals import compared

BASE, KEEP, STEPS, BATCH, SEEDS = "tiny-gpt-neo", 0.25, 100, 16, (0, 1, 2)
FOLDERS = {"wikisql": "wikisql", "samsum": "mts_dialog"}  # task -> its folder
BASE_STEPS = {"wikisql": 1500, "samsum": 300}
TRAIN, VALIDATION, GENERATED = 40_000, 200, 100  # examples, drawn once by a fixed seed


def methods() -> list[Any]:
    """The dense control, the recommended recipe, GUM, and random as the honest baseline."""
    from gumlab.study import RECOMMENDED_METHOD, Method

    return [Method("dense"), RECOMMENDED_METHOD, Method("GUM", "gum"), Method("random", "random")]


def task_of(name: str, data_dir: Path, tokenizer: Any, context: int) -> tuple[Any, dict[str, Any]]:
    """(the task, cut to size; what that left out).

    Targets of more than 3/4 of the context go, so that every prompt keeps a quarter of it.
    """
    import gumlab as gl
    from gumlab.tasks.batches import tokens_of

    task, row = gl.load_task(name, data_dir / FOLDERS[name]), {"task": FOLDERS[name]}
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


def base_of(name: str, task: Any, folder: Path) -> tuple[Any, Any]:
    """The built-in model after fine-tuning on the task, dense; trained once."""
    import gumlab as gl

    if not (folder / name).exists():
        model, tokenizer = gl.load(BASE, device="cpu")
        gl.train(model, tokenizer, task, steps=BASE_STEPS[name], batch_size=BATCH, progress=False)
        gl.save(model, tokenizer, folder / name)
    return gl.load(folder / name, device="cpu")


def perform(name: str, task: Any, method: Any, seed: int, folder: Path) -> dict[str, Any]:
    """One run's row, from its file where it is there; the file appears whole or not at all."""
    import gumlab as gl
    from gumlab.evaluation import generate, mean_target_loss
    from gumlab.study import run

    path = folder / f"{name}-{method.label}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    base, tokenizer = base_of(name, task, folder)
    done = run(
        base, tokenizer, task, method, keep=KEEP, steps=STEPS, seed=seed, split="validation",
        generated=GENERATED, batch_size=BATCH, progress=False,
    )  # fmt: skip
    saved, few = folder / f"{name}-{method.label}-{seed}", task.validation[:10]
    gl.save(done.model, tokenizer, saved)
    pairs = [(done.model, tokenizer), gl.load(saved, device="cpu")]
    losses = [mean_target_loss(*pair, few) for pair in pairs]
    texts = [generate(*pair, few) for pair in pairs]
    row = {"task": FOLDERS[name], **done.row, "bytes": (saved / "model.safetensors").stat().st_size}
    row["loads back"] = losses[0] == losses[1] and texts[0] == texts[1]
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
                "loss": pair_text(runs["loss"]),
                "perplexity": pair_text(runs["perplexity"], ".1f"),
                "metric": f"{metric} {pair_text(runs[metric], '.1f')}",
                "uniqueness": pair_text(runs["uniqueness"]),
                "loads back the same": f"{runs['loads back'].sum()} of {len(runs)}",
            }
        )
    return markdown(rows)


def differences(table: pd.DataFrame) -> str:
    """Pairs of methods, paired by seed, with 95 % intervals."""
    pairs = (("recommended", "GUM"), ("recommended", "random"), ("GUM", "random"))
    return markdown(
        [
            {"task": task, **compared(runs, *pair)}
            for task, runs in table.groupby("task", sort=False)
            for pair in pairs
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    args = parser.parse_args()
    import torch

    import gumlab as gl

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the cut prompts are counted in the table of the data
    folder = ROOT / "runs" / "real_tasks"
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = gl.load(BASE, device="cpu")
    rows, data = [], []
    for name in FOLDERS:
        task, counts = task_of(name, args.data_dir, tokenizer, model.config.max_position_embeddings)
        data.append(counts)
        for seed in SEEDS:
            for method in methods():
                rows.append(perform(name, task, method, seed, folder))
                print(name, method.label, seed, f"loss {rows[-1]['loss']:.3f}", flush=True)
    table = pd.DataFrame(rows)
    table.drop(columns=["seconds"]).to_csv(ROOT / "results" / "real_tasks.csv", index=False)
    command = "python benchmarks/real_tasks.py --data-dir FOLDER"
    tuned = ", ".join(f"{FOLDERS[n]} {s} steps of {BATCH}" for n, s in BASE_STEPS.items())
    text = (
        f"# Real tasks, the whole lifecycle\n\n`{BASE}`, fine-tuned on each task's train split "
        f"({tuned}); then {STEPS} steps of {BATCH} for every method, {KEEP:.0%} of the neurons "
        f"kept. Figures on the validation split, the metric on its first {GENERATED} examples; "
        f"+- is the standard deviation over {len(SEEDS)} seeds. A model is loaded back "
        f"the same if its loss on 10 examples is equal to the last digit and its texts are equal. "
        f"{made_by(command, table)}\n\n"
        f"{summary(table)}\n## Differences, paired by seed, with 95 % t intervals\n\n"
        f"{differences(table)}\n## The data\n\nExamples drawn at random; targets that do not "
        f"fit leave the example out, prompts that do not fit are cut from the left.\n\n"
        f"{markdown(data)}"
    )
    (ROOT / "results" / "real_tasks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
