"""The module beside the weights: who puts it there, who takes it away, and that gumlab obeys none.

That transformers builds the models by it is in test_without_gumlab.py.
"""

from __future__ import annotations

import ast
import json
import sys

import pytest
import torch
import transformers
from helpers.models import logits_of, random_masks, tiny
from helpers.texts import one_batch

import gumlab as gl
from gumlab.feedforward import BY_CODE, neurons
from gumlab.io import modeling_pruned
from gumlab.io.diagnosis import WITH_CODE, doctor
from gumlab.io.record import RECORD
from gumlab.io.saving import CODE


def unequal(name="gpt2"):
    model = tiny(name)
    return gl.shrink(model, random_masks(model, equal=False))


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A model of unequal widths, saved with the module."""
    return gl.save(unequal(), tokenizer, tmp_path / "model", with_code=True)


@pytest.fixture
def trusting(tmp_path, monkeypatch):
    """Loads a folder as transformers does that trusts its code, which it copies to tmp_path."""
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda folder: transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True
    ).eval()


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())


def change(folder, **values):
    (folder / "config.json").write_text(json.dumps(settings_of(folder) | values))
    (folder / RECORD).unlink(missing_ok=True)


def names(folder):
    return {path.name for path in folder.iterdir()}


def widths(model):
    return [layer.width for layer in neurons(model)]


class TestTheModule:
    """A file that needs torch and transformers alone."""

    def test_it_imports_nothing_else(self):
        tree = ast.parse(CODE.read_text(encoding="utf-8"))
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
        assert imported == {"__future__", "typing", "torch", "transformers"}

    def test_it_reads_the_entry_that_is_written(self, folder):
        assert modeling_pruned.ENTRY == BY_CODE
        assert settings_of(folder)[BY_CODE] == {
            "blocks": ["transformer.h.0.mlp", "transformer.h.1.mlp"],
            "widths": [7, 11],
            "into": ["c_fc"],
            "out": "c_proj",
        }
        named = settings_of(folder)["auto_map"]["AutoModelForCausalLM"]
        assert named == f"{CODE.stem}.GPT2LMHeadModel"
        assert "per_layer_config" not in settings_of(folder)
        assert CODE.name in json.loads((folder / RECORD).read_text())["sha256"]

    def test_it_builds_every_kind_of_block(self, model, tokenizer, examples, tmp_path):
        small = gl.shrink(model, random_masks(model, equal=False))
        folder = gl.save(small, tokenizer, tmp_path / "model", with_code=True)
        kind = getattr(modeling_pruned, type(model).__name__)
        built = kind.from_pretrained(folder).eval()
        batch = one_batch(small, tokenizer, examples)
        assert torch.equal(logits_of(built, batch), logits_of(small, batch))
        assert repr(built) == repr(small)

    @pytest.mark.parametrize("name", ["GPT3LMHeadModel", "pipeline", "GPT2Config"])
    def test_a_class_that_is_no_model_of_transformers_is_none_of_it(self, name):
        with pytest.raises(AttributeError, match=f"has no model class {name!r}"):
            getattr(modeling_pruned, name)

    @pytest.mark.parametrize(
        "record",
        [
            None,
            {"widths": [7, 11]},
            {"blocks": ["transformer.h.0.mlp"], "widths": [7, 11], "into": [], "out": "c_proj"},
            {"blocks": ["transformer.h.9.mlp"], "widths": [7], "into": ["c_fc"], "out": "c_proj"},
        ],
    )
    def test_a_record_that_does_not_fit_is_named(self, record, gpt2):
        setattr(gpt2.config, BY_CODE, record)
        with pytest.raises(ValueError, match=f"{BY_CODE} in config.json is missing, damaged, or"):
            modeling_pruned.GPT2LMHeadModel(gpt2.config)

    def test_a_model_made_of_the_config_alone_has_weights_to_train(self, folder, trusting):
        config = transformers.AutoConfig.from_pretrained(folder)
        model = trusting(folder)
        fresh = type(model)(config)
        assert widths(fresh) == [7, 11]
        for layer in neurons(fresh):
            assert 0 < layer.incoming().std() < 0.1  # 0.02, as the config says
            assert 0 < layer.outgoing().std() < 0.1


class TestSavingAgain:
    """No module and no entry stays behind, and none goes along."""

    @pytest.mark.parametrize("equal", [True, False])
    def test_without_code_over_a_folder_with_it(self, equal, folder, gpt2, tokenizer):
        gl.save(gl.shrink(gpt2, random_masks(gpt2, equal)), tokenizer, folder)
        assert CODE.name not in names(folder)
        assert not {"auto_map", BY_CODE} & settings_of(folder).keys()
        assert all(finding.good for finding in doctor(folder).findings)

    def test_with_code_over_what_a_trainer_wrote_with_it(self, folder, trusting, tokenizer):
        for path in folder.iterdir():
            if path.name not in ("config.json", "model.safetensors", CODE.name):
                path.unlink()  # gumlab.json among them
        (folder / CODE.name).write_text("of an older gumlab")
        gl.save(unequal("llama"), tokenizer, folder, with_code=True)
        assert (folder / CODE.name).read_bytes() == CODE.read_bytes()
        assert widths(trusting(folder)) == [7, 11]

    @pytest.mark.parametrize("with_code", [True, False])
    def test_what_gumlab_loaded_from_it(self, with_code, folder, tokenizer, trusting):
        model, _ = gl.load(folder, device="cpu")
        small = gl.shrink(model, [torch.arange(7) < 3, torch.arange(11) < 5])
        again = gl.save(small, tokenizer, folder.parent / "again", with_code=with_code)
        assert (CODE.name in names(again)) == with_code
        assert (BY_CODE in settings_of(again)) == with_code == ("auto_map" in settings_of(again))
        loaded = trusting(again) if with_code else gl.load(again, device="cpu")[0]
        assert widths(loaded) == [3, 5]

    @pytest.mark.parametrize("with_code", [True, False])
    def test_what_transformers_loaded_by_it(self, with_code, folder, tokenizer, trusting):
        model = trusting(folder)
        assert type(model).__module__.endswith(CODE.stem)
        again = gl.save(model, tokenizer, folder.parent / "again", with_code=with_code)
        assert (CODE.name in names(again)) == with_code
        assert (BY_CODE in settings_of(again)) == with_code == ("auto_map" in settings_of(again))
        loaded, _ = gl.load(again, device="cpu")
        assert type(loaded) is transformers.GPT2LMHeadModel
        assert all(
            torch.equal(value, model.state_dict()[name])
            for name, value in loaded.state_dict().items()
        )

    def test_what_was_pruned_further_is_saved_by_transformers_itself(
        self, folder, tokenizer, trusting, examples
    ):
        model = trusting(folder)
        small = gl.shrink(model, [torch.arange(7) < 3, torch.arange(11) < 5])
        assert model.config.pruned_feed_forward["widths"] == [7, 11]
        small.save_pretrained(folder.parent / "again")
        back = trusting(folder.parent / "again")
        batch = one_batch(small, tokenizer, examples)
        assert torch.equal(logits_of(back, batch), logits_of(small, batch))
        assert widths(back) == [3, 5]

    def test_code_that_is_not_ours_is_not_named_either(self, gpt2, tokenizer, tmp_path):
        """As of a model that was once remote code, and that transformers now builds itself."""
        gpt2.config.auto_map = {"AutoModelForCausalLM": "modeling_old.OldLMHeadModel"}
        folder = gl.save(gpt2, tokenizer, tmp_path / "model")
        assert "auto_map" not in settings_of(folder)
        assert gpt2.config.auto_map


class TestWhatIsRefused:
    """Before anything is written."""

    def refused(self, model, tokenizer, tmp_path, sentence, **options):
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.save(model, tokenizer, tmp_path / "model", with_code=True, **options)
        assert list(tmp_path.iterdir()) == []

    def test_both_padding_and_code(self, tokenizer, tmp_path):
        self.refused(unequal(), tokenizer, tmp_path, "Give one of the two", pad=True)

    def test_what_is_no_truth_value(self, tokenizer, tmp_path):
        with pytest.raises(gl.GumlabError, match="with_code must be True or False"):
            gl.save(unequal(), tokenizer, tmp_path / "model", with_code="yes")

    def test_another_head(self, tokenizer, tmp_path):
        dense = transformers.GPT2ForSequenceClassification(tiny("gpt2", num_labels=3).config)
        small = gl.shrink(dense, random_masks(dense, equal=False))
        self.refused(small, tokenizer, tmp_path, "could be loaded by nothing")

    def test_a_class_that_transformers_does_not_offer(self, tokenizer, tmp_path, monkeypatch):
        small = unequal("llama")
        monkeypatch.setattr(transformers, "LlamaForCausalLM", None)
        monkeypatch.delitem(vars(modeling_pruned), "LlamaForCausalLM", raising=False)
        self.refused(small, tokenizer, tmp_path, "could not build LlamaForCausalLM.*no model class")

    def test_a_class_that_builds_something_else(self, tokenizer, tmp_path, monkeypatch):
        small = unequal("llama")
        monkeypatch.setitem(
            vars(modeling_pruned), "LlamaForCausalLM", transformers.LlamaForCausalLM
        )
        self.refused(small, tokenizer, tmp_path, "it builds other weights than the model's")

    def test_equal_widths_need_no_code(self, gpt2, tokenizer, tmp_path):
        small = gl.shrink(gpt2, random_masks(gpt2))
        folder = gl.save(small, tokenizer, tmp_path / "model", with_code=True)
        assert CODE.name not in names(folder)
        assert "auto_map" not in settings_of(folder)
        assert doctor(folder).loads_with == ["gumlab", "transformers"]


class TestGumlabRunsNone:
    """Whatever stands in the module, gumlab reads the weights alone."""

    def test_a_module_that_would_do_harm_is_not_run(self, folder, tmp_path):
        want = gl.load(folder, device="cpu")[0].state_dict()
        (folder / CODE.name).write_text(f"open({str(tmp_path / 'harm')!r}, 'w').close()\n")
        with pytest.raises(gl.GumlabError, match=rf"do not fit {CODE.name}"):
            gl.load(folder, device="cpu")
        (folder / RECORD).unlink()
        loaded, _ = gl.load(folder, device="cpu")
        assert all(torch.equal(want[key], value) for key, value in loaded.state_dict().items())
        report = doctor(folder)
        assert report.loads_with == ["gumlab"]
        assert f"{CODE.name} is not the module that gumlab adds, and nothing here ran it" in repr(
            report
        )
        assert not (tmp_path / "harm").exists()

    def test_a_module_that_is_missing_is_named(self, folder):
        (folder / CODE.name).unlink()
        (folder / RECORD).unlink()
        report = doctor(folder)
        assert report.loads_with == ["gumlab"]
        assert f"but there is no {CODE.name}. Copy it too." in repr(report)

    def test_a_module_of_another_folder_is_not_looked_for(self, folder):
        change(folder, auto_map={"AutoModelForCausalLM": f"owner/other--{CODE.stem}.X"})
        report = doctor(folder)
        assert report.loads_with == ["gumlab"]
        assert all(finding.good for finding in report.findings)

    def test_a_module_that_does_not_build_the_model_is_named(self, folder):
        change(folder, auto_map={"AutoModelForCausalLM": f"{CODE.stem}.OPTForCausalLM"})
        report = doctor(folder)
        assert report.loads_with == ["gumlab"]
        assert f"{CODE.name} does not build the model" in repr(report)

    def test_without_its_tokenizer_only_transformers_loads_it(self, folder):
        for path in folder.glob("token*"):
            path.unlink()
        (folder / RECORD).unlink()
        report = doctor(folder)
        assert report.loads_with == [WITH_CODE]
        assert "Only transformers with trust_remote_code=True loads it" in repr(report)

    @pytest.mark.parametrize(
        ("record", "sentence"),
        [
            ({"widths": [9, 11]}, f"layer 0 has 7 neurons in the weights, but {BY_CODE} .* says 9"),
            ({"widths": [7, 11, 13]}, "among its widths config.json names layer 2"),
            ({"widths": [7, 0]}, f"{BY_CODE} in config.json is damaged"),
            ({"widths": []}, f"{BY_CODE} in config.json is damaged"),
            ([7, 11], f"{BY_CODE} in config.json is damaged"),
            (None, f"{BY_CODE} in config.json is damaged"),
        ],
    )
    def test_a_record_that_is_not_as_the_weights_are(self, record, sentence, folder):
        change(folder, **{BY_CODE: record})
        with pytest.raises(gl.GumlabError, match=sentence):
            gl.load(folder, device="cpu")
