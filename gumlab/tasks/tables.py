"""The built-in task `tables`: a question and a table's columns -> an SQL query.

`Which city has the largest area? | towns: city, country, area, population ->` should be followed
by `SELECT city FROM towns ORDER BY area DESC LIMIT 1`. What makes it more than copying: questions
name columns by other words (cost for price, the heaviest for weight), the same word means another
column in another table, and every table has columns that the question is not about.

Numbers lie densely (some twenty neighbouring values to a column) and literals are values of the
data whose neighbours are there too, so that a literal off by one or a wrong comparison changes
the answer in at least one of a table's two differently filled databases. The words are in
tables.json.
"""

from __future__ import annotations

import random
from collections.abc import Container
from itertools import combinations, product
from typing import Any, NamedTuple

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import held_out_split, words
from gumlab.tasks.sql import Database

SIZES = {"train": 8000, "validation": 400, "test": 400}


class TextColumn(NamedTuple):
    """Words for a column of text, and for its values; alternatives stand between bars."""

    names: str
    values: str  # parted by spaces
    phrases: str  # ways to name a value {v} without naming the column


class NumberColumn(NamedTuple):
    """Words for a column of numbers; alternatives stand between bars."""

    names: str
    largest: str  # "the ...-est"
    smallest: str
    least: int  # value


WORDS = words("tables")
LISTS = WORDS["lists"]  # of values that several columns share
TEXTS = {
    column: TextColumn(names, LISTS.get(values, values), phrases)
    for column, (names, values, phrases) in WORDS["texts"].items()
}
NUMBERS = {column: NumberColumn(*fields) for column, fields in WORDS["numbers"].items()}
SCHEMAS = WORDS["schemas"]  # of each table its columns, parted by spaces
# What is asked: SQL with {a} {b} {t} for columns and table, and at least four ways to say it.
HEADS = WORDS["heads"]
AGGREGATES = WORDS["aggregates"]
COMPARISONS = WORDS["comparisons"]


class Condition(NamedTuple):
    """Which rows are asked about, without the literals; "" for what plays no part."""

    text: str = ""  # a column of text, of one value
    number: str = ""  # a column of numbers, compared by
    comparison: str = ""  # <, > or =


class Combination(NamedTuple):
    """Everything about a question but its words and literals; "" for what plays no part."""

    table: str
    head: str  # a key of HEADS
    first: str = ""  # the columns selected
    second: str = ""
    number: str = ""  # the column of numbers that is aggregated or sorted by
    way: str = ""  # an aggregate, or ASC or DESC
    condition: Condition = Condition()

    @property
    def key(self) -> tuple[str, ...]:
        """The texts that the split is chosen by."""
        selected = f"{self.first},{self.second}" if self.second else self.first
        return (self.table, self.head, selected, self.number, self.way, *self.condition)


def load() -> Task:
    """The task `tables`: the same 8,000, 400 and 400 examples every time.

    Returns
    -------
    Task
        With the metric "sql". What is held out is the combination of a table, a form of query
        (with its aggregate or direction and its comparison) and the columns: one in validation or
        test never occurs in train, while every table and every form of query does. No prompt
        occurs twice.
    """
    databases = {table: (_fill(table, 0), _fill(table, 1)) for table in SCHEMAS}
    by_split: dict[str, list[Combination]] = {split: [] for split in SPLITS}
    for table in SCHEMAS:
        for combination in _combinations(table):
            by_split[held_out_split(combination.key)].append(combination)
    task = Task(name="tables", metric="sql")
    for split in SPLITS:
        getattr(task, split).extend(_examples(split, by_split[split], databases))
    return task


def _examples(
    split: str,
    allowed: list[Combination],
    databases: dict[str, tuple[Database, Database]],
) -> list[Example]:
    """The examples of one split, drawn until there are enough."""
    rng = random.Random(f"tables {split}")
    examples: dict[str, Example] = {}  # by prompt
    misses = 0
    while len(examples) < SIZES[split]:
        combination = rng.choice(allowed)
        table = combination.table
        pair = _question_and_query(combination, databases[table], rng)
        if pair is not None:
            question, query = pair
            prompt = f"{question} | {table}: {SCHEMAS[table].replace(' ', ', ')} ->"
            if prompt not in examples:
                examples[prompt] = Example(prompt, query, databases=databases[table])
                continue
        misses += 1
        assert misses < 20 * SIZES[split], f"the grammar of {split} is used up"
    return list(examples.values())


def _word(options: str, rng: random.Random) -> str:
    """One of the alternatives between bars."""
    return rng.choice(options.split("|"))


def _fill(table: str, number: int) -> Database:
    """One of the two databases of a table: 12 to 14 rows, no number twice in a column."""
    rng = random.Random(f"{table} {number}")
    columns = SCHEMAS[table].split()
    row_count = rng.randint(12, 14)
    cells_by_column: list[list[Any]] = []
    for position, column in enumerate(columns):
        if column in NUMBERS:
            least = NUMBERS[column].least
            cells_by_column.append(rng.sample(range(least, least + 18), row_count))
        else:
            values = TEXTS[column].values.split()
            # The first column names the row; in the others every value comes back, or MAX and MIN
            # of one value's rows would be the same.
            repeated = values[:5] * 2 + rng.choices(values[:5], k=row_count - 10)
            cells_by_column.append(rng.sample(values if position == 0 else repeated, row_count))
    rows = list(zip(*cells_by_column, strict=True))
    return {table: (columns, rows)}


def _combinations(table: str) -> list[Combination]:
    """Everything that can be asked about a table."""
    return [*_selections(table), *_rankings(table), *_groups(table), *_aggregates(table)]


def _columns(table: str, kind: Container[str]) -> list[str]:
    """The table's columns of text (TEXTS) or of numbers (NUMBERS)."""
    return [column for column in SCHEMAS[table].split() if column in kind]


def _shared_texts(table: str) -> list[str]:
    """The columns of text in which values come back: not the first, which names the row."""
    texts = _columns(table, TEXTS)
    return texts[1:] or texts


def _selections(table: str) -> list[Combination]:
    """Columns, or the number of rows, under every condition that is not about those columns."""
    columns = SCHEMAS[table].split()
    numbers = _columns(table, NUMBERS)
    shared = _shared_texts(table)
    naming_column = _columns(table, TEXTS)[0]
    by_name = [] if naming_column in shared else [Condition(text=naming_column)]
    by_text = [Condition(text=column) for column in shared]
    by_number = [Condition("", *pair) for pair in product(numbers, ">=<")]
    by_both = [Condition(*triple) for triple in product(shared, numbers, "><")]
    simple = [*by_text, *by_number]
    asked = []
    for first in columns:
        for condition in [*by_name, *simple, *by_both]:
            if first not in condition:
                asked.append(Combination(table, "one", first, condition=condition))
    for first, second in combinations(columns, 2):
        for condition in simple:
            if first not in condition and second not in condition:
                asked.append(Combination(table, "two", first, second, condition=condition))
    for condition in [*simple, *by_both]:
        asked.append(Combination(table, "count", condition=condition))
    return asked


def _rankings(table: str) -> list[Combination]:
    """The first of the rows sorted by a number, or the first few."""
    asked = []
    for first, number in product(_columns(table, TEXTS), _columns(table, NUMBERS)):
        for head, way in product(("top", "tops"), ("DESC", "ASC")):
            asked.append(Combination(table, head, first, number=number, way=way))
    return asked


def _groups(table: str) -> list[Combination]:
    """The different values of a column, or how many rows each has."""
    heads_and_columns = product(("all", "per"), _shared_texts(table))
    return [Combination(table, head, first) for head, first in heads_and_columns]


def _aggregates(table: str) -> list[Combination]:
    """An aggregate of a column of numbers: of all rows, of one value's rows, by value."""
    shared = _shared_texts(table)
    conditions = [Condition(), *(Condition(text=column) for column in shared)]
    asked = []
    for way, number in product(AGGREGATES, _columns(table, NUMBERS)):
        if (way, number) == ("SUM", "year"):  # nobody asks for it
            continue
        for condition in conditions:
            asked.append(Combination(table, "agg", number=number, way=way, condition=condition))
        for first in shared:
            asked.append(Combination(table, "agg_per", first, number=number, way=way))
    return asked


def _question_and_query(
    combination: Combination, databases: tuple[Database, Database], rng: random.Random
) -> tuple[str, str] | None:
    """A question and its query for a combination; None where the data has no fit literal."""
    worded = _condition(combination.table, combination.condition, databases, rng)
    if worded is None:
        return None
    condition_in_words, condition_in_sql = worded
    in_sql: dict[str, Any] = {
        "t": combination.table,
        "a": combination.first,
        "b": combination.second,
        "n": combination.number,
        "agg": combination.way,
        "way": combination.way,
        "k": rng.randint(2, 4),
    }
    in_words = dict(in_sql)
    for field in ("a", "b", "n"):
        column = in_sql[field]
        if column:
            in_words[field] = _word(_names(column), rng)
    if combination.way in AGGREGATES:
        in_words["agg"] = _word(AGGREGATES[combination.way], rng)
    elif combination.way:
        number = NUMBERS[combination.number]
        is_largest = combination.way == "DESC"
        in_words["best"] = "highest" if is_largest else "lowest"
        in_words["est"] = _word(number.largest if is_largest else number.smallest, rng)
    query, questions = HEADS[combination.head]
    question = _word(questions, rng).format(**in_words)
    end = "?" if question.endswith("?") else ""
    question = question.rstrip("?") + condition_in_words + end
    return question, query.format(**in_sql) + condition_in_sql


def _names(column: str) -> str:
    """The words for a column, with bars between them."""
    return TEXTS[column].names if column in TEXTS else NUMBERS[column].names


def _condition(
    table: str,
    condition: Condition,
    databases: tuple[Database, ...],
    rng: random.Random,
) -> tuple[str, str] | None:
    """A condition in words and in SQL, with literals from the data; None where none fits."""
    columns = SCHEMAS[table].split()
    rows = [row for database in databases for row in database[table][1]]
    lead, verb = rng.choice([(" with ", ""), (" whose ", " is"), (" where the ", " is")])
    in_words = ""
    tests = []
    link = lead  # to what is said of the number
    if condition.text:
        position = columns.index(condition.text)
        text = TEXTS[condition.text]
        value = rng.choice(sorted({row[position] for row in rows}))
        rows = [row for row in rows if row[position] == value]
        tests.append(f"{condition.text} = '{value}'")
        if rng.random() < 0.5:
            in_words = " " + _word(text.phrases, rng).format(v=value)
        else:
            in_words = f"{lead}{_word(text.names, rng)}{verb} {value}"
            link = " and "
    if condition.number:
        position = columns.index(condition.number)
        number = NUMBERS[condition.number]
        values = {row[position] for row in rows}
        # The neighbour on the side the comparison keeps is in the data, so off by one shows.
        neighbour = {">": 1, "<": -1, "=": 0}[condition.comparison]
        fitting = sorted(value for value in values if value + neighbour in values)
        if not fitting:
            return None
        limit = rng.choice(fitting)
        tests.append(f"{condition.number} {condition.comparison} {limit}")
        name = _word(number.names, rng)
        comparison = _word(COMPARISONS[condition.comparison], rng)
        in_words += f"{link}{name}{verb} {comparison} {limit}"
    return in_words, f" WHERE {' AND '.join(tests)}" if tests else ""
