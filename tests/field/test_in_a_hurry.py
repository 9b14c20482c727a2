"""What people in a hurry do, and what used to come of it in silence or after the work.

Pruning what a pruner still holds, a folder named like a built-in model, a teacher's folder as the
output, numbers that cannot be met, NaN, and what can be read only once.
"""

from __future__ import annotations

import copy
import sys

import accelerate
import pytest
import torch
import transformers
from helpers.models import random_masks, tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.cli import main
from gumlab.cli.demonstration import demo
from gumlab.study.identity import of_model
from gumlab.tasks import Task
from gumlab.tasks.batches import context_length

TOKENIZER = word_tokenizer()
EXAMPLES = make_examples(12)
TASK = Task("tiny", "bleu", EXAMPLES, make_examples(5, 1), make_examples(6, 2))
MASKS = random_masks(tiny("gpt2"))


def command(monkeypatch, capsys, *arguments):
    """The exit code of a command, and what it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["gumlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code or 0, capsys.readouterr().err


def trained_and_gated():
    model = tiny("gpt2")
    pruner = gl.Pruner(model, "random", 0.5, 4)
    gl.train(model, TOKENIZER, EXAMPLES, steps=4, batch_size=4, pruner=pruner, progress=False)
    return model, pruner


class TestWhatAPrunerHolds:
    def test_prune_does_not_let_neurons_in_again(self):
        model, pruner = trained_and_gated()
        with pytest.raises(gl.GumlabError, match=r"hold 12 of 24 neurons out of .* Cut them first"):
            gl.prune(model, "magnitude", keep=0.5, refit=False)
        assert not all(mask.all() for mask in pruner.masks)
        pruner.remove()
        assert gl.prune(model, "magnitude", keep=0.5, refit=False)

    def test_so_with_masks_in_force(self):
        model = tiny("gpt2")
        with gl.gate(model, MASKS), pytest.raises(gl.GumlabError, match="let them in again"):
            gl.prune(model, "magnitude", keep=0.5, refit=False)

    @pytest.mark.filterwarnings("ignore:No forward pass went through")  # nothing is trained
    def test_a_second_pruner_says_that_it_begins_with_all(self):
        model, _ = trained_and_gated()
        second = gl.Pruner(model, "magnitude", 0.5, 4)
        with pytest.warns(UserWarning, match="held 24 neurons of this model out.* cut first"):
            second.step()


def test_a_folder_named_like_a_built_in_model_is_not_overlooked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = gl.shrink(tiny("gpt2"), MASKS)
    gl.save(small, TOKENIZER, "tiny-gpt2")
    with pytest.warns(UserWarning, match=r'gumlab\.load\("\./tiny-gpt2"\)'):
        built_in, _ = gl.load("tiny-gpt2")
    own, _ = gl.load("./tiny-gpt2")
    widths = [[layer.width for layer in gl.neurons(model)] for model in (built_in, own)]
    assert widths == [[512] * 4, [int(mask.sum()) for mask in MASKS]]


class TestBeforeTheWork:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        """Nothing is scored or trained."""

        def refuse(*given, **named):
            raise AssertionError("the work has begun")

        for where in ("train", "score"):
            monkeypatch.setattr(f"gumlab.study.methods.{where}", refuse)

    def test_the_folder_of_the_teacher_is_no_output(self, tmp_path, monkeypatch, capsys):
        folder = gl.save(tiny("gpt2"), TOKENIZER, tmp_path / "teacher")
        before = (folder / "model.safetensors").read_bytes()
        given = ["prune", "tiny-gpt2", "--teacher", folder, "--out", folder, "--steps", 1]
        code, said = command(monkeypatch, capsys, *given)
        assert code == 1
        assert "is the teacher and would be lost" in said
        assert (folder / "model.safetensors").read_bytes() == before

    def test_what_cannot_be_padded(self, tmp_path, monkeypatch, capsys):
        folder = gl.save(tiny("bloom"), TOKENIZER, tmp_path / "bloom")
        given = ["prune", folder, "--pad", "--steps", 1, "--out", tmp_path / "out"]
        code, said = command(monkeypatch, capsys, *given)
        assert code == 1
        assert "has no entry for the feed-forward width" in said
        assert not (tmp_path / "out").exists()

    def test_a_keep_that_cannot_be_met(self, tmp_path, monkeypatch, capsys):
        given = ["prune", "tiny-gpt2", "--keep", 0.001, "--steps", 0, "--out", tmp_path / "out"]
        code, said = command(monkeypatch, capsys, *given)
        assert code == 1
        assert "leaves 2 neurons, but 4 layers need 4" in said
        with pytest.raises(gl.GumlabError, match="leaves 2 neurons"):
            demo("tiny-gpt2", TASK, tmp_path / "demo", keep=0.001, steps=1)
        assert not (tmp_path / "demo").exists()


def with_nan_in_its_head():
    model = tiny("llama", tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[5, 0] = torch.nan
    return model


class TestNotFinite:
    @pytest.mark.parametrize(
        "measure",
        [gl.redundancy, lambda *given: gl.score(given[0], "taylor", *given[1:])],
        ids=["redundancy", "taylor"],
    )
    def test_gradients_are_named(self, measure):
        with pytest.raises(gl.GumlabError, match=r"gradient in .* is not finite.*head's too"):
            measure(with_nan_in_its_head(), TOKENIZER, EXAMPLES)

    def test_so_is_the_loss(self):
        model = with_nan_in_its_head()
        with pytest.raises(gl.GumlabError, match=r"loss on these data is not finite \(nan\)"):
            gl.evaluate(model, TOKENIZER, TASK, generated=0)


class TestReadOnlyOnce:
    @pytest.mark.parametrize(
        "call",
        [
            lambda model: gl.prune(model, "wanda", TOKENIZER, iter(EXAMPLES)),
            lambda model: gl.train(model, TOKENIZER, iter(EXAMPLES), steps=1, progress=False),
            lambda model: gl.redundancy(model, TOKENIZER, (example for example in EXAMPLES)),
        ],
        ids=["prune", "train", "redundancy"],
    )
    def test_examples(self, call):
        with pytest.raises(gl.GumlabError, match=r"read more than once.* list\(examples\)"):
            call(tiny("gpt2"))

    def test_scores_and_masks(self):
        with pytest.raises(gl.GumlabError, match="scores must be a list of tensors"):
            gl.select((score for score in gl.score(tiny("gpt2"), "magnitude")), 0.5)
        with pytest.raises(gl.GumlabError, match="masks must be a list of tensors"):
            gl.shrink(tiny("gpt2"), (mask for mask in MASKS))


def test_widths_may_be_a_tensor():
    scores = gl.score(tiny("gpt2"), "magnitude")
    masks = gl.select(scores, widths=torch.tensor([3, 7]))
    assert [int(mask.sum()) for mask in masks] == [3, 7]


def test_settings_by_layer_of_a_model_s_own_are_not_written_over(tmp_path):
    """Gemma 4 says there which of its heads are larger."""
    if not hasattr(transformers, "Gemma4TextConfig"):
        pytest.skip("this transformers has no Gemma 4")
    config = transformers.Gemma4TextConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=16,
        layer_types=["sliding_attention", "full_attention"], hidden_size_per_layer_input=0,
    )  # fmt: skip
    model = transformers.Gemma4ForCausalLM(config)
    small = gl.shrink(model, random_masks(model, equal=False))
    with pytest.raises(gl.GumlabError, match=r"by layer of its own .* pad=True or with_code=True"):
        gl.save(small, TOKENIZER, tmp_path / "small")
    assert not (tmp_path / "small").exists()
    widths = [layer.width for layer in gl.neurons(small)]
    for layout, expected in (({"pad": True}, [max(widths)] * 2), ({"with_code": True}, widths)):
        folder = gl.save(small, TOKENIZER, tmp_path / next(iter(layout)), **layout)
        loaded, _ = gl.load(folder)
        assert [layer.width for layer in gl.neurons(loaded)] == expected


def test_the_context_of_mpt_is_read():
    config = transformers.MptConfig(
        vocab_size=len(TOKENIZER), d_model=16, n_heads=2, n_layers=2, max_seq_len=12
    )
    model = transformers.MptForCausalLM(config).eval()
    assert context_length(model) == 12
    scores = gl.score(model, "wanda", TOKENIZER, ["w4 w5 w6 " * 20])  # longer than it takes
    assert [len(score) for score in scores] == [64, 64]


def test_blocks_that_give_lists_are_gone_back_through(tmp_path):
    """GPT-1, offloaded: its loss's price needs a backward pass, block by block."""
    config = transformers.OpenAIGPTConfig(
        vocab_size=len(TOKENIZER), n_embd=16, n_layer=2, n_head=2, n_positions=64
    )
    model = transformers.OpenAIGPTLMHeadModel(config).eval()
    away = accelerate.disk_offload(copy.deepcopy(model), tmp_path, "cpu")
    small = [gl.prune(one, "recommended", TOKENIZER, EXAMPLES, keep=0.5) for one in (model, away)]
    widths = [[layer.width for layer in gl.neurons(one)] for one in small]
    assert widths[0] == widths[1]


def test_a_study_knows_a_file_by_its_content(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF one")
    before = of_model(str(file))
    assert of_model(str(file)) == before
    file.write_bytes(b"GGUF two")
    assert of_model(str(file)) != before
