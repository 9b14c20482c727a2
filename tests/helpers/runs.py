"""The runs on which the invariants are checked: each is trained once in a session, and kept.

A row is a case of METHOD_CASES on one architecture; a way is what is done with it besides.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import gumlab as gl
from gumlab.tasks import Task
from gumlab.training import History
from helpers.methods import METHOD_CASES
from helpers.models import N, hooks_of, linear_twin, logits_of, permuted, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer

KEEP, STEPS = 0.4, 16
# Storages differ (Conv1D, Linear, gated, gate and up in one matrix) in what the scores read, so
# each has every kind of score; the odd ones differ only around the block.
SOME = ("magnitude", "movement-layer-neuron", "soft_movement-neuron", "gum-gate")
ROWS = [
    *((case, "gpt2") for case in METHOD_CASES),
    *((case, "phi3") for case in METHOD_CASES),
    *((case, "gpt_neo") for case in SOME),
    *((case, "llama") for case in SOME),
    *((case, "gemma3_text") for case in ("random", "magnitude", "gum-gate")),
    ("gum-gate", "opt"),
    ("gum-gate", "gptj"),
]
ORDERS = [torch.randperm(N, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
TWINS = {"twin_filter": 0.5, "gram_every": 2}
# what these cases have besides in a run that cuts
CUT_TOO: dict[str, dict[str, Any]] = {
    "magnitude": TWINS,
    "movement-layer-gate": {"multiple_of": 4},
}
LATE = {"start": 0.5, "end": 0.8}  # rounding has few steps to part two runs that are equal


@dataclass
class Run:
    """A finished run, and what was seen of it before and after its gates went."""

    model: nn.Module  # without gates
    pruner: gl.Pruner
    history: History
    batch: dict[str, torch.Tensor]
    masks: list[torch.Tensor]
    original_masks: list[torch.Tensor]
    scores: list[torch.Tensor]
    said: str
    gated: torch.Tensor
    small: nn.Module  # shrunk while the gates were on
    untouched: bool  # whether the shrinking left the model's weights as they were
    dense: torch.Tensor
    hooks: int


def small_task() -> Task:
    """Twelve, five and six examples of prompts whose target repeats some of their words."""
    return Task("tiny", "bleu", make_examples(12), make_examples(5, 1), make_examples(6, 2))


def model_for(name: str, way: str) -> nn.Module:
    if way not in ("double", "permuted", "linear"):
        return tiny(name)
    model = tiny(name).double()
    if way == "linear":
        return linear_twin(model)
    return permuted(model, ORDERS) if way == "permuted" else model


def options_for(case: str, way: str) -> dict[str, Any]:
    _, options = METHOD_CASES[case]
    if way in ("double", "permuted", "linear"):
        return LATE | options
    if way in ("final", "cut"):
        return options | CUT_TOO.get(case, {}) | {way: True}
    return options


@functools.cache
def trained(case: str, name: str, way: str = "plain") -> Run:
    """The run of a row.

    way: "plain"; "again", from another state of the global generator; "double", in float64, and
    its two twins "permuted" and "linear"; "final", which asks no neuron back, and "cut".
    """
    torch.manual_seed(2 if way == "again" else 1)
    model, tokenizer, task = model_for(name, way), word_tokenizer(), small_task()
    steps = 8 if way in ("double", "permuted", "linear") else STEPS
    method, _ = METHOD_CASES[case]
    pruner = gl.Pruner(model, method, KEEP, steps, **options_for(case, way))
    if way == "permuted" and method == "random":  # drawn by position: give both the same neurons
        drawn = trained(case, name, "double").scores
        moved = [s[order] for s, order in zip(drawn, ORDERS, strict=True)]
        pruner.rule.load_state_dict({"scores": moved})
    settings: dict[str, Any] = {"batch_size": 4, "lr": 1e-2, "progress": False}
    history = gl.train(model, tokenizer, task, steps=steps, pruner=pruner, **settings)
    batch = one_batch(model, tokenizer, task.test)
    gated = logits_of(model, batch)
    weights = copy.deepcopy(model.state_dict())
    small = gl.shrink(model, pruner.masks)
    untouched = all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    masks, said = pruner.masks, repr(pruner)
    pruner.remove()
    return Run(
        model=model,
        pruner=pruner,
        history=history,
        batch=batch,
        masks=masks,
        original_masks=pruner.original_masks,
        scores=[score.detach() for score in pruner.scores],
        said=said,
        gated=gated,
        small=small,
        untouched=untouched,
        dense=logits_of(model, batch),
        hooks=hooks_of(model),
    )


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def assert_states_close(ours, theirs, **tolerance):
    """The same values, and tensors as close as `tolerance`: rtol and atol."""
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, **tolerance)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_states_close(ours[key], theirs[key], **tolerance)
    elif isinstance(ours, list | tuple):
        for one, other in zip(ours, theirs, strict=True):
            assert_states_close(one, other, **tolerance)
    else:
        assert ours == theirs
