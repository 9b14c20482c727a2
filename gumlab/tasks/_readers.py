"""A file or a table opened: its columns' names and its rows, each with where it stands."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gumlab.errors import GumlabError

KINDS = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".json": "JSON",
    ".jsonl": "JSON",
    ".parquet": "parquet",
}
MARKS = (  # byte order marks; UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BEGINNINGS = (  # of files that are something else than their name says, and the way out
    (b"\x1f\x8b", "it is compressed by gzip: unpack it first (gunzip)"),
    (b"\xfd7zXZ", "it is compressed by xz: unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it first (unzstd)"),
    (b"PK\x03\x04", "it is a zip archive or an Excel workbook: unpack it, or save it as CSV"),
    (b"PAR1", "it is a parquet file: rename it to end in .parquet"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the data: run git lfs pull"),
    (b"<!doctype", "it is a web page, not the data: download the file itself"),
    (b"<html", "it is a web page, not the data: download the file itself"),
)
LONGEST_CELL = 2**31 - 1  # characters; what csv takes on every system

Row = tuple[str, Mapping[str, Any]]  # where it stands ("row 3"), and its cells by column


class Table(NamedTuple):
    """What was opened.

    A column's name is in lower case, and in `header` as often as it is there.
    """

    name: str
    header: list[str]
    rows: Iterable[Row]
    labels: frozenset[str] = frozenset()  # columns whose numbers stand for names


class _Unreadable(ValueError):
    """Why a file cannot be read; `open_table` makes a sentence of it."""


def open_table(source: Any) -> Table:
    """The columns and rows of a file, or of a table in memory.

    Parameters
    ----------
    source : Path, datasets.Dataset, pandas.DataFrame or list of dict
        Rows of a file are counted as its editor shows them: in CSV the header is row 1, of JSON
        lines the line is told. Those in memory begin with row 0, as Python counts.

    Raises
    ------
    GumlabError
        For what cannot be read, saying what it is where its first bytes tell.
    """
    if not isinstance(source, Path):
        return _open_data(source)
    kind = KINDS.get(source.suffix.lower(), "data")
    try:
        if kind == "data":
            raise _Unreadable(f"its name should end in one of {', '.join(KINDS)}")
        if kind == "parquet":
            return _open_parquet(source)
        if hint := _what_it_is(source):
            raise _Unreadable(hint)
        text = decoded(source)
        if kind == "JSON":
            return _parse_json(str(source), text)
        return _parse_csv(str(source), text, "," if kind == "CSV" else "\t")
    # pyarrow's are ValueErrors, OSErrors and NotImplementedErrors; [[[[... is a RecursionError
    except (ValueError, OSError, NotImplementedError, RecursionError) as error:
        raise _unreadable(source, kind, error) from error


def _unreadable(path: Path, kind: str, error: Exception) -> GumlabError:
    """The error for a file that is not what its name says."""
    cause = _what_it_is(path) or error
    return GumlabError(f"{path} cannot be read as {kind}: {cause}. Mend it, or download it again.")


def _what_it_is(path: Path) -> str | None:
    """What a file is by its first bytes, if that is nothing that is read here."""
    if not path.is_file():
        return "it is a folder" if path.is_dir() else "there is no such file"
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    for mark, hint in BEGINNINGS:
        is_in_place = mark == b"PAR1" and path.suffix.lower() == ".parquet"
        if beginning.lower().startswith(mark.lower()) and not is_in_place:
            return hint
    return None


def encoding_of(data: bytes) -> str:
    """The encoding that a file's byte order mark tells; UTF-8 without one."""
    return next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")


def decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says.

    Raises GumlabError for another encoding, naming the line, the byte and the way out.
    """
    data = path.read_bytes()
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        way_out = "Mend it, or download it again."
        if encoding == "utf-8":
            way_out = (
                "If it is Latin-1 or Windows-1252, save it as UTF-8 (iconv -f WINDOWS-1252 -t "
                "UTF-8); else download it again."
            )
        raise GumlabError(
            f"{path} is not {encoding.upper()}: byte {error.start}, in line {line}, is "
            f"{data[error.start]:#04x}. {way_out}"
        ) from error
    check_no_nul(text, path)
    return text


def check_no_nul(text: str, path: Path) -> None:
    """Raise GumlabError for a file with NUL characters, which is no text or has lost its mark."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise GumlabError(
            f"{path} has NUL characters, the first in line {line}: it is UTF-16 without a byte "
            "order mark, or no text. Save it as UTF-8."
        )


def _open_parquet(path: Path) -> Table:
    """The columns' names, and the rows, which are read as they are needed."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)

    def rows() -> Iterator[Row]:
        count = 0
        try:
            for batch in file.iter_batches(1000):
                for cells in batch.to_pylist():
                    count += 1
                    yield f"row {count}", {_name(column): cell for column, cell in cells.items()}
        except (ValueError, OSError, NotImplementedError) as error:
            raise _unreadable(path, "parquet", error) from error

    return Table(str(path), [_name(column) for column in file.schema_arrow.names], rows())


def _parse_csv(where: str, text: str, separator: str) -> Table:
    """The rows of CSV; empty cells behind the last column, a trailing comma's, do not count."""
    usual = csv.field_size_limit(LONGEST_CELL)
    records: list[list[str]] = []
    # strict: an unclosed quote is an error and not one long cell
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        records.extend(reader)
    except csv.Error as error:
        raise _Unreadable(
            f"row {len(records) + 1} has a quotation mark that is not closed, or not doubled "
            f"({error})"
        ) from error
    finally:
        csv.field_size_limit(usual)
    header = [_name(column) for column in records[0]] if records else []
    while header and not header[-1]:
        header.pop()
    rows: list[Row] = []
    for number, cells in enumerate(records[1:], start=2):
        if not cells:  # a blank line
            continue
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            raise GumlabError(
                f"{where}, row {number}: expected {len(header)} cells; found {len(cells)}: "
                f"{cells!r:.80}. Put quotation marks around a cell with {separator!r} in it, or "
                "mend or remove the row."
            )
        rows.append((f"row {number}", dict(zip(header, cells, strict=True))))
    return Table(where, header, rows)


def _parse_json(where: str, text: str) -> Table:
    """The rows of a JSON list or of JSON lines, with the columns of all of them."""
    rows: list[Row] = []
    if text.lstrip().startswith("["):
        for number, row in enumerate(_parse_object(text), start=1):
            rows.append((f"row {number}", _by_name(row, f"row {number}")))
    else:
        for number, line in enumerate(re.split(r"\r\n?|\n", text), start=1):
            if line.strip():
                rows.append((f"line {number}", _by_name(_json_of_line(line, number), number)))
    header = list(dict.fromkeys(name for _, row in rows for name in row))
    return Table(where, header, rows)


def _json_of_line(line: str, number: int) -> Any:
    try:
        return _parse_object(line)
    except ValueError as error:
        raise _Unreadable(
            f"line {number} is no row by itself ({error}); expected one object a line, or one list"
        ) from error


def _parse_object(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no key counts twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"the key {twice!r} is there twice")
    return found


def _by_name(row: Any, where: object) -> Mapping[str, Any]:
    """A row's cells by the columns' names in lower case."""
    if not isinstance(row, Mapping):
        raise _Unreadable(f"{where} is {row!r:.60}, not an object with the columns' names")
    return _without_doubles([(_name(column), cell) for column, cell in row.items()])


def _open_data(source: Any) -> Table:
    """The columns and rows of a table in memory."""
    if is_frame(source):
        names = [_name(column) for column in source.columns]
        frame = source.astype(object).where(source.notna(), None)
        cells = enumerate(frame.itertuples(index=False, name=None))
        by_name = ((f"row {number}", dict(zip(names, row, strict=True))) for number, row in cells)
        return Table("The frame", names, by_name)
    if has_columns(source):
        header = [_name(column) for column in source.column_names]
        return Table("The data set", header, _rows(source), _labels(source))
    rows = list(_rows(source))
    return Table("The list", list(dict.fromkeys(name for _, row in rows for name in row)), rows)


def _rows(source: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a table in memory, from row 0."""
    for number, row in enumerate(source):
        try:
            yield f"row {number}", _by_name(row, f"row {number}")
        except ValueError as error:
            raise GumlabError(f"The rows cannot be read: {error}.") from error


def is_frame(data: Any) -> bool:
    """True for a pandas DataFrame, told without importing pandas; iterated it gives its columns."""
    return hasattr(data, "itertuples")


def has_columns(data: Any) -> bool:
    """True for a `datasets.Dataset`; one that streams may not know its columns."""
    return getattr(data, "column_names", None) is not None


def _labels(data: Any) -> frozenset[str]:
    """The columns of class labels of a `datasets.Dataset`."""
    features = getattr(data, "features", None) or {}
    return frozenset(
        _name(column)
        for column, feature in features.items()
        if type(feature).__name__ == "ClassLabel"
    )


def _name(column: Any) -> str:
    """A column's name as it is looked for."""
    return str(column).strip().lower()


def what_is_missing(table: Table, columns: Sequence[str]) -> str:
    """The sentence on a table without some of the columns, and which others may be meant.

    Bars part a column's possible names.
    """
    wanted = f"expected the columns {', '.join(columns)}."
    if not table.header:
        return f"{table.name} holds nothing; {wanted}"
    sentence = f"{table.name} holds columns {', '.join(table.header)}; {wanted}"
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(table.header) == 1 and separator in table.header[0]:
            return f"{sentence} Its cells seem to be parted by {name}: save it with commas."
    for names in columns:
        if set(names.split("|")).isdisjoint(table.header):
            for name in names.split("|"):
                for near in difflib.get_close_matches(name, table.header, n=1, cutoff=0.6):
                    sentence += f" Is {near!r} meant as {name}? Rename it."
    return sentence
