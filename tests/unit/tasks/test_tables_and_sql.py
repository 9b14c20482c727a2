"""Task `tables` and the runner of generated SQL: nothing unsafe runs, nothing wrong passes."""

import copy
import re
import time

import pytest
from helpers.hostile import TOWNS

from gumlab.errors import GumlabError
from gumlab.tasks import SPLITS, load_task
from gumlab.tasks.sql import exact_match, run_query, same_result
from gumlab.tasks.tables import HEADS, NUMBERS, SCHEMAS, SIZES, TEXTS

COPIES = "".join(f", a{i + 1} AS (SELECT 1 FROM a{i}, a{i})" for i in range(40))
HIDDEN_WITH = 'SELECT 1 AS "\'" FROM (WITH a AS (SELECT 1) SELECT * FROM a) AS "\'"'

REFUSED = {
    "DELETE FROM towns": "begins with 'DELETE'",
    "DROP TABLE towns": "begins with 'DROP'",
    "INSERT INTO towns VALUES ('a', 'b', 1)": "begins with 'INSERT'",
    "UPDATE towns SET area = 0": "begins with 'UPDATE'",
    "ATTACH 'gumlab_test.db' AS other": "begins with 'ATTACH'",
    "VACUUM INTO 'gumlab_test.db'": "begins with 'VACUUM'",
    "PRAGMA query_only = OFF": "begins with 'PRAGMA'",
    "SELECT * FROM pragma_table_info('towns')": "refused",
    "BEGIN": "begins with 'BEGIN'",
    "SELECT load_extension('x')": "asks for 'load_extension'",
    "SELECT length(randomblob(1000000000))": "asks for 'randomblob'",
    "SELECT zeroblob(1000000000)": "asks for 'zeroblob'",
    "SELECT printf('%1000000000d', 1)": "asks for 'printf'",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n": "'WITH'",
    "SELECT * FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n)": (
        "WITH is not allowed"
    ),
    f"SELECT * FROM (WITH a0 AS (SELECT 1){COPIES} SELECT * FROM a40)": "WITH is not allowed",
    HIDDEN_WITH: "WITH is not allowed",
    "SELECT 1; SELECT 2": "one statement",
    "SELECT 1; DROP TABLE towns": "one statement",
    "SELECT count(*) FROM " + ", ".join(f"towns t{i}" for i in range(20)): "200,000 steps",
    "SELECT a.city FROM " + ", ".join(f"towns {c}" for c in "abcdefghi"): "10,000 rows",
    f"SELECT {'replace(' * 9}'aaaaaaaa'{', char, char)' * 9}": "wrong",
    f"SELECT {'replace(' * 9}'aaaaaaaa'" + ", 'a', 'aaaaaaaa')" * 9: "too big",
    "SELECT " + "(" * 999 + "1" + ")" * 999: "wrong",
    "SELECT " + "1, " * 5000 + "1": "wrong",
    "SELECT ?": "wrong",
    "SELECT CAST(x'ff' AS TEXT)": "wrong",
    "SELECT '\ud800'": "wrong",
    "SELECT 'a\0b'": "NUL",
    "SELECT population FROM towns": "no such column: population",
    "": "begins with 'nothing'",
    " \n": "begins with 'nothing'",
    "the largest city": "begins with 'the'",
}


@pytest.mark.parametrize(("query", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_unsafe_or_wrong_is_refused_quickly_and_changes_nothing(
    query, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    database = copy.deepcopy(TOWNS)
    start = time.perf_counter()
    with pytest.raises(GumlabError, match=re.escape(reason)):
        run_query(query, database)
    assert time.perf_counter() - start < 2
    assert database == TOWNS
    assert not list(tmp_path.iterdir())
    assert not same_result(query, "SELECT city FROM towns", (database,))


@pytest.mark.parametrize("query", [None, 3, b"SELECT 1", ["SELECT 1"]])
def test_a_query_that_is_no_text_is_refused(query):
    with pytest.raises(GumlabError, match=type(query).__name__):
        run_query(query, TOWNS)


@pytest.mark.parametrize(
    "inner",
    ["INSERT INTO towns VALUES (1, 2, 3)", "DELETE FROM towns"],
    ids=["insert", "delete"],
)
def test_the_authorizer_holds_without_the_check_of_the_text(inner, monkeypatch):
    monkeypatch.setattr("gumlab.tasks.sql._check_text", lambda query: None)
    with pytest.raises(GumlabError, match="only reading is allowed"):
        run_query(inner, TOWNS)
    for query in ("PRAGMA query_only = OFF", "ATTACH ':memory:' AS b", "BEGIN", "VACUUM INTO 'b'"):
        with pytest.raises(GumlabError):
            run_query(query, TOWNS)
    with pytest.raises(GumlabError, match="after 5,000 steps"):
        run_query(
            f"SELECT count(*) FROM {', '.join(map('towns {}'.format, 'abcdefgh'))}", TOWNS, 5000
        )
    with pytest.raises(GumlabError, match="asks for 'recursion'"):
        run_query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n", TOWNS
        )


def test_ordinary_queries_run():
    assert run_query("SELECT city FROM towns WHERE country = 'Italy';", TOWNS) == [
        ("Rome",),
        ("Pisa",),
    ]
    assert run_query("SELECT COUNT(*), MIN(area) FROM towns", TOWNS) == [(4, 14)]
    assert run_query("SELECT city FROM towns WHERE city = 'with'", TOWNS) == []
    assert run_query("SELECT city FROM towns WHERE area = (SELECT MIN(area) FROM towns)", TOWNS)
    odd = {'a "b"': (["select", "x y"], [(1, 2.5)])}
    assert run_query('SELECT "x y" FROM "a ""b"""', odd) == [(2.5,)]


def test_damaged_tables_are_an_error_that_says_so():
    for broken in ({"t": (["a", "b"], [(1,)])}, {"t": (["a"], [(object(),)])}, {"t": (["a"], 3)}):
        with pytest.raises(GumlabError, match="could not be filled"):
            run_query("SELECT 1", broken)


def test_order_counts_only_where_the_gold_query_orders():
    down, up = ("SELECT city, area FROM towns ORDER BY area " + way for way in ("DESC", "ASC"))
    assert same_result(down, down, (TOWNS,))
    assert not same_result(up, down, (TOWNS,))
    assert same_result(down, "SELECT city, area FROM towns", (TOWNS,))
    assert same_result("SELECT country AS c FROM towns", "SELECT country FROM towns", (TOWNS,))
    # A multiset, not a set: 'Italy' twice is not 'Italy' once. None and text mix.
    once, all_of_them = "SELECT DISTINCT country FROM towns", "SELECT country FROM towns"
    assert not same_result(once, all_of_them, (TOWNS,))
    assert same_result(
        "SELECT country FROM towns ORDER BY city",
        "SELECT country FROM towns WHERE city <> 'order by'",
        (TOWNS,),
    )


def test_gold_that_fails_and_no_database_are_errors():
    with pytest.raises(GumlabError, match="no such table"):
        same_result("SELECT 1", "SELECT a FROM b", (TOWNS,))
    with pytest.raises(GumlabError, match="at least one"):
        same_result("SELECT 1", "SELECT 1", ())


def test_exact_match_ignores_layout_but_not_literals():
    assert exact_match(" SELECT a\n FROM t ;", "select a from t")
    assert not exact_match("SELECT a FROM t WHERE b = 'X  Y'", "SELECT a FROM t WHERE b = 'X Y'")
    assert not exact_match("SELECT a FROM t", "SELECT b FROM t")


@pytest.fixture(scope="module")
def task():
    return load_task("tables")


def form(example):
    """Table, kind of query and columns of an example, read off its query without the literals."""
    return re.sub(r"'\w+'|(?<= )\d+(?= |$)", "?", example.target).replace(
        "LIMIT ?", "LIMIT 1" if example.target.endswith("LIMIT 1") else "LIMIT k"
    )


def test_tables_is_the_same_every_time_and_has_its_sizes(task):
    again = load_task("tables")
    for split in SPLITS:
        assert len(task.split(split)) == SIZES[split]
        same = again.split(split) == task.split(split)
        assert same, split  # pytest would take minutes to print how two long lists differ


def test_held_out_combinations_and_prompts_are_disjoint(task):
    forms = {split: {form(e) for e in task.split(split)} for split in SPLITS}
    assert not (forms["train"] & forms["validation"])
    assert not (forms["train"] & forms["test"])
    assert not (forms["validation"] & forms["test"])
    prompts = [e.prompt for split in SPLITS for e in task.split(split)]
    assert len(set(prompts)) == len(prompts)


def test_every_table_head_and_comparison_occurs_in_train(task):
    train = " ; ".join(e.target for e in task.train)
    for table in SCHEMAS:
        assert f"FROM {table} " in train
    for piece in ("MAX(", "MIN(", "AVG(", "SUM(", "COUNT(", " > ", " < ", " AND ", "DISTINCT"):
        assert piece in train
    for piece in ("GROUP BY", "DESC LIMIT 1", "ASC LIMIT 1", "LIMIT 3", ", COUNT(*)", ", AVG("):
        assert piece in train
    assert all(len(questions.split("|")) >= 4 for _, questions in HEADS.values())


def test_no_word_means_two_columns_of_one_table():
    for columns in SCHEMAS.values():
        fields = [(TEXTS | NUMBERS)[c] for c in columns.split()]
        names = [word for f in fields for word in f[0].split("|")]
        superlatives = [w for f in fields if len(f) == 4 for w in f"{f[1]}|{f[2]}".split("|")]
        values = [v for f in fields if len(f) == 3 for v in f[1].split()]
        for words in (names, superlatives, values):
            assert len(set(words)) == len(words), columns


def test_gold_queries_find_something_and_databases_are_shared(task):
    assert len({id(e.databases) for e in task.train}) == len(SCHEMAS)
    for example in task.validation + task.test + task.train[::10]:
        answers = [run_query(example.target, database) for database in example.databases]
        assert any(rows and rows != [(0,)] and rows != [(None,)] for rows in answers)
        assert example.prompt.endswith(" ->")


def other_numbers(gold):
    """The query with each of its numbers one lower and one higher; never LIMIT 0."""
    for found in re.finditer(r"(?<= )\d+\b", gold):
        for step in (-1, 1):
            if number := int(found[0]) + step:
                yield gold[: found.start()] + str(number) + gold[found.end() :]


def other_literal(gold, columns, databases):
    """The query with its text in quotes replaced by another of the same column."""
    if found := re.search(r"'(\w+)'", gold):
        rows = [row for database in databases for row in next(iter(database.values()))[1]]
        position = next(i for i in range(len(columns)) if found[1] in {r[i] for r in rows})
        other = min({row[position] for row in rows} - {found[1]})
        yield gold.replace(found[0], f"'{other}'")


def mutants(example):
    """Wrong queries near the gold one, by kind of mistake."""
    gold = example.target
    columns = next(iter(example.databases[0].values()))[0]
    yield from (("number", wrong) for wrong in other_numbers(gold))
    yield from (("literal", wrong) for wrong in other_literal(gold, columns, example.databases))
    for a, b in (("<", ">"), (">", "<"), ("=", ">"), ("DESC", "ASC"), ("ASC", "DESC")):
        if f" {a} " in gold:
            yield "operator", gold.replace(f" {a} ", f" {b} ")
    for a in ("MAX", "MIN", "AVG", "SUM"):
        if f"{a}(" in gold:
            yield "aggregate", gold.replace(f"{a}(", f"{'MIN' if a == 'MAX' else 'MAX'}(")
    for column in set(columns) & set(re.findall(r"\w+", gold)):
        other = columns[(columns.index(column) + 1) % len(columns)]
        yield "column", re.sub(rf"\b{column}\b", other, gold)
    if " AND " in gold:
        yield "condition", gold.split(" AND ")[0]
        yield "condition", re.sub(r"WHERE .* AND ", "WHERE ", gold)


def test_two_databases_catch_nearly_every_near_miss(task):
    caught = {}
    for example in task.test:
        for kind, wrong in mutants(example):
            caught.setdefault(kind, []).append(
                not same_result(wrong, example.target, example.databases)
            )
    shares = {kind: sum(c) / len(c) for kind, c in caught.items()}
    print({kind: (round(share, 4), len(caught[kind])) for kind, share in shares.items()})
    assert set(shares) == {"number", "literal", "operator", "aggregate", "column", "condition"}
    assert min(shares.values()) >= 0.95, shares


def test_a_statement_is_stopped_by_its_seconds_too(monkeypatch):
    """A trim of 10,000 characters by 800 others is one step, so that steps alone bound nothing."""
    joined = f"SELECT count(*) FROM {', '.join(map('towns {}'.format, 'abcd'))}"
    assert run_query(joined, TOWNS) == [(4**4,)]
    monkeypatch.setattr("gumlab.tasks.sql.SECONDS", -1.0)
    with pytest.raises(GumlabError, match="or -1 seconds: it is endless or far too slow"):
        run_query(joined, TOWNS)
    assert run_query("SELECT area FROM towns WHERE city = 'Rome'", TOWNS) == [(128,)]
