"""The committed reports of benchmarks/quality/ are what their committed rows give."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
MADE_BY = re.compile(r"Made by `python benchmarks/quality/.*?(?:x86_64|one thread a run)\.")


@pytest.fixture
def script(monkeypatch):
    """A benchmark by its name; it says of itself what the committed report says made it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")

    def load(name: str):
        module = importlib.import_module(name)
        made = MADE_BY.search(text(name))[0]
        monkeypatch.setattr(module.harness, "made_by", lambda *_: made)
        return module

    return load


def text(name: str) -> str:
    return (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def rows(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


@pytest.mark.parametrize("name", ["recipes", "one_shot", "uniqueness"])
def test_a_report_is_made_from_its_rows(script, name):
    assert script(name).report("", rows(name)) == text(name)


def test_the_report_on_real_tasks_is_made_from_its_rows(script):
    _, data = text("real_tasks").split("cut from the left.\n\n")
    head, _, *lines = [line.strip("| ").split(" | ") for line in data.splitlines()]
    left_out = [dict(zip(head, line, strict=True)) for line in lines]
    assert script("real_tasks").report("", rows("real_tasks"), left_out) == text("real_tasks")


def test_the_report_on_the_study_is_made_from_its_rows(script):
    study = script("study")
    runs = pd.read_csv(ROOT / "gumlab" / "assets" / "study.csv")
    tables = {}
    for part, (dense, *_) in study.PARTS.items():
        tables[part] = runs[(runs["model"] == dense["model"]) & (runs["task"] == dense["task"])]
    assert study.report("", tables) == text("study")


@pytest.mark.parametrize("name", ["methods_restaurants", "methods_e2e"])
def test_a_table_of_methods_is_made_from_its_rows(monkeypatch, name):
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "quality")
    methods = importlib.import_module("methods")
    assert text(name).endswith(f"\n\n{methods.summary(rows(name), 'bleu')}")
