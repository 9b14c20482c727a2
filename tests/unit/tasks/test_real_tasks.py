"""Tasks of real data: every form their publishers give them, on small files made here."""

import csv
import json
import math
import sqlite3
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
import torch
from helpers import ROOT
from helpers.models import CONTEXT, tiny

import gumlab as gl
from gumlab.evaluation import MAIN_METRIC, METRICS
from gumlab.tasks import METRICS as NAMES
from gumlab.tasks import Example, Task, load_task
from gumlab.tasks._files import split_of
from gumlab.tasks.sql import run_query
from gumlab.tasks.wikisql import executes_alike, logical_form

SHARED = ROOT.parent / "shared" / "data"
HEADER = ["Player", "No.", 'Height 5" (est.)', "", "player"]
TYPES = ["text", "real", "real", "text", "text"]
ROWS = [
    ["Ann O'Neil", "3", "1,200.5", "3", "a"],
    ["Bob", "21.0", "900", "x"],  # too short
    ["ann o'neil", "n/a", "-4", "3", "b", "too long"],
]
QUESTIONS = [
    ("Which number has Ann? ", {"sel": 1, "agg": 0, "conds": [[0, 0, "ANN O'NEIL"]]}),
    ("How many are over 900?", {"sel": 0, "agg": 3, "conds": [[2, 1, "900"], [3, 0, 3]]}),
    ("The least number?", {"sel": 1, "agg": 2, "conds": []}),
    ("Who has 1,200.5?", {"sel": 0, "agg": 0, "conds": [[2, 0, "about 1200.5"], [1, 2, 4.0]]}),
]
TARGETS = [
    """SELECT "No." FROM t WHERE "Player" = 'ANN O''NEIL'""",
    """SELECT COUNT("Player") FROM t WHERE "Height 5"" (est.)" > 900 AND "column 4" = '3'""",
    'SELECT MIN("No.") FROM t',
    """SELECT "Player" FROM t WHERE "Height 5"" (est.)" = 1200.5 AND "No." < 4""",
]
ANSWERS = [[(3.0,), ("n/a",)], [(1,)], [(3.0,)], [("Ann O'Neil",)]]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def challenge(folder, splits=("train", "dev", "test"), tables="{}.tables.jsonl", **table):
    table = {"id": "1-1", "header": HEADER, "types": TYPES, "rows": ROWS} | table
    for split in splits:
        lines = [{"phase": 1, "table_id": "1-1", "question": q, "sql": s} for q, s in QUESTIONS]
        write_lines(folder / f"{split}.jsonl", lines)
        write_lines(folder / tables.format(split), [table])


def hub_rows():
    table = {"header": HEADER, "page_title": "", "page_id": "", "types": TYPES, "id": "1-1"}
    table |= {"section_title": "", "caption": "", "rows": ROWS, "name": "table_1_1"}
    for question, sql in QUESTIONS:
        keys = ("column_index", "operator_index", "condition")
        columns = zip(*sql["conds"], strict=True) if sql["conds"] else ([], [], [])
        conds = dict(zip(keys, map(list, columns), strict=True))
        conds["condition"] = [str(value) for value in conds["condition"]]
        wanted = sql | {"human_readable": "SELECT", "conds": conds}
        yield {"phase": 1, "question": question, "table": table, "sql": wanted}


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def as_challenge(folder):
    challenge(folder)


def as_hub(folder):
    for split in ("train", "validation", "test"):
        write_parquet(folder / "default" / split / "0000.parquet", hub_rows())


@pytest.mark.parametrize("write", [as_challenge, as_hub])
def test_wikisql_targets_run_and_give_the_challenges_answers(write, tmp_path):
    write(tmp_path)
    task = load_task("wikisql", tmp_path)
    assert (task.metric, task.notes) == ("logical_form", ())
    assert task.train == task.validation == task.test
    assert [e.target for e in task.test] == TARGETS
    assert [run_query(e.target, e.databases[0]) for e in task.test] == ANSWERS
    assert task.test[0].prompt == (
        'Which number has Ann? | t: "Player", "No.", "Height 5"" (est.)", "column 4", '
        '"player (5)" ->'
    )
    found = METRICS["logical_form"](TARGETS, task.test)
    assert found == {"logical_form": 100.0, "execution": 100.0}


def test_the_hubs_table_is_read_where_there_is_no_folder(monkeypatch):
    import datasets
    import huggingface_hub

    data = datasets.Dataset.from_list(list(hub_rows()))
    hub = datasets.DatasetDict(train=data, validation=data)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
    task = load_task("wikisql")
    assert [e.target for e in task.validation] == TARGETS
    assert [run_query(e.target, e.databases[0]) for e in task.train] == ANSWERS
    assert len(task.notes) == 1


@pytest.mark.parametrize(
    ("query", "same", "executes"),
    [
        (TARGETS[1].lower().replace(" where ", "\n where "), True, True),
        (
            """select count( "player" ) from t
            where "column 4"=3 and "height 5"" (est.)">'900.0' ; """,
            True,
            True,
        ),
        (TARGETS[1].replace("> 900", "> 950"), False, True),  # the same row, another query
        (TARGETS[1].replace("> 900", "> 9000"), False, False),
        (TARGETS[1].replace("COUNT", "MAX"), False, False),
        (TARGETS[1].replace(""" AND "column 4" = '3'""", ""), False, True),
        # one row of text "1": sqlite takes a column that is not there for text
        ("""SELECT COUNT("Players") FROM t WHERE "column 4" = '3' AND "No." = 3""", False, False),
        (TARGETS[1] + " ORDER BY 1", False, False),  # runs, but is not of the form
        (TARGETS[1].replace('("Player")', '("Player"'), False, False),
        (TARGETS[1].replace("COUNT(", ""), False, False),
        (TARGETS[1].replace(" AND ", " OR "), False, False),
        (TARGETS[1].replace("FROM t", "FROM u"), False, False),
        ("DROP TABLE t", False, False),
        ("", False, False),
    ],
)
def test_logical_form_and_execution(query, same, executes, tmp_path):
    challenge(tmp_path)
    example = load_task("wikisql", tmp_path).test[1]
    assert (logical_form(query) == logical_form(example.target)) is same
    assert executes_alike(query, example) is executes
    got = METRICS["logical_form"]([query], [example])
    assert got == {"logical_form": 100.0 * same, "execution": 100.0 * executes}


def test_letter_case_and_the_order_of_conditions_do_not_count(tmp_path):
    challenge(tmp_path)
    examples = load_task("wikisql", tmp_path).test
    head, tests = TARGETS[3].split(" WHERE ")
    turned = f"{head} WHERE {' AND '.join(tests.split(' AND ')[::-1])}"
    for query, example in ((TARGETS[0].lower(), examples[0]), (turned, examples[3])):
        assert query != example.target
        assert logical_form(query) == logical_form(example.target)
        assert executes_alike(query, example)
    assert logical_form(TARGETS[0].replace("O''NEIL", "O''NEAL")) != logical_form(TARGETS[0])


def test_wikisql_executes_as_the_challenges_own_engine(tmp_path):
    """A twin of its dbengine.py: lower-case text in columns col0, col1, ..., values bound."""
    challenge(tmp_path)
    task = load_task("wikisql", tmp_path)
    for (_, sql), example in zip(QUESTIONS, task.test, strict=True):
        base = sqlite3.connect(":memory:")
        base.execute(
            "CREATE TABLE t (" + ", ".join(f"col{i} {k}" for i, k in enumerate(TYPES)) + ")"
        )
        for row in ROWS:
            cells = [*row, *[None] * 5][:5]
            cells = [c if c is None or k == "text" else c.replace(",", "")
                     for c, k in zip(cells, TYPES, strict=True)]  # fmt: skip
            base.execute("INSERT INTO t VALUES (?,?,?,?,?)", [c and c.lower() for c in cells])
        tests, values = [], []
        for column, sign, value in sql["conds"]:
            if TYPES[column] == "real" and isinstance(value, str):
                value = float("".join(c for c in value if c in "0123456789."))
            values.append(value.lower() if isinstance(value, str) else value)
            tests.append(f"col{column} {'=><'[sign]} ?")
        head = ("", "MAX", "MIN", "COUNT")[sql["agg"]]
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        wanted = base.execute(f"SELECT {head}(col{sql['sel']}) FROM t{where}", values).fetchall()
        base.close()
        got = run_query(example.target, example.databases[0])
        assert [(c.lower() if isinstance(c, str) else c,) for (c,) in got] == wanted


def test_tables_without_rows_score_the_logical_form_only(tmp_path):
    for split in ("train", "dev"):
        folder = tmp_path / split
        challenge(folder, (split,), "headers.jsonl", rows=None, types=None)
        (folder / "column_values_all.jsonl").write_text("{}\n")
    (tmp_path / "train" / "train.jsonl").rename(tmp_path / "train" / "train.reconstructed.jsonl")
    task = load_task("wikisql", tmp_path)
    assert "test.jsonl is not there" in task.notes[0]
    assert task.notes[1] == (
        "the tables of train and validation have no rows here: only the logical form is scored, "
        "nothing is executed"
    )
    assert [logical_form(e.target) for e in task.train][::2] == [
        logical_form(t) for t in TARGETS[::2]
    ]
    assert METRICS["logical_form"](TARGETS, task.train) == {"logical_form": 75.0}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            {"header": HEADER[:2], "types": TYPES[:2]},
            r"no query can be made of .*'sel': 0, 'agg': 3",
        ),
        ({"types": TYPES[:1]}, "no query can be made of .* on table '1-1'"),
        ({"id": "1-2"}, "on table '1-1'"),
    ],
)
def test_a_damaged_wikisql_is_one_clear_sentence(damage, sentence, tmp_path):
    challenge(tmp_path, **damage)
    with pytest.raises(gl.GumlabError, match=sentence):
        load_task("wikisql", tmp_path)


def test_wikisql_without_tables_says_where_they_belong(tmp_path):
    challenge(tmp_path, ("dev",))
    (tmp_path / "dev.tables.jsonl").unlink()
    with pytest.raises(gl.GumlabError, match=r"no tables beside it \(dev\.tables\.jsonl\)"):
        load_task("wikisql", tmp_path)


DIALOGUES = [("A: hi\nB: hi, 5?", "They meet."), ('A: "no"\nB: why', "A says no.")]
TALKS = [Example(f"{d}\nSummary:", s) for d, s in DIALOGUES]


def talk(names, split, form, folder):
    rows = [{"id": "1", names[0]: d.replace("\n", "\r\n"), names[1]: s} for d, s in DIALOGUES]
    path = folder / f"{split}.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "jsonl":
        write_lines(path, rows)
    elif form == "parquet":
        write_parquet(path, rows)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("dialogue", "summary"), ("train", "val", "test")),
        (
            ("dialogue", "section_text"),
            ("MTS-TrainingSet", "MTS-ValidationSet", "MTS-TestSet-1"),
        ),
        (("article", "highlights"), ("my_train", "my-dev", "Test")),
    ],
)
def test_dialogues_and_summaries_in_every_form(form, names, splits, tmp_path):
    for split in splits:
        talk(names, split, form, tmp_path)
    task = load_task("samsum", tmp_path)
    assert (task.metric, task.notes) == ("rouge", ())
    assert task.train == task.validation == task.test == TALKS


def test_rows_without_a_dialogue_are_left_out_and_counted(tmp_path):
    rows = [{"dialogue": d, "summary": s} for d, s in [*DIALOGUES, ("", "x"), ("y", None)]]
    write_lines(tmp_path / "talks.jsonl", rows)
    task = load_task("samsum", tmp_path)
    assert task.train == TALKS
    assert task.notes[0].startswith("no file name tells a split")
    assert task.notes[1].startswith("2 row(s) of")
    write_lines(tmp_path / "valid.jsonl", rows[:1])
    task = load_task("samsum", tmp_path)
    assert (len(task.train), len(task.validation)) == (0, 1)
    assert "1 *.jsonl file(s) that tell no split are left out" in task.notes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"dialogue": "a", "note": "b"}\n{"dialogue": ', "cannot be read as JSON"),
        ('[{"dialogue": "a", "note": "b"}, 5]', "cannot be read as JSON"),
        ('{"speech": "a", "note": "b"}', r"holds columns speech, note; expected the columns dial"),
        ("", "holds nothing"),
        ("[]", "holds nothing"),
    ],
)
def test_damaged_json_is_one_clear_sentence(text, sentence, tmp_path):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(gl.GumlabError, match=sentence):
        load_task("samsum", tmp_path)


def test_a_folder_of_several_data_sets_is_refused(tmp_path):
    for name in ("wikitext-2-raw-v1", "wikitext-103-raw-v1"):
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", [{"text": " a \n"}])
    with pytest.raises(gl.GumlabError, match=r"several data sets \(wikitext-103-raw-v1, wiki"):
        load_task("wikitext", tmp_path)
    assert load_task("wikitext", tmp_path / "wikitext-2-raw-v1").train == [Example("", " a \n")]


TEXT = "".join(f" = Title {i} = \n \n w{i} w5 w6 , é \n" for i in range(200))


def test_text_files_and_the_hubs_lines_are_the_same_corpus(tmp_path):
    raw, hub = tmp_path / "raw", tmp_path / "hub"
    raw.mkdir()
    for split, name in [("train", "train"), ("valid", "validation"), ("test", "test")]:
        (raw / f"wiki.{split}.raw").write_text(TEXT, encoding="utf-8", newline="\r\n")
        lines = [line if line.strip() else "" for line in TEXT.splitlines(keepends=True)]
        write_parquet(hub / f"{name}-00000-of-00001.parquet", [{"text": line} for line in lines])
    task = load_task("wikitext", raw)
    assert task == load_task("wikitext", hub)
    assert (task.metric, task.notes) == ("perplexity", ())
    assert "".join(e.target for e in task.test) == TEXT
    assert len(task.test) > 2
    assert all(not e.prompt and len(e.target) >= 2000 for e in task.test[:-1])


def test_a_folder_of_books_is_one_text_and_says_what_is_not_utf8(tmp_path):
    (tmp_path / "b.txt").write_bytes("é, he said".encode("latin-1"))
    (tmp_path / "a.txt").write_text("é, she said\n", encoding="utf-8")
    task = load_task("wikitext", tmp_path)
    assert "".join(e.target for e in task.train) == "é, she said\n\né, he said"
    assert "all is train" in task.notes[0]
    assert task.notes[1] == "b.txt is not UTF-8 and was read as Latin-1"
    one = load_task("wikitext", tmp_path / "a.txt")
    assert [e.target for e in one.train] == ["é, she said\n"]


def corpus(count=30):
    words = [f"w{4 + (7 * i * i + i) % 50}" for i in range(10 * count)]
    return [Example("", " ".join(words[10 * i : 10 * i + 10]) + "\n") for i in range(count)]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("context", "stride"), [(CONTEXT, 1), (CONTEXT, 17), (CONTEXT, 63)])
def test_perplexity_of_running_text_one_token_at_a_time(name, context, stride, tokenizer):
    model, examples = tiny(name), corpus(13 if stride > 1 else 8)
    got = gl.evaluate(model, tokenizer, Task("t", "perplexity", test=examples), stride=stride)
    ids = [i for e in examples for i in tokenizer(e.target)["input_ids"]]
    losses = []
    for t in range(1, len(ids)):
        begin = stride * max(0, math.ceil((t + 1 - context) / stride))
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:t]])).logits[0, -1]
        losses.append(-logits.log_softmax(-1)[ids[t]].item())
    assert got["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert got["perplexity"] == pytest.approx(math.exp(got["loss"]))
    assert (got["context"], got["stride"]) == (context, stride)


def test_running_text_goes_through_the_lifecycle(tokenizer):
    model, task = tiny("gpt2"), Task("text", "perplexity", corpus(40), corpus(9), corpus(7))
    figures = [gl.evaluate(model, tokenizer, task, batch_size=size) for size in (1, 2, 50)]
    assert [f["loss"] for f in figures] == pytest.approx([figures[0]["loss"]] * 3, rel=1e-5)
    assert set(figures[0]) == {"loss", "perplexity", "context", "stride"}
    gl.train(model, tokenizer, task, steps=30, lr=1e-2, batch_size=4, progress=False)
    assert gl.evaluate(model, tokenizer, task)["loss"] < figures[0]["loss"] - 0.5
    reports = [gl.redundancy(model, tokenizer, task, batch_size=size) for size in (1, 7)]
    assert reports[0].tokens == 400
    for one, other in zip(reports[0].sensitivity, reports[1].sensitivity, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    masks = gl.select(gl.score(model, "taylor", tokenizer, task), 0.5)
    small = gl.shrink(model, masks, tokenizer, task, refit=True)
    assert math.isfinite(gl.evaluate(small, tokenizer, task)["loss"])


def test_the_sensitivity_of_running_text_is_a_mean_over_blocks(tokenizer):
    """Examples of one block each, or of many to a block: the same stream, the same figure."""
    model, words = tiny("gpt2"), " ".join(e.target.strip() for e in corpus(32)).split()
    fine = [Example("", word) for word in words]
    coarse = [Example("", " ".join(words[i : i + CONTEXT])) for i in range(0, len(words), CONTEXT)]
    one, other = (gl.score(model, "taylor", tokenizer, e, limit=None) for e in (fine, coarse))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_what_running_text_cannot_do_is_said(tokenizer, task):
    from gumlab.evaluation import generate

    model = tiny("gpt2")
    with pytest.raises(gl.GumlabError, match="Running text has no prompts to generate from"):
        generate(model, tokenizer, corpus(2))
    text = Task("text", "perplexity", test=corpus(2))
    for stride, what in ((0, "a whole number, 1 or more"), (CONTEXT, f"1 to {CONTEXT - 1}")):
        with pytest.raises(gl.GumlabError, match=f"stride must be {what}"):
            gl.evaluate(model, tokenizer, text, stride=stride)
    with pytest.raises(gl.GumlabError, match="stride is for running text; task 'tiny' has prom"):
        gl.evaluate(model, tokenizer, task, stride=3)
    with pytest.raises(gl.GumlabError, match=r"The text has 1 token\(s\)"):
        gl.evaluate(model, tokenizer, Task("text", "perplexity", test=[Example("", "w4")]))


OWN = [{"prompt": "w4", "target": " w5 w6"}, {"prompt": "w7", "target": "w8", "references": ["w9"]}]
MINE = [Example("w4", "w5 w6"), Example("w7", "w8", ("w8", "w9"))]


def test_a_task_of_your_own_from_a_folder(tmp_path):
    folder = tmp_path / "my data"
    for split in ("train", "validation", "test"):
        rows = [row | {"prompt": f"{split} {row['prompt']}"} for row in OWN]
        write_lines(folder / f"{split}.jsonl", rows)
    for name in (folder, str(folder)):
        task = load_task(name)
        assert (task.name, task.metric, task.notes) == ("my data", "bleu", ())
        for split in ("train", "validation", "test"):
            mine = [replace(one, prompt=f"{split} {one.prompt}") for one in MINE]
            assert task.split(split) == mine
    assert load_task(folder, metric="rouge").metric == "rouge"


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_a_task_of_your_own_from_one_file(form, tmp_path, monkeypatch):
    path = tmp_path / f"mine.{form}"
    if form == "json":
        path.write_text(json.dumps(OWN))
    elif form == "csv":
        path.write_text("Prompt,Target\nw4,w5 w6\nw7,w8\n")
    else:
        write_parquet(path, [OWN[0] | {"references": None}, OWN[1]])
    monkeypatch.chdir(tmp_path)
    task = load_task(path.name)
    assert task.train == (MINE if form != "csv" else [MINE[0], Example("w7", "w8")])
    assert task.notes == (f"mine.{form} is read alone, as train",)


def test_a_metric_of_ones_choice(tmp_path, tokenizer):
    write_lines(tmp_path / "test.jsonl", OWN)
    model = tiny("gpt2")
    assert "rougeL" in gl.evaluate(model, tokenizer, load_task(tmp_path, metric="rouge"))
    silent = gl.evaluate(model, tokenizer, load_task(tmp_path, metric="perplexity"))
    assert list(silent) == ["loss", "perplexity"]
    with pytest.raises(gl.GumlabError, match=r"Unknown metric 'blue'\. Did you mean 'bleu'"):
        load_task(tmp_path, metric="blue")
    assert tuple(MAIN_METRIC) == NAMES
    assert set(METRICS) == set(NAMES) - {"perplexity"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("restaurant", "Unknown task 'restaurant'. Did you mean 'restaurants'"),
        ("wiki", "Unknown task 'wiki'. Did you mean 'wikisql'"),
        ("nowhere/mine.jsonl", r"no file or folder 'nowhere/mine\.jsonl'. Expected a \.jsonl"),
        ("mine.csv", "There is no file or folder 'mine.csv'"),
    ],
)
def test_an_unknown_task_or_path_is_refused(name, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        load_task(name)


@pytest.mark.parametrize("name", ["wikisql", "samsum", "wikitext"])
def test_without_the_hub_or_the_folder_the_error_says_what_to_get(name, tmp_path, monkeypatch):
    import huggingface_hub

    def nowhere(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", nowhere)
    with pytest.raises(gl.GumlabError, match=r"Could not reach the hub for .* pass data_dir="):
        load_task(name)
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(gl.GumlabError, match=r"Expected .*train") as said:
            load_task(name, folder)
        assert str(folder) in str(said.value)


def test_split_of():
    told = {"train": "trainset train.reconstructed x-Train-00000-of-00001 training_data"}
    told["validation"] = "devset valid.raw my_dev val ValidationSet"
    told["test"] = "testset_w_refs test TestSet-1"
    for split, names in told.items():
        assert {split_of(name) for name in names.split()} == {split}
    assert {split_of(n) for n in ("latest", "device", "values", "0000", "trains", "contest")} == {
        None
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the project")
class TestTheRealFiles:
    def test_wikisql(self):
        task = load_task("wikisql", SHARED / "wikisql")
        assert (len(task.train), len(task.validation)) == (56_277, 8_421)
        assert len(task.notes) == 2
        with (SHARED / "wikisql" / "dev" / "dev.jsonl").open() as file:
            rows = [json.loads(line) for line in file]
        for row, example in zip(rows, task.validation, strict=True):
            aggregate, _, conditions = logical_form(example.target)
            assert aggregate == ("", "MAX", "MIN", "COUNT", "SUM", "AVG")[row["sql"]["agg"]]
            assert len(conditions) == len({json.dumps(c).lower() for c in row["sql"]["conds"]})

    def test_mts_dialog(self):
        task = load_task("samsum", SHARED / "mts_dialog")
        assert (len(task.train), len(task.validation)) == (1_201, 100)
        assert task.train[0].prompt.startswith("Doctor: What brings you back into the clinic")
        assert task.train[0].target.startswith("The patient is a 76-year-old white female")

    def test_text(self):
        books = SHARED / "text" / "gutenberg"
        task = load_task("wikitext", books)
        size = sum(p.stat().st_size for p in books.glob("*.txt"))
        assert 0.97 * size < sum(len(e.target) for e in task.train) <= size + 17
        assert "shakespeare-caesar.txt is not UTF-8 and was read as Latin-1" in task.notes
        task = load_task("wikitext", SHARED / "text" / "wikitext-2")
        text = (SHARED / "text" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
        assert "".join(e.target for e in task.validation) == text
