"""Scores that are measured on data, by brute force and numpy's lstsq."""

import numpy as np
import pytest
import torch
from helpers.models import (
    N,
    loss_of,
    random_masks,
    tiny,
)
from helpers.statistics import TINY_RIDGE, correlated, deletion_error, from_rows, stacked
from helpers.texts import one_batch

import gumlab as gl
from gumlab.collecting import collect
from gumlab.feedforward import neurons
from gumlab.gram import lifted, unrebuilt
from gumlab.inspection import reconstructability
from gumlab.scoring import DATA_SCORES, greedy_obs, obs


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
def test_the_batch_size_changes_no_score(gpt2, tokenizer, examples, method):
    one, five = (gl.score(gpt2, method, tokenizer, examples, batch_size=b) for b in (1, 5))
    for a, b in zip(one, five, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-5)


def test_obs_is_the_error_of_deleting_and_refitting(model, tokenizer, many):
    layer, rows = neurons(model)[1], stacked(model, tokenizer, many)[1]
    h, w = torch.cat(rows).double(), layer.outgoing().detach().double().numpy()
    got = obs(layer, from_rows(h), TINY_RIDGE)
    for i in range(0, N, 5):
        want = deletion_error(h.numpy(), w, np.arange(N) != i)
        assert got[i].item() == pytest.approx(want, rel=1e-4)


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


@pytest.mark.parametrize("width", [1, 7, 40, 150])
@pytest.mark.parametrize("ridge", [1e-4, TINY_RIDGE])
def test_greedy_obs_is_the_dense_algorithm(width, ridge):
    """At width 150 the large matrices follow twice on the way, and lose their removed rows."""
    layer, h = neurons(tiny("gpt2", n_inner=width))[0], correlated(90 + width, width)
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
