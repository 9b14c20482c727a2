"""The passes over data: what they sum, in one pass and layer by layer."""

import copy
import functools
import weakref

import pytest
import torch
from helpers.models import (
    LAYERS,
    N,
    every_architecture,
    loss_of,
    random_masks,
    tiny,
)
from helpers.statistics import stacked
from helpers.texts import one_batch

import gumlab as gl
from gumlab.collecting import Statistics, collect, one_by_one
from gumlab.feedforward import neurons
from gumlab.gating import Gate


def test_missing_data_gets_a_sentence(gpt2, tokenizer):
    with pytest.raises(gl.GumlabError, match=r"measured on data.*score\(model, 'obs'"):
        gl.score(gpt2, "obs")
    with pytest.raises(gl.GumlabError, match="refit is measured on data"):
        gl.shrink(gpt2, random_masks(gpt2), refit=True)
    with pytest.raises(gl.GumlabError, match="no examples"):
        collect(gpt2, tokenizer, [])


def test_half_precision_models_are_summed_in_single(tokenizer, examples):
    model = tiny("llama")
    low = copy.deepcopy(model).bfloat16()
    want, got = (gl.redundancy(m, tokenizer, examples) for m in (model, low))
    for a, b in zip(want.gram, got.gram, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() / a.norm() < 0.05


def test_the_energy_is_the_sum_of_squares(model, tokenizer, examples):
    report = gl.redundancy(model, tokenizer, examples)
    for got, rows in zip(report.energy, stacked(model, tokenizer, examples), strict=True):
        want = torch.cat(rows).square().sum(0)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.max()))


def loss_under(model, batch, masks):
    """The loss with h of every layer multiplied by a continuous mask."""
    hooks = [
        layer.proj.register_forward_pre_hook(lambda m, args, mask=mask: (args[0] * mask,))
        for layer, mask in zip(neurons(model), masks, strict=True)
    ]
    loss = loss_of(model, batch)
    for hook in hooks:
        hook.remove()
    return loss


def test_the_slope_is_the_mean_gradient_of_the_mask(model, tokenizer, examples):
    masks = [torch.ones(layer.width, requires_grad=True) for layer in neurons(model)]
    alone = [one_batch(model, tokenizer, [e]) for e in examples]
    loss = sum(loss_under(model, batch, masks) for batch in alone) / len(examples)
    wanted = torch.autograd.grad(loss, masks)
    for size in (1, 5):
        found = collect(model, tokenizer, examples, gradients=True, batch_size=size)
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got.slope, want, rtol=2e-3, atol=1e-5)
            assert got.slope.min() < 0 < got.slope.max()  # signed
    assert not any(f.slope.any() for f in collect(model, tokenizer, examples))


@torch.no_grad()
def test_minus_the_slope_is_how_the_loss_moves_as_a_neuron_is_scaled_away(tokenizer, examples):
    model = tiny("gpt2", dtype=torch.float64)
    found = collect(model, tokenizer, examples, gradients=True)
    alone = [one_batch(model, tokenizer, [e]) for e in examples]
    for layer, i in [(0, 0), (0, 7), (1, 3), (1, 23)]:
        losses = []
        for scaled_away in (1e-4, -1e-4):
            masks = [torch.ones(N, dtype=torch.float64) for _ in found]
            masks[layer][i] -= scaled_away
            losses.append(sum(loss_under(model, b, masks).item() for b in alone) / len(alone))
        difference = (losses[0] - losses[1]) / 2e-4
        assert -found[layer].slope[i].item() == pytest.approx(difference, rel=1e-3, abs=1e-7)


@every_architecture
def test_layer_by_layer_measures_what_one_pass_does(model, tokenizer, examples):
    want = collect(model, tokenizer, examples, batch_size=5)
    got = list(one_by_one(model, tokenizer, examples, batch_size=5))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(vars(a), vars(b))
    assert not any("forward" in vars(module) for module in model.modules())


@every_architecture
def test_each_layer_is_measured_behind_what_was_done_to_the_ones_before(model, tokenizer, examples):
    masks, twin = random_masks(model, equal=False), copy.deepcopy(model)
    seen = one_by_one(model, tokenizer, examples, batch_size=5, changing=True)
    for i, (layer, found) in enumerate(zip(neurons(model), seen, strict=True)):
        (want,) = collect(twin, tokenizer, examples, layers=[neurons(twin)[i]])
        torch.testing.assert_close(found.gram, want.gram, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            layer.outgoing()[~masks[i]] = 0
        Gate(neurons(twin)[i]).mask = masks[i]


def test_a_score_holds_one_gram_matrix_at_a_time(gpt2, tokenizer, examples):
    grams = []

    def energy(layer, found):
        assert not any(gram() is not None for gram in grams)
        grams.append(weakref.ref(found.gram))
        return found.energy.clone()

    gl.score(gpt2, energy, tokenizer, examples, gradients=False)
    assert len(grams) == LAYERS


@pytest.mark.parametrize("job", ["score", "shrink"])
def test_a_layers_gram_matrix_is_gone_before_the_next_is_made(
    job, gpt2, tokenizer, examples, monkeypatch
):
    made = []
    empty = Statistics.empty

    def watched(layer):
        assert not any(statistics() is not None for statistics in made)
        statistics = empty(layer)
        made.append(weakref.ref(statistics))
        return statistics

    monkeypatch.setattr(Statistics, "empty", watched)
    if job == "score":
        gl.score(gpt2, "obs", tokenizer, examples)
    else:
        gl.shrink(gpt2, random_masks(gpt2), tokenizer, examples, refit=True)
    assert len(made) == LAYERS


def test_a_forward_of_a_blocks_own_is_there_again_afterwards(gpt2, tokenizer, examples):
    block = gpt2.transformer.h[0]
    block.forward = own = functools.partial(type(block).forward, block)
    gl.score(gpt2, "wanda", tokenizer, examples)
    assert vars(block)["forward"] is own
