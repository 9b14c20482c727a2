"""The invariants of the design, on one table of runs: every method, every kind of block.

Invariant 4 for all architectures is in unit/io/test_saving, 6 (a killed study) in test_study, 7
in unit/test_gating; any configuration at all is drawn in test_any_configuration.
"""

import copy

import pytest
import torch
from helpers.methods import METHOD_CASES, prune
from helpers.models import (
    D,
    N,
    every_architecture,
    hooks_of,
    linear_twin,
    logits_of,
    permuted,
    random_masks,
    tiny,
)
from helpers.runs import KEEP, ORDERS, ROWS, STEPS, same, trained
from helpers.texts import one_batch
from transformers import AutoModelForCausalLM

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.scoring import SCORES
from gumlab.selection import schedule
from gumlab.study import PAPER_METHODS, run


@pytest.mark.parametrize(("case", "name"), ROWS)
def test_1_gated_equals_shrunk(case, name):
    run = trained(case, name)
    assert run.pruner.fraction_kept < 0.95, "too little was removed for this to mean much"
    torch.testing.assert_close(logits_of(run.small, run.batch), run.gated, rtol=1e-3, atol=1e-4)
    assert [n.width for n in gl.neurons(run.small)] == [int(m.sum()) for m in run.masks]
    assert run.untouched
    assert hooks_of(run.small) == 0


@pytest.mark.parametrize(("case", "name"), ROWS)
def test_without_its_gates_the_model_is_dense_and_the_pruner_keeps_its_masks(case, name):
    run = trained(case, name)
    assert run.hooks == 0
    assert not torch.allclose(run.dense, run.gated, atol=1e-3)
    assert same(run.pruner.masks, run.masks)


@pytest.mark.parametrize(("case", "name"), [row for row in ROWS if "soft" not in row[0]])
def test_dense_for_a_tenth_then_down_to_exactly_the_budget(case, name):
    run, total = trained(case, name), 2 * N
    wanted = [round(schedule(t, STEPS, KEEP) * total) / total for t in range(1, STEPS + 1)]
    assert run.history.kept == wanted
    assert wanted[0] == 1.0
    assert sum(int(m.sum()) for m in run.masks) == round(KEEP * total)
    assert run.pruner.fraction_kept == round(KEEP * total) / total
    assert all(m.any() for m in run.masks)
    assert f"step {STEPS}/{STEPS}, keeps {round(KEEP * total)} of {total}" in run.said


@pytest.mark.parametrize("case", METHOD_CASES)
def test_2_conv1d_equals_its_linear_twin(case):
    ours, theirs = trained(case, "gpt2", "double"), trained(case, "gpt2", "linear")
    assert "Conv1D" in repr(ours.model)
    assert "Conv1D" not in repr(theirs.model)
    for a, b in zip(ours.scores, theirs.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert same(ours.masks, theirs.masks)
    torch.testing.assert_close(
        logits_of(ours.small, ours.batch), logits_of(theirs.small, ours.batch), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("method", SCORES)
def test_2_conv1d_and_linear_have_the_same_scores(method, gpt2, tokenizer, task):
    ours, theirs = (gl.score(m, method, tokenizer, task) for m in (gpt2, linear_twin(gpt2)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("case", "name"), ROWS)
def test_3_permuted_neurons_get_permuted_scores_and_masks(case, name):
    ours, theirs = trained(case, name, "double"), trained(case, name, "permuted")
    for a, b, order in zip(ours.scores, theirs.scores, ORDERS, strict=True):
        torch.testing.assert_close(a[order], b, rtol=1e-2, atol=1e-4)
    for a, b, order in zip(ours.masks, theirs.masks, ORDERS, strict=True):
        assert torch.equal(a[order], b)
    for seen in ("gated", "dense"):
        torch.testing.assert_close(getattr(theirs, seen), getattr(ours, seen), rtol=1e-3, atol=1e-4)


def test_3_permuting_neurons_leaves_the_function_as_it_was(model, tokenizer, task):
    batch = one_batch(model, tokenizer, task.test)
    torch.testing.assert_close(
        logits_of(permuted(model, ORDERS), batch), logits_of(model, batch), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("case", "name"), ROWS)
def test_4_what_was_pruned_is_saved_and_loaded(case, name, tokenizer, tmp_path):
    run = trained(case, name)
    gl.save(run.small, tokenizer, tmp_path / "small")
    loaded, _ = gl.load(tmp_path / "small", device="cpu")
    assert torch.equal(logits_of(loaded, run.batch), logits_of(run.small, run.batch))
    padded = gl.save(run.small, tokenizer, tmp_path / "padded", pad=True)
    plain = AutoModelForCausalLM.from_pretrained(padded).eval()
    torch.testing.assert_close(logits_of(plain, run.batch), run.gated, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [m for m in SCORES if m != "random"])
def test_3_permuted_neurons_get_permuted_one_shot_scores(method, model, tokenizer, task):
    ours, theirs = (gl.score(m, method, tokenizer, task) for m in (model, permuted(model, ORDERS)))
    for a, b, order in zip(ours, theirs, ORDERS, strict=True):
        torch.testing.assert_close(a[order], b, rtol=1e-3, atol=1e-5)


def test_3_permuted_neurons_get_a_permuted_report(model, tokenizer, examples):
    ours, theirs = (gl.redundancy(m, tokenizer, examples) for m in (model, permuted(model, ORDERS)))
    for layer, order in enumerate(ORDERS):
        for name in ("sensitivity", "max_cosine", "dead"):
            a, b = getattr(ours, name)[layer][order], getattr(theirs, name)[layer]
            torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-4)
        assert torch.equal(order[theirs.twin[layer]], ours.twin[layer][order])


@pytest.mark.parametrize("case", METHOD_CASES)
def test_5_the_same_seed_gives_the_same_run(case):
    """The global generator must not matter."""
    one, other = trained(case, "gpt2"), trained(case, "gpt2", "again")
    assert one.history.losses == other.history.losses
    assert one.history.kept == other.history.kept
    assert same(one.masks, other.masks)
    assert same(one.scores, other.scores)


def test_another_seed_gives_another_random_mask(tokenizer, task):
    one, other = (prune(tiny("gpt2"), "random", tokenizer, task, seed=s)[0] for s in (0, 1))
    assert not torch.equal(one.masks[0], other.masks[0])


@pytest.mark.parametrize("method", PAPER_METHODS[-3:], ids=lambda m: m.label)
def test_5_the_same_seed_gives_the_same_row(method, tokenizer, task):
    base = tiny("gpt2")
    before = copy.deepcopy(base.state_dict())
    options = {"keep": 0.5, "steps": 6, "batch_size": 4, "generated": 3, "progress": False}
    one, other = (run(base, tokenizer, task, method, **options) for _ in range(2))
    timed = ("seconds", "train_seconds", "cut_seconds")
    assert {k: v for k, v in one.row.items() if k not in timed} == {
        k: v for k, v in other.row.items() if k not in timed
    }
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())
    assert hooks_of(base) == hooks_of(one.model) == 0
    if method.name not in (None, "soft_movement"):
        assert (one.row["keep"], one.row["neurons"]) == (0.5, N)
        assert 0.5 < one.row["parameters_kept"] < 1


@every_architecture
def test_1_masks_from_scores_shrink_to_what_they_gate(model, tokenizer, examples):
    """The whole lifecycle without training: score, select over all layers, gate, shrink."""
    masks = gl.select(gl.score(model, "magnitude"), keep=0.3, scope="global")
    batch = one_batch(model, tokenizer, examples)
    small = gl.shrink(model, masks)
    gl.gate(model, masks)
    torch.testing.assert_close(
        logits_of(small, batch), logits_of(model, batch), rtol=1e-4, atol=1e-4
    )
    assert sum(n.width for n in gl.neurons(small)) == round(0.3 * 2 * N)
    assert random_masks(model)[0].shape == masks[0].shape


VARIANTS = {
    "llama-bare": ("llama", {"mlp_bias": False}),
    "llama-untied": ("llama", {"tie_word_embeddings": False}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False}),
    "opt-bare": ("opt", {"enable_bias": False}),
    "gemma-untied": ("gemma", {"tie_word_embeddings": False}),
    "gpt2-23": ("gpt2", {"n_inner": 23}),
    "llama-23": ("llama", {"intermediate_size": 23}),
    "phi3-23": ("phi3", {"intermediate_size": 23}),
    "gpt2-as-wide-as-the-model": ("gpt2", {"n_inner": D}),
    "phi3-as-wide-as-the-model": ("phi3", {"intermediate_size": D}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_1_3_4_ties_biases_and_odd_widths_change_nothing(name, tokenizer, task, tmp_path):
    kind, config = VARIANTS[name]
    model, batch = tiny(kind, **config), one_batch(tiny(kind), tokenizer, task.test)
    width, tied = neurons(model)[0].width, config.get("tie_word_embeddings")
    assert width == config.get("n_inner", config.get("intermediate_size", N))
    if tied is not None:
        one, other = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert (one is other) == tied
    orders = [torch.randperm(width, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
    twin = permuted(model, orders)
    for method in ("magnitude", "obs"):
        scores, theirs = (gl.score(m, method, tokenizer, task) for m in (model, twin))
        for a, b, order in zip(scores, theirs, orders, strict=True):
            torch.testing.assert_close(a[order], b, rtol=1e-3, atol=1e-5)
    masks = gl.select(scores, widths=[7, 13])
    small = gl.shrink(model, masks)
    gates = gl.gate(model, masks)
    gated = logits_of(model, batch)
    gates.remove()
    assert not torch.allclose(logits_of(model, batch), gated, atol=1e-3)
    torch.testing.assert_close(logits_of(small, batch), gated, rtol=1e-4, atol=1e-4)
    gl.save(small, tokenizer, tmp_path / "unequal")
    padded = gl.save(small, tokenizer, tmp_path / "padded", pad=True)
    loaded, _ = gl.load(tmp_path / "unequal", device="cpu")
    assert torch.equal(logits_of(loaded, batch), logits_of(small, batch))
    plain = AutoModelForCausalLM.from_pretrained(padded).eval()
    torch.testing.assert_close(logits_of(plain, batch), gated, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3", "qwen3", "gemma3_text", "olmo2"])
def test_1_4_in_bfloat16(name, tokenizer, task, tmp_path):
    """Equal within bf16's 8 bits of mantissa, and bf16 in every copy and file."""
    model = tiny(name, dtype=torch.bfloat16)  # not .to(), which would round rotary angles too
    batch = one_batch(model, tokenizer, task.test)
    masks = gl.select(gl.score(model, "obs", tokenizer, task), widths=[7, 11])
    small = gl.shrink(model, masks)
    gl.gate(model, masks)
    gated = logits_of(model, batch)
    size = gated.float().abs().mean().item()
    assert size > 0.1
    torch.testing.assert_close(logits_of(small, batch), gated, rtol=2**-5, atol=size * 2**-5)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    folder = gl.save(small, tokenizer, tmp_path / "small")
    for dtype in ("auto", torch.bfloat16):
        loaded, _ = gl.load(folder, device="cpu", dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
        assert torch.equal(logits_of(loaded, batch), logits_of(small, batch))
