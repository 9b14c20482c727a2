"""A task of your own: rows with a prompt, a target, and perhaps more good answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError, warn_caller
from gumlab.tasks import BUILT_IN, OWN, REAL, SPLITS, Example, Task
from gumlab.tasks._files import fill, find_files, notes_on_missing, read_rows, split_of
from gumlab.tasks._readers import has_columns, is_frame, open_table
from gumlab.tasks._texts import Chat, Message, Place, check_no_list, is_chat, messages_of, text_of

EXPECTED = (
    f"Expected a {', '.join(OWN)} file, or a folder with train.jsonl, validation.jsonl "
    "and test.jsonl, with the columns prompt and target (and references, a list)."
)
COLUMNS = ("prompt", "target|completion")
NAMES = {"prompt", "target", "completion"}


def load(data: Any) -> Task:
    """The task in a file or folder, named after it, or in rows in memory.

    Parameters
    ----------
    data : str or Path, or as `examples_in` takes it
        A file, whose name may tell its split, or a folder of such files. All is train where no
        name tells a split, and `Task.notes` says so. A `datasets.DatasetDict`, or another dict of
        train, validation and test, has splits; other rows are train.

    Returns
    -------
    Task
        With the metric "bleu"; "perplexity" where all is running text. An example's target is its
        first reference.

    Raises
    ------
    GumlabError
        If there are no such files, or they lack the columns prompt and target, and for a cell that
        cannot become text, naming its row and column.

    Warns
    -----
    UserWarning
        Once, with counts: rows with an empty prompt or target that were left out, and examples of
        validation or test that are also in train.
    """
    left_out: list[str] = []
    if isinstance(data, os.PathLike | str):
        task = _from_files(Path(data).expanduser(), left_out)
    else:
        task = _from_memory(data, left_out)
    left_out += _seen_in_training(task)
    if left_out:
        task.notes += tuple(left_out)
        warn_caller(f"Task {task.name!r}: {'; '.join(left_out)}.")
    return task


def _from_files(path: Path, left_out: list[str]) -> Task:
    if not path.exists():
        raise GumlabError(f"There is no file or folder {str(path)!r}. {EXPECTED}")
    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        raise GumlabError(
            f"{str(path)!r} was saved by the package datasets: "
            f"load_task(datasets.load_from_disk({str(path)!r}))."
        )
    if path.suffix in (".txt", ".raw", ".tokens"):
        raise GumlabError(
            f"{str(path)!r} has no columns; as running text: "
            f'load_task("wikitext", {str(path)!r}). {EXPECTED}'
        )
    endings = [ending.removeprefix(".") for ending in OWN]
    sources, notes = find_files(path, endings, EXPECTED)
    for split, paths in sources.items():
        if len(paths) > 1:
            notes.append(f"{split} is {', '.join(path.name for path in paths)}, one after another")
    task = Task(path.resolve().stem, metric="bleu")
    return fill(task, sources, notes, lambda tables, _: _examples(tables, left_out))


def _from_memory(data: Any, left_out: list[str]) -> Task:
    splits = {"train": data}
    if isinstance(data, Mapping):
        splits = {split: data[name] for name in data for split in [split_of(str(name))] if split}
        if not splits or len(splits) < len(data):
            raise GumlabError(
                f"The dict has the keys {', '.join(map(str, data))}; expected rows for one or each "
                f"of {', '.join(SPLITS)}. Of columns, make rows: datasets.Dataset.from_dict(data)."
            )
    found = {split: examples_in(rows, left_out) for split, rows in splits.items()}
    notes = notes_on_missing(found, {split: f"the {split} split" for split in SPLITS})
    if not any(found.values()):
        raise GumlabError("There are no rows in the data; expected one or more.")
    is_text = all(not example.prompt for examples in found.values() for example in examples)
    return Task("own", "perplexity" if is_text else "bleu", **found, notes=tuple(notes))


def examples_in(data: Any, left_out: list[str] | None = None) -> list[Example]:
    """The examples in what may be given in the place of a task.

    Parameters
    ----------
    data : iterable
        Examples; texts, which are running text; rows, each a dict with prompt and target, or a
        chat (a list of messages, each a dict with role and content, of which the last is what the
        model should write) by itself or under "messages"; a `datasets.Dataset` or a pandas
        DataFrame of such rows. One text is a list of one.
    left_out : list of str, optional
        Gets the counts of what was left out; without it they are a warning.

    Returns
    -------
    list of Example
        `data` itself if that is what it is.

    Raises
    ------
    GumlabError
        For anything else, naming the row.
    """
    if isinstance(data, str | os.PathLike):
        return [Example("", _no_name(data))]
    if isinstance(data, Task | Mapping | bytes | set) or not hasattr(data, "__iter__"):
        raise GumlabError(
            f"Expected examples, texts or rows; got {type(data).__name__} {data!r:.60}. A list of "
            "texts is running text, a list of dicts with prompt and target is rows; what has "
            "splits goes through gumlab.load_task, and of a task take one: task.train."
        )
    is_table = is_frame(data) or has_columns(data)
    items = data if is_table or isinstance(data, list) else list(data)
    if is_table or (items and all(_is_row(item) for item in items)):
        counts: list[str] = []
        rows = items if is_table else [_as_row(item) for item in items]
        found = list(_examples([rows], counts))
        if left_out is not None:
            left_out += counts
        elif counts:
            warn_caller(f"{'; '.join(counts)}.")
        return found
    for number, item in enumerate(items):
        if not isinstance(item, Example | str):
            raise GumlabError(
                f"Example {number} is {type(item).__name__} {item!r:.60}; expected an Example (a "
                "prompt and a target) or a text. gumlab.load_task makes examples of files and rows."
            )
    if all(isinstance(item, Example) for item in items):
        return items
    return [Example("", item) if isinstance(item, str) else item for item in items]


def _no_name(text: str | os.PathLike) -> str:
    """A text, if it is not rather the name of a task or a path."""
    is_short = len(str(text)) < 1000  # a longer one is none, and the system would say so
    is_file = is_short and (Path(text).suffix in OWN or Path(text).exists())
    if isinstance(text, str) and text not in (*BUILT_IN, *REAL) and not is_file:
        return text
    raise GumlabError(
        f"Expected a task or examples, got the name {str(text)!r}. Load it first: "
        f"gumlab.load_task({str(text)!r})."
    )


def _is_row(item: Any) -> bool:
    return isinstance(item, Mapping) or is_chat(item)


def _as_row(item: Any) -> Mapping[str, Any]:
    """A row's cells by column; a chat by itself is a row of messages."""
    return item if isinstance(item, Mapping) else {"messages": item}


def _examples(sources: list[Any], left_out: list[str]) -> Iterator[Example]:
    """One example a row; what is said twice among its answers counts once."""
    for source in sources:
        table = open_table(source)
        if "messages" in table.header and not NAMES.intersection(table.header):
            for (chat,) in read_rows([table], ("messages",), gaps=left_out, read=_read):
                yield Example(Chat(chat[:-1]), chat[-1].content.strip())
            continue
        if {"target", "completion"} <= set(table.header):
            raise GumlabError(
                f"{table.name} has both the columns target and completion, and one would be left "
                "out. Remove one of them; more good answers belong into references, a list."
            )
        rows = read_rows([table], COLUMNS, ("references",), left_out, _read)
        for prompt, target, references in rows:
            if not isinstance(target, str):
                if not isinstance(prompt, Chat):
                    raise GumlabError(
                        f"{table.name}: the target after {prompt!r:.60} is a chat, the prompt is a "
                        "text. Write both as messages, or both as texts."
                    )
                target = target[-1].content
            answers = [target, *(references or ())]
            texts = tuple(dict.fromkeys(answer.strip() for answer in answers))
            yield Example(prompt, texts[0], texts)


def _read(cell: Any, place: Place) -> Any:
    """What a cell of a task is: a text, a chat, or of references texts."""
    if place.column == "references":
        return _references(cell, place)
    if place.column == "messages" or is_chat(cell):
        return _messages(cell, place)
    text = text_of(cell, place)
    check_no_list(text, place, of=dict)
    return text.replace("\r\n", "\n")  # of a file that was saved on Windows


def _references(cell: Any, place: Place) -> list[str]:
    """The other good answers: a list of texts, or one."""
    if isinstance(cell, list | tuple) and not is_chat(cell):
        return [text_of(item, place).replace("\r\n", "\n") for item in cell]
    text = text_of(cell, place).replace("\r\n", "\n")
    check_no_list(text, place, of=str)
    return [text] if text.strip() else []


def _messages(cell: Any, place: Place) -> Chat | list[Message]:
    """A prompt's chat; or a whole one, or the target's, which the assistant ends."""
    if not is_chat(cell):
        raise GumlabError(
            f"{place}: expected a list of messages, each with role and content; got {cell!r:.60}."
        )
    chat = messages_of(cell, place)
    if place.column == "prompt":
        return Chat(chat)
    fits = len(chat) == 1 if place.column != "messages" else len(chat) > 1
    last = chat[-1]
    if not fits or last.role != "assistant" or not last.content.strip():
        before = "messages before it" if place.column == "messages" else "no other message"
        raise GumlabError(
            f"{place}: expected the assistant's message at the end, with a text, and {before}; got "
            f"{len(chat)} message(s), the last of {last.role}: {last.content!r:.40}."
        )
    return chat


def _seen_in_training(task: Task) -> list[str]:
    """A sentence for each split that has examples of train."""
    known = {(example.prompt, example.target) for example in task.train if example.prompt}
    sentences = []
    for split in ("validation", "test"):
        examples = getattr(task, split)
        seen = sum((example.prompt, example.target) in known for example in examples)
        if seen:
            sentences.append(
                f"{seen:,} of {len(examples):,} {split} examples are also in train, where they are "
                "learned by heart"
            )
    return sentences
