"""What students write in notebooks 00 to 03 is what the package does, and stored results agree."""

from __future__ import annotations

import pytest
import torch
from helpers.exercises import EXERCISES

import gumlab as gl
from gumlab.course.bench import Own
from gumlab.selection import schedule

ANSWERS = {name: exercise.reference for name, exercise in EXERCISES.items()}
MODELS = ("tiny-gpt2", "tiny-gpt-neo", "tiny-llama")


@pytest.fixture(scope="module", params=MODELS)
def bench(request):
    return gl.workbench(request.param, "restaurants", keep=0.25, steps=4, examples=4)


def test_a_neuron_has_as_many_parameters_as_the_package_says(bench):
    layer = bench.layers[0]
    d = layer.outgoing().shape[1]
    counted = ANSWERS["neuron_parameters"](d, layer.gated, layer.incoming_bias() is not None)
    assert counted == layer.parameters_per_neuron()


def test_a_block_by_hand_is_the_models_own(bench):
    layer = bench.layers[1]
    heard = bench.listen("Three Pears is a place near the mill.", layer=1)
    if layer.gated:
        gate, up, _ = layer.maps()
        silu = torch.nn.functional.silu
        h = ANSWERS["gated_activation"](heard.x, gate, up, silu)
        assert torch.allclose(h, heard.h, atol=1e-4)
        return
    bias = layer.incoming_bias()[:, 0]

    def gelu(z):
        return torch.nn.functional.gelu(z, approximate="tanh")

    parts = (layer.incoming(), bias, layer.outgoing(), layer.proj.bias)
    assert torch.allclose(ANSWERS["block_output"](heard.x, *parts, gelu), heard.out, atol=1e-4)


def test_a_block_without_a_neuron_is_the_gated_one(bench):
    masks = [torch.ones(layer.width, dtype=torch.bool) for layer in bench.layers]
    masks[0][7] = False
    heard = bench.listen("A place near the mill.")
    with gl.gate(bench.model, masks):
        gated = bench.listen("A place near the mill.")
    rest = ANSWERS["without_neuron"](heard.out, heard.h, bench.layers[0].outgoing(), 7)
    assert torch.allclose(rest, gated.out, atol=1e-4)
    assert not torch.allclose(heard.out, gated.out, atol=1e-4)


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
def test_flops_by_hand_are_those_that_are_measured(keep):
    model, _ = gl.load("tiny-gpt-neo", device="cpu")
    small = gl.shrink(model, gl.select(gl.score(model, "random"), keep))
    widths = [layer.width for layer in gl.neurons(small)]
    counted = ANSWERS["flops_per_token"](128, widths, model.config.vocab_size)
    assert counted == gl.measure(small, latency=False)["flops_per_token"]


@pytest.mark.parametrize("seed", [0, 5])
def test_scores_and_masks_of_random_pruning_are_gumlabs(seed):
    model, _ = gl.load("tiny-gpt2", device="cpu")
    widths = [layer.width for layer in gl.neurons(model)]
    drawn = ANSWERS["random_scores"](widths, seed)
    theirs = gl.score(model, "random", seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(drawn, theirs, strict=True))
    masks = [ANSWERS["top_v"](scores, 0.25) for scores in drawn]
    selected = gl.select(theirs, 0.25)
    assert all(torch.equal(a, b) for a, b in zip(masks, selected, strict=True))


def test_a_run_of_the_students_functions_ends_where_random_ends():
    bench = gl.workbench("tiny-gpt2", "restaurants", keep=0.25, steps=4, examples=4)
    drawn = gl.score(bench.model, "random", seed=0)
    by_name = {layer.name: scores for layer, scores in zip(bench.layers, drawn, strict=True)}
    rule = Own(lambda layer: by_name[layer.name], ANSWERS["top_v"], ANSWERS["schedule_value"])
    own, random = bench.run(rule), bench.run("random")
    assert all(torch.equal(a, b) for a, b in zip(own.masks, random.masks, strict=True))
    assert own.loss == pytest.approx(random.loss, abs=0.01)
    assert ANSWERS["schedule_value"](2, 4, 0.25) == pytest.approx(schedule(2, 4, 0.25))


def test_the_stored_sentences_bear_out_what_00_and_03_say():
    losses = gl.explore.real_sentence().losses
    chance = losses["random", "layer", False]
    magnitude = losses["magnitude", "layer", False]
    recommended = losses["recommended", "global", False]
    assert chance[0.75] < 0.5 * magnitude[0.75]  # magnitude destroys it, chance does some damage
    assert min(chance[0.5], magnitude[0.5]) > 10  # at half both have: guessing has 10.8
    assert recommended[0.5] < chance[0.5] / 2
