"""What the comparison scripts share: a study whose files have plain names, and text for tables."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gumlab.study import Cell, Study

ROOT = Path(__file__).parents[1]
MADE_WITH = ["gumlab", "torch", "transformers", "machine", "threads"]  # `made_by` says it once


class Job(Cell):
    """One run of a script: a method on a base (a built-in model or a folder), as in `Cell`."""

    @property
    def base(self) -> str:
        return self.model


class Runs(Study):
    """A study of one script: its settings do not vary, so names need no hash.

    Runs that were stored before there was `gumlab.Study` are found by these names.
    """

    def path(self, cell: Cell) -> Path:
        label = cell.method.label
        keep = "" if label == "dense" else f"-keep{cell.keep:g}"
        words = f"{Path(cell.model).name} {cell.task} {label}"
        name = "".join(c if c.isalnum() else "-" for c in words)
        tail = "-distilled" if cell.distilled else ""
        return self.folder / f"{name}{keep}-seed{cell.seed}{tail}.json"

    def checkpoint(self, cell: Cell) -> Path:
        if cell.method.name is None:
            return self.folder / f"dense-{Path(cell.model).name}-{cell.task}-{cell.seed}"
        return self.path(cell).with_suffix("")

    def table(self) -> pd.DataFrame:
        """Without the options, which the labels tell, and what the runs were made with."""
        table = super().table()
        if "model" in table:
            table.insert(0, "base", table.pop("model").fillna(table.pop("base") if "base" in table
                                                              else ""))  # fmt: skip
        options = {key for cell in self.cells for key in cell.method.options}
        return table.drop(columns=[c for c in [*options, *MADE_WITH] if c in table])


def perform_all(
    folder: Path,
    waves: Sequence[Sequence[Job]],
    data_dir: str | None = None,
    extra: Callable[[Any, Cell], dict[str, Any]] | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """Do what is not there yet, one thread a run; all rows, in the order of the jobs.

    extra: more columns, from the finished run (`gumlab.study.Run`) and the job.
    """
    jobs = [job for wave in waves for job in wave]
    runs = Runs(jobs, folder, data_dir=data_dir, extra=extra).run(workers, threads=1)
    table = runs.table()
    if "error" in table:
        failed = table.dropna(subset="error")[["method", "task", "seed", "error"]]
        raise SystemExit(f"Some runs failed:\n{failed.to_string()}")
    return table


def two_layers(positions: int) -> Any:
    """A random model of two layers of GPT-2-small's shapes, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=1024, n_positions=positions, n_embd=768, n_layer=2, n_head=12, bos_token_id=0,
        eos_token_id=0, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
    )  # fmt: skip
    return GPT2LMHeadModel(config)


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
