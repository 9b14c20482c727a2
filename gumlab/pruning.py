"""From a model's name to a smaller model and its figures: what `gumlab prune` does."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError
from gumlab.evaluation import evaluate
from gumlab.feedforward import neurons
from gumlab.models import load
from gumlab.pruner import Pruner
from gumlab.scoring import LEARNED
from gumlab.selection import check_keep
from gumlab.shrinking import prune, shrink
from gumlab.tasks import Task
from gumlab.training import train


def pruned(
    name: str,
    method: str,
    task: Task,
    *,
    keep: float,
    steps: int,
    seed: int = 0,
    scope: str | None = None,
    refit: bool | None = None,
    teacher: str | None = None,
    generated: int | None = 200,
    **training: Any,
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """(smaller model, tokenizer, its figures).

    Learned methods prune on the way through `steps` of training, as random and magnitude do where
    there are any; all others cut first, as `gumlab.prune`, and train after. teacher: the name of a
    model with the same tokens. training: as `train` takes it. Raises what those raise.
    """
    check_keep(keep)
    if steps < 0:
        raise GumlabError(f"steps must be 0 or more, got {steps}.")
    model, tokenizer = load(name)
    full = [sum(layer.width for layer in neurons(model)), _size(model)]
    training |= {"steps": steps, "seed": seed}
    if teacher is not None:
        training["teacher"], its_tokenizer = load(teacher)
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise GumlabError(f"{teacher} has other tokens than {name}; choose another teacher.")
    began, options = time.perf_counter(), {"scope": scope} if scope else {}
    torch.manual_seed(seed)
    if method in LEARNED or (steps and method in ("random", "magnitude")):
        pruner = Pruner(model, method, keep, steps, seed=seed, **options)
        train(model, tokenizer, task, pruner=pruner, **training)
        masks = pruner.masks
        pruner.remove()
        small = shrink(model, masks, tokenizer, task, refit=bool(refit))
    else:
        refit = refit is not False
        small = prune(model, method, tokenizer, task, keep=keep, refit=refit, seed=seed, **options)
        if steps:
            train(small, tokenizer, task, **training)
    seconds = time.perf_counter() - began
    split = "test" if task.test else "validation"
    widths = [layer.width for layer in neurons(small)]
    row = {
        "model": name,
        "method": method,
        "task": task.name,
        "steps": steps,
        "seed": seed,
        "teacher": teacher,
        "keep": sum(widths) / full[0],
        "neurons": sum(widths),
        "widths": widths,
        "parameters": _size(small),
        "parameters_kept": _size(small) / full[1],
        "split": split,
        **evaluate(small, tokenizer, task, split, generated=generated),
        "seconds": seconds,
    }
    return small, tokenizer, row


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
