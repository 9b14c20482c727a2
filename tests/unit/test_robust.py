"""Where a handful of neurons or tokens carries a layer: that it is said, and the robust forms."""

import dataclasses
import math

import pytest
import torch
from helpers.models import N, loss_of, random_masks, tiny
from helpers.statistics import TINY_RIDGE, from_rows, stacked
from helpers.texts import one_batch

import gumlab as gl
from gumlab.collecting import ROBUST, collect
from gumlab.feedforward import neurons
from gumlab.gram import cosine, effective_rank, nearest
from gumlab.inspection import of_statistics, reconstructability

every_form = pytest.mark.parametrize("form", ROBUST)


def limits(rows):
    """Of each column the largest size but for one in a hundred of those above 0, by sorting."""
    found = []
    for column in rows.abs().T.tolist():
        sizes = sorted((size for size in column if size > 0), reverse=True)
        found.append(sizes[len(sizes) // 100] if sizes else 0.0)
    return torch.tensor(found, dtype=rows.dtype)


def by_hand(form, runs):
    """x' of every sequence, (T, N) each; tokens that do not count are zeros."""
    rows = torch.cat(runs)
    if form == "centred":
        return [x - rows.mean(0) for x in runs]
    if form == "winsorised":
        limit = limits(rows)
        return [x.minimum(limit).maximum(-limit) for x in runs]
    return [torch.cat([torch.zeros_like(x[:1]), x[1:]]) for x in runs]


@every_form
def test_a_robust_gram_is_that_of_the_matrix_so_changed(model, tokenizer, many, form):
    report = gl.redundancy(model, tokenizer, many, robust=form)
    plain = gl.redundancy(model, tokenizer, many)
    assert report.robust == form
    for layer, runs in enumerate(stacked(model, tokenizer, many)):
        h = torch.cat(by_hand(form, [run.double() for run in runs]))
        gram = (h.T @ h).float()
        size = float(gram.abs().max())
        torch.testing.assert_close(report.gram[layer], gram, rtol=1e-4, atol=1e-5 * size)
        assert (report.gram[layer] - plain.gram[layer]).abs().max() > 1e-3 * size
        torch.testing.assert_close(
            report.max_activation[layer], h.abs().amax(0).float(), rtol=1e-4, atol=1e-5
        )


@every_form
def test_everything_follows_from_the_robust_sums(gpt2, tokenizer, many, form):
    report = gl.redundancy(gpt2, tokenizer, many, robust=form, ridge=1e-3)
    for layer, runs in enumerate(stacked(gpt2, tokenizer, many)):
        h = torch.cat(by_hand(form, [run.double() for run in runs]))
        seen = from_rows(h)
        r2 = reconstructability(seen, 1e-3)
        torch.testing.assert_close(report.reconstructability[layer], r2, rtol=1e-3, atol=1e-4)
        largest, _ = nearest(cosine(h.T @ h))
        torch.testing.assert_close(report.max_cosine[layer].double(), largest, rtol=1e-3, atol=1e-4)
        assert report.effective_rank[layer] == pytest.approx(effective_rank(h.T @ h), rel=1e-3)
        energy = h.square().sum()
        assert report.top_neuron[layer] == pytest.approx(float(h.square().sum(0).max() / energy))


def derivative(model, batch, moves):
    """d loss / d e, (N,) per layer, as every z and h moves by e times its row of `moves`."""
    steps = [torch.zeros(N, requires_grad=True) for _ in neurons(model)]
    hooks = []
    for layer, step, (*of_z, of_h) in zip(neurons(model), steps, moves, strict=True):
        per_map = len(of_z) // len(layer.fc)  # two where gate and up are fused
        for place, module in enumerate(layer.fc):
            parts = of_z[place * per_map : (place + 1) * per_map]

            def after_fc(_, inputs, z, parts=parts, step=step):
                return z + torch.cat([step * part for part in parts], dim=-1).view_as(z)

            hooks.append(module.register_forward_hook(after_fc))

        def before_proj(_, inputs, of_h=of_h, step=step):
            return (inputs[0] + (step * of_h).view_as(inputs[0]),)

        hooks.append(layer.proj.register_forward_pre_hook(before_proj))
    loss = loss_of(model, batch)
    for hook in hooks:
        hook.remove()
    return torch.autograd.grad(loss, steps)


def all_activations(model, batch):
    """The z's and h of every layer, (T, N) each, by hooks of our own."""
    seen = [[] for _ in neurons(model)]
    hooks = []
    for kept, layer in zip(seen, neurons(model), strict=True):
        for module in layer.fc:
            hooks.append(
                module.register_forward_hook(
                    lambda m, x, z, kept=kept: kept.extend(z.flatten(0, -2).split(N, dim=-1))
                )
            )
        hooks.append(
            layer.proj.register_forward_pre_hook(
                lambda m, x, kept=kept: kept.append(x[0].flatten(0, -2))
            )
        )
    with torch.no_grad():
        loss_of(model, batch)
    for hook in hooks:
        hook.remove()
    return seen


@every_form
def test_sensitivity_is_how_the_loss_moves_along_what_is_counted(model, tokenizer, many, form):
    alone = [one_batch(model, tokenizer, [example]) for example in many]
    runs = [all_activations(model, batch) for batch in alone]
    moves = []  # of each layer, of each z and h, of each sequence
    for of_layer in zip(*runs, strict=True):
        moves.append([by_hand(form, list(x)) for x in zip(*of_layer, strict=True)])
    want = [torch.zeros(N) for _ in neurons(model)]
    for place, batch in enumerate(alone):
        here = [[x[place] for x in of_layer] for of_layer in moves]
        for total, slope in zip(want, derivative(model, batch, here), strict=True):
            total += slope.abs() / len(alone)
    got = gl.redundancy(model, tokenizer, many, robust=form).sensitivity
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-5)


@every_form
def test_batch_size_and_padding_change_nothing(model, tokenizer, many, form):
    one, seven = (
        gl.redundancy(model, tokenizer, many, robust=form, batch_size=size) for size in (1, 7)
    )
    assert one.tokens == seven.tokens
    for name in ("sensitivity", "gram", "max_cosine", "max_activation"):
        for a, b in zip(getattr(one, name), getattr(seven, name), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)
    for name in ("first_tokens", "top_tokens"):
        assert getattr(one, name) == pytest.approx(getattr(seven, name), rel=1e-4)


def test_without_first_every_sequence_is_a_token_shorter(gpt2, tokenizer, examples):
    plain = gl.redundancy(gpt2, tokenizer, examples)
    without = gl.redundancy(gpt2, tokenizer, examples, robust="without_first")
    assert without.tokens == plain.tokens - len(examples)
    assert without.first_tokens == [0, 0]


def test_few_tokens_are_not_winsorised(gpt2, tokenizer, examples):
    plain, clipped = (
        gl.redundancy(gpt2, tokenizer, examples[:2], robust=form) for form in (None, "winsorised")
    )
    assert plain.tokens < 100
    assert all(a.equal(b) for a, b in zip(plain.gram, clipped.gram, strict=True))


@pytest.mark.parametrize("hears", [0, 1e-6])  # nothing, or too little to be told from rounding
def test_a_neuron_that_never_changes_is_dead_once_centred(hears, tokenizer, examples):
    model = tiny("gpt2", activation_function="relu")
    layer = neurons(model)[0]
    layer.incoming().data[3] *= hears
    layer.fc[0].bias.data[3] = 1.7
    for size in (1, 5):
        plain, centred = (
            gl.redundancy(model, tokenizer, examples, robust=form, batch_size=size)
            for form in (None, "centred")
        )
        assert not plain.dead[0][3]
        assert centred.dead[0][3]
        assert not centred.unique[0][3]
        assert centred.max_cosine[0][3] == 0
        assert centred.reconstructability[0][3] == 0
        assert int(centred.dead[0].sum()) == int(plain.dead[0].sum()) + 1


@every_form
def test_a_gated_models_kept_neurons_have_the_shrunk_models_figures(gpt2, tokenizer, many, form):
    masks = random_masks(gpt2, equal=False)
    small = gl.redundancy(gl.shrink(gpt2, masks), tokenizer, many, robust=form)
    gl.gate(gpt2, masks)
    gated = gl.redundancy(gpt2, tokenizer, many, robust=form)
    for name in ("reconstructability", "obs", "max_cosine", "sensitivity", "energy"):
        for a, mask, b in zip(getattr(gated, name), masks, getattr(small, name), strict=True):
            torch.testing.assert_close(a[mask], b, rtol=5e-4, atol=1e-5 * float(b.abs().max()))


@every_form
def test_activations_that_are_not_finite_are_named(tokenizer, many, form):
    model = tiny("gpt2", activation_function="relu")
    neurons(model)[1].fc[0].bias.data[0] = math.inf
    with pytest.raises(gl.GumlabError, match=r"activations of transformer\.h\.1\.mlp are not fini"):
        gl.redundancy(model, tokenizer, many, robust=form)


def test_the_default_sums_are_those_of_no_form(model, tokenizer, many):
    plain = collect(model, tokenizer, many, gradients=True)
    report = gl.redundancy(model, tokenizer, many)
    for gram, sensitivity, found in zip(report.gram, report.sensitivity, plain, strict=True):
        assert gram.equal(found.gram)
        assert sensitivity.equal(found.sensitivity)


def test_shares_of_the_energy_by_hand(model, tokenizer, many):
    report = gl.redundancy(model, tokenizer, many, batch_size=7)
    table = report.table()
    for layer, runs in enumerate(stacked(model, tokenizer, many)):
        by_token = [run.square().sum(1) for run in runs]
        energies = torch.cat(by_token).sort(descending=True).values
        total = float(energies.sum())
        first = sum(float(run[0]) for run in by_token)
        count = math.ceil(len(energies) / 100)
        assert count > 1
        assert report.first_tokens[layer] == pytest.approx(first / total, rel=1e-4)
        assert report.top_tokens[layer] == pytest.approx(float(energies[:count].sum()) / total)
        by_neuron = torch.cat(runs).square().sum(0)
        assert report.top_neuron[layer] == pytest.approx(float(by_neuron.max()) / total, rel=1e-4)
        largest = float(torch.cat(runs).abs().max())
        row = table.iloc[layer]
        assert row["max_activation"] == pytest.approx(largest, rel=1e-5)
        assert row["first_tokens"] == report.first_tokens[layer]


def test_a_layer_that_rests_on_one_neuron_says_so(tokenizer, many):
    model = tiny("llama")
    assert gl.redundancy(model, tokenizer, many).concentrated == []
    neurons(model)[1].fc[1].weight.data[5] *= 100
    report = gl.redundancy(model, tokenizer, many)
    assert report.concentrated == [1]
    assert report.top_neuron[1] > 0.5
    assert "tokens in layer 1: see redundancy(..., robust=...)" in repr(report)
    assert report.effective_rank[1] < 2 < report.effective_rank[0]


@pytest.mark.parametrize("name", ["first_tokens", "top_tokens"])
def test_so_does_one_that_rests_on_few_tokens(tokenizer, many, name):
    report = gl.redundancy(tiny("llama"), tokenizer, many)
    assert "see redundancy" not in repr(report)
    at_the_half = dataclasses.replace(report, **{name: [0.5, 0.4]})
    assert at_the_half.concentrated == []
    above = dataclasses.replace(report, **{name: [0.51, 0.4]})
    assert above.concentrated == [0]
    assert "in layer 0" in repr(above)


def test_a_report_of_statistics_at_hand_is_the_same(gpt2, tokenizer, many):
    blocks = neurons(gpt2)
    for form in (None, "centred"):
        statistics = collect(gpt2, tokenizer, many, gradients=True, robust=form, layers=blocks)
        report = of_statistics(blocks, statistics, TINY_RIDGE, form)
        want = gl.redundancy(gpt2, tokenizer, many, ridge=TINY_RIDGE, robust=form)
        assert repr(report) == repr(want)
        assert all(a.equal(b) for a, b in zip(report.obs, want.obs, strict=True))
