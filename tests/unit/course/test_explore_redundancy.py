"""The explorers of redundancy, without a browser: what they say is what the package measures."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.texts import make_examples, word_tokenizer
from test_explore import VIEW, shown

import gumlab as gl
from gumlab.course import explore
from gumlab.evaluation import mean_target_loss
from gumlab.tasks import Task

TASK = Task("words", "bleu", train=make_examples(10), validation=make_examples(6, 1))


@pytest.fixture
def worth():
    return explore.worth(tiny("gpt2"), word_tokenizer(), TASK, examples=4, limit=10)


@pytest.fixture(params=["gpt2", "llama"])
def deletion(request):
    return explore.deletion(tiny(request.param), word_tokenizer(), TASK, examples=6)


@pytest.mark.parametrize(
    ("control", "value"),
    [("by", "random"), ("scope", "global"), ("keep", 25), ("layer", 1), ("neuron", 3)],
)
def test_every_control_of_worth_changes_picture_and_sentence(worth, control, value, capfd):
    before = shown(worth)
    worth.controls[control].value = value
    after = shown(worth)
    assert worth.error is None
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert capfd.readouterr() == ("", "")


def test_worth_keeps_what_select_keeps_and_says_its_loss(worth):
    worth.controls["keep"].value = 25
    report = gl.redundancy(worth.model, worth.tokenizer, TASK, limit=10)
    masks = gl.select(report.obs, keep=0.25)
    assert f"layer 0: {int(masks[0].sum())} of {len(masks[0])} neurons stay" in worth.sentence
    with gl.gate(worth.model, masks):
        loss = mean_target_loss(worth.model, worth.tokenizer, TASK.validation[:4])
    assert f"Loss {loss:.2f}" in worth.sentence
    assert hooks_of(worth.model) == 0


def test_worth_names_the_twin_and_whether_both_stay(worth):
    worth.controls["neuron"].value = 5
    report, mask = worth.report, worth.compute(**worth.state())[0][0]
    twin = int(report.twin[0][5])
    stay = ("neither stays", "one stays", "both stay")[int(mask[5]) + int(mask[twin])]
    cosine = float(report.max_cosine[0][5])
    assert f"its twin is neuron {twin}, cosine {cosine:.2f}; {stay}" in worth.sentence


def test_worth_with_the_twin_filter_parts_an_exact_pair():
    model = tiny("gpt2")
    layer = gl.neurons(model)[0]
    layer.incoming().data[7] = layer.incoming().data[4]
    layer.fc[0].bias.data[7] = layer.fc[0].bias.data[4]
    layer.outgoing().data[[4, 7]] *= 10  # both would stay
    explorer = explore.worth(model, word_tokenizer(), TASK, examples=4, limit=10)
    explorer.controls["by"].value = "used"
    explorer.controls["neuron"].value = 4
    assert "both stay" in explorer.sentence
    explorer.controls["twin_filter"].value = True
    assert "one stays" in explorer.sentence


@pytest.mark.parametrize(("control", "value"), [("layer", 1), ("neuron", 3), ("refit", True)])
def test_every_control_of_deletion_changes_picture_and_sentence(deletion, control, value, capfd):
    before = shown(deletion)
    deletion.controls[control].value = value
    after = shown(deletion)
    assert deletion.error is None
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert capfd.readouterr() == ("", "")


def test_a_deletion_is_measured_on_the_model_without_the_neuron(deletion):
    deletion.controls["neuron"].value = 3
    said = deletion.tried[0, 3, False]
    cut = copy.deepcopy(deletion.model)
    gl.neurons(cut)[0].outgoing().data[3] = 0
    means = [
        [mean_target_loss(m, deletion.tokenizer, [e]) for e in deletion.examples]
        for m in (cut, deletion.model)
    ]
    change = sum(a - b for a, b in zip(*means, strict=True)) / len(deletion.examples)
    assert said["measured"] == pytest.approx(change, abs=1e-4)
    assert said["error_measured"] == pytest.approx(said["error_told"], rel=1e-3)


def test_with_the_refit_the_error_is_at_most_what_obs_tells(deletion):
    deletion.controls["refit"].value = True
    for i in (0, 5, 11):
        deletion.controls["neuron"].value = i
        said = deletion.tried[0, i, True]
        assert said["error_measured"] <= said["error_told"] * (1 + 1e-3) + 1e-4
        alone = deletion.compute(layer=0, neuron=i, refit=False)
        assert said["error_measured"] <= deletion.tried[alone]["error_measured"] * (1 + 1e-3)


def test_a_deletion_leaves_every_model_as_it_was():
    model = tiny("gpt2")
    before = copy.deepcopy(model.state_dict())
    explorer = explore.deletion(model, word_tokenizer(), TASK, examples=6)
    explorer.controls["refit"].value = True
    explorer.controls["neuron"].value = 9
    for other in (model, explorer.model):
        assert hooks_of(other) == 0
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("make", ["worth", "deletion"])
def test_the_static_picture_is_in_the_bundle(make):
    explorer = getattr(explore, make)(tiny("gpt2"), word_tokenizer(), TASK, examples=4)
    bundle = explorer._repr_mimebundle_()
    assert {"image/png", "text/plain", VIEW} <= set(bundle)
    assert bundle["text/plain"] == explorer.sentence
