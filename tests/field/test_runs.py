"""What happens to a model while it trains: a situation, and the value or the sentence that comes.

Compiled models, loops of one's own that step at another place, models that move, frozen parts,
teachers, seeds, and a Trainer's checkpoints.
"""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from helpers.models import random_masks, tiny
from helpers.texts import make_examples
from torch import nn

import gumlab as gl
from gumlab.collecting import RunningGrams
from gumlab.feedforward import neurons
from gumlab.gating import Gate
from gumlab.io.states import load_state

STEPS = 8
IDS = torch.arange(4, 36).view(2, 16)
BY_NEURON = {
    "movement": ("movement", {}),
    "gum": ("gum", {"gram_every": 2}),
    "soft movement": ("soft_movement", {"score_lr": 1.0}),
}
BY_GATE = {name: (m, {**options, "gradient": "gate"}) for name, (m, options) in BY_NEURON.items()}
BY_WEIGHTS = {
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "obs": ("obs", {"gram_every": 2}),
    "twins": ("magnitude", {"gram_every": 2, "twin_filter": 0.5}),
}
WITH_GRAMS = {name: (BY_NEURON | BY_WEIGHTS)[name] for name in ("gum", "obs", "twins")}


def made(case, keep=0.4, steps=STEPS, **options):
    """A tiny model and a pruner of it."""
    method, own = case
    model = tiny("gpt2")
    return model, gl.Pruner(model, method, keep, steps, **(own | options))


def by_hand(model, pruner, forward=None, steps=STEPS):
    """A loop of one's own; the losses. `forward` gives the loss, by default the model's own."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS).loss if forward is None else forward()
        loss.backward()
        pruner.step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained(model, tokenizer, pruner=None, **options):
    """`gl.train` on a few examples."""
    settings = {"steps": STEPS, "batch_size": 4, "progress": False, "lr": 1e-2} | options
    return gl.train(model, tokenizer, make_examples(8), pruner=pruner, **settings)


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_parts(model):
    for block in model.transformer.h:
        block.mlp.compile(backend="eager")
    return model


@pytest.fixture
def _dynamo(monkeypatch):
    # torch's trace of a compilation is long, and pytest would format every line of it
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_dynamo")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
class TestCompiled:
    """Hooks put on a compiled and used model are not seen (pytorch/pytorch 117758)."""

    @pytest.mark.parametrize("compiled", [compiled_whole, compiled_parts])
    def test_gates_put_on_and_taken_off_are_seen(self, compiled, gpt2):
        masks = random_masks(gpt2)
        dense = gpt2(IDS).logits
        want = gl.shrink(gpt2, masks)(IDS).logits
        run = compiled(gpt2)
        assert torch.equal(run(IDS).logits, dense)
        with gl.gate(gpt2, masks):
            torch.testing.assert_close(run(IDS).logits, want)
        assert torch.equal(run(IDS).logits, dense)

    def test_a_mask_that_is_changed_is_seen(self, gpt2):
        run = compiled_parts(gpt2)
        run(IDS)
        with gl.gate(gpt2, random_masks(gpt2)) as gates:
            run(IDS)
            for gate, mask in zip(gates, random_masks(gpt2, seed=5), strict=True):
                gate.mask = mask
            got = run(IDS).logits
        want = gl.shrink(gpt2, random_masks(gpt2, seed=5))(IDS).logits
        torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("case", [BY_WEIGHTS["magnitude"], BY_GATE["gum"]], ids=str)
    def test_a_run_compiled_and_used_before_is_the_uncompiled_run(self, case):
        model = compiled_parts(tiny("gpt2").train())
        model(input_ids=IDS, labels=IDS).loss.backward()
        model.zero_grad()
        pruner = gl.Pruner(model, case[0], 0.4, STEPS, **case[1])
        losses = by_hand(model, pruner)
        other, alone = made(case)
        assert losses == by_hand(other, alone)
        assert same(pruner.masks, alone.masks)
        assert same(pruner.scores, alone.scores)

    def test_what_is_exported_has_its_masks_and_keeps_them(self, gpt2):
        gpt2.config.use_cache = False
        with gl.gate(gpt2, random_masks(gpt2)):
            want = gpt2(IDS).logits
            exported = torch.export.export(gpt2, (IDS,), strict=False).module()
        assert torch.equal(exported(IDS).logits, want)
        assert not torch.equal(gpt2(IDS).logits, want)


class TestWhereTheStepIs:
    """A loop of one's own steps at another place (brothers of pytorch/pytorch 117758)."""

    @pytest.mark.parametrize("name", ["movement", "gum", "soft movement"])
    def test_after_the_gradients_were_set_to_zero(self, name):
        model, pruner = made(BY_NEURON[name])
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        model.zero_grad(set_to_none=False)
        pruner.step()
        model(input_ids=IDS, labels=IDS).loss.backward()
        model.zero_grad(set_to_none=False)
        with pytest.raises(gl.GumlabError, match=r"are 0, so the scores learn nothing.*before"):
            pruner.step()

    def test_a_head_that_begins_as_zeros_is_no_mistake(self, tokenizer):
        model = tiny("gpt2", tie_word_embeddings=False)
        model.lm_head.weight.data.zero_()
        pruner = gl.Pruner(model, "movement", 0.4, STEPS)
        by_hand(model, pruner)
        assert pruner.fraction_kept == pytest.approx(0.4, abs=0.01)

    @pytest.mark.parametrize("case", [*BY_NEURON.values(), *BY_GATE.values()], ids=str)
    def test_twice_after_one_backward_pass(self, case):
        model, pruner = made(case)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        pruner.step()
        with pytest.raises(gl.GumlabError, match=r"Call pruner.step\(\) once after each loss"):
            pruner.step()
        assert pruner.step_count == 1

    @pytest.mark.parametrize("case", [*BY_NEURON.values(), *BY_GATE.values()], ids=str)
    def test_before_there_is_a_gradient(self, case):
        _, pruner = made(case)
        with pytest.raises(gl.GumlabError, match=r"loss.backward\(\)|before the loss|in training"):
            pruner.step()

    @pytest.mark.parametrize("freeze", [True, False])
    def test_beyond_the_end_of_the_schedule_the_count_stays(self, freeze):
        model, pruner = made(BY_NEURON["movement"], freeze=freeze)
        with pytest.warns(UserWarning, match="its schedule is over"):
            by_hand(model, pruner, steps=STEPS + 4)
        assert sum(int(mask.sum()) for mask in pruner.masks) == 19

    def test_a_gradient_that_is_not_finite_is_told_from_a_rule_s_mistake(self):
        model, pruner = made(BY_NEURON["movement"])
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        neurons(model)[0].proj.weight.grad.fill_(float("nan"))
        with pytest.raises(gl.GumlabError, match=r"have NaN.*leave out pruner\.step\(\) too"):
            pruner.step()

    @pytest.mark.parametrize("case", [BY_NEURON["gum"], BY_GATE["gum"]], ids=str)
    def test_an_evaluation_in_between_feeds_nobody(self, case):
        (one, alone), (two, looked_at) = (made(case, gram_every=1) for _ in range(2))

        def with_a_look():
            loss = two(input_ids=IDS, labels=IDS).loss
            with torch.no_grad():
                two(input_ids=IDS.flip(1))
            two.eval()(input_ids=IDS.flip(0))
            two.train()
            return loss

        assert by_hand(one, alone) == by_hand(two, looked_at, with_a_look)
        assert same(alone.scores, looked_at.scores)
        assert same(alone.masks, looked_at.masks)

    @pytest.mark.parametrize("case", [BY_NEURON["movement"], BY_GATE["gum"]], ids=str)
    def test_two_passes_with_one_loss_are_one_batch(self, case):
        """As preferences are learned: the halves weigh alike, so do their tokens."""
        # Adam's first step moves every score by its rate, up or down, so that only rounding orders
        # them. So nothing goes before the third step, and the steps have different batches.
        steps = 20
        tokens = {"gram_every": 1, "gram_tokens": 1.0} if case[0] == "gum" else {}
        (one, whole), (two, parts) = (made(case, steps=steps, **tokens) for _ in range(2))

        def as_one(ids):
            return one(input_ids=ids, labels=ids).loss

        def in_halves(ids):
            return sum(two(input_ids=half, labels=half).loss / 2 for half in ids[:, None])

        batches, again = (iter([IDS + step for step in range(steps)]) for _ in range(2))
        losses = by_hand(one, whole, lambda: as_one(next(batches)), steps)
        halves = by_hand(two, parts, lambda: in_halves(next(again)), steps)
        assert halves == pytest.approx(losses, rel=1e-5)
        assert same(whole.masks, parts.masks)


class TestTheSumsAreFed:
    """Gram sums that nobody feeds rank neurons by zeros (brothers of pytorch/pytorch 117758)."""

    @pytest.mark.parametrize("case", WITH_GRAMS.values(), ids=WITH_GRAMS)
    def test_not_in_eval_mode(self, case):
        model, pruner = made(case)
        model(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match=r"have nothing of .*h\.0\.mlp.*model\.train\(\)"):
            pruner.step()
        assert pruner.step_count == 0

    @pytest.mark.parametrize("case", WITH_GRAMS.values(), ids=WITH_GRAMS)
    def test_not_by_a_part_of_the_model(self, case):
        model, pruner = made(case)
        with pytest.raises(gl.GumlabError, match=r"the loss, not a part of it"):
            by_hand(model, pruner, lambda: model.transformer(IDS).last_hidden_state.pow(2).mean())

    def test_a_layer_in_eval_mode_is_named(self):
        model, pruner = made(BY_NEURON["gum"])
        model.train()
        model.transformer.h[1].eval()
        model(input_ids=IDS, labels=IDS).loss.backward()
        with pytest.raises(gl.GumlabError, match=r"have nothing of transformer\.h\.1\.mlp at"):
            pruner.step()

    @pytest.mark.parametrize(
        "call",
        [
            lambda model, mask: model(IDS, None, mask),
            lambda model, mask: model(attention_mask=mask, input_ids=IDS),
            lambda model, mask: model(
                inputs_embeds=model.transformer.wte(IDS), attention_mask=mask
            ),
            lambda model, mask: model(None, None, mask, inputs_embeds=model.transformer.wte(IDS)),
        ],
        ids=["positional", "by name", "embeddings", "embeddings, positional"],
    )
    def test_padding_has_no_say_however_the_model_is_called(self, call, gpt2):
        mask = torch.ones_like(IDS)
        mask[0, 9:] = 0
        gates = [Gate(layer) for layer in neurons(gpt2)]
        sums = RunningGrams(gpt2, gates, 1, 1.0, 0.0).sums
        seen = []
        neurons(gpt2)[0].proj.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
        call(gpt2.train(), mask)
        real = seen[0][mask.bool()]
        torch.testing.assert_close(sums[0], real.T @ real / len(real), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("mask", "found"),
        [
            (torch.ones(2, 1, 16, 16, dtype=torch.bool), r"\(2, 1, 16, 16\)"),
            ({"full_attention": None}, "dict"),
        ],
        ids=["by pair of tokens", "by kind of layer"],
    )
    def test_a_mask_that_does_not_tell_padding_is_refused(self, mask, found):
        model, _ = made(BY_NEURON["gum"])
        with pytest.raises(gl.GumlabError, match=rf"attention_mask \(B, T\), here .*got {found}"):
            model.train()(input_ids=IDS, attention_mask=mask)


class TestModelsThatMove:
    """Pruner and model part by device or type (brothers of microsoft/nni 5277)."""

    @pytest.mark.parametrize("case", [BY_WEIGHTS["magnitude"], BY_NEURON["movement"]], ids=str)
    def test_a_pruner_of_another_device_says_so(self, case):
        model, pruner = made(case)
        model.to("meta")
        with pytest.raises(gl.GumlabError, match=r"is on meta, but was on cpu .*Move the model fi"):
            pruner.step()

    @pytest.mark.parametrize("case", [BY_GATE["movement"], BY_NEURON["gum"]], ids=str)
    def test_at_its_first_forward_pass(self, case):
        model, _ = made(case)
        gate_input = torch.zeros(1, 2, 24, device="meta")
        model.to("meta").train()
        with pytest.raises(gl.GumlabError, match="is on meta, but was on cpu when its Pruner"):
            neurons(model)[0].proj(gate_input)

    def test_gates_alone_follow(self, gpt2):
        gates = gl.gate(gpt2, random_masks(gpt2))
        neurons(gpt2.to("meta"))[0].proj(torch.zeros(1, 2, 24, device="meta"))
        assert gates[0].mask.device.type == "meta"

    def test_a_change_of_type_keeps_the_masks(self, gpt2):
        masks = random_masks(gpt2)
        small = gl.shrink(gpt2, masks).bfloat16()
        with gl.gate(gpt2, masks):
            gpt2.bfloat16()
            torch.testing.assert_close(gpt2(IDS).logits, small(IDS).logits, rtol=0.1, atol=0.3)

    def test_float16_does_not_reach_scores_that_learn_by_the_gates(self):
        model, _ = made(BY_GATE["movement"])
        with (
            pytest.raises(gl.GumlabError, match="float16 needs a loss scale"),
            torch.autocast("cpu", torch.float16),
        ):
            model.train()(input_ids=IDS)

    def test_weights_loaded_under_the_gates_are_gated(self, gpt2):
        other = tiny("gpt2", seed=1)
        masks = random_masks(gpt2)
        with gl.gate(gpt2, masks):
            gpt2.load_state_dict(other.state_dict())
            torch.testing.assert_close(gpt2(IDS).logits, gl.shrink(other, masks)(IDS).logits)

    def test_weights_handed_in_by_call_are_gated(self, gpt2):
        weights = dict(tiny("gpt2", seed=1).named_parameters())
        masks = random_masks(gpt2)
        want = gl.shrink(tiny("gpt2", seed=1), masks)(IDS).logits
        with gl.gate(gpt2, masks):
            got = torch.func.functional_call(gpt2, weights, (IDS,)).logits
        torch.testing.assert_close(got, want)


def maps_in(model):
    return [module for layer in neurons(model) for module in layer.fc]


FROZEN = {  # what is frozen, and whether the scores over a neuron's weights go without it
    "input maps": (maps_in, False),
    "first layer": (lambda model: [model.transformer.h[0]], False),
    "all but the last norm": (lambda model: [model.transformer.h, model.transformer.wte], False),
    "embeddings": (lambda model: [model.transformer.wte, model.transformer.wpe], True),
    "norms": (lambda model: [m for m in model.modules() if isinstance(m, nn.LayerNorm)], True),
}


class TestFrozen:
    """Frozen parts: a value, or the frozen weight's name (unslothai/unsloth 132)."""

    @pytest.mark.parametrize("part", FROZEN)
    @pytest.mark.parametrize("case", [*BY_GATE.values(), *BY_WEIGHTS.values()], ids=str)
    def test_gates_and_weights_need_no_gradient(self, case, part, tokenizer):
        model, pruner = made(case)
        for module in FROZEN[part][0](model):
            module.requires_grad_(False)
        frozen = {p: p.clone() for p in model.parameters() if not p.requires_grad}
        trained(model, tokenizer, pruner)
        assert pruner.fraction_kept < 0.5
        assert same(frozen.keys(), frozen.values())

    @pytest.mark.parametrize("part", FROZEN)
    @pytest.mark.parametrize("case", BY_NEURON.values(), ids=BY_NEURON)
    def test_the_neurons_own_gradient_needs_its_weights(self, case, part, tokenizer):
        model, pruner = made(case)
        for module in FROZEN[part][0](model):
            module.requires_grad_(False)
        before = [p.clone() for p in model.parameters()]
        if FROZEN[part][1]:
            trained(model, tokenizer, pruner)
            assert pruner.fraction_kept < 0.5
        else:
            with pytest.raises(gl.GumlabError, match=r'is frozen .*take gradient="gate"'):
                trained(model, tokenizer, pruner)
            assert same(before, model.parameters())
            assert not model.training

    def test_a_model_that_is_frozen_as_a_whole_is_refused(self, gpt2, tokenizer):
        gpt2.requires_grad_(False)
        with pytest.raises(gl.GumlabError, match="Every weight of the model is frozen"):
            trained(gpt2, tokenizer)

    @pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
    def test_adapters_beside_frozen_layers(self):
        peft = pytest.importorskip("peft")
        model, pruner = made(BY_GATE["movement"])
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True)
        )
        by_hand(adapted, pruner)
        assert pruner.fraction_kept == pytest.approx(0.4, abs=0.01)


class TestTeachers:
    """Teachers that are their own student, or cannot follow (lm-sys/FastChat 1890)."""

    def test_the_student_itself_is_refused(self, gpt2, tokenizer):
        with pytest.raises(gl.GumlabError, match=r"shares weights .*copy\.deepcopy\(model\)"):
            trained(gpt2, tokenizer, teacher=gpt2)

    def test_so_is_one_that_shares_a_layer(self, gpt2, tokenizer):
        teacher = tiny("gpt2", seed=1)
        teacher.transformer.h[1] = gpt2.transformer.h[1]
        with pytest.raises(gl.GumlabError, match=r"shares weights .*transformer\.h\.1\."):
            trained(gpt2, tokenizer, teacher=teacher)

    def test_a_frozen_embedding_may_be_shared(self, gpt2, tokenizer):
        teacher = copy.deepcopy(gpt2)
        gpt2.transformer.wte.weight.requires_grad_(False)
        teacher.transformer.wte.weight = gpt2.transformer.wte.weight
        teacher.tie_weights()
        assert len(trained(gpt2, tokenizer, teacher=teacher).losses) == STEPS

    def test_a_context_that_is_too_short_is_noticed_before_the_run(self, gpt2, tokenizer):
        before = [p.clone() for p in gpt2.parameters()]
        with pytest.raises(gl.GumlabError, match=r"takes 8 tokens, and the longest .* has"):
            trained(gpt2, tokenizer, teacher=tiny("gpt2", n_positions=8))
        assert same(before, gpt2.parameters())
        trained(gpt2, tokenizer, teacher=tiny("gpt2", n_positions=32))  # long enough for these

    def test_a_snapshot_of_the_gated_model_teaches_what_it_was(self, tokenizer):
        """Its gates are its own: as good as the smaller model that its masks make."""
        model, pruner = made(BY_WEIGHTS["magnitude"])
        trained(model, tokenizer, pruner)
        students = [tiny("gpt2", seed=2) for _ in range(2)]
        teachers = [copy.deepcopy(model), gl.shrink(model, pruner.masks)]
        losses = [
            trained(student, tokenizer, teacher=teacher).losses
            for student, teacher in zip(students, teachers, strict=True)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    def test_a_teacher_in_training_mode_teaches_without_dropout_and_stays_so(self, tokenizer):
        students = [tiny("gpt2", seed=2) for _ in range(2)]
        teacher = tiny("gpt2", resid_pdrop=0.5)
        losses = [
            trained(student, tokenizer, teacher=teacher.train(mode)).losses
            for student, mode in zip(students, (True, False), strict=True)
        ]
        assert losses[0] == losses[1]
        assert not teacher.training
        trained(students[0], tokenizer, teacher=teacher.train())
        assert all(module.training for module in teacher.modules())


class TestSeeds:
    """train(seed=0) twice differs with dropout (found by reading)."""

    @pytest.mark.parametrize(
        "options", [{}, {"cut": True}, {"teacher": True}], ids=["plain", "cut", "distilled"]
    )
    def test_a_seed_gives_the_run_again_whatever_was_drawn_before(self, options, tokenizer):
        ends = []
        for draws in (0, 7):
            torch.rand(draws)
            model = tiny("gpt2", resid_pdrop=0.3, embd_pdrop=0.3)
            cut = options.get("cut", False)
            pruner = gl.Pruner(model, "gum", 0.4, STEPS, gram_every=2, cut=cut)
            teacher = tiny("gpt2", seed=1) if "teacher" in options else None
            history = trained(model, tokenizer, pruner, teacher=teacher)
            ends.append((history.losses, pruner.original_masks, list(model.parameters())))
        assert ends[0][0] == ends[1][0]
        assert same(ends[0][1], ends[1][1])
        assert same(ends[0][2], ends[1][2])

    def test_another_seed_drops_others(self, tokenizer):
        example = make_examples(1)
        runs = [
            gl.train(
                tiny("gpt2", resid_pdrop=0.3), tokenizer, example, steps=2, seed=s, progress=False
            )
            for s in (0, 1)
        ]
        assert runs[0].losses != runs[1].losses

    def test_the_caller_s_random_state_is_as_it_was(self, tokenizer):
        model = tiny("gpt2", resid_pdrop=0.3)
        before = torch.random.get_rng_state()
        trained(model, tokenizer)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_gradients_that_were_left_over_have_no_say(self, tokenizer):
        ends = []
        for left_over in (False, True):
            model = tiny("gpt2")
            if left_over:
                model(input_ids=IDS, labels=IDS).loss.backward()
            trained(model, tokenizer)
            ends.append(list(model.parameters()))
        assert same(*ends)


class TestTrainerCheckpoints:
    """A gated run's checkpoint holds the dense weights (BayesWatch/pytorch-prunes 1)."""

    @pytest.mark.parametrize("cut", [False, True])
    def test_it_says_so_and_has_the_masks(self, cut, tokenizer, tmp_path):
        pytest.importorskip("accelerate")
        from transformers import Trainer, TrainingArguments

        model, pruner = made(BY_WEIGHTS["magnitude"], cut=cut)
        rows = [{"input_ids": IDS[0], "labels": IDS[0]}] * 4
        settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_steps": 5}
        Trainer(
            model,
            TrainingArguments(str(tmp_path), max_steps=STEPS, save_strategy="steps", **settings),
            train_dataset=rows,
            callbacks=[gl.PruningCallback(pruner)],
        ).train()
        folder = tmp_path / f"checkpoint-{STEPS}"
        note = (folder / "PRUNING.md").read_text()
        assert "not the pruned\nmodel" in note
        assert f"step {STEPS} of {STEPS} the masks keep 19 of 48 neurons" in note
        masks = load_state(folder / "pruner.safetensors")["masks"]
        pruner.remove()
        gl.save(model, tokenizer, tmp_path / "whole")  # the weights of the checkpoint
        weights, _ = gl.load(tmp_path / "whole", device="cpu")
        small = gl.shrink(weights, masks)
        assert sum(layer.width for layer in neurons(small)) == 19
