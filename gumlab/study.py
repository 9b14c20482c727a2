"""One run of a comparison: a base model, a task, a method -> a row of figures."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gumlab.evaluation import MAIN_METRIC, evaluate
from gumlab.feedforward import neurons
from gumlab.inspection import redundancy
from gumlab.pruner import Pruner
from gumlab.shrinking import shrink
from gumlab.tasks import Task
from gumlab.training import train


@dataclass(frozen=True)
class Method:
    """A method as it appears in a table: its label and the Pruner's arguments (None: dense)."""

    label: str
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


PAPER_METHODS = (
    Method("dense"),
    Method("random", "random"),
    Method("magnitude", "magnitude"),
    Method("movement, local", "movement"),
    Method("movement, global", "movement", {"scope": "global"}),
    Method("soft movement", "soft_movement"),
    Method("GUM", "gum"),
)


@dataclass
class Run:
    """The shrunk model of one run, its figures, and the history of its training."""

    model: nn.Module
    row: dict[str, Any]
    history: Any
    masks: list[Any]


def run(
    base: nn.Module,
    tokenizer: Any,
    task: Task,
    method: Method,
    *,
    keep: float = 0.25,
    steps: int = 300,
    seed: int = 0,
    teacher: nn.Module | None = None,
    split: str | None = None,
    generated: int | None = 200,
    **training: Any,
) -> Run:
    """Prune a copy of `base` on `task` with one method, shrink it, and measure it.

    The row holds method, keep, neurons and parameters left (with the fraction), loss, the task's
    metrics on `split` (default: test where there is one), sensitivity and uniqueness on training
    examples, and the seconds of the training.
    Every method gets the same steps, batches (by seed) and optimiser.
    """
    began = time.perf_counter()
    split = split or ("test" if task.test else "validation")
    model, masks = copy.deepcopy(base), None
    pruner = None
    if method.name is not None:
        pruner = Pruner(model, method.name, keep, steps, seed=seed, **method.options)
    history = train(
        model, tokenizer, task, steps=steps, pruner=pruner, teacher=teacher, seed=seed, **training
    )
    if pruner is not None:
        masks = pruner.masks
        pruner.remove()
        model = shrink(model, masks)
    report = redundancy(model, tokenizer, task)
    scores = evaluate(model, tokenizer, task, split, generated=generated)
    left = sum(layer.width for layer in neurons(model))
    size, full = (sum(p.numel() for p in m.parameters()) for m in (model, base))
    row = {
        "method": method.label,
        "distilled": teacher is not None,
        "seed": seed,
        "split": split,
        "keep": left / sum(layer.width for layer in neurons(base)),
        "neurons": left,
        "parameters": size,
        "parameters_kept": size / full,
        **scores,
        "sensitivity": report.mean_sensitivity,
        "uniqueness": report.uniqueness,
        "widths": [layer.width for layer in neurons(model)],
        "train_seconds": history.seconds,
        "seconds": time.perf_counter() - began,
    }
    return Run(model.eval(), row, history, masks)


def metric_of(task: Task) -> str:
    """The task's main metric, as the tables name it."""
    return MAIN_METRIC[task.metric]
