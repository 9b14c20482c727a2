"""What people who prune models run into: a situation, and the value or the sentence that must come.

Each stands for a kind of public report, named beside it; the value is computed independently.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from helpers.models import random_masks, tiny
from helpers.texts import make_examples

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.scoring import neuron_gradient
from gumlab.tasks.batches import evaluating


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
            fake = type("Statistics", (), {"energy": statistics})
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
        with pytest.raises(gl.GumlabError, match="score_lr must be a number, above 0"):
            gl.Pruner(gpt2, "movement", 0.5, 5, score_lr=value)

    @pytest.mark.parametrize("value", [-1, float("inf"), None])
    def test_a_penalty_that_cannot_be_is_refused(self, value, gpt2):
        with pytest.raises(gl.GumlabError, match="penalty must be a number, 0 or more"):
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
