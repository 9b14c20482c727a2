"""What is on around a call, on a model, or in a folder, and was not asked before.

A situation, and the value (computed independently) or the sentence that must come.
"""

from __future__ import annotations

import copy
import json
import os
import pickle

import pytest
import torch
import transformers
from helpers.models import VOCAB, D, N, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch
from torch import nn

import gumlab as gl
from gumlab.feedforward import neurons

AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
CALLS = {
    "taylor": lambda m, t: gl.score(m, "taylor", t, make_examples(8)),
    "obs": lambda m, t: gl.score(m, "obs", t, make_examples(8)),
    "prune": lambda m, t: gl.prune(m, "recommended", t, make_examples(8), keep=0.5),
    "in place": lambda m, t: gl.prune(m, "wanda", t, make_examples(8), in_place=True),
    "shrink": lambda m, t: gl.shrink(m, random_masks(m)),
}


def numbers(result) -> torch.Tensor:
    """All numbers of a model, or of a list of scores, one after the other."""
    tensors = result.parameters() if isinstance(result, nn.Module) else result
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def trained(model, tokenizer, **options):
    options = {"steps": 4, "batch_size": 4, "progress": False} | options
    return gl.train(model, tokenizer, make_examples(12), **options)


@pytest.mark.parametrize("around", AROUND)
class TestContextsOfTheCaller:
    """`torch.set_grad_enabled(False)` at the top of a notebook, a `with` block around a cell."""

    @pytest.mark.parametrize("call", CALLS)
    def test_the_numbers_are_those_without_it(self, call, around, gpt2, tokenizer):
        expected = CALLS[call](copy.deepcopy(gpt2), tokenizer)
        with AROUND[around]():
            logits_of(gpt2, one_batch(gpt2, tokenizer, make_examples(2)))
            result = CALLS[call](gpt2, tokenizer)
        assert torch.equal(numbers(result), numbers(expected))
        if isinstance(result, nn.Module):
            trained(result, tokenizer)

    def test_a_run_learns_as_without_it(self, around, gpt2, tokenizer, task):
        twin = copy.deepcopy(gpt2)
        expected = trained(twin, tokenizer, steps=12, pruner=gl.Pruner(twin, "magnitude", steps=12))
        with AROUND[around]():
            gl.evaluate(gpt2, tokenizer, task, generated=0)  # autocast would keep these casts
            pruner = gl.Pruner(gpt2, "magnitude", steps=12)
            history = trained(gpt2, tokenizer, steps=12, pruner=pruner)
            inside = gl.evaluate(gpt2, tokenizer, task, generated=0)["loss"]
            assert torch.is_autocast_cache_enabled()
        assert history.losses == pytest.approx(expected.losses, rel=0.02)  # of bfloat16
        outside = gl.evaluate(gpt2, tokenizer, task, generated=0)["loss"]
        assert inside == pytest.approx(outside, rel=0.02)

    def test_weights_of_inference_are_named(self, around, tokenizer):
        with torch.inference_mode():
            model = transformers.GPT2LMHeadModel(tiny("gpt2").config)
        for use in (
            lambda: trained(model, tokenizer),
            lambda: gl.Pruner(model),
            lambda: gl.score(model, "taylor", tokenizer, make_examples(4)),
            lambda: gl.shrink(model, random_masks(model), in_place=True),
        ):
            with AROUND[around](), pytest.raises(gl.GumlabError, match=r"copy\.deepcopy\(model\)"):
                use()
        trained(copy.deepcopy(model), tokenizer)


class TestGatesAndPruners:
    """What is on the model, and what stands in a pruner's place."""

    def test_a_pruner_does_not_let_in_what_gate_holds_out(self, gpt2):
        masks = random_masks(gpt2)
        with gl.gate(gpt2, masks):
            with pytest.raises(gl.GumlabError, match=r"holds neurons out of transformer\.h\.0"):
                gl.Pruner(gpt2)
            assert [len(layer.proj._forward_pre_hooks) for layer in neurons(gpt2)] == [1, 1]
        gl.Pruner(gpt2)

    def test_a_gate_has_a_mask_of_its_own(self, gpt2, tokenizer):
        batch = one_batch(gpt2, tokenizer, make_examples(2))
        masks = random_masks(gpt2)
        with gl.gate(gpt2, masks):
            before = logits_of(gpt2, batch)
            for mask in masks:
                mask.fill_(True)
            assert torch.equal(logits_of(gpt2, batch), before)

    def test_a_run_under_gates_says_what_they_keep(self, gpt2, tokenizer):
        pruner = gl.Pruner(gpt2, "magnitude", keep=0.25, steps=4)
        trained(gpt2, tokenizer, pruner=pruner)
        assert trained(gpt2, tokenizer).kept == [0.25] * 4

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_a_pruner_is_neither_copied_nor_pickled(self, copied, gpt2):
        with pytest.raises(gl.GumlabError, match="belongs to one model"):
            copied(gl.Pruner(gpt2))

    def test_a_removed_pruner_does_not_train(self, gpt2, tokenizer):
        pruner = gl.Pruner(gpt2, steps=4)
        pruner.remove()
        with pytest.raises(gl.GumlabError, match=r"gates were taken off.*Make a fresh one"):
            trained(gpt2, tokenizer, pruner=pruner)

    @pytest.mark.parametrize("thing", ["gum", 3, [1]])
    def test_what_is_no_pruner_or_teacher_is_said_to_be(self, thing, gpt2, tokenizer):
        with pytest.raises(gl.GumlabError, match="pruner must be a gumlab"):
            trained(gpt2, tokenizer, pruner=thing)
        with pytest.raises(gl.GumlabError, match="Expected a model, got"):
            trained(gpt2, tokenizer, teacher=thing)
        with pytest.raises(gl.GumlabError, match="PruningCallback takes the Pruner"):
            gl.PruningCallback(thing)

    @pytest.mark.parametrize("state", [None, {}, {"settings": {}}, "folder"])
    def test_what_is_no_state_is_said_to_be(self, state, gpt2):
        with pytest.raises(gl.GumlabError, match="Expected the state of a pruner"):
            gl.Pruner(gpt2).load_state_dict(state)

    def test_a_state_of_a_model_of_more_layers_is_refused(self, gpt2):
        state = gl.Pruner(tiny("gpt2", n_layer=3)).state_dict()
        with pytest.raises(gl.GumlabError, match="began with layers of"):
            gl.Pruner(gpt2).load_state_dict(state)

    def test_layers_taken_out_under_a_pruner_are_named(self, gpt2, tokenizer):
        pruner = gl.Pruner(gpt2, "magnitude", steps=4)
        gpt2.transformer.h = gpt2.transformer.h[:1]
        with pytest.raises(gl.GumlabError, match=r"transformer\.h\.1\.mlp is no longer in the mod"):
            trained(gpt2, tokenizer, pruner=pruner)

    def test_layers_that_are_left_out_by_chance_are_named(self, tokenizer):
        model = tiny("opt", layerdrop=0.5)
        with pytest.raises(gl.GumlabError, match=r"Set it to 0: model\.model\.decoder\.layerdrop"):
            gl.Pruner(model, "magnitude", steps=4)
        model.model.decoder.layerdrop = 0.0
        trained(model, tokenizer, pruner=gl.Pruner(model, "magnitude", steps=4))

    def test_layers_in_the_same_memory_share_their_weights(self, gpt2):
        one, other = neurons(gpt2)
        other.proj.weight = nn.Parameter(one.proj.weight.data)  # two parameters, one memory
        with pytest.raises(gl.GumlabError, match="share their weights"):
            neurons(gpt2)

    def test_the_layer_of_a_frozen_weight_is_named(self, gpt2, tokenizer):
        gpt2.transformer.h[1].mlp.c_proj.weight.requires_grad_(False)
        with pytest.raises(gl.GumlabError, match=r"A weight of transformer\.h\.1\.mlp is frozen"):
            trained(gpt2, tokenizer, pruner=gl.Pruner(gpt2, "movement", steps=4))


def with_act(model, act):
    for block in model.transformer.h:
        block.mlp.act = act
    return model


def local_first(model):
    model.transformer.h = model.transformer.h[1:]
    model.config.num_layers = 1
    return model


def with_scale(model):
    model.model.layers[0].self_attn.scaling = 0.1
    return model


def with_epsilon(model):
    model.model.layers[1].input_layernorm.variance_epsilon = 0.1
    return model


class OfTwoStates(nn.Module):
    """As torch's quantised maps: its state has an entry that is no tensor."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}_packed.dtype"] = torch.qint8


COMPUTES_OTHERWISE = {
    "another activation": (lambda: with_act(tiny("gpt2"), nn.ReLU()), r"GELU.* has ReLU"),
    "a local layer first": (lambda: local_first(tiny("gpt_neo")), "attention_type='local'"),
    "another scale": (lambda: with_scale(tiny("llama")), "has scaling=0.1"),
    "another epsilon": (lambda: with_epsilon(tiny("llama")), "has variance_epsilon=0.1"),
}


class TestWhatTheConfigDoesNotSay:
    """The file holds the weights, and the config says what is computed with them."""

    @pytest.mark.parametrize("case", COMPUTES_OTHERWISE)
    def test_is_refused_before_anything_is_written(self, case, tokenizer, tmp_path):
        make, sentence = COMPUTES_OTHERWISE[case]
        with pytest.raises(gl.GumlabError, match=f"{sentence}.*would compute something else"):
            gl.save(make(), tokenizer, tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    def test_so_are_weights_of_a_quantised_part(self, tokenizer, tmp_path):
        model = tiny("llama")
        attention = model.model.layers[0].self_attn
        attention.q_proj = OfTwoStates()
        with pytest.raises(gl.GumlabError, match=r"self_attn\.q_proj\.weight, the model holds no"):
            gl.save(model, tokenizer, tmp_path / "model")

    @pytest.mark.parametrize("act", [nn.GELU("tanh"), transformers.activations.NewGELUActivation()])
    def test_another_name_of_the_same_function_is_no_matter(self, act, gpt2, tokenizer, tmp_path):
        gl.save(with_act(gpt2, act), tokenizer, tmp_path / "model")

    @pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
    def test_nor_is_what_serves_training_alone(self, gpt2, tokenizer, tmp_path):
        gpt2.config.use_cache = False
        gpt2.gradient_checkpointing_enable()
        for block in gpt2.transformer.h:
            block.mlp.dropout = nn.Identity()
            block.attn.resid_dropout.p = 0.5
        gl.save(gpt2.train(), tokenizer, tmp_path / "model")

    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("equal", [True, False])
    def test_a_tie_is_as_in_the_model(self, name, tied, equal, tokenizer, tmp_path):
        model = tiny(name, tie_word_embeddings=not tied)
        embedding = model.get_input_embeddings().weight
        model.lm_head.weight = embedding if tied else nn.Parameter(embedding.detach() * 2)
        small = gl.shrink(model, random_masks(model, equal=equal))
        folder = gl.save(small, tokenizer, tmp_path / "model")
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is tied
        loaded, _ = gl.load(folder, device="cpu")
        batch = one_batch(model, tokenizer, make_examples(2))
        torch.testing.assert_close(logits_of(loaded, batch), logits_of(small, batch))
        assert model.config.tie_word_embeddings is not tied

    def test_infinity_in_a_config_is_a_number(self, tokenizer, tmp_path):
        config = transformers.FalconH1Config(
            vocab_size=VOCAB,
            hidden_size=D,
            intermediate_size=N,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            mamba_d_ssm=16,
            mamba_n_heads=2,
            mamba_d_head=8,
            mamba_d_state=4,
            mamba_n_groups=1,
        )
        model = transformers.FalconH1ForCausalLM(config).eval()
        for equal in (True, False):
            small = gl.shrink(model, random_masks(model, equal=equal))
            loaded, _ = gl.load(gl.save(small, tokenizer, tmp_path / str(equal)), device="cpu")
            batch = one_batch(model, tokenizer, make_examples(2))
            torch.testing.assert_close(logits_of(loaded, batch), logits_of(small, batch))


class TestWhatASaveWouldTakeAway:
    """A save puts one folder in the place of another."""

    @pytest.mark.parametrize("own", ["thesis.docx", "optimizer.pt", "results.json", ".git/HEAD"])
    def test_what_is_not_of_a_model_is_named_and_stays(self, own, gpt2, tokenizer, tmp_path):
        folder = gl.save(gpt2, tokenizer, tmp_path / "model")
        (folder / own).parent.mkdir(exist_ok=True)
        (folder / own).write_text("years of work")
        with pytest.raises(gl.GumlabError, match=f"{own.split('/')[0]} beside a checkpoint"):
            gl.save(gpt2, tokenizer, folder)
        assert (folder / own).read_text() == "years of work"

    def test_what_transformers_saved_is_replaced(self, gpt2, tokenizer, tmp_path):
        gpt2.save_pretrained(tmp_path / "model", max_shard_size="10KB")
        tokenizer.save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "README.md").write_text("# A model")
        folder = gl.save(gpt2, tokenizer, tmp_path / "model")
        assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]

    @pytest.mark.parametrize("name", [".", "", "../model", "./"])
    def test_the_working_folder_is_not_replaced(self, name, gpt2, tokenizer, tmp_path, monkeypatch):
        (tmp_path / "model").mkdir()
        monkeypatch.chdir(tmp_path / "model")
        with pytest.raises(gl.GumlabError, match="the folder that you are in"):
            gl.save(gpt2, tokenizer, name)
        assert os.getcwd() == str(tmp_path / "model")
        gl.save(gpt2, tokenizer, "small")

    def test_pad_is_a_yes_or_a_no(self, gpt2, tokenizer, tmp_path):
        with pytest.raises(gl.GumlabError, match="pad must be True or False"):
            gl.save(gpt2, tokenizer, tmp_path / "model", pad="no")
