"""WikiSQL: a question and a table's columns -> an SQL query on that table.

`What position does number 3 play? | t: "Player", "No.", "Position" ->` should be followed by
`SELECT "Position" FROM t WHERE "No." = 3`. Read from a local folder, in the challenge's JSON lines
or in the hub's parquet files, or fetched from the Hugging Face hub. Zhong et al. 2017, BSD-3.

Every query has one form: a column, at most one aggregate, conditions joined by AND. Two queries
are the same logical form if they select the same column by the same aggregate under the same
conditions, whatever their order and the letter case of names and values; 3, '3' and 3.0 are one
value. Text that is not of the form is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._files import Found, Hub, fetch, fill, find, missing, read, split_of
from gumlab.tasks.sql import Database, quoted, same_result

AGGREGATES, OPERATORS = ("", "MAX", "MIN", "COUNT", "SUM", "AVG"), ("=", ">", "<")
ARCHIVE = "data.tar.bz2 from github.com/salesforce/WikiSQL, unpack it"
HUB = Hub("Salesforce/wikisql", ARCHIVE, revision="refs/convert/parquet")
EXPECTED = (
    "Expected train.jsonl, dev.jsonl and test.jsonl (table_id, question, sql), each with its "
    "tables in train.tables.jsonl and so on (id, header, types, rows), or the hub's parquet files "
    "(question, table, sql)."
)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NAME = r'"(?:[^"]|"")*"'
_VALUE = rf"(?:'(?:[^']|'')*'|{_NUMBER})"
_CONDITION = rf"{_NAME}\s*[=<>]\s*{_VALUE}"
_PARTS = rf"({_NAME})\s*([=<>])\s*({_VALUE})"
_QUERY = re.compile(
    rf"\s*SELECT\s+(?:(MAX|MIN|COUNT|SUM|AVG)\s*\(\s*)?({_NAME})\s*(\))?\s+FROM\s+t"
    rf"(?:\s+WHERE\s+({_CONDITION}(?:\s+AND\s+{_CONDITION})*))?\s*;?\s*",
    re.IGNORECASE,
)
Form = tuple[str, str, frozenset[tuple[str, str, Any]]]  # aggregate, column, conditions


def load(data_dir: str | Path | None = None) -> Task:
    """The task `wikisql` (metric "logical_form", and execution accuracy where tables have rows).

    `data_dir` is a folder with the challenge's files, or one with headers.jsonl in place of the
    tables, or with the hub's parquet files. dev is validation. A column without a name, or with
    one that is there already, gets a number; columns of numbers hold numbers, text is compared
    without letter case. Raises GumlabError where files are missing or damaged, or the hub cannot
    be reached.
    """
    found = {} if data_dir is None else _questions(Path(data_dir).expanduser())
    if found:
        notes = missing(found, {s: f"{s}.jsonl" for s in SPLITS})
    elif data_dir is None:
        found, notes = fetch(HUB)
    else:
        found, notes = find(data_dir, ("parquet",), EXPECTED)
    task = fill(Task("wikisql", "logical_form"), found, notes, _examples)
    if bare := [s for s in found if not all(e.databases for e in getattr(task, s))]:
        what = "have no rows here: only the logical form is scored, nothing is executed"
        task.notes += (f"the tables of {' and '.join(bare)} {what}",)
    return task


def logical_form(query: str) -> Form | None:
    """(aggregate, column, conditions) of a query, for comparison; None if it is not of the form.

    >>> one = logical_form('SELECT MAX("No.") FROM t WHERE "A" = 3 AND "b" = \\'Yes\\'')
    >>> one == logical_form('select max("no.") from t where "B"=\\'yes\\' and "a" = \\'3\\'')
    True
    """
    match = _QUERY.fullmatch(query)
    if match is None or bool(match[1]) != bool(match[3]):
        return None
    conditions = re.findall(_PARTS, match[4] or "")
    return (
        (match[1] or "").upper(),
        match[2].lower(),
        frozenset((name.lower(), sign, _value(value)) for name, sign, value in conditions),
    )


def executes_alike(predicted: str, example: Example) -> bool:
    """True where a query of the form, on the table's own columns, gets the target's rows.

    Without the first two sqlite would take a wrong column's name for text, and run.
    """
    form = logical_form(predicted)
    if form is None:
        return False
    ((columns, _),) = example.databases[0].values()
    known = {quoted(name).lower() for name, _ in columns}
    used = {form[1], *(name for name, _, _ in form[2])}
    return used <= known and same_result(predicted, example.target, example.databases)


def _value(literal: str) -> Any:
    text = literal[1:-1].replace("''", "'") if literal[:1] == "'" else literal
    number = _number(text)
    return " ".join(text.lower().split()) if number is None else number


def _number(cell: Any) -> float | None:
    """The number that a whole cell is, commas between thousands allowed; None for text."""
    text = str(cell).strip().replace(",", "")
    return float(text) if re.fullmatch(_NUMBER, text) else None


def _questions(folder: Path) -> Found:
    """The challenge's files of questions in a folder or in folders named after the splits."""
    paths = [p for depth in ("", "*/") for p in sorted(folder.glob(f"{depth}*.jsonl"))]
    paths = [p for p in paths if "tables" not in p.stem]
    found = {s: [p for p in paths if split_of(p.stem) == s] for s in SPLITS}
    return {s: paths for s, paths in found.items() if paths}


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    for source in sources:
        given: dict[Any, list[Any]] = {}
        tables: dict[Any, tuple[list[tuple[str, str]], list[Database]]] = {}
        columns = ("question", "table", "sql")
        if isinstance(source, Path) and source.suffix == ".jsonl":
            columns, name = ("question", "table_id", "sql"), f"{source.stem}.tables.jsonl"
            beside = [p for p in map(source.with_name, (name, "headers.jsonl")) if p.is_file()]
            if not beside:
                raise GumlabError(f"{source} has no tables beside it ({name}). {EXPECTED}")
            rows = read(beside[:1], ("id", "header"), ("types", "rows"))
            given = {key: table for key, *table in rows}
        for question, table, sql in read([source], columns, gaps=notes):
            key = table
            try:
                if isinstance(table, dict):  # the hub's files repeat it with each of its questions
                    key = (table["id"], *table["header"])
                    given[key] = [table[part] for part in ("header", "types", "rows")]
                if key not in tables:
                    tables[key] = _table(*given[key])
                own, databases = tables[key]
                target = _render(own, sql)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise GumlabError(
                    f"{source}: no query can be made of {sql!r:.200} on table {key!r:.80} "
                    f"({type(error).__name__}: {error}). {EXPECTED}"
                ) from error
            head = ", ".join(quoted(name) for name, _ in own)
            yield Example(f"{question.strip()} | t: {head} ->", target, databases=tuple(databases))


def _table(
    header: Sequence[str], types: Sequence[str] | None, rows: Sequence[Sequence[Any]] | None
) -> tuple[list[tuple[str, str]], list[Database]]:
    """(columns as sqlite declares them, the table filled, if it has rows).

    Rows that are too short end in empty cells, those too long are cut.
    """
    names: list[str] = []
    for i, name in enumerate(header, start=1):
        name = " ".join(name.split()) or f"column {i}"
        taken = {n.lower() for n in names}
        names.append(name if name.lower() not in taken else f"{name} ({i})")
    kinds = ["?"] * len(names) if types is None else types
    declared = {"real": "REAL", "text": "TEXT COLLATE NOCASE"}
    columns = [(n, declared.get(kind, "")) for n, kind in zip(names, kinds, strict=True)]
    if rows is None:
        return columns, []
    cells = [tuple(map(_cell, chain(row, repeat(None)), kinds)) for row in rows]
    return columns, [{"t": (columns, cells)}]


def _cell(cell: Any, kind: str) -> Any:
    number = _number(cell) if kind == "real" else None
    return str(cell) if number is None and cell is not None else number


def _render(columns: Sequence[tuple[str, str]], sql: dict[str, Any]) -> str:
    """The SQL text of a query given by indices: sel, agg, conds."""
    conditions = sql["conds"]
    if isinstance(conditions, dict):  # the hub's files hold three lists
        keys = ("column_index", "operator_index", "condition")
        conditions = list(zip(*(conditions[key] for key in keys), strict=True))
    aggregate, column = AGGREGATES[sql["agg"]], quoted(columns[sql["sel"]][0])
    tests = [
        f"{quoted(columns[i][0])} {OPERATORS[sign]} {_literal(value, columns[i][1])}"
        for i, sign, value in conditions
    ]
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT {f'{aggregate}({column})' if aggregate else column} FROM t{where}"


def _literal(value: Any, kind: str) -> str:
    """A condition's value in SQL.

    In a column of numbers the first number in it, as the challenge reads it; where the kind of
    column is not known, a number if that is all there is.
    """
    number = None if kind.startswith("TEXT") else _number(value)
    if number is None and kind == "REAL" and (inside := re.search(_NUMBER, str(value))):
        number = float(inside[0])
    if number is None:
        return "'{}'".format(str(value).replace("'", "''"))
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
