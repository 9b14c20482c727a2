"""The built-in models: small, loadable by plain transformers, as good as results say, redundant."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import ROOT
from make_assets import plant_twins
from transformers import AutoModelForCausalLM

import gumlab as gl
from gumlab.evaluation import mean_target_loss
from gumlab.inspection import cosine
from gumlab.io.loading import ASSETS, BUILT_IN

RESULTS = ROOT / "results" / "bases"
TOKENS = torch.arange(2, 42).view(2, 20)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_base_is_small_and_plain_transformers_loads_it(name):
    assert (ASSETS / name / "model.safetensors").stat().st_size < 3_000_000
    model, tokenizer = gl.load(name, device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(ASSETS / name, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    text = "Blue Door costs £20, 5 out of 5!"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_base_is_as_good_as_its_record_says(name):
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    model, tokenizer = gl.load(name, device="cpu")
    task = gl.load_task("tables")
    assert mean_target_loss(model, tokenizer, task.test) == pytest.approx(
        record["tables loss"], abs=2e-3
    )


def test_the_wide_base_is_naturally_redundant():
    model, tokenizer = gl.load("tiny-wide", device="cpu")
    report = gl.redundancy(model, tokenizer, gl.load_task("tables"), limit=600)
    assert report.uniqueness <= 0.75


def test_planted_twins_are_each_others_nearest_neighbour():
    model, tokenizer = gl.load("tiny-twins", device="cpu")
    pairs = json.loads((ASSETS / "tiny-twins" / "twins.json").read_text(encoding="utf-8"))
    report = gl.redundancy(model, tokenizer, gl.load_task("restaurants"), limit=100)
    planted = torch.cat(
        [cosine(g)[tuple(torch.tensor(p).T)] for g, p in zip(report.gram, pairs, strict=True)]
    )
    assert [len(p) for p in pairs] == [256] * 4
    assert (planted > 0.8).float().mean() > 0.95
    found = [
        twin[a].item() == b
        for twin, layer in zip(report.twin, pairs, strict=True)
        for a, b in layer
    ]
    assert sum(found) / len(found) > 0.95


def test_planting_twins_leaves_the_function_as_it_was(monkeypatch):
    monkeypatch.setattr("make_assets.TWIN_NOISE", 0.0)
    model, _ = gl.load("tiny-gpt2", device="cpu")
    wide, pairs = plant_twins(model)
    assert [layer.width for layer in gl.neurons(wide)] == [768] * 4
    with torch.no_grad():
        assert torch.allclose(wide(TOKENS).logits, model(TOKENS).logits, atol=1e-4)
    (original, copy), layer = pairs[0][0], gl.neurons(wide)[0]
    assert torch.equal(layer.incoming()[original], layer.incoming()[copy])
    assert not torch.equal(layer.outgoing()[original], layer.outgoing()[copy])
