"""What the students write in notebook 10 is what the package does."""

from __future__ import annotations

import pytest
import torch
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

from gumlab.collecting import collect
from gumlab.course import check
from gumlab.feedforward import neurons
from gumlab.gram import lifted
from gumlab.scoring import DATA_SCORES


@pytest.fixture(scope="module")
def seen():
    """A layer, and what one look found there."""
    model = tiny("gpt2")
    layer = neurons(model)[0]
    (found,) = collect(model, word_tokenizer(), make_examples(40, seed=3), layers=[layer])
    return layer, found


@pytest.fixture(scope="module")
def given(seen):
    """Its Gram matrix with a ridge, and its outgoing weights."""
    layer, found = seen
    return lifted(found.gram), layer.outgoing().detach().double()


@pytest.mark.parametrize("name", ["obs", "greedy_obs"])
def test_the_prices_are_the_packages(name, seen, given):
    exercise = {"obs": check.obs_scores, "greedy_obs": check.greedy_scores}[name]
    mine = exercise.reference(*given)
    torch.testing.assert_close(mine, DATA_SCORES[name](*seen).double(), rtol=1e-4, atol=0)


def test_one_removal_and_the_refit_cost_what_obs_says(given):
    gram, weights = given
    price = check.obs_scores.reference(gram, weights)
    for i in range(0, len(weights), 7):
        rest = torch.arange(len(weights)) != i
        change = -weights
        change[rest] += check.refit_weights.reference(gram, weights, rest, 0.0)
        measured = (change * (gram @ change)).sum()
        torch.testing.assert_close(measured, price[i], rtol=1e-6, atol=0)


def test_a_ridge_on_the_change_never_makes_a_cut_worse(given):
    gram, weights = given
    mask = torch.arange(len(weights)) % 3 == 0
    errors = []
    for ridge in (0.0, 1.0, 1e3, 1e9):
        change = -weights
        change[mask] += check.refit_weights.reference(gram, weights, mask, ridge)
        errors.append((change * (gram @ change)).sum().item())
    missing = weights[~mask]
    as_cut = (missing * (gram[~mask][:, ~mask] @ missing)).sum().item()
    assert [*errors, as_cut] == sorted([*errors, as_cut])
