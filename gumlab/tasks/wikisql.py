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
from typing import Any, NamedTuple

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._files import (
    Hub,
    Sources,
    fetch_from_hub,
    fill,
    find_files,
    notes_on_missing,
    read_rows,
    split_of,
    visible_files,
)
from gumlab.tasks._texts import Place, text_or_nothing
from gumlab.tasks.sql import Database, quoted, same_result

AGGREGATES = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")  # by the challenge's index
OPERATORS = ("=", ">", "<")
HUB = Hub(
    name="Salesforce/wikisql",
    by_hand="data.tar.bz2 from github.com/salesforce/WikiSQL, unpack it",
    revision="refs/convert/parquet",
)
EXPECTED = (
    "Expected train.jsonl, dev.jsonl and test.jsonl (table_id, question, sql), each with its "
    "tables in train.tables.jsonl and so on (id, header, types, rows), or the hub's parquet files "
    "(question, table, sql)."
)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NAME = r'"(?:[^"]|"")*"'
_VALUE = rf"(?:'(?:[^']|'')*'|{_NUMBER})"
_CONDITION = rf"{_NAME}\s*[=<>]\s*{_VALUE}"
_PARTS_OF_CONDITION = rf"({_NAME})\s*([=<>])\s*({_VALUE})"
_QUERY = re.compile(
    rf"\s*SELECT\s+(?:(?P<aggregate>MAX|MIN|COUNT|SUM|AVG)\s*\(\s*)?"
    rf"(?P<column>{_NAME})\s*(?P<bracket>\))?\s+FROM\s+t"
    rf"(?:\s+WHERE\s+(?P<conditions>{_CONDITION}(?:\s+AND\s+{_CONDITION})*))?\s*;?\s*",
    re.IGNORECASE,
)
Column = tuple[str, str]  # its name, and what sqlite declares it to be


class Form(NamedTuple):
    """What a query asks, so that two ways to write it are equal."""

    aggregate: str  # "" where there is none
    column: str
    conditions: frozenset[tuple[str, str, Any]]  # (column, operator, value)


def load(data_dir: str | Path | None = None) -> Task:
    """The task `wikisql`: a question about a table -> a query of one form.

    Parameters
    ----------
    data_dir : str or Path, optional
        A folder with the challenge's files (dev is validation), or one with headers.jsonl in place
        of the tables, or with the hub's parquet files. Without it the data comes from the hub.

    Returns
    -------
    Task
        With the metric "logical_form", and execution accuracy where tables have rows. A column
        without a name, or with one that is there already, gets a number; columns of numbers hold
        numbers, text is compared without letter case.

    Raises
    ------
    GumlabError
        If files are missing or damaged, or the hub cannot be reached.

    References
    ----------
    Zhong et al. 2017, "Seq2SQL: Generating Structured Queries from Natural Language using
    Reinforcement Learning".
    """
    sources: Sources = {}
    if data_dir is not None:
        sources = _challenge_files(Path(data_dir).expanduser())
    if sources:
        notes = notes_on_missing(sources, {split: f"{split}.jsonl" for split in SPLITS})
    elif data_dir is None:
        sources, notes = fetch_from_hub(HUB)
    else:
        sources, notes = find_files(data_dir, ("parquet",), EXPECTED)
    task = fill(Task("wikisql", metric="logical_form"), sources, notes, _examples)
    without_rows = [
        split for split in sources if not all(example.databases for example in getattr(task, split))
    ]
    if without_rows:
        task.notes += (
            f"the tables of {' and '.join(without_rows)} have no rows here: only the logical form "
            "is scored, nothing is executed",
        )
    return task


def logical_form(query: str) -> Form | None:
    """What a query asks, for comparison.

    Parameters
    ----------
    query : str

    Returns
    -------
    Form or None
        (aggregate, column, conditions), names and text in lower case; None if the query is not of
        the challenge's form.

    Examples
    --------
    >>> one = logical_form('SELECT MAX("No.") FROM t WHERE "A" = 3 AND "b" = \\'Yes\\'')
    >>> one == logical_form('select max("no.") from t where "B"=\\'yes\\' and "a" = \\'3\\'')
    True
    """
    match = _QUERY.fullmatch(query)
    if match is None:
        return None
    is_opened = match["aggregate"] is not None
    is_closed = match["bracket"] is not None
    if is_opened != is_closed:
        return None
    conditions = re.findall(_PARTS_OF_CONDITION, match["conditions"] or "")
    return Form(
        aggregate=(match["aggregate"] or "").upper(),
        column=match["column"].lower(),
        conditions=frozenset(
            (name.lower(), operator, _value(literal)) for name, operator, literal in conditions
        ),
    )


def executes_alike(predicted: str, example: Example) -> bool:
    """True where a query of the form, on the table's own columns, gets the target's rows.

    Parameters
    ----------
    predicted : str
        The query that a model wrote.
    example : Example
        With its table filled.

    Returns
    -------
    bool
        False for a query of another form, or with a column that the table does not have: sqlite
        would take that column's name for text, and run.
    """
    form = logical_form(predicted)
    if form is None:
        return False
    ((columns, _),) = example.databases[0].values()
    known = {quoted(name).lower() for name, _ in columns}
    used = {form.column, *(name for name, _, _ in form.conditions)}
    return used <= known and same_result(predicted, example.target, example.databases)


def _value(literal: str) -> Any:
    """A literal's value: a number where it is one, with or without quotes, else plain text."""
    text = literal[1:-1].replace("''", "'") if literal.startswith("'") else literal
    number = _number(text)
    return " ".join(text.lower().split()) if number is None else number


def _number(cell: Any) -> float | None:
    """The number that a whole cell is, commas between thousands allowed; None for text."""
    text = str(cell).strip().replace(",", "")
    return float(text) if re.fullmatch(_NUMBER, text) else None


def _challenge_files(folder: Path) -> Sources:
    """The challenge's files of questions in a folder or in folders named after the splits."""
    sources: Sources = {}
    if folder.is_file() and folder.suffix == ".jsonl":
        return {split_of(folder.stem) or "train": [folder]}
    paths = [*visible_files(folder, "*.jsonl"), *visible_files(folder, "*/*.jsonl")]
    for split in SPLITS:
        of_split = [
            path for path in paths if "tables" not in path.stem and split_of(path.stem) == split
        ]
        if of_split:
            sources[split] = of_split
    return sources


def _examples(sources: list[Any], notes: list[str]) -> Iterator[Example]:
    for source in sources:
        if isinstance(source, Path) and source.suffix == ".jsonl":
            columns = ("question", "table_id", "sql")
            raw_tables = _tables_beside(source)
        else:
            columns = ("question", "table", "sql")
            raw_tables = {}
        tables: dict[Any, tuple[list[Column], list[Database]]] = {}
        for question, table, sql in read_rows([source], columns, gaps=notes, read=_cell_of_row):
            key = table
            try:
                if isinstance(table, dict):  # the hub's files repeat it with each of its questions
                    key = (table["id"], *table["header"])
                    raw_tables[key] = (table["header"], table["types"], table["rows"])
                if key not in tables:
                    tables[key] = _table(*raw_tables[key])
                table_columns, databases = tables[key]
                target = _render(table_columns, sql)
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise GumlabError(
                    f"{source}: no query can be made of {sql!r:.200} on table {key!r:.80} "
                    f"({type(error).__name__}: {error}). {EXPECTED}"
                ) from error
            head = ", ".join(quoted(name) for name, _ in table_columns)
            prompt = f"{question.strip()} | t: {head} ->"
            yield Example(prompt, target, databases=tuple(databases))


def _cell_of_row(cell: Any, place: Place) -> Any:
    """A question is text; an id, a table and a query are what the challenge's files hold."""
    return text_or_nothing(cell, place) if place.column == "question" else cell


def _tables_beside(questions: Path) -> dict[Any, tuple[Any, Any, Any]]:
    """The challenge's tables of a file of questions, by id: their header, types and rows.

    Types and rows are None where there are only headers.
    """
    name = f"{questions.stem}.tables.jsonl"
    for path in (questions.with_name(name), questions.with_name("headers.jsonl")):
        if path.is_file():
            optional = ("types", "rows")
            rows = read_rows([path], ("id", "header"), optional, read=_cell_of_row)
            return {key: (header, types, cells) for key, header, types, cells in rows}
    raise GumlabError(f"{questions} has no tables beside it ({name}). {EXPECTED}")


def _table(
    header: Sequence[str], types: Sequence[str] | None, rows: Sequence[Sequence[Any]] | None
) -> tuple[list[Column], list[Database]]:
    """The columns as sqlite declares them, and the table filled, if it has rows.

    Rows that are too short end in empty cells, those too long are cut.
    """
    names: list[str] = []
    for number, title in enumerate(header, start=1):
        name = " ".join(title.split()) or f"column {number}"
        taken = {other.lower() for other in names}
        names.append(name if name.lower() not in taken else f"{name} ({number})")
    kinds = ["?"] * len(names) if types is None else types
    declared = {"real": "REAL", "text": "TEXT COLLATE NOCASE"}
    columns = [(name, declared.get(kind, "")) for name, kind in zip(names, kinds, strict=True)]
    if rows is None:
        return columns, []
    filled = []
    for row in rows:
        cells = chain(row, repeat(None))
        filled.append(tuple(_cell(cell, kind) for kind, cell in zip(kinds, cells, strict=False)))
    return columns, [{"t": (columns, filled)}]


def _cell(cell: Any, kind: str) -> Any:
    """A cell as the table holds it: a number in a column of numbers, if it is one, or text."""
    if cell is None:
        return None
    number = _number(cell) if kind == "real" else None
    return str(cell) if number is None else number


def _render(columns: Sequence[Column], sql: dict[str, Any]) -> str:
    """The SQL text of a query given by indices: sel, agg, conds."""
    conditions = sql["conds"]
    if isinstance(conditions, dict):  # the hub's files hold three lists
        conditions = zip(
            conditions["column_index"],
            conditions["operator_index"],
            conditions["condition"],
            strict=True,
        )
    tests = []
    for column_index, operator_index, value in conditions:
        name, kind = columns[column_index]
        tests.append(f"{quoted(name)} {OPERATORS[operator_index]} {_literal(value, kind)}")
    selected_name, _ = columns[sql["sel"]]
    selected = quoted(selected_name)
    aggregate = AGGREGATES[sql["agg"]]
    if aggregate:
        selected = f"{aggregate}({selected})"
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT {selected} FROM t{where}"


def _literal(value: Any, kind: str) -> str:
    """A condition's value in SQL.

    In a column of numbers the first number in it, as the challenge reads it; where the kind of
    column is not known, a number if that is all there is.
    """
    number = None if kind.startswith("TEXT") else _number(value)
    if number is None and kind == "REAL":
        inside = re.search(_NUMBER, str(value))
        number = float(inside[0]) if inside else None
    if number is None:
        escaped = str(value).replace("'", "''")
        return f"'{escaped}'"
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(number)
