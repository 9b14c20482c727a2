"""A task of your own: rows with a prompt, a target, and perhaps more good answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gumlab.errors import GumlabError
from gumlab.tasks import OWN, Example, Task
from gumlab.tasks._files import fill, find_files, read_rows

EXPECTED = (
    "Expected a .jsonl, .json, .csv or .parquet file, or a folder with train.jsonl, "
    "validation.jsonl and test.jsonl, with the columns prompt and target (and references, a list)."
)


def load(path: str | Path) -> Task:
    """The task in a file or folder, named after it.

    Parameters
    ----------
    path : str or Path
        A file, whose name may tell its split, or a folder of such files. All is train where no
        name tells a split, and `Task.notes` says so.

    Returns
    -------
    Task
        With the metric "bleu". An example's target is its first reference.

    Raises
    ------
    GumlabError
        If there are no such files, or they lack the columns prompt and target.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise GumlabError(f"There is no file or folder {str(path)!r}. {EXPECTED}")
    endings = [ending.removeprefix(".") for ending in OWN]
    sources, notes = find_files(path, endings, EXPECTED)
    return fill(Task(path.resolve().stem, metric="bleu"), sources, notes, _examples)


def _examples(sources: list[Path], notes: list[str]) -> Iterator[Example]:
    """One example a row; what is said twice among its answers counts once."""
    rows = read_rows(sources, ("prompt", "target"), optional=("references",), gaps=notes)
    for prompt, target, references in rows:
        answers = [target]
        if isinstance(references, list):
            answers += references
        elif references:
            answers.append(references)
        texts = tuple(dict.fromkeys(str(answer).strip() for answer in answers))
        yield Example(str(prompt), texts[0], texts)
