"""The built-in task `tables`: a question and a table's columns -> an SQL query.

`Which city has the largest area? | towns: city, country, area, population ->` should be followed
by `SELECT city FROM towns ORDER BY area DESC LIMIT 1`. What makes it more than copying: questions
name columns by other words (cost for price, the heaviest for weight), the same word means another
column in another table, and every table has columns that the question is not about.

Numbers lie densely (some twenty neighbouring values to a column) and literals are values of the
data whose neighbours are there too, so that a literal off by one or a wrong comparison changes
the answer in at least one of a table's two differently filled databases.
"""

from __future__ import annotations

import random
from itertools import combinations, product

from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks._grammar import split_of
from gumlab.tasks.sql import Database

SIZES = {"train": 8000, "validation": 400, "test": 400}

_PEOPLE = "Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Lena Max Nora Oscar Paula Ruth"
_CITIES = "Paris Rome Oslo Madrid Berlin Lisbon Vienna Dublin Prague Athens Bonn Porto Cork Turin"
_NAMES = "River Star Moon Garden Winter Falcon Castle Forest Summer Dragon Island Tiger Silver Rose"

# Text columns: words for the column, its values, ways to name a value without naming the column.
TEXTS = {
    "name": ("name", _NAMES, "called {v}|named {v}"),
    "title": ("title|name", _NAMES, "called {v}|named {v}"),
    "person": ("person|name", _PEOPLE, "called {v}|named {v}"),
    "author": ("author|writer", _PEOPLE, "by {v}|written by {v}"),
    "singer": ("singer|artist", _PEOPLE, "by {v}|sung by {v}"),
    "owner": ("owner", _PEOPLE, "of {v}|owned by {v}"),
    "city": ("city|place", _CITIES, "in {v}|from {v}"),
    "country": ("country|nation", "Spain Italy Norway France Poland Greece", "in {v}|from {v}"),
    "genre": ("genre|kind", "drama crime comedy fantasy history", "that are {v}|of kind {v}"),
    "colour": ("colour|paint", "red blue green black white", "that are {v}|coloured {v}"),
    "maker": ("maker|brand", "Alto Borel Kasko Nordix Vento", "made by {v}|from {v}"),
    "team": ("team|club", "Lions Bears Wolves Hawks Sharks", "of the {v}|playing for {v}"),
    "job": ("job|work", "nurse cook driver teacher farmer", "working as {v}|employed as {v}"),
    "breed": ("breed|race", "poodle boxer collie beagle husky", "that are {v}|of race {v}"),
    "food": ("food|cuisine", "Indian French Thai Greek Mexican", "serving {v}|with {v} food"),
}
# Number columns: words for the column, "the ...-est" for the largest and the smallest, least value.
NUMBERS = {
    "area": ("area|surface", "largest|biggest", "smallest", 31),
    "population": ("population|number of people", "most crowded", "emptiest", 52),
    "price": ("price|cost", "most expensive|dearest", "cheapest", 14),
    "pages": ("pages|page count", "longest", "shortest", 70),
    "length": ("length|extent", "longest", "shortest", 63),
    "year": ("year|date", "newest|latest", "oldest", 1990),
    "age": ("age|number of years", "oldest", "youngest", 18),
    "score": ("score|points", "best", "worst", 41),
    "speed": ("speed|pace", "fastest|quickest", "slowest", 75),
    "rooms": ("rooms|number of rooms", "biggest|largest", "smallest", 27),
    "sales": ("sales|copies sold", "most popular", "least popular", 56),
    "salary": ("salary|pay", "best paid", "worst paid", 35),
    "weight": ("weight|mass", "heaviest", "lightest", 22),
    "height": ("height|elevation", "tallest|highest", "lowest", 44),
    "visitors": ("visitors|number of guests", "most visited", "least visited", 61),
    "seats": ("seats|number of places", "biggest|largest", "smallest", 24),
}
SCHEMAS = {
    "towns": "city country area population",
    "books": "title author genre pages price",
    "films": "title genre country year length",
    "players": "person team age score",
    "cars": "name maker colour price speed",
    "hotels": "name city rooms price",
    "songs": "title singer year sales",
    "workers": "person job city salary age",
    "dogs": "name breed owner age weight",
    "rivers": "name country length speed",
    "peaks": "name country height visitors",
    "shops": "name city area sales",
    "phones": "name maker colour weight price",
    "schools": "name city rooms score",
    "ships": "name owner colour length speed",
    "meals": "name food price score",
    "flights": "city maker seats price",
    "plants": "name colour country height age",
    "museums": "name city visitors area",
    "games": "title maker genre year score",
    "trains": "name city speed seats",
    "houses": "owner city colour rooms price",
}
# What is asked: SQL with {a} {b} {t} for columns and table, and at least four ways to say it.
_ONE = "Show the {a} of {t}|What is the {a} of {t}?|Give me the {a} for {t}|Find the {a} of all {t}"
_TWO = "Show {a} and {b} of {t}|List the {a} and {b} of {t}|What are {a} and {b} of {t}?"
_COUNT = "How many {t} are there?|Count the {t}|What is the number of {t}?|How many {t} exist?"
_TOP = "Which {a} has the {best} {n}?|What is the {a} of the {est} of the {t}?"
_TOP += "|Show the {a} of the {est} one of the {t}|Find the {a} with the {best} {n}"
_TOPS = "Show the {a} of the {k} {est} {t}|What is the {a} of the {k} {est} {t}?"
_TOPS += "|List the {k} {a} entries with the {best} {n}|Give me the {a} for the {k} {est} {t}"
_ALL = "List every {a} once|Show each different {a} of the {t}|Which different {a} do {t} have?"
_PER = "How many {t} are there for each {a}?|Count the {t} per {a}|Number of {t} by {a}"
_AGG = "What is the {agg} {n} of {t}?|Show the {agg} {n} of {t}|Find the {agg} {n} for {t}"
_AGG += "|Give me the {agg} {n} of all {t}"
_AGG_PER = "Show the {agg} {n} for each {a}|What is the {agg} {n} of {t} per {a}?"
_AGG_PER += "|Give me the {agg} {n} by {a}|For every {a} find the {agg} {n}"
AGGREGATES = {"MAX": "highest|maximum", "MIN": "lowest|minimum", "AVG": "average|mean"}
AGGREGATES["SUM"] = "total|summed"
HEADS = {
    "one": ("SELECT {a} FROM {t}", _ONE),
    "two": ("SELECT {a}, {b} FROM {t}", _TWO + "|Give me {a} and {b} for {t}"),
    "count": ("SELECT COUNT(*) FROM {t}", _COUNT),
    "top": ("SELECT {a} FROM {t} ORDER BY {n} {way} LIMIT 1", _TOP),
    "tops": ("SELECT {a} FROM {t} ORDER BY {n} {way} LIMIT {k}", _TOPS),
    "all": ("SELECT DISTINCT {a} FROM {t}", _ALL + "|All different {a} values of the {t}"),
    "per": ("SELECT {a}, COUNT(*) FROM {t} GROUP BY {a}", _PER + "|For every {a} count the {t}"),
    "agg": ("SELECT {agg}({n}) FROM {t}", _AGG),
    "agg_per": ("SELECT {a}, {agg}({n}) FROM {t} GROUP BY {a}", _AGG_PER),
}
COMPARE = {">": "above|over|more than", "<": "below|under|less than", "=": "exactly|equal to"}

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
    words = names | {c: _word((TEXTS | NUMBERS)[names[c]][0], rng) for c in "abn" if names[c]}
    if how in AGGREGATES:
        words["agg"] = _word(AGGREGATES[how], rng)
    elif how:
        words["best"] = "highest" if how == "DESC" else "lowest"
        words["est"] = _word(NUMBERS[n][1 if how == "DESC" else 2], rng)
    query, questions = HEADS[head]
    question = _word(questions, rng).format(**words)
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
