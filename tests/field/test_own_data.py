"""Data of one's own: what is in a file becomes text, or a sentence names its row and column.

Each is a public report's kind (found with data of one's own, tmalsburg/llm_surprisal 12 for special
tokens) or a brother of it; the value is computed independently.
"""

from __future__ import annotations

import codecs
import copy
import gzip
import json
import pickle
import warnings

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
import transformers
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import gumlab as gl
from gumlab.evaluation import generate
from gumlab.tasks import Example, Task, load_task
from gumlab.tasks.batches import as_examples, collate, encode, tokens_of

ROW = {"prompt": "w4", "target": "w5"}
CHAT = [{"role": "user", "content": "w4 w5"}, {"role": "assistant", "content": "w6"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}w{{ 10 if m.role == 'user' else 11 }} {{ m.content }} "
    "{% if m.role == 'assistant' %}<eos>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}w11 {% endif %}"
)


def written(folder, text, name="mine.jsonl"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestCells:
    """str(value) for anything: NaN becomes "nan", a list its Python form."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [(3, "3"), (-0.5, "-0.5"), (1e30, "1e+30"), ("03", "03"), (" a\r\nb ", "a\nb")],
    )
    def test_a_text_or_a_number_is_written_as_it_is(self, value, text, tmp_path):
        path = written(tmp_path, lines({"prompt": "q", "target": value}))
        assert load_task(path).train == [Example("q", text)]

    @pytest.mark.parametrize("kind", [np.int32, np.int64, np.float32, np.float64])
    def test_numpy_s_numbers_are_written_without_their_type(self, kind):
        (example,) = as_examples([{"prompt": "q", "target": kind(2)}])
        assert example.target in ("2", "2.0")
        assert float(example.target) == 2

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            ("NaN", "nan is no text. It often stands for a missing value"),
            ("-Infinity", "-inf is no text"),
            ("null", "nothing is there"),
            ("true", 'bool True is no text.*Write what the model should read, as "yes"'),
            ('["a", "b"]', "list .* is no text.*Several good answers belong into the column ref"),
            ("[1]", "list .* is no text.*Write it as text first"),
            ('{"a": 1}', "dict .* is no text"),
            (r'"a \ud83d"', r"half a character at 2 \('\\ud83d', a lone surrogate\)"),
            (r'"a\u0000"', "a NUL character at 1"),
        ],
        ids=[
            "not a number",
            "infinity",
            "null",
            "a truth value",
            "texts",
            "numbers",
            "an object",
            "half a character",
            "NUL",
        ],
    )
    @pytest.mark.parametrize("column", ["prompt", "target"])
    def test_anything_else_is_refused_with_its_line_and_column(
        self, column, value, sentence, tmp_path
    ):
        cells = {"prompt": '"q"', "target": '"t"', column: value}
        row = ", ".join(f'"{name}": {cell}' for name, cell in cells.items())
        path = written(tmp_path, lines(ROW) + f"\n{{{row}}}\n")
        with pytest.raises(gl.GumlabError, match=rf"jsonl, line 3, column {column}.*{sentence}"):
            load_task(path)

    @pytest.mark.parametrize("value", ["[null]", "[NaN]", '["a", ["b"]]', "true", "{}"])
    def test_references_too(self, value, tmp_path):
        path = written(tmp_path, f'{{"prompt": "q", "target": "t", "references": {value}}}')
        with pytest.raises(gl.GumlabError, match="line 1, column references: "):
            load_task(path)

    def test_references_are_a_list_or_one_and_count_once(self, tmp_path):
        rows = [ROW | {"references": given} for given in (["w5", "w6 ", 7], "w6", "", None, [])]
        answers = [("w5", "w6", "7"), ("w5", "w6"), ("w5",), ("w5",), ("w5",)]
        task = load_task(written(tmp_path, lines(*rows)))
        assert [example.references for example in task.train] == answers

    def test_a_missing_key_is_a_missing_value(self, tmp_path):
        path = written(tmp_path, lines(ROW, {"prompt": "q"}))
        with pytest.raises(gl.GumlabError, match="line 2, column target: nothing is there"):
            load_task(path)

    @pytest.mark.parametrize(
        ("column", "cell"),
        [("prompt", CHAT[:1]), ("target", CHAT[1:]), ("references", ["a", "b"])],
    )
    def test_a_list_that_csv_wrote_as_text_is_noticed(self, column, cell, tmp_path):
        frame = pd.DataFrame([{"prompt": "q", "target": "t"} | {column: cell}])
        frame.to_csv(tmp_path / "mine.csv", index=False)
        with pytest.raises(gl.GumlabError, match=f"row 2, column {column}: a list written as te"):
            load_task(tmp_path / "mine.csv")

    @pytest.mark.parametrize("cell", ["[sigh]", "[1, 2]", "[]", "['a'", "['a', 'b']"])
    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_brackets_alone_are_text(self, cell, form, tmp_path):
        path = tmp_path / f"mine.{form}"
        frame = pd.DataFrame([{"prompt": cell, "target": cell}])
        if form == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
        assert load_task(path).train == [Example(cell, cell)]

    def test_empty_texts_are_left_out_and_counted_once(self, tmp_path):
        rows = [ROW, *({"prompt": p, "target": t} for p, t in (("", "a"), ("a", ""), (" \n", "a")))]
        path = written(tmp_path, lines(*rows))
        with pytest.warns(UserWarning, match=r"3 row\(s\) of .* with an empty prompt") as said:
            task = load_task(path)
        assert len(said) == 1
        assert task.train == [Example("w4", "w5")]
        assert task.notes[-1].startswith("3 row(s) of")


class TestFiles:
    """A long CSV field is "download again", of two equal headers the last wins."""

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
    def test_every_encoding_with_a_mark_and_every_line_end(self, encoding, end, form, tmp_path):
        separator = "\t" if form == "tsv" else ","
        text = {
            "jsonl": '{"Prompt": "é", "target": "a, \U0001f600"}\n\n{"prompt": 2, "target": "b"}',
        }.get(form, f'Prompt{separator} target\né{separator}"a, \U0001f600"\n\n2{separator}b\n')
        path = written(tmp_path, text.replace("\n", end).encode(encoding), f"mine.{form}")
        assert load_task(path).train == [Example("é", "a, \U0001f600"), Example("2", "b")]

    @pytest.mark.parametrize("size", [140_000, 300_000])
    def test_a_long_cell_is_read(self, size, tmp_path):
        text = f"prompt,target\n{'x' * size},t\n"
        (example,) = load_task(written(tmp_path, text, "mine.csv")).train
        assert example.prompt == "x" * size

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("prompt,target\né,b\n".encode("latin-1"), "byte 14, in line 2, is 0xe9.*Latin-1 or"),
            (codecs.BOM_UTF16_LE + b"p\0r", "is not UTF-16: byte"),
            ("prompt,target\na,b\n".encode("utf-16-le"), "NUL characters, the first in line 1"),
            ("prompt,target\na,b\na\0,b\n", "NUL characters, the first in line 3"),
            ("prompt,target,target\na,b,c\n", "has the column target twice"),
            ("prompt,target, Prompt \na,b,c\n", "has the column prompt twice"),
            ("prompt;target\na;b\n", "parted by semicolons: save it with commas"),
            ("prompt\ttarget\na\tb\n", "parted by tabs"),
            ("promt,target\na,b\n", "expected the columns prompt, .* Is 'promt' meant as prompt?"),
            ("prompt,targets\na,b\n", "Is 'targets' meant as target?"),
            ("a,b\nc,d\n", "holds columns a, b; expected the columns prompt, target"),
            ("", "holds nothing; expected the columns prompt"),
            ("\n\n", "holds nothing"),
            ("prompt,target\n", "has a header but no rows. Add rows"),
            ("prompt,target\n\n\n", "has a header but no rows"),
            ("prompt,target\na,b\n\na,b,c\n", "row 4: expected 2 cells; found 3"),
            ("prompt,target\na,b\nc\n", "row 3: expected 2 cells; found 1"),
            ('prompt,target\na,b\nc,"d\ne,f\n', "row 3 has a quotation mark that is not closed"),
            ('prompt,target\na,"b" c\n', "row 2 has a quotation mark that is not closed, or not"),
            (gzip.compress(b"prompt,target\na,b\n"), "compressed by gzip: unpack it first"),
            (b"PK\x03\x04\x14\0", "zip archive or an Excel workbook"),
            (b"PAR1\x15\x04", "it is a parquet file: rename"),
            ("<!DOCTYPE html><html>", "it is a web page"),
            ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ],
        ids=[
            "latin-1",
            "utf-16 cut short",
            "utf-16 without a mark",
            "a NUL",
            "two equal columns",
            "equal but for case and space",
            "semicolons",
            "tabs",
            "a column nearly named",
            "another nearly",
            "no such columns",
            "empty",
            "blank lines alone",
            "a header alone",
            "a header and blank lines",
            "a cell too many",
            "a cell too few",
            "a quotation mark not closed",
            "a quotation mark not doubled",
            "gzip",
            "a workbook",
            "parquet",
            "a web page",
            "a pointer",
        ],
    )
    def test_a_csv_that_is_none_or_damaged_is_one_sentence(self, text, sentence, tmp_path):
        path = written(tmp_path, text, "mine.csv")
        with pytest.raises(gl.GumlabError, match=sentence) as said:
            load_task(path)
        assert str(path) in str(said.value)

    def test_trailing_commas_and_other_columns_do_not_matter(self, tmp_path):
        text = ",target,note,note,prompt,,\n0,a,x,y,b,,\n1,c,,,d,,\n"
        task = load_task(written(tmp_path, text, "mine.csv"))
        assert task.train == [Example("b", "a"), Example("d", "c")]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            (lines(ROW) + '{"prompt": "q", "tar', "line 2 is no row by itself"),
            (lines(ROW) + "5\n", "5 is .*|2 is 5, not an object"),
            ('{\n "prompt": "q",\n "target": "t"\n}', "line 1 is no row by itself"),
            ('{"prompt": "a", "target": "b", "target": "c"}', "the key 'target' is there twice"),
            ('{"prompt": "a", "target": "b", "Target": "c"}', "the key 'target' is there twice"),
            ('{"prompt": ["a"], "target": ["b"]}', "column prompt: list .* is no text"),
            ('[{"prompt": "a", "target": "b"},]', "cannot be read as JSON"),
            ('[{"prompt": "a", "target": "b"}, 5]', "row 2 is 5, not an object"),
            ("[" * 100_000, "cannot be read as JSON"),
            ("prompt,target\na,b\n", "line 1 is no row by itself"),
        ],
        ids=[
            "a line cut short",
            "a number as a row",
            "one object over lines",
            "a key twice",
            "a key twice but for case",
            "columns instead of rows",
            "a trailing comma",
            "a number in a list",
            "too deep",
            "csv",
        ],
    )
    def test_so_is_json(self, text, sentence, tmp_path):
        with pytest.raises(gl.GumlabError, match=sentence):
            load_task(written(tmp_path, text))

    def test_a_parquet_cut_short_or_damaged_inside(self, tmp_path):
        path = tmp_path / "mine.parquet"
        rows = [{"prompt": f"w{i}", "target": "x" * 50 + str(i)} for i in range(5000)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="gzip")
        whole = path.read_bytes()
        assert len(load_task(path).train) == 5000
        middle = len(whole) // 2
        damaged = whole[: middle - 4000] + bytes(8000) + whole[middle + 4000 :]
        for data in (whole[:-9], whole[:100], b"", damaged):
            path.write_bytes(data)
            with pytest.raises(gl.GumlabError, match=r"mine\.parquet cannot be read as parquet"):
                load_task(path)

    def test_parquet_of_two_equal_columns_and_of_bytes(self, tmp_path):
        path = tmp_path / "mine.parquet"
        columns = [pyarrow.array([b"q"]), pyarrow.array(["t"]), pyarrow.array(["u"])]
        table = pyarrow.Table.from_arrays(columns, ["prompt", "target", "target"])
        pyarrow.parquet.write_table(table, path)
        with pytest.raises(gl.GumlabError, match="has the column target twice"):
            load_task(path)
        pyarrow.parquet.write_table(table.select([0, 1]), path)
        with pytest.raises(gl.GumlabError, match=r"row 1, column prompt: bytes .*value\.decode"):
            load_task(path)

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("mine.xlsx", r"its name should end in one of \.csv, \.tsv"),
            ("mine.jsonl.gz", "its name should end in one of"),
            ("mine", "its name should end in one of"),
            ("mine.txt", r'has no columns; as running text: load_task\("wikitext", '),
        ],
    )
    def test_another_ending_is_named(self, name, sentence, tmp_path):
        path = written(tmp_path, "prompt,target\n", name)
        with pytest.raises(gl.GumlabError, match=sentence):
            load_task(path)


class TestFolders:
    """A folder is taken for what it may be: files missing, another layout, a wrong file."""

    def test_what_is_there_is_told_where_nothing_fits(self, tmp_path):
        written(tmp_path, "x", "train.jsonl.gz")
        (tmp_path / "test.jsonl").mkdir()
        for name in (tmp_path, "e2e", "wikisql", "samsum", "wikitext"):
            with pytest.raises(
                gl.GumlabError, match=r"which holds test\.jsonl/, train\.jsonl\.gz\. Expected"
            ):
                load_task(name) if name == tmp_path else load_task(name, tmp_path)

    def test_an_editor_s_hidden_copies_are_not_read_twice(self, tmp_path):
        (tmp_path / ".ipynb_checkpoints").mkdir()
        written(tmp_path, lines(ROW), "train.jsonl")
        written(tmp_path, lines(ROW), ".ipynb_checkpoints/train-checkpoint.jsonl")
        written(tmp_path, b"\0\5\x16\7", "._train.jsonl")
        assert load_task(tmp_path).train == [Example("w4", "w5")]

    def test_files_of_another_ending_are_told(self, tmp_path):
        written(tmp_path, lines(ROW), "train.jsonl")
        written(tmp_path, "prompt,target\na,b\n", "test.csv")
        notes = load_task(tmp_path).notes
        assert "test.csv left out: only *.jsonl is read here" in notes

    def test_several_files_of_a_split_are_told(self, tmp_path):
        written(tmp_path, lines(ROW), "train.jsonl")
        written(tmp_path, lines(ROW), "train_old.jsonl")
        assert (
            "train is train.jsonl, train_old.jsonl, one after another" in load_task(tmp_path).notes
        )

    def test_rows_of_train_in_test_are_counted_once(self, tmp_path):
        other = {"prompt": "w4", "target": "w9"}
        written(tmp_path, lines(ROW, other), "train.jsonl")
        written(tmp_path, lines(ROW, {"prompt": "w8", "target": "w5"}), "test.jsonl")
        with pytest.warns(UserWarning, match="1 of 2 test examples are also in train") as said:
            load_task(tmp_path)
        assert len(said) == 1

    def test_one_example_is_enough(self, gpt2, tokenizer, tmp_path):
        task = load_task(written(tmp_path, lines(ROW)))
        before = gl.evaluate(gpt2, tokenizer, task, "train", generated=0)["loss"]
        gl.train(gpt2, tokenizer, task, steps=5, lr=1e-2, progress=False)
        assert gl.evaluate(gpt2, tokenizer, task, "train", generated=0)["loss"] < before

    def test_a_split_that_is_not_there_is_named_with_those_that_are(self, gpt2, tokenizer):
        task = load_task([ROW])
        with pytest.raises(gl.GumlabError, match=r"no test examples\. It has: train"):
            gl.evaluate(gpt2, tokenizer, task)
        with pytest.raises(gl.GumlabError, match=r"'tset'\. Did you mean 'test'"):
            task.split("tset")

    def test_a_file_where_a_folder_is_expected(self, tmp_path):
        path = written(tmp_path, "mr,ref\nname[A],A.\n", "devset.csv")
        assert load_task("e2e", path).validation == [Example("name[A] ->", "A.")]
        with pytest.raises(gl.GumlabError, match="holds columns mr, ref; expected the columns di"):
            load_task("samsum", path)

    @pytest.mark.parametrize("data_dir", ["", 5, [], b"x"])
    def test_what_is_no_folder_s_path(self, data_dir):
        with pytest.raises(gl.GumlabError, match="data_dir must be the path of a folder"):
            load_task("e2e", data_dir)

    def test_a_folder_for_a_task_of_one_s_own(self, tmp_path):
        path = written(tmp_path, lines(ROW))
        for mine in (path, str(path), [ROW]):
            with pytest.raises(gl.GumlabError, match="A task of your own is one path, or rows"):
                load_task(mine, tmp_path)

    def test_what_the_package_datasets_saved_is_recognised(self, tmp_path):
        datasets.Dataset.from_list([ROW]).save_to_disk(tmp_path / "saved")
        with pytest.raises(gl.GumlabError, match=r"load_task\(datasets\.load_from_disk"):
            load_task(tmp_path / "saved")

    @pytest.mark.parametrize("name", ["", "restaurant", "restaurants "])
    def test_a_name_that_is_none(self, name):
        with pytest.raises(gl.GumlabError, match="Unknown task"):
            load_task(name)

    def test_running_text_in_utf_16_is_not_read_as_latin_1(self, tmp_path):
        written(tmp_path, "é, he said".encode("utf-16"), "a.txt")
        assert load_task("wikitext", tmp_path).train == [Example("", "é, he said")]
        written(tmp_path, "é, he said".encode("utf-16-le"), "a.txt")
        with pytest.raises(gl.GumlabError, match="NUL characters"):
            load_task("wikitext", tmp_path)


class TestInMemory:
    """What users have in their hands: data sets, frames, dicts, chats, texts."""

    def test_rows_in_every_form_are_the_same_examples(self):
        rows = [ROW, {"prompt": 7, "target": "w8"}]
        text_rows = [{name: str(cell) for name, cell in row.items()} for row in rows]
        want = [Example("w4", "w5"), Example("7", "w8")]
        for data in (
            rows,
            (row for row in rows),
            tuple(rows),
            [{"Prompt": r["prompt"], "completion": r["target"], "more": None} for r in rows],
            pd.DataFrame(rows),
            datasets.Dataset.from_list(text_rows),
            datasets.Dataset.from_list(text_rows).to_iterable_dataset(),
            datasets.IterableDataset.from_generator(lambda: iter(text_rows)),
        ):
            task = load_task(data)
            assert task.train == want
            assert task.metric == "bleu"
        assert as_examples(pd.DataFrame(rows)) == want

    def test_a_dict_of_splits(self):
        parts = {"train": [ROW], "valid": [ROW | {"prompt": "w7"}]}
        hub = datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in parts.items()})
        for data in (parts, hub):
            task = load_task(data)
            assert (task.train, task.validation) == ([Example("w4", "w5")], [Example("w7", "w5")])
            assert "the test split is not there" in task.notes[0]
        with pytest.raises(gl.GumlabError, match=r"keys prompt, target; .*Dataset\.from_dict"):
            load_task({"prompt": ["a"], "target": ["b"]})

    @pytest.mark.parametrize(
        ("cells", "sentence"),
        [
            ({"target": ["a", None]}, "The frame, row 1, column target: nothing is there"),
            ({"target": [1.0, np.nan]}, "row 1, column target: nothing is there"),
            ({"target": pd.array([1, None], "Int64")}, "row 1, column target: nothing is there"),
            ({"target": pd.to_datetime(["2020-01-01"] * 2)}, "row 0, column target: Timestamp"),
            ({"target": [True, False]}, "row 0, column target: bool True is no text"),
        ],
    )
    def test_a_frame_s_gaps_are_named(self, cells, sentence):
        frame = pd.DataFrame({"prompt": ["p", "q"]} | cells)
        with pytest.raises(gl.GumlabError, match=sentence):
            load_task(frame)

    def test_a_frame_of_two_equal_columns(self):
        frame = pd.DataFrame([["a", "b", "c"]], columns=["prompt", "target", "target"])
        with pytest.raises(gl.GumlabError, match="The frame has the column target twice"):
            load_task(frame)

    def test_class_labels_are_numbers_that_stand_for_names(self):
        labels = datasets.ClassLabel(names=["bad", "good"])
        features = datasets.Features(
            {"prompt": datasets.Value("string"), "target": labels, "other": labels}
        )
        rows = {"prompt": ["a"], "target": [1], "other": [0]}
        data = datasets.Dataset.from_dict(rows, features=features)
        with pytest.raises(gl.GumlabError, match=r"column target holds class labels.*int2str"):
            load_task(data)
        named = data.cast_column("target", datasets.Value("string"))
        assert load_task(named).train == [Example("a", "1")]

    @pytest.mark.parametrize(
        "data",
        [b"w4", 7, None, {"prompt": "a"}, {"w4", "w5"}, Task("t", "bleu", [Example("a", "b")])],
    )
    def test_what_is_nothing_of_that(self, data):
        with pytest.raises(gl.GumlabError, match=r"Expected examples, texts or rows; got"):
            as_examples(data)

    @pytest.mark.parametrize("name", ["restaurants", "wikitext", "mine.csv"])
    def test_a_name_is_not_taken_for_a_text(self, name, gpt2, tokenizer, tmp_path):
        with pytest.raises(gl.GumlabError, match=rf"the name '{name}'. Load it first"):
            gl.train(gpt2, tokenizer, name, steps=1, progress=False)
        with pytest.raises(gl.GumlabError, match="Load it first"):
            as_examples(tmp_path)

    @pytest.mark.parametrize("odd", [None, "tiny-gpt2", Task("t", "bleu", [Example("a", "b")])])
    def test_what_is_no_tokenizer_is_named(self, odd, gpt2):
        for examples in ([Example("w4", "w5")], ["w4 w5"]):
            with pytest.raises(gl.GumlabError, match=r"Expected a tokenizer, got .* The order is"):
                gl.train(gpt2, odd, examples, steps=1, progress=False)

    @pytest.mark.parametrize("odd", [7, None, b"x", [], {"prompt": "a", "target": "b"}])
    def test_mixed_kinds_are_named(self, odd):
        with pytest.raises(gl.GumlabError, match=r"Example 1 is .*; expected an Example"):
            as_examples(["w4", odd])
        with pytest.raises(gl.GumlabError, match=r"Example 0 is .*; expected an Example|row 1 is"):
            as_examples([ROW, odd, "w4"])

    def test_left_out_rows_are_counted_once_a_run(self, gpt2, tokenizer):
        rows = [ROW, ROW | {"target": " "}, ROW | {"prompt": ""}]
        with pytest.warns(UserWarning, match=r"2 row\(s\) of The list .* left out") as said:
            gl.train(gpt2, tokenizer, rows, steps=3, progress=False)
        assert len(said) == 1

    def test_texts_are_running_text_judged_by_perplexity(self):
        task = load_task(["w4 w5", "w6"])
        assert task.metric == "perplexity"
        assert task.train == [Example("", "w4 w5"), Example("", "w6")]
        assert as_examples(datasets.Dataset.from_dict({"text": ["w4"]})["text"]) == [
            Example("", "w4")
        ]


class TestExamplesAndTasks:
    """Objects made wrongly are refused when they are made."""

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ((None, "a"), "prompt must be a text; got NoneType None"),
            (("a", None), "target must be a text; got NoneType"),
            (("a", 3), "target must be a text; got int 3"),
            ((b"a", "b"), "prompt must be a text; got bytes"),
            (("a", "b", "one"), r"references are several texts; got one, 'one'. Write \(text,\)"),
            (("a", "b", ["one", None]), "reference must be a text; got NoneType"),
            (("a \udc00", "b"), "half a character at 2"),
            (("a", "\ud83d"), "half a character at 0"),
            (([], "b"), "has no messages"),
            (([{"role": "user"}], "b"), "message 0 has role; expected role and content alone"),
            (([{"from": "human", "value": "a"}], "b"), "has from, value; .*Rename what is called"),
            (([{"role": "user", "content": None}], "b"), "message 0 has role; expected"),
            (([{"role": "user", "content": [{}]}], "b"), "content, must be a text; got list"),
            ((["hi"], "b"), "message 0 is 'hi'; expected a dict"),
        ],
        ids=[
            "no prompt",
            "no target",
            "a number",
            "bytes",
            "one reference",
            "no reference",
            "half a character in the prompt",
            "half a character",
            "an empty chat",
            "no content",
            "other names",
            "null content",
            "parts",
            "no dict",
        ],
    )
    def test_an_example(self, arguments, sentence):
        with pytest.raises(gl.GumlabError, match=sentence):
            Example(*arguments)

    def test_references_of_any_kind_are_a_tuple(self):
        for given in ((), [], None, iter([])):
            assert Example("a", "b", given).references == ("b",)
        assert Example("a", "b", (x for x in "cd")).references == ("c", "d")

    def test_a_task_s_splits_are_lists_of_examples(self, gpt2, tokenizer):
        examples = make_examples(3)
        task = Task("t", "bleu", train=(e for e in examples), test=[ROW], validation=None)
        assert (task.train, task.validation, task.test) == (examples, [], [Example("w4", "w5")])
        assert Task("t", "bleu", examples).train is examples
        text = Task("t", "perplexity", test=["w4 w5", "w6"])
        assert gl.evaluate(gpt2, tokenizer, text)["loss"] > 0
        with pytest.raises(gl.GumlabError, match="Example 0 is int 5"):
            Task("t", "bleu", [5])
        with pytest.raises(gl.GumlabError, match=r"the name 'restaurants'\. Load it first"):
            Task("t", "bleu", "restaurants")

    @pytest.mark.parametrize("limit", [1, 3, 99])
    def test_a_limit_above_the_number_of_examples_is_all(self, limit, gpt2, tokenizer):
        task = Task("t", "bleu", test=make_examples(3))
        loss = gl.evaluate(gpt2, tokenizer, task, limit=limit, generated=0)["loss"]
        few = Task("t", "bleu", test=task.test[:limit])
        assert loss == gl.evaluate(gpt2, tokenizer, few, generated=0)["loss"]


class TestChats:
    """Lists of messages became their Python form: now the tokenizer's own template writes them."""

    def chat_tokenizer(self):
        tokenizer = word_tokenizer(bos=True)
        tokenizer.chat_template = TEMPLATE
        return tokenizer

    def test_ids_are_those_of_the_template(self):
        tokenizer = self.chat_tokenizer()
        example = Example(CHAT[:1], "w6")
        ((ids, size),) = encode(tokenizer, [example], 64)
        whole = tokenizer.apply_chat_template(CHAT, return_dict=False)
        asked = tokenizer.apply_chat_template(
            CHAT[:1], add_generation_prompt=True, return_dict=False
        )
        assert (ids, size) == (whole, len(asked))
        assert ids == [2, 10, 4, 5, 11, 6, 0]
        assert tokens_of(tokenizer, [example.prompt], special=True) == [asked]

    def test_every_form_of_a_chat_is_the_same_example(self, tmp_path):
        want = [Example(CHAT[:1], "w6")]
        rows = [
            {"messages": CHAT},
            {"prompt": CHAT[:1], "completion": CHAT[1:]},
            {"prompt": CHAT[:1], "target": "w6"},
        ]
        for row in rows:
            assert load_task([row]).train == want
            assert load_task(datasets.Dataset.from_list([row])).train == want
            assert load_task(written(tmp_path, lines(row))).train == want
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "mine.parquet")
            assert load_task(tmp_path / "mine.parquet").train == want
        assert load_task([CHAT]).train == want

    def test_a_chat_reads_as_one_and_is_copied_as_one(self):
        (example,) = load_task([CHAT]).train
        assert example.prompt == "user: w4 w5"
        for twin in (copy.deepcopy(example), pickle.loads(pickle.dumps(example))):
            assert twin.prompt.messages == example.prompt.messages

    def test_chats_go_through_the_lifecycle(self, gpt2):
        tokenizer = self.chat_tokenizer()
        chats = [
            [{"role": "user", "content": e.prompt}, {"role": "assistant", "content": e.target}]
            for e in make_examples(6)
        ]
        task = load_task({"train": chats[:4], "test": chats[4:]})
        small = gl.prune(gpt2, "wanda", tokenizer, task, keep=0.5)
        gl.train(small, tokenizer, task, steps=2, progress=False)
        assert set(gl.evaluate(small, tokenizer, task)) >= {"loss", "bleu"}
        ids = tokenizer.apply_chat_template(
            chats[4][:1], add_generation_prompt=True, return_dict=False
        )
        best = small(torch.tensor([ids])).logits[0, -1].argmax()
        (text, _) = generate(small, tokenizer, task.test)
        if best != tokenizer.eos_token_id:
            assert text.split()[0] == tokenizer.decode(best)

    def test_without_a_template_it_is_said(self, gpt2, tokenizer):
        with pytest.raises(gl.GumlabError, match="the tokenizer has no chat template"):
            gl.train(gpt2, tokenizer, [CHAT], steps=1, progress=False)

    def test_a_template_that_refuses_a_role_says_why(self):
        tokenizer = self.chat_tokenizer()
        tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
        with pytest.raises(gl.GumlabError, match=r"refuses the chat.*System role not supported"):
            encode(tokenizer, as_examples([CHAT]), 64)

    def test_a_template_that_rewrites_its_prompt_is_refused(self):
        tokenizer = self.chat_tokenizer()
        tokenizer.chat_template = TEMPLATE.replace("}}w11 {%", "}}w12 w11 {%").replace(
            "%}w11 {%", "%}w12 {%"
        )
        with pytest.raises(gl.GumlabError, match="what to learn does not follow from what is ask"):
            encode(tokenizer, as_examples([CHAT]), 64)

    @pytest.mark.parametrize(
        ("row", "sentence"),
        [
            ({"messages": CHAT[:1]}, "row 0, column messages: expected the assistant's message"),
            ({"messages": CHAT[1:]}, "column messages: .*messages before it; got 1 message"),
            ({"messages": "user: hi"}, "expected a list of messages.*got 'user: hi'"),
            ({"messages": None}, "expected a list of messages"),
            ({"messages": [CHAT[0], {"role": "assistant", "content": ""}]}, "with a text"),
            ({"prompt": CHAT[:1], "target": CHAT}, "column target: .*no other message"),
            ({"prompt": "w4", "target": CHAT[1:]}, "is a chat, the prompt is a text"),
            ({"prompt": [{"from": "human"}], "target": "a"}, "column prompt, message 0 has from"),
            ({"prompt": [CHAT[0], "b"], "target": "a"}, "message 1 is 'b'; expected a dict"),
            (CHAT[0], "holds columns role, content"),
            ({"messages": CHAT, "target": "w9"}, "holds columns messages, target; expected"),
        ],
    )
    def test_what_is_no_chat_is_named(self, row, sentence):
        with pytest.raises(gl.GumlabError, match=sentence):
            load_task([row])

    def test_chats_and_texts_in_one_are_refused(self):
        examples = [Example("w4", "w5"), Example(CHAT[:1], "w6")]
        with pytest.raises(gl.GumlabError, match="Some prompts are chats and some are texts"):
            encode(self.chat_tokenizer(), examples, 64)


def around(single):
    """A word tokenizer that puts special tokens around every text."""
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<bos>", 2), ("<eos>", 0), ("<pad>", 1)]
    )
    return tokenizer


def piece_tokenizer(vocabulary):
    """As Llama's: a space before every text, words begin with one, merges over what they may."""
    vocabulary = {"<eos>": 0, "<unk>": 1} | {p: i for i, p in enumerate(vocabulary, start=2)}
    inner = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    inner.decoder = decoders.Replace("▁", " ")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>"
    )


class TestSpecialTokens:
    """Special tokens are taken as they come (tmalsburg/llm_surprisal 12)."""

    @pytest.mark.parametrize(
        ("single", "before"),
        [
            ("$A", []),
            ("<bos> $A", [2]),
            ("$A <eos>", []),
            ("<bos> $A <eos>", [2]),
            ("<bos> $A <pad>", [2]),
            ("<bos> <bos> $A <eos> <eos>", [2, 2]),
        ],
        ids=[
            "nothing",
            "before",
            "behind",
            "before and behind",
            "another token behind",
            "two of each",
        ],
    )
    def test_whatever_a_tokenizer_puts_around_a_text(self, single, before):
        tokenizer = around(single)
        rows = encode(tokenizer, [Example("w4 w5", "w6 w7"), Example("w8", "w9")], 64)
        assert rows == [
            ([*before, 4, 5, 6, 7, 0], len(before) + 2),
            ([*before, 8, 9, 0], len(before) + 1),
        ]
        assert tokens_of(tokenizer, ["w4"], special=True) == [[*before, 4]]

    def test_a_space_before_every_text_does_not_part_prompt_and_target(self):
        tokenizer = piece_tokenizer(["▁a", "▁b", "▁"])
        assert tokenizer(" b")["input_ids"] == [4, 3]  # by itself it begins with a space too many
        assert encode(tokenizer, [Example("a", "b")], 64) == [([2, 3, 0], 1)]

    def test_a_prompt_is_what_it_will_be_when_the_model_is_asked(self):
        """Where joining parts the text otherwise: "a " and " b" joined have two spaces in one."""
        inner = Tokenizer(models.WordLevel({"<eos>": 0, "<unk>": 1, "a b": 2, "a": 3, " b": 4}))
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>"
        )
        assert tokenizer("a b")["input_ids"] == [2]
        assert encode(tokenizer, [Example("a", "b")], 64) == [([3, 4, 0], 1)]

    def test_a_slow_tokenizer_gives_what_a_fast_one_gives(self):
        class Slow(transformers.PreTrainedTokenizer):
            def __init__(self):
                names = {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
                self.ids = {"<eos>": 0, "<bos>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, 64)}
                super().__init__(**names)

            vocab_size = property(lambda self: len(self.ids))

            def get_vocab(self):
                return dict(self.ids)

            def _tokenize(self, text):
                return text.split()

            def _convert_token_to_id(self, token):
                return self.ids.get(token, 3)

            def _convert_id_to_token(self, index):
                return next(word for word, i in self.ids.items() if i == index)

            def build_inputs_with_special_tokens(self, ids, pair=None):
                return [2, *ids]

        examples = make_examples(8)
        slow = encode(Slow(), examples, 64)
        assert slow == encode(word_tokenizer(bos=True), examples, 64)

    @pytest.mark.parametrize("target", ["w6 <eos>", "w6<eos>", "w6 <eos> "])
    def test_an_end_of_text_that_is_there_is_not_doubled(self, target):
        assert encode(word_tokenizer(), [Example("w4", target)], 64) == [([4, 6, 0], 1)]

    def test_one_within_a_target_is_refused(self, gpt2, tokenizer):
        examples = [Example("w4", "w5"), Example("w4 <eos>", "w5 <eos> w6")]
        with pytest.raises(gl.GumlabError, match="Example 1 has the end-of-text token '<eos>' wit"):
            gl.train(gpt2, tokenizer, examples, steps=1, progress=False)
        in_prompt = encode(tokenizer, [Example("w4 <eos> w5", "w6")], 64)
        assert in_prompt == [([4, 0, 5, 6, 0], 3)]

    def test_a_prompt_without_tokens_is_refused_but_a_beginning_of_text_is_one(self):
        examples = [Example("w4", "w5"), Example("", "w6")]
        with pytest.raises(gl.GumlabError, match="Example 1 has a prompt without tokens"):
            encode(word_tokenizer(), examples, 64)
        assert encode(word_tokenizer(bos=True), examples, 64)[1] == ([2, 6, 0], 1)

    @pytest.mark.parametrize("pad", [None, "<eos>"])
    def test_the_end_of_text_is_learned_though_it_also_pads(self, pad, gpt2, task):
        tokenizer = word_tokenizer()
        want = generate(gpt2, tokenizer, task.test)
        tokenizer.pad_token = pad
        rows = encode(tokenizer, [Example("w4 w5", "w6 w7"), Example("w8", "w9")], 64)
        labels = collate(rows)["labels"]
        assert labels.tolist() == [[-100, -100, 6, 7, 0], [-100, 9, 0, -100, -100]]
        assert generate(gpt2, tokenizer, task.test) == want

    def test_no_end_of_text_is_said_but_running_text_needs_none(self):
        tokenizer = word_tokenizer()
        tokenizer.eos_token = None
        with pytest.raises(gl.GumlabError, match="no end-of-text token"):
            encode(tokenizer, make_examples(1), 64)
        assert encode(tokenizer, ["w4 w5"], 64) == [([4, 5], 0)]

    def test_a_vocabulary_above_the_embedding(self, tokenizer):
        small = tiny("gpt2", vocab_size=20)
        with pytest.raises(gl.GumlabError, match="but the model knows 20 tokens"):
            gl.score(small, "wanda", tokenizer, [Example("w4", "w30")])
        gl.score(small, "wanda", tokenizer, [Example("w4 w19", "w5")])

    def test_what_does_not_fit_is_counted_once(self, gpt2, tokenizer):
        """Prompts lose their left, targets their end; a warning for each, with counts."""
        long = " ".join(["w5"] * 80)
        examples = [Example(long, "w6"), Example("w4", long), Example("w4", "w5")]
        with pytest.warns(UserWarning, match="do not fit into the context of 64") as said:
            gl.train(gpt2, tokenizer, examples, steps=4, batch_size=1, progress=False)
        assert sorted(str(warning.message)[:25] for warning in said) == [
            "1 of 3 prompts do not fit",
            "1 of 3 targets do not fit",
        ]

    def test_nothing_is_said_where_all_fits(self, gpt2, tokenizer):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encode(tokenizer, make_examples(8), 64)
