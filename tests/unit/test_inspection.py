"""Sensitivity, Gram matrices, uniqueness and twins against brute force."""

import copy

import numpy as np
import pytest
import torch
from helpers.models import N, activations, loss_of, neuron_weights, random_masks, tiny
from helpers.statistics import TINY_RIDGE, from_rows, stacked
from helpers.texts import one_batch
from torch import nn

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.inspection import cosine, nearest, reconstructability, unique


def sensitivity_by_hand(model, tokenizer, examples):
    """Mean over sequences of |sum over the neuron's weights and biases of w dL/dw|, by autograd.

    One sequence at a time, unpadded; the bias of proj belongs to no neuron.
    """
    totals = [torch.zeros(layer.width) for layer in neurons(model)]
    for example in examples:
        model.zero_grad()
        loss_of(model, one_batch(model, tokenizer, [example])).backward()
        for total, layer in zip(totals, neurons(model), strict=True):
            sums = torch.zeros(layer.width)
            for p, dim, offset in neuron_weights(layer):
                product = (p * p.grad).detach().narrow(dim, offset, layer.width)
                sums += product.movedim(dim, 0).reshape(layer.width, -1).sum(1)
            total += sums.abs() / len(examples)
    model.zero_grad()
    return totals


def test_sensitivity_is_autograd_of_every_weight(model, tokenizer, examples):
    report = gl.redundancy(model, tokenizer, examples, batch_size=5)
    for got, want in zip(
        report.sensitivity, sensitivity_by_hand(model, tokenizer, examples), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_batch_size_and_padding_change_nothing(model, tokenizer, examples):
    one, five = (gl.redundancy(model, tokenizer, examples, batch_size=b) for b in (1, 5))
    assert one.tokens == five.tokens
    for name in ("sensitivity", "gram", "max_cosine"):
        for a, b in zip(getattr(one, name), getattr(five, name), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)


def test_the_gram_is_the_stacked_activations(model, tokenizer, examples):
    report = gl.redundancy(model, tokenizer, examples, batch_size=12)
    rows = [[] for _ in report.gram]
    for example in examples:  # alone, so there is no padding
        for stack, h in zip(
            rows, activations(model, one_batch(model, tokenizer, [example])), strict=True
        ):
            stack.append(h.flatten(0, -2))
    for gram, stack in zip(report.gram, rows, strict=True):
        h = torch.cat(stack)
        assert len(h) == report.tokens
        torch.testing.assert_close(gram, h.T @ h, rtol=1e-3, atol=1e-3)


def unique_by_hand(h):
    """No later neuron at cosine 0.8 or more, by a double loop over columns of h."""
    found = []
    for i in range(h.shape[1]):
        later = [
            nn.functional.cosine_similarity(h[:, i], h[:, j], dim=0)
            for j in range(i + 1, h.shape[1])
        ]
        found.append(bool(h[:, i].any()) and not any(c >= 0.8 for c in later))
    return torch.tensor(found)


def planted():
    """A gpt2 whose layer 0 has a dead neuron (3), twins (5, 17) and an opposite pair (8, 20)."""
    model = tiny("gpt2", activation_function="relu")
    layer = neurons(model)[0]
    rows, bias = layer.incoming().data, layer.fc[0].bias.data
    rows[3], bias[3] = 0, 0
    rows[17], bias[17] = rows[5], bias[5]
    rows[20], bias[20] = 2 * rows[8], 2 * bias[8]
    bias[5] = bias[17] = bias[8] = 2.0
    bias[20] = 4.0
    return model


def test_uniqueness_twins_and_dead_neurons(tokenizer, examples):
    model = planted()
    report = gl.redundancy(model, tokenizer, examples)
    h = torch.cat([activations(model, one_batch(model, tokenizer, [e]))[0][0] for e in examples])
    assert torch.equal(report.unique[0], unique_by_hand(h))
    for a, b in [(5, 17), (8, 20)]:
        assert (report.twin[0][a], report.twin[0][b]) == (b, a)
        assert report.max_cosine[0][[a, b]].tolist() == pytest.approx([1, 1], abs=1e-5)
        assert not report.unique[0][a]
    assert bool(report.dead[0][3])
    assert not report.unique[0][3]
    assert report.max_cosine[0][3] == 0
    assert report.sensitivity[0][3] == 0
    assert report.uniqueness == pytest.approx(torch.cat(report.unique).float().mean().item())
    for values in (report.max_cosine, report.sensitivity, report.gram):
        assert not torch.cat([v.flatten() for v in values]).isnan().any()


def test_the_twin_is_the_largest_absolute_cosine_and_keeps_its_sign():
    torch.manual_seed(0)
    h = torch.randn(50, 6)
    h[:, 4] = -h[:, 1] + 0.01 * torch.randn(50)
    cosines = cosine(h.T @ h)
    values, index = nearest(cosines)
    for i in range(6):
        others = {
            j: nn.functional.cosine_similarity(h[:, i], h[:, j], dim=0).item()
            for j in range(6)
            if j != i
        }
        best = max(others, key=lambda j: abs(others[j]))
        assert index[i] == best
        assert values[i].item() == pytest.approx(others[best], abs=1e-5)
    assert values[1] < -0.99
    assert unique(cosines).tolist() == [True] * 6  # signed: an opposite is no copy


def test_the_threshold_is_at_least():
    cosines = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.79], [0.0, 0.79, 1.0]])
    assert unique(cosines).tolist() == [False, True, True]
    assert unique(cosines, threshold=0.75).tolist() == [False, False, True]


def test_cosine_of_tiny_and_huge_activations_is_scale_free():
    torch.manual_seed(0)
    h = torch.rand(30, 4) * torch.tensor([1e-8, 1.0, 1e4, 0.0])
    cosines = cosine(h.T @ h)
    assert cosines.isfinite().all()
    assert cosines.diagonal().tolist() == pytest.approx([1, 1, 1, 0], abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3"])
def test_a_layer_of_one_neuron_has_no_twin_to_find(name, tokenizer, examples):
    masks = [torch.zeros(N, dtype=torch.bool) for _ in range(2)]
    masks[0][4] = masks[1][[1, 2, 3]] = True
    report = gl.redundancy(gl.shrink(tiny(name), masks), tokenizer, examples)
    assert [len(u) for u in report.unique] == [1, 3]
    assert report.unique[0].tolist() == [True]
    assert report.max_cosine[0].tolist() == [0]


def test_a_shrunk_model_shows_the_kept_neurons_of_the_gated(model, tokenizer, examples):
    masks = random_masks(model, equal=False)
    small = gl.redundancy(gl.shrink(model, masks), tokenizer, examples)
    gl.gate(model, masks)
    gated = gl.redundancy(model, tokenizer, examples)
    for layer, mask in enumerate(masks):
        torch.testing.assert_close(
            gated.sensitivity[layer][mask], small.sensitivity[layer], rtol=2e-3, atol=1e-5
        )
        torch.testing.assert_close(
            gated.gram[layer][mask][:, mask], small.gram[layer], rtol=1e-3, atol=1e-3
        )
        assert gated.dead[layer][~mask].all()


def test_limit_split_and_mode(gpt2, tokenizer, task):
    state = copy.deepcopy(gpt2.state_dict())
    gpt2.train()
    few = gl.redundancy(gpt2, tokenizer, task, split="validation", limit=2)
    assert gpt2.training
    by_hand = gl.redundancy(gpt2, tokenizer, task.validation[:2])
    assert torch.equal(few.gram[0], by_hand.gram[0])
    assert all(torch.equal(state[k], v) for k, v in gpt2.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in gpt2.modules())
    table = few.table()
    assert table["neurons"].tolist() == [N, N]
    assert table["uniqueness"].mean() == pytest.approx(few.uniqueness)
    assert table["sensitivity"].mean() == pytest.approx(few.mean_sensitivity)
    assert f"{few.tokens} tokens" in repr(few)


def test_frozen_parameters_do_not_matter(model, tokenizer, examples):
    """A teacher or a model under LoRA has weights without gradient; the figures are the same."""
    want = gl.redundancy(model, tokenizer, examples).sensitivity
    got = gl.redundancy(model.requires_grad_(False), tokenizer, examples).sensitivity
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_it_works_where_gradients_are_off(gpt2, tokenizer, examples):
    with torch.no_grad():
        report = gl.redundancy(gpt2, tokenizer, examples)
    assert torch.cat(report.sensitivity).min() > 0


def test_obs_is_used_times_exactly_unique(gpt2, tokenizer, many):
    report = gl.redundancy(gpt2, tokenizer, many)
    for layer, o, own, gram in zip(
        neurons(gpt2), report.obs, report.exact_uniqueness, report.gram, strict=True
    ):
        lift = 1e-4 * gram.diagonal().mean()
        used = layer.outgoing().square().sum(1) * (gram.diagonal() + lift)
        torch.testing.assert_close(o, (used * own).detach(), rtol=1e-3, atol=1e-5)


def test_reconstructability_is_one_least_squares_fit_per_neuron(model, tokenizer, many):
    h = torch.cat(stacked(model, tokenizer, many)[0]).double()
    got = reconstructability(from_rows(h), TINY_RIDGE)
    for i in range(0, N, 5):
        others = np.delete(h.numpy(), i, axis=1)
        fit, *_ = np.linalg.lstsq(others, h[:, i].numpy(), rcond=None)
        rest = ((h[:, i].numpy() - others @ fit) ** 2).sum()
        assert got[i].item() == pytest.approx(1 - rest / (h[:, i] ** 2).sum().item(), abs=1e-4)


def test_redundancy_of_a_gated_model_counts_kept_neurons_only(gpt2, tokenizer, examples):
    masks = random_masks(gpt2)
    small = gl.redundancy(gl.shrink(gpt2, masks), tokenizer, examples)
    gl.gate(gpt2, masks)
    gated = gl.redundancy(gpt2, tokenizer, examples)
    for mask, a, b in zip(masks, gated.dead, gated.unique, strict=True):
        assert torch.equal(a, ~mask)
        assert not b[~mask].any()
    assert gated.uniqueness == pytest.approx(small.uniqueness)
    assert gated.rebuilt(0.5) == pytest.approx(small.rebuilt(0.5))


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
def test_a_gated_models_kept_neurons_have_the_shrunk_models_figures(model, tokenizer, many, ridge):
    masks = random_masks(model, equal=False)
    small = gl.redundancy(gl.shrink(model, masks), tokenizer, many, ridge=ridge)
    gl.gate(model, masks)
    gated = gl.redundancy(model, tokenizer, many, ridge=ridge)
    for name in ("reconstructability", "obs", "max_cosine", "sensitivity", "energy"):
        pairs = zip(getattr(gated, name), masks, getattr(small, name), strict=True)
        for a, mask, b in pairs:
            torch.testing.assert_close(a[mask], b, rtol=2e-4, atol=1e-5 * float(b.abs().max()))
