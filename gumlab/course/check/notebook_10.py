"""Exercises of notebook 10, pruning without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.tasks import Task

_BIAS, _H, _OUTGOING = random_tensors((3,), (6, 4), (4, 3))
_GRAM = _H.T @ _H
_MASK = torch.tensor([True, False, False, True])


@exercise(
    cases=[(_BIAS, _H, _OUTGOING, _MASK)],
    hints=[
        (
            "You took the kept neurons; what is missing is the mean output of the removed ones.",
            lambda bias, h, outgoing, mask: bias + h[:, mask].mean(0) @ outgoing[mask],
        ),
        (
            "You added up over the tokens; the bias is added at every token, so take the mean.",
            lambda bias, h, outgoing, mask: bias + h[:, ~mask].sum(0) @ outgoing[~mask],
        ),
        (
            "The sign is wrong: what the removed neurons wrote is missing now, so add it.",
            lambda bias, h, outgoing, mask: bias - h[:, ~mask].mean(0) @ outgoing[~mask],
        ),
        (
            "You forgot the old bias; the mean output comes on top of it.",
            lambda bias, h, outgoing, mask: h[:, ~mask].mean(0) @ outgoing[~mask],
        ),
    ],
)
def new_bias(bias: Tensor, h: Tensor, outgoing: Tensor, mask: Tensor) -> Tensor:
    """Give the bias with which FLAP makes up for the neurons that go.

    Parameters
    ----------
    bias : Tensor
        The bias of proj before, (D,).
    h : Tensor
        The activations, (T, N).
    outgoing : Tensor
        The outgoing weights, (N, D).
    mask : Tensor
        (N,) bool, True for a neuron that stays.

    Returns
    -------
    Tensor
        The new bias, (D,).

    References
    ----------
    An et al. 2023.
    """
    return bias + h[:, ~mask].mean(0) @ outgoing[~mask]


def _lift(gram: Tensor, ridge: float) -> Tensor:
    """The Gram matrix with a ridge on its diagonal."""
    return gram + ridge * torch.eye(len(gram))


@exercise(
    cases=[
        (_GRAM, _OUTGOING, _MASK, 2.0),
        (_GRAM, _OUTGOING, torch.tensor([True, True, False, True]), 0.5),
    ],
    hints=[
        (
            "You forgot the removed part: the kept weights must take over G_SR W_R.",
            lambda gram, outgoing, mask, ridge: outgoing[mask],
        ),
        (
            "Rows and columns are swapped: the kept neurons' rows, the removed ones' columns.",
            lambda gram, outgoing, mask, ridge: (
                outgoing[mask]
                + solve(_lift(gram[mask][:, mask], ridge), gram[~mask][:, mask] @ outgoing[~mask])
            ),
        ),
        (
            "You solved for all N neurons; only the kept ones have weights left: G_SS is (k, k).",
            lambda gram, outgoing, mask, ridge: solve(_lift(gram, ridge), gram @ outgoing),
        ),
        (
            "You forgot the ridge on the diagonal of G_SS.",
            lambda gram, outgoing, mask, ridge: (
                outgoing[mask] + solve(gram[mask][:, mask], gram[mask][:, ~mask] @ outgoing[~mask])
            ),
        ),
        (
            "Your ridge pulls the weights to zero; put it on the change, and add that to W_S.",
            lambda gram, outgoing, mask, ridge: solve(
                _lift(gram[mask][:, mask], ridge), gram[mask] @ outgoing
            ),
        ),
    ],
)
def refit_weights(gram: Tensor, outgoing: Tensor, mask: Tensor, ridge: float) -> Tensor:
    """Let the neurons that stay take over the work of those that go.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N).
    outgoing : Tensor
        The outgoing weights W, (N, D).
    mask : Tensor
        (N,) bool, True for the k neurons S that stay, False for the others, R.
    ridge : float
        What is added to the diagonal of G_SS.

    Returns
    -------
    Tensor
        W_S + (G_SS + ridge I)^-1 G_SR W_R, (k, D).
    """
    kept_gram = gram[mask][:, mask]
    removed_output = gram[mask][:, ~mask] @ outgoing[~mask]
    return outgoing[mask] + solve(_lift(kept_gram, ridge), removed_output)


def _toy_task() -> Any:
    """A task whose examples are numbers."""
    task: Any = Task("toy", "bleu")
    task.train, task.validation, task.test = [0, 0], [3], [5]  # given at once they are refused
    return task


def _fit(examples: Sequence[float], option: float) -> float:
    """What stands for a model: the mean of the examples, and the option on top."""
    return sum(examples) / len(examples) + option


def _loss(model: float, examples: Sequence[float]) -> float:
    """How far a model is from the mean of the examples."""
    return abs(model - sum(examples) / len(examples))


def _report(
    task: Any,
    options: Sequence,
    fit: Callable,
    loss: Callable,
    fitted_on: Sequence[str] = ("train",),
    chosen_on: str = "validation",
    reported_on: str = "test",
) -> tuple[Any, float]:
    examples = []
    for split in fitted_on:
        examples += task.split(split)
    models = {option: fit(examples, option) for option in options}
    best = min(options, key=lambda option: loss(models[option], task.split(chosen_on)))
    return best, loss(models[best], task.split(reported_on))


@exercise(
    cases=[(_toy_task(), (1, 3, 6), _fit, _loss)],
    hints=[
        (
            "The bug is still there: the fit sees the test examples, so the report says how well "
            "it remembers them, not how well it does on new ones.",
            partial(_report, fitted_on=("train", "test")),
        ),
        (
            "The fit sees validation too; then the choice is made on examples it remembers.",
            partial(_report, fitted_on=("train", "validation")),
        ),
        (
            "You choose by the test loss: of several tries the luckiest wins, and the report is "
            "too good. Choose on validation.",
            partial(_report, chosen_on="test"),
        ),
        (
            "You report the validation loss; it was chosen as the smallest of several. Report "
            "test.",
            partial(_report, reported_on="validation"),
        ),
    ],
)
def honest_report(task: Any, options: Sequence, fit: Callable, loss: Callable) -> tuple[Any, float]:
    """Choose an option, and report a loss that one can believe.

    Parameters
    ----------
    task : Task
        The splits: task.split("train"), "validation" and "test" give examples.
    options : sequence
        What there is to choose from.
    fit : callable
        fit(examples, option) makes a model.
    loss : callable
        loss(model, examples) is a number, lower is better.

    Returns
    -------
    option
        The option to use: fitted on train, chosen on validation.
    loss : float
        Its loss on test.
    """
    return _report(task, options, fit, loss)
