"""benchmarks/speed/billion.py at toy size: what it measures, fits and says."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import asdict
from pathlib import Path

import pytest


@pytest.fixture
def billion(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks" / "speed")
    return importlib.import_module("billion")


def test_the_fit_finds_the_exponent_of_a_power_law(billion):
    assert billion.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_the_shape_counts_a_layers_weights(billion):
    layer = billion.build(billion.TOY).model.layers[0]
    weights = [p.numel() for name, p in layer.named_parameters() if "norm" not in name]
    assert billion.TOY.layer() == sum(weights)


def test_every_size_is_scored_refitted_cut_and_told(billion, tmp_path):
    factors = {"width": (0.5, 1), "tokens": (1, 2), "layers": (0.5, 1)}
    rows = []

    def run(size):  # memory says nothing in a process that did other things before
        row = asdict(size) | billion.perform(size)
        rows.append(row | {"peak": row["model"] + size.width**2})
        return rows[-1]

    panels = billion.growth(billion.TOY, 1, factors, run)
    assert len(rows) == 4  # the base belongs to all three panels
    for row in rows:
        assert row["parameters"] - row["left"] == row["layers"] * row["width"] // 2 * 3 * row["d"]
        assert row["score"] > 0
        assert row["shrink"] > 0
    assert list(panels["layers"]["layers"]) == [1, 2]
    assert billion.exponent(panels["width"].width, panels["width"].beyond) == pytest.approx(2)
    recommended = dataclasses.replace(billion.TOY, method="recommended")
    whole = asdict(recommended) | billion.perform(recommended) | {"peak": 1.0}
    by_obs = [row for row in rows if (row["layers"], row["width"]) == (2, billion.TOY.width)]
    assert whole["left"] == by_obs[0]["left"]
    text = billion.report(
        "python x.py",
        billion.TOY,
        {"obs": by_obs[0], "recommended": whole},
        billion.TOY,
        panels,
        1,
    )
    assert text.splitlines().count("## On paper: 70 billion, one GPU of 80 GB") == 1
    assert "nan" not in text
    billion.draw(panels).savefig(tmp_path / "billion.png")


def test_an_offloaded_model_ends_as_the_whole_one(billion, tmp_path):
    order = {"size": asdict(billion.TOY), "folder": str(tmp_path)}
    assert billion.in_a_child(order | {"place": "written"}) == {}
    order |= {"limited": False}  # here, where it would stay
    rows = [billion.in_a_child(order | {"place": place}) for place in billion.PLACES]
    for key in ("masks", "weights", "model"):
        assert rows[0][key] == rows[1][key]
    assert billion.weights_checksum(tmp_path / "model") != rows[0]["weights"]
    text = billion.offload_report("python x.py", billion.TOY, rows)
    assert "The memory of neither process was limited." in text
    assert "| what | whole | offloaded |" in text
    assert "NOT" not in text
    rows[1]["masks"] = "others"
    rows[1]["limit"] = 1234.5
    text = billion.offload_report("", billion.TOY, rows)
    assert "masks of both are NOT the same" in text
    assert "may hold 1,234 MB" in text
