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
from itertools import combinations, product

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import split_of, words
from gumlab.tasks.sql import Database

SIZES = {"train": 8000, "validation": 400, "test": 400}

WORDS = words("tables")  # alternatives stand between bars
# Text columns: words for the column, its values, ways to name a value without naming the column.
# Where the file has a list's name for the values, that list is put in.
TEXTS = {
    column: (named, WORDS["lists"].get(values, values), ways)
    for column, (named, values, ways) in WORDS["texts"].items()
}
# Number columns: words for the column, "the ...-est" for the largest and the smallest, least value.
NUMBERS = WORDS["numbers"]
SCHEMAS = WORDS["schemas"]
# What is asked: SQL with {a} {b} {t} for columns and table, and at least four ways to say it.
HEADS = WORDS["heads"]
AGGREGATES = WORDS["aggregates"]
COMPARE = WORDS["comparisons"]

Combination = tuple[str, ...]  # its eight parts: see _combinations


def load() -> Task:
    """The task `tables` (metric "sql"): 8,000 train, 400 validation and 400 test examples.

    Always the same. What is held out is the combination of a table, a form of query (with its
    aggregate or direction and its comparison) and the columns: one in validation or test never
    occurs in train, while every table and every form of query does. No prompt occurs twice.
    """
    databases = {t: (_fill(t, 0), _fill(t, 1)) for t in SCHEMAS}
    groups: dict[str, list[Combination]] = {split: [] for split in SPLITS}
    for combination in (c for table in SCHEMAS for c in _combinations(table)):
        groups[split_of(combination)].append(combination)
    task = Task(name="tables", metric="sql")
    for split in SPLITS:
        rng = random.Random(f"tables {split}")
        examples: dict[str, Example] = {}
        misses = 0
        while len(examples) < SIZES[split]:
            combination = rng.choice(groups[split])
            table = combination[0]
            question, query = _draw(combination, databases[table], rng)
            prompt = f"{question} | {table}: {SCHEMAS[table].replace(' ', ', ')} ->"
            if query and prompt not in examples:
                examples[prompt] = Example(prompt, query, databases=databases[table])
            else:
                misses += 1
                assert misses < 20 * SIZES[split], f"the grammar of {split} is used up"
        getattr(task, split).extend(examples.values())
    return task


def _word(options: str, rng: random.Random) -> str:
    return rng.choice(options.split("|"))


def _fill(table: str, number: int) -> Database:
    """One of the two databases of a table: 12 to 14 rows, no number twice in a column."""
    rng = random.Random(f"{table} {number}")
    columns = SCHEMAS[table].split()
    size = rng.randint(12, 14)
    cells = []
    for i, column in enumerate(columns):
        if column in NUMBERS:
            low = NUMBERS[column][-1]
            cells.append(rng.sample(range(low, low + 18), size))
        else:
            values = TEXTS[column][1].split()
            # The first column names the row; in the others every value comes back, or MAX and MIN
            # of one value's rows would be the same.
            repeated = values[:5] * 2 + rng.choices(values[:5], k=size - 10)
            cells.append(rng.sample(values if i == 0 else repeated, size))
    return {table: (columns, list(zip(*cells, strict=True)))}


def _combinations(table: str) -> list[Combination]:
    """Everything that can be asked about a table.

    The parts, all text: table, head, selected columns (comma separated), number column, aggregate
    or direction; then of the condition its text column, number column, comparison ("" where none).
    """
    columns = SCHEMAS[table].split()
    texts, numbers = ([c for c in columns if c in kind] for kind in (TEXTS, NUMBERS))
    shared = texts[1:] or texts
    none = ("",) * 3
    by_text = [(c, "", "") for c in shared]
    simple = by_text + list(product([""], numbers, ">=<"))
    both = list(product(shared, numbers, "><"))
    named = [(texts[0], "", "")] * (texts[0] not in shared)
    rows = [("one", a, "", "", *c) for a in columns for c in named + simple + both if a not in c]
    for a, b in combinations(columns, 2):
        rows += [("two", f"{a},{b}", "", "", *c) for c in simple if a not in c and b not in c]
    rows += [("count", "", "", "", *c) for c in simple + both]
    for a, n in product(texts, numbers):
        rows += [(head, a, n, how, *none) for head in ("top", "tops") for how in ("DESC", "ASC")]
    rows += [(head, a, "", "", *none) for head in ("all", "per") for a in shared]
    for agg, n in product(AGGREGATES, numbers):
        if (agg, n) != ("SUM", "year"):  # nobody asks for it
            rows += [("agg", "", n, agg, *c) for c in [none, *by_text]]
            rows += [("agg_per", a, n, agg, *none) for a in shared]
    return [(table, *row) for row in rows]


def _draw(
    combination: Combination, databases: tuple[Database, Database], rng: random.Random
) -> tuple[str, str]:
    """A question and its query for a combination; ("", "") where the data has no fit literal."""
    (table, head, chosen, n, how), condition = combination[:5], combination[5:]
    said, where = _condition(table, condition, databases, rng)
    if any(condition) and not where:
        return "", ""
    a, _, b = chosen.partition(",")
    names = {"t": table, "a": a, "b": b, "n": n, "agg": how, "way": how, "k": rng.randint(2, 4)}
    spoken = names | {c: _word((TEXTS | NUMBERS)[names[c]][0], rng) for c in "abn" if names[c]}
    if how in AGGREGATES:
        spoken["agg"] = _word(AGGREGATES[how], rng)
    elif how:
        spoken["best"] = "highest" if how == "DESC" else "lowest"
        spoken["est"] = _word(NUMBERS[n][1 if how == "DESC" else 2], rng)
    query, questions = HEADS[head]
    question = _word(questions, rng).format(**spoken)
    return question.rstrip("?") + said + "?" * question.endswith("?"), query.format(**names) + where


def _condition(
    table: str, condition: Combination, databases: tuple[Database, ...], rng: random.Random
) -> tuple[str, str]:
    """A condition in words and in SQL, with literals from the data; ("", "") where none fits."""
    text, number, sign = condition
    columns = SCHEMAS[table].split()
    rows = [row for database in databases for row in database[table][1]]
    lead, verb = rng.choice([(" with ", ""), (" whose ", " is"), (" where the ", " is")])
    said, tests, link = "", [], lead
    if text:
        value = rng.choice(sorted({row[columns.index(text)] for row in rows}))
        rows = [row for row in rows if row[columns.index(text)] == value]
        tests.append(f"{text} = '{value}'")
        if rng.random() < 0.5:
            said = " " + _word(TEXTS[text][2], rng).format(v=value)
        else:
            said, link = f"{lead}{_word(TEXTS[text][0], rng)}{verb} {value}", " and "
    if number:
        values = {row[columns.index(number)] for row in rows}
        # The neighbour on the side the comparison keeps is in the data, so off by one shows.
        beside = {">": 1, "<": -1, "=": 0}[sign]
        fit = sorted(x for x in values if x + beside in values)
        if not fit:
            return "", ""
        x = rng.choice(fit)
        tests.append(f"{number} {sign} {x}")
        said += f"{link}{_word(NUMBERS[number][0], rng)}{verb} {_word(COMPARE[sign], rng)} {x}"
    return said, f" WHERE {' AND '.join(tests)}" if tests else ""
