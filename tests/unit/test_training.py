"""The loop: its loss, its rate, its clip, and what is left when the loss is not a number."""

import copy

import pytest
import torch
from helpers.methods import METHOD_CASES
from helpers.models import tiny
from helpers.texts import make_examples, one_batch
from torch import nn

import gumlab as gl
from gumlab.tasks.batches import IGNORED, shuffled
from gumlab.training import History, distillation, learning_rate, mean_loss, train


class Watcher:
    """Stands where a pruner stands, and notes the norm of the gradients it is shown."""

    def __init__(self, model, steps):
        self.model, self.steps, self.step_count, self.fraction_kept = model, steps, 0, 1.0
        self.norms = []

    def step(self, *_):
        grads = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.norms.append(torch.cat(grads).norm().item())


def run(model, tokenizer, task, steps=6, **options):
    return train(
        model, tokenizer, task, steps=steps, progress=False, **({"batch_size": 4} | options)
    )


def test_training_lowers_the_loss_and_says_so(gpt2, tokenizer, task):
    history = run(gpt2, tokenizer, task, steps=30, lr=1e-2)
    assert sum(history.losses[-5:]) < sum(history.losses[:5]) * 0.8
    assert len(history.losses) == len(history.kept) == 30
    assert history.kept == [1.0] * 30
    assert "30 steps" in repr(history)
    assert repr(History()) == "History(no steps)"
    assert not gpt2.training
    assert all(p.grad is None for p in gpt2.parameters())


def test_a_task_trains_on_its_train_split(tokenizer, task):
    ours, theirs = tiny("gpt2"), tiny("gpt2")
    assert run(ours, tokenizer, task).losses == run(theirs, tokenizer, task.train).losses


def test_distillation_is_the_formula_on_the_target_tokens(gpt2, tokenizer, examples):
    """T^2 sum_v p_v (log p_v - log q_v) at temperature T, mean over target tokens, in loops."""
    teacher, batch = tiny("gpt2", seed=1), one_batch(gpt2, tokenizer, examples)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits, expected = gpt2(**batch).logits, teacher(**batch).logits
    terms = []
    for b, t in (labels[:, 1:] != IGNORED).nonzero().tolist():
        p, q = (x[b, t].double().div(3.0).softmax(-1) for x in (expected, logits))
        terms.append(9 * sum(p[v] * (p[v].log() - q[v].log()) for v in range(len(p))))
    got = distillation(teacher, batch, logits, labels, 3.0)
    assert got.item() == pytest.approx(float(sum(terms) / len(terms)), rel=1e-4)
    assert distillation(gpt2, batch, logits, labels, 3.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("ce", "kd"), [(0.5, 0.5), (0.0, 1.0), (0.7, 0.1)])
def test_the_loss_is_the_weighted_sum(tokenizer, task, ce, kd):
    student, teacher = tiny("gpt2"), tiny("gpt2", seed=1)
    batch = one_batch(student, tokenizer, task.train)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = student(**batch).logits
    expected = ce * mean_loss(logits, labels) + kd * distillation(
        teacher, batch, logits, labels, 2.0
    )
    history = run(
        student,
        tokenizer,
        task,
        steps=1,
        teacher=teacher,
        ce_weight=ce,
        kd_weight=kd,
        batch_size=12,
    )
    assert history.losses[0] == pytest.approx(expected.item(), rel=1e-4)


def test_the_teacher_stays_as_it_was(gpt2, tokenizer, task):
    teacher = tiny("gpt2", seed=1, attn_pdrop=0.5, resid_pdrop=0.5)
    before = copy.deepcopy(teacher.state_dict())
    teacher.train()
    modes = []
    teacher.register_forward_hook(lambda module, *_: modes.append(module.training))
    run(gpt2, tokenizer, task, teacher=teacher)
    assert modes  # it was asked, without dropout, and has its own mode back
    assert not any(modes)
    assert teacher.training
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(gpt2, tokenizer, task, temperature):
    with pytest.raises(gl.GumlabError, match="temperature must be a finite number, above 0"):
        run(gpt2, tokenizer, task, teacher=tiny("gpt2"), temperature=temperature)


def finite(model):
    return all(p.isfinite().all() for p in model.parameters())


def test_a_loss_that_is_not_a_number_stops_the_run(tokenizer, task):
    """At step 4 the logits break: the last weights that gave a good loss are those of step 2."""
    model, two = tiny("gpt2"), tiny("gpt2")
    run(two, tokenizer, task, steps=6, pruner=_Stop(two, 6, after=2))
    calls = []

    def break_fourth(module, inputs, output):
        calls.append(1)
        output.logits = output.logits * (float("nan") if len(calls) == 4 else 1.0)
        return output

    hook = model.register_forward_hook(break_fourth)
    with pytest.raises(gl.GumlabError, match=r"nan.* at step 4 of 6.*Lower lr \(now 0.001\)"):
        run(model, tokenizer, task, steps=6)
    hook.remove()
    assert finite(model)
    for a, b in zip(model.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


class _Stop(Watcher):
    """Keeps the weights of the first `after` steps by putting them back at each later one."""

    def __init__(self, model, steps, after):
        super().__init__(model, steps)
        self.after, self.saved = after, None

    def step(self, *_):
        self.step_count += 1
        if self.step_count > self.after:
            for p in self.model.parameters():
                p.grad = None


def test_a_rate_far_too_high_leaves_a_model_with_a_finite_loss(gpt2, tokenizer, task):
    """The last good state is one whose loss is a number, not the one that gave NaN."""
    with pytest.raises(gl.GumlabError, match=r"at step .* of 20.*Lower lr"):
        run(gpt2, tokenizer, task, steps=20, lr=1e20)
    assert finite(gpt2)
    batch = one_batch(gpt2, tokenizer, task.train)
    with torch.no_grad():
        assert gpt2.eval()(**batch).loss.isfinite()


def test_gradients_that_are_not_numbers_never_reach_the_weights(gpt2, tokenizer, task):
    """A finite loss may still have an infinite gradient; the step must not be taken."""
    hook = gpt2.transformer.h[0].mlp.c_fc.weight.register_hook(lambda g: g * float("nan"))
    with pytest.raises(gl.GumlabError, match="step 1 of 6"):
        run(gpt2, tokenizer, task)
    hook.remove()
    assert finite(gpt2)


def test_the_rate_by_hand():
    """T = 100: 0.1, 0.2, ... 1 over ten steps, then (100 - t) / 90."""
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.5, 99: 1 / 90}
    assert {t: learning_rate(t, 100) for t in expected} == pytest.approx(expected)
    assert learning_rate(0, 1) == 1.0


def test_the_optimizer_gets_these_rates(gpt2, tokenizer, task, monkeypatch):
    rates = []

    class Recorder(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            group = self.param_groups[0]
            rates.append((group["lr"], group["weight_decay"]))
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    run(gpt2, tokenizer, task, steps=20, lr=0.02, weight_decay=0.3)
    assert [r for r, _ in rates] == pytest.approx([0.02 * learning_rate(t, 20) for t in range(20)])
    assert {w for _, w in rates} == {0.3}


@pytest.mark.parametrize(("clip", "limit"), [(1e-3, 1e-3), (1e9, None)])
def test_gradients_are_clipped_to_the_norm(gpt2, tokenizer, task, clip, limit):
    watcher = Watcher(gpt2, 6)
    run(gpt2, tokenizer, task, pruner=watcher, clip=clip)
    assert (
        watcher.norms == pytest.approx([limit] * 6, rel=1e-3)
        if limit
        else min(watcher.norms) > 0.05
    )


def test_the_mean_loss_counts_target_tokens():
    logits = torch.zeros(2, 3, 8)
    labels = torch.tensor([[IGNORED, 1, 2], [IGNORED, IGNORED, 3]])
    assert mean_loss(logits, labels).item() == pytest.approx(
        nn.functional.cross_entropy(torch.zeros(1, 8), torch.tensor([1])).item()
    )


def test_train_leaves_the_seed_of_the_user_alone(tokenizer, task):
    """The same call twice, with another global seed, gives the same losses to the last bit."""
    torch.manual_seed(1)
    first = run(tiny("gpt2"), tokenizer, task, seed=3).losses
    torch.manual_seed(2)
    assert run(tiny("gpt2"), tokenizer, task, seed=3).losses == first
    assert run(tiny("gpt2"), tokenizer, make_examples(12), seed=4).losses != first


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("options", [{}, {"precision": "fp32"}, {"eps": 1e-2}])
def test_on_a_cpu_the_default_is_plain_float32(tokenizer, task, options):
    """To the last bit the loop written out by hand: no autocast, no fused optimizer."""
    ours, theirs = tiny("gpt2"), tiny("gpt2")
    history = run(ours, tokenizer, task, lr=1e-2, **options)
    eps = options.get("eps", 1e-8)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1, eps=eps)
    theirs.train()
    for i, batch in enumerate(shuffled(theirs, tokenizer, task.train, 4, 6, 0)):
        labels = batch.pop("labels")
        loss = mean_loss(theirs(**batch).logits, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * learning_rate(i, 6)
        optimizer.step()
        optimizer.zero_grad()
        assert history.losses[i] == loss.item()
    assert torch.equal(weights_of(ours), weights_of(theirs))


CASES = ["movement-layer-neuron", "movement-global-gate", "gum-neuron", "gum-gate", "magnitude"]


@pytest.mark.parametrize("case", CASES)
def test_bf16_computes_in_bf16_and_learns_in_float32(tokenizer, task, case):
    """With a teacher: the budget is met, and losses, scores and Gram sums are near float32's."""
    made, dtypes, start = [], set(), weights_of(tiny("gpt2"))
    for precision in ("fp32", "bf16"):
        model, teacher = tiny("gpt2"), tiny("gpt2", seed=1)
        teacher.transformer.h[0].mlp.c_proj.register_forward_hook(
            lambda m, i, out, precision=precision: dtypes.add((precision, out.dtype))
        )
        name, options = METHOD_CASES[case]
        pruner = gl.Pruner(model, name, 0.4, 8, **options)
        options = {"pruner": pruner, "precision": precision, "teacher": teacher}
        history = run(model, tokenizer, task, steps=8, lr=1e-2, **options)
        assert sum(int(m.sum()) for m in pruner.masks) == round(0.4 * 48)
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert all(s.dtype == torch.float32 and s.isfinite().all() for s in pruner.scores)
        change = weights_of(model) - start
        made.append((history.losses, torch.cat(pruner.scores).detach(), change))
    assert dtypes == {("fp32", torch.float32), ("bf16", torch.bfloat16)}
    (losses, scores, change), (near_losses, near_scores, near_change) = made
    assert near_losses == pytest.approx(losses, rel=0.03)
    assert near_losses != losses
    assert torch.corrcoef(torch.stack([scores, near_scores]))[0, 1] > 0.98
    assert torch.corrcoef(torch.stack([change, near_change]))[0, 1] > 0.9


def test_a_model_in_float16_is_refused_before_adamw_makes_nan_of_it(gpt2, tokenizer, task):
    before = copy.deepcopy(gpt2.half().state_dict())
    with pytest.raises(gl.GumlabError, match=r"float16.*model\.float\(\).*model\.bfloat16\(\)"):
        run(gpt2, tokenizer, task)
    assert all(torch.equal(v, before[k]) for k, v in gpt2.state_dict().items())
    run(gpt2.bfloat16(), tokenizer, task, steps=2)
    assert all(p.isfinite().all() for p in gpt2.parameters())


def test_a_precision_that_is_not_known_is_refused(gpt2, tokenizer, task):
    with pytest.raises(gl.GumlabError, match=r"Unknown precision 'fp16'.*bf16, fp32"):
        run(gpt2, tokenizer, task, precision="fp16")


def test_by_default_the_autocast_of_the_caller_stays_in_force(gpt2, tokenizer, task):
    dtypes = set()
    gpt2.lm_head.register_forward_hook(lambda m, i, out: dtypes.add(out.dtype))
    for precision in (None, "fp32"):
        with torch.autocast("cpu", torch.bfloat16):
            run(gpt2, tokenizer, task, steps=1, precision=precision)
    assert dtypes == {torch.bfloat16, torch.float32}
