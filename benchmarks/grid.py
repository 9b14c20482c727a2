"""What the comparison scripts share: runs as one JSON file each, their table, its summary.

A run whose file is there is not done again, so a script that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """One run: a method (`gumlab.study.Method`) on a base and a task at one budget, one seed.

    base: a built-in model or a folder.

    distilled: with the dense run of the same seed as teacher. widths_of: the label whose run, with
    the same seed and keep, says how many neurons each layer keeps (the control "at its widths").
    """

    base: str
    task: str
    method: Any
    keep: float
    seed: int
    steps: int
    distilled: bool = False
    widths_of: str | None = None
    split: str | None = None
    generated: int = 200

    def file(self, folder: Path, label: str | None = None) -> Path:
        """Where the run's row is stored; with `label`, that of another method's run."""
        label = label or self.method.label
        keep = "" if label == "dense" else f"-keep{self.keep:g}"
        words = f"{Path(self.base).name} {self.task} {label}"
        name = "".join(c if c.isalnum() else "-" for c in words)
        tail = "-distilled" if self.distilled else ""
        return folder / f"{name}{keep}-seed{self.seed}{tail}.json"


def perform(
    folder: Path,
    job: Job,
    data_dir: str | None = None,
    extra: Callable[[Any, Job], dict[str, Any]] | None = None,
) -> None:
    """Do one run unless its file is there; the file appears whole or not at all.

    extra: more columns, from the finished run (`gumlab.study.Run`) and the job.
    """
    path = job.file(folder)
    if path.exists():
        return
    import torch

    import gumlab as gl
    from gumlab.study import run

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    base, tokenizer = gl.load(job.base, device="cpu")
    task = gl.load_task(job.task, data_dir if job.task == "e2e" else None)
    dense = folder / f"dense-{Path(job.base).name}-{job.task}-{job.seed}"
    method = job.method
    if job.widths_of is not None:
        widths = json.loads(job.file(folder, job.widths_of).read_text())["widths"]
        method = replace(method, options={**method.options, "widths": widths})
    done = run(
        base, tokenizer, task, method, keep=job.keep, steps=job.steps, seed=job.seed,
        split=job.split, teacher=gl.load(dense, device="cpu")[0] if job.distilled else None,
        generated=job.generated, progress=False,
    )  # fmt: skip
    if method.label == "dense" and not dense.exists():
        gl.save(done.model, tokenizer, dense)
    row = {
        "base": Path(job.base).name,
        "task": job.task,
        "asked": job.keep,
        "steps": job.steps,
        **done.row,
    }
    row |= extra(done, job) if extra else {}
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(row, default=str))
    os.replace(fresh, path)


def perform_all(
    folder: Path,
    waves: Sequence[Sequence[Job]],
    data_dir: str | None = None,
    extra: Callable[[Any, Job], dict[str, Any]] | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """Do the waves one after the other (a later one may need an earlier one's runs); all rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for wave in waves:
        call = joblib.delayed(perform)
        joblib.Parallel(n_jobs=workers)(call(folder, job, data_dir, extra) for job in wave)
    files = [job.file(folder) for wave in waves for job in wave]
    return pd.DataFrame([json.loads(path.read_text()) for path in dict.fromkeys(files)])


def pair_text(values: pd.Series, digits: str = ".3f") -> str:
    """Mean and standard deviation over the seeds as text."""
    return f"{values.mean():{digits}} +- {values.std():{digits}}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the first row's keys are the head."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def made_by(command: str, table: pd.DataFrame | None = None) -> str:
    """What made a result, in a sentence: command, versions, machine, hours of training."""
    import torch
    import transformers

    import gumlab as gl

    text = (
        f"Made by `{command}` with gumlab {gl.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}"
    )
    if table is not None:
        text += f", {table['train_seconds'].sum() / 3600:.2f} hours of training, one thread a run"
    return text + "."
