"""What an error of a layer's output costs the loss, by hand and by brute force."""

import numpy as np
import pytest
import torch
from helpers.models import loss_of, tiny
from helpers.statistics import TINY_RIDGE, correlated, deletion_error, from_rows
from helpers.texts import one_batch

import gumlab as gl
from gumlab.collecting import collect, currencies, output_fisher, symmetric_root
from gumlab.feedforward import neurons
from gumlab.gating import Gate
from gumlab.scoring import MEASURE_OUTPUT, greedy_obs, obs
from gumlab.study.intervals import rank_correlation


def random_root(size: int, seed: int = 0) -> torch.Tensor:
    """A symmetric positive definite matrix, far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return symmetric_root(rows @ rows.T)


def gradients_by_hand(model, tokenizer, examples):
    """d(summed loss) / d(output) of each layer, (tokens, D), one example at a time."""
    rows = [[] for _ in neurons(model)]
    for example in examples:
        outputs = []
        hooks = [
            layer.proj.register_forward_hook(lambda m, x, y, kept=outputs: kept.append(y))
            for layer in neurons(model)
        ]
        batch = one_batch(model, tokenizer, [example])
        predicted = int((batch["labels"][:, 1:] != -100).sum())
        loss = loss_of(model, batch) * predicted  # the model's own is the mean
        for kept, gradient in zip(rows, torch.autograd.grad(loss, outputs), strict=True):
            kept.append(gradient.flatten(0, -2))
        for hook in hooks:
            hook.remove()
    return [torch.cat(kept) for kept in rows]


def test_f_is_the_mean_outer_product_of_the_gradients(model, tokenizer, examples):
    want = gradients_by_hand(model, tokenizer, examples)
    for batch_size in (1, 5):
        got = output_fisher(model, tokenizer, examples, batch_size=batch_size)
        for f, rows in zip(got, want, strict=True):
            torch.testing.assert_close(f, rows.T @ rows / len(rows), rtol=1e-3, atol=1e-7)


def test_f_is_measured_with_frozen_weights_too(gpt2, tokenizer, examples):
    want = output_fisher(gpt2, tokenizer, examples)
    gpt2.requires_grad_(False)
    for got, f in zip(output_fisher(gpt2, tokenizer, examples), want, strict=True):
        torch.testing.assert_close(got, f)
    assert all(parameter.grad is None for parameter in gpt2.parameters())


def test_the_currencies_are_the_root_its_mean_and_nothing(gpt2, tokenizer, examples):
    fisher = output_fisher(gpt2, tokenizer, examples)
    for f, root in zip(fisher, currencies(gpt2, tokenizer, examples, "loss"), strict=True):
        torch.testing.assert_close(root @ root, f.double(), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(root, root.T)
    for f, root in zip(fisher, currencies(gpt2, tokenizer, examples, "loss_scalar"), strict=True):
        assert root.shape == ()
        assert float(root**2) == pytest.approx(float(f.trace()) / len(f), rel=1e-5)
    assert currencies(gpt2, tokenizer, examples, "output") == [None, None]


@pytest.mark.parametrize("method", MEASURE_OUTPUT)
def test_one_number_a_layer_scales_its_scores_and_keeps_their_order(model, tokenizer, many, method):
    raw = gl.score(model, method, tokenizer, many)
    prices = currencies(model, tokenizer, many, "loss_scalar")
    power = 1 if method == "wanda" else 2  # Wanda is no square
    scaled = gl.score(model, method, tokenizer, many, currency="loss_scalar")
    for got, score, price in zip(scaled, raw, prices, strict=True):
        torch.testing.assert_close(got.double(), score.double() * price**power, rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_obs_in_a_currency_is_the_refitted_error_in_it(seed):
    layer, h = neurons(tiny("gpt2", n_inner=12))[0], correlated(90, 12, seed)
    w = layer.outgoing().detach().double()
    root = random_root(w.shape[1], seed)
    statistics = from_rows(h)
    statistics.currency = root
    kept = [np.delete(np.arange(12), i) for i in range(12)]
    want = [deletion_error(h.numpy(), (w @ root).numpy(), left) for left in kept]
    assert obs(layer, statistics, TINY_RIDGE).tolist() == pytest.approx(want, rel=1e-4)
    cheapest = int(np.argmin(want))
    assert int(greedy_obs(layer, statistics, TINY_RIDGE).argmin()) == cheapest


def test_the_refit_that_is_best_for_the_output_is_best_in_every_currency():
    """Least squares in w C and in w have one solution times C, so the refit needs no currency."""
    h = correlated(90, 8).numpy()
    w = np.random.default_rng(0).normal(size=(8, 5))
    root = random_root(5).numpy()
    kept = [0, 2, 3, 5]
    plain = np.linalg.lstsq(h[:, kept], h @ w, rcond=None)[0]
    priced = np.linalg.lstsq(h[:, kept], h @ w @ root, rcond=None)[0]
    np.testing.assert_allclose(plain @ root, priced, rtol=1e-8)


def changes_of_the_loss(model, batch, layer, removed):
    """What the mean loss rises by without each of some neurons of a layer, one at a time."""
    with torch.no_grad():
        dense = float(loss_of(model, batch))
        gate = Gate(layer)
        changes = []
        for i in removed:
            gate.mask.fill_(True)
            gate.mask[i] = False
            changes.append(float(loss_of(model, batch)) - dense)
        gate.remove()
    return changes


@pytest.mark.parametrize("base", ["tiny-gpt2", "tiny-llama", "tiny-gpt-neo"])
def test_the_loss_currency_ranks_true_changes_of_the_loss_better_than_the_output(base):
    """Over all layers together, on the examples that were measured; 24 neurons of each."""
    model, tokenizer = gl.load(base, device="cpu")
    examples = gl.load_task("restaurants").train[:8]
    batch = one_batch(model, tokenizer, examples)
    statistics = collect(model, tokenizer, examples)
    roots = currencies(model, tokenizer, examples, "loss")
    true, raw, priced = [], [], []
    for layer, seen, root in zip(neurons(model), statistics, roots, strict=True):
        removed = torch.linspace(0, layer.width - 1, 24).long()
        true += changes_of_the_loss(model, batch, layer, removed)
        w = layer.outgoing().detach()[removed].double()
        energy = seen.energy[removed]
        raw += (energy * w.square().sum(1)).tolist()
        priced += (energy * (w @ root).square().sum(1)).tolist()
    size = np.abs(true)
    assert rank_correlation(priced, size) > rank_correlation(raw, size)


def test_a_score_without_an_output_has_no_currency(gpt2, tokenizer, examples):
    with pytest.raises(gl.GumlabError, match="'magnitude' does not measure an error of the output"):
        gl.score(gpt2, "magnitude", currency="loss")
    with pytest.raises(gl.GumlabError, match=r"Unknown currency 'los'. Did you mean 'loss'"):
        gl.prune(gpt2, "wanda", tokenizer, examples, currency="los")


def test_running_text_is_read_up_to_a_number_of_tokens(gpt2, tokenizer):
    text = ["the cat sat on the mat . " * 100]
    context = gpt2.config.max_position_embeddings
    everything = collect(gpt2, tokenizer, text, tokens=None)[0].tokens
    assert everything > 3 * context
    assert collect(gpt2, tokenizer, text, tokens=2 * context + 1)[0].tokens == 2 * context
    assert collect(gpt2, tokenizer, text, tokens=1)[0].tokens == context


def test_a_layer_that_the_text_does_not_reach_is_named(gpt2, tokenizer, examples):
    blocks = gpt2.transformer.h
    blocks[1].forward = lambda states, *args, **options: states  # as one that looks at images
    with pytest.raises(gl.GumlabError, match=r"h\.1\.mlp does not run on text alone"):
        output_fisher(gpt2, tokenizer, examples)
