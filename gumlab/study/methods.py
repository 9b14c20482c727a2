"""A method, and one run of it: a base model, a task, a method -> a smaller model and a row."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, unknown
from gumlab.evaluation import MAIN_METRIC, evaluate
from gumlab.feedforward import neurons
from gumlab.inspection import redundancy
from gumlab.io.loading import load
from gumlab.pruner import Pruner
from gumlab.removal import RECOMMENDED, shrink
from gumlab.scoring import LEARNED, SCORES, Criterion, score
from gumlab.selection import check_keep, select
from gumlab.tasks import Example, Task
from gumlab.training import History, train


@dataclass(frozen=True)
class Method:
    """A method as it appears in a table: its label, a Pruner's method (None: dense) and options.

    one_shot: the name is a score's or a criterion of your own (`gumlab.score`), the options are
    those of `select`, and the model is cut once: after the share `cut_at` of the steps, which train
    the whole model, and before the others. Both parts have their own warm-up and decay. refit: as
    in `shrink`; None: only if one_shot.
    """

    label: str
    name: str | Criterion | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    one_shot: bool = False
    refit: bool | str | None = None
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


def named(name: str, steps: int, **options: Any) -> Method:
    """The method of a name, as `gumlab prune` and a study's grid give it.

    name: "dense", "recommended", a learned method, or a score; random and magnitude prune on the
    way where there are steps to train, and every other score cuts before them. options: those of
    `Method`, `Pruner` or `select`; the label shows them. Raises GumlabError for an unknown name.
    """
    label = ", ".join([name, *(f"{key} {value}" for key, value in options.items())])
    fields = {key: options.pop(key) for key in ("one_shot", "refit", "cut_at") if key in options}
    if name == "dense":
        return Method(name)
    if name == "recommended":
        name, options = RECOMMENDED["method"], {**RECOMMENDED_METHOD.options, **options}
    elif name not in SCORES + LEARNED:
        raise unknown("method", name, ("dense", "recommended", *SCORES, *LEARNED))
    gradual = name in LEARNED or (steps > 0 and name in ("random", "magnitude"))
    return Method(label, name, options, **{"one_shot": not gradual, **fields})


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
    calibration: Task | Sequence[Example] | None = None,
    **training: Any,
) -> Run:
    """Prune a copy of `base` on `task` with one method while it trains, shrink it, and measure it.

    The row holds method, keep, neurons and parameters left (with the fraction), loss, the task's
    metrics on `split` (default: test where there is one), sensitivity and uniqueness on training
    examples, and the seconds of the training.
    Every method gets the same steps, batches and dropout (by seed) and optimiser. Scores and refits
    see `calibration`, by default 256 training examples drawn by the seed. Raises GumlabError for a
    keep, steps or options that cannot be.
    """
    check_keep(keep)
    if steps < 0:
        raise GumlabError(f"steps must be 0 or more, got {steps}.")
    began = time.perf_counter()
    torch.manual_seed(seed)
    training = {"teacher": teacher, **training}
    split = split or ("test" if task.test else "validation")
    model, masks = copy.deepcopy(base), None
    pruner, before, history = None, History(), History()
    refit = method.one_shot if method.refit is None else method.refit
    seen = calibration
    if seen is None:
        seen = random.Random(seed).sample(task.train, min(256, len(task.train)))
    if method.one_shot and method.name is not None:
        if first := round(method.cut_at * steps):
            before = train(model, tokenizer, task, steps=first, seed=seed + 1000, **training)
        scores = score(model, method.name, tokenizer, seen, seed=seed)
        masks = select(scores, keep, **method.options)
        model = shrink(model, masks, tokenizer, seen, refit=refit)
    elif method.name is not None:
        pruner = Pruner(model, str(method.name), keep, steps, seed=seed, **method.options)
    steps -= len(before.losses)
    if steps:
        history = train(model, tokenizer, task, steps=steps, pruner=pruner, seed=seed, **training)
    history.seconds += before.seconds
    if pruner is not None:
        masks = pruner.masks
        pruner.remove()
        model = shrink(model, masks, tokenizer, seen, refit=refit)
    cut = time.perf_counter() - began - history.seconds
    row = {"method": method.label, "distilled": teacher is not None, "seed": seed, "split": split}
    row |= _sizes(model, base) | evaluate(model, tokenizer, task, split, generated=generated)
    report = redundancy(model, tokenizer, task, batch_size=training.get("batch_size", 16))
    row |= {"sensitivity": report.mean_sensitivity, "uniqueness": report.uniqueness}
    row |= {
        "widths": [layer.width for layer in neurons(model)],
        "train_seconds": history.seconds,
        "cut_seconds": cut,
        "seconds": time.perf_counter() - began,
    }
    return Run(model.eval(), row, history, masks, pruner)


def _sizes(model: nn.Module, base: nn.Module) -> dict[str, Any]:
    """What is left of a model, in neurons and parameters."""
    left, of = (sum(layer.width for layer in neurons(m)) for m in (model, base))
    size, full = (sum(p.numel() for p in m.parameters()) for m in (model, base))
    sizes = {"parameters": size, "parameters_kept": size / full}
    return {"keep": left / of, "neurons": left, **sizes}


def pruned(
    name: str,
    method: str,
    task: Task,
    *,
    teacher: str | None = None,
    scope: str | None = None,
    refit: bool | None = None,
    steps: int,
    **options: Any,
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """(smaller model, tokenizer, its row): `run` by names, calibrated as `gumlab.prune` is.

    teacher: the name of a model with the same tokens. scope, refit: None for the method's own.
    options: as `run` takes them. Raises what `load`, `named` and `run` raise.
    """
    base, tokenizer = load(name)
    if teacher is not None:
        options["teacher"], its_tokenizer = load(teacher)
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise GumlabError(f"{teacher} has other tokens than {name}; choose another teacher.")
    asked: dict[str, Any] = {"scope": scope, "refit": refit}
    chosen = named(method, steps, **{k: v for k, v in asked.items() if v is not None})
    done = run(base, tokenizer, task, chosen, steps=steps, calibration=task, **options)
    about = {"model": name, "task": task.name, "steps": steps}
    return done.model, tokenizer, about | done.row | {"method": method, "teacher": teacher}


def metric_of(task: Task) -> str:
    """The task's main metric, as the tables name it."""
    return MAIN_METRIC[task.metric]
