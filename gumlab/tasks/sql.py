"""Runs SQL that a language model wrote, safely: read only, in memory, with limits on everything.

The guards, from the outside in: only one statement that begins with SELECT; size limits of
sqlite; an authorizer that lets through nothing but reading and a short list of harmless
functions; a stop after a number of steps of sqlite's virtual machine, or after seconds of work
where single steps are slow (trim, instr and replace of long texts); a cap on the rows fetched.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gumlab.errors import GumlabError

# A table's name -> (columns, rows); a column is its name, or (name, what sqlite declares it to be).
Database = dict[str, tuple[list[Any], list[tuple]]]

STEP_LIMIT = 200_000  # of sqlite's virtual machine
CHECK_EVERY = 100  # steps from one look at the limits to the next
SECONDS = 2.0  # of this thread's work: the limit where single steps are slow
MAX_ROWS = 10_000
MAX_CHARACTERS = 1_000_000  # characters in all the rows of one answer
# Functions are allowed by name: anything that makes a big value out of a small number (zeroblob,
# printf), reaches outside (load_extension) or is random would break a guard or the comparison.
_FUNCTION_NAMES = (
    "abs avg coalesce count group_concat iif ifnull instr length like lower ltrim max min nullif "
    "replace round rtrim substr substring sum total trim typeof upper"
)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
# Everything in which a keyword is no keyword: literals, quoted names, comments.
_QUOTED = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z))""", re.DOTALL
)
# sqlite's own limits, by the names it gives them.
_LIMITS = {
    "LENGTH": 10_000,  # bytes of one string, blob or row
    "SQL_LENGTH": 5_000,
    "COLUMN": 100,
    "EXPR_DEPTH": 50,
    "COMPOUND_SELECT": 10,
    "LIKE_PATTERN_LENGTH": 100,
    "ATTACHED": 0,
}


def run_query(query: str, database: Database, step_limit: int = STEP_LIMIT) -> list[tuple]:
    """The rows that a query selects from a database, which cannot be changed by it.

    Parameters
    ----------
    query : str
        Text that a model wrote: it may be anything.
    database : dict of str to (columns, rows)
        The tables by name. A column is its name, or (name, what sqlite declares it to be).
    step_limit : int, default STEP_LIMIT
        Steps of sqlite's virtual machine.

    Returns
    -------
    list of tuple
        One a row.

    Raises
    ------
    GumlabError
        If the query is refused (not one SELECT), stopped (too many steps, seconds or rows) or
        wrong (with sqlite's message).

    Examples
    --------
    >>> towns = {"towns": (["city", "area"], [("Oslo", 45), ("Rome", 128)])}
    >>> run_query("SELECT city FROM towns WHERE area > 100", towns)
    [('Rome',)]
    >>> run_query("DROP TABLE towns", towns)
    Traceback (most recent call last):
    gumlab.errors.GumlabError: SQL refused: only one SELECT may run, this begins with 'DROP'.
    """
    _check_text(query)  # before the tables are filled: most wrong queries of a model end here
    with _guarded(database) as (connection, refusals):
        return _run(query, connection, refusals, step_limit)


def same_result(predicted: str, gold: str, databases: Sequence[Database]) -> bool:
    """True where a predicted query runs and selects the same rows as the gold one.

    Parameters
    ----------
    predicted, gold : str
        The query that a model wrote, and the right one.
    databases : sequence of dict
        Differently filled, one or more: the rows must be the same in every one.

    Returns
    -------
    bool
        Rows are compared in order if the gold query has ORDER BY, otherwise as a multiset; the
        names of the columns play no part. A predicted query that fails is simply wrong.

    Raises
    ------
    GumlabError
        If there is no database, or the gold query fails, which is an error in the data.

    Examples
    --------
    >>> small = {"towns": (["city", "area"], [("Oslo", 45), ("Rome", 128)])}
    >>> large = {"towns": (["city", "area"], [("Bonn", 101), ("Rome", 128)])}
    >>> gold, predicted = [f"SELECT city FROM towns WHERE area > {x}" for x in (100, 101)]
    >>> same_result(predicted, gold, (small,)), same_result(predicted, gold, (small, large))
    (True, False)
    """
    if not databases:
        raise GumlabError("There is no database to compare the queries on; give at least one.")
    _check_text(gold)
    is_ordered = re.search(r"\border\s+by\b", _without_quoted(gold), re.IGNORECASE) is not None
    for database in databases:
        # Nothing can be written, so the two queries may share one filled connection.
        with _guarded(database) as (connection, refusals):
            gold_rows = _run(gold, connection, refusals, STEP_LIMIT)
            try:
                rows = _run(predicted, connection, refusals, STEP_LIMIT)
            except GumlabError:
                return False
        # Counter, not sorted: NULL, numbers and text in one column have no common order.
        arranged = list if is_ordered else Counter
        if arranged(rows) != arranged(gold_rows):
            return False
    return True


def exact_match(predicted: str, gold: str) -> bool:
    """True where two queries differ only in white space, letter case and a last semicolon.

    Text between quotes must agree to the letter.

    Parameters
    ----------
    predicted, gold : str

    Returns
    -------
    bool

    Examples
    --------
    >>> exact_match("select city  from towns;", "SELECT city FROM towns")
    True
    >>> exact_match("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'X'")
    False
    """
    return _normal(predicted) == _normal(gold)


def quoted(name: str) -> str:
    """A table's or column's name as SQL writes it, whatever characters it has."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _normal(query: str) -> list[str]:
    """The query's parts, in turns outside quotes (in lower case, single spaces) and inside."""
    parts = _QUOTED.split(query.strip().rstrip(";"))
    for position in range(0, len(parts), 2):  # the odd ones are what is quoted
        parts[position] = " ".join(parts[position].lower().split())
    return parts


def _without_quoted(query: str) -> str:
    """The query with a space in place of each literal, quoted name and comment."""
    return _QUOTED.sub(" ", query)


def _check_text(query: object) -> None:
    """Raise GumlabError unless `query` is text that begins like one SELECT."""
    if not isinstance(query, str):
        raise GumlabError(f"SQL refused: a query is plain text, this is {type(query).__name__}.")
    if "\0" in query:
        raise GumlabError("SQL refused: a query is plain text, this holds a NUL character.")
    most = _LIMITS["SQL_LENGTH"]
    if len(query) > most:
        raise GumlabError(
            f"SQL is wrong: it is longer than {most:,} characters, it has {len(query):,}."
        )
    first_word = query.split(maxsplit=1)[0][:20] if query.strip() else "nothing"
    if not re.match(r"select\b", first_word, re.IGNORECASE):
        raise GumlabError(f"SQL refused: only one SELECT may run, this begins with {first_word!r}.")
    # sqlite copies a WITH query wherever it is used, before any step is counted: 18 of them that
    # each use the one before twice take seconds and 450 MB.
    if re.search(r"\bwith\b", _without_quoted(query), re.IGNORECASE):
        raise GumlabError("SQL refused: WITH is not allowed; use a subquery in brackets instead.")


@contextmanager
def _guarded(database: Database) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
    """A filled in-memory connection on which only reading works, and the list of what it refused.

    The list has to be read for the reason of a refusal: sqlite itself only says "not authorized".
    """
    refusals: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS:
            return sqlite3.SQLITE_OK
        refusals.append(second or first or "recursion")
        return sqlite3.SQLITE_DENY

    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _fill(connection, database)
        for name, value in _LIMITS.items():
            connection.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{name}"), value)
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(authorize)
        yield connection, refusals
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, database: Database) -> None:
    """Create the tables and put their rows in."""
    try:
        for table, (columns, rows) in database.items():
            declared = []
            for column in columns:
                name, kind = (column, "") if isinstance(column, str) else column
                declared.append(f"{quoted(name)} {kind}")
            connection.execute(f"CREATE TABLE {quoted(table)} ({', '.join(declared)})")
            marks = ", ".join("?" for _ in columns)
            connection.executemany(f"INSERT INTO {quoted(table)} VALUES ({marks})", rows)
    except (sqlite3.Error, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise GumlabError(
            f"The tables could not be filled: {error}. Expected {{table: (columns, rows)}}."
        ) from error


def _run(
    query: str, connection: sqlite3.Connection, refusals: list[str], step_limit: int
) -> list[tuple]:
    """Run one query on a guarded connection, every failure turned into a GumlabError."""
    _check_text(query)
    refusals.clear()
    check_every = min(CHECK_EVERY, step_limit)
    connection.set_progress_handler(_limit(step_limit, check_every), check_every)
    rows: list[tuple] = []
    characters = 0
    try:
        for row in connection.execute(query):
            rows.append(row)
            characters += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if len(rows) > MAX_ROWS or characters > MAX_CHARACTERS:
                raise GumlabError(
                    f"SQL stopped: the answer is larger than {MAX_ROWS:,} rows or "
                    f"{MAX_CHARACTERS:,} characters."
                )
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, MemoryError, ValueError) as error:
        if refusals:
            why = f"SQL refused: only reading is allowed, this asks for {refusals[0]!r}."
        elif "interrupted" in str(error):
            limits = f"{step_limit:,} steps or {SECONDS:g} seconds"
            why = f"SQL stopped after {limits}: it is endless or far too slow."
        else:
            why = f"SQL is wrong: {error}."
        raise GumlabError(why) from error
    return rows


def _limit(step_limit: int, check_every: int) -> Callable[[], bool]:
    """A function for sqlite to call every so many steps: True once a statement has had its share.

    That is its steps, or its seconds.
    """
    end = time.thread_time() + SECONDS
    steps = 0

    def is_over() -> bool:
        nonlocal steps
        steps += check_every
        return steps >= step_limit or time.thread_time() > end

    return is_over
