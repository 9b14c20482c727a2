"""Hostile SQL, generated: what a model, or who prompts it, might send to a runner of SELECTs."""

from __future__ import annotations

import random

TOWNS = {
    "towns": (
        ["city", "country", "area"],
        [("Oslo", "Norway", 45), ("Rome", "Italy", 128), ("Bonn", None, 14), ("Pisa", "Italy", "")],
    )
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WRITES = (
    "INSERT INTO towns VALUES ('x', 'y', {n})",
    "UPDATE towns SET area = {n}",
    "DELETE FROM towns",
    "DROP TABLE towns",
    "CREATE TABLE t{n} (a)",
    "CREATE TABLE t{n} AS SELECT * FROM towns",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER g AFTER INSERT ON towns BEGIN DELETE FROM towns; END",
    "ALTER TABLE towns RENAME TO t{n}",
    "REPLACE INTO towns VALUES (1, 2, {n})",
    "REINDEX",
    "ANALYZE",
    "VACUUM INTO 'file{n}.db'",
    "BEGIN EXCLUSIVE",
    "SAVEPOINT s",
    "COMMIT",
    "SELECT city INTO t{n} FROM towns",
    "INSERT INTO towns SELECT * FROM towns RETURNING *",
)
OUTSIDE = (
    "ATTACH 'file{n}.db' AS other",
    "ATTACH DATABASE ':memory:' AS b{n}",
    "DETACH main",
    "SELECT load_extension('/tmp/x{n}.so')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('file{n}', 'x')",
    "SELECT * FROM fts3_tokenizer('simple')",
    "SELECT * FROM sqlite_master",
    "SELECT sql FROM sqlite_schema UNION SELECT name FROM pragma_database_list",
    "SELECT * FROM pragma_table_info('towns')",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = {n}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA temp_store_directory = '.'",
    "SELECT * FROM json_each('[1,{n}]')",
    "SELECT * FROM generate_series(1, {n}00000)",
    "EXPLAIN SELECT * FROM towns",
)
BIG = (
    "SELECT length(randomblob({n}00000000))",
    "SELECT zeroblob({n}00000000)",
    "SELECT printf('%{n}00000000d', 1)",
    "SELECT hex(zeroblob({n}0000))",
    "SELECT char({n}, 0, 1114111)",
    "SELECT abs(-9223372036854775808)",
    "SELECT 9223372036854775807 + {n}, 1e999, -1e999, 1 / 0, 1 % 0",
    "SELECT CAST(x'ff{n}' AS TEXT)",
    "SELECT x'00', 'a\0b'",
    "SELECT group_concat(a.city || b.city) FROM towns a, towns b, towns c, towns d, towns e",
    "SELECT like('%{n}%', city, 'xx') FROM towns",
)


def statement(draw: random.Random) -> str:
    """One statement; which depends on `draw` alone."""
    kind = draw.choice(
        [_listed, _listed, _listed, _recursive, _joined, _slow, _deep, _noise, _mutant, _unicode]
    )
    text = kind(draw)
    if draw.random() < 0.3:
        text = _hidden(draw, text)
    if draw.random() < 0.2:
        text = "".join(c.upper() if draw.random() < 0.5 else c.lower() for c in text)
    if draw.random() < 0.15:
        text += draw.choice([";", "; --", ";;", "; " + _listed(draw), " /*", "\n--\n; SELECT 1"])
    return text


def _listed(draw: random.Random) -> str:
    return draw.choice(draw.choice([WRITES, OUTSIDE, BIG])).replace("{n}", str(draw.randint(0, 99)))


def _recursive(draw: random.Random) -> str:
    body = "n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    text = f"{draw.choice(['WITH', 'WITH RECURSIVE'])} {body} SELECT {draw.choice('i1*')} FROM n"
    return draw.choice([text, f"SELECT * FROM ({text})", f"SELECT 1 WHERE 1 IN ({text})"])


def _joined(draw: random.Random) -> str:
    tables = ", ".join(f"towns {c}" for c in LETTERS[: draw.randint(2, 26)])
    what = draw.choice(["*", "count(*)", "a.city", "DISTINCT a.city || b.city", "sum(a.area)"])
    order = draw.choice(["", " ORDER BY 1", " ORDER BY a.area, b.area DESC", " GROUP BY b.city"])
    return f"SELECT {what} FROM {tables}{order}"


def _slow(draw: random.Random) -> str:
    """Few steps, each of much work: functions whose time is the product of two long texts."""
    long, other = (
        f"replace('{'~' * n}', '~', '{c * 100}')"
        for n, c in ((draw.randint(90, 98), "z"), (draw.randint(1, 60), draw.choice("yz")))
    )
    call = draw.choice(
        ["trim({a}, {b})", "instr({a}, {b})", "replace({a}, {b}, '')", "{a} LIKE {b}"]
    )
    call = call.format(a=f"({long} || a.area)", b=f"({other} || 'b' || h.area)")
    return f"SELECT count(*) FROM {', '.join(f'towns {c}' for c in LETTERS[:8])} WHERE {call} = 'q'"


def _deep(draw: random.Random) -> str:
    n, inner = draw.choice([5, 60, 900]), _listed(draw)
    return draw.choice(
        [
            f"SELECT {'(' * n}1{')' * n}",
            f"SELECT {'-' * n}1",
            f"SELECT {'NOT ' * n}1",
            "SELECT " + "1, " * n + "1",
            f"SELECT {' + '.join(['1'] * n)}",
            " UNION ".join(["SELECT 1"] * n),
            "SELECT * FROM (" * n + inner + ")" * n,
            f"SELECT CASE {'WHEN 1 THEN 2 ' * n}END",
            f"SELECT 1 WHERE 1 IN ({', '.join(map(str, range(n)))})",
        ]
    )


def _noise(draw: random.Random) -> str:
    words = ["SELECT", "FROM", "towns", "city", "(", ")", "'", '"', "`", "[", "]", "--", "/*", "*/",
             ";", ",", "*", "WHERE", "?", ":a", "@b", "$c", "1e9", "0x1F", "NULL", "\t", "\n", "\0",
             "||", "=", "<", "OVER", "JOIN", "LIMIT", "-1", "UNION", "EXISTS", "CASE"]  # fmt: skip
    start = draw.choice(["SELECT ", "", "select\t"])
    return start + draw.choice(["", " "]).join(draw.choices(words, k=draw.randint(1, 40)))


def _mutant(draw: random.Random) -> str:
    """A good query with a few characters lost, doubled or replaced, as unbalanced quotes are."""
    text = list("SELECT \"city\", 'it''s' FROM towns WHERE area > (SELECT min(area) FROM towns)")
    for _ in range(draw.randint(1, 3)):
        i = draw.randrange(len(text))
        text[i] = draw.choice(["", text[i] * 2, "'", '"', "(", ";", "\0", "é"])
    return "".join(text)


def _unicode(draw: random.Random) -> str:
    odd = draw.choice(
        ["é", "\u202e", "\ufeff", "\u00a0", "\ud800", "\U0001f600", "模", "ＳＥＬＥＣＴ", "’"]
    )
    return draw.choice(
        [f"SELECT '{odd}'", f"SELECT{odd}city FROM towns", f"{odd}SELECT 1", f'SELECT "{odd}"',
         f"SELECT city FROM towns WHERE city LIKE '%{odd * draw.randint(1, 99)}%'"]
    )  # fmt: skip


def _hidden(draw: random.Random, text: str) -> str:
    return draw.choice(
        [f"SELECT * FROM ({text})", f"SELECT ({text})", f"SELECT 1 UNION {text}", f"/* */ {text}",
         f"-- \n{text}", f"SELECT 1; {text}", f"EXPLAIN QUERY PLAN {text}", f"SELECT 1 -- {text}",
         f"SELECT EXISTS ({text})", f"SELECT '{text}'", f"\ufeff{text}", f"({text})",
         f"SELECT 'a' /* {text} */ FROM towns"]
    )  # fmt: skip
