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
from gumlab.tasks._files import Hub, fetch, fill, find, read

HUB = Hub("knkarthick/samsum", "train.json, val.json and test.json (SAMSum's own corpus.7z)")
TEXT = "dialogue|dialog|conversation|transcript|document|article|text|source|input"
SUMMARY = "summary|section_text|note|highlights|abstract|target|output"
ENDINGS = ("parquet", "jsonl", "json", "csv")
EXPECTED = (
    f"Expected files of {', '.join(ENDINGS)} whose names tell the split (train, val, test), with "
    f"the columns {TEXT} and {SUMMARY}."
)


def load(data_dir: str | Path | None = None) -> Task:
    """The task `samsum` (metric "rouge"): a dialogue and "Summary:" -> its summary.

    `data_dir` is a folder of parquet, JSON lines, JSON or CSV files, the first of these that is
    there. The name of a file tells its split; of the columns the first of TEXT and of SUMMARY that
    is there is taken. Rows with an empty one are left out and counted in `notes`. Raises
    GumlabError where there are no such files or columns, or the hub cannot be reached.
    """
    found, notes = fetch(HUB) if data_dir is None else find(data_dir, ENDINGS, EXPECTED)
    return fill(Task("samsum", "rouge"), found, notes, _examples)


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    for pair in read(sources, (TEXT, SUMMARY), gaps=notes):
        text, summary = (str(part).replace("\r\n", "\n").strip() for part in pair)
        yield Example(f"{text}\nSummary:", summary)
