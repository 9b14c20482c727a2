"""Arguments: what cannot be is one sentence with the argument's name, in Python and on the command
line; what is given is used or refused; what a call finds, it leaves.

The kinds "The Python API trusts what the command line checks" and "State that is not restored or
seeded" of the public reports, and what was found by reading beside them.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import transformers
from helpers.models import hooks_of, random_masks, tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab import errors, measurement, rules, selection
from gumlab.cli import main
from gumlab.course import plots
from gumlab.evaluation import generate, text_loss, windows
from gumlab.study import Cell, Method, Study, named, run
from gumlab.study.methods import METHOD_OPTIONS, TRAINING_OPTIONS
from gumlab.tasks import Task
from gumlab.training import Frame, History

TOKENIZER = word_tokenizer()
TASK = Task("tiny", "bleu", make_examples(12), make_examples(5, 1), make_examples(6, 2))
SCORES = [torch.arange(8.0), torch.arange(8.0)]
CELL = {"model": "tiny-gpt2", "task": "tables", "method": Method("gum", "gum"), "keep": 0.5}


def recorded() -> History:
    """A run of two frames."""
    frames = [Frame(step, [torch.ones(4, dtype=torch.bool)], [torch.ones(4)]) for step in (1, 2)]
    return History([1.0, 0.9], [1.0, 1.0], 1.0, frames)


# every public function of which an argument is a number or a name, called with some of them
CALLS = {
    "score": lambda m, **o: gl.score(m, "random", **o),
    "select": lambda m, **o: gl.select(SCORES, **o),
    "layer_widths": lambda m, **o: selection.layer_widths(SCORES, **{"keep": 0.5, **o}),
    "top": lambda m, **o: selection.top(SCORES[0], **o),
    "schedule": lambda m, **o: selection.schedule(**{"step": 1, "steps": 9, "keep": 0.5, **o}),
    "redundancy": lambda m, **o: gl.redundancy(m, TOKENIZER, TASK, **o),
    "evaluate": lambda m, **o: gl.evaluate(m, TOKENIZER, TASK, **o),
    "generate": lambda m, **o: generate(m, TOKENIZER, TASK.test, **o),
    "text_loss": lambda m, **o: text_loss(m, TOKENIZER, TASK.test, **o),
    "windows": lambda m, **o: windows([1, 2, 3], **{"context": 2, "stride": 1, **o}),
    "measure": lambda m, **o: gl.measure(m, **{"latency": False, **o}),
    "compare": lambda m, **o: measurement.compare({"m": m}, **o),
    "latencies": lambda m, **o: measurement.latencies({"m": m}, **o),
    "movement": lambda m, **o: rules.Movement(**o),
    "soft_movement": lambda m, **o: rules.SoftMovement(**o),
    "gum": lambda m, **o: rules.GUM(**o),
    "run": lambda m, **o: run(m, TOKENIZER, TASK, Method("dense"), **o),
    "Method": lambda m, **o: Method("one", "obs", one_shot=True, **o),
    "named": lambda m, **o: named("gum", **o),
    "Cell": lambda m, **o: Cell(**{**CELL, "seed": 0, "steps": 5, **o}),
    "start": lambda m, **o: gl.start(**o),
    "removal": lambda m, **o: gl.explore.removal(m, TOKENIZER, TASK, **o),
    "tradeoff": lambda m, **o: gl.explore.tradeoff(m, TOKENIZER, TASK, **o),
    "worth": lambda m, **o: gl.explore.worth(m, TOKENIZER, TASK, **o),
    "deletion": lambda m, **o: gl.explore.deletion(m, TOKENIZER, TASK, **o),
    "twins": lambda m, **o: gl.explore.twins(m, TOKENIZER, TASK, **o),
    "texts": lambda m, **o: gl.explore.texts({"m": m}, TOKENIZER, TASK, **o),
    "sentence": lambda m, **o: gl.explore.sentence(m, TOKENIZER, TASK, **o),
    "page": lambda m, **o: gl.explore.page(**o),
    "training_runs": lambda m, **o: plots.training_runs({"one": recorded()}, **o),
    "replay": lambda m, **o: plots.replay(recorded(), **{"index": 0, "layer": 0, **o}),
}
NOT_WHOLE = (-1, 1.5, math.nan, math.inf, True, "2", [], b"", np.float64(2), torch.tensor([2]))
NOT_A_NUMBER = (math.nan, math.inf, -math.inf, "0.1", [], True, {}, 1j, torch.tensor([0.1]))
NOT_A_NAME = ("lyer", "", 3, [], None, True, np.array(["layer"]))
NOT_A_FLAG = (1, 0, "yes", None, [], math.nan)
WRONG = {
    "count": NOT_WHOLE,
    "optional count": NOT_WHOLE,
    "whole": (0, None, *NOT_WHOLE),
    "optional whole": (0, *NOT_WHOLE),
    "two or more": (0, 1, None, *NOT_WHOLE),
    "seed": (2**32, None, *NOT_WHOLE),
    "fraction": (0, -0.5, 1.5, None, *NOT_A_NUMBER),
    "number": (-0.5, None, *NOT_A_NUMBER),
    "above 0": (0, -0.5, None, *NOT_A_NUMBER),
    "any number": (None, *NOT_A_NUMBER),
    "optional above 0": (0, -0.5, *NOT_A_NUMBER),
    "name": NOT_A_NAME,
    "optional name": tuple(value for value in NOT_A_NAME if value is not None),
    "flag": NOT_A_FLAG,
    "optional flag": tuple(value for value in NOT_A_FLAG if value is not None),
}
ARGUMENTS = [
    ("score", "seed", "seed"),
    ("score", "split", "name"),
    ("score", "limit", "optional whole"),
    ("score", "batch_size", "whole"),
    ("score", "gradients", "optional flag"),
    ("select", "keep", "fraction"),
    ("select", "scope", "name"),
    ("select", "floor", "count"),
    ("select", "multiple_of", "whole"),
    ("select", "standardise", "flag"),
    ("select", "twin_filter", "number"),
    ("layer_widths", "keep", "fraction"),
    ("layer_widths", "scope", "name"),
    ("top", "count", "count"),
    ("schedule", "step", "count"),
    ("schedule", "steps", "whole"),
    ("schedule", "keep", "fraction"),
    ("schedule", "start", "any number"),
    ("schedule", "end", "any number"),
    ("redundancy", "split", "name"),
    ("redundancy", "limit", "optional whole"),
    ("redundancy", "batch_size", "whole"),
    ("redundancy", "ridge", "number"),
    ("redundancy", "robust", "optional name"),
    ("evaluate", "split", "name"),
    ("evaluate", "limit", "optional whole"),
    ("evaluate", "generated", "optional count"),
    ("evaluate", "batch_size", "whole"),
    ("evaluate", "beams", "whole"),
    ("evaluate", "stride", "optional whole"),
    ("generate", "batch_size", "whole"),
    ("generate", "beams", "whole"),
    ("text_loss", "batch_size", "whole"),
    ("text_loss", "stride", "optional whole"),
    ("windows", "context", "whole"),
    ("windows", "stride", "whole"),
    ("measure", "latency", "flag"),
    ("measure", "tokens", "whole"),
    ("measure", "decoded", "whole"),
    ("measure", "repeats", "two or more"),
    ("compare", "tokens", "whole"),
    ("compare", "decoded", "whole"),
    ("compare", "repeats", "two or more"),
    ("latencies", "batch", "whole"),
    ("latencies", "tokens", "whole"),
    ("latencies", "repeats", "whole"),
    ("movement", "score_lr", "optional above 0"),
    ("movement", "gradient", "name"),
    ("soft_movement", "penalty", "number"),
    ("gum", "penalty", "number"),
    ("gum", "lambda_gum", "any number"),
    ("run", "keep", "fraction"),
    ("run", "steps", "count"),
    ("run", "seed", "seed"),
    ("run", "split", "optional name"),
    ("run", "generated", "optional count"),
    ("Method", "cut_at", "number"),
    ("named", "steps", "count"),
    ("Cell", "keep", "fraction"),
    ("Cell", "seed", "seed"),
    ("Cell", "steps", "count"),
    ("Cell", "distilled", "flag"),
    ("Cell", "split", "optional name"),
    ("Cell", "generated", "optional count"),
    ("start", "seed", "seed"),
    ("start", "threads", "optional whole"),
    ("removal", "examples", "whole"),
    ("tradeoff", "examples", "whole"),
    ("worth", "examples", "whole"),
    ("worth", "limit", "optional whole"),
    ("deletion", "examples", "whole"),
    ("twins", "limit", "optional whole"),
    ("texts", "examples", "whole"),
    ("sentence", "examples", "whole"),
    ("sentence", "tokens", "whole"),
    ("page", "steps", "whole"),
    ("training_runs", "window", "whole"),
    ("replay", "index", "count"),
    ("replay", "layer", "count"),
]


class TestWhatCannotBe:
    """A raw error from inside, or a value that is taken as something else."""

    @pytest.mark.parametrize(("call", "argument", "kind"), ARGUMENTS)
    def test_is_one_sentence_that_names_the_argument(self, call, argument, kind, gpt2):
        for value in WRONG[kind]:
            with pytest.raises(gl.GumlabError, match=rf"\b{argument}\b") as refused:
                CALLS[call](gpt2, **{argument: value})
            assert "\n" not in str(refused.value), value

    @pytest.mark.parametrize(
        ("call", "argument", "value"),
        [
            ("score", "seed", 3),
            ("select", "floor", 2),
            ("select", "multiple_of", 2),
            ("top", "count", 3),
            ("schedule", "step", 4),
            ("latencies", "batch", 2),
            ("evaluate", "batch_size", 3),
        ],
    )
    def test_a_whole_number_of_numpy_or_torch_is_one(self, call, argument, value, gpt2):
        want = CALLS[call](gpt2, **{argument: value})
        for same in (np.int64(value), np.uint8(value), torch.tensor(value)):
            got = CALLS[call](gpt2, **{argument: same})
            if call != "latencies":
                assert repr(got) == repr(want), type(same)

    @pytest.mark.parametrize("keep", [np.float64(0.5), np.float32(0.5), 1])
    def test_so_is_a_fraction_of_numpy_s(self, keep):
        want = gl.select(SCORES, float(keep))
        assert all(a.equal(b) for a, b in zip(gl.select(SCORES, keep), want, strict=True))

    @pytest.mark.parametrize(
        ("use", "words"),
        [
            (lambda m: gl.select([]), "no scores"),
            (lambda m: gl.select([[3.0, 1.0]]), r"scores\[0\] must be a tensor; got list"),
            (lambda m: gl.select("scores"), "scores must be a list"),
            (lambda m: gl.select(SCORES, widths=3), "widths must be a list"),
            (lambda m: gl.select(SCORES, widths=[4, "4"]), r"widths\[1\] must be a whole number"),
            (lambda m: gl.select(SCORES, grams=3), "grams must be a list of tensors"),
            (lambda m: gl.measure(m, batches=[]), "batches is empty"),
            (lambda m: gl.measure(m, batches=8), "batches must be a list of batch sizes; got 8"),
            (lambda m: gl.measure(m, batches=["1"]), "batches must be a whole number"),
            (lambda m: measurement.compare({}), "models must be one or more"),
            (lambda m: measurement.latencies(m), "models must be one or more"),
            (lambda m: gl.score(m, None), "method must be the name of a score or a function"),
            (lambda m: gl.score(m, ["wanda"]), "method must be the name of a score"),
            (lambda m: gl.redundancy(m, TOKENIZER, None), "measured on data"),
            (
                lambda m: gl.redundancy(m, TOKENIZER, TASK, ridge=0, limit=1),
                "no inverse with ridge=0",
            ),
            (lambda m: gl.scoring.random_scores(gl.neurons(m), -1), "seed must be a whole number"),
            (lambda m: rules.rule_of(3, {}), "method must be a name or a rule"),
            (lambda m: rules.GUM(similarity="cosine"), "similarity must be a function"),
            (lambda m: run(m, TOKENIZER, TASK, "gum"), "takes a Task and a Method; got Task and s"),
            (lambda m: run(m, TOKENIZER, TASK.train, Method("d")), "got list and Method"),
            (lambda m: gl.explore.texts(m, TOKENIZER, TASK), "models must be models by their"),
            (lambda m: gl.explore.removal(m, TOKENIZER, TASK.train), "task must be a Task"),
            (lambda m: gl.explore.activations(m, TOKENIZER, ""), "text must be a text"),
            (lambda m: plots.training_runs({}), "one to three runs; got 0"),
            (lambda m: plots.training_runs(dict.fromkeys("abcd")), "one to three runs; got 4"),
            (lambda m: gl.evaluate(m, TOKENIZER, TASK, generated="all"), "generated must be a"),
            (lambda m: gl.evaluate(m, TOKENIZER, TASK, generated=0, beams=4), "beams would change"),
        ],
    )
    def test_neither_can_something_else_in_place_of_a_list(self, use, words, gpt2):
        with pytest.raises(gl.GumlabError, match=words):
            use(gpt2)

    def test_a_negative_count_selects_no_one_in_place_of_all_but_some(self):
        with pytest.raises(gl.GumlabError, match="count must be a whole number, 0 or more; got -2"):
            selection.top(SCORES[0], -2)
        assert int(selection.top(SCORES[0], 0).sum()) == 0


class TestMisspelt:
    """An option that nobody knows is swallowed, or told too late."""

    @pytest.mark.parametrize(
        ("use", "words"),
        [
            (lambda m: gl.Pruner(m, "gum", penality=1), "Did you mean 'penalty'"),
            (lambda m: gl.Pruner(m, "random", multiple_off=8), "Did you mean 'multiple_of'"),
            (lambda m: gl.Pruner(m, "obs", gramm_every=8), "'gram_every'"),
            (lambda m: named("gum", 5, penality=1), "Did you mean 'penalty'"),
            (lambda m: named("gum", 5, twin_fliter=0.8), "Did you mean 'twin_filter'"),
            (lambda m: named("wanda", 5, flor=1), "Did you mean 'floor'"),
            (lambda m: run(m, TOKENIZER, TASK, Method("d"), batchsize=4), "'batch_size'"),
            (lambda m: Cell(**CELL, seed=0, steps=5, training={"rl": 1}), "Unknown setting 'rl'"),
            (lambda m: Method("one", "gumm"), "Did you mean 'gum'"),
            (lambda m: Method("one", "wandas", one_shot=True), "Did you mean 'wanda'"),
        ],
    )
    def test_the_nearest_name_is_told_before_the_work(self, use, words, gpt2):
        before = [p.clone() for p in gpt2.parameters()]
        with pytest.raises(gl.GumlabError, match=words):
            use(gpt2)
        assert all(a.equal(b) for a, b in zip(before, gpt2.parameters(), strict=True))

    @pytest.mark.parametrize("name", sorted({*gl.__all__} - {"GumlabError", *gl._MODULES}))
    def test_where_a_function_lists_its_options_python_tells(self, name):
        function = getattr(gl, name)
        parameters = inspect.signature(function).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            assert name == "Pruner", "its **options must be tested above"
            return
        needed = [p for p in parameters.values() if p.default is p.empty]
        with pytest.raises(TypeError, match="unexpected keyword argument 'typo'"):
            function(*[None for _ in needed], typo=1)

    def test_the_nearest_names_are_those_that_the_pruner_has(self):
        own = [
            p for p in inspect.signature(gl.Pruner).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        assert {p.name for p in own} == {*rules.OF_THE_PRUNER}

    def test_a_grid_may_vary_what_there_is(self):
        assert {"lr", "batch_size", "kd_weight", "precision"} <= {*TRAINING_OPTIONS}
        assert {"scope", "widths", "penalty", "gram_every"} <= {*METHOD_OPTIONS}


class TestOptionsThatNothingComesOf:
    """What is given and not used: refused, where it is given."""

    @pytest.mark.parametrize("method", ["random", "magnitude", "movement"])
    @pytest.mark.parametrize("name", rules.OF_THE_GRAMS)
    def test_gram_settings_where_no_sums_are_kept(self, method, name):
        with pytest.raises(gl.GumlabError, match=f"{name}: .* keeps no running Gram sums"):
            Method("one", method, {name: 0.5})
        Method("one", method, {name: 0.5, "twin_filter": 0.8})

    def test_of_gum_without_its_term_too(self):
        with pytest.raises(gl.GumlabError, match="gram_memory: the rule GUM keeps no"):
            Method("plain L1", "gum", {"lambda_gum": 0.0, "gram_memory": 0.5})
        Method("GUM", "gum", {"gram_memory": 0.5})

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"name": "gum", "cut_at": 0.5}, "cut_at is for a method that cuts once"),
            ({"name": None, "options": {"penalty": 1}}, "A dense run removes nothing"),
            ({"name": None, "one_shot": True}, "A dense run removes nothing"),
            ({"name": "gum", "refit": "biased"}, 'refit must be True, False or "bias"'),
            ({"name": "gum", "options": ["penalty"]}, "options must be a mapping"),
            ({"name": rules.Random(), "one_shot": True}, "A rule prunes on the way"),
            ({"name": rules.Random(), "options": {"penalty": 1}}, "belong to a rule"),
            ({"name": gl.scoring.wanda}, "wanda is no training-time method.*one_shot=True"),
        ],
    )
    def test_a_method_s_own(self, given, words):
        with pytest.raises(gl.GumlabError, match=words):
            Method("one", **given)

    @pytest.mark.parametrize(
        ("name", "value"), [("gram_every", 1), ("gram_tokens", 1.0), ("gram_memory", 0.5)]
    )
    def test_gram_settings_of_a_pruner_without_sums(self, name, value, gpt2):
        with pytest.raises(gl.GumlabError, match=f"{name}: the rule Random keeps no running"):
            gl.Pruner(gpt2, "random", 0.5, 4, **{name: value})
        gl.Pruner(gpt2, "random", 0.5, 4, twin_filter=0.8, **{name: value}).remove()
        assert not any(layer.proj._forward_pre_hooks for layer in gl.neurons(gpt2))


LOGGERS = ("", "transformers", "gumlab", "torch")


def state_of(model, tokenizer) -> dict:
    """Everything that a call which measures must leave as it was."""
    return {
        "modes": [module.training for module in model.modules()],
        "trained": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad is None for p in model.parameters()],
        "weights": [p.detach().clone() for p in model.parameters()],
        "hooks": hooks_of(model),
        "forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "generation": model.generation_config.to_dict(),
        "config": model.config.to_dict(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state()[1],
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "gradient": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "threads": torch.get_num_threads(),
        "tokenizer": (tokenizer.padding_side, tokenizer.truncation_side, len(tokenizer)),
        "pad": tokenizer.pad_token_id,
        "filters": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in LOGGERS],
        "verbosity": transformers.logging.get_verbosity(),
    }


def assert_same(after: dict, before: dict) -> None:
    for name, value in before.items():
        if isinstance(value, torch.Tensor | np.ndarray | list) and len(value):
            pairs = zip(after[name], value, strict=True)
            assert all(bool((a == b).all() if hasattr(a, "all") else a == b) for a, b in pairs), (
                name
            )
        else:
            assert after[name] == value, name


def restless(seed: int = 0):
    """A model with dropout in training mode, a frozen weight and a frozen block."""
    model = tiny("gpt2", seed, resid_pdrop=0.4, embd_pdrop=0.4, attn_pdrop=0.4).train()
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    return model


def described(result) -> str:
    """A result as text that shows every digit."""
    if isinstance(result, torch.nn.Module):
        return described([p.detach() for p in result.parameters()])
    if isinstance(result, torch.Tensor):
        return repr(result.tolist())
    if isinstance(result, list | tuple):
        return repr([described(item) for item in result])
    return repr(result)


def drawn(explorer) -> str:
    if explorer.error is not None:
        raise explorer.error
    return explorer.sentence


def numbers_of(done) -> dict:
    return {name: v for name, v in done.row.items() if "seconds" not in name}


QUICK = {"batches": [1], "tokens": 4, "decoded": 2, "repeats": 2}
SMALL = {"keep": 0.5, "generated": 2, "batch_size": 4, "progress": False}
MEASURING = {
    "score by gradients": lambda m, t: gl.score(m, "taylor", t, TASK, batch_size=4),
    "score layer by layer": lambda m, t: gl.score(m, "wanda", t, TASK, batch_size=4),
    "score at random": lambda m, t: gl.score(m, "random"),
    "redundancy": lambda m, t: gl.redundancy(m, t, TASK, batch_size=4).obs,
    "evaluate": lambda m, t: gl.evaluate(m, t, TASK, generated=2, batch_size=4),
    "evaluate by beams": lambda m, t: gl.evaluate(m, t, TASK, generated=2, beams=2),
    "measure": lambda m, t: gl.measure(m, **QUICK)["parameters"],
    "prune": lambda m, t: gl.prune(m, "obs", t, TASK, batch_size=4),
    "shrink": lambda m, t: gl.shrink(m, random_masks(m), t, TASK, refit=True),
    "run, on the way": lambda m, t: numbers_of(
        run(m, t, TASK, Method("gum", "gum"), steps=3, **SMALL)
    ),
    "run, once": lambda m, t: numbers_of(
        run(m, t, TASK, Method("obs", "obs", one_shot=True), steps=2, **SMALL)
    ),
    "explore.removal": lambda m, t: drawn(gl.explore.removal(m, t, TASK, 3)),
    "explore.worth": lambda m, t: drawn(gl.explore.worth(m, t, TASK, 3)),
    "explore.twins": lambda m, t: drawn(gl.explore.twins(m, t, TASK, 8)),
    "explore.texts": lambda m, t: drawn(gl.explore.texts({"m": m}, t, TASK, 2)),
    "explore.activations": lambda m, t: drawn(gl.explore.activations(m, t, "w5 w6 w7")),
    "explore.deletion": lambda m, t: drawn(gl.explore.deletion(m, t, TASK, 3)),
}


class TestWhatIsLeftAsItWas:
    """State that is not restored or seeded (pytorch/pytorch 37322)."""

    @pytest.mark.parametrize("name", MEASURING)
    def test_whatever_is_measured_and_twice_the_same(self, name):
        model, tokenizer = restless(), word_tokenizer()
        before = state_of(model, tokenizer)
        once = MEASURING[name](model, tokenizer)
        assert_same(state_of(model, tokenizer), before)
        torch.rand(3)  # whatever the caller drew in the meantime
        assert described(MEASURING[name](model, tokenizer)) == described(once)

    @pytest.mark.parametrize("name", [n for n in MEASURING if n != "score at random"])
    def test_also_when_it_ends_in_the_middle(self, name):
        model, tokenizer = restless(), word_tokenizer()
        passes = []

        def tired(*_):
            passes.append(0)
            if len(passes) > 1:
                raise RuntimeError("the device said no")

        model.transformer.h[1].mlp.register_forward_hook(tired)
        before = state_of(model, tokenizer)
        with pytest.raises(RuntimeError, match="the device said no"):
            [MEASURING[name](model, tokenizer) for _ in "12"]  # some take one pass only
        assert_same(state_of(model, tokenizer), before)
        assert len(passes) > 1


@pytest.fixture
def gumlab(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["gumlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, *capsys.readouterr()

    return run_command


OUT = ["--out", "m"]


class TestCommandLine:
    """The command line and Python say the same sentence, before anything is loaded."""

    @pytest.mark.parametrize(
        ("arguments", "check"),
        [
            (["evaluate", "M", "--limit", "0"], lambda: errors.check_whole("limit", 0)),
            (["evaluate", "M", "--batch-size", "0"], lambda: errors.check_whole("batch_size", 0)),
            (["evaluate", "M", "--beams", "0"], lambda: errors.check_whole("beams", 0)),
            (["evaluate", "M", "--stride", "-1"], lambda: errors.check_whole("stride", -1)),
            (["evaluate", "M", "--generated=-1"], lambda: errors.check_whole("generated", -1, 0)),
            (["redundancy", "M", "--limit=-3"], lambda: errors.check_whole("limit", -3)),
            (["measure", "M", "--batch", "0"], lambda: errors.check_whole("batches", 0)),
            (["measure", "M", "--tokens", "0"], lambda: errors.check_whole("tokens", 0)),
            (["measure", "M", "--repeats", "1"], lambda: errors.check_whole("repeats", 1, 2)),
            (["prune", "M", *OUT, "--lr", "nan"], lambda: errors.check_number("lr", math.nan)),
            (["prune", "M", *OUT, "--lr=-1"], lambda: errors.check_number("lr", -1.0)),
            (["prune", "M", *OUT, "--seed=-1"], lambda: errors.check_seed(-1)),
            (["prune", "M", *OUT, "--steps=-1"], lambda: errors.check_whole("steps", -1, 0)),
            (["prune", "M", *OUT, "--keep", "nan"], lambda: selection.check_keep(math.nan)),
            (
                ["prune", "M", *OUT, "--scope", "globl"],
                lambda: errors.check_choice("scope", "globl", ("layer", "global")),
            ),
            (["demo", "--steps", "0"], lambda: errors.check_whole("steps", 0)),
            (["demo", "--keep", "0"], lambda: selection.check_keep(0.0)),
            (["demo", "--seed", "4294967296"], lambda: errors.check_seed(2**32)),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_value_out_of_range(self, arguments, check, gumlab, tmp_path):
        with pytest.raises(gl.GumlabError) as sentence:
            check()
        code, text, error = gumlab(*arguments)  # there is no model M: it was never looked for
        assert (code, text, error) == (1, "", f"gumlab: {sentence.value}\n")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["prune", "M", *OUT, "--steps", "0", "--lr", "0.1"], "--lr would change nothing"),
            (["prune", "M", *OUT, "--steps", "0", "--teacher", "T"], "--teacher would change"),
            (["prune", "M", *OUT, "--method", "gumm"], "Did you mean 'gum'"),
            (["evaluate", "M", "--beams", "4", "--generated", "0"], "--beams would change nothing"),
            (["measure", "M", "N", "M"], "M is named twice"),
            (["evaluate", "tiny-gpt2", "--data-dir", "x"], "reads no files"),
            (["evaluate", "tiny-gpt2", "--task", "e2e", "--data-dir", "x"], "There is no folder"),
            (["prune", "M", "--out", "file"], "Cannot write to file: it is a file"),
            (["prune", "M", "--out", "full"], "full holds files that are not a checkpoint"),
            (["demo", "--out", "file"], "Cannot write to file"),
            (["release", "full"], "is not an empty folder"),
            (["doctor", "nowhere"], "nowhere"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_options_that_contradict_and_outputs_that_cannot_be(
        self, arguments, words, gumlab, tmp_path
    ):
        (tmp_path / "file").write_text("mine")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("mine")
        code, text, error = gumlab(*arguments)
        assert (code, text) == (1, "")
        assert words in error
        assert len(error.splitlines()) == 1
        assert sorted(os.listdir(tmp_path)) == ["file", "full"]
        assert os.listdir(tmp_path / "full") == ["thesis.txt"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["prunes"], "Did you mean 'prune'"),
            (["evalute", "M"], "Did you mean 'evaluate'"),
            (["measure", "M", "--token", "4"], "--tokens"),
            (["measure", "M", "--tokens", "four"], "'--tokens'"),
            (["prune", "M"], "--out"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_usage_is_code_2_and_names_the_nearest(self, arguments, words, gumlab):
        code, text, error = gumlab(*arguments)
        assert (code, text) == (2, "")
        assert "Usage:" in error
        assert words in error
        assert "Traceback" not in error

    def test_nothing_to_pad_is_said(self, gumlab, tmp_path):
        folder = gl.save(tiny("gpt2", n_positions=128), TOKENIZER, tmp_path / "model")
        few = ["--method", "magnitude", "--steps", "0", "--no-refit", "--generated", "0"]
        code, _, error = gumlab("prune", folder, *OUT, *few, "--pad", "--keep", "0.5")
        assert code == 0, error
        assert "--pad had nothing to do" in error

    @pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise")
    def test_a_reader_that_leaves_gets_no_traceback(self):
        command = [sys.executable, "-m", "gumlab.cli", "measure", "tiny-gpt2", "--json"]
        command += ["--tokens", "4", "--decoded", "1", "--repeats", "2", "--batch", "1"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.stdout.close()  # before there is anything to read, as `| head -0` does
        error = running.stderr.read()
        running.wait()
        running.stderr.close()
        assert b"Traceback" not in error
        assert b"BrokenPipe" not in error


class TestStudyArguments:
    """A study's own arguments, and what it runs with."""

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"jobs": 0}, "jobs must be 1 or more"),
            ({"jobs": 1.5}, "jobs must be a whole number"),
            ({"jobs": "2"}, "jobs must be a whole number"),
            ({"threads": 0}, "threads must be a whole number"),
            ({"threads": True}, "threads must be a whole number"),
            ({"retry": 1}, "retry must be True or False"),
        ],
    )
    def test_run(self, options, words, tmp_path):
        study = Study({"model": "tiny-gpt2", "task": "tables", "method": "random"}, tmp_path)
        with pytest.raises(gl.GumlabError, match=words):
            study.run(**options)
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"folder": None}, "folder must be the path of a folder"),
            ({"checkpoints": 1}, "checkpoints must be True or False"),
            ({"extra": "seconds"}, "extra must be a function"),
            ({"data_dir": 3}, "data_dir must be a folder"),
            ({"data_dir": "somewhere"}, "no task of the grid reads it"),
            ({"data_dir": {"e2ee": "x"}}, "Did you mean 'e2e'"),
        ],
    )
    def test_made(self, options, words, tmp_path):
        grid = {"model": "tiny-gpt2", "task": "tables", "method": "random"}
        with pytest.raises(gl.GumlabError, match=words):
            Study(grid, **{"folder": tmp_path / "runs", **options})
        assert not any(tmp_path.iterdir())

    def test_a_home_folder_is_one(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        grid = {"model": "tiny-gpt2", "task": "tables", "method": "random"}
        assert Study(grid, "~/runs").folder == tmp_path / "runs"
        assert os.listdir(tmp_path) == ["runs"]


def test_a_rule_of_your_own_is_a_method_and_every_run_begins_afresh(gpt2):
    """`Method` takes no Rule object, which `Pruner` does."""

    class Outgoing(rules.Rule):
        def scores(self, now):
            self.asked = getattr(self, "asked", 0) + 1
            return [layer.outgoing().detach().norm(dim=1) for layer in now.layers]

    rule = Outgoing()
    options = {"steps": 3, "seed": 5, "batch_size": 4, "progress": False}
    method = Method("outgoing", rule, {"floor": 2})
    done = [run(gpt2, TOKENIZER, TASK, method, generated=0, keep=0.5, **options) for _ in "12"]
    assert not hasattr(rule, "asked")
    assert [one.pruner.rule.asked for one in done] == [3, 3]
    model = copy.deepcopy(gpt2)
    torch.manual_seed(5)
    pruner = gl.Pruner(model, Outgoing(), 0.5, 3, seed=5, floor=2)
    gl.train(model, TOKENIZER, TASK, pruner=pruner, **options)
    for one in done:
        assert all(a.equal(b) for a, b in zip(one.masks, pruner.masks, strict=True))
