"""The main job end to end, small, and the command's manners with bad input."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import gumlab as gl
from gumlab.cli.demonstration import as_text, demo
from gumlab.evaluation import mean_target_loss
from gumlab.study import PAPER_METHODS
from gumlab.tasks import Task


@pytest.fixture(scope="module")
def small_task() -> Task:
    """The shortest texts: ten methods are trained on them."""
    full = gl.load_task("restaurants")
    train, validation, test = (
        sorted(split, key=lambda example: len(example.prompt + example.target))[:count]
        for split, count in ((full.train, 32), (full.validation, 8), (full.test, 8))
    )
    return Task("restaurants", "bleu", train, validation, test)


@pytest.fixture(scope="module")
def results(small_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with spaces é")
    said: list[str] = []
    table = demo(
        "tiny-gpt-neo", small_task, folder, keep=0.5, steps=6, generated=2, say=said.append
    )
    return folder, table, said


def test_demo_has_a_row_for_every_method_of_the_paper(results):
    _, table, said = results
    assert list(table["method"]) == [*(m.label for m in PAPER_METHODS), "recommended"]
    assert len(said) == len(table)
    exact = ~table["method"].isin(["dense", "soft movement"])
    assert (table.loc[exact, "neurons"] == round(0.5 * 2048)).all()
    assert (table.loc[table["method"] == "dense", "neurons"] == 2048).all()


def test_demo_writes_table_figure_and_checkpoints_that_load(results, small_task):
    folder, table, _ = results
    stored = pd.read_csv(folder / "table.csv")
    assert list(stored["method"]) == list(table["method"])
    assert (folder / "figure.png").read_bytes()[:4] == b"\x89PNG"
    gum = table[table["method"] == "GUM"].iloc[0]
    model, tokenizer = gl.load(folder / "gum", device="cpu")
    assert [layer.width for layer in gl.neurons(model)] == gum["widths"]
    loss = mean_target_loss(model, tokenizer, small_task.test)
    assert loss == pytest.approx(gum["loss"], abs=1e-4)


def test_demo_text_names_what_issue_readers_look_for(results):
    _, table, _ = results
    text = as_text(table, "bleu")
    for word in (
        "method",
        "kept",
        "neurons",
        "parameters",
        "loss",
        "bleu",
        "sensitivity",
        "uniqueness",
        "speed",
    ):
        assert word in text.splitlines()[0]
    assert "50.0%" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "0"], "keep must be a fraction in (0, 1]"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(arguments, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gumlab.cli", "demo", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())
