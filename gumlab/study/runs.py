"""A grid of runs -> a table: one file a run, resumable after any kill, here or on a cluster."""

from __future__ import annotations

import functools
import json
import os
import platform
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
import transformers

import gumlab
from gumlab.errors import GumlabError
from gumlab.io.loading import load
from gumlab.io.saving import save
from gumlab.study.grid import Cell, as_text, expand
from gumlab.study.methods import (
    PAPER_METHODS,
    RECOMMENDED_METHOD,
    Method,
    Run,
    metric_of,
    named,
    run,
)
from gumlab.study.workers import following, workers
from gumlab.tasks import REAL, load_task

__all__ = [
    "PAPER_METHODS", "RECOMMENDED_METHOD", "Cell", "Method", "Run", "Study", "metric_of", "named",
    "run",
]  # fmt: skip


class Study:
    """A grid of runs in a folder, one JSON file each.

        gumlab.Study({"model": "tiny-gpt-neo", "task": ["restaurants"], "method": ["random", "gum"],
                      "keep": [0.5, 0.25], "distil": [False, True], "seed": range(3),
                      "steps": 200}, "runs").run(jobs=2).table()

    grid: see `expand`. folder: a run's file is named by its content, and appears whole or not at
    all, so that a study that was killed goes on where it was, a grid can grow, and two studies may
    work in one folder (at worst both do the same run). data_dir: the folder of a real task's files,
    or {task: folder}. checkpoints: also keep every shrunk model; dense ones that teach stay anyway.
    extra: more columns, from the finished `Run` and its `Cell`. Raises GumlabError for a grid that
    cannot be, or a folder that cannot be written to.
    """

    def __init__(
        self,
        grid: Mapping[str, Any] | Sequence[Mapping[str, Any] | Cell],
        folder: str | Path,
        *,
        data_dir: str | Path | Mapping[str, Any] | None = None,
        checkpoints: bool = False,
        extra: Callable[[Run, Cell], dict[str, Any]] | None = None,
    ) -> None:
        self.folder, self.checkpoints, self.extra = Path(folder).absolute(), checkpoints, extra
        self.data_dir = data_dir if isinstance(data_dir, Mapping) else dict.fromkeys(REAL, data_dir)
        cells = expand(grid)
        cells = [*(c.dense for c in cells if c.distilled), *cells]
        self.cells = list({self.path(c): c for c in cells}.values())
        for cell in self.cells:
            list(self._needs(cell))  # raises now for widths of a run that is not in the grid
        with _storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, cell: Cell) -> Path:
        """Where a run's row is stored; its checkpoint is the folder without the ending."""
        return self.folder / f"{cell.name}.json"

    def checkpoint(self, cell: Cell) -> Path:
        """Where a run's model is stored."""
        return self.folder / cell.name

    def run(
        self, jobs: int | None = None, retry: bool = False, threads: int | None = None
    ) -> Study:
        """Do every run that is not there yet, and show how many, and the time left; returns self.

        jobs: processes on this machine, which share its GPUs and, unless `threads` says how many
        each has, its threads; None: one, or what joblib.parallel_config says: with backend="ray"
        the runs go to a Ray cluster (workers must see the folder), one GPU a run where it has any.
        A run that fails leaves its error as its row; with `retry` such runs are done again. The
        runs of a killed worker go to another. Raises GumlabError after Ctrl-C, where a row cannot
        be stored, or where workers die and nothing gets done.
        """
        with _storing(self.folder):
            for cell in self.cells if retry else ():
                if "error" in (stored(self.path(cell)) or {}):
                    self.path(cell).unlink()
        try:
            with following(len(self.cells), self._done):
                done, idle = self._done(), 0
                while ready := self._ready():
                    with _storing(self.folder), tempfile.TemporaryFile(dir=self.folder):
                        pass  # known before the work
                    error, before, done = self._do(ready, jobs, threads), done, self._done()
                    if isinstance(error, GumlabError):
                        raise error
                    idle = idle + 1 if error and done == before else 0
                    if idle == 3:
                        raise GumlabError(
                            "Three times in a row workers died and no run got done; the last said: "
                            f"{error}. If the memory ran out, try fewer jobs; run() goes on."
                        ) from error
        except KeyboardInterrupt:
            raise GumlabError(
                f"Stopped after {self._done()} of {len(self.cells)} runs; run() goes on from there."
            ) from None
        return self

    def table(self) -> pd.DataFrame:
        """A row for each run that is done, in the grid's order, at any time, also while it runs.

        keep: the fraction of neurons left; asked: that of the grid; error: why a run failed.
        """
        rows = (stored(self.path(cell)) for cell in self.cells)
        return pd.DataFrame([row for row in rows if row is not None])

    def save(self, path: str | Path | None = None) -> Path:
        """Write the table as Parquet, by default to table.parquet in the folder; its path."""
        path = Path(path) if path else self.folder / "table.parquet"
        fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        self.table().to_parquet(fresh)
        os.replace(fresh, path)
        return path

    def __repr__(self) -> str:
        failed = sum("error" in (stored(self.path(cell)) or {}) for cell in self.cells)
        done = f"{self._done()} of {len(self.cells)} runs done, {failed} of them failed"
        return f"Study({done}; {self.folder.name})"

    def _done(self) -> int:
        return sum(self.path(cell).exists() for cell in self.cells)

    def _needs(self, cell: Cell) -> Iterator[Cell]:
        """The runs that must come before this one."""
        if cell.distilled:
            yield cell.dense
        if cell.widths_of is not None:
            for other in self.cells:
                alike = replace(cell, method=other.method, widths_of=None)
                if other.method.label == cell.widths_of and self.path(alike) == self.path(other):
                    yield other
                    return
            raise GumlabError(
                f"{cell.method.label!r} takes its widths from {cell.widths_of!r}, which the grid "
                "does not hold with the same model, task, keep, seed and steps; add it."
            )

    def _ready(self) -> list[Cell]:
        """What is to be done, and needs nothing that is to be done."""
        todo = {self.path(c): c for c in self.cells if stored(self.path(c)) is None}
        for cell in [c for c in todo.values() if c.distilled]:  # the row may be there without model
            row, model = stored(self.path(cell.dense)), self.checkpoint(cell.dense)
            if "error" not in (row or {}) and not (model / "config.json").exists():
                todo[self.path(cell.dense)] = cell.dense
        return [c for c in todo.values() if not any(self.path(n) in todo for n in self._needs(c))]

    def _do(self, ready: list[Cell], jobs: int | None, threads: int | None) -> Exception | None:
        """Give the runs to workers; what went wrong where one was killed or could not write."""
        parallel, share = workers(jobs)
        gpus, threads = torch.cuda.device_count() if share else 0, threads or share
        try:
            parallel(
                joblib.delayed(self._perform)(cell, threads, f"cuda:{i % gpus}" if gpus else None)
                for i, cell in enumerate(ready)
            )
        except Exception as error:  # what the other workers did is in their files
            return error
        return None

    def _perform(self, cell: Cell, threads: int | None, device: str | None) -> None:
        """Do one run; an error is the run's result too."""
        if threads:
            torch.set_num_threads(threads)
        row = {
            "model": Path(cell.model).name,
            "task": Path(cell.task).stem,
            "method": cell.method.label,
            "asked": cell.keep,
            "distilled": cell.distilled,
            "seed": cell.seed,
            "steps": cell.steps,
            **cell.training,
            **cell.method.options,
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row |= self._measured(cell, device)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        path = self.path(cell)
        fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        versions = {m.__name__: str(m.__version__) for m in (gumlab, torch, transformers)}
        machine = f"{platform.system()} {platform.machine()}"
        row |= {**versions, "machine": machine, "threads": torch.get_num_threads()}
        with _storing(path):
            try:
                fresh.write_text(json.dumps(row, default=as_text), encoding="utf-8")
                os.replace(fresh, path)
            finally:
                fresh.unlink(missing_ok=True)

    def _measured(self, cell: Cell, device: str | None) -> dict[str, Any]:
        """The row of a run, as `run` gives it, and its checkpoint where one is asked for."""
        for need in self._needs(cell):
            if "error" in (stored(self.path(need)) or {}):
                raise GumlabError(f"It needs the run {self.path(need).name}, which failed.")
        base, tokenizer = load(cell.model, device=device)
        task, method = _load_task(cell.task, self.data_dir.get(cell.task)), cell.method
        teacher = load(self.checkpoint(cell.dense), device=device)[0] if cell.distilled else None
        if cell.widths_of is not None:
            source = [n for n in self._needs(cell) if n.method.label == cell.widths_of][-1]
            widths = (stored(self.path(source)) or {})["widths"]
            method = replace(method, options={**method.options, "widths": widths})
        done = run(
            base, tokenizer, task, method, keep=cell.keep, steps=cell.steps, seed=cell.seed,
            teacher=teacher, split=cell.split, generated=cell.generated, progress=False,
            **cell.training,
        )  # fmt: skip
        teaches = any(c.distilled and self.path(c.dense) == self.path(cell) for c in self.cells)
        if self.checkpoints or teaches:
            save(done.model, tokenizer, self.checkpoint(cell))
        return done.row | (self.extra(done, cell) if self.extra else {})


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Turns what a disk or its rights forbid into one sentence."""
    try:
        yield
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {path}: {error.strerror or error}. Nothing half-written is left. "
            "Make room, or choose another folder; run() goes on from what is there."
        ) from error


_load_task = functools.lru_cache(maxsize=4)(load_task)  # one worker does many runs of a task


def stored(path: Path) -> dict[str, Any] | None:
    """A run's row; None where there is none, or a damaged one, which is then done again."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
