"""Tasks: prompts with the targets a model should write. A task is data; `evaluation` scores it.

Built-in tasks are generated from grammars and need no download; real ones are read from a local
folder in their publisher's format, or from the Hugging Face hub; your own from files or tables with
the columns prompt and target. `batches` makes tensors of them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gumlab.errors import GumlabError, nearest, unknown
from gumlab.tasks._texts import Chat, check_text, messages_of

SPLITS = ("train", "validation", "test")
BUILT_IN = ("restaurants", "tables", "chats")
REAL = ("e2e", "wikisql", "samsum", "wikitext")
METRICS = ("bleu", "rouge", "sql", "logical_form", "perplexity")
OWN = (".jsonl", ".json", ".csv", ".tsv", ".parquet")  # endings of the files of a task of your own


@dataclass(frozen=True)
class Example:
    """One prompt and what should follow it.

    Where all prompts of a task are empty the targets are running text: joined as they are, in
    order, they make one stream of tokens (task `wikitext`).

    Parameters
    ----------
    prompt : str, or list of dict
        What the model is given. A list of messages, each a dict with role and content, is a chat:
        it reads as "user: hello", and the tokenizer's own chat template writes it for a model.
    target : str
        What it should write; what it learns from.
    references : iterable of str, default (target,)
        All the good answers.
    databases : tuple of dict, default ()
        The filled tables that a generated SQL query is executed on: each maps a table's name to
        (columns, rows).

    Raises
    ------
    GumlabError
        For what is no text, or one that no tokenizer takes (a lone surrogate).
    """

    prompt: str
    target: str
    references: tuple[str, ...] = ()
    databases: tuple[dict[str, tuple[list[Any], list[tuple]]], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.prompt, list | tuple):
            chat = Chat(messages_of(self.prompt, "An example's prompt"))
            object.__setattr__(self, "prompt", chat)
        else:
            check_text(self.prompt, "An example's prompt")
        check_text(self.target, "An example's target")
        if isinstance(self.references, str):
            raise GumlabError(
                f"An example's references are several texts; got one, {self.references!r:.60}. "
                "Write (text,)."
            )
        references = tuple(self.references or ()) or (self.target,)
        for reference in references:
            check_text(reference, "An example's reference")
        object.__setattr__(self, "references", references)


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
        The splits. Texts are running text, rows are dicts with prompt and target.
    notes : tuple of str, default ()
        What was not there or left out when the task was read, one sentence each.
    """

    name: str
    metric: str
    train: list[Example] = field(default_factory=list, repr=False)
    validation: list[Example] = field(default_factory=list, repr=False)
    test: list[Example] = field(default_factory=list, repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in SPLITS:
            given = getattr(self, split)
            setattr(self, split, _module("own").examples_in(given) if given is not None else [])

    @classmethod
    def generated(cls, name: str, metric: str, write: Callable[[str], Sequence[Example]]) -> Task:
        """A task whose splits are each written when they are first read.

        Parameters
        ----------
        name, metric : str
        write : callable
            Gives the examples of a split by its name.
        """
        task = cls(name, metric)
        for split in SPLITS:
            delattr(task, split)
        vars(task)["_write"] = write
        return task

    if not TYPE_CHECKING:  # where types are checked, a name that is not above is a mistake

        def __getattr__(self, name: str) -> list[Example]:
            write = vars(self).get("_write")
            if write is None or name not in SPLITS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            examples = list(write(name))
            setattr(self, name, examples)
            return examples

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


def load_task(name: Any, data_dir: str | Path | None = None, *, metric: str | None = None) -> Task:
    """Load a task: a built-in one, a real data set, or your own by its path or as rows.

    Parameters
    ----------
    name : str or Path, or rows
        Built-in: "restaurants", "tables", "chats". Real: "e2e", "wikisql", "samsum", "wikitext".
        Or the path of your own: a .jsonl, .json, .csv, .tsv or .parquet file, or a folder with one
        for each of train, validation and test, whose rows have a prompt and a target, and if there
        are several good answers a list of references. Or your own in memory: a `datasets.Dataset`
        or `DatasetDict`, a pandas DataFrame, a list of dicts, of chats or of texts.
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
        or damaged, naming what is expected. For a cell that cannot become text, naming its row and
        column.

    Warns
    -----
    UserWarning
        Once, of your own: how many rows were left out, and how many test examples are also in
        train.

    Notes
    -----
    Of your own, a number is written as Python writes it (a rating of 3 is "3", 0.5 is "0.5"). A
    missing value (null, NaN), a truth value, a list, a date is refused. A row whose prompt or
    target is empty text is left out and counted. White space around a target goes. A chat is a
    list of messages with role and content, as the prompt of a target, or under "messages" with the
    answer at its end. A target may also be called completion.
    """
    if metric is not None and metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if data_dir is not None and (not isinstance(data_dir, str | os.PathLike) or data_dir == ""):
        raise GumlabError(f"data_dir must be the path of a folder; got {data_dir!r}.")
    if not isinstance(name, str) or _is_path(name):
        task = _load_own(name, data_dir)
    elif name in BUILT_IN:
        if data_dir is not None:
            raise GumlabError(
                f"Task {name!r} is generated and reads no files, but data_dir={str(data_dir)!r} "
                f"was given. Leave data_dir out, or choose a real task: {', '.join(REAL)}."
            )
        task = _module(name).load()
    elif name in REAL:
        task = _module(name).load(data_dir)
    else:
        sentence = unknown("task", name, (*BUILT_IN, *REAL, "or the path of your own"))
        if data_dir is None or nearest(name, REAL):
            raise sentence
        raise GumlabError(f"{sentence} {_by_its_path(name, data_dir)}")
    if metric is not None:
        task.metric = metric
    if task.metric != "perplexity" and not _has_prompts(task):
        raise GumlabError(
            f"Task {task.name!r} is running text, to which nothing is answered: it has no "
            f'{task.metric}. Leave metric out (it is "perplexity").'
        )
    return task


def _has_prompts(task: Task) -> bool:
    """Whether any example has a prompt; one that is written when it is read always has."""
    if "_write" in vars(task):
        return True
    return any(example.prompt for split in reversed(SPLITS) for example in getattr(task, split))


def _module(name: str) -> Any:
    """The module of one task, imported only when that task is loaded."""
    return importlib.import_module(f"gumlab.tasks.{name}")


def _load_own(data: Any, data_dir: str | Path | None) -> Task:
    """The task of a path or of rows, which no folder belongs to."""
    if data_dir is not None:
        given = repr(str(data)) if isinstance(data, str | os.PathLike) else type(data).__name__
        raise GumlabError(
            f"A task of your own is one path, or rows; {given} was given, and "
            f"data_dir={str(data_dir)!r}. {_by_its_path(data, data_dir)}"
        )
    return _module("own").load(data)


def _by_its_path(data: Any, data_dir: str | Path) -> str:
    """What to do about a task of one's own that was given a folder beside."""
    sentence = f"Leave data_dir out: it is the folder of a real task ({', '.join(REAL)})."
    if not isinstance(data, str | os.PathLike):
        return sentence
    there = [path for path in (Path(data_dir, data), Path(data), Path(data_dir)) if path.exists()]
    example = str(there[0]) if there else "folder/file.jsonl"
    return f"{sentence} A task of your own is its path alone: load_task({example!r})."


def _is_path(name: str) -> bool:
    """True for text that only a path would be; a task's name is none, even of a folder."""
    if name in ("", *BUILT_IN, *REAL):
        return False
    path = Path(name).expanduser()
    is_nested = len(path.parts) > 1
    return path.exists() or is_nested or path.suffix in OWN
