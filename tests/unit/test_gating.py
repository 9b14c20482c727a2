"""Gates multiply h and nothing else; running Gram sums are exactly h^T h of the real tokens."""

import copy
import itertools
import math

import pytest
import torch
from helpers.models import activations, every_architecture, hooks_of, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch
from torch import nn

import gumlab as gl
from gumlab.collecting import RunningGrams, RunningLikeness
from gumlab.feedforward import neurons
from gumlab.gating import Gate, remove_gates
from gumlab.inspection import cosine
from gumlab.scoring import mean_similarity


@every_architecture
def test_a_gate_is_a_zeroed_column_of_proj(model, tokenizer, examples):
    batch, masks = one_batch(model, tokenizer, examples), random_masks(model)
    zeroed, dense = copy.deepcopy(model), logits_of(model, batch)
    for layer, mask in zip(neurons(zeroed), masks, strict=True):
        layer.outgoing().data.mul_(mask[:, None])
    gates = gl.gate(model, masks)
    torch.testing.assert_close(logits_of(model, batch), logits_of(zeroed, batch))
    assert not torch.allclose(logits_of(model, batch), dense)
    assert "11 of 24 kept" in repr(gates[0])
    for gate in gates:
        gate.remove()
    assert torch.equal(logits_of(model, batch), dense)
    assert hooks_of(model) == 0


def test_remove_gates_takes_ours_and_leaves_others(gpt2, tokenizer, examples):
    dense = logits_of(gpt2, one_batch(gpt2, tokenizer, examples))
    gpt2.lm_head.register_forward_pre_hook(lambda m, x: None)
    gates = gl.gate(gpt2, random_masks(gpt2))
    RunningGrams(gpt2, gates, 1, 1.0, 0.0)
    assert hooks_of(gpt2) == 4
    remove_gates(gpt2)
    assert hooks_of(gpt2) == 1
    assert torch.equal(logits_of(gpt2, one_batch(gpt2, tokenizer, examples)), dense)


def test_a_gate_passes_the_masked_gradient_to_h():
    proj = nn.Linear(3, 2, bias=False)
    h = torch.randn(4, 5, 3, requires_grad=True)
    score = torch.zeros(3, requires_grad=True)
    block = nn.ModuleDict({"0": nn.Sequential(nn.Linear(2, 3), proj)})
    gate = Gate(neurons(block)[0], score)
    gate.mask = torch.tensor([True, False, True])
    out = proj(h)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    to_h = weights @ proj.weight.detach()
    torch.testing.assert_close(h.grad, to_h * gate.mask)
    torch.testing.assert_close(score.grad, (h.detach() * to_h).sum((0, 1)))


def running(model, tokenizer, examples, batches, masks=None, **options):
    """The running sums after `batches` training steps, each on its own examples."""
    gates = [Gate(layer) for layer in neurons(model)]
    for gate, mask in zip(gates, masks or [gate.mask for gate in gates], strict=True):
        gate.mask = mask
    kind = RunningLikeness if "neurons" in options else RunningGrams
    grams = kind(model, gates, **options)
    history = []
    for i in range(batches):
        batch = one_batch(model, tokenizer, make_examples(6, seed=10 + i))
        model.train()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        grams.step += 1
        history.append([total.clone() for total in grams.sums])
    grams.remove()
    remove_gates(model)
    return history


def mean_grams(model, tokenizer, seed):
    """h^T h / tokens over the real tokens, from activations caught by hooks of our own."""
    batch = one_batch(model, tokenizer, make_examples(6, seed=seed))
    assert not batch["attention_mask"].all(), (
        "the batch must have padding for this test to mean much"
    )
    real = batch["attention_mask"].bool()
    rows = [h.view(*real.shape, -1)[real] for h in activations(model, batch)]
    return [r.T @ r / len(r) for r in rows]


def test_running_grams_are_exactly_the_real_tokens(model, tokenizer, examples):
    got = running(model, tokenizer, examples, 1, every=1, tokens=1.0, memory=0.0)[0]
    for total, want in zip(got, mean_grams(model, tokenizer, 10), strict=True):
        torch.testing.assert_close(total, want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cosine(total), cosine(17 * want), rtol=1e-4, atol=1e-5)


def test_memory_is_what_a_refresh_keeps(gpt2, tokenizer, examples):
    got = running(gpt2, tokenizer, examples, 3, every=1, tokens=1.0, memory=0.75)
    expected = [torch.zeros_like(g) for g in got[0]]
    for step in range(3):
        fresh = mean_grams(gpt2, tokenizer, 10 + step)
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, fresh, strict=True)]
        for total, want in zip(got[step], expected, strict=True):
            torch.testing.assert_close(total, want, rtol=1e-4, atol=1e-5)


def test_every_says_which_steps_count(gpt2, tokenizer, examples):
    got = running(gpt2, tokenizer, examples, 5, every=3, tokens=1.0, memory=0.0)
    changed = [not torch.equal(a[0], b[0]) for a, b in itertools.pairwise(got)]
    assert got[0][0].any()
    assert changed == [False, False, True, False]


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_share_of_the_real_tokens_is_sampled(gpt2, tokenizer, examples, share):
    """The sum over a sample of k tokens has rank k at most, and follows the seed."""
    batch = one_batch(gpt2, tokenizer, make_examples(6, seed=10))
    options = {"every": 1, "tokens": share, "memory": 0.0}
    first, again, other = (
        running(gpt2, tokenizer, examples, 1, seed=s, **options)[0][0].double() for s in (0, 0, 1)
    )
    wanted = math.ceil(int(batch["attention_mask"].sum()) * share)
    assert 4 < wanted < 20
    assert int(torch.linalg.matrix_rank(first, rtol=1e-6)) == wanted
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kept", [24, 17])
def test_likeness_with_all_kept_neurons_is_the_mean_similarity(gpt2, tokenizer, examples, kept):
    mask = torch.arange(24) < kept
    options = {"masks": [mask, mask], "every": 1, "tokens": 1.0, "seed": 0}
    (gram, _), *_ = running(gpt2, tokenizer, examples, 1, memory=0.0, **options)
    (sums, _), *_ = running(gpt2, tokenizer, examples, 1, memory=0.5, neurons=24, **options)
    torch.testing.assert_close(sums[0] / sums[1], mean_similarity(gram, mask))


def test_likeness_is_right_on_average_and_drawn_anew(gpt2, tokenizer):
    mask = torch.arange(24) % 3 > 0
    gates = [Gate(layer) for layer in neurons(gpt2)]
    for gate in gates:
        gate.mask = mask
    h = torch.randn(40, 24).relu()
    h[:, 5] = 0.0
    grams = RunningLikeness(gpt2, gates, 1, 1.0, 0.0, 0, neurons=4)
    found = []
    for _ in range(4000):
        grams.add(0, h)
        found.append(grams.likeness(0))
    grams.remove()
    assert len({tuple(u.tolist()) for u in found[:20]}) > 10
    mean = torch.stack(found).mean(0)
    torch.testing.assert_close(mean, mean_similarity(h.T @ h, mask), rtol=0.03, atol=0)
    assert mean[5] == 0


def test_likeness_of_several_batches_in_a_step_is_their_mean(gpt2):
    gates = [Gate(layer) for layer in neurons(gpt2)]
    grams = RunningLikeness(gpt2, gates, 1, 1.0, 0.0, 0, neurons=24)
    halves = torch.randn(2, 40, 24).relu()
    for h in halves:
        grams.add(0, h)
        grams._fade = 1.0
    mask = torch.ones(24, dtype=torch.bool)
    expected = torch.stack([mean_similarity(h.T @ h, mask) for h in halves]).mean(0)
    torch.testing.assert_close(grams.likeness(0), expected)


def test_evaluation_leaves_the_sums_alone(gpt2, tokenizer, examples):
    gates = [Gate(layer) for layer in neurons(gpt2)]
    grams = RunningGrams(gpt2, gates, 1, 1.0, 0.0)
    logits_of(gpt2, one_batch(gpt2, tokenizer, examples))
    assert not any(total.any() for total in grams.sums)


def test_a_copied_model_shares_no_statistics():
    model = tiny("gpt2")
    pruner = gl.Pruner(model, "gum", 0.5, 10)
    small = gl.shrink(model, random_masks(model))
    assert hooks_of(small) == 0
    small.train()(torch.tensor([[3, 4, 5]]))
    assert not any(total.any() for total in pruner.grams.sums)
