"""What the real tasks share: files found by their split's name, rows read with checks, the hub."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, Example, Task

HUB_TIMEOUT = 5.0  # seconds
_VALIDATION = ("val", "valid", "validation", "dev", "devel", "development")
_TOLD = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_TOLD |= dict.fromkeys(_VALIDATION, "validation")
Found = dict[str, list[Any]]  # the sources of each split that is there: paths, or the hub's tables


class Hub(NamedTuple):
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


def find(data_dir: str | Path, endings: Sequence[str], expected: str) -> tuple[Found, list[str]]:
    """(the files of each split in a folder, in order of their names; notes on what is not there).

    Files of the first ending that is there, told by their names, or by their folders' as in the
    hub's export; no deeper than two folders, as the folder may be a whole home directory. Where no
    name tells a split all is train; a file in place of the folder is that file alone. Raises
    GumlabError, with what is `expected`, where nothing is found.
    """
    folder = Path(data_dir).expanduser()
    if folder.is_file():
        told = split_of(folder.stem) or "train"
        return {told: [folder]}, [f"{folder.name} is read alone, as {told}"]
    if not folder.is_dir():
        raise GumlabError(f"There is no folder {str(folder)!r}. {expected}")
    for ending in endings:
        found: Found = {}
        homes, rest = set(), []
        for path in (p for d in ("", "*/", "*/*/") for p in sorted(folder.glob(f"{d}*.{ending}"))):
            inside = path.relative_to(folder)
            by_folder = split_of(inside.parent.name)
            if split := split_of(inside.stem) or by_folder:
                found.setdefault(split, []).append(path)
                homes.add(str(inside.parent.parent if by_folder else inside.parent))
            else:
                rest.append(path)
        if len(homes) > 1:  # a copy of a hub repository
            names = ", ".join(sorted(homes))
            raise GumlabError(
                f"{str(folder)!r} holds several data sets ({names}). Give the folder of one."
            )
        if found:
            notes = missing(found, {s: f"{s}*.{ending}" for s in SPLITS})
            if rest:
                notes.append(f"{len(rest)} *.{ending} file(s) that tell no split are left out")
            return {s: found[s] for s in SPLITS if s in found}, notes
        if rest:
            note = "no file name tells a split (train, validation, test): all is train"
            return {"train": rest}, [note]
    raise GumlabError(f"None of the task's files is in {str(folder)!r}. {expected}")


def missing(found: Iterable[str], sources: dict[str, str]) -> list[str]:
    """A note for each split that was not found; `sources` are the names of its files."""
    notes = {split: f"the {split} split is empty" for split in SPLITS if split not in found}
    if "test" in notes and "validation" in found:
        notes["test"] = "what needs a test split uses validation and says so"
    return [f"{sources[split]} is not there: {what}" for split, what in notes.items()]


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


def fill(
    task: Task,
    found: Found,
    notes: list[str],
    examples: Callable[[list[Any], list[str]], Iterable[Example]],
) -> Task:
    """The task with the examples of each split's sources, and all notes, also theirs."""
    for split, sources in found.items():
        getattr(task, split).extend(examples(sources, notes))
    task.notes = tuple(notes)
    return task


def read(
    sources: Iterable[Any],
    columns: Sequence[str],
    optional: Sequence[str] = (),
    gaps: list[str] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """The named columns of the rows of CSV, JSON, JSON lines or parquet files, or hub's tables.

    Bars part a column's possible names ("dialogue|text"): the first that is there counts. An
    optional column that is not there gives None. A row where another column is empty is an error,
    or, with `gaps`, left out and noted there. Raises GumlabError where a file is damaged or lacks
    a column.
    """
    for source in sources:
        where = source if isinstance(source, Path) else "The hub's table"
        header, rows = _open(source)
        known = [[n for n in c.split("|") if n in header] for c in (*columns, *optional)]
        if not all(known[: len(columns)]):
            have = f"columns {', '.join(header)}" if header else "nothing"
            raise GumlabError(f"{where} holds {have}; expected the columns {', '.join(columns)}.")
        names = [n[0] if n else c for n, c in zip(known, (*columns, *optional), strict=True)]
        count = left_out = 0
        for count, row in enumerate(rows, start=1):
            values = tuple(row.get(name) for name in names)
            full = all(v is not None and str(v).strip() for v in values[: len(columns)])
            if None in row or not (full or gaps is not None):  # None: csv's name for more cells
                raise GumlabError(
                    f"{where}, row {count + 1}: expected {len(header)} cells, "
                    f"{' and '.join(columns)} filled; found {list(row.values())!r:.80}. Mend or "
                    "remove the row."
                )
            left_out += not full
            if full:
                yield values
        if not count:
            raise GumlabError(f"{where} has a header but no rows. Download it again.")
        if left_out and gaps is not None:
            what = " or ".join(columns)
            gaps.append(f"{left_out:,} row(s) of {where} with an empty {what} left out")


def _open(source: Any) -> tuple[Sequence[str], Iterable[dict[str | None, Any]]]:
    """(its columns, its rows by column) of a file or a hub's table."""
    if not isinstance(source, Path):
        return source.column_names, source
    kind = {".csv": "CSV", ".parquet": "parquet"}.get(source.suffix.lower(), "JSON")
    try:
        if kind == "parquet":
            import pyarrow.parquet

            file = pyarrow.parquet.ParquetFile(source)
            batches = file.iter_batches(1000)
            return file.schema_arrow.names, (row for b in batches for row in b.to_pylist())
        # utf-8-sig: a file that went through a spreadsheet may begin with a byte order mark.
        text = source.read_bytes().decode("utf-8-sig")
        if kind == "CSV":
            reader = csv.DictReader(io.StringIO(text, newline=""))
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            return reader.fieldnames, list(reader)
        whole = text.lstrip().startswith("[")
        rows = json.loads(text) if whole else map(json.loads, filter(str.strip, text.split("\n")))
        rows = [{key.lower(): value for key, value in row.items()} for row in rows]
        return list(rows[0]) if rows else [], rows
    except UnicodeDecodeError as error:
        raise GumlabError(
            f"{source} is not UTF-8 (byte {error.start}): save it as UTF-8, or download it again."
        ) from error
    # pyarrow's are ValueErrors, OSErrors and NotImplementedErrors; a row that is no object has none
    except (csv.Error, ValueError, OSError, NotImplementedError, AttributeError) as error:
        raise GumlabError(
            f"{source} cannot be read as {kind}: {error}. Download it again."
        ) from error
