"""A pruner that cuts ends as one that only masks: masks, losses, weights, optimizer state."""

import itertools

import pytest
import torch
from helpers.methods import METHOD_CASES, prune
from helpers.models import N, logits_of, loss_of, neuron_weights, tiny
from helpers.runs import ROWS, STEPS, same, trained
from helpers.texts import make_examples, one_batch, word_tokenizer

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.study import Method, run
from gumlab.tasks.batches import shuffled

ROWS_TO_CUT = [
    (case, name) for case, name in ROWS if name in ("gpt2", "phi3") or case == "gum-gate"
]


def kept_of(value, dim, offset, mask):
    """The entries of a (full) weight that belong to the kept neurons, written out by hand."""
    return value.narrow(dim, offset, len(mask)).index_select(dim, mask.nonzero().flatten())


def assert_kept_weights_agree(masked, cut, masks, of=lambda parameter: parameter.detach()):
    """of: what to compare of a parameter of either model."""
    for one, other, mask in zip(neurons(masked), neurons(cut), masks, strict=True):
        assert other.width == int(mask.sum())
        for (p, dim, at), (q, _, start) in zip(
            neuron_weights(one), neuron_weights(other), strict=True
        ):
            want = kept_of(of(p), dim, at, mask)
            got = of(q).narrow(dim, start, other.width)
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("case", "name"), ROWS_TO_CUT)
def test_a_run_that_cuts_ends_as_one_that_masks(case, name):
    masked, cut = trained(case, name, "final"), trained(case, name, "cut")
    assert same(masked.masks, cut.original_masks)
    assert masked.pruner.fraction_kept == cut.pruner.fraction_kept < 0.6
    assert masked.history.kept == cut.history.kept
    assert cut.history.losses == pytest.approx(masked.history.losses, rel=1e-4)
    assert_kept_weights_agree(masked.model, cut.model, cut.original_masks)
    for module in (m for layer in neurons(cut.model) for m in (*layer.fc, layer.proj)):
        sizes = (module.nx, module.nf) if hasattr(module, "nf") else _sizes(module)
        assert sizes == module.weight.shape
    assert cut.hooks == 0
    # with its gates, without them, and shrunk by the masks over the neurons that it has
    for logits in (cut.gated, cut.dense, logits_of(cut.small, cut.batch)):
        torch.testing.assert_close(logits, masked.gated, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("case", "name"), ROWS_TO_CUT)
def test_masks_fit_the_neurons_there_are_and_original_masks_those_there_were(case, name):
    masked, cut = trained(case, name, "final"), trained(case, name, "cut")
    assert same(masked.masks, masked.original_masks)
    assert [len(m) for m in cut.original_masks] == [N, N]
    assert [len(m) for m in cut.masks] == [layer.width for layer in neurons(cut.model)]
    assert all(m.all() for m in cut.masks)  # at the end of a run nobody waits to be cut
    assert [int(m.sum()) for m in cut.original_masks] == [len(m) for m in cut.masks]
    assert [len(score) for score in cut.scores] == [len(m) for m in cut.masks]
    wanted = [score[mask] for score, mask in zip(masked.scores, masked.masks, strict=True)]
    for got, want in zip(cut.scores, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
    for over_all, mask, want in zip(
        cut.pruner.original_scores, cut.original_masks, wanted, strict=True
    ):
        assert len(over_all) == N
        torch.testing.assert_close(over_all[mask], want, rtol=1e-3, atol=1e-5)


def _sizes(linear):
    return linear.out_features, linear.in_features


def by_hand(name, optimizers_of, case="gum-gate", **options):
    """A hand-written loop that keeps each step's graph alive: (model, pruner, optimizers, cuts)."""
    method, extra = METHOD_CASES[case]
    model = tiny(name).train()
    pruner = gl.Pruner(model, method, 0.4, STEPS, **(extra | options))
    optimizers, cuts = optimizers_of(model), []
    for batch in shuffled(model, word_tokenizer(), make_examples(12), 4, STEPS, seed=0):
        loss = loss_of(model, batch)
        loss.backward()
        cuts.append(pruner.step(*optimizers))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model, pruner, optimizers, cuts


def split(model):
    """Two optimizers: momentum for matrices, Adam for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    sgd = torch.optim.SGD(matrices, lr=1e-3, momentum=0.9)
    return (sgd, torch.optim.Adam(rest, lr=1e-3)) if rest else (sgd,)


OPTIMIZERS = {
    "adamw": lambda m: (torch.optim.AdamW(m.parameters(), lr=1e-2, amsgrad=True),),
    "fused": lambda m: (torch.optim.AdamW(m.parameters(), lr=1e-2, fused=True),),
    "foreach": lambda m: (torch.optim.Adam(m.parameters(), lr=1e-2, foreach=True),),
    "split": split,
}


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "llama", "phi3"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizers_state_is_cut_with_the_weights(optimizer, name):
    (masked, by_mask, ours, _), (cut, by_cut, theirs, cuts) = (
        by_hand(name, OPTIMIZERS[optimizer], **how) for how in ({"final": True}, {"cut": True})
    )
    assert same(by_mask.masks, by_cut.original_masks)
    assert 1 < sum(cuts) < 12
    states = {p: state for o in (*ours, *theirs) for p, state in o.state.items()}
    keys = {k for state in states.values() for k, v in state.items() if v.numel() > 1}
    assert keys
    for key in keys:
        for p, state in states.items():
            assert key not in state or state[key].shape == p.shape
        assert_kept_weights_agree(
            masked,
            cut,
            by_cut.original_masks,
            lambda p, k=key: states[p].get(k, torch.zeros_like(p)),
        )


def test_it_cuts_when_an_eighth_is_out_and_when_no_more_will_go():
    """The masks over all neurons that began, the widths of those there, at every step."""
    model, pruner, _, cuts = by_hand(
        "gpt2", OPTIMIZERS["adamw"], "movement-global-neuron", cut=True, freeze=False
    )
    assert 1 < sum(cuts) < 12
    assert [layer.width for layer in neurons(model)] == [int(m.sum()) for m in pruner.masks]
    assert [len(m) for m in pruner.masks] == [len(s) for s in pruner.scores]
    assert [len(m) for m in pruner.original_masks] == [N, N]
    assert f"keeps {round(0.4 * 48)} of 48 neurons" in repr(pruner)


def masks_by_step(**options):
    model = tiny("gpt2").train()
    pruner = gl.Pruner(model, "movement", 0.5, 30, score_lr=0.5, end=0.5, freeze=False, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen, widths = [pruner.original_masks], [[24, 24]]
    for batch in shuffled(model, word_tokenizer(), make_examples(12), 4, 30, seed=0):
        loss_of(model, batch).backward()
        pruner.step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(pruner.original_masks)
        widths.append([layer.width for layer in neurons(model)])
    return seen, widths, pruner


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("unit", [1, 8])
def test_what_is_out_stays_out_and_then_leaves(scope, unit):
    options = {"scope": scope, "gradient": "gate", "multiple_of": unit}
    assert masks_by_step(**options)[2].returned > 0
    final, _, pruner = masks_by_step(**options, final=True)
    assert pruner.returned == 0
    for before, after in itertools.pairwise(final):
        assert not any((b & ~a).any() for a, b in zip(before, after, strict=True))
    seen, widths, _ = masks_by_step(**options, cut=True)
    assert all(same(a, b) for a, b in zip(final, seen, strict=True))
    for masks, there in zip(seen, widths, strict=True):
        kept = [int(m.sum()) for m in masks]
        assert all(k <= t and k % unit == 0 for k, t in zip(kept, there, strict=True))
        assert sum(there) - sum(kept) < sum(there) / 8
    assert sum(kept) == 24
    assert kept == there


@pytest.mark.filterwarnings("ignore:No forward pass went through")  # the schedule alone
def test_rounding_asks_no_neuron_back():
    """Of 12, 12 and 4 neurons the shares are 5, 5 and 1 where 11 stay, but 4, 4 and 2 of 10."""
    scores = [torch.rand(24, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    model = gl.shrink(tiny("gpt2", n_layer=3), gl.select(scores, widths=[12, 12, 4]))
    returned = []
    for final in (False, True):
        pruner, kept = gl.Pruner(model, "random", 10 / 28, 200, final=final), []
        for _ in range(200):
            pruner.step()
            kept.append([int(m.sum()) for m in pruner.masks])
        assert [5, 5, 1] in kept
        assert sum(kept[-1]) == 10
        returned.append(pruner.returned)
        pruner.remove()
    assert returned[0] > 0 == returned[1]


def test_distilled_it_ends_as_masked_too(tokenizer, task):
    losses = []
    for how in ({"final": True}, {"cut": True}):
        model, teacher = tiny("gpt2"), tiny("gpt2", seed=1)
        pruner = gl.Pruner(model, "movement", 0.4, STEPS, **how)
        options = {"steps": STEPS, "batch_size": 4, "progress": False, "record": 4}
        history = gl.train(model, tokenizer, task, pruner=pruner, teacher=teacher, **options)
        losses.append(history.losses)
        assert all(len(x) == 24 for f in history.frames for x in (*f.masks, *f.scores))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_loss_that_breaks_after_a_cut_leaves_the_last_good_weights(gpt2, tokenizer, task):
    """Copies are kept from every fifth step; this cut falls between two."""
    pruner, layer = gl.Pruner(gpt2, "movement", 0.4, 100, cut=True), neurons(gpt2)[0]
    gpt2.lm_head.register_forward_hook(
        lambda m, x, y: y * (float("nan") if layer.width < 24 else 1.0)
    )
    with pytest.raises(gl.GumlabError, match=r"it had after step 14\."):
        gl.train(gpt2, tokenizer, task, steps=100, pruner=pruner, batch_size=4, progress=False)
    assert layer.width < 24
    assert all(p.isfinite().all() for p in gpt2.parameters())


def test_without_its_optimizer_it_says_so(gpt2, tokenizer, examples):
    pruner = gl.Pruner(gpt2, "movement", 0.4, STEPS, cut=True)
    loss_of(gpt2, one_batch(gpt2, tokenizer, examples)).backward()
    other = torch.optim.AdamW(tiny("gpt2").parameters())
    for optimizers in ((), (other,)):
        with pytest.raises(gl.GumlabError, match=r"Call pruner.step\(optimizer\) with the"):
            pruner.step(*optimizers)
    assert pruner.step_count == 0
    factored = torch.optim.Adafactor(gpt2.parameters())
    factored.step()
    with pytest.raises(gl.GumlabError, match=r"'row_var' of a weight \(16, 24\).* cannot be cut"):
        pruner.step(factored)
    assert [layer.width for layer in neurons(gpt2)] == [24, 24]


def test_what_was_cut_is_saved_and_pruned_again(gpt2, tokenizer, task, tmp_path):
    pruner, _ = prune(gpt2, "movement-layer-neuron", tokenizer, task, 10, cut=True, widths=[9, 9])
    masks = pruner.original_masks
    pruner.remove()
    assert gpt2.config.n_inner == 9
    gl.save(gpt2, tokenizer, tmp_path / "small")
    loaded, _ = gl.load(str(tmp_path / "small"), device="cpu")
    batch = one_batch(gpt2, tokenizer, task.test)
    torch.testing.assert_close(logits_of(loaded, batch), logits_of(gpt2, batch))
    with pytest.raises(gl.GumlabError, match=r"masks have shapes \[\(24,\), \(24,\)\]"):
        gl.shrink(gpt2, masks)  # of neurons that are gone
    assert len(gl.shrink(gpt2, pruner.masks).state_dict()) == len(gpt2.state_dict())
    again = gl.Pruner(gpt2, "random", 0.5, 10)
    assert [len(m) for m in again.masks] == [9, 9]


def test_a_row_of_a_study_can_cut(tokenizer, task):
    rows = [
        run(tiny("gpt2"), tokenizer, task, Method("m", "gum", how), keep=0.4, steps=10).row
        for how in ({"final": True}, {"cut": True})
    ]
    for key in ("widths", "neurons", "parameters"):
        assert rows[0][key] == rows[1][key]
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-4)
