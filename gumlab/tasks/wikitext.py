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
from gumlab.tasks._files import (
    Hub,
    fetch_folder,
    fetch_from_hub,
    fill,
    find_files,
    read_rows,
)
from gumlab.tasks._readers import check_no_nul, encoding_of

HUB = Hub(
    name="Salesforce/wikitext",
    by_hand="train-*.parquet and so on of wikitext-2-raw-v1",
    config="wikitext-2-raw-v1",
)
HUB_103 = Hub(  # fifty times as much, with <unk> in the place of rare words: the paper's text
    name="Salesforce/wikitext",
    by_hand="train-*.parquet and so on of wikitext-103-v1",
    config="wikitext-103-v1",
)
ENDINGS = ("parquet", "raw", "tokens", "txt")
EXPECTED = (
    "Expected text files (*.raw, *.txt), best named after their split (train, valid, test), or "
    "train-*.parquet, validation-*.parquet and test-*.parquet (column text)."
)
PASSAGE = 2000  # characters


def load(data_dir: str | Path | None = None) -> Task:
    """The task `wikitext`: passages of whole lines, without prompts.

    Parameters
    ----------
    data_dir : str or Path, optional
        A folder with files of one of ENDINGS, the first that is there; a file's name tells its
        split. Without it the data comes from the hub.

    Returns
    -------
    Task
        With the metric "perplexity".

    Raises
    ------
    GumlabError
        If there are no such files, or the hub cannot be reached.

    Notes
    -----
    The files of a split follow one another in the order of their names, with a line break between;
    no end-of-text token stands anywhere; a passage, of PASSAGE characters or the line that passes
    them, is tokenised by itself and joined to the one before. Files are UTF-8, or what their byte
    order mark says, or Latin-1 where a file is neither, which `Task.notes` says.

    References
    ----------
    Merity et al. 2017, "Pointer Sentinel Mixture Models".
    """
    if data_dir is None:
        sources, notes = fetch_from_hub(HUB)
    else:
        sources, notes = find_files(data_dir, ENDINGS, EXPECTED)
    return fill(Task("wikitext", metric="perplexity"), sources, notes, _examples)


def fetch_103() -> Path:
    """The folder of Wikitext-103's files, in the hub's cache; fetched where they are not there.

    Returns
    -------
    Path
        For `load`.

    Raises
    ------
    GumlabError
        If the hub cannot be reached.
    """
    return fetch_folder(HUB_103)


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    text = "\n".join(_text(source, notes) for source in sources)
    for passage in passages(text):
        yield Example("", passage)


def passages(text: str, size: int = PASSAGE) -> list[str]:
    """A text cut after the lines that pass `size` characters; joined it is the text again.

    Parameters
    ----------
    text : str
    size : int, default PASSAGE
        Characters.

    Returns
    -------
    list of str

    Examples
    --------
    >>> passages("one\\ntwo\\nthree", size=5)
    ['one\\ntwo\\n', 'three']
    """
    finished: list[str] = []
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line)
        if length >= size:
            finished.append("".join(lines))
            lines = []
            length = 0
    if lines:
        finished.append("".join(lines))
    return finished


def _text(source: Any, notes: list[str]) -> str:
    """The whole text of a file or a hub's table; what is not UTF-8 is noted."""
    if not isinstance(source, Path) or source.suffix == ".parquet":
        return _text_of_rows(source)
    data = source.read_bytes()
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise GumlabError(f"{source} is damaged: it is no {encoding.upper()}.") from None
        notes.append(f"{source.name} is not UTF-8 and was read as Latin-1")
        text = data.decode("latin-1")
    check_no_nul(text, source)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _text_of_rows(source: Any) -> str:
    """The text of a table with one line a row."""
    lines = []
    for (line,) in read_rows([source], (), optional=("text",)):
        if line is None:
            raise GumlabError(f"{source} holds no column text. {EXPECTED}")
        if not line:
            lines.append(" \n")  # the hub's copy has "" for the corpus's empty line " \n"
        elif line.endswith("\n"):
            lines.append(line)
        else:
            lines.append(f"{line}\n")
    return "".join(lines)
