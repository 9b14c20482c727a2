"""Scores and metrics without training, and the refit, against brute force and numpy's lstsq."""

import copy

import numpy as np
import pytest
import torch
from conftest import N, activations, linear_twin, one_batch, permuted, random_masks, tiny

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.inspection import reconstructability
from gumlab.scoring import DATA_SCORES, greedy_obs, obs
from gumlab.shrinking import refit_layer
from gumlab.statistics import Statistics, collect

TINY_RIDGE = 1e-12


@pytest.fixture
def many(examples):
    """Enough tokens for a regular Gram matrix."""
    from conftest import make_examples

    return make_examples(40, seed=3)


def stacked(model, tokenizer, examples):
    """h of every layer, unpadded: one list of (T, N) per layer."""
    runs = [activations(model, one_batch(model, tokenizer, [e])) for e in examples]
    return [[h.flatten(0, -2) for h in layer] for layer in zip(*runs, strict=True)]


def from_rows(h: torch.Tensor) -> Statistics:
    zero = torch.zeros(h.shape[1])
    return Statistics(h.T @ h, h.sum(0), h.amin(0), h.amax(0), zero, zero, zero, zero, len(h))


def by_hand(method, layer, rows):
    """The published formula of a data score from the sequences' activations."""
    h, w = torch.cat(rows), layer.outgoing().detach()
    return {
        "activation_norm": h.norm(dim=0),
        "wanda": w.abs().mean(1) * h.norm(dim=0),
        "flap": h.var(0, correction=0) * w.square().sum(1),
        "minitron": sum(r.abs().mean(0).square() for r in rows).sqrt(),
        "peak_to_peak": h.amax(0) - h.amin(0),
    }[method]


@pytest.mark.parametrize("method", ["activation_norm", "wanda", "flap", "minitron", "peak_to_peak"])
def test_a_score_is_its_formula(model, tokenizer, examples, method):
    scores = gl.score(model, method, tokenizer, examples, batch_size=5)
    rows = stacked(model, tokenizer, examples)
    for got, layer, sequences in zip(scores, neurons(model), rows, strict=True):
        torch.testing.assert_close(got, by_hand(method, layer, sequences), rtol=2e-3, atol=1e-4)


def test_fisher_is_the_squared_gradient_of_the_mask(model, tokenizer, examples):
    want = [torch.zeros(layer.width) for layer in neurons(model)]
    for example in examples:
        masks = [torch.ones(layer.width, requires_grad=True) for layer in neurons(model)]
        hooks = [
            layer.proj.register_forward_pre_hook(lambda m, args, mask=mask: (args[0] * mask,))
            for layer, mask in zip(neurons(model), masks, strict=True)
        ]
        batch = one_batch(model, tokenizer, [example])
        from conftest import loss_of

        loss_of(model, batch).backward()
        for hook in hooks:
            hook.remove()
        for total, mask in zip(want, masks, strict=True):
            total += mask.grad.square() / len(examples)
    model.zero_grad()
    for got, wanted in zip(gl.score(model, "fisher", tokenizer, examples), want, strict=True):
        torch.testing.assert_close(got, wanted, rtol=5e-3, atol=1e-6)


def test_taylor_is_the_sensitivity(gpt2, tokenizer, examples):
    report = gl.redundancy(gpt2, tokenizer, examples)
    for a, b in zip(gl.score(gpt2, "taylor", tokenizer, examples), report.sensitivity, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", list(DATA_SCORES))
def test_scores_move_with_permuted_neurons_and_ignore_the_storage(
    gpt2, tokenizer, examples, method
):
    orders = [torch.randperm(N, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    scores = gl.score(gpt2, method, tokenizer, examples)
    moved = gl.score(permuted(gpt2, orders), method, tokenizer, examples)
    twin = gl.score(linear_twin(gpt2), method, tokenizer, examples)
    for a, b, c, order in zip(scores, moved, twin, orders, strict=True):
        torch.testing.assert_close(a[order], b, rtol=2e-3, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("method", list(DATA_SCORES))
def test_the_batch_size_changes_no_score(gpt2, tokenizer, examples, method):
    one, five = (gl.score(gpt2, method, tokenizer, examples, batch_size=b) for b in (1, 5))
    for a, b in zip(one, five, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-5)


def deletion_error(h: np.ndarray, w: np.ndarray, kept: np.ndarray) -> float:
    """Squared output error of the best outgoing weights for the kept columns of h."""
    best, *_ = np.linalg.lstsq(h[:, kept], h @ w, rcond=None)
    return float(((h @ w - h[:, kept] @ best) ** 2).sum())


def test_obs_is_the_error_of_deleting_and_refitting(model, tokenizer, many):
    layer, rows = neurons(model)[1], stacked(model, tokenizer, many)[1]
    h, w = torch.cat(rows).double(), layer.outgoing().detach().double().numpy()
    got = obs(layer, from_rows(h), TINY_RIDGE)
    for i in range(0, N, 5):
        want = deletion_error(h.numpy(), w, np.arange(N) != i)
        assert got[i].item() == pytest.approx(want, rel=1e-4)


def test_obs_is_used_times_exactly_unique(gpt2, tokenizer, many):
    report = gl.redundancy(gpt2, tokenizer, many)
    for layer, o, unique, gram in zip(
        neurons(gpt2), report.obs, report.exact_uniqueness, report.gram, strict=True
    ):
        lift = 1e-4 * gram.diagonal().mean()
        used = layer.outgoing().square().sum(1) * (gram.diagonal() + lift)
        torch.testing.assert_close(o, (used * unique).detach(), rtol=1e-3, atol=1e-5)


def test_greedy_obs_removes_the_cheapest_neuron_each_time(gpt2):
    layer = neurons(gl.shrink(gpt2, random_masks(gpt2)))[0]
    h = torch.randn(60, 11, dtype=torch.float64) @ torch.randn(11, 11, dtype=torch.float64)
    w, left, order = layer.outgoing().detach().double().numpy(), list(range(11)), []
    while left:
        errors = (
            {
                i: deletion_error(h.numpy(), w, np.array([j for j in left if j != i]))
                for i in left[:]
            }
            if len(left) > 1
            else {left[0]: 0.0}
        )
        cheapest = min(errors, key=errors.get)
        order.append(cheapest)
        left.remove(cheapest)
    assert greedy_obs(layer, from_rows(h), TINY_RIDGE).argsort().tolist() == order


def test_reconstructability_is_one_least_squares_fit_per_neuron(model, tokenizer, many):
    h = torch.cat(stacked(model, tokenizer, many)[0]).double()
    got = reconstructability(from_rows(h), TINY_RIDGE)
    for i in range(0, N, 5):
        others = np.delete(h.numpy(), i, axis=1)
        fit, *_ = np.linalg.lstsq(others, h[:, i].numpy(), rcond=None)
        rest = ((h[:, i].numpy() - others @ fit) ** 2).sum()
        assert got[i].item() == pytest.approx(1 - rest / (h[:, i] ** 2).sum().item(), abs=1e-4)


def test_singular_cases_are_finite_and_mean_something(gpt2):
    torch.manual_seed(0)
    layer = neurons(gl.shrink(gpt2, random_masks(gpt2)))[0]
    h = torch.randn(200, 11)
    h[:, 3], h[:, 7] = h[:, 5], 0.0  # a twin and a dead neuron
    for rows in (h, h[:4], h[:1]):  # fewer tokens than neurons, too
        found = from_rows(rows)
        r2 = reconstructability(found)
        assert torch.isfinite(r2).all()
        assert ((r2 >= 0) & (r2 <= 1)).all()
        assert r2[7] == 0
        for score in DATA_SCORES.values():
            assert torch.isfinite(score(layer, found)).all()
    assert (reconstructability(from_rows(h))[[3, 5]] > 0.99).all()
    assert reconstructability(from_rows(torch.randn(50, 1))).tolist() == pytest.approx(
        [0], abs=1e-3
    )


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
@pytest.mark.parametrize("seed", [1, 2, 3])
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
