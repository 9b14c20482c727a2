"""One run of a comparison: a base model, a task, a method -> a row of figures."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gumlab.evaluation import MAIN_METRIC, evaluate
from gumlab.feedforward import neurons
from gumlab.inspection import redundancy
from gumlab.pruner import Pruner
from gumlab.scoring import Criterion, score
from gumlab.selection import select
from gumlab.shrinking import RECOMMENDED, shrink
from gumlab.tasks import Task
from gumlab.training import History, train


@dataclass(frozen=True)
class Method:
    """A method as it appears in a table: its label, a Pruner's method (None: dense) and options.

    one_shot: the name is a score's or a criterion of your own (`gumlab.score`), the options are
    those of `select`, and the model is cut once, with the refit unless refit is False or "bias":
    after the share `cut_at` of the steps, which train the whole model, and before the others. Both
    parts have their own warm-up and decay.
    """

    label: str
    name: str | Criterion | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    one_shot: bool = False
    refit: bool | str = True
    cut_at: float = 0.0


PAPER_METHODS = (
    Method("dense"),
    Method("random", "random"),
    Method("magnitude", "magnitude"),
    Method("movement, local", "movement"),
    Method("movement, global", "movement", {"scope": "global"}),
    Method("soft movement", "soft_movement"),
    Method("GUM", "gum"),
)
RECOMMENDED_METHOD = Method(
    "recommended", RECOMMENDED["method"], {"scope": RECOMMENDED["scope"]}, one_shot=True
)


@dataclass
class Run:
    """The shrunk model of one run, its figures, its training's history, and who stayed."""

    model: nn.Module
    row: dict[str, Any]
    history: Any
    masks: list[Any] | None
    pruner: Pruner | None = None


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
    """Prune a copy of `base` on `task` with one method while it trains, shrink it, and measure it.

    The row holds method, keep, neurons and parameters left (with the fraction), loss, the task's
    metrics on `split` (default: test where there is one), sensitivity and uniqueness on training
    examples, and the seconds of the training.
    Every method gets the same steps, batches (by seed) and optimiser. A one-shot method is scored
    and refitted on 256 training examples drawn by the seed.
    """
    began = time.perf_counter()
    training = {"teacher": teacher, **training}
    split = split or ("test" if task.test else "validation")
    model, masks = copy.deepcopy(base), None
    pruner = None
    before = History()
    if method.one_shot:
        if first := round(method.cut_at * steps):
            before = train(model, tokenizer, task, steps=first, seed=seed + 1000, **training)
        seen = random.Random(seed).sample(task.train, min(256, len(task.train)))
        scores = score(model, method.name, tokenizer, seen, seed=seed)
        masks = select(scores, keep, **method.options)
        model = shrink(model, masks, tokenizer, seen, refit=method.refit)
    elif method.name is not None:
        pruner = Pruner(model, method.name, keep, steps, seed=seed, **method.options)
    steps -= len(before.losses)
    history = train(model, tokenizer, task, steps=steps, pruner=pruner, seed=seed, **training)
    history.seconds += before.seconds
    if pruner is not None:
        masks = pruner.masks
        pruner.remove()
        model = shrink(model, masks)
    cut = time.perf_counter() - began - history.seconds
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
        "cut_seconds": cut,
        "seconds": time.perf_counter() - began,
    }
    return Run(model.eval(), row, history, masks, pruner)


def metric_of(task: Task) -> str:
    """The task's main metric, as the tables name it."""
    return MAIN_METRIC[task.metric]
