"""Running text, judged by its perplexity: WikiText, and any folder of text files.

Read from a local folder (WikiText's wiki.train.raw, wiki.valid.raw, wiki.test.raw; the hub's
parquet files; any *.txt), or fetched from the Hugging Face hub (wikitext-2-raw-v1). Merity et al.
2017, CC BY-SA 3.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError
from gumlab.tasks import Example, Task
from gumlab.tasks._files import Hub, fetch, fill, find, read

HUB = Hub(
    "Salesforce/wikitext", "train-*.parquet and so on of wikitext-2-raw-v1", "wikitext-2-raw-v1"
)
ENDINGS = ("parquet", "raw", "tokens", "txt")
EXPECTED = (
    "Expected text files (*.raw, *.txt), best named after their split (train, valid, test), or "
    "train-*.parquet, validation-*.parquet and test-*.parquet (column text)."
)
PASSAGE = 2000  # characters


def load(data_dir: str | Path | None = None) -> Task:
    """The task `wikitext` (metric "perplexity"): passages of whole lines, without prompts.

    Conventions: the files of a split follow one another in the order of their names, with a line
    break between; no end-of-text token stands anywhere; a passage, of PASSAGE characters or the
    line that passes them, is tokenised by itself and joined to the one before. UTF-8, or Latin-1
    where a file is not, which `notes` says. Raises GumlabError where there are no such files.
    """
    found, notes = fetch(HUB) if data_dir is None else find(data_dir, ENDINGS, EXPECTED)
    return fill(Task("wikitext", "perplexity"), found, notes, _examples)


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    text = "\n".join(_text(source, notes) for source in sources)
    return (Example("", passage) for passage in passages(text))


def passages(text: str, size: int = PASSAGE) -> list[str]:
    """A text cut after the lines that pass `size` characters; joined it is the text again.

    >>> passages("one\\ntwo\\nthree", size=5)
    ['one\\ntwo\\n', 'three']
    """
    found, lines, length = [], [], 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line)
        if length >= size:
            found.append("".join(lines))
            lines, length = [], 0
    return [*found, "".join(lines)] if lines else found


def _text(source: Any, notes: list[str]) -> str:
    if not isinstance(source, Path) or source.suffix == ".parquet":
        rows = [text for (text,) in read([source], (), ("text",))]
        if None in rows:
            raise GumlabError(f"{source} holds no column text. {EXPECTED}")
        # One line a row; the hub's copy has "" for the corpus's empty line " \n".
        return "".join(row if row.endswith("\n") else f"{row or ' '}\n" for row in rows)
    data = source.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{source.name} is not UTF-8 and was read as Latin-1")
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n")
