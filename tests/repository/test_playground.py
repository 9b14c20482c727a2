"""The site's playground: its stored data are whole, small, and what the package gives."""

from __future__ import annotations

import itertools

import make_playground as tool
import pytest

import gumlab as gl

NAMES = ("method", "scope", "keep", "refit")


@pytest.fixture(scope="module")
def stored():
    return tool.read()


def test_every_state_of_the_controls_is_stored_once(stored):
    tiny = stored[0]
    found = [tuple(cut[name] for name in NAMES) for cut in tiny["cuts"]]
    wanted = itertools.product(tool.METHODS, tool.SCOPES, tool.KEEPS, (False, True))
    assert sorted(found) == sorted(wanted)
    assert all(("mask" in cut) == (not cut["refit"]) for cut in tiny["cuts"])
    assert all(len(cut["texts"]) == tool.PROMPTS for cut in tiny["cuts"])
    for numbers in (tiny["sensitivity"], tiny["uniqueness"]):
        assert [len(layer) for layer in numbers] == tiny["widths"]
    assert tool.OUT.stat().st_size < 400_000


def test_the_stored_data_are_what_the_package_gives_now(stored):
    """The whole model, and two cuts that are made anew; other machines differ in late digits."""
    bench = gl.workbench(tool.MODEL, tool.TASK, examples=tool.EXAMPLES)
    tiny = stored[0]
    now = tool.tiny(bench)
    assert {name: tiny[name] for name in ("widths", "prompts", "dense")} == {
        name: now[name] for name in ("widths", "prompts", "dense")
    }
    assert tiny["dense_loss"] == pytest.approx(now["dense_loss"], abs=2e-3)
    for name in ("sensitivity", "uniqueness"):
        for layer, layer_now in zip(tiny[name], now[name], strict=True):
            assert layer == pytest.approx(layer_now, rel=0.05, abs=1e-4)
    for cut in tool.cuts(bench, ["obs"], ["global"], [70]):
        named = {name: cut[name] for name in NAMES}
        (before,) = [other for other in tiny["cuts"] if named.items() <= other.items()]
        assert before["loss"] == pytest.approx(cut["loss"], abs=5e-3)
        assert before.get("mask") == cut.get("mask")
        assert before["texts"] == cut["texts"]


def test_a_refit_costs_less_on_the_whole(stored):
    """What the page lets one see: with the refit the loss is lower at nearly every state."""
    losses = {tuple(cut[name] for name in NAMES): cut["loss"] for cut in stored[0]["cuts"]}
    pairs = [(losses[*key, True], losses[*key, False]) for *key, refit in losses if refit]
    assert sum(after < before for after, before in pairs) > 0.9 * len(pairs)


@pytest.mark.skipif(not tool.REAL.exists(), reason="no texts of a real model are stored")
def test_the_real_models_texts_are_those_of_the_assets(stored):
    assert stored[1:] == [tool.real()]
