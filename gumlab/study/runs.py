"""A grid of runs -> a table: one file a run, resumable after any kill, here or on a cluster."""

from __future__ import annotations

import functools
import json
import os
import platform
import tempfile
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
import transformers

import gumlab
from gumlab.errors import GumlabError, check_flag, check_options, check_whole, warn_caller
from gumlab.io.loading import checked_device, load
from gumlab.io.saving import save
from gumlab.study.grid import Cell, expand
from gumlab.study.identity import BEHAVIOUR, as_text, digest, of_model, of_task
from gumlab.study.methods import Run, run
from gumlab.study.workers import check_jobs, progress_bar, worker_pool
from gumlab.tasks import BUILT_IN, REAL, Task, load_task


class Study:
    """A grid of runs in a folder, one JSON file each.

    A run's file is named by all that its row depends on: its settings (functions and tensors by
    their content), the examples that were read, the files of a model's folder, `extra`, and the
    numbers that this gumlab gives. It appears whole or not at all, so that a study that was killed
    goes on where it was, a grid can grow, and two studies may work in one folder (at worst both do
    the same run). What comes from the Hugging Face hub is known by its name.

    Parameters
    ----------
    grid : mapping, or sequence of mappings and cells
        See `gumlab.study.grid.expand`. The dense runs that teach are added.
    folder : str or Path
        Where the runs are stored; it is made where there is none.
    data_dir : str, Path or mapping, optional
        The folder of a real task's files, or {task: folder}.
    checkpoints : bool
        Also keep every shrunk model; dense ones that teach stay anyway.
    extra : callable, optional
        `extra(run, cell)` gives more columns, from the finished `Run` and its `Cell`: a mapping of
        names that the row does not have to numbers, texts or lists of them.

    Attributes
    ----------
    cells : list of Cell
        The runs, none twice; those that teach come first.
    folder : Path
        The folder, absolute.

    Raises
    ------
    GumlabError
        For a grid that cannot be, data that cannot be read, or a folder that cannot be written to.

    Examples
    --------
    A grid of 24 runs and the dense ones, by two processes::

        grid = {
            "model": "tiny-gpt-neo",
            "task": ["restaurants"],
            "method": ["random", "gum"],
            "keep": [0.5, 0.25],
            "distil": [False, True],
            "seed": range(3),
            "steps": 200,
        }
        gumlab.Study(grid, "runs").run(jobs=2).table()
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
        if not isinstance(folder, str | Path):
            raise GumlabError(f"folder must be the path of a folder; got {folder!r:.60}.")
        self.folder = Path(folder).expanduser().absolute()
        self.checkpoints = check_flag("checkpoints", checkpoints)
        if extra is not None and not callable(extra):
            raise GumlabError(f"extra must be a function (run, cell) -> dict; got {extra!r:.60}.")
        self.extra = extra
        cells = expand(grid)
        _check_labels(cells)
        self.data_dir = _data_dirs(data_dir, cells)
        self._extra_digest = None if extra is None else digest(extra)
        self._sources: dict[tuple[str, ...], str] = {}  # by model and data, as they are now
        teachers = [cell.dense for cell in cells if cell.distilled]
        self.cells = list({self.path(cell): cell for cell in [*teachers, *cells]}.values())
        # raises now for widths of a run that is not in the grid
        self._gives_widths = {
            self.path(cell): self._source_of_widths(cell)
            for cell in self.cells
            if cell.widths_of is not None
        }
        with _storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, cell: Cell) -> Path:
        """Where a run's row is stored.

        Parameters
        ----------
        cell : Cell
            The run's settings.

        Returns
        -------
        Path
            A JSON file in the study's folder.
        """
        return self.folder / f"{self._name(cell)}.json"

    def checkpoint(self, cell: Cell) -> Path:
        """Where a run's model is stored, if it is.

        Parameters
        ----------
        cell : Cell
            The run's settings.

        Returns
        -------
        Path
            A folder in the study's folder.
        """
        return self.folder / self._name(cell)

    def run(
        self,
        jobs: int | None = None,
        retry: bool = False,
        threads: int | None = None,
        device: str | None = None,
    ) -> Study:
        """Do every run that is not there yet, and show how many, and the time left.

        A run that fails leaves its error as its row. The runs of a killed worker go to another.

        Parameters
        ----------
        jobs : int, optional
            Processes on this machine, which share its GPUs and threads. None: one, or what
            `joblib.parallel_config` says: with backend="ray" the runs go to a Ray cluster (its
            workers must see the folder), one GPU a run where it has any.
        retry : bool
            Do runs that failed again.
        threads : int, optional
            Of each process, instead of its share.
        device : str, optional
            For every run, as in `gumlab.load`; by default a GPU if there is one, and several in
            turns.

        Returns
        -------
        Study
            Itself.

        Raises
        ------
        GumlabError
            After Ctrl-C, where a row cannot be stored, or where workers die and nothing gets done.

        Warns
        -----
        UserWarning
            Once, where runs failed, now or before: how many, and what the first says.
        """
        self._run(jobs, retry, threads, device)
        failed = [row for row in map(self._row, self.cells) if row and "error" in row]
        if failed:
            first = failed[0]
            warn_caller(
                f"{len(failed)} of {len(self.cells)} runs failed; the first: {first['method']}, "
                f"seed {first.get('seed')}: {first['error']} See table()['error']; "
                "run(retry=True) does them again."
            )
        return self

    def _run(self, jobs: int | None, retry: bool, threads: int | None, device: str | None) -> None:
        """Check what was given, and do every run that is not there yet."""
        check_jobs(jobs)
        if threads is not None:
            check_whole("threads", threads)
        if device is not None:
            checked_device(device)
        if check_flag("retry", retry):
            self._forget_failures()
        try:
            with progress_bar(len(self.cells), self._done):
                self._do_all(jobs, threads, device)
        except KeyboardInterrupt:
            raise GumlabError(
                f"Stopped after {self._done()} of {len(self.cells)} runs; run() goes on from there."
            ) from None

    def table(self) -> pd.DataFrame:
        """The rows of the runs that are done, at any time, also while others work.

        Returns
        -------
        pandas.DataFrame
            A row per run, in the grid's order: its settings, and what `gumlab.study.run` measured.
            keep is the fraction of neurons left, asked that of the grid; error says why a run
            failed.
        """
        rows = [self._row(cell) for cell in self.cells]
        return pd.DataFrame([row for row in rows if row is not None])

    def save(self, path: str | Path | None = None) -> Path:
        """Write the table as Parquet, which keeps the types of its columns, or as CSV.

        Parameters
        ----------
        path : str or Path, optional
            A name that ends in .parquet or .csv. By default table.parquet in the study's folder.

        Returns
        -------
        Path
            Where it was written.

        Raises
        ------
        GumlabError
            For a name that ends otherwise, and a file that cannot be written.
        """
        path = Path(path).expanduser() if path else self.folder / "table.parquet"
        if path.suffix not in (".parquet", ".csv"):
            raise GumlabError(
                f"A table is written as Parquet or CSV, by the end of its name; got {path.name!r}. "
                f"Name it {path.stem}.parquet or {path.stem}.csv."
            )
        table = self.table()
        for column in table:
            if table[column].dropna().map(type).nunique() > 1:  # which a Parquet column cannot hold
                table[column] = table[column].map(json.dumps, na_action="ignore")
        with _storing(path), _appearing_whole(path) as unfinished:
            if path.suffix == ".csv":
                table.to_csv(unfinished, index=False)
            else:
                table.to_parquet(unfinished)
        return path

    def __repr__(self) -> str:
        failed = sum(self._failed(cell) for cell in self.cells)
        done = f"{self._done()} of {len(self.cells)} runs done, {failed} of them failed"
        return f"Study({done}; {self.folder.name})"

    def _name(self, cell: Cell) -> str:
        """What a run's files are called: by its settings, and what it is made of besides."""
        source = self._source(cell)
        return f"{cell.name}-{source}" if source else cell.name

    def _source(self, cell: Cell) -> str:
        """The digest of what a run is made of besides its settings."""
        key = (cell.model, cell.task, cell.metric or "")
        if key not in self._sources:
            data = None
            if cell.task not in BUILT_IN + REAL or self.data_dir.get(cell.task) is not None:
                task = load_task(cell.task, self.data_dir.get(cell.task), metric=cell.metric)
                data = of_task(task)
            self._sources[key] = _source_digest(of_model(cell.model), data, self._extra_digest)
        return self._sources[key]

    def _row(self, cell: Cell) -> dict[str, Any] | None:
        """A run's row; None where there is none, or a damaged one, which is then done again."""
        try:
            row = json.loads(self.path(cell).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return row if isinstance(row, dict) and "method" in row else None

    def _failed(self, cell: Cell) -> bool:
        return "error" in (self._row(cell) or {})

    def _done(self) -> int:
        return sum(self.path(cell).exists() for cell in self.cells)

    def _needs(self, cell: Cell) -> list[Cell]:
        """The runs that must come before this one: its teacher, and that whose widths it takes."""
        needs = []
        if cell.distilled:
            needs.append(cell.dense)
        if cell.widths_of is not None:
            needs.append(self._gives_widths[self.path(cell)])
        return needs

    def _source_of_widths(self, cell: Cell) -> Cell:
        """The run of the method `cell.widths_of`, all else equal."""
        for other in self.cells:
            alike = replace(cell, method=other.method, widths_of=None)
            if other.method.label == cell.widths_of and self.path(alike) == self.path(other):
                return other
        raise GumlabError(
            f"{cell.method.label!r} takes its widths from {cell.widths_of!r}, which the grid "
            "does not hold with the same model, task, keep, seed and steps; add it."
        )

    def _forget_failures(self) -> None:
        with _storing(self.folder):
            for cell in self.cells:
                if self._failed(cell):
                    self.path(cell).unlink()

    def _do_all(self, jobs: int | None, threads: int | None, device: str | None) -> None:
        """Do what is ready, round by round, until nothing is left to do."""
        done = self._done()
        rounds_in_vain = 0
        ready = self._ready()
        while ready:
            with _storing(self.folder), tempfile.TemporaryFile(dir=self.folder):
                pass  # a folder that takes no files is known before the work
            error = self._do(ready, jobs, threads, device)
            if isinstance(error, GumlabError):
                raise error
            done_before = done
            done = self._done()
            if error is not None and done == done_before:
                rounds_in_vain += 1
            else:
                rounds_in_vain = 0
            if rounds_in_vain == 3:
                raise GumlabError(
                    "Three times in a row workers died and no run got done; the last said: "
                    f"{error}. If the memory ran out, try fewer jobs; run() goes on."
                ) from error
            ready = self._ready()

    def _ready(self) -> list[Cell]:
        """What is to be done, and needs nothing that is to be done."""
        to_do = {self.path(cell): cell for cell in self.cells if self._row(cell) is None}
        pupils = [cell for cell in to_do.values() if cell.distilled]
        wanted = [*self.cells] if self.checkpoints else [cell.dense for cell in pupils]
        for cell in wanted:
            has_model = (self.checkpoint(cell) / "config.json").exists()
            if not has_model and not self._failed(cell):  # its row may be there all the same
                to_do[self.path(cell)] = cell
        return [
            cell
            for cell in to_do.values()
            if not any(self.path(needed) in to_do for needed in self._needs(cell))
        ]

    def _do(
        self, ready: list[Cell], jobs: int | None, threads: int | None, device: str | None
    ) -> Exception | None:
        """Give the runs to workers; what went wrong where one was killed or could not write."""
        pool, threads_of_each = worker_pool(jobs)
        # on a cluster and in one process the device is found by `load`
        gpus = torch.cuda.device_count() if threads_of_each else 0
        calls = []
        for i, cell in enumerate(ready):
            its_gpu = f"cuda:{i % gpus}" if gpus else None
            call = joblib.delayed(self._perform)
            calls.append(call(cell, threads or threads_of_each, device or its_gpu))
        try:
            pool(calls)
        except Exception as error:  # what the other workers did is in their files
            return error
        return None

    def _perform(self, cell: Cell, threads: int | None, device: str | None) -> None:
        """Do one run and store its row; an error is the run's result too."""
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
        if cell.metric is not None:
            row["metric"] = cell.metric
        made_by = {
            "gumlab": gumlab.__version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "machine": f"{platform.system()} {platform.machine()}",
            "threads": threads or torch.get_num_threads(),
        }
        try:
            with warnings.catch_warnings(), _threads(threads):
                warnings.simplefilter("ignore")
                measured, more = self._measured(cell, device)
                more = _new_columns(more, {*row, *measured, *made_by, "error"})
                row.update({**measured, **more})
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        row.update(made_by)
        path = self.path(cell)
        with _storing(path), _appearing_whole(path) as unfinished:
            unfinished.write_text(json.dumps(row, default=as_text), encoding="utf-8")

    def _measured(self, cell: Cell, device: str | None) -> tuple[dict[str, Any], Any]:
        """The row of a run, as `run` gives it, and what `extra` adds; its checkpoint is stored."""
        for needed in self._needs(cell):
            if self._failed(needed):
                raise GumlabError(f"It needs the run {self.path(needed).name}, which failed.")
        source = self._source(cell)
        task, data = _load_task(cell.task, self.data_dir.get(cell.task), cell.metric, source)
        if _source_digest(of_model(cell.model), data, self._extra_digest) != source:
            raise GumlabError(
                f"The files of {cell.model} or {cell.task} changed since the study was made. Make "
                "it anew; its runs will be stored beside those of before."
            )
        base, tokenizer = load(cell.model, device=device)
        teacher = None
        if cell.distilled:
            teacher, _ = load(self.checkpoint(cell.dense), device=device)
        method = cell.method
        if cell.widths_of is not None:
            widths = (self._row(self._gives_widths[self.path(cell)]) or {})["widths"]
            method = replace(method, options={**method.options, "widths": widths})
        done = run(
            base,
            tokenizer,
            task,
            method,
            keep=cell.keep,
            steps=cell.steps,
            seed=cell.seed,
            teacher=teacher,
            split=cell.split,
            stride=cell.stride,
            tokens=cell.tokens,
            redundancy_tokens=cell.redundancy_tokens,
            generated=cell.generated,
            progress=False,
            **cell.training,
        )
        if self.checkpoints or self._teaches(cell):
            save(done.model, tokenizer, self.checkpoint(cell))
        return done.row, self.extra(done, cell) if self.extra else {}

    def _teaches(self, cell: Cell) -> bool:
        """Whether a distilled run of the study needs this one's model."""
        taught_by = {self.path(pupil.dense) for pupil in self.cells if pupil.distilled}
        return self.path(cell) in taught_by


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch's in the meantime; None for as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


@contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, where the file appears at the end, whole or not at all."""
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@functools.lru_cache(maxsize=4)  # one worker does many runs of a task
def _load_task(
    name: str, data_dir: str | Path | None, metric: str | None, source: str
) -> tuple[Task, str | None]:
    """A task, and the digest of its examples where they come of files; read anew by `source`."""
    task = load_task(name, data_dir, metric=metric)
    of_files = name not in BUILT_IN + REAL or data_dir is not None
    return task, of_task(task) if of_files else None


def _source_digest(model: Mapping[str, str], data: str | None, extra: str | None) -> str:
    """The digest of what a run is made of besides its settings; empty where all is gumlab 0.1's."""
    if not model and data is None and extra is None and BEHAVIOUR == 1:
        return ""
    return digest([model, data, extra, BEHAVIOUR])


def _new_columns(more: Any, taken: Collection[str]) -> dict[str, Any]:
    """What `extra` returned; GumlabError unless it maps names to what their columns hold."""
    wanted = 'return a dict of new columns, such as {"first width": run.row["widths"][0]}.'
    if not isinstance(more, Mapping):
        raise GumlabError(f"extra returned {more!r:.60}, which is no mapping; {wanted}")
    known = [str(name) for name in more if name in taken]
    if known:
        raise GumlabError(
            f"extra returned {', '.join(known)}, which the row has already; {wanted} Choose "
            "another name."
        )
    return dict(more)


def _check_labels(cells: Sequence[Cell]) -> None:
    """Raise GumlabError for two methods that a table could not tell apart."""
    seen = set()
    for cell in cells:  # none twice
        settings = {f.name: getattr(cell, f.name) for f in fields(cell) if f.name != "method"}
        told = [settings, cell.method.label, cell.method.options]
        as_in_the_table = json.dumps(told, default=as_text, sort_keys=True)
        if as_in_the_table in seen:
            raise GumlabError(
                f"Two different methods of the grid are called {cell.method.label!r}, so the table "
                "could not tell their runs apart. Give each gumlab.study.Method a label of its own."
            )
        seen.add(as_in_the_table)


def _data_dirs(data_dir: Any, cells: Sequence[Cell]) -> dict[str, Any]:
    """The folder of each real task; GumlabError for one that no run would read."""
    if data_dir is None:
        return {}
    if isinstance(data_dir, Mapping):
        check_options("task in data_dir", data_dir, REAL)
        return dict(data_dir)
    if not isinstance(data_dir, str | Path):
        raise GumlabError(f"data_dir must be a folder, or {{task: folder}}; got {data_dir!r:.60}.")
    if not any(cell.task in REAL for cell in cells):
        raise GumlabError(
            f"data_dir={str(data_dir)!r} was given, but no task of the grid reads it; the tasks "
            f"that do: {', '.join(REAL)}. Leave it out."
        )
    return dict.fromkeys(REAL, data_dir)
