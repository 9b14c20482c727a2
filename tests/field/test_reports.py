"""What people who prune models run into: a situation, and the value or the sentence that must come.

Each stands for a kind of public report, named beside it; the value is computed independently.
"""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
import torch
import transformers
from helpers.models import random_masks, tiny
from helpers.texts import make_examples, word_tokenizer
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import gumlab as gl
import gumlab.tasks
from gumlab.evaluation import generate
from gumlab.feedforward import neurons
from gumlab.gating import kept_by_gates, remove_gates
from gumlab.scoring import neuron_gradient
from gumlab.tasks.batches import encode, evaluating


def trained(model, tokenizer, pruner):
    return gl.train(
        model,
        tokenizer,
        make_examples(8),
        steps=pruner.steps,
        pruner=pruner,
        batch_size=4,
        progress=False,
    )


class TestWhatLeavesTheProcess:
    """The dense model saved under the pruned one's name (BayesWatch/pytorch-prunes 1)."""

    def test_a_gated_model_is_not_saved_as_if_it_were_pruned(self, gpt2, tokenizer, tmp_path):
        pruner = gl.Pruner(gpt2, "random", 0.25, 5)
        trained(gpt2, tokenizer, pruner)
        with pytest.raises(gl.GumlabError, match=r"keep 12 of 48 neurons.*gumlab.shrink\(model"):
            gl.save(gpt2, tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    def test_under_a_with_block_neither(self, gpt2, tokenizer, tmp_path):
        with (
            gl.gate(gpt2, random_masks(gpt2)),
            pytest.raises(gl.GumlabError, match="keep 22 of 48 neurons"),
        ):
            gl.save(gpt2, tokenizer, tmp_path / "model")
        gl.save(gpt2, tokenizer, tmp_path / "model")
        assert (tmp_path / "model" / "config.json").exists()

    def test_gates_that_remove_nobody_are_no_matter(self, gpt2, tokenizer, tmp_path):
        gl.Pruner(gpt2, "random", 0.25, 5)
        gl.save(gpt2, tokenizer, tmp_path / "model")

    def test_cut_neurons_are_gone_and_the_rest_is_saved(self, gpt2, tokenizer, tmp_path):
        pruner = gl.Pruner(gpt2, "magnitude", 0.25, 5, cut=True)
        trained(gpt2, tokenizer, pruner)
        gl.save(gpt2, tokenizer, tmp_path / "model")
        loaded, _ = gl.load(tmp_path / "model", device="cpu")
        assert [n.width for n in neurons(loaded)] == [6, 6]


class TestPrunerAndModel:
    """Pruner and model part, and the run reports pruning (microsoft/nni 5277)."""

    def test_a_pruner_of_another_model_is_noticed(self, gpt2, tokenizer):
        pruner = gl.Pruner(tiny("gpt2"), "magnitude", 0.25, 5)
        with pytest.raises(gl.GumlabError, match="made for another model"):
            trained(gpt2, tokenizer, pruner)
        assert pruner.step_count == 0

    def test_so_is_one_of_a_copy(self, gpt2, tokenizer):
        pruner = gl.Pruner(gpt2, "magnitude", 0.25, 5)
        with pytest.raises(gl.GumlabError, match="made for another model"):
            trained(copy.deepcopy(gpt2), tokenizer, pruner)

    def test_a_second_pruner_ends_the_first(self, gpt2, tokenizer):
        first = gl.Pruner(gpt2, "random", 0.25, 4)
        second = gl.Pruner(gpt2, "random", 0.25, 4, seed=1)
        with pytest.raises(gl.GumlabError, match="gates are no longer on the model"):
            trained(gpt2, tokenizer, first)
        assert trained(gpt2, tokenizer, second).kept[-1] == 0.25

    @pytest.mark.filterwarnings("ignore:No forward pass went through")  # the schedule alone
    def test_gates_taken_off_in_the_middle_are_noticed(self, gpt2):
        pruner = gl.Pruner(gpt2, "random", 0.25, 4)
        pruner.step()
        gl.shrink(gpt2, random_masks(gpt2), in_place=True)
        with pytest.raises(gl.GumlabError, match="gates are no longer on the model"):
            pruner.step()

    def test_after_remove_a_step_does_nothing_and_says_nothing(self, gpt2):
        pruner = gl.Pruner(gpt2, "random", 0.25, 4)
        pruner.remove()
        assert pruner.step() is False


class TestPrecision:
    """Scores summed in the weights' type (vllm-project/llm-compressor 1432)."""

    @pytest.mark.parametrize("method", ["magnitude", "wanda"])
    def test_bfloat16_weights_are_scored_as_the_same_numbers_in_float32(self, method, tokenizer):
        rough = tiny("llama", hidden_size=64, intermediate_size=512).bfloat16()
        exact = copy.deepcopy(rough).float()
        if method == "magnitude":
            got, want = (gl.score(model, method) for model in (rough, exact))
        else:  # the same activations for both: only the weights' own part is compared
            statistics = torch.ones(512)
            fake = type("Statistics", (), {"energy": statistics, "currency": None})
            got, want = (
                [gl.scoring.wanda(n, fake) for n in neurons(model)] for model in (rough, exact)
            )
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b)
            assert len(a.unique()) > 500

    def test_movement_s_gradient_too(self):
        rough = tiny("llama", hidden_size=64, intermediate_size=512).bfloat16()
        exact = copy.deepcopy(rough).float()
        for one, other in zip(rough.parameters(), exact.parameters(), strict=True):
            generator = torch.Generator().manual_seed(one.numel())
            one.grad = torch.randn(one.shape, generator=generator).bfloat16()
            other.grad = one.grad.float()
        everybody = torch.ones(512, dtype=torch.bool)
        for one, other in zip(neurons(rough), neurons(exact), strict=True):
            assert torch.equal(neuron_gradient(one, everybody), neuron_gradient(other, everybody))


class TestWhatIsRestored:
    """Measuring changes what is measured (pytorch/pytorch 37322)."""

    def test_a_frozen_block_stays_in_eval_mode(self, gpt2):
        gpt2.train()
        gpt2.transformer.h[0].eval()
        before = [module.training for module in gpt2.modules()]
        with evaluating(gpt2):
            assert not any(module.training for module in gpt2.modules())
        assert [module.training for module in gpt2.modules()] == before

    def test_after_an_evaluation_too(self, gpt2, tokenizer, task):
        gpt2.train()
        gpt2.transformer.h[1].eval()
        before = [module.training for module in gpt2.modules()]
        gl.evaluate(gpt2, tokenizer, task, "validation", generated=2)
        gl.redundancy(gpt2, tokenizer, task)
        assert [module.training for module in gpt2.modules()] == before


class TestArguments:
    """The Python API takes what the command line refuses (found by reading)."""

    @pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
    @pytest.mark.parametrize("name", ["floor", "multiple_of"])
    def test_what_is_no_count_is_refused(self, name, value):
        with pytest.raises(gl.GumlabError, match=f"{name} must be a whole number"):
            gl.select([torch.rand(8)], 0.5, **{name: value})

    def test_numpy_s_whole_numbers_are_whole_numbers(self):
        (mask,) = gl.select([torch.rand(8)], 0.5, floor=np.int64(2), multiple_of=np.int32(2))
        assert int(mask.sum()) == 4

    @pytest.mark.parametrize("value", [0, -0.1, float("nan"), "0.1"])
    def test_a_score_lr_that_cannot_be_is_refused(self, value, gpt2):
        with pytest.raises(gl.GumlabError, match="score_lr must be a finite number, above 0"):
            gl.Pruner(gpt2, "movement", 0.5, 5, score_lr=value)

    @pytest.mark.parametrize("value", [-1, float("inf"), None])
    def test_a_penalty_that_cannot_be_is_refused(self, value, gpt2):
        with pytest.raises(gl.GumlabError, match="penalty must be a finite number, 0 or more"):
            gl.Pruner(gpt2, "gum", 0.5, 5, penalty=value)

    def test_prune_is_calibrated_as_it_is_asked(self, gpt2, tokenizer, task):
        options = {"keep": 0.5, "split": "validation", "limit": 3, "batch_size": 2}
        small = gl.prune(gpt2, "wanda", tokenizer, task, **options)
        masks = gl.select(
            gl.score(gpt2, "wanda", tokenizer, task.validation[:3], batch_size=1), 0.5
        )
        want = gl.shrink(gpt2, masks, tokenizer, task.validation[:3], refit=True)
        for a, b in zip(small.parameters(), want.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_a_home_folder_is_one(self, gpt2, tokenizer, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        folder = gl.save(gpt2, tokenizer, "~/model")
        assert folder == tmp_path / "model"
        assert sorted(os.listdir(tmp_path)) == ["model"]
        loaded, _ = gl.load("~/model", device="cpu")
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.parameters(), gpt2.parameters(), strict=True)
        )


class TestWeights:
    """Weights that are no plain floats, or not a layer's own (transformers 23401, nni 5277)."""

    def test_quantised_weights_are_refused_by_name(self, gpt2):
        proj = neurons(gpt2)[1].proj
        proj.weight = torch.nn.Parameter(proj.weight.data.to(torch.int8), requires_grad=False)
        with pytest.raises(gl.GumlabError, match=r"h\.1\.mlp are quantised \(Conv1D, torch.int8\)"):
            gl.neurons(gpt2)

    def test_weights_pruned_by_torch_are_refused(self):
        model = tiny("llama")
        torch_prune.ln_structured(neurons(model)[0].proj, "weight", 0.5, 2, 1)
        with pytest.raises(gl.GumlabError, match=r"layers\.0\.mlp are computed from others"):
            gl.neurons(model)
        torch_prune.remove(model.model.layers[0].mlp.down_proj, "weight")
        assert len(gl.neurons(model)) == 2

    def test_a_parametrised_weight_is_refused(self):
        model = tiny("llama")
        parametrizations.weight_norm(model.model.layers[1].mlp.up_proj)
        with pytest.raises(gl.GumlabError, match=r"layers\.1\.mlp are computed from others"):
            gl.score(model, "magnitude")

    def test_layers_that_share_weights_are_refused(self):
        model = tiny("llama")
        first, second = (layer.mlp for layer in model.model.layers)
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(second, name).weight = getattr(first, name).weight
        with pytest.raises(gl.GumlabError, match=r"layers\.0\.mlp and .*layers\.1\.mlp share"):
            gl.neurons(model)

    def test_a_frozen_weight_is_named_and_the_gate_s_gradient_needs_none(self, gpt2, tokenizer):
        for layer in neurons(gpt2):
            layer.proj.weight.requires_grad_(False)
        pruner = gl.Pruner(gpt2, "movement", 0.5, 5)
        with pytest.raises(gl.GumlabError, match=r'frozen .*take gradient="gate"'):
            trained(gpt2, tokenizer, pruner)
        pruner = gl.Pruner(gpt2, "movement", 0.5, 5, gradient="gate")
        assert trained(gpt2, tokenizer, pruner).kept[-1] == 0.5


class TestActivations:
    """float16 overflows, and the scores are ranked in silence (FLAP 7)."""

    @pytest.mark.parametrize("method", ["wanda", "obs", "taylor"])
    def test_activations_that_are_not_finite_are_named(self, method, gpt2, tokenizer, task):
        neurons(gpt2)[1].fc[0].bias.data[3] = float("inf")
        with pytest.raises(gl.GumlabError, match=r"h\.1\.mlp are not finite.*bfloat16"):
            gl.score(gpt2, method, tokenizer, task)

    def test_so_is_a_square_that_overflows(self, gpt2, tokenizer, task):
        neurons(gpt2)[0].fc[0].bias.data[3] = 1e30
        with pytest.raises(gl.GumlabError, match="or their squares are not"):
            gl.redundancy(gpt2, tokenizer, task)


class TestDefaultType:
    """Sums take torch's default type (pytorch/pytorch 101107)."""

    @pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
    def test_scores_are_what_they_are_whatever_the_default(self, default, gpt2, tokenizer, task):
        methods = ("random", "magnitude", "wanda", "taylor", "obs", "peak_to_peak")
        want = {name: gl.score(gpt2, name, tokenizer, task) for name in methods}
        torch.set_default_dtype(default)
        try:
            got = {name: gl.score(gpt2, name, tokenizer, task) for name in methods}
            pruner = gl.Pruner(gpt2, "gum", 0.5, 4)
            trained(gpt2, tokenizer, pruner)
        finally:
            torch.set_default_dtype(torch.float32)
        for name in methods:
            for a, b in zip(got[name], want[name], strict=True):
                assert torch.equal(a, b), name
        assert {score.dtype for score in pruner.scores} == {torch.float32}
        assert {total.dtype for total in pruner.rule.learned} == {torch.float32}


class TestPlainMistakes:
    """Raw errors where the command line has a sentence (lm-sys/FastChat 1890 and others)."""

    def test_a_list_of_texts_is_running_text(self, gpt2, tokenizer):
        texts = ["w5 w6 w7 w8 w9", "w10 w11 w12"]
        ours = gl.score(gpt2, "wanda", tokenizer, texts)
        want = gl.score(gpt2, "wanda", tokenizer, [gl.tasks.Example("", " ".join(texts))])
        for a, b in zip(ours, want, strict=True):
            torch.testing.assert_close(a, b)

    def test_anything_else_is_named(self, gpt2, tokenizer):
        with pytest.raises(gl.GumlabError, match="Example 1 is int 7; expected an Example"):
            gl.score(gpt2, "wanda", tokenizer, ["w5 w6", 7])

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"batch_size": 0}, "batch_size must be a whole number, 1 or more; got 0"),
            ({"limit": 0}, "limit must be a whole number, 1 or more; got 0"),
            ({"generated": -1}, "generated must be a whole number, 0 or more"),
            ({"beams": 0}, "beams must be a whole number"),
        ],
    )
    def test_evaluate(self, options, sentence, gpt2, tokenizer, task):
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.evaluate(gpt2, tokenizer, task, **options)

    def test_evaluate_of_a_list(self, gpt2, tokenizer, task):
        with pytest.raises(gl.GumlabError, match="evaluate takes a task, got list"):
            gl.evaluate(gpt2, tokenizer, task.test)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"lr": -1}, "lr must be a finite number, 0 or more; got -1"),
            ({"lr": float("nan")}, "lr must be a finite number"),
            ({"batch_size": 0}, "batch_size must be a whole number"),
            ({"steps": 1.5}, "steps must be a whole number"),
            ({"clip": 0}, "clip must be a finite number, above 0"),
            ({"weight_decay": -0.1}, "weight_decay must be a finite number, 0 or more"),
            ({"record": 0}, "record must be a whole number"),
        ],
    )
    def test_train(self, options, sentence, gpt2, tokenizer, task):
        before = [p.clone() for p in gpt2.parameters()]
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.train(gpt2, tokenizer, task, **{"steps": 1, "progress": False, **options})
        assert all(torch.equal(a, b) for a, b in zip(before, gpt2.parameters(), strict=True))

    def test_a_teacher_of_another_vocabulary(self, gpt2, tokenizer, task):
        teacher = tiny("gpt2", vocab_size=70)
        with pytest.raises(gl.GumlabError, match="teacher knows 70 tokens, the model 64"):
            gl.train(gpt2, tokenizer, task, steps=1, teacher=teacher, progress=False)

    def test_a_tokenizer_that_grew_without_its_model(self, gpt2, tokenizer, task):
        grown = copy.deepcopy(tokenizer)
        grown.add_tokens(["w5000"])
        example = gl.tasks.Example("w5", "w5000")
        for use in (
            lambda: gl.score(gpt2, "wanda", grown, [example]),
            lambda: gl.train(gpt2, grown, [example], steps=1, progress=False),
        ):
            with pytest.raises(gl.GumlabError, match=r"token 64, but the model knows 64 tokens"):
                use()

    def test_a_padding_token_that_was_added_changes_no_text(self, gpt2, tokenizer, task):
        grown = copy.deepcopy(tokenizer)
        grown.add_special_tokens({"pad_token": "[PAD]"})
        assert grown.pad_token_id == 64
        assert generate(gpt2, grown, task.test) == generate(gpt2, tokenizer, task.test)

    def test_a_name_in_place_of_a_model(self):
        with pytest.raises(gl.GumlabError, match=r"Expected a model, got 'tiny-gpt2'"):
            gl.prune("tiny-gpt2", "magnitude")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_a_device_that_is_not_there(self):
        with pytest.raises(gl.GumlabError, match="finds no CUDA device"):
            gl.load("tiny-gpt2", device="cuda")


def by_hand(model, pruner, steps, run=None):
    """Train with a loop of one's own; `run` is what is called, by default the model."""
    ids = torch.arange(4, 36).view(2, 16)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    model.train()
    for _ in range(steps):
        (model if run is None else run)(input_ids=ids, labels=ids).loss.backward()
        pruner.step()
        optimizer.step()
        optimizer.zero_grad()


class TestCopies:
    """A snapshot is pruned along with its original (pytorch/pytorch 96136)."""

    def test_a_snapshot_stays_as_it_was(self, gpt2):
        ids = torch.arange(4, 24).view(2, 10)
        pruner = gl.Pruner(gpt2, "magnitude", 0.2, 20)
        by_hand(gpt2, pruner, 8)
        masks = [mask.clone() for mask in pruner.masks]
        snapshot = copy.deepcopy(gpt2).eval()
        before = snapshot(ids).logits
        by_hand(gpt2, pruner, 12)
        assert pruner.fraction_kept < sum(int(m.sum()) for m in masks) / 48
        assert torch.equal(snapshot(ids).logits, before)
        want = [a.equal(b) for a, b in zip(kept_by_gates(neurons(snapshot)), masks, strict=True)]
        assert all(want)

    def test_a_copy_that_trains_feeds_nobody(self, gpt2):
        pruner, alone = (
            gl.Pruner(model, "gum", 0.5, 6, gradient="gate", gram_every=1)
            for model in (gpt2, copy.deepcopy(gpt2))
        )
        ids = torch.arange(4, 36).view(2, 16)
        twin = copy.deepcopy(gpt2)
        for one in (pruner, alone):
            for _ in range(6):
                if one is pruner:
                    twin.train()(input_ids=ids.flip(1), labels=ids).loss.backward()
                by_hand(one.model, one, 1)
        assert all(a.equal(b) for a, b in zip(pruner.masks, alone.masks, strict=True))
        assert all(a.equal(b) for a, b in zip(pruner.scores, alone.scores, strict=True))

    def test_the_gates_of_a_copy_come_off_alone(self, gpt2):
        ids = torch.arange(4, 24).view(2, 10)
        dense = gpt2(ids).logits
        with gl.gate(gpt2, random_masks(gpt2)):
            gated = gpt2(ids).logits
            twin = copy.deepcopy(gpt2)
            remove_gates(twin)
            assert torch.equal(twin(ids).logits, dense)
            assert torch.equal(gpt2(ids).logits, gated)

    def test_a_running_average_keeps_its_masks(self, gpt2):
        average = torch.optim.swa_utils.AveragedModel(gpt2)
        pruner = gl.Pruner(gpt2, "magnitude", 0.2, 10)
        by_hand(gpt2, pruner, 10)
        average.update_parameters(gpt2)
        kept = kept_by_gates(neurons(average.module))
        assert all(mask.all() for mask in kept)  # copied before there were gates
        assert gl.shrink(average.module, pruner.masks).config.n_inner in (None, 5)

    def test_a_gated_model_goes_to_another_process_with_its_masks(self, gpt2):
        """By pickle: what joblib and multiprocessing do."""
        ids = torch.arange(4, 24).view(2, 10)
        pruner = gl.Pruner(gpt2, "gum", 0.3, 6, gradient="gate", gram_every=1)
        by_hand(gpt2, pruner, 6)
        there = pickle.loads(pickle.dumps(gpt2)).eval()
        assert torch.equal(there(ids).logits, gpt2.eval()(ids).logits)
        remove_gates(there)
        assert not torch.equal(there(ids).logits, gpt2(ids).logits)

    def test_a_pruner_is_not_copied_but_its_state_is(self, gpt2):
        pruner = gl.Pruner(gpt2, "gum", 0.3, 8, gram_every=1)
        by_hand(gpt2, pruner, 4)
        with pytest.raises(gl.GumlabError, match="cannot be copied"):
            copy.deepcopy(pruner)
        model = copy.deepcopy(gpt2)
        fork = gl.Pruner(model, "gum", 0.3, 8, gram_every=1)
        fork.load_state_dict(copy.deepcopy(pruner.state_dict()))
        for one in (pruner, fork):
            by_hand(one.model, one, 4)
        assert all(a.equal(b) for a, b in zip(pruner.masks, fork.masks, strict=True))
        assert all(a.equal(b) for a, b in zip(pruner.scores, fork.scores, strict=True))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
class TestCheckpointing:
    """Gradient checkpointing runs the forward pass twice: other masks (pytorch/pytorch 117758)."""

    @pytest.mark.parametrize("reentrant", [True, False])
    @pytest.mark.parametrize("gradient", ["neuron", "gate"])
    def test_the_masks_are_the_same(self, reentrant, gradient, gpt2):
        ends = []
        for checkpointing in (False, True):
            model = copy.deepcopy(gpt2)
            model.config.use_cache = False
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
                model.enable_input_require_grads()
            pruner = gl.Pruner(
                model, "gum", 0.4, 12, gradient=gradient, gram_every=2, twin_filter=0.5
            )
            by_hand(model, pruner, 12)
            ends.append((pruner.masks, pruner.scores))
        for (mask, score), (other_mask, other_score) in zip(
            zip(*ends[0], strict=True), zip(*ends[1], strict=True), strict=True
        ):
            assert torch.equal(mask, other_mask)
            torch.testing.assert_close(score, other_score)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
class TestEscapes:
    """A compiled model ignores its gates while the run reports pruning (pytorch/pytorch 117758)."""

    def test_compiled_after_the_pruner_is_pruned_as_uncompiled(self, gpt2):
        other = copy.deepcopy(gpt2)
        pruner, alone = (gl.Pruner(m, "magnitude", 0.5, 6) for m in (gpt2, other))
        by_hand(gpt2, pruner, 6, torch.compile(gpt2, backend="eager"))
        by_hand(other, alone, 6)
        assert all(a.equal(b) for a, b in zip(pruner.masks, alone.masks, strict=True))
        assert pruner.fraction_kept == 0.5
        torch._dynamo.reset()

    def test_a_copy_that_is_trained_in_its_place_is_noticed(self, gpt2):
        pruner = gl.Pruner(gpt2, "magnitude", 0.5, 4)
        twin = copy.deepcopy(gpt2)
        for parameter, other in zip(gpt2.parameters(), twin.parameters(), strict=True):
            other.data = parameter.data  # tied, so that the optimizer moves both
        ids = torch.arange(4, 36).view(2, 16)
        twin.train()(input_ids=ids, labels=ids).loss.backward()
        for parameter, other in zip(gpt2.parameters(), twin.parameters(), strict=True):
            parameter.grad = other.grad
        with pytest.raises(gl.GumlabError, match="did not go through the gates"):
            pruner.step()


class TestSettingsThatLeak:
    """A checkpoint's own settings change what is measured (tmalsburg/llm_surprisal 12)."""

    def test_greedy_is_greedy_whatever_the_checkpoint_says(self, gpt2, tokenizer, task):
        want = generate(gpt2, tokenizer, task.test)
        gpt2.generation_config.update(
            repetition_penalty=9.0, no_repeat_ngram_size=1, do_sample=True, temperature=3.0
        )
        assert generate(gpt2, tokenizer, task.test) == want
        assert gpt2.generation_config.repetition_penalty == 9.0

    @pytest.mark.parametrize("beams", [1, 2])
    def test_it_is_what_argmax_gives_one_token_at_a_time(self, beams, tokenizer, task):
        model = tiny("llama")
        model.generation_config.update(repetition_penalty=1.3, max_length=7)
        (text,) = generate(model, tokenizer, task.test[:1], beams=beams)
        if beams == 1:
            ids = tokenizer(task.test[0].prompt, return_tensors="pt")["input_ids"]
            words = []
            for _ in range(len(text.split())):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
                words.append(tokenizer.decode(ids[0, -1]))
            assert text.split() == words
        assert text

    @pytest.mark.parametrize("cache", [True, False])
    def test_decoding_is_timed_with_its_context(self, cache, gpt2):
        gpt2.config.use_cache = cache
        lengths = []
        hook = gpt2.transformer.h[0].attn.register_forward_hook(
            lambda module, args, kwargs, out: lengths.append(
                kwargs["past_key_values"].get_seq_length()
            ),
            with_kwargs=True,
        )
        gl.measure(gpt2, batches=[1], tokens=10, decoded=3, repeats=2)
        hook.remove()
        assert lengths[:4] == [10, 11, 12, 13]

    def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt(self, task):
        from tokenizers import processors

        tokenizer = word_tokenizer()
        plain = encode(tokenizer, task.train, 64)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <eos>", pair="$A $B", special_tokens=[("<eos>", 0)]
        )
        assert tokenizer("w5")["input_ids"][-1] == tokenizer.eos_token_id
        assert encode(tokenizer, task.train, 64) == plain


class TestWrappersAndHeads:
    """What wraps a model, and a head that is no language model's (peft 1746, transformers 4490)."""

    def test_a_wrapper_is_refused_by_name_before_the_work(self, gpt2, tokenizer, tmp_path):
        masks = random_masks(gpt2)
        for wrapper, inner in (
            (torch.nn.DataParallel(gpt2), "module"),
            (torch.compile(gpt2, backend="eager"), "_orig_mod"),
        ):
            for use in (
                lambda w=wrapper: gl.shrink(w, masks),
                lambda w=wrapper: gl.save(w, tokenizer, tmp_path / "model"),
                lambda w=wrapper: gl.Pruner(w, "random", 0.5, 5),
            ):
                with pytest.raises(gl.GumlabError, match=rf"wraps a model.*model\.{inner}"):
                    use()
        assert list(tmp_path.iterdir()) == []

    def test_a_head_that_would_be_lost_is_named(self, tokenizer, tmp_path):
        config = transformers.GPT2Config(
            vocab_size=64, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=1
        )
        transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(
            gl.GumlabError, match=r"score\.weight.*saved as GPT2ForSequenceClassification"
        ):
            gl.load(tmp_path, device="cpu")
