"""Tasks: prompts with the targets a model should write. A task is data; `evaluation` scores it.

Built-in tasks are generated from grammars and need no download; real ones are read from a local
folder in their publisher's format, or from the Hugging Face hub.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

from gumlab.errors import GumlabError, unknown

SPLITS = ("train", "validation", "test")
BUILT_IN = ("restaurants", "tables", "chats")
REAL = ("e2e",)


@dataclass(frozen=True)
class Example:
    """One prompt and what should follow it.

    `references` are all the good answers (the target alone where there is only one);
    `databases` are the filled tables a generated SQL query is executed on (task `tables` only):
    each maps a table's name to (column names, rows).
    """

    prompt: str
    target: str
    references: tuple[str, ...] = ()
    databases: tuple[dict[str, tuple[list[str], list[tuple]]], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.references:
            object.__setattr__(self, "references", (self.target,))


@dataclass
class Task:
    """Three lists of examples and the name of the metric that judges generated text.

    `metric` is "bleu", "rouge" or "sql" (exact match and execution accuracy).
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


def load_task(name: str, data_dir: str | Path | None = None) -> Task:
    """Load a task by name: built-in (restaurants, tables, chats) or real (e2e).

    `data_dir` is the local folder of a real task, with its publisher's file names; without it the
    task is fetched from the Hugging Face hub. Raises GumlabError for an unknown name or a missing
    file, naming what is expected.
    """
    if name not in BUILT_IN + REAL:
        raise unknown("task", name, BUILT_IN + REAL)
    module = importlib.import_module(f"gumlab.tasks.{name}")
    if name in BUILT_IN:
        if data_dir is not None:
            raise GumlabError(
                f"Task {name!r} is generated and reads no files, but data_dir={str(data_dir)!r} "
                f"was given. Leave data_dir out, or choose a real task: {', '.join(REAL)}."
            )
        return module.load()
    return module.load(data_dir)
