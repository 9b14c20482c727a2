"""The refit: least squares by numpy, never worse than without, and the bias alone."""

import copy

import numpy as np
import pytest
import torch
from helpers.models import (
    N,
    activations,
    linear_twin,
    logits_of,
    random_masks,
    tiny,
)
from helpers.statistics import TINY_RIDGE, from_rows, stacked
from helpers.texts import one_batch

import gumlab as gl
from gumlab import collecting
from gumlab.collecting import collect
from gumlab.feedforward import neurons
from gumlab.removal import refit_layer


@pytest.mark.parametrize("bias", [True, False])
def test_the_refit_is_least_squares(bias, tokenizer, many):
    model = tiny("gpt2" if bias else "llama", **({} if bias else {"mlp_bias": False}))
    layer, mask = neurons(model)[0], random_masks(model)[0]
    h = torch.cat(stacked(model, tokenizer, many)[0]).double()
    w = layer.outgoing().detach().double()
    out = h @ w + (layer.proj.bias.detach().double() if bias else 0)
    ones = torch.ones(len(h), 1, dtype=h.dtype)
    left = torch.cat([h[:, mask], ones], 1) if bias else h[:, mask]
    want, *_ = np.linalg.lstsq(left.numpy(), out.numpy(), rcond=None)
    refit_layer(layer, mask, from_rows(h), TINY_RIDGE)
    got = layer.outgoing().detach()[mask]
    got = torch.cat([got, layer.proj.bias.detach()[None]]) if bias else got
    torch.testing.assert_close(got.double(), torch.tensor(want), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ridge", [1e-8, 1e-4, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_refit_never_makes_the_calibration_error_larger(
    model, tokenizer, examples, ridge, seed
):
    mask = random_masks(model, seed=seed)[0]
    h = torch.cat(stacked(model, tokenizer, examples)[0])
    layer = neurons(model)[0]

    def output(rows):
        bias = 0 if layer.proj.bias is None else layer.proj.bias
        return (rows @ layer.outgoing() + bias).detach()

    want = output(h)
    plain = (output(h * mask) - want).square().sum()
    refit_layer(layer, mask, from_rows(h), ridge)
    refitted = (output(h * mask) - want).square().sum()
    assert refitted <= plain * (1 + 1e-4)


@pytest.mark.parametrize("sequential", [True, False])
def test_shrink_with_refit_leaves_the_original_and_comes_nearer_to_it(
    model, tokenizer, many, sequential
):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    masks, batch = random_masks(model), one_batch(model, tokenizer, many)
    small = gl.shrink(model, masks, tokenizer, many, refit=True, sequential=sequential)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [layer.width for layer in neurons(small)] == [11, 11]
    want, plain, refitted = (
        activations_out(m, batch) for m in (model, gl.shrink(model, masks), small)
    )
    assert (refitted - want).square().sum() < (plain - want).square().sum()


def activations_out(model, batch):
    """The first block's output, (tokens, D)."""
    layer = neurons(model)[0]
    bias = 0 if layer.proj.bias is None else layer.proj.bias
    h = activations(model, batch)[0].flatten(0, -2)[batch["attention_mask"].flatten().bool()]
    return (h @ layer.outgoing() + bias).detach()


def test_a_refit_that_keeps_all_changes_nothing(gpt2, tokenizer, examples):
    everyone = [torch.ones(N, dtype=torch.bool) for _ in neurons(gpt2)]
    same = gl.shrink(gpt2, everyone, tokenizer, examples, refit=True)
    for a, b in zip(same.parameters(), gpt2.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_the_bias_refit_is_the_mean_output_of_the_removed(name, sequential, tokenizer, many):
    """b + mean(h_R) W_R by hand, layer by layer, and not a weight is changed."""
    model, masks = tiny(name), random_masks(tiny(name), equal=False)
    small = gl.shrink(model, masks, tokenizer, many, refit="bias", sequential=sequential)
    by_hand = copy.deepcopy(model)
    dense = stacked(model, tokenizer, many)
    for i, (layer, mask) in enumerate(zip(neurons(by_hand), masks, strict=True)):
        h = torch.cat((stacked(by_hand, tokenizer, many) if sequential else dense)[i])
        w = layer.outgoing().data
        layer.proj.bias.data += h[:, ~mask].mean(0) @ w[~mask]
        w[~mask] = 0
    for old, new, mask in zip(neurons(by_hand), neurons(small), masks, strict=True):
        torch.testing.assert_close(new.proj.bias, old.proj.bias, rtol=1e-4, atol=1e-5)
        assert torch.equal(new.outgoing(), old.outgoing()[mask])
        assert torch.equal(new.incoming(), old.incoming()[mask])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_the_bias_refit_is_the_best_constant(name, seed, tokenizer, examples):
    """It never makes the calibration error larger, and no other bias makes it smaller."""
    model = tiny(name)
    layer, mask = neurons(model)[0], random_masks(model, seed=seed)[0]
    h = torch.cat(stacked(model, tokenizer, examples)[0])
    w, old = layer.outgoing().detach(), layer.proj.bias.detach().clone()
    missing = h[:, ~mask] @ w[~mask]

    def error():
        return (layer.proj.bias.detach() - old - missing).square().sum()

    plain = error()
    refit_layer(layer, mask, from_rows(h), weights=False)
    refitted = error()
    assert refitted < plain
    for shift in 0.05 * torch.randn(5, *old.shape, generator=torch.Generator().manual_seed(seed)):
        layer.proj.bias.data += shift
        assert error() > refitted
        layer.proj.bias.data -= shift


def test_the_bias_refit_is_exact_where_the_removed_are_constant(gpt2):
    layer, mask = neurons(gpt2)[0], random_masks(gpt2)[0]
    h = torch.randn(50, N)
    h[:, ~mask] = torch.randn(N)[~mask]
    want = h @ layer.outgoing().detach() + layer.proj.bias.detach()
    refit_layer(layer, mask, from_rows(h), weights=False)
    got = h[:, mask] @ layer.outgoing().detach()[mask] + layer.proj.bias.detach()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_bias_refit_without_a_bias_gets_a_sentence(tokenizer, examples):
    for model in (tiny("llama", mlp_bias=False), tiny("phi3")):
        with pytest.raises(gl.GumlabError, match=r"have no bias to refit\. Use refit=True"):
            gl.shrink(model, random_masks(model), tokenizer, examples, refit="bias")


@pytest.mark.parametrize("refit", ["weights", "Bias", None, 2])
def test_an_unknown_refit_gets_a_sentence(gpt2, tokenizer, examples, refit):
    with pytest.raises(gl.GumlabError, match=r'True, False or "bias", got'):
        gl.shrink(gpt2, random_masks(gpt2), tokenizer, examples, refit=refit)


def test_the_true_of_numpy_is_the_whole_refit(gpt2, tokenizer, examples):
    """A table or a JSON file gives numpy's True."""
    masks = random_masks(gpt2)
    want, got = (
        gl.shrink(gpt2, masks, tokenizer, examples, refit=refit).state_dict()
        for refit in (True, np.True_)
    )
    assert all(torch.equal(want[k], got[k]) for k in want)


def test_a_bias_refit_needs_data(gpt2):
    with pytest.raises(gl.GumlabError, match="refit is measured on data"):
        gl.shrink(gpt2, random_masks(gpt2), refit="bias")


@pytest.mark.parametrize("refit", [True, "bias"])
def test_the_refit_of_conv1d_and_of_its_linear_twin_is_the_same_model(refit, tokenizer, many):
    model = tiny("gpt2", dtype=torch.float64)
    before, masks = logits_of(model, one_batch(model, tokenizer, many)), random_masks(model, False)
    small, twin = (
        gl.shrink(m, masks, tokenizer, many, refit=refit) for m in (model, linear_twin(model))
    )
    for a, b in zip(neurons(small), neurons(twin), strict=True):
        torch.testing.assert_close(a.outgoing(), b.outgoing(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(a.proj.bias, b.proj.bias, rtol=1e-6, atol=1e-7)
    batch = one_batch(model, tokenizer, many)
    torch.testing.assert_close(logits_of(small, batch), logits_of(twin, batch))
    assert torch.equal(logits_of(model, batch), before)


@pytest.mark.parametrize("method", ["wanda", "flap", "obs", "greedy_obs"])
@pytest.mark.parametrize(
    "choice",
    [
        {"keep": 0.4},
        {"keep": 0.3, "multiple_of": 4, "standardise": True},
        {"widths": "uneven", "scope": "global"},
        {"keep": 0.5, "currency": "loss", "refit": "bias"},
        {"keep": 0.5, "grams": True, "twin_filter": 0.3},
    ],
    ids=lambda choice: ", ".join(choice),
)
def test_one_look_a_layer_gives_what_two_give(model, tokenizer, many, method, choice):
    """Scores and refit of the whole model share their statistics: the same weights, bit for bit."""
    layers = neurons(model)
    refit = choice.get("refit", True)
    if refit == "bias" and layers[0].proj.bias is None:
        pytest.skip("no bias to refit")
    if "widths" in choice:
        choice = choice | {"widths": [3 + i for i in range(len(layers))]}
    if "grams" in choice:
        choice = choice | {"grams": [s.gram for s in collect(model, tokenizer, many)]}
    once = gl.prune(model, method, tokenizer, many, sequential=False, **choice)
    of_scores = {key: choice.pop(key) for key in ("currency",) if key in choice}
    choice.pop("refit", None)
    scores = gl.score(model, method, tokenizer, many, **of_scores)
    masks = gl.select(scores, **choice)
    twice = gl.shrink(model, masks, tokenizer, many, refit=refit, sequential=False)
    for one, other in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("sequential", "looks"), [(False, 1), (True, 2)])
def test_a_layer_is_looked_at_no_more_often_than_it_must_be(
    gpt2, tokenizer, many, monkeypatch, sequential, looks
):
    seen = []
    look = collecting._look
    monkeypatch.setattr(collecting, "_look", lambda *a: seen.append(a[2]) or look(*a))
    gl.prune(gpt2, "obs", tokenizer, many, sequential=sequential)
    assert seen == [*range(len(neurons(gpt2)))] * looks


def test_a_global_budget_is_shared_out_by_all_scores(gpt2, tokenizer, many):
    with torch.no_grad():
        neurons(gpt2)[0].proj.weight.mul_(10)  # so that its neurons weigh more
    options = {"keep": 0.5, "scope": "global"}
    once = gl.prune(gpt2, "obs", tokenizer, many, sequential=False, **options)
    masks = gl.select(gl.score(gpt2, "obs", tokenizer, many), **options)
    widths = [int(mask.sum()) for mask in masks]
    assert [layer.width for layer in neurons(once)] == widths
    assert len(set(widths)) > 1
