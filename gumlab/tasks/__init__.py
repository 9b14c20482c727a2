"""Tasks: prompts with the targets a model should write. A task is data; `evaluation` scores it.

Built-in tasks are generated from grammars and need no download; real ones are read from a local
folder in their publisher's format, or from the Hugging Face hub.
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

    `references` are all the good answers (the target alone where there is only one);
    `databases` are the filled tables a generated SQL query is executed on: each maps a table's name
    to (columns, rows). Where all prompts are empty the targets are running text: joined as they
    are, in order, they make one stream of tokens (task `wikitext`).
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

    `metric` is "bleu", "rouge", "sql" (exact match and execution accuracy), "logical_form" (of a
    WikiSQL query, and execution accuracy where there are tables), or "perplexity" (nothing is
    generated).
    """

    name: str
    metric: str
    train: list[Example] = field(default_factory=list, repr=False)
    validation: list[Example] = field(default_factory=list, repr=False)
    test: list[Example] = field(default_factory=list, repr=False)
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> list[Example]:
        """The examples of one split; a split that is missing or empty is an error that says so."""
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        examples = getattr(self, name)
        if not examples:
            have = [s for s in SPLITS if getattr(self, s)]
            raise GumlabError(
                f"Task {self.name!r} has no {name} examples. It has: {', '.join(have) or 'none'}. "
                "Choose one of those, or add the missing file to the task's folder."
            )
        return examples

    def __repr__(self) -> str:
        sizes = ", ".join(f"{s} {len(getattr(self, s)):,}" for s in SPLITS)
        return f"Task({self.name}: {sizes}; metric {self.metric})"


def load_task(
    name: str | Path, data_dir: str | Path | None = None, *, metric: str | None = None
) -> Task:
    """Load a task: built-in (restaurants, tables, chats), real (e2e, wikisql, samsum, wikitext), or
    your own by its path.

    `data_dir` is the local folder of a real task, with its publisher's file names; without it the
    task is fetched from the Hugging Face hub. A task of your own is a .jsonl, .json, .csv or
    .parquet file, or a folder with one for each of train, validation and test, whose rows have a
    prompt and a target, and if there are several good answers a list of references. `metric`
    judges it by another metric than its usual one (your own: bleu). Raises GumlabError for an
    unknown name or metric or a missing file, naming what is expected.
    """
    if metric is not None and metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if name in BUILT_IN and data_dir is not None:
        raise GumlabError(
            f"Task {name!r} is generated and reads no files, but data_dir={str(data_dir)!r} "
            f"was given. Leave data_dir out, or choose a real task: {', '.join(REAL)}."
        )
    if name in BUILT_IN + REAL:
        module = importlib.import_module(f"gumlab.tasks.{name}")
        task = module.load() if name in BUILT_IN else module.load(data_dir)
    elif _is_path(name) and data_dir is None:
        task = importlib.import_module("gumlab.tasks.own").load(name)
    else:
        raise unknown("task", name, (*BUILT_IN, *REAL, "or the path of your own"))
    task.metric = metric or task.metric
    return task


def _is_path(name: str | Path) -> bool:
    path = Path(name).expanduser()
    return isinstance(name, Path) or path.exists() or len(path.parts) > 1 or path.suffix in OWN
