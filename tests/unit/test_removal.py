"""Physical removal: smaller by exactly the neurons' weights, the original as it was."""

import copy

import pytest
import torch
from helpers.models import (
    N,
    every_architecture,
    hooks_of,
    logits_of,
    neuron_weights,
    random_masks,
    tiny,
)
from helpers.texts import one_batch

import gumlab as gl
from gumlab import scoring
from gumlab.collecting import RunningGrams
from gumlab.feedforward import neurons, width_field


@every_architecture
@pytest.mark.parametrize("equal", [True, False])
def test_shrunk_equals_gated_and_the_original_is_untouched(model, equal, tokenizer, examples):
    batch, masks = one_batch(model, tokenizer, examples), random_masks(model, equal)
    before = copy.deepcopy(model.state_dict())
    settings = model.config.to_dict()
    small = gl.shrink(model, masks)
    assert model.config.to_dict() == settings
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in before.items()
    }
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    gl.gate(model, masks)
    gated = logits_of(model, batch)
    torch.testing.assert_close(logits_of(small, batch), gated, rtol=1e-4, atol=1e-4)
    from_gated = gl.shrink(model, masks)
    assert hooks_of(from_gated) == 0
    assert torch.equal(logits_of(from_gated, batch), logits_of(small, batch))
    assert torch.equal(logits_of(model, batch), gated)


def test_the_copy_shares_no_storage(gpt2):
    small = gl.shrink(gpt2, random_masks(gpt2))
    ours = {p.data_ptr() for p in gpt2.parameters()}
    assert not any(p.data_ptr() in ours for p in small.parameters())
    assert small.lm_head.weight is small.transformer.wte.weight


def test_the_neurons_that_stay_keep_their_order_and_weights(model):
    masks = random_masks(model, equal=False)
    small = gl.shrink(model, masks)
    for old, new, mask in zip(neurons(model), neurons(small), masks, strict=True):
        assert torch.equal(new.incoming(), old.incoming()[mask])
        assert torch.equal(new.outgoing(), old.outgoing()[mask])
        if old.incoming_bias() is not None:
            assert torch.equal(new.incoming_bias(), old.incoming_bias()[mask])


@every_architecture
def test_it_loses_exactly_the_neurons_parameters(model):
    masks = random_masks(model, equal=False)
    small = gl.shrink(model, masks)
    lost = sum(
        int((~mask).sum()) * layer.parameters_per_neuron()
        for layer, mask in zip(neurons(model), masks, strict=True)
    )
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert sizes[0] - sizes[1] == lost > 0


@every_architecture
def test_sizes_and_config_tell_the_truth(model):
    small = gl.shrink(model, random_masks(model))
    assert getattr(small.config, width_field(small)) == 11
    for layer in neurons(small):
        assert layer.width == 11
        for p, dim, _ in neuron_weights(layer):
            assert p.shape[dim] in (11, 22)
        assert "11" in repr(layer.proj) or "11" in repr(layer.fc[0])
    assert (
        getattr(gl.shrink(model, random_masks(model, equal=False)).config, width_field(model)) == N
    )


@pytest.mark.parametrize("refit", [False, True])
def test_in_place_is_the_same_model_cut_to_the_same_weights(model, refit, tokenizer, examples):
    masks, before = random_masks(model, equal=refit), copy.deepcopy(model)
    data = (tokenizer, examples) if refit else ()
    want = gl.shrink(model, masks, *data, refit=refit)
    assert all(map(torch.equal, before.parameters(), model.parameters()))
    gl.gate(model, masks)
    got = gl.shrink(model, masks, *data, refit=refit, in_place=True)
    assert got is model
    assert hooks_of(got) == 0
    assert [n.width for n in neurons(got)] == [int(m.sum()) for m in masks]
    assert getattr(got.config, width_field(got)) == getattr(want.config, width_field(want))
    assert all(map(torch.equal, want.parameters(), got.parameters()))
    batch = one_batch(got, tokenizer, examples)
    assert torch.equal(logits_of(got, batch), logits_of(want, batch))


def test_keeping_all_changes_nothing(model, tokenizer, examples):
    batch = one_batch(model, tokenizer, examples)
    same = gl.shrink(model, [torch.ones(N, dtype=torch.bool)] * 2)
    assert torch.equal(logits_of(same, batch), logits_of(model, batch))


def test_a_shrunk_model_trains_and_shrinks_again(gpt2, tokenizer, task):
    small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
    pruner = gl.Pruner(small, "gum", 0.5, 6)
    gl.train(small, tokenizer, task, steps=6, pruner=pruner, batch_size=4, progress=False)
    batch = one_batch(small, tokenizer, task.test)
    smaller = gl.shrink(small, pruner.masks)
    assert sum(layer.width for layer in neurons(smaller)) == 9
    torch.testing.assert_close(
        logits_of(smaller, batch), logits_of(small, batch), rtol=1e-4, atol=1e-4
    )


def test_shrinking_during_a_run_leaves_the_run_alone(gpt2, tokenizer, task):
    """GUM's running sums are hooked to the model; a copy must not carry or disturb them."""
    pruner = gl.Pruner(gpt2, "gum", 0.5, 6)
    hooks = hooks_of(gpt2)
    small = gl.shrink(gpt2, random_masks(gpt2))
    assert hooks_of(gpt2) == hooks == 3
    assert hooks_of(small) == 0
    assert isinstance(pruner.grams, RunningGrams)


def test_precision_and_frozen_weights_stay(examples):
    model = tiny("llama", dtype=torch.bfloat16)
    model.requires_grad_(False)
    small = gl.shrink(model, random_masks(model))
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in small.parameters())


@pytest.mark.parametrize("refit", [True, False])
def test_prune_is_score_select_and_shrink(model, refit, tokenizer, task):
    masks = gl.select(gl.score(model, "wanda", tokenizer, task), keep=0.5, floor=2)
    want = gl.shrink(model, masks, tokenizer, task, refit=refit)
    got = gl.prune(model, "wanda", tokenizer, task, keep=0.5, floor=2, refit=refit)
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "currency", "scope"),
    [
        ({}, "loss_scalar", "global"),
        ({"currency": "output"}, "output", "global"),
        ({"scope": "layer"}, "output", "layer"),
    ],
)
def test_the_recommended_recipe_is_greedy_obs_with_one_budget_in_the_loss_and_the_refit(
    options, currency, scope, gpt2, tokenizer, examples
):
    scores = gl.score(gpt2, "greedy_obs", tokenizer, examples, currency=currency)
    masks = gl.select(scores, keep=0.25, scope=scope)
    want = gl.shrink(gpt2, masks, tokenizer, examples, refit=True)
    got = gl.prune(gpt2, tokenizer=tokenizer, task=examples, keep=0.25, **options)
    assert [n.width for n in gl.neurons(got)] == [int(m.sum()) for m in masks]
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), want.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "currency"),
    [({}, "loss_scalar"), ({"scope": "layer"}, "output"), ({"widths": [5, 7]}, "output")],
)
def test_the_recommended_recipe_prices_errors_where_layers_compete(
    options, currency, gpt2, tokenizer, examples, monkeypatch
):
    """A price for a whole layer changes nothing within it, and costs a pass there and back."""
    asked = []
    priced = scoring.currencies
    monkeypatch.setattr(
        scoring, "currencies", lambda *a, **k: asked.append(k["currency"]) or priced(*a, **k)
    )
    gl.prune(gpt2, "recommended", tokenizer, examples, keep=0.25, **options)
    assert asked == [currency]


def test_prune_needs_data_only_for_the_refit(gpt2):
    small = gl.prune(gpt2, "magnitude", keep=0.5, refit=False)
    assert [n.width for n in gl.neurons(small)] == [N // 2, N // 2]
    with pytest.raises(gl.GumlabError, match="refit is measured on data"):
        gl.prune(gpt2, "magnitude", keep=0.5)
    with pytest.raises(gl.GumlabError, match=r"Unknown method 'greedy'. Did you mean 'greedy_obs'"):
        gl.prune(gpt2, "greedy")


@pytest.mark.parametrize("method", ["recommended", "greedy_obs", "wanda"])
def test_the_pruner_sends_one_shot_methods_here(gpt2, method):
    with pytest.raises(gl.GumlabError, match=rf"before the training: .*prune\(model, '{method}'"):
        gl.Pruner(gpt2, method, 0.5, 10)
    assert hooks_of(gpt2) == 0
