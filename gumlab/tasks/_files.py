"""What the real tasks share: files found by their split's name, rows read with checks, the hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS

HUB_TIMEOUT = 5.0  # seconds
_WORDS = {
    "train": "train training",
    "validation": "val valid validation dev devel development",
    "test": "test testing",
}
_TOLD = {word: split for split, words in _WORDS.items() for word in words.split()}
Found = dict[str, list[Any]]  # the sources of each split that is there: paths, or the hub's tables


@dataclass(frozen=True)
class Hub:
    """Where a data set is on the Hugging Face hub, and what to download by hand without it."""

    name: str
    by_hand: str
    config: str | None = None
    revision: str | None = None


def split_of(name: str) -> str | None:
    """The split that a file's name tells, if it tells one.

    >>> split_of("MTS-Dialog-TrainingSet"), split_of("wiki.valid"), split_of("0000")
    ('train', 'validation', None)
    """
    words = (re.sub(r"(set|data)$", "", word) for word in re.findall("[a-z]+", name.lower()))
    return next((_TOLD[word] for word in words if word in _TOLD), None)


def find(
    data_dir: str | Path, endings: Sequence[str], expected: str, any_name: bool = False
) -> tuple[Found, list[str]]:
    """(the files of each split in a folder, in order of their names; notes on what is not there).

    Files of the first ending that is there; a file's name tells its split, or its folder's name
    where the hub's export puts it there; no deeper than two folders, as the folder may be a whole
    home directory. any_name: where no name tells a split, all is train. A file in place of the
    folder is that file alone. Raises GumlabError, with what is `expected`, where nothing is found.
    """
    folder = Path(data_dir).expanduser()
    if folder.is_file():
        split = split_of(folder.stem) or "train"
        return {split: [folder]}, [f"{folder.name} is read alone, as {split}"]
    if not folder.is_dir():
        raise GumlabError(f"There is no folder {str(folder)!r}. {expected}")
    for ending in endings:
        paths = [p for d in ("", "*/", "*/*/") for p in sorted(folder.glob(f"{d}*.{ending}"))]
        inside = [path.relative_to(folder) for path in paths]
        told = [split_of(p.stem) or split_of(p.parent.name) for p in inside]
        if any(told):
            found = {s: [p for p, t in zip(paths, told, strict=True) if t == s] for s in SPLITS}
            _one_data_set(folder, [p for p, t in zip(inside, told, strict=True) if t])
            found = {s: paths for s, paths in found.items() if paths}
            notes = missing(found, {s: f"{s}*.{ending}" for s in SPLITS})
            if any_name and (rest := told.count(None)):
                notes.append(f"{rest} *.{ending} file(s) whose names tell no split are left out")
            return found, notes
        if paths and any_name:
            return {"train": paths}, [
                "no file name tells a split (train, validation, test): all is train"
            ]
    raise GumlabError(f"None of the task's files is in {str(folder)!r}. {expected}")


def _one_data_set(folder: Path, inside: list[Path]) -> None:
    """Refuse a folder whose splits lie in several data sets, as in a copy of a hub repository."""
    homes = {str(p.parent.parent if split_of(p.parent.name) else p.parent) for p in inside}
    if len(homes) > 1:
        raise GumlabError(
            f"{str(folder)!r} holds several data sets ({', '.join(sorted(homes))}). "
            "Give the folder of one of them."
        )


def missing(found: Iterable[str], sources: dict[str, str]) -> list[str]:
    """A note for each split that was not found; `sources` are the names of its files."""
    found, notes = list(found), []
    for split in [s for s in SPLITS if s not in found]:
        what = f"the {split} split is empty"
        if split == "test" and "validation" in found:
            what = "what needs a test split uses validation and says so"
        notes.append(f"{sources[split]} is not there: {what}")
    return notes


def fetch(hub: Hub) -> tuple[Found, list[str]]:
    """The hub's tables, by split, or within seconds an error that says what to download."""
    try:
        import datasets
        import huggingface_hub

        # Asked first because `datasets` retries for half a minute where there is no network.
        # Offline mode needs no asking: it fails at once, or finds what was downloaded before.
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            huggingface_hub.HfApi().dataset_info(hub.name, timeout=HUB_TIMEOUT)
        data = datasets.load_dataset(hub.name, hub.config, revision=hub.revision)
    except Exception as error:  # of the hub, the network, the disk: all end in the same advice
        raise GumlabError(
            f"Could not reach the hub for {hub.name!r} ({type(error).__name__}): download "
            f"{hub.by_hand} and pass data_dir=<their folder>."
        ) from error
    found = {s: [data[s]] for s in SPLITS if s in data}
    return found, missing(found, {s: f"the hub's {s} split" for s in SPLITS})


def read(
    source: Any, columns: Sequence[str], optional: Sequence[str] = (), gaps: list[str] | None = None
) -> Iterator[tuple[Any, ...]]:
    """The named columns of each row of a CSV, JSON, JSON lines or parquet file, or a hub's table.

    Bars part a column's possible names ("dialogue|text"): the first that is there counts. An
    optional column that is not there gives None. A row where another column is empty is an error,
    or, with `gaps`, left out and noted there. Raises GumlabError where a file is damaged or lacks
    a column.
    """
    where, kind, rows = _open(source)
    count = left_out = 0
    try:
        names = _pick(where, list(next(rows)), columns, optional)
        for count, row in enumerate(rows, start=1):
            values = tuple(row.get(name) for name in names)
            if all(v is not None and str(v).strip() for v in values[: len(columns)]):
                yield values
            elif gaps is None:
                wanted = f"{' and '.join(columns)} to be filled"
                raise _bad_row(where, count + (kind == "CSV"), wanted, list(row.values()))
            else:
                left_out += 1
    except UnicodeDecodeError as error:
        raise GumlabError(
            f"{where} is not UTF-8 (byte {error.start}): save it as UTF-8, or download it again."
        ) from error
    except (csv.Error, ValueError, OSError, NotImplementedError) as error:  # pyarrow's are of these
        raise GumlabError(
            f"{where} cannot be read as {kind}: {error}. Download it again."
        ) from error
    if not count:
        raise GumlabError(f"{where} has a header but no rows. Download it again.")
    if left_out:
        gaps.append(f"{left_out:,} row(s) of {where} with an empty {' or '.join(columns)} left out")


def _pick(
    where: str, header: list[str], columns: Sequence[str], optional: Sequence[str]
) -> list[str]:
    """The name that each column has; an optional one that is not there may be in later rows."""
    known = [[n for n in column.split("|") if n in header] for column in (*columns, *optional)]
    if not all(known[: len(columns)]):
        have = f"columns {', '.join(header)}" if header else "nothing"
        raise GumlabError(f"{where} holds {have}; expected the columns {', '.join(columns)}.")
    return [n[0] if n else c for n, c in zip(known, (*columns, *optional), strict=True)]


def _bad_row(where: Any, number: int, wanted: str, row: Any) -> GumlabError:
    return GumlabError(
        f"{where}, row {number}: expected {wanted}; found {row!r:.80}. Mend or remove the row."
    )


def _open(source: Any) -> tuple[str, str, Iterator[Any]]:
    """(its name, its format, an iterator over its header and then its rows by column)."""
    if not isinstance(source, Path):
        return "The hub's table", "a table", chain([source.column_names], source)
    readers = {".parquet": ("parquet", _parquet), ".csv": ("CSV", _csv)}
    kind, reader = readers.get(source.suffix.lower(), ("JSON", _json))
    return str(source), kind, reader(source)


def _csv(path: Path) -> Iterator[Any]:
    # utf-8-sig: a file that went through a spreadsheet may begin with a byte order mark.
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        yield header
        for number, row in enumerate(rows, start=2):
            if len(row) == len(header):
                yield dict(zip(header, row, strict=True))
            elif row:  # an empty line stands at the end as a rule
                raise _bad_row(path, number, f"{len(header)} cells", row)


def _json(path: Path) -> Iterator[Any]:
    """A JSON list of objects, or one object a line."""
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(64).lstrip()[:1]
        file.seek(0)
        rows = json.load(file) if start == "[" else map(json.loads, filter(str.strip, file))
        header = None
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise _bad_row(path, number, "an object", row)
            row = {str(key).lower(): value for key, value in row.items()}
            if header is None:
                yield (header := list(row))
            yield row
    if header is None:
        yield []


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    yield file.schema_arrow.names
    for batch in file.iter_batches(1000):
        yield from batch.to_pylist()
