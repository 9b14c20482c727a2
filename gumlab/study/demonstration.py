"""The main job: the paper's training methods and the recommended recipe, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gumlab.course.plots import method_bars
from gumlab.errors import GumlabError
from gumlab.io.loading import load
from gumlab.io.saving import save
from gumlab.measurement import latencies
from gumlab.selection import check_keep
from gumlab.study.runs import PAPER_METHODS, RECOMMENDED_METHOD, Method, metric_of, run
from gumlab.tasks import Task


def demo(
    model: str,
    task: Task,
    out: Path,
    *,
    keep: float = 0.25,
    steps: int = 200,
    seed: int = 0,
    generated: int = 100,
    methods: Sequence[Method] = (*PAPER_METHODS, RECOMMENDED_METHOD),
    say: Callable[[str], Any] = print,
) -> pd.DataFrame:
    """Prune `model` on `task` with each method; write table.csv, figure.png and the checkpoints.

    The first method must be the dense run: the others' latency is given against it. Returns the
    table. Raises GumlabError before any work where keep cannot be met or `out` not written to.
    """
    check_keep(keep)
    if steps < 1:
        raise GumlabError(f"steps must be 1 or more, got {steps}.")
    base, tokenizer = load(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {out}: {error.strerror}. Choose another folder."
        ) from error
    options: dict[str, Any] = {"keep": keep, "steps": steps, "seed": seed, "generated": generated}
    rows, models = [], {}
    for i, method in enumerate(methods, 1):
        say(f"[{i}/{len(methods)}] {method.label}: {steps} steps")
        done = run(base, tokenizer, task, method, **options)
        rows.append(done.row)
        models[method.label] = done.model
    milliseconds = latencies(models)
    dense = milliseconds[methods[0].label]
    for row in rows:
        row["speedup"] = dense / milliseconds[row["method"]]
    table = pd.DataFrame(rows)
    metric = metric_of(task)
    for method, (_, row) in zip(methods, table.iterrows(), strict=True):
        notes = {
            k: readable(k, row[k])
            for k in ("keep", "parameters_kept", "loss", metric, "uniqueness")
        }
        save(models[method.label], tokenizer, out / folder_name(method.label), notes=notes)
    table.to_csv(out / "table.csv", index=False)
    method_bars(table, metric).figure.savefig(out / "figure.png", dpi=150)
    return table


def folder_name(label: str) -> str:
    """A method's label as a folder name.

    >>> folder_name("movement, local")
    'movement-local'
    """
    return label.lower().replace(",", "").replace(" ", "-")


def readable(column: str, value: Any) -> str:
    """A table's value as text: fractions in per cent, losses with three digits."""
    if column in ("keep", "parameters_kept"):
        return f"{value:.1%}"
    if isinstance(value, float):
        return (
            f"{value:.1f}"
            if column in ("bleu", "rougeL", "execution", "seconds")
            else f"{value:.3f}"
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_text(table: pd.DataFrame, metric: str) -> str:
    """The table as a person reads it in a terminal."""
    columns = {
        "method": "method",
        "keep": "kept",
        "neurons": "neurons",
        "parameters": "parameters",
        "parameters_kept": "(of all)",
        "loss": "loss",
        metric: metric,
        "sensitivity": "sensitivity",
        "uniqueness": "uniqueness",
        "speedup": "speed",
        "train_seconds": "seconds",
    }
    shown = table[list(columns)].copy().astype(object)
    for column in columns:
        shown[column] = [readable(column, v) for v in table[column]]
    shown["sensitivity"] = [f"{v:.2e}" for v in table["sensitivity"]]
    shown["speedup"] = [f"{v:.2f} x" for v in table["speedup"]]
    shown["train_seconds"] = [f"{v:.0f}" for v in table["train_seconds"]]
    return shown.rename(columns=columns).to_string(index=False)
