"""A study: the grid's expansion, kills, failures, retries, and the same table in the end."""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.children import alone, environment, killed
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.study import Method, Study
from gumlab.study import runs as study
from gumlab.study.grid import expand

TIMED = ["seconds", "train_seconds", "cut_seconds"]
FEW = {"steps": 2, "batch_size": 4, "generated": 0, "keep": 0.5}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return make_base(tmp_path_factory.mktemp("base"))


def make_base(folder: Path) -> str:
    """A small random model's folder."""
    return str(gl.save(tiny("gpt2", n_positions=128), word_tokenizer(), folder / "tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return make_data(tmp_path_factory.mktemp("data"))


def make_data(folder: Path) -> str:
    """A few examples as the files of a real task, so that every process finds the same."""
    for name, count in (("trainset", 40), ("devset", 8), ("testset_w_refs", 8)):
        rows = [f'{e.prompt},"{e.target}"' for e in make_examples(count, seed=count)]
        (folder / f"{name}.csv").write_text("\n".join(["mr,ref", *rows]) + "\n", encoding="utf-8")
    return str(folder)


@pytest.fixture
def made(base, data, tmp_path):
    """Make a study of some grids in a folder of the test's own."""

    def make(*grids, folder: str = "runs", **options) -> Study:
        full = [{"model": base, "task": "e2e", **FEW, **grid} for grid in grids]
        return Study(full, tmp_path / folder, data_dir=data, **options)

    return make


def figures(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=TIMED)


def test_a_grid_is_every_combination_once():
    lists = {"method": ["random", "gum"], "keep": [0.5, 0.25], "seed": range(3)}
    cells = expand({"model": "tiny-gpt2", "task": ["restaurants", "tables"], **lists})
    found = {(c.task, c.method.label, c.keep, c.seed) for c in cells}
    wanted = itertools.product(("restaurants", "tables"), *lists.values())
    assert found == set(wanted)
    assert len(cells) == len({c.name for c in cells}) == 24
    assert (
        expand([{"model": "tiny-gpt2", "task": "tables", **lists}] * 2 + cells[:1])[:6]
        == ([c for c in cells if c.task == "tables"][:6])
    )


def test_dense_runs_do_not_multiply():
    grid = {"method": "dense", "keep": [0.5, 0.25], "distil": [False, True], "seed": [0, 1]}
    cells = expand({"model": "tiny-gpt2", "task": "tables", **grid})
    assert [(c.keep, c.distilled, c.seed) for c in cells] == [(1.0, False, 0), (1.0, False, 1)]


def test_every_setting_has_a_file_of_its_own():
    """A changed setting is another run; the name does not depend on the order or the process."""
    given = {"model": "tiny-gpt2", "task": "tables", "method": "gum", "steps": 5}
    changes = [
        {}, {"model": "tiny-llama"}, {"task": "chats"}, {"method": "random"}, {"steps": 6},
        {"keep": 0.1}, {"seed": 1}, {"distil": True}, {"split": "validation"}, {"generated": 3},
        {"lr": 0.1}, {"penalty": 0.1}, {"lambda_gum": 0.0}, {"refit": True},
        {"distil": True, "kd_weight": 1.0},
    ]  # fmt: skip
    names = [expand(given | change)[0].name for change in changes]
    assert len(set(names)) == len(changes)
    assert expand(dict(reversed(given.items())))[0].name == names[0]
    code = f"from gumlab.study.grid import expand; print(expand({given!r})[0].name)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == names[0]


@pytest.mark.parametrize(
    ("grid", "name"),
    [
        ({"method": "gum"}, "gum-keep0.25-seed0-66a09b74e4"),
        (
            {"method": "gum", "keep": 0.1, "seed": 2, "steps": 200, "batch_size": 8,
             "generated": 100, "distil": True},
            "gum-keep0.1-seed2-distilled-be839a9cbb",
        ),
        ({"method": "dense", "lr": 0.01}, "dense-keep1-seed0-317cfd6f5a"),
        (
            {"method": "obs", "floor": 10, "refit": True},
            "obs--floor-10--refit-True-keep0.25-seed0-a3a8c47eb5",
        ),
        (
            {"method": Method("recommended", "greedy_obs", {"scope": "global"}, True), "floor": 4},
            "recommended--floor-4-keep0.25-seed0-51aaf3a499",
        ),
        (
            {"method": Method("random at GUM's widths", "random"), "widths_of": "GUM"},
            "random-at-GUM-s-widths-keep0.25-seed0-3aa284ca4b",
        ),
    ],
)  # fmt: skip
def test_runs_that_gumlab_0_1_stored_are_found_by_their_names(grid, name):
    (cell,) = expand({"model": "tiny-gpt2", "task": "tables", **grid})
    assert cell.name == f"tiny-gpt2-tables-{name}"


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"task": "tables", "method": "gum"}, "lacks model"),
        ({"model": "m", "task": "table", "method": "gum"}, "Did you mean 'tables'"),
        ({"model": "m", "task": "tables", "method": "gumm"}, "Did you mean 'gum'"),
        ({"model": "m", "task": "tables", "method": "gum", "penality": 1}, "'penalty'"),
        (
            {"model": "m", "task": "tables", "method": "obs", "penalty": 1},
            "Unknown setting.*cuts once",
        ),
        ({"model": "m", "task": "tables", "method": "random", "penalty": 1}, "belongs to.* gum"),
        ({"model": "m", "task": "tables", "method": "gum", "keep": 2}, "keep must be"),
        ({"model": "m", "task": "tables", "method": "gum", "widths_of": "obs"}, "does not hold"),
    ],
)
def test_a_grid_that_cannot_be_is_one_sentence_before_any_work(grid, words, tmp_path):
    with pytest.raises(gl.GumlabError, match=words):
        Study(grid, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_row_is_what_run_gives_its_teacher_and_widths_come_first(base, data, made):
    control = Method("random at its widths", "random")
    grids = {"method": "gum", "distil": [True, False]}, {"method": control, "widths_of": "gum"}
    done = made(*grids, checkpoints=True).run()
    table = done.table()
    assert list(table["method"]) == ["dense", "gum", "gum", "random at its widths"]
    assert list(table["distilled"]) == [False, True, False, False]
    plain, same_widths = table.iloc[2], table.iloc[3]
    assert same_widths["widths"] == plain["widths"]
    assert same_widths["loss"] != plain["loss"]
    model, tokenizer = gl.load(base, device="cpu")
    task = gl.load_task("e2e", data)
    dense, _ = gl.load(done.checkpoint(done.cells[0]), device="cpu")
    for row, teacher in ((table.iloc[1], dense), (plain, None)):
        options = {"teacher": teacher, "progress": False, **FEW}
        mine = study.run(model, tokenizer, task, Method("gum", "gum"), **options).row
        for key in set(mine) - set(TIMED):
            assert row[key] == mine[key], key
    small, tokenizer = gl.load(done.checkpoint(done.cells[2]), device="cpu")
    scores = gl.evaluate(small, tokenizer, task, generated=0)
    assert scores["loss"] == pytest.approx(plain["loss"])
    parquet = pd.read_parquet(done.save())
    pd.testing.assert_frame_equal(parquet[["loss", "keep"]], table[["loss", "keep"]])


def test_a_pupil_waits_for_its_teacher_whatever_the_order(made):
    done = made({"method": "random", "distil": True})
    done.cells.reverse()
    table = done.run().table()
    assert list(table["distilled"]) == [True, False]
    assert "error" not in table


def test_a_finished_run_is_not_done_again(made, monkeypatch):
    calls, real = [], study.run
    monkeypatch.setattr(study, "run", lambda *a, **k: calls.append(a[3].label) or real(*a, **k))
    made({"method": ["random"]}).run()
    grown = made({"method": ["random", "magnitude"], "distil": [False, True]})
    assert "1 of 5 runs done" in repr(grown)
    grown.run()
    assert sorted(calls) == ["dense", "magnitude", "magnitude", "random", "random"]
    grown.run()
    assert len(calls) == 5
    grown.path(grown.cells[-1]).write_text('{"half a')  # a damaged file
    assert len(grown.table()) == 4
    grown.run()
    assert calls[5:] == ["magnitude"]
    for file in grown.checkpoint(grown.cells[0]).iterdir():  # a teacher that was deleted
        file.unlink()
    grown.run()
    assert len(calls) == 6, "no run needs the teacher any more"
    grown.path(grown.cells[-1]).unlink()
    grown.run()
    assert calls[6:] == ["dense", "magnitude"]


def test_a_failure_is_recorded_hides_nothing_and_is_retried_on_request(made, monkeypatch):
    real = study.run

    def broken(*given, **options):
        if given[3].label == "dense":
            raise RuntimeError("the disk said no")
        return real(*given, **options)

    monkeypatch.setattr(study, "run", broken)
    words = r"2 of 3 runs failed; the first: dense, seed 0: RuntimeError: the disk said no"
    with pytest.warns(UserWarning, match=words) as warned:
        done = made({"method": ["dense", "random"], "distil": [False, True]}).run()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert "run(retry=True)" in str(warned[0].message)
    table = done.table().set_index(["method", "distilled"])
    assert "3 of 3 runs done, 2 of them failed" in repr(done)
    assert table.loc[("dense", False), "error"] == "RuntimeError: the disk said no"
    assert "which failed" in table.loc[("random", True), "error"]
    assert pd.isna(table.loc[("random", False), "error"])
    monkeypatch.setattr(study, "run", real)
    with pytest.warns(UserWarning, match="2 of 3 runs failed"):
        assert "error" in done.run().table()
    again = done.run(retry=True).table()
    assert "error" not in again
    assert again["loss"].notna().all()


def overwrites(done, cell) -> dict:
    return {"first": 1, "loss": 0.0}


def names_the_machine(done, cell) -> dict:
    return {"torch": 1}


def returns_nothing(done, cell) -> None:
    return None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (overwrites, r"extra returned loss, which the row has already; return a dict of new"),
        (names_the_machine, r"extra returned torch, which the row has already"),
        (returns_nothing, r"extra returned None, which is no mapping; return a dict of new col"),
    ],
)
def test_extra_gives_new_columns_or_is_refused(extra, words, made):
    """It overwrote what was measured."""
    with pytest.warns(UserWarning, match=words):
        (row,) = (
            made({"method": "random", "steps": 0}, extra=extra).run().table().to_dict("records")
        )
    assert row["error"].startswith("GumlabError: extra returned")
    assert "loss" not in row


def test_every_run_is_on_the_device_asked_for(made, monkeypatch):
    real, devices = study.load, []
    monkeypatch.setattr(
        study, "load", lambda *a, device: devices.append(device) or real(*a, device=device)
    )
    made({"method": "random"}).run(device="cpu")
    made({"method": "magnitude"}).run()
    assert devices == ["cpu", None]  # one process finds its GPU itself
    with pytest.raises(gl.GumlabError, match="device='gpu' is none that torch knows"):
        made({"method": "gum"}).run(device="gpu")
    assert "0 of 1 runs done" in repr(made({"method": "gum"}))


def test_ctrl_c_is_one_sentence_and_goes_on(made, monkeypatch):
    real, calls = study.run, []

    def stopped(*given, **options):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(study, "run", stopped)
    three = made({"method": "random", "seed": [0, 1, 2]})
    with pytest.raises(gl.GumlabError, match="Stopped after 1 of 3 runs; run"):
        three.run()
    assert len(list(three.folder.iterdir())) == 1
    assert len(three.run().table()) == 3
    assert len(calls) == 4


def test_a_study_that_cannot_store_anything_says_so(made, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(study.os, "replace", full)
    with pytest.raises(gl.GumlabError, match="no space left"):
        made({"method": "random"}).run()


def test_rows_say_what_made_them_and_no_hosts_name(made):
    (row,) = made({"method": "random"}).run().table().to_dict("records")
    assert (row["gumlab"], row["torch"]) == (gl.__version__, torch.__version__)
    assert row["seconds"] >= row["train_seconds"] > 0
    assert platform.node() not in json.dumps(row)


MANY = {"method": ["random", "gum"], "seed": [0, 1, 2], "distil": [False, True]}


def kill_study(grid, folder, data, kills):
    """kill -9 a study at random moments until it has died `kills` times; then it ends.

    How many of its runs were done at each kill.
    """
    folder = Path(folder)
    Study(grid, folder / "imports", data_dir=data).run()
    began = time.monotonic()
    Study(grid, folder / "whole", data_dir=data).run()
    seconds_a_run = (time.monotonic() - began) / len(expand(grid))
    target, draw, done = folder / "killed", random.Random(0), []

    def rows():
        return len(list(target.glob("*.json")))

    def work():
        Study(grid, target, data_dir=data).run()

    while True:
        wanted = rows() + draw.randint(0, 1)
        pause = draw.uniform(0, 6 / kills) * seconds_a_run if len(done) < kills else None
        if not killed(work, lambda n=wanted: rows() >= n, pause, 120):
            return done
        done.append(len(Study(grid, target, data_dir=data).table()))


def killed_study(base: str, data: str, folder: Path, kills: int) -> list[int]:
    """kill -9 at random moments, on a study whose dense runs must be saved for their pupils.

    How many of its 15 runs were done at each kill; its table is that of one that was not killed.
    """
    grid = {"model": base, "task": "e2e", **FEW, **MANY}
    done = alone("test_study", "kill_study", grid, folder, data, kills)
    whole, interrupted = (
        Study(grid, folder / name, data_dir=data).table() for name in ("whole", "killed")
    )
    assert len(whole) == 15
    assert "error" not in whole
    pd.testing.assert_frame_equal(figures(interrupted), figures(whole))
    return done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_6_a_killed_study_ends_with_the_same_table(base, data, tmp_path):
    done = killed_study(base, data, tmp_path, 6)
    assert len(done) >= 3, done
    assert any(0 < d < 15 for d in done), f"no kill fell in the middle: {done}"


def dies_once(done, cell) -> dict:
    """Kills its worker the first time it is asked for seed 1."""
    marker = Path(os.environ["GUMLAB_TEST_MARKER"])
    if cell.seed == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return {"process": os.getpid()}


def same_in_many_processes(many: pd.DataFrame, one: pd.DataFrame) -> None:
    assert os.getpid() not in set(many["process"])
    uneven = [*TIMED, "threads"]
    pd.testing.assert_frame_equal(many.drop(columns=[*uneven, "process"]), one.drop(columns=uneven))


def test_processes_give_the_same_table_and_outlive_a_killed_worker(made, tmp_path, monkeypatch):
    monkeypatch.setenv("GUMLAB_TEST_MARKER", str(tmp_path / "died"))
    grid = {"method": "random", "seed": [0, 1, 2]}
    many = made(grid, folder="many", extra=dies_once).run(jobs=2).table()
    assert (tmp_path / "died").exists()
    same_in_many_processes(many, made(grid, folder="one").run().table())


RAY = """
import json, sys
import joblib, ray
from ray.util.joblib import register_ray

import gumlab as gl
from test_study import dies_once

grid, folder, data, place = json.loads(sys.argv[1]), *sys.argv[2:]
small = {"num_cpus": 2, "object_store_memory": 2**27, "include_dashboard": False}
for patience in range(4, -1, -1):
    try:
        ray.init(num_gpus=2, log_to_driver=False, _temp_dir=place, **small)
        break
    except Exception:  # its parts wait half a minute for each other, which a busy machine may need
        ray.shutdown()
        if not patience:
            raise
register_ray()
try:
    with joblib.parallel_config(backend="ray"):
        gl.Study(grid, folder, data_dir=data, extra=dies_once).run()
finally:
    ray.shutdown()
"""


def test_a_ray_cluster_gives_the_same_table_and_outlives_a_killed_worker(
    base, data, made, tmp_path
):
    """Two workers, each with a GPU as far as Ray knows; one is killed before it stores its row."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'gumlab[cluster]')")
    grid = {"model": base, "task": "e2e", **FEW, "method": "random", "seed": [0, 1, 2]}
    folder = tmp_path / "ray"
    told = {
        "GUMLAB_TEST_MARKER": str(tmp_path / "died"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    # a short path: Ray's sockets lie there
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as place:
        done = subprocess.run(
            [sys.executable, "-c", RAY, json.dumps(grid), str(folder), data, place],
            capture_output=True,
            text=True,
            env=environment(**told),
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    assert len(list(folder.iterdir())) == 3  # each row once, and nothing of the killed worker
    same_in_many_processes(
        Study(grid, folder, data_dir=data, extra=dies_once).table(),
        made(grid, folder="one").run().table(),
    )


def test_a_task_of_your_own_goes_by_its_path(base, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for split, seed in (("train", 0), ("test", 7)):
        rows = [{"prompt": e.prompt, "target": e.target} for e in make_examples(8, seed)]
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    grid = {"model": base, "task": folder, "method": "magnitude", **FEW}
    (row,) = Study(grid, tmp_path / "runs").run().table().to_dict("records")
    assert "error" not in row
    assert (row["task"], row["split"]) == ("mine", "test")
    assert "metric" not in row
    by_rouge = Study([grid, grid | {"metric": "rouge"}], tmp_path / "runs")
    assert len({by_rouge.path(cell) for cell in by_rouge.cells}) == 2
    assert len(by_rouge.table()) == 1
    for cell in by_rouge.cells:
        assert cell.dense.metric == cell.metric
    with_texts = Study(grid | {"metric": "rouge", "generated": 2}, tmp_path / "runs").run().table()
    assert {"rougeL", "metric"} <= set(with_texts)
    assert "bleu" not in with_texts
    missing = grid | {"task": tmp_path / "gone.jsonl"}
    with pytest.raises(gl.GumlabError, match=r"gone\.jsonl.*path of your own"):
        Study(missing, tmp_path / "runs")
