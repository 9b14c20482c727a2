"""Folders and names that people load: the model as it was saved, or the sentence that must come.

Each class stands for a kind of public report, named beside it.
"""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub as hub
import pytest
import torch
import transformers
from helpers.models import ARCHITECTURES, logits_of, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

import gumlab as gl
from gumlab.feedforward import neurons
from gumlab.io.diagnosis import doctor
from gumlab.io.loading import language_blocks

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def loaded_from(folder, **options):
    return gl.load(folder, device="cpu", **options)[0]


def saved_plainly(model, folder, **options):
    """As transformers' own Trainer leaves a model."""
    model.save_pretrained(folder, **options)
    word_tokenizer().save_pretrained(folder)
    return folder


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder, change):
    """`change` is given the weights by name, to change them."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def same_logits(one, other):
    batch = one_batch(one, word_tokenizer(), make_examples(4))
    return torch.equal(logits_of(one, batch), logits_of(other, batch))


def widths(model):
    return [layer.width for layer in neurons(model)]


@pytest.fixture
def folder(gpt2, tmp_path):
    """A plain model's."""
    return saved_plainly(gpt2, tmp_path / "model")


def refused(folder, sentence):
    """gl.load says it, in one sentence's line, and the doctor says it too and agrees."""
    with pytest.raises(gl.GumlabError, match=sentence) as said:
        gl.load(folder, device="cpu")
    assert "\n" not in str(said.value)
    report = doctor(folder)
    assert "gumlab" not in report.loads_with
    assert str(said.value) in [finding.text for finding in report.findings]


class TestWidths:
    """Widths that gl.save alone knows of (found by trying; VainF/Torch-Pruning 252)."""

    @pytest.mark.parametrize("name", [*ARCHITECTURES, "bloom"])
    def test_what_save_pretrained_wrote_loads(self, name, tmp_path):
        small = gl.shrink(tiny(name), random_masks(tiny(name), equal=False))
        folder = saved_plainly(small, tmp_path)
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        assert type(loaded) is type(small)
        assert loaded.state_dict().keys() == small.state_dict().keys()
        report = doctor(folder)
        assert (report.widths, report.loads_with) == ([7, 11], ["gumlab"])
        assert "unequal widths (read from the weights, config.json says others)" in repr(report)

    @pytest.mark.parametrize(
        ("config", "options"),
        [
            ({}, {"max_shard_size": "4KB"}),
            ({"tie_word_embeddings": True}, {}),
            ({"tie_word_embeddings": True, "attention_bias": True}, {"max_shard_size": "4KB"}),
            ({"num_key_value_heads": 2, "mlp_bias": False}, {}),
        ],
        ids=["shards", "tied", "tied-shards", "no-biases"],
    )
    def test_in_whatever_form(self, config, options, tmp_path):
        model = tiny("llama", **config)
        small = gl.shrink(model, random_masks(model, equal=False))
        folder = saved_plainly(small, tmp_path, **options)
        assert len(list(folder.glob("*.safetensors"))) > 2 * ("max_shard_size" in options)
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert tied == config.get("tie_word_embeddings", False)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_in_the_file_s_own_dtype(self, dtype, tmp_path):
        model = tiny("gemma3_text", dtype=dtype)
        small = gl.shrink(model, random_masks(model, equal=False))
        loaded = loaded_from(saved_plainly(small, tmp_path), dtype="auto")
        assert {p.dtype for p in loaded.parameters()} == {dtype}
        state = small.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())

    def test_a_trainer_s_own_save(self, gpt2, tmp_path):
        pytest.importorskip("accelerate")
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
        trainer = transformers.Trainer(small, arguments, processing_class=word_tokenizer())
        trainer.save_model(tmp_path / "saved")
        assert same_logits(loaded_from(tmp_path / "saved"), small)

    def test_loaded_by_gumlab_saved_by_transformers_loaded_again(self, gpt2, tokenizer, tmp_path):
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        first = loaded_from(gl.save(small, tokenizer, tmp_path / "first"))
        assert same_logits(loaded_from(saved_plainly(first, tmp_path / "second")), small)

    def test_equal_widths_that_the_config_does_not_say(self, model, tmp_path):
        small = gl.shrink(model, random_masks(model))
        folder = saved_plainly(small, tmp_path / "one")
        field = next(
            f for f in ("n_inner", "ffn_dim", "intermediate_size") if f in vars(small.config)
        )
        change_config(folder, **{field: 24})
        assert doctor(folder).loads_with == ["gumlab"]
        loaded = loaded_from(folder)
        assert same_logits(loaded, small)
        assert getattr(loaded.config, field) == 11
        again = saved_plainly(loaded, tmp_path / "two")
        assert doctor(again).loads_with == ["gumlab", "transformers"]

    def test_a_base_model_without_its_head_s_prefix(self, gpt2, tmp_path):
        """As the hub's own gpt2 is: h.0.mlp..., not transformer.h.0.mlp..."""
        small = gl.shrink(gpt2, random_masks(gpt2, equal=False))
        folder = saved_plainly(small.transformer, tmp_path)
        assert "h.0.mlp.c_fc.weight" in load_file(folder / WEIGHTS)
        assert same_logits(loaded_from(folder), small)

    @pytest.mark.parametrize("width", [1, 16, 24])
    def test_a_layer_of_one_neuron_and_one_as_wide_as_the_model(self, model, width, tmp_path):
        masks = [torch.arange(24) < width, torch.arange(24) < 5]
        small = gl.shrink(model, masks)
        loaded = loaded_from(saved_plainly(small, tmp_path))
        assert same_logits(loaded, small)
        assert widths(loaded) == widths(small) == [width, 5]

    @pytest.mark.parametrize(
        ("recorded", "sentence"),
        [
            ({"0": {"n_inner": 9}, "1": {"n_inner": 11}}, "layer 0 has 7 neurons in the weights"),
            ({"1": {"n_inner": 11}}, "layer 0 has 7 neurons.*says that of all layers"),
            ({"0": {"n_inner": 7}, "7": {"n_inner": 7}}, "names layer 7.*2 layers"),
            ({"0": {"n_inner": 0}}, "per_layer_config in config.json is damaged"),
            ({"0": {"n_inner": True}}, "per_layer_config in config.json is damaged"),
            ({"first": {"n_inner": 7}}, "per_layer_config in config.json is damaged"),
            ([7, 11], "per_layer_config in config.json is damaged"),
            ({"0": 7}, "per_layer_config in config.json is damaged"),
        ],
    )
    def test_a_record_that_is_not_as_the_weights_are(self, recorded, sentence, gpt2, tmp_path):
        folder = saved_plainly(gl.shrink(gpt2, random_masks(gpt2, equal=False)), tmp_path)
        change_config(folder, per_layer_config=recorded)
        refused(folder, sentence)

    def test_only_widths_are_read_from_the_weights(self, folder):
        change_config(folder, vocab_size=70)
        refused(folder, r"has others in their place \(.*wte.weight")

    @pytest.mark.parametrize("parameter", ["c_fc.weight", "c_fc.bias", "c_proj.weight"])
    def test_a_block_whose_parts_are_of_two_widths_is_refused(self, parameter, folder):
        key = f"transformer.h.0.mlp.{parameter}"

        def cut(weights):
            axis = 1 if parameter == "c_fc.weight" else 0
            weights[key] = weights[key].narrow(axis, 0, 9).contiguous()

        change_weights(folder, cut)
        refused(folder, r"has others in their place \(.*h\.0\.mlp")


class TestImagesAndText:
    """A model that also sees cannot be loaded again (found by trying, Gemma 3)."""

    @pytest.fixture
    def seeing(self):
        """A tiny one whose two towers are equally wide; every weight about 0.1."""
        text = {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        }
        vision = {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        config = transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=63
        )
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return model

    def logits(self, model):
        ids = torch.tensor([[5, 9, 63, 63, 63, 63, 11, 12]])
        pixels = torch.linspace(-1, 1, 3 * 28 * 28).view(1, 3, 28, 28)
        kinds = (ids == 63).long()
        with torch.no_grad():
            return model(
                input_ids=ids,
                pixel_values=pixels,
                token_type_ids=kinds,
                attention_mask=torch.ones_like(ids),
            ).logits

    def shrunk(self, model, kept):
        """Cut by hand, the language part alone."""
        for layer, width in zip(language_blocks(model), kept, strict=True):
            for module in (*layer.fc, layer.proj):
                axis = int(module is layer.proj)
                module.weight.data = module.weight.data.narrow(axis, 0, width).contiguous()
            layer.set_sizes()
        return model

    @pytest.mark.parametrize("form", ["recorded", "plain", "padded", "dense", "shards"])
    def test_it_loads_as_it_was_saved_and_sees(self, form, seeing, tmp_path):
        kept = {"dense": [24, 24], "padded": [24, 24]}.get(form, [5, 9])
        small = self.shrunk(seeing, kept)
        if form == "padded":
            for layer in language_blocks(small):
                for module in (*layer.fc, layer.proj):
                    module.weight.data.narrow(int(module is layer.proj), 15, 9).zero_()
        options = {"max_shard_size": "16KB"} if form == "shards" else {}
        folder = saved_plainly(small, tmp_path, **options)
        if form == "recorded":
            by_layer = {str(i): {"intermediate_size": width} for i, width in enumerate(kept)}
            change_config(folder, per_layer_config=by_layer)
        loaded = loaded_from(folder)
        assert torch.equal(self.logits(loaded), self.logits(small))
        assert [layer.width for layer in language_blocks(loaded)] == kept
        report = doctor(folder)
        assert report.widths == kept
        assert report.in_use == ([15, 15] if form == "padded" else kept)
        plain = ["gumlab", "transformers"]
        assert report.loads_with == (plain if form in ("dense", "padded") else ["gumlab"])

    def test_the_picture_counts(self, seeing):
        before = self.logits(seeing)
        seeing.model.vision_tower.get_parameter("embeddings.position_embedding.weight").data += 1
        assert not torch.equal(self.logits(seeing), before)

    def test_a_record_that_is_not_as_the_weights_are(self, seeing, tmp_path):
        folder = saved_plainly(self.shrunk(seeing, [5, 9]), tmp_path)
        change_config(folder, per_layer_config={"0": {"intermediate_size": 6}})
        refused(folder, "layer 0 has 5 neurons in the weights, but per_layer_config .* says 6")
