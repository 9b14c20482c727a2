"""benchmarks/speed/peers.py at toy size: what needs no further package, and the report."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

OWN = ("bare operations", "gumlab", "gumlab, in place", "weight masks")


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks" / "speed")
    module = importlib.import_module("peers")
    monkeypatch.setattr(module, "PACKAGES", dict.fromkeys(module.PACKAGES, "no_such_package"))
    return module


def here(work, name, shape, folder):
    """A run in this process; the plain loader's ban on imports ends with it."""
    modules = {"gumlab": sys.modules["gumlab"]}
    try:
        return sys.modules["contenders"].WORK[work](name, shape, str(folder))
    finally:
        for banned in ("torch_pruning", "optipfair"):
            sys.modules.pop(banned, None)
        sys.modules.update(modules)


def test_the_same_work_gives_the_same_model_and_the_report_says_who_loads_it(peers, tmp_path):
    shapes = (peers.TOY, peers.TOY)
    found = peers.contest(shapes, 1, tmp_path, run=here)
    first = {name: rows[0] for name, rows in found["prune"].items()}
    assert tuple(first) == OWN
    assert [row["width"] for row in first.values()] == [32, 32, 32, 64]
    assert first["gumlab"]["tokens"] == first["weight masks"]["tokens"]
    assert len({str(row["tokens"]) for row in first.values()}) == 1
    for loader in ("plain", "gumlab"):
        assert all(found[loader][n][0]["tokens"] == first[n]["tokens"] for n in OWN)
    losses = {name: rows[0]["losses"] for name, rows in found["train"].items()}
    assert losses["gumlab"] == pytest.approx(losses["weight masks"], abs=1e-4)
    assert losses["gumlab"][-1] != pytest.approx(losses["dense"][-1], abs=1e-4)
    text = peers.report("python x.py", found, shapes, 1)
    assert text.count(peers.INSTALL) == 2
    (line,) = [x for x in text.splitlines() if x.startswith("| gumlab | 32 |")]
    assert line.split(" | ")[2:5] == ["yes"] * 3
    peers.draw(found["prune"]).savefig(tmp_path / "peers.png")


def test_a_width_the_config_does_not_tell_is_tried_as_it_is_first(peers, tmp_path, monkeypatch):
    contenders = sys.modules["contenders"]

    def untold(model, marks):  # as Torch-Pruning leaves it
        small = contenders.gumlab(model, marks)
        small.config.intermediate_size = peers.TOY.width
        return small

    monkeypatch.setattr(peers, "TRAINED_BY", ())
    monkeypatch.setitem(contenders.CONTENDERS, "weight masks", untold)

    def run(work, name, shape, folder):
        try:
            return here(work, name, shape, folder)
        except RuntimeError as error:
            return {"error": str(error)}

    found = peers.contest((peers.TOY, peers.TOY), 1, tmp_path, run=run)
    (line,) = [x for x in peers.saving_table(found).splitlines() if x.startswith("| weight masks")]
    assert "| no; yes, the width written into config.json by hand | yes |" in line


def test_a_run_in_its_own_process_is_a_row_and_a_failed_one_too(peers, tmp_path):
    row = peers.child("prune", "bare operations", peers.TOY, tmp_path / "small")
    assert row["seconds"] >= row["operations"] > 0
    assert (tmp_path / "small" / "model.safetensors").exists()
    assert peers.child("prune", "nobody", peers.TOY, tmp_path) == {"error": "KeyError: 'nobody'"}
    rows = {"bare operations": [row], "gumlab": [{"error": "KeyError: 'nobody'"}]}
    table = peers.pruning_table(rows)
    assert "| gumlab | failed: KeyError: 'nobody' |" in table
    assert f"| optipfair | {peers.INSTALL} |" in table
