"""`gumlab reproduce`: the paper's grid on its tasks, on tiny files in their publishers' forms."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.cli import main
from gumlab.study import Method, estimation, methods, paper, reproduction, runs
from gumlab.study.estimation import Estimate
from gumlab.study.experiments import EXPERIMENTS, METHODS, grid, steps_of
from gumlab.study.grid import expand
from gumlab.study.reproduction import Reproduction, as_text, beside_the_paper
from gumlab.tasks import Example, Task

CONTEXT = 128
HAND_MADE = {  # the settings of the paper's public code, written out
    "batch_size": 4, "lr": 5e-4, "weight_decay": 0.1, "eps": 1e-4, "clip": 1.0, "precision": "fp32",
}  # fmt: skip
GUM = {"freeze": False, "gram_every": 1, "gram_tokens": 1.0, "gram_memory": 0.001}
FEW = ["--only", "gum", "--keep", "0.5", "--steps", "3", "--batch-size", "4", "--generated", "4"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    model = tiny("gpt_neo", max_position_embeddings=CONTEXT)
    return gl.save(model, word_tokenizer(), tmp_path_factory.mktemp("base") / "tiny-neo")


def write_wikitext(folder: Path) -> None:
    for split, lines in (("train", 120), ("valid", 30), ("test", 30)):
        text = "".join(
            f" = w{4 + i % 9} = \n \n w{4 + i * i % 50} w5 , w6 \n" for i in range(lines)
        )
        (folder / f"wiki.{split}.tokens").write_text(text, encoding="utf-8")


def write_wikisql(folder: Path) -> None:
    table = {
        "id": "1-1",
        "header": ["w4", "w5"],
        "types": ["text", "real"],
        "rows": [["w6", 1], ["w7", 2]],
    }
    for split, count in (("train", 13), ("dev", 6), ("test", 6)):
        conditions = [[[1, 0, i % 2 + 1]] for i in range(count)]
        rows = [
            {
                "phase": 1,
                "table_id": "1-1",
                "question": f"w{8 + i} ?",
                "sql": {"sel": 0, "agg": 0, "conds": one},
            }
            for i, one in enumerate(conditions)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        (folder / f"{split}.tables.jsonl").write_text(json.dumps(table) + "\n", encoding="utf-8")


def write_samsum(folder: Path) -> None:
    for split, count in (("train", 13), ("val", 6), ("test", 6)):
        rows = [
            {"id": str(i), "dialogue": example.prompt, "summary": example.target}
            for i, example in enumerate(make_examples(count, seed=count))
        ]
        (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """A folder of each of the paper's tasks."""
    folders = {}
    for task, write in (
        ("wikitext", write_wikitext),
        ("wikisql", write_wikisql),
        ("samsum", write_samsum),
    ):
        folders[task] = tmp_path_factory.mktemp(task)
        write(folders[task])
    return folders


@pytest.fixture
def reproduce(monkeypatch, capsys, tmp_path, base, data):
    """Run the command in a folder of the test's own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, task="wikitext", model=base, data_dir=True):
        given = ["--task", task, "--model", model, *arguments]
        if data_dir:
            given += ["--data-dir", data[task]]
        monkeypatch.setattr(sys, "argv", ["gumlab", "reproduce", *map(str, given)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def calls(monkeypatch):
    """The methods and whether distilled of the runs that were begun; the third one is stopped."""
    begun, real = [], runs.run

    def counted(*given, **options):
        begun.append((given[3].label, options["teacher"] is not None))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(runs, "run", counted)
    return begun


@pytest.mark.parametrize("task", ["wikitext", "wikisql", "samsum"])
def test_stopped_and_gone_on_the_table_is_what_independent_runs_give(
    task, reproduce, calls, base, data, tmp_path
):
    code, text, error = reproduce(*FEW, task=task)
    assert code == 130
    assert "Stopped after 2 of 3 runs" in error
    assert "the same command" in error
    assert "perplexity" not in text.partition("Estimate")[2].partition("Differs")[0]
    code, text, error = reproduce(*FEW, task=task)
    assert code == 0, error
    assert len(calls) == 4  # the third was begun again, the two before were not
    assert "1 of 3 runs are to be done" in text
    assert {call for call in calls if call[0] != "dense"} == {("GUM", False), ("GUM", True)}

    folder = tmp_path / "runs" / f"reproduce-{task}-tiny-neo"
    table = pd.read_csv(folder / "table.csv")
    assert table[["method", "asked", "distilled"]].to_numpy().tolist() == [
        ["dense", 1.0, False],
        ["GUM", 0.5, False],
        ["GUM", 0.5, True],
    ]
    model, tokenizer = gl.load(base, device="cpu")
    loaded = gl.load_task(task, data[task])
    options = {"steps": 3, "generated": 4, "progress": False, **HAND_MADE}
    options["split"] = "test" if task == "samsum" else "validation"
    if task == "wikitext":
        options["stride"] = CONTEXT - 1
    mine = _three_runs(model, tokenizer, loaded, options, 512 if task == "wikitext" else 0.5)
    metrics = {"wikitext": "perplexity", "wikisql": "logical_form", "samsum": "rougeL"}
    for (_, row), done in zip(table.iterrows(), mine, strict=True):
        assert row[metrics[task]] == pytest.approx(done.row[metrics[task]])
        assert row["kept"] == pytest.approx(done.row["keep"])
        for name in ("sensitivity", "uniqueness"):
            assert row[name] == pytest.approx(done.row[name] / mine[0].row[name])
    if task == "wikitext":
        theirs = gl.paper.table4().loc["GUM", ["50%", "50% + distil"]]
        assert list(table["perplexity, paper"]) == [16.138, *theirs]
    assert (folder / "table.md").read_text(encoding="utf-8").count("| GUM | 50.0% |") == 2


def _three_runs(model, tokenizer, task, options, kd_weight):
    """Dense, GUM, and GUM with the dense one as teacher, by `gumlab.study.methods.run` itself."""
    run = methods.run
    dense = run(model, tokenizer, task, Method("dense"), **options)
    gum = Method("GUM", "gum", GUM)
    plain = run(model, tokenizer, task, gum, keep=0.5, **options)
    teacher = {"teacher": dense.model, "kd_weight": kd_weight}
    distilled = run(model, tokenizer, task, gum, keep=0.5, **teacher, **options)
    return [dense, plain, distilled]


def test_the_estimate_and_what_differs_are_said_before_any_run(reproduce, capsys, monkeypatch):
    said = []

    def noted(*_, **__):
        said.append(capsys.readouterr().out)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", noted)
    code, text, _ = reproduce(*FEW)
    assert code == 130
    (before,) = said
    assert "Estimate: 3 of 3 runs are to be done, of 3 steps each." in before
    assert "The paper's model is GPT-Neo-125m" in before
    assert "A run has 3 steps, which are not 5 epochs." in before
    assert "it is not Wikitext-103" in before
    assert not text


def test_an_estimate_alone_runs_nothing(reproduce, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "run", lambda *_, **__: pytest.fail("a run was begun"))
    code, text, error = reproduce("--estimate", "--batch-size", "4")
    assert code == 0, error
    assert "37 of 37 runs are to be done" in text
    assert "5 epoch(s)" in text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_estimate_is_the_grid_times_what_was_measured(monkeypatch, base):
    monkeypatch.setattr(estimation, "_step_seconds", lambda *_: 2.0)
    monkeypatch.setattr(estimation, "_tokenising_seconds", lambda *_: 3.0)
    monkeypatch.setattr(estimation, "_evaluation_seconds", lambda *_: 10.0)
    model, tokenizer = gl.load(base, device="cpu")
    task = Task("samsum", "rouge", make_examples(9), make_examples(4), make_examples(4))
    cells = expand(grid("samsum", str(base), 100, only=["random", "gum"], keep=[0.5], batch_size=8))
    got = estimation.estimate(cells, cells[1:], model, tokenizer, task)
    around = 3.0 + 10.0 + 256 / 8 * 2.0
    costs = 1 + 4 / 3 + estimation.EXACT_GUM * (1 + 4 / 3)
    assert got.around_seconds == around
    assert got.seconds == pytest.approx(100 * 2.0 * costs + 4 * around)
    assert (got.left, got.runs, got.steps, got.device) == (4, 5, 100, "cpu")


@pytest.mark.parametrize("task", ["wikitext", "samsum"])
def test_what_is_measured_for_the_estimate_leaves_the_model(task, base, data):
    made = Reproduction(task, str(base), base.parent / f"runs-{task}", data_dir=data[task], steps=2)
    assert made._base is not None
    before = {key: value.clone() for key, value in made._base.model.state_dict().items()}
    got = made.estimate()
    assert isinstance(got, Estimate)
    assert 0 < got.step_seconds < got.seconds
    for key, value in made._base.model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "gumm"], "Unknown method 'gumm'. Did you mean 'gum'"),
        (["--keep", "0"], "keep must be"),
        (["--seeds", "0"], "seeds must be a whole number"),
        (["--jobs", "0"], "jobs must be 1 or more"),
        (["--steps", "2", "--epochs", "3"], "give one of them"),
        (["--device", "gpu"], "device='gpu' is none that torch knows"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(arguments, words, reproduce, tmp_path):
    code, text, error = reproduce(*arguments)
    assert (code, text) == (1, "")
    assert words in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_names_and_files_that_are_not_there_are_one_sentence(reproduce, base, data, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    no_weights = tmp_path / "no weights"
    no_weights.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (no_weights / name).write_bytes((base / name).read_bytes())
    for arguments, options, words in (
        ([], {"model": no_weights}, "holds no safetensors weights"),
        (["--folder", taken], {}, f"Cannot write to {taken}"),
        (["--folder", taken / "in"], {}, f"Cannot write to {taken / 'in'}"),
        (["--data-dir", data["samsum"]], {"data_dir": False}, "None of the task's files"),
        (["--data-dir", tmp_path / "none"], {"data_dir": False}, "There is no folder"),
    ):
        code, text, error = reproduce(*arguments, **options)
        assert (code, text) == (1, ""), arguments
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    with pytest.raises(gl.GumlabError, match=r"Unknown task 'wikisq'\. Did you mean 'wikisql'"):
        Reproduction("wikisq")


def test_a_folder_that_takes_no_files_is_known_before_the_work(reproduce, monkeypatch):
    def forbidden(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reproduction.tempfile, "TemporaryFile", forbidden)
    monkeypatch.setattr(reproduction, "load_task", lambda *_: pytest.fail("the data was read"))
    code, text, error = reproduce("--steps", "2")
    assert (code, text) == (1, "")
    assert "Permission denied. Choose another folder." in error


def test_a_task_without_the_split_that_the_paper_measures_on(base, tmp_path):
    rows = [{"dialogue": "w4", "summary": "w5"}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    with pytest.raises(gl.GumlabError, match="no test examples"):
        Reproduction("samsum", str(base), tmp_path / "runs", data_dir=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_is_said_and_done_again(reproduce, monkeypatch):
    real = runs.run

    def broken(*given, **options):
        if given[3].label == "GUM" and options["teacher"] is None:
            raise ValueError("broken on purpose")
        return real(*given, **options)

    monkeypatch.setattr(runs, "run", broken)
    code, text, error = reproduce(*FEW)
    assert code == 1
    assert "1 run(s) failed" in error
    assert "GUM, 50% kept, seed 0: ValueError: broken on purpose" in error
    assert text.count("GUM  50.0%") == 1  # the distilled one is in the table
    monkeypatch.setattr(runs, "run", real)
    code, text, error = reproduce(*FEW)
    assert code == 0, error
    assert text.count("GUM  50.0%") == 2


def test_two_seeds_and_the_papers_claims(reproduce, tmp_path):
    options = ["--only", "random", "--only", "movement, global", "--keep", "0.5", "--seeds", "2"]
    code, text, error = reproduce(*options, "--steps", "2", "--folder", "here", "--device", "cpu")
    assert code == 0, error
    assert "2 seed(s)" in text
    page = (tmp_path / "here" / "table.md").read_text(encoding="utf-8")
    assert "| F1 | random does little more damage than an established method |" in page
    assert set(pd.read_csv(tmp_path / "here" / "table.csv")["seeds"]) == {2}


@pytest.mark.parametrize("task", ["wikitext", "wikisql"])
def test_the_grid_is_what_the_papers_table_holds(task):
    held = paper.table().query(f"task == '{EXPERIMENTS[task].held}'")
    theirs = set(zip(held["method"], held["keep"], held["distilled"], strict=True))
    cells = expand(grid(task))
    ours = {(reproduction._paper_name(c.method.label), c.keep, c.distilled) for c in cells}
    assert ours == theirs
    assert len(cells) == 1 + 6 * 3 * 2
    assert {cell.seed for cell in cells} == {0}


def test_the_settings_are_those_of_the_public_code():
    for cell in expand(grid("wikitext")):
        assert {**cell.training}.items() >= {**HAND_MADE, "batch_size": 8}.items()
        if cell.distilled:
            assert cell.training["kd_weight"] == 0.5 * 1024
            assert (cell.training["ce_weight"], cell.training["temperature"]) == (0.5, 2.0)
        if cell.method.name is not None:
            assert cell.method.options["freeze"] is False
    gum = next(method for method in METHODS if method.name == "gum")
    assert dict(gum.options) == GUM


@pytest.mark.parametrize(("count", "size", "steps"), [(13, 4, 20), (12, 4, 15), (3, 8, 5)])
def test_steps_are_epochs_times_the_batches_of_one(count, size, steps, tokenizer):
    model = tiny("gpt_neo", max_position_embeddings=CONTEXT)
    prompts = Task("p", "rouge", make_examples(count))
    assert steps_of(model, tokenizer, prompts, 5, size) == (steps, count)
    words = " ".join("w5" for _ in range(count * CONTEXT))
    text = Task("t", "perplexity", [Example("", words)])
    assert steps_of(model, tokenizer, text, 5, size) == (steps, count)


def test_wikitext_without_a_folder_is_the_hubs_wikitext_103(base, monkeypatch, tmp_path):
    asked = []

    def downloaded(name, **options):
        asked.append((name, options["repo_type"], options["allow_patterns"]))
        (tmp_path / "wikitext-103-v1").mkdir()
        write_wikitext(tmp_path / "wikitext-103-v1")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    made = Reproduction("wikitext", str(base), tmp_path / "runs", steps=2)
    assert asked == [("Salesforce/wikitext", "dataset", "wikitext-103-v1/*")]
    assert made.study.data_dir["wikitext"] == tmp_path / "wikitext-103-v1"

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(gl.GumlabError, match="Could not reach the hub for 'Salesforce/wikitext'"):
        Reproduction("wikitext", str(base), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_differences_are_ours_less_the_papers_by_seed():
    rows = [
        {"method": "dense", "asked": 1.0, "distilled": False, "keep": 1.0, "seed": seed,
         "perplexity": 20.0, "sensitivity": 2.0 + seed, "uniqueness": 0.5}
        for seed in (0, 1)
    ]  # fmt: skip
    for seed, perplexity, sensitivity in ((0, 18.0, 1.0), (1, 19.0, 3.0)):
        one = {"perplexity": perplexity, "sensitivity": sensitivity, "uniqueness": 0.4}
        rows.append(
            {"method": "movement, local", "asked": 0.75, "distilled": False, "keep": 0.75,
             "seed": seed, **one}
        )  # fmt: skip
    failed = {"method": "GUM", "asked": 0.5, "distilled": True, "seed": 0, "error": "no memory"}
    table = beside_the_paper(pd.DataFrame([*rows, failed]), "wikitext")
    assert list(table["method"]) == ["dense", "movement, local"]
    row = table.iloc[1]
    assert row["seeds"] == 2
    assert row["perplexity, difference"] == pytest.approx(18.5 - 16.974)
    assert row["sensitivity"] == pytest.approx((1 / 2 + 3 / 3) / 2)
    assert row["sensitivity, difference"] == pytest.approx(0.75 - 0.88)
    assert row["uniqueness, paper"] == 1.009
    assert "18.500 16.974 +1.526" in " ".join(as_text(table).split())
    samsum = beside_the_paper(pd.DataFrame(rows).assign(rougeL=30.0), "samsum")
    assert "rougeL" in samsum
    assert not [name for name in samsum if name.endswith("paper")]
    empty = beside_the_paper(pd.DataFrame([failed]), "wikitext")
    assert len(empty) == 0


def test_a_stride_is_a_setting_of_a_run(base, data, tmp_path):
    one = {"model": str(base), "task": "wikitext", "method": "dense", "steps": 0}
    options = {"data_dir": data["wikitext"]}
    study = gl.Study([one, {**one, "stride": CONTEXT - 1}], tmp_path, **options).run()
    default, blocks = study.table().to_dict("records")
    assert (default["stride"], blocks["stride"]) == (CONTEXT // 2, CONTEXT - 1)
    model, tokenizer = gl.load(base, device="cpu")
    task = gl.load_task("wikitext", data["wikitext"])
    expected = gl.evaluate(model, tokenizer, task, "test", stride=CONTEXT - 1)
    assert blocks["perplexity"] == pytest.approx(expected["perplexity"])
    assert not math.isclose(default["perplexity"], blocks["perplexity"], rel_tol=1e-6)


def test_what_running_text_is_measured_on_is_a_setting_of_a_run(base, data, tmp_path):
    one = {"model": str(base), "task": "wikitext", "method": "obs", "steps": 0, "keep": 0.5}
    settings = [one, {**one, "tokens": 40}, {**one, "redundancy_tokens": 40}]
    study = gl.Study(settings, tmp_path, data_dir=data["wikitext"])
    assert len({study.path(cell) for cell in study.cells}) == 3
    usual, few, few_watched = study.run().table().to_dict("records")
    assert few["loss"] != usual["loss"]
    assert few_watched["loss"] == usual["loss"]
    assert few_watched["sensitivity"] != usual["sensitivity"]
    with pytest.raises(gl.GumlabError, match="tokens must be a whole number"):
        gl.Study({**one, "tokens": 0}, tmp_path, data_dir=data["wikitext"])


def test_a_block_is_a_setting_of_a_run(base, data, tmp_path):
    one = {"model": str(base), "task": "wikitext", "method": "dense", "steps": 2, "batch_size": 1}
    whole, short = (
        gl.Study([one, {**one, "block": 8}], tmp_path, data_dir=data["wikitext"])
        .run()
        .table()
        .to_dict("records")
    )
    assert short["block"] == 8
    assert short["loss"] != whole["loss"]
