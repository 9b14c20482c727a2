"""A task of your own: rows with a prompt, a target, and perhaps more good answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gumlab.errors import GumlabError
from gumlab.tasks import OWN, Example, Task
from gumlab.tasks._files import fill, find, read

EXPECTED = (
    "Expected a .jsonl, .json, .csv or .parquet file, or a folder with train.jsonl, "
    "validation.jsonl and test.jsonl, with the columns prompt and target (and references, a list)."
)


def load(path: str | Path) -> Task:
    """The task in a file or folder (metric "bleu"), named after it.

    The file's name tells its split; all is train where no name does, and `notes` says so. The
    target is the first reference. Raises GumlabError where there are no such files or columns.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise GumlabError(f"There is no file or folder {str(path)!r}. {EXPECTED}")
    found, notes = find(path, [ending[1:] for ending in OWN], EXPECTED)
    return fill(Task(path.resolve().stem, "bleu"), found, notes, _examples)


def _examples(sources: list[Path], notes: list[str]) -> Iterator[Example]:
    for prompt, target, more in read(sources, ("prompt", "target"), ("references",), gaps=notes):
        answers = [target, *(more if isinstance(more, list) else [more] if more else [])]
        texts = tuple(dict.fromkeys(str(answer).strip() for answer in answers))
        yield Example(str(prompt), texts[0], texts)
