"""Every score against its formula written out, finite differences, or autograd of a mask."""

import pytest
import torch
from helpers.models import N, activations, loss_of, neuron_weights, random_masks, tiny
from helpers.texts import one_batch
from torch import nn
from torch.func import functional_call

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.gating import Gate
from gumlab.scoring import (
    SCORES,
    gum_factor,
    magnitude,
    mean_similarity,
    neuron_gradient,
    penalty_gradient,
)


def masked_blocks(model, masks):
    """Hooks that multiply h by a continuous mask; independent of gumlab's Gate."""
    for layer, mask in zip(neurons(model), masks, strict=True):
        layer.proj.register_forward_pre_hook(lambda m, x, mask=mask: (x[0] * mask,))


def gate_gradients(model, batch, masks):
    """dL/dS of every layer by Gate, at binary masks."""
    model.train()
    scores = [torch.zeros(layer.width, requires_grad=True) for layer in neurons(model)]
    gates = [Gate(layer, s) for layer, s in zip(neurons(model), scores, strict=True)]
    for gate, mask in zip(gates, masks, strict=True):
        gate.mask = mask
    loss_of(model, batch).backward()
    for gate in gates:
        gate.remove()
    return [s.grad for s in scores]


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox"])
def test_the_gate_gradient_is_the_finite_difference_of_the_loss(name, tokenizer, examples):
    """(L(m_i + e) - L(m_i - e)) / 2e, with h multiplied by a continuous mask, in float64."""
    model, other = tiny(name, dtype=torch.float64), tiny(name, dtype=torch.float64)
    batch = one_batch(model, tokenizer, examples)
    masks = random_masks(model)
    ours = gate_gradients(model, batch, masks)
    soft = [m.double() for m in masks]
    masked_blocks(other, soft)
    with torch.no_grad():
        for layer, i in [(0, 0), (0, 7), (1, 3), (1, 23)]:
            losses = []
            for shift in (1e-4, -1e-4):
                soft[layer][i] += shift
                losses.append(loss_of(other, batch).item())
                soft[layer][i] -= shift
            difference = (losses[0] - losses[1]) / 2e-4
            assert ours[layer][i].item() == pytest.approx(difference, rel=1e-4, abs=1e-7)


def test_the_gate_gradient_is_autograd_of_a_continuous_mask(model, tokenizer, examples):
    name = model.config.model_type
    batch = one_batch(model, tokenizer, examples)
    masks = random_masks(model)
    ours = gate_gradients(model, batch, masks)
    other = tiny(name)
    soft = [m.float().requires_grad_() for m in masks]
    masked_blocks(other, soft)
    wanted = torch.autograd.grad(loss_of(other, batch), soft)
    for got, want, mask in zip(ours, wanted, masks, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
        alive = (got[~mask] != 0).float().mean()  # removed neurons hear of the loss, and can return
        assert alive > 0.7  # OPT's ReLU may be silent for a few of them


def test_the_neuron_gradient_is_autograd_of_a_mask_on_both_matrices(model, tokenizer, examples):
    """W' = m W on incoming rows and outgoing columns; dL/dm with the bias left out."""
    batch, layers = one_batch(model, tokenizer, examples), neurons(model)
    masks = random_masks(model)
    names = {id(p): key for key, p in model.named_parameters()}
    soft = [m.float().requires_grad_() for m in masks]
    state = {}
    for layer, mask, fixed in zip(layers, soft, masks, strict=True):
        for parameter, dim, offset in neuron_weights(layer):
            used = fixed.float() if parameter.ndim == 1 else mask  # the bias is masked, not counted
            whole = torch.cat([used] * (parameter.shape[dim] // N))
            shape = [-1 if d == dim else 1 for d in range(parameter.ndim)]
            state[names[id(parameter)]] = parameter.detach() * whole.view(shape)
            assert offset % N == 0
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits = functional_call(model, state, (), inputs).logits
    loss = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    )
    wanted = torch.autograd.grad(loss, soft)
    gl.gate(model, masks)
    loss_of(model.train(), batch).backward()
    for layer, mask, want in zip(layers, masks, wanted, strict=True):
        got = neuron_gradient(layer, mask)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
        assert not got[~mask].any()
        assert (got[mask] != 0).float().mean() > 0.7


def test_magnitude_is_the_norm_of_all_weights_without_bias(model):
    for layer, got in zip(neurons(model), gl.score(model, "magnitude"), strict=True):
        squares = sum(
            p.detach().narrow(dim, offset, N).movedim(dim, 0).reshape(N, -1).double().pow(2).sum(1)
            for p, dim, offset in neuron_weights(layer, bias=False)
        )
        torch.testing.assert_close(got.double(), squares.sqrt(), rtol=1e-5, atol=0)
        assert torch.equal(got, magnitude(layer))


@pytest.mark.parametrize("method", SCORES)
def test_every_score_is_one_finite_number_per_neuron(method, model, tokenizer, task):
    scores = gl.score(model, method, tokenizer, task)
    assert [s.shape for s in scores] == [(N,)] * len(neurons(model))
    for s in scores:
        assert s.isfinite().all()
        assert not s.requires_grad
        assert len(s.unique()) > N // 2
    assert all(p.grad is None for p in model.parameters())


def test_random_scores_follow_the_seed_alone(gpt2):
    first, again, other = (gl.score(gpt2, "random", seed=s) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])
    assert torch.cat(first).abs().max() <= 1
    assert torch.cat(first).min() < -0.5


def test_the_penalty_gradient_is_autograd_of_its_formula():
    torch.manual_seed(0)
    scores = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (5, 9)]
    factors = [torch.rand(5, dtype=torch.float64) + 1, 1.0]
    penalty = sum((q * s.sigmoid()).mean() for s, q in zip(scores, factors, strict=True)) / 2
    for s, q, want in zip(scores, factors, torch.autograd.grad(penalty, scores), strict=True):
        torch.testing.assert_close(penalty_gradient(s.detach(), q, 2), want)


def similarity_by_hand(h, mask):
    """u_i = sum over kept j != i of |cos(h_i, h_j)| / kept, by a double loop."""
    u = torch.zeros(h.shape[1])
    for i in range(h.shape[1]):
        for j in range(h.shape[1]):
            if i != j and mask[j] and h[:, i].any() and h[:, j].any():
                u[i] += nn.functional.cosine_similarity(h[:, i], h[:, j], dim=0).abs() / mask.sum()
    return u


def test_mean_similarity_is_the_double_loop(gpt2, tokenizer, examples):
    h = activations(gpt2, one_batch(gpt2, tokenizer, examples))[0].flatten(0, 1)
    h[:, 4] = 0  # a dead neuron is similar to nothing
    h[:, 9] = 3 * h[:, 8]
    mask = random_masks(gpt2)[0]
    mask[[4, 8]] = True
    got = mean_similarity(h.T @ h, mask)
    torch.testing.assert_close(got, similarity_by_hand(h, mask), rtol=1e-4, atol=1e-6)
    assert got[4] == 0
    torch.testing.assert_close(mean_similarity(100 * h.T @ h, mask), got)  # only the cosine counts
    torch.testing.assert_close(gum_factor(got, 2.5), 1 + 2.5 * got)
    assert torch.equal(gum_factor(got, 0.0), torch.ones_like(got))


@pytest.mark.parametrize("method", ["movement", "gum"])
def test_a_learned_method_is_sent_to_the_pruner(gpt2, method):
    with pytest.raises(gl.GumlabError, match=f"'{method}' learns its scores.*gumlab.Pruner"):
        gl.score(gpt2, method)


def test_an_unknown_method_names_the_nearest(gpt2):
    with pytest.raises(
        gl.GumlabError, match=r"Unknown method 'magnitud'. Did you mean 'magnitude'"
    ):
        gl.score(gpt2, "magnitud")


def test_a_criterion_of_your_own_is_a_method(gpt2, tokenizer, examples):
    wanda = gl.score(gpt2, "wanda", tokenizer, examples)
    own = gl.score(
        gpt2, lambda n, f: n.outgoing().abs().mean(1) * f.energy.sqrt(), tokenizer, examples
    )
    for one, other in zip(gl.select(wanda, 0.5), gl.select(own, 0.5), strict=True):
        assert torch.equal(one, other)
    gradients = gl.score(gpt2, lambda n, f: f.sensitivity, tokenizer, examples)
    assert all(s.min() >= 0 and s.max() > 0 for s in gradients)


@pytest.mark.parametrize(
    ("criterion", "got"),
    [
        (lambda n, f: n.outgoing().norm(dim=0), r"yours gave shape \(\d+,\)"),
        (lambda n, f: f.energy.sum(), r"yours gave shape \(\)"),
        (lambda n, f: f.energy / 0 - f.energy / 0, "without NaN"),
        (lambda n, f: f.energy.tolist(), "yours gave list"),
    ],
)
def test_a_criterion_that_returns_something_else_is_refused(
    gpt2, tokenizer, examples, criterion, got
):
    with pytest.raises(gl.GumlabError, match=got):
        gl.score(gpt2, criterion, tokenizer, examples)


def test_a_criterion_without_data_is_refused(gpt2):
    with pytest.raises(gl.GumlabError, match="your criterion is measured on data"):
        gl.score(gpt2, lambda n, f: f.energy)
