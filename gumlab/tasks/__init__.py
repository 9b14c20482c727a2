"""Tasks: prompts with the targets a model should write. A task is data; `evaluation` scores it.

Built-in tasks are generated from grammars and need no download; real ones are read from a local
folder in their publisher's format, or from the Hugging Face hub; your own from files with the
columns prompt and target. `batches` makes tensors of them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError, unknown

SPLITS = ("train", "validation", "test")
BUILT_IN = ("restaurants", "tables", "chats")
REAL = ("e2e", "wikisql", "samsum", "wikitext")
METRICS = ("bleu", "rouge", "sql", "logical_form", "perplexity")
OWN = (".jsonl", ".json", ".csv", ".parquet")  # endings of the files of a task of your own


@dataclass(frozen=True)
class Example:
    """One prompt and what should follow it.

    Where all prompts of a task are empty the targets are running text: joined as they are, in
    order, they make one stream of tokens (task `wikitext`).

    Parameters
    ----------
    prompt : str
        What the model is given.
    target : str
        What it should write; what it learns from.
    references : tuple of str, default (target,)
        All the good answers.
    databases : tuple of dict, default ()
        The filled tables that a generated SQL query is executed on: each maps a table's name to
        (columns, rows).
    """

    prompt: str
    target: str
    references: tuple[str, ...] = ()
    databases: tuple[dict[str, tuple[list[Any], list[tuple]]], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.references:
            object.__setattr__(self, "references", (self.target,))


@dataclass
class Task:
    """Three lists of examples and the name of the metric that judges generated text.

    Parameters
    ----------
    name : str
        What tables and messages call the task.
    metric : {"bleu", "rouge", "sql", "logical_form", "perplexity"}
        "sql" is exact match and execution accuracy; "logical_form" that of a WikiSQL query, and
        execution accuracy where there are tables; with "perplexity" nothing is generated.
    train, validation, test : list of Example, default []
        The splits.
    notes : tuple of str, default ()
        What was not there or left out when the task was read, one sentence each.
    """

    name: str
    metric: str
    train: list[Example] = field(default_factory=list, repr=False)
    validation: list[Example] = field(default_factory=list, repr=False)
    test: list[Example] = field(default_factory=list, repr=False)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> list[Example]:
        """The examples of one split.

        Parameters
        ----------
        name : {"train", "validation", "test"}

        Returns
        -------
        list of Example
            One or more.

        Raises
        ------
        GumlabError
            If there is no such split, or no example in it.
        """
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        examples = getattr(self, name)
        if not examples:
            filled = [split for split in SPLITS if getattr(self, split)]
            raise GumlabError(
                f"Task {self.name!r} has no {name} examples. It has: {', '.join(filled) or 'none'}."
                " Choose one of those, or add the missing file to the task's folder."
            )
        return examples

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in SPLITS)
        return f"Task({self.name}: {sizes}; metric {self.metric})"


def load_task(
    name: str | Path, data_dir: str | Path | None = None, *, metric: str | None = None
) -> Task:
    """Load a task: a built-in one, a real data set, or your own by its path.

    Parameters
    ----------
    name : str or Path
        Built-in: "restaurants", "tables", "chats". Real: "e2e", "wikisql", "samsum", "wikitext".
        Or the path of your own: a .jsonl, .json, .csv or .parquet file, or a folder with one for
        each of train, validation and test, whose rows have a prompt and a target, and if there are
        several good answers a list of references.
    data_dir : str or Path, optional
        The local folder of a real task, with its publisher's file names. Without it the task is
        fetched from the Hugging Face hub.
    metric : str, optional
        Judge it by another metric than its usual one (your own: "bleu").

    Returns
    -------
    Task
        `Task.notes` says what was not there or left out.

    Raises
    ------
    GumlabError
        For an unknown name or metric, a `data_dir` for a built-in task, and files that are missing
        or damaged, naming what is expected.
    """
    if metric is not None and metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if name in BUILT_IN:
        if data_dir is not None:
            raise GumlabError(
                f"Task {name!r} is generated and reads no files, but data_dir={str(data_dir)!r} "
                f"was given. Leave data_dir out, or choose a real task: {', '.join(REAL)}."
            )
        task = _module(str(name)).load()
    elif name in REAL:
        task = _module(str(name)).load(data_dir)
    elif _is_path(name) and data_dir is None:
        task = _module("own").load(name)
    else:
        raise unknown("task", name, (*BUILT_IN, *REAL, "or the path of your own"))
    if metric is not None:
        task.metric = metric
    return task


def _module(name: str) -> Any:
    """The module of one task, imported only when that task is loaded."""
    return importlib.import_module(f"gumlab.tasks.{name}")


def _is_path(name: str | Path) -> bool:
    """True for a path, and for text that only a path would be."""
    path = Path(name).expanduser()
    is_nested = len(path.parts) > 1
    return isinstance(name, Path) or path.exists() or is_nested or path.suffix in OWN
