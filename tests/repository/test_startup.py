"""What people wait for, as a ratio to `import torch`: what is quick is timed here, all is stored.

benchmarks/speed/startup.py measures all of it, the demo too, and writes results/startup.md.
"""

from __future__ import annotations

import importlib
import re

import pytest
from helpers import ROOT

IMPORT_TORCH = "/ `import torch`"
LIMITS = {
    "`python -c pass`": 0.1,
    "`import torch`": 1.0,
    "`import gumlab`": 0.1,
    "`import torch, then gumlab`": 1.2,
    "`gumlab --help`": 0.35,
    "`import gumlab as gl; gl.start(seed=0)`": 2.2,
    "the same, to an explorer's first picture": 4.5,
    "notebook 00, to its first picture": 3.0,
    "`gumlab demo`, to its end": 260,  # three minutes of two cores
}
TESTS = 10 / 3  # times the demo: ten minutes where that takes three


@pytest.fixture
def startup(monkeypatch):
    """The benchmark."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "speed")
    return importlib.import_module("startup")


def test_what_comes_first_costs_a_small_part_of_importing_torch(startup):
    whole = startup.processor_seconds(startup.STARTS["`import torch`"])
    for name in ("`import gumlab`", "`gumlab --help`"):
        assert startup.processor_seconds(startup.STARTS[name]) < LIMITS[name] * whole, name


def stored() -> dict[str, float]:
    """Start -> its ratio, from the stored table."""
    lines = (ROOT / "results" / "startup.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in lines
        if line.startswith("|")
    ]
    return {row[0]: float(row[head.index(IMPORT_TORCH)]) for row in rows}


def test_every_stored_ratio_is_within_its_limit():
    ratios = stored()
    assert ratios.keys() == LIMITS.keys()
    assert {start: ratio for start, ratio in ratios.items() if ratio > LIMITS[start]} == {}


def test_the_tests_take_no_more_than_a_few_times_the_demo():
    text = (ROOT / "results" / "startup.md").read_text(encoding="utf-8")
    (times,) = re.findall(r"`make test` took .* tests, (\d+\.\d+) times the demo\.", text)
    assert float(times) < TESTS


def test_every_start_and_the_demo_have_a_limit(startup, monkeypatch):
    monkeypatch.setattr(startup, "processor_seconds", lambda given: 6.0 if "demo" in given else 2.0)
    row = startup.demo_row(quick=False)
    assert LIMITS.keys() == {*startup.STARTS, row["start"]}
    assert row[IMPORT_TORCH] == "3.00"


def test_how_long_the_tests_took_is_read_from_their_file(startup, tmp_path):
    told = '<testsuites><testsuite tests="1200" time="300.4"/><testsuite tests="34" time="60"/>'
    (tmp_path / "tests.xml").write_text(f"{told}</testsuites>")
    said = startup.tests_told(tmp_path / "tests.xml", demo_seconds=180.2)
    assert said == (
        " `make test` took 6.0 minutes by the clock for 1,234 tests, 2.00 times the demo."
    )
