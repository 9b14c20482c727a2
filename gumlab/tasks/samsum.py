"""Dialogues and their summaries: SAMSum, and any file of texts with a shorter form of each.

Read from a local folder (SAMSum's train.json, val.json, test.json; the hub's parquet or CSV files;
MTS-Dialog's CSV files; CSV, JSON or JSON lines of your own), or fetched from the Hugging Face hub.
Gliwa et al. 2019, CC BY-NC-ND 4.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gumlab.tasks import Example, Task
from gumlab.tasks._files import Hub, fetch_from_hub, fill, find_files, read_rows

HUB = Hub(
    name="knkarthick/samsum",
    by_hand="train.json, val.json and test.json (SAMSum's own corpus.7z)",
)
TEXT = "dialogue|dialog|conversation|transcript|document|article|text|source|input"
SUMMARY = "summary|section_text|note|highlights|abstract|target|output"
ENDINGS = ("parquet", "jsonl", "json", "csv")
EXPECTED = (
    f"Expected files of {', '.join(ENDINGS)} whose names tell the split (train, val, test), with "
    f"the columns {TEXT} and {SUMMARY}."
)


def load(data_dir: str | Path | None = None) -> Task:
    """The task `samsum`: a dialogue and "Summary:" -> its summary.

    Parameters
    ----------
    data_dir : str or Path, optional
        A folder of parquet, JSON lines, JSON or CSV files, the first of these that is there; a
        file's name tells its split. Of the columns the first of TEXT and of SUMMARY that is there
        is taken. Without it the data comes from the hub.

    Returns
    -------
    Task
        With the metric "rouge". Rows with an empty text or summary are left out, and counted in
        `Task.notes`.

    Raises
    ------
    GumlabError
        If there are no such files or columns, or the hub cannot be reached.

    References
    ----------
    Gliwa et al. 2019, "SAMSum Corpus: A Human-annotated Dialogue Dataset for Abstractive
    Summarization".
    """
    if data_dir is None:
        sources, notes = fetch_from_hub(HUB)
    else:
        sources, notes = find_files(data_dir, ENDINGS, EXPECTED)
    return fill(Task("samsum", metric="rouge"), sources, notes, _examples)


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    for text, summary in read_rows(sources, (TEXT, SUMMARY), gaps=notes):
        yield Example(f"{_plain(text)}\nSummary:", _plain(summary))


def _plain(cell: Any) -> str:
    """A cell's text without white space around it, its lines ended as on Unix."""
    return str(cell).replace("\r\n", "\n").strip()
