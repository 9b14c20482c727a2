"""How long a study will take on this machine, from a few batches."""

from __future__ import annotations

import copy
import math
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gumlab.collecting import TOKENS
from gumlab.evaluation import evaluate
from gumlab.study.grid import Cell
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import BLOCK, context_length, encode, is_running_text
from gumlab.training import train

TIMED_STEPS = 3
GENERATED_AT_ONCE = 50  # the batch of `gumlab.evaluate`
PASSAGES = 8  # of running text, which an evaluation is timed on
# sequences whose redundancy a run measures, forward and backward as a step does
MEASURED = 256
MEASURED_OF_TEXT = TOKENS // BLOCK
# what a step costs, in dense steps: a teacher's forward pass is a third of one; GUM with exact Gram
# sums at every step, by results/step.md
TEACHER = 4 / 3
EXACT_GUM = 1.37


@dataclass(frozen=True)
class Estimate:
    """How long the runs that are left will take.

    Attributes
    ----------
    left, runs : int
        How many are to be done, of how many.
    steps : int
        Training steps of a run.
    step_seconds, around_seconds : float
        Of a dense training step; and of what is around the steps of a run, tokenising and
        measuring; as measured here.
    seconds : float
        Of all that is left, one run at a time.
    device : str
        Where it was measured.
    """

    left: int
    runs: int
    steps: int
    step_seconds: float
    around_seconds: float
    seconds: float
    device: str

    def __str__(self) -> str:
        return (
            f"Estimate: {self.left:,} of {self.runs:,} runs are to be done, of {self.steps:,} "
            f"steps each. On this machine ({self.device}) a dense training step takes "
            f"{duration(self.step_seconds)}, and a run's tokenising and evaluation "
            f"{duration(self.around_seconds)}: about {duration(self.seconds)}, one run at a time."
        )


def estimate(
    cells: Sequence[Cell], left: Sequence[Cell], model: nn.Module, tokenizer: Any, data: Task
) -> Estimate:
    """Time a dense training step, tokenising and an evaluation on a few batches, and multiply.

    Parameters
    ----------
    cells, left : sequence of Cell
        A study's runs, all of one task, steps and batch size; and those that are to be done.
    model, tokenizer, data
        What the runs start from; the model stays as it is.

    Returns
    -------
    Estimate
        Reading and writing files are not in it.
    """
    cell = cells[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the runs themselves will cut what is too long
        step_seconds = _step_seconds(cell, model, tokenizer, data)
        around_seconds = _tokenising_seconds(model, tokenizer, data.train)
        around_seconds += _evaluation_seconds(cell, model, tokenizer, data)
    measured = MEASURED_OF_TEXT if is_running_text(data.train) else MEASURED
    batch_size = cell.training.get("batch_size", 16)
    around_seconds += measured / batch_size * step_seconds
    dense_steps = sum(other.steps * _cost(other) for other in left)
    return Estimate(
        left=len(left),
        runs=len(cells),
        steps=cell.steps,
        step_seconds=step_seconds,
        around_seconds=around_seconds,
        seconds=dense_steps * step_seconds + len(left) * around_seconds,
        device=str(next(model.parameters()).device),
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.0421), duration(95), duration(5400), duration(7.3e5)
    ('0.042 s', '95 s', '1.5 hours', '8.4 days')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


def _cost(cell: Cell) -> float:
    """A step of a run, in dense steps."""
    cost = TEACHER if cell.distilled else 1.0
    if cell.method.name == "gum" and cell.method.options.get("gram_every") == 1:
        cost *= EXACT_GUM
    return cost


def _step_seconds(cell: Cell, model: nn.Module, tokenizer: Any, data: Task) -> float:
    """Of a dense training step, after one to warm up."""
    batch_size = cell.training.get("batch_size", 16)
    examples = _some(data.train, 4 * batch_size)
    training: Mapping[str, Any] = cell.dense.training
    trained = copy.deepcopy(model)
    train(trained, tokenizer, examples, steps=1, progress=False, **training)
    history = train(trained, tokenizer, examples, steps=TIMED_STEPS, progress=False, **training)
    return history.seconds / TIMED_STEPS


def _tokenising_seconds(model: nn.Module, tokenizer: Any, examples: Sequence[Example]) -> float:
    """Of all training examples."""
    some = _some(examples, MEASURED)
    began = time.perf_counter()
    encode(tokenizer, some, context_length(model))
    return (time.perf_counter() - began) * len(examples) / len(some)


def _evaluation_seconds(cell: Cell, model: nn.Module, tokenizer: Any, data: Task) -> float:
    """Of `gumlab.evaluate` on the whole split."""
    examples = data.split(cell.split or "test")
    is_text = is_running_text(examples)
    some = examples[:PASSAGES] if is_text else _some(examples, GENERATED_AT_ONCE)
    part = Task(data.name, data.metric, test=some)
    began = time.perf_counter()
    evaluate(model, tokenizer, part, generated=0, stride=cell.stride)
    loss_seconds = time.perf_counter() - began
    seconds = loss_seconds * len(examples) / len(some)
    if is_text or cell.generated == 0:
        return seconds
    began = time.perf_counter()
    evaluate(model, tokenizer, part, generated=None)
    generated_seconds = max(0.0, time.perf_counter() - began - loss_seconds)
    generated = min(len(examples), cell.generated or len(examples))
    return seconds + generated_seconds * math.ceil(generated / len(some))


def _some(examples: Sequence[Example], count: int) -> list[Example]:
    """So many examples: of running text the first, else drawn, for lengths as they are."""
    if len(examples) <= count or is_running_text(examples):
        return list(examples[:count])
    return random.Random(0).sample(examples, count)
