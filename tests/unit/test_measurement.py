"""What a model costs, counted another way."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from helpers.models import CONTEXT, N, every_architecture, hooks_of, random_masks, tiny
from torch import nn

import gumlab as gl
from gumlab import measurement
from gumlab.feedforward import is_linear
from gumlab.measurement import compare, latencies, why_little


@every_architecture
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


@every_architecture
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


def test_models_take_turns_in_changing_order():
    models, calls = {name: tiny("gpt2", seed) for seed, name in enumerate("abc")}, []
    for name, m in models.items():
        m.register_forward_hook(lambda *_, name=name: calls.append(name))
    result = latencies(models, tokens=8, repeats=9)
    made = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(made) == 9 + 3
    assert {"".join(sorted(turn)) for turn in made} == {"abc"}
    assert {turn[0] for turn in made} == set("abc")
    assert set(result) == set("abc")
    assert min(result.values()) > 0


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to."""
    passed = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(measurement, "_now", lambda on: passed.seconds)
    return passed


def slow(model, clock, step):
    """A prompt takes 0.5 s, a single token `step` s."""

    def spend(module, inputs, output):
        clock.seconds += step if inputs[0].shape[1] == 1 else 0.5

    model.register_forward_hook(spend)
    return model


def test_what_the_figures_are(clock):
    models = {"a": slow(tiny("gpt2"), clock, 2.0), "b": slow(tiny("llama"), clock, 0.25)}
    found = compare(models, batches=(2, 5), tokens=8, decoded=4, repeats=3)
    for name, step in (("a", 2.0), ("b", 0.25)):
        rows = found[name]["speed"]
        assert [(row["batch"], row["tokens"]) for row in rows] == [(2, 8), (5, 8)]
        assert [row["prefill_ms"] for row in rows] == [500, 500] == [found[name]["latency_ms"]] * 2
        assert [row["decode_tokens_per_s"] for row in rows] == [2 / step, 5 / step]
        assert rows[1]["decode_tokens_per_s_quartiles"] == [5 / step, 5 / step]


def test_the_middle_half_of_the_turns(monkeypatch):
    made = iter([(8, float(t), 10.0 * t) for t in (99, 99, 99, 1, 2, 3, 4, 50)])
    rest = itertools.repeat((8, 1.0, 1.0))
    monkeypatch.setattr(measurement, "_turn", lambda *_: next(made, next(rest)))
    monkeypatch.setattr(measurement, "_peak", lambda *_: 1)
    (row,) = gl.measure(tiny("gpt2"), batches=(1,), repeats=5)["speed"]
    assert (row["prefill_ms"], row["prefill_ms_quartiles"]) == (3, [2, 4])
    assert (row["decode_tokens_per_s"], row["decode_tokens_per_s_quartiles"]) == (30, [20, 40])


def test_decoding_is_greedy_with_the_cache(model):
    """The model is given the prompt once, then one token a step: those that `generate` chooses."""
    given = []
    hook = model.register_forward_pre_hook(lambda m, inputs: given.append(inputs[0]))
    measurement._turn(model, 3, 8, 5)
    hook.remove()
    assert [tuple(ids.shape) for ids in given] == [(3, 8)] + [(3, 1)] * 5
    expected = model.generate(
        given[0], attention_mask=torch.ones_like(given[0]), max_new_tokens=5, do_sample=False,
        eos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    assert torch.equal(torch.cat(given, 1), expected)


def test_a_model_with_a_short_context(gpt2):
    """128 tokens do not fit a context of 64: measure with what fits."""
    assert gpt2.config.n_positions == CONTEXT
    found = gl.measure(gpt2, batches=(1,), repeats=2)
    assert found["speed"][0]["tokens"] == CONTEXT - 16
    assert found["latency_ms"] > 0
    assert measurement._turn(gpt2, 1, 128, 0)[0] == CONTEXT


def test_peak_memory_is_of_the_weights_and_one_turn(gpt2):
    peak = measurement._peak(gpt2, 4, 32, 2)
    weights = gl.measure(gpt2, latency=False)["bytes"]
    logits = 4 * 32 * gpt2.config.vocab_size * 4
    assert peak >= weights + logits
    assert measurement._peak(gpt2, 8, 32, 2) - weights > 1.8 * (peak - weights)
    waste = torch.zeros(10_000_000)  # alive before: not the turn's
    assert measurement._peak(gpt2, 4, 32, 2) == peak

    def take(module, inputs):
        assert len({waste.clone(), waste.clone()}) == 2  # 80 MB for a moment

    gpt2.transformer.h[0].register_forward_pre_hook(take)
    more = measurement._peak(gpt2, 4, 32, 2)
    assert weights + 80_000_000 <= more < peak + 80_000_000


def test_why_little_is_gained():
    """Half the FLOPs saved: a fifth of the time is little, four tenths of what was to be had."""

    def figures(flops, tokens_per_s):
        row = {"batch": 1, "decode_tokens_per_s": tokens_per_s}
        return {"flops_per_token": flops, "speed": [row]}

    dense = figures(1000, 100.0)
    assert why_little(dense, figures(500, 134.0)) is None  # a quarter of the time: half of it
    assert why_little(dense, dense) is None
    assert why_little(dense, figures(1500, 50.0)) is None  # larger, not smaller
    text = why_little(dense, figures(500, 125.0))
    assert text.startswith("50% of the arithmetic")
    assert "only 20% of the time of a decoding step at batch 1: about 60% of it" in text
    slower = why_little(dense, figures(500, 80.0))
    assert "only 0% of the time" in slower
    assert "about 100% of it" in slower


@pytest.mark.parametrize(
    "options", [{"batches": ()}, {"batches": (1, 0)}, {"tokens": 0}, {"decoded": 0}, {"repeats": 1}]
)
def test_numbers_that_measure_nothing_are_refused(gpt2, options):
    with pytest.raises(gl.GumlabError, match=r"must be a whole number, [12] or more|is empty"):
        gl.measure(gpt2, **options)


def test_latency_is_of_the_model_in_eval_mode_and_leaves_its_mode(gpt2):
    modes = []
    gpt2.register_forward_hook(lambda m, *_: modes.append(m.training))
    gpt2.train()
    hooks = hooks_of(gpt2)
    gl.measure(gpt2, batches=(1,), tokens=8, repeats=2)
    assert modes
    assert not any(modes)
    assert gpt2.training
    assert hooks_of(gpt2) == hooks


def test_a_model_without_neurons_is_refused():
    with pytest.raises(gl.GumlabError, match="found 0"):
        gl.measure(nn.Sequential(nn.Linear(4, 4)))
