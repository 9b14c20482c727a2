"""What a model costs, counted another way."""

import pytest
import torch
from conftest import CONTEXT, N, random_masks, tiny
from torch import nn

import gumlab as gl
from gumlab.feedforward import is_linear
from gumlab.measurement import latencies


def test_counts(model):
    cost = gl.measure(model, latency=False)
    assert cost["parameters"] == sum({id(p): p.numel() for p in model.parameters()}.values())
    assert cost["neurons"] == 2 * N
    assert cost["widths"] == [N, N]
    assert cost["bytes"] == 4 * cost["parameters"]
    assert (
        gl.measure(tiny("gpt2", dtype=torch.float16), latency=False)["bytes"] * 2
        == (gl.measure(tiny("gpt2"), latency=False)["bytes"])
    )


def test_flops_are_two_per_multiply_add_of_every_linear_map_that_runs(model):
    counted = []

    def count(module, inputs, output):
        tokens = output.numel() // output.shape[-1]
        counted.append(2 * inputs[0].shape[-1] * output.shape[-1] * tokens)

    hooks = [m.register_forward_hook(count) for m in model.modules() if is_linear(m)]
    model(torch.randint(4, 60, (1, 5)))
    for hook in hooks:
        hook.remove()
    assert gl.measure(model, latency=False)["flops_per_token"] * 5 == sum(counted)


def test_a_shrunk_model_costs_less_by_its_neurons(model):
    masks = random_masks(model, equal=False)
    dense, small = (gl.measure(m, latency=False) for m in (model, gl.shrink(model, masks)))
    assert small["widths"] == [7, 11]
    assert small["neurons"] == 18
    matrices = 3 if gl.neurons(model)[0].gated else 2
    assert dense["flops_per_token"] - small["flops_per_token"] == 2 * matrices * 16 * (2 * N - 18)


def test_models_take_turns():
    models, calls = {"a": tiny("gpt2"), "b": tiny("gpt2", seed=1)}, []
    for name, m in models.items():
        m.register_forward_hook(lambda *_, name=name: calls.append(name))
    result = latencies(models, tokens=8, repeats=4)
    assert calls == ["a", "b"] * 7
    assert set(result) == {"a", "b"}
    assert min(result.values()) > 0


def test_latency_of_a_model_with_a_short_context(gpt2):
    """128 tokens do not fit a context of 64: measure with what fits."""
    assert gpt2.config.n_positions == CONTEXT
    assert gl.measure(gpt2)["latency_ms"] > 0


def test_latency_is_of_the_model_in_eval_mode_and_leaves_its_mode(gpt2):
    modes = []
    gpt2.register_forward_hook(lambda m, *_: modes.append(m.training))
    gpt2.train()
    latencies({"m": gpt2}, tokens=8, repeats=1)
    assert not any(modes)
    assert gpt2.training


def test_a_model_without_neurons_is_refused():
    with pytest.raises(gl.GumlabError, match="found 0"):
        gl.measure(nn.Sequential(nn.Linear(4, 4)))
