"""Runs that are cut once, before they train."""

import copy

import pytest
import torch
from helpers.models import (
    N,
)
from helpers.texts import make_examples

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.study import Method, run
from gumlab.tasks import Task


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


def test_a_one_shot_run_counts_in_the_currency_that_is_asked_for(gpt2, tokenizer):
    options = {"scope": "global", "currency": "loss_scalar"}
    done = one_shot(gpt2, tokenizer, "wanda", options=options)
    scores = gl.score(gpt2, "wanda", tokenizer, make_examples(12), currency="loss_scalar")
    want = gl.select(scores, 0.4, "global")
    assert all(torch.equal(a, b) for a, b in zip(done.masks, want, strict=True))
    with pytest.raises(gl.GumlabError, match="'magnitude' does not measure an error"):
        Method("magnitude", "magnitude", {"currency": "loss"}, one_shot=True)


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
