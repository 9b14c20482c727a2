"""A pruner over a run: dense first, exactly the budget at the end, and a gradient of its own."""

import itertools

import pytest
import torch
from helpers.methods import METHOD_CASES, prune
from helpers.models import hooks_of, loss_of, tiny
from helpers.texts import make_examples, one_batch

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.pruner import USUAL_GRAMS
from gumlab.scoring import gum_factor, mean_similarity, penalty_gradient
from gumlab.selection import schedule
from gumlab.tasks.batches import shuffled, token_losses
from gumlab.training import learning_rate


@pytest.mark.parametrize("case", ["random", "movement-layer-gate", "gum-neuron"])
def test_down_to_where_a_floor_holds_a_layer(case, gpt2, tokenizer, task):
    """The budget of other runs is in integration/test_invariants."""
    name, options = METHOD_CASES[case]
    pruner = gl.Pruner(gpt2, name, 0.1, 20, floor=2, **options)
    history = gl.train(gpt2, tokenizer, task, steps=20, pruner=pruner, batch_size=4, progress=False)
    assert history.kept == [round(schedule(t, 20, 0.1) * 48) / 48 for t in range(1, 21)]
    assert sum(int(m.sum()) for m in pruner.masks) == round(0.1 * 48)
    assert all(int(m.sum()) >= 2 for m in pruner.masks)


@pytest.mark.parametrize("keep", [0.25, 0.75])
def test_soft_movement_ends_near_its_target(keep, gpt2, tokenizer, task):
    pruner = gl.Pruner(gpt2, "soft_movement", keep, 150, score_lr=0.05)
    history = gl.train(
        gpt2, tokenizer, task, steps=150, pruner=pruner, batch_size=4, progress=False
    )
    assert history.kept[14] == 1.0
    least = (int(keep * 24) + 1) / 24  # its own floor: one neuron a layer more than asked
    assert least <= pruner.fraction_kept < least + 0.03


def test_soft_movement_ends_near_its_target_at_the_default_rate(gpt2, tokenizer, task):
    """With the 300 steps and the score_lr that `study.run` gives it."""
    pruner = gl.Pruner(gpt2, "soft_movement", 0.5, 300)
    gl.train(gpt2, tokenizer, task, steps=300, pruner=pruner, batch_size=4, progress=False)
    assert pruner.fraction_kept == pytest.approx(0.5, abs=0.05)


def masks_by_step(model, tokenizer, steps=30, gradient="gate", **options):
    """The masks after each step of a hand-written loop."""
    pruner = gl.Pruner(
        model, "movement", 0.5, steps, scope="global", score_lr=0.5, gradient=gradient, **options
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen = []
    for batch in shuffled(model, tokenizer, make_examples(12), 4, steps, seed=0):
        loss_of(model.train(), batch).backward()
        pruner.step()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(torch.cat(pruner.masks))
    return seen


def test_freeze_holds_the_masks_from_end_on(gpt2, tokenizer):
    seen = masks_by_step(gpt2, tokenizer, end=0.5)
    assert all(torch.equal(m, seen[14]) for m in seen[14:])
    assert not torch.equal(seen[13], seen[14])


def test_without_freeze_masks_go_on_changing(gpt2, tokenizer):
    seen = masks_by_step(gpt2, tokenizer, end=0.5, freeze=False)
    assert any(not torch.equal(m, seen[14]) for m in seen[14:])
    assert {int(m.sum()) for m in seen[14:]} == {24}


def test_a_removed_neuron_can_return_with_the_gate_gradient(gpt2, tokenizer):
    """Between two steps of the constant phase a neuron that was out comes in."""
    seen = masks_by_step(gpt2, tokenizer, end=0.5, freeze=False)
    assert any((after & ~before).any() for before, after in itertools.pairwise(seen))


def test_a_removed_neuron_hears_nothing_with_the_neuron_gradient(gpt2, tokenizer):
    """Its score can only drift on Adam's momentum; the gradient it is given is 0."""
    pruner = gl.Pruner(
        gpt2, "movement", 0.5, 10, gradient="neuron", start=0.0, end=0.1, freeze=False
    )
    given = []
    optimizer = pruner.rule._optimizer
    move = optimizer.step

    def moving():
        given.append([score.grad.clone() for score in pruner.rule.learned])
        move()

    optimizer.step = moving
    for batch in shuffled(gpt2, tokenizer, make_examples(12), 4, 6, seed=0):
        masks = pruner.masks
        loss_of(gpt2.train(), batch).backward()
        pruner.step()
        gpt2.zero_grad()
        for mask, gradient in zip(masks, given[-1], strict=True):
            assert not gradient[~mask].any()
            assert gradient[mask].any()
    assert pruner.fraction_kept == 0.5


def test_a_second_pruner_replaces_the_first(gpt2):
    gl.Pruner(gpt2, "gum", 0.5, 10)
    once = hooks_of(gpt2)
    gl.Pruner(gpt2, "gum", 0.5, 10)
    assert hooks_of(gpt2) == once


def test_gum_without_its_term_builds_no_gram(gpt2, tokenizer, task):
    pruner, _ = prune(gpt2, "gum-gate", tokenizer, task, lambda_gum=0.0, **USUAL_GRAMS)
    assert pruner.grams is None
    assert pruner.scope == "global"
    other = tiny("gpt2")
    with_gram, _ = prune(other, "gum-gate", tokenizer, task, lambda_gum=1e-9)
    for a, b in zip(pruner.scores, with_gram.scores, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cut", [False, True])
def test_gum_by_drawn_neurons_is_gum_where_all_of_them_are_drawn(tokenizer, task, cut):
    exact = {"gram_every": 1, "gram_tokens": 1.0, "gram_memory": 0.0, "cut": cut}
    pruners = []
    for drawn in (None, 24):
        pruner, _ = prune(tiny("gpt2"), "gum-gate", tokenizer, task, gram_neurons=drawn, **exact)
        pruners.append(pruner)
    first, second = pruners
    for one, other in zip(first.original_masks, second.original_masks, strict=True):
        assert torch.equal(one, other)
    triples = zip(first.rule.factors, second.rule.factors, first.original_masks, strict=True)
    for one, other, mask in triples:
        torch.testing.assert_close(one[mask], other[mask])


def copies_kept(tokenizer, task, seed, lambda_gum):
    """Of layers whose neurons 11 to 23 are one neuron, how many copies GUM keeps; its factors."""
    model = tiny("gpt2", seed)
    for layer in neurons(model):
        layer.incoming().data[12:] = layer.incoming().data[11]
        layer.fc[0].bias.data[12:] = layer.fc[0].bias.data[11]
    grams = {"gram_every": 1, "gram_tokens": 1.0} if lambda_gum else {}
    options = {"penalty": 0.1, "lambda_gum": lambda_gum, **grams}
    pruner = gl.Pruner(model, "gum", 0.5, 40, **options)
    gl.train(
        model,
        tokenizer,
        task,
        steps=40,
        pruner=pruner,
        batch_size=4,
        progress=False,
        lr=1e-4,
        seed=seed,
    )
    return sum(int(m[11:].sum()) for m in pruner.masks), pruner.rule.factors


def test_gum_asks_for_unique_neurons(tokenizer, task):
    """Copies of one neuron get the larger penalty, and fewer of them stay than without the term."""
    runs = [copies_kept(tokenizer, task, seed, 50.0) for seed in range(4)]
    for _, factors in runs:
        assert all(q[11:].mean() > q[:11].mean() + 1 for q in factors)
    without = sum(copies_kept(tokenizer, task, seed, 0.0)[0] for seed in range(4))
    assert sum(kept for kept, _ in runs) < without - 4


@pytest.mark.parametrize("case", ["random", "movement-layer-gate", "gum-gate"])
def test_fixed_widths(case, gpt2, tokenizer, task):
    pruner, history = prune(gpt2, case, tokenizer, task, widths=[5, 14])
    assert [int(m.sum()) for m in pruner.masks] == [5, 14]
    assert history.kept == sorted(history.kept, reverse=True)


def test_fixed_widths_start_dense(gpt2, tokenizer, task):
    _, history = prune(gpt2, "random", tokenizer, task, widths=[5, 14], steps=20)
    assert history.kept[:2] == [1.0, 1.0]
    assert history.kept[-1] == 19 / 48


def score_gradients(tokenizer, step, steps, **options):
    """What the scores' optimizer is given at `step`, from a fresh model and one batch."""
    model = tiny("gpt2")
    pruner = gl.Pruner(model, steps=steps, **options)
    pruner.step_count = step - 1
    for score in pruner.rule.learned:
        score.data = torch.linspace(-1, 1, len(score))
    given = []
    pruner.rule._optimizer.step = lambda: given.extend(s.grad.clone() for s in pruner.rule.learned)
    loss_of(model.train(), one_batch(model, tokenizer, make_examples(8))).backward()
    pruner.step()
    return given, pruner


@pytest.mark.parametrize("gradient", ["gate", "neuron"])
def test_adam_gets_the_gradient_of_a_mask(tokenizer, gradient):
    """At all ones: of a mask on h; or, w dL/dw, of one on a neuron's weights without its bias."""
    given, _ = score_gradients(
        tokenizer, method="movement", step=1, steps=100, keep=0.25, gradient=gradient
    )
    model = tiny("gpt2").train()
    masks = [torch.ones(layer.width, requires_grad=True) for layer in neurons(model)]
    for layer, mask in zip(neurons(model), masks, strict=True):
        layer.proj.register_forward_pre_hook(lambda m, args, mask=mask: (args[0] * mask,))
    loss_of(model, one_batch(model, tokenizer, make_examples(8))).backward()
    for layer, mask, got in zip(neurons(model), masks, given, strict=True):
        want = mask.grad
        if gradient == "neuron":
            weights, slopes = layer.maps(), layer.maps(grad=True)
            want = sum((w * s).sum(1) for w, s in zip(weights, slopes, strict=True)).detach()
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gradient", ["gate", "neuron"])
@pytest.mark.parametrize("step", [1, 30, 60])
def test_the_penalty_follows_the_schedule(tokenizer, step, gradient):
    """Beyond the loss gradient: lambda_t = lambda v_t / keep times the gradient of the mean R."""
    options = {"step": step, "steps": 100, "keep": 0.25, "gradient": gradient}
    plain, _ = score_gradients(tokenizer, method="movement", **options)
    gum, _ = score_gradients(tokenizer, method="gum", penalty=0.4, lambda_gum=0.0, **options)
    strength = 0.4 * schedule(step, 100, 0.25) / 0.25
    term = strength * penalty_gradient(torch.linspace(-1, 1, 24), 1.0, 2)
    for a, b in zip(plain, gum, strict=True):
        torch.testing.assert_close(b - a, term, rtol=1e-3, atol=1e-6)


def test_gum_uses_the_factors_from_the_next_step_on(tokenizer):
    options = {
        "method": "gum",
        "step": 1,
        "steps": 100,
        "keep": 0.25,
    }
    grams = {"gram_every": 1, "gram_tokens": 1.0}
    first, pruner = score_gradients(tokenizer, penalty=0.4, lambda_gum=2.0, **grams, **options)
    flat, _ = score_gradients(tokenizer, penalty=0.4, lambda_gum=0.0, **options)
    for a, b in zip(first, flat, strict=True):
        torch.testing.assert_close(a, b)
    for factor, gram in zip(pruner.rule.factors, pruner.grams.sums, strict=True):
        torch.testing.assert_close(factor, gum_factor(mean_similarity(gram, torch.ones(24)), 2.0))
        assert (factor > 1).all()


def test_the_rate_of_the_scores_warms_up_and_falls(gpt2, tokenizer):
    pruner = gl.Pruner(gpt2, "movement", 0.5, 20, score_lr=0.02, freeze=False)
    rates = []
    for batch in shuffled(gpt2, tokenizer, make_examples(12), 4, 20, seed=0):
        loss_of(gpt2.train(), batch).backward()
        pruner.step()
        rates.append(pruner.rule._optimizer.param_groups[0]["lr"])
    expected = [0.01, 0.02, *(0.02 * (20 - t) / 18 for t in range(3, 21))]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("case", ["random", "magnitude", "movement-global-gate", "gum-neuron"])
def test_a_loop_by_hand_gives_what_train_gives(case, tokenizer, task):
    name, options = METHOD_CASES[case]
    ours, theirs = tiny("gpt2"), tiny("gpt2")
    pruner = gl.Pruner(theirs, name, 0.4, 10, **options)
    gl.train(
        theirs,
        tokenizer,
        task,
        steps=10,
        pruner=pruner,
        batch_size=4,
        lr=1e-2,
        seed=5,
        progress=False,
    )

    by_hand = gl.Pruner(ours, name, 0.4, 10, **options)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-2, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, 10))
    ours.train()
    for batch in shuffled(ours, tokenizer, task.train, 4, 10, seed=5):
        labels = batch.pop("labels")
        losses = token_losses(ours(**batch).logits, labels)
        (losses.sum() / (labels[:, 1:] >= 0).sum()).backward()
        torch.nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
        by_hand.step()
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(pruner.masks, by_hand.masks, strict=True))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_pruner_of_another_run_is_refused(gpt2, tokenizer, task):
    pruner = gl.Pruner(gpt2, "random", 0.5, 10)
    with pytest.raises(gl.GumlabError, match="made for 10 steps and has done 0; this run has 12"):
        gl.train(gpt2, tokenizer, task, steps=12, pruner=pruner, progress=False)
    gl.train(gpt2, tokenizer, task, steps=10, pruner=pruner, progress=False)
    with pytest.raises(gl.GumlabError, match=r"has done 10; this run has 10. Make a fresh one"):
        gl.train(gpt2, tokenizer, task, steps=10, pruner=pruner, progress=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "movment"}, "Unknown method 'movment'. Did you mean 'movement'"),
        ({"gradient": "gates"}, "Unknown gradient 'gates'. Did you mean 'gate'"),
        ({"scope": "layers"}, "Unknown scope 'layers'. Did you mean 'layer'"),
        ({"keep": 0}, r"keep must be a fraction in \(0, 1\]"),
        ({"keep": True}, "got True"),
        ({"keep": 0.02}, "leaves 1 neurons, but 2 layers need 2"),
        ({"floor": 25}, "floor=25 is larger than the smallest layer"),
        ({"steps": 0}, "steps must be a whole number, 1 or more; got 0"),
        ({"widths": [3]}, r"widths \[3\] do not fit layers of \[24, 24\]"),
        ({"widths": [3, 25]}, "do not fit"),
        ({"start": 0.8, "end": 0.2}, "0 <= start < end <= 1"),
        ({"gram_every": 0}, "gram_every"),
        ({"gram_tokens": 0.0}, "gram_tokens"),
        ({"gram_neurons": 1}, "gram_neurons must be a whole number, 2 or more"),
        ({"gram_neurons": 8, "twin_filter": 0.8}, "Leave gram_neurons out"),
        ({"gram_neurons": 8, "similarity": lambda gram, kept: kept}, "Leave gram_neurons out"),
        ({"gram_neurons": 8, "method": "obs"}, "Leave gram_neurons out"),
        ({"gram_neurons": 8, "lambda_gum": 0.0}, "gram_neurons: the rule GUM keeps no running"),
    ],
)
def test_bad_arguments_fail_before_the_run_and_leave_no_hook(gpt2, arguments, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.Pruner(gpt2, **({"keep": 0.5, "steps": 10} | arguments))
    assert hooks_of(gpt2) == 0


def test_a_step_before_backward_says_so(gpt2):
    pruner = gl.Pruner(gpt2, "movement", 0.5, 10, gradient="neuron")
    with pytest.raises(gl.GumlabError, match=r"call loss.backward"):
        pruner.step()


def test_gates_that_heard_nothing_say_so(gpt2, tokenizer, examples):
    """gl.load gives a model in eval mode, where a loop of one's own may leave it."""
    pruner = gl.Pruner(gpt2, "movement", 0.5, 10, gradient="gate")
    loss_of(gpt2.eval(), one_batch(gpt2, tokenizer, examples)).backward()
    with pytest.raises(gl.GumlabError, match=r"model.train\(\) before the loss"):
        pruner.step()
    gpt2.zero_grad()
    loss_of(gpt2.train(), one_batch(gpt2, tokenizer, examples)).backward()
    pruner.step()
    assert all(score.any() for score in pruner.scores)


def test_a_run_without_pruning_keeps_everything(gpt2, tokenizer, task):
    pruner = gl.Pruner(gpt2, "gum", 1.0, 6)
    history = gl.train(gpt2, tokenizer, task, steps=6, pruner=pruner, batch_size=4, progress=False)
    assert history.kept == [1.0] * 6
    assert pruner.fraction_kept == 1.0


def test_soft_movement_that_misses_its_target_says_so(gpt2, tokenizer, task):
    pruner = gl.Pruner(gpt2, "soft_movement", 0.25, 20, score_lr=1e-4)
    with pytest.warns(UserWarning, match=r"keeps 100.0% of the neurons instead of 25.0%"):
        gl.train(gpt2, tokenizer, task, steps=20, pruner=pruner, batch_size=4, progress=False)


@pytest.mark.parametrize("steps", [20, 60])
def test_soft_movement_gets_there_in_runs_of_any_length(gpt2, tokenizer, task, steps):
    pruner = gl.Pruner(gpt2, "soft_movement", 0.25, steps)
    gl.train(gpt2, tokenizer, task, steps=steps, pruner=pruner, batch_size=4, progress=False)
    assert pruner.fraction_kept <= 0.25 + 0.05
