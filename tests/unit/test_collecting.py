"""Scores without training, metrics, refit, one-shot runs: by brute force and numpy's lstsq."""

import copy
import functools
import weakref

import numpy as np
import pytest
import torch
from helpers.models import (
    LAYERS,
    PLAIN,
    N,
    activations,
    linear_twin,
    logits_of,
    loss_of,
    permuted,
    random_masks,
    tiny,
)
from helpers.texts import make_examples, one_batch

import gumlab as gl
from gumlab.collecting import Statistics, collect, one_by_one
from gumlab.feedforward import neurons
from gumlab.gating import Gate
from gumlab.gram import lifted, unrebuilt
from gumlab.inspection import reconstructability
from gumlab.removal import refit_layer
from gumlab.scoring import DATA_SCORES, greedy_obs, obs
from gumlab.study import Method, run
from gumlab.tasks import Task

TINY_RIDGE = 1e-12


@pytest.fixture
def many(examples):
    """Enough tokens for a regular Gram matrix."""
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


def correlated(tokens, n, seed=0):
    """Rows of n correlated activations in float64, a positive mean like that of a GELU's."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(tokens, n, generator=generator, dtype=torch.float64)
    mixing = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return h + 0.3 * h @ mixing + 0.2


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_unrebuilt_is_the_residual_of_least_squares_on_the_other_kept(seed):
    """For kept neurons and removed ones alike; without a mask all are kept."""
    h, kept = correlated(80, 12), torch.ones(12, dtype=torch.bool)
    if seed is not None:
        kept = torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.5
    got = unrebuilt(h.T @ h, TINY_RIDGE, None if seed is None else kept)
    assert got.dtype == torch.float64
    for i in range(12):
        others = kept.clone()
        others[i] = False
        left, right = h[:, others].numpy(), h[:, i].numpy()
        fit, *_ = np.linalg.lstsq(left, right, rcond=None)
        assert got[i].item() == pytest.approx(((right - left @ fit) ** 2).sum(), rel=1e-8)


@pytest.mark.parametrize("ridge", [1e-4, 1e-8])
@pytest.mark.parametrize("tokens", [200, 5, 1])
def test_unrebuilt_of_a_singular_gram_is_finite_and_never_negative(tokens, ridge):
    h = correlated(tokens, 10)
    h[:, 7], h[:, 2] = -3 * h[:, 3], 0.0  # a twin and a dead neuron
    gram, masks = h.T @ h, [None, *(torch.zeros(10, dtype=torch.bool) for _ in range(3))]
    masks[1][[0, 1, 7]] = masks[2][[2, 3, 7, 9]] = masks[3][[2]] = True
    for kept in masks:
        rest = unrebuilt(gram, ridge, kept)
        assert torch.isfinite(rest).all()
        assert (rest >= 0).all()
        if kept is None or kept[7]:  # a twin is rebuilt by its twin, all but the ridge
            assert rest[3] < 20 * ridge * gram.diagonal().mean()
        if kept is None or kept[2]:
            assert rest[2] < 20 * ridge * gram.diagonal().mean().clamp_min(1e-20)


def test_the_ridge_is_of_the_neurons_that_fire():
    """Dead neurons leave it where it was; where all are dead the matrix is still regular."""
    h = correlated(50, 6)
    wide = torch.cat([h, torch.zeros(50, 9, dtype=h.dtype)], 1)
    small, large = (lifted(x.T @ x, 0.1) for x in (h, wide))
    torch.testing.assert_close(large[:6, :6], small)
    by_hand = h.T @ h + 0.1 * h.square().sum(0).mean() * torch.eye(6, dtype=h.dtype)
    torch.testing.assert_close(small, by_hand)
    assert torch.linalg.cholesky(lifted(torch.zeros(4, 4))).isfinite().all()


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


def test_the_energy_is_the_sum_of_squares(model, tokenizer, examples):
    report = gl.redundancy(model, tokenizer, examples)
    for got, rows in zip(report.energy, stacked(model, tokenizer, examples), strict=True):
        want = torch.cat(rows).square().sum(0)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5 * float(want.max()))


@pytest.fixture(scope="module")
def built_in():
    """The built-in tiny-gpt-neo and the statistics of 32 training examples of its task."""
    model, tokenizer = gl.load("tiny-gpt-neo", device="cpu")
    return model, collect(model, tokenizer, gl.load_task("restaurants"), limit=32)


@pytest.mark.parametrize("index", range(4))
def test_obs_is_used_times_unique_is_the_error_of_deleting_on_a_real_layer(built_in, index):
    """Three routes to one number, in float64, with the ridge inside G, to 1e-6 of it.

    used ||w_i||^2 G_ii; unique 1 - R2, R2 the share that the best fit by the others has; and the
    smallest tr(D^T G D) over changes D of the outgoing weights with row i of D = -w_i.
    """
    model, found = built_in
    layer, found = neurons(model)[index], found[index]
    energy = found.gram.double().diagonal()
    gram = found.gram.double() + 1e-4 * energy.mean() * torch.eye(len(energy), dtype=torch.float64)
    root = torch.linalg.cholesky(gram, upper=True)  # tr(D^T G D) = ||root D||^2
    w = layer.outgoing().detach().double()
    scores, rest = obs(layer, found), unrebuilt(found.gram)
    order = rest.div(energy).argsort()
    for i in order[[0, len(order) // 2, -1]].tolist():  # well rebuilt, middling, unique
        others = torch.arange(len(w)) != i
        used = w[i].square().sum() * gram[i, i]
        fit = torch.linalg.solve(gram[others][:, others], gram[others, i])
        unique = 1 - fit @ gram[others, i] / gram[i, i]
        change = torch.empty_like(w)
        change[i] = -w[i]
        q, r = torch.linalg.qr(root[:, others])
        wanted = q.T @ -torch.outer(root[:, i], change[i])
        change[others] = torch.linalg.solve_triangular(r, wanted, upper=True)
        error = (root @ change).square().sum().item()
        assert (used * unique).item() == pytest.approx(error, rel=1e-6)
        assert (w[i].square().sum() * rest[i]).item() == pytest.approx(error, rel=1e-6)
        assert scores[i].item() == pytest.approx(error, rel=1e-6)


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


def greedy_from_scratch(gram, w):
    """Greedy OBS without a downdate: refit and invert anew for every removal. (order, costs)"""
    left, order, costs = list(range(len(w))), [], []
    while left:
        inside = gram[np.ix_(left, left)]
        new = w[left] + np.linalg.solve(inside, gram[np.ix_(left, order)] @ w[order])
        cost = (new**2).sum(1) / np.linalg.inv(inside).diagonal()
        costs.append(cost.min())
        order.append(left.pop(int(cost.argmin())))
    return order, np.array(costs)


@pytest.mark.parametrize("width", [1, 7, 40])
@pytest.mark.parametrize("ridge", [1e-4, TINY_RIDGE])
def test_greedy_obs_is_the_dense_algorithm(width, ridge):
    """At width 40 the rows of removed neurons are dropped a dozen times on the way."""
    layer, h = neurons(tiny("gpt2", n_inner=width))[0], correlated(90, width)
    w = layer.outgoing().detach().double().numpy()
    order, costs = greedy_from_scratch(lifted(h.T @ h, ridge).numpy(), w)
    got = greedy_obs(layer, from_rows(h), ridge)
    assert got.argsort().tolist() == order
    assert got[order].tolist() == pytest.approx(np.maximum.accumulate(costs), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_obs_scores_add_up_to_the_refitted_error(seed):
    """The least-squares error without the k lowest is the sum of k single costs, for every k.

    A score is the largest single cost so far: while no cost falls, the scores themselves add up.
    """
    layer, h = neurons(tiny("gpt2", n_inner=40))[0], correlated(90, 40, seed)
    w = layer.outgoing().detach().double().numpy()
    scores, order = greedy_obs(layer, from_rows(h), TINY_RIDGE).sort()
    errors = np.array(
        [deletion_error(h.numpy(), w, np.sort(order[k:].numpy())) for k in range(1, 40)]
    )
    single = np.diff(errors, prepend=0)
    assert scores[:-1].tolist() == pytest.approx(np.maximum.accumulate(single), rel=1e-6)
    rising = int((np.diff(single) < 0).argmax()) + 1
    assert rising >= 3
    assert scores[:rising].cumsum(0).tolist() == pytest.approx(errors[:rising], rel=1e-6)


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("name", [*PLAIN, "llama"])
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
@pytest.mark.parametrize("name", [*PLAIN, "llama"])
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


@pytest.mark.parametrize("truth", [1, np.True_])
def test_a_refit_that_equals_true_is_the_whole_refit(gpt2, tokenizer, examples, truth):
    """A table or a JSON file gives numpy's True."""
    masks = random_masks(gpt2)
    want, got = (
        gl.shrink(gpt2, masks, tokenizer, examples, refit=refit).state_dict()
        for refit in (True, truth)
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


def one_shot(base, tokenizer, name="greedy_obs", *, count=12, seed=0, keep=0.4, steps=1, **more):
    """A one-shot run on `count` training examples; without an lr the training moves nothing."""
    task = Task("tiny", "bleu", make_examples(count), make_examples(5, 1), make_examples(6, 2))
    options = {"lr": 0.0, "batch_size": 4, "generated": 0, "progress": False}
    fields = {k: more.pop(k) for k in ("refit", "options") if k in more}
    method = Method(name, name, **({"options": {"scope": "global"}} | fields), one_shot=True)
    return run(base, tokenizer, task, method, keep=keep, seed=seed, steps=steps, **options | more)


def outgoing(model):
    return torch.cat([layer.outgoing().detach().flatten() for layer in neurons(model)])


@pytest.mark.parametrize("name", ["random", "magnitude", "greedy_obs"])
def test_a_one_shot_run_is_cut_to_the_budget_before_it_trains(gpt2, tokenizer, name):
    before = copy.deepcopy(gpt2.state_dict())
    still, trained = (one_shot(gpt2, tokenizer, name, lr=lr, steps=3) for lr in (0.0, 1e-2))
    for done in (still, trained):
        widths = [int(m.sum()) for m in done.masks]
        assert done.row["neurons"] == sum(widths) == round(0.4 * 2 * N)
        assert done.row["keep"] == round(0.4 * 2 * N) / (2 * N)
        assert done.row["widths"] == [n.width for n in neurons(done.model)] == widths
        assert [m.shape for m in done.masks] == [(N,)] * 2
        assert done.row["parameters"] == sum(p.numel() for p in done.model.parameters())
        assert done.history.kept == [1.0] * 3
        assert done.pruner is None
    assert all(torch.equal(a, b) for a, b in zip(still.masks, trained.masks, strict=True))
    assert not torch.equal(outgoing(still.model), outgoing(trained.model))
    assert all(torch.equal(before[k], v) for k, v in gpt2.state_dict().items())


def test_a_one_shot_run_takes_the_options_of_select(gpt2, tokenizer):
    for options in ({"scope": "global", "standardise": True}, {"widths": [3, 16]}):
        done = one_shot(gpt2, tokenizer, "magnitude", options=options)
        want = gl.select(gl.score(gpt2, "magnitude"), 0.4, **options)
        assert all(torch.equal(a, b) for a, b in zip(done.masks, want, strict=True))


@pytest.mark.parametrize("name", ["random", "greedy_obs"])
def test_the_seed_draws_the_256_examples_of_a_one_shot_run(gpt2, tokenizer, name):
    """With 256 or fewer there is nothing to draw, so that scores and refit see the same data."""
    models = {
        (count, seed): one_shot(gpt2, tokenizer, name, count=count, seed=seed).model
        for count, seed in [(300, 0), (300, 1)]
    }
    again = one_shot(gpt2, tokenizer, name, count=300, seed=0).model
    assert torch.equal(outgoing(again), outgoing(models[300, 0]))
    assert not torch.allclose(outgoing(models[300, 0]), outgoing(models[300, 1]), rtol=1e-4)
    if name != "random":  # whose scores are drawn by the seed as well
        whole = [outgoing(one_shot(gpt2, tokenizer, name, count=256, seed=s).model) for s in (0, 1)]
        torch.testing.assert_close(*whole, rtol=1e-3, atol=1e-4)


def test_the_refit_of_a_one_shot_run(gpt2, tokenizer):
    """Without one it is the shrunk model, by default all is refitted; the masks are the same."""
    cut, bias, whole, default = (
        one_shot(gpt2, tokenizer, **more)
        for more in ({"refit": False}, {"refit": "bias"}, {"refit": True}, {})
    )
    for other in (bias, whole, default):
        assert all(torch.equal(a, b) for a, b in zip(cut.masks, other.masks, strict=True))
    plain = gl.shrink(gpt2, cut.masks).state_dict()
    assert all(torch.equal(plain[k], v) for k, v in cut.model.state_dict().items())
    assert torch.equal(outgoing(bias.model), outgoing(cut.model))
    assert not torch.equal(bias.model.state_dict()[PROJ_BIAS], plain[PROJ_BIAS])
    assert not torch.allclose(outgoing(whole.model), outgoing(cut.model), rtol=1e-2)
    assert torch.equal(outgoing(default.model), outgoing(whole.model))


PROJ_BIAS = "transformer.h.0.mlp.c_proj.bias"


def test_layer_by_layer_measures_what_one_pass_does(model, tokenizer, examples):
    want = collect(model, tokenizer, examples, batch_size=5)
    got = list(one_by_one(model, tokenizer, examples, batch_size=5))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(vars(a), vars(b))
    assert not any("forward" in vars(module) for module in model.modules())


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


def test_a_forward_of_a_blocks_own_is_there_again_afterwards(gpt2, tokenizer, examples):
    block = gpt2.transformer.h[0]
    block.forward = own = functools.partial(type(block).forward, block)
    gl.score(gpt2, "wanda", tokenizer, examples)
    assert vars(block)["forward"] is own
