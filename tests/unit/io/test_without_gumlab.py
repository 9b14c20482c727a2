"""What the model card says loads a folder does, in a process without gumlab, by every way."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from helpers import ROOT
from helpers.models import ARCHITECTURES, random_masks, tiny
from helpers.texts import word_tokenizer

import gumlab as gl
from gumlab.feedforward import BY_CODE, neurons
from gumlab.io.diagnosis import doctor
from gumlab.io.saving import CODE

SCRIPT = ROOT / "tests" / "helpers" / "plain_transformers.py"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IDS = list(range(4, 16))
BUILT_IN = ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama")
UNEQUAL = (*BUILT_IN, *ARCHITECTURES, "phi", "bloom")
PADDED = {"padded": "opt", "padded qwen3": "qwen3", "padded gpt2": "gpt2"}
OTHERS = ("equal", *PADDED, "classifier", "tiny-wide")


def of_unequal_widths(name):
    """A pruned model of a name, and its tokenizer."""
    if name in BUILT_IN:
        model, tokenizer = gl.load(name, device="cpu")
        masks = gl.select(gl.score(model, "magnitude"), keep=0.3, scope="global")
        return gl.shrink(model, masks), tokenizer
    model = tiny(name)
    return gl.shrink(model, random_masks(model, equal=False)), word_tokenizer()


def classifier():
    config = tiny("gpt2", num_labels=3).config
    return transformers.GPT2ForSequenceClassification(config).eval()


def save_all(folder):
    """Every folder that a test asks about: what was saved there, by name."""
    models = {}
    for name in UNEQUAL:
        models[name], tokenizer = of_unequal_widths(name)
        gl.save(models[name], tokenizer, folder / name, with_code=True)
    base, tokenizer = tiny("opt"), word_tokenizer()
    models["equal"] = gl.shrink(base, random_masks(base))
    for name, kind in PADDED.items():
        models[name], _ = of_unequal_widths(kind)
    models["tiny-wide"] = models["padded"]  # a folder by the name of a built-in model
    models["classifier"] = classifier()
    for name in OTHERS:
        is_padded = name in (*PADDED, "tiny-wide")
        gl.save(models[name], tokenizer, folder / name, pad=is_padded)
    return models


def blocks(folder):
    """The blocks of code in a folder's card: gumlab's, and those that need no gumlab."""
    found = BLOCK.findall((folder / "README.md").read_text(encoding="utf-8"))
    ours = [block for block in found if "import gumlab" in block]
    return ours, [block for block in found if block not in ours]


def job(folder, name):
    _, (code,) = blocks(folder / name)
    asked = {"code": code, "ids": IDS}
    if name in UNEQUAL:
        asked["refused"] = code.replace(", trust_remote_code=True", "")
        asked["again"] = f"{name}-again"
        asked["again_code"] = code.replace(f'"{name}"', f'"{name}-again"', 1)
    return asked


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def models(folder):
    return save_all(folder)


@pytest.fixture(scope="module")
def results(folder, models):
    """What a process without gumlab made of every folder, by name."""
    asked = {name: job(folder, name) for name in models}
    answer = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        input=json.dumps(list(asked.values())),
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    found = dict(zip(asked, json.loads(answer.stdout.splitlines()[-1]), strict=True))
    assert {name: it["error"] for name, it in found.items() if "error" in it} == {}
    return found


def loss_of(model):
    ids = torch.tensor([IDS])
    return model(input_ids=ids, labels=ids).loss


def trained(model):
    """A copy after one step of gradient descent, as the script takes it."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    loss_of(model).backward()
    optimizer.step()
    return model.eval()


def greedy(model):
    ids = torch.tensor([IDS])
    return model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()


@pytest.mark.parametrize("name", UNEQUAL)
class TestWithCode:
    """transformers builds every layer as wide as it is, by the module in the folder."""

    def test_it_writes_the_same_text(self, name, models, results):
        assert results[name]["class"] == type(models[name]).__name__
        assert results[name]["written"] == greedy(models[name])
        assert results[name]["loss"] == pytest.approx(loss_of(models[name]).item(), rel=1e-5)

    def test_without_trust_it_is_refused(self, name, results):
        assert results[name]["refused"]

    def test_it_trains_and_is_saved_and_loaded_again(self, name, models, results, folder):
        want = loss_of(trained(models[name])).item()
        assert results[name]["trained"] == pytest.approx(want, rel=1e-4)
        assert results[name]["same"]
        assert (folder / f"{name}-again" / CODE.name).read_bytes() == CODE.read_bytes()

    def test_gumlab_loads_it_and_what_was_made_of_it(self, name, models, folder):
        loaded, tokenizer = gl.load(folder / name, device="cpu")
        state = models[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in loaded.state_dict().items())
        assert not hasattr(loaded.config, "auto_map")
        assert not hasattr(loaded.config, BY_CODE)
        tokenizer.save_pretrained(folder / f"{name}-again")
        again, _ = gl.load(folder / f"{name}-again", device="cpu")
        widths = [layer.width for layer in neurons(models[name])]
        assert [layer.width for layer in neurons(again)] == widths

    def test_the_doctor_says_so(self, name, models, folder):
        report = doctor(folder / name)
        assert all(finding.good for finding in report.findings), report
        assert report.loads_with == ["gumlab", "transformers with trust_remote_code"]
        assert f"{CODE.name} is the module that gumlab adds" in repr(report)
        assert f"unequal widths ({BY_CODE})" in repr(report)


@pytest.mark.parametrize("name", OTHERS)
def test_what_plain_transformers_loads_it_loads_as_the_card_says(name, models, results):
    assert results[name]["class"] == type(models[name]).__name__
    if name != "classifier":
        assert results[name]["written"] == greedy(models[name])
        assert results[name]["read"] == [4, 9, 17]
        assert results[name]["loss"] == pytest.approx(loss_of(models[name]).item(), rel=1e-5)


@pytest.mark.parametrize("name", [*UNEQUAL, *OTHERS])
def test_gumlabs_block_on_the_card_loads_it(name, models, folder, monkeypatch):
    monkeypatch.chdir(folder)
    ours, _ = blocks(folder / name)
    card = (folder / name / "README.md").read_text(encoding="utf-8")
    if name == "classifier":
        assert ours == []
        assert "`gumlab.load` takes language models without other heads or parts" in card
        return
    (code,) = ours
    names = {}
    exec(code, names)
    assert loss_of(names["model"].cpu()).item() == pytest.approx(
        loss_of(models[name]).item(), rel=1e-5
    )


def test_the_card_says_where_nothing_but_gumlab_loads_it(tokenizer, tmp_path):
    for name, can_be_padded in (("opt", True), ("bloom", False)):
        model, _ = of_unequal_widths(name)
        folder = gl.save(model, tokenizer, tmp_path / name)
        assert [len(found) for found in blocks(folder)] == [1, 0]
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "Plain transformers does not load it" in card
        assert ("pad=True" in card) == can_be_padded
