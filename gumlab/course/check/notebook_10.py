"""Exercises of notebook 10, pruning without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.linalg import inv, solve

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.tasks import Task

_H, _OUTGOING, _MORE = random_tensors((6, 4), (4, 3), (9, 5))
_STEADY = _H + 3.0  # always on: loud, and hardly changing
_GRAM = _H.T @ _H
_MASK = torch.tensor([True, False, False, True])


def _looked(h: Tensor, power: float = 0.5, centre: bool = True, axis: int = 0) -> tuple:
    """The norm and the variance of each neuron; each switch is one known mistake."""
    norm = h.square().sum(axis) ** power
    away = h - h.mean(axis, keepdim=True) if centre else h
    return norm, away.square().mean(axis)


@exercise(
    cases=[(_H,), (_STEADY,), (_MORE,)],
    hints=[
        (
            "You look along the wrong axis: one number for each neuron, so over the tokens (0).",
            partial(_looked, axis=1),
        ),
        (
            "The norm is the root of the sum of squares; the root is missing.",
            partial(_looked, power=1.0),
        ),
        (
            "The norm is the root of the *sum* of squares; you took their mean.",
            lambda h: (_looked(h)[0] / len(h) ** 0.5, _looked(h)[1]),
        ),
        (
            "A variance is about the mean: take h.mean(0) off before you square.",
            partial(_looked, centre=False),
        ),
        (
            "That is the standard deviation; the variance has no root.",
            lambda h: (_looked(h)[0], _looked(h)[1].sqrt()),
        ),
        (
            "You divide by T - 1, as torch.var does by itself; divide by T (correction=0).",
            lambda h: (_looked(h)[0], h.var(0)),
        ),
        (
            "You added the sizes |h|; the norm is the root of the sum of squares.",
            lambda h: (h.abs().sum(0), _looked(h)[1]),
        ),
        (
            "You took off the mean of all neurons; each has its own: h.mean(0).",
            lambda h: (_looked(h)[0], (h - h.mean()).square().mean(0)),
        ),
        ("Right, but swapped: first the norm, then the variance.", lambda h: _looked(h)[::-1]),
    ],
)
def activation_scores(h: Tensor) -> tuple[Tensor, Tensor]:
    """Give two scores that need the activations alone.

    Parameters
    ----------
    h : Tensor
        The activations, (T, N): a row for each token, a column for each neuron.

    Returns
    -------
    norm : Tensor
        The root of the sum of the squares over the tokens, (N,).
    variance : Tensor
        The mean of the squared distance from the mean, (N,).
    """
    norm, variance = _looked(h)
    return norm, variance


def _lift(gram: Tensor, ridge: float) -> Tensor:
    """The Gram matrix with a ridge on its diagonal."""
    return gram + ridge * torch.eye(len(gram), dtype=gram.dtype)


def _among_all(gram: Tensor, outgoing: Tensor, mask: Tensor, ridge: float) -> Tensor:
    """The mistake: the refitted weights, and zeros where a neuron is gone."""
    weights = torch.zeros_like(outgoing)
    change = solve(_lift(gram[mask][:, mask], ridge), gram[mask][:, ~mask] @ outgoing[~mask])
    weights[mask] = outgoing[mask] + change
    return weights


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
            "That is the change alone; add it to W_S.",
            lambda gram, outgoing, mask, ridge: solve(
                _lift(gram[mask][:, mask], ridge), gram[mask][:, ~mask] @ outgoing[~mask]
            ),
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
            "The ridge belongs on the diagonal alone (ridge * torch.eye(k)), not on every entry.",
            lambda gram, outgoing, mask, ridge: (
                outgoing[mask]
                + solve(gram[mask][:, mask] + ridge, gram[mask][:, ~mask] @ outgoing[~mask])
            ),
        ),
        (
            "Your ridge pulls the weights to zero; put it on the change, and add that to W_S.",
            lambda gram, outgoing, mask, ridge: solve(
                _lift(gram[mask][:, mask], ridge), gram[mask] @ outgoing
            ),
        ),
        ("Return the k kept rows alone, without zeros for those that are gone.", _among_all),
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


_TWELVE, _FIVE, _FOUR = (values.double() for values in random_tensors((12, 5), (5, 3), (4, 3)))
_LAYERS = [
    (_lift(_GRAM.double(), 0.1), _FOUR),
    (_lift(_TWELVE.T @ _TWELVE, 0.1), _FIVE),
    (_lift(_TWELVE.T @ _TWELVE, 0.1), 0.01 * _FIVE),  # so small that nothing costs a tenth
]


@exercise(
    cases=_LAYERS,
    hints=[
        (
            "That is how much each neuron is used; how unique it is stands in the inverse of G.",
            lambda gram, outgoing: outgoing.square().sum(1) * gram.diagonal(),
        ),
        (
            "You divide by G_ii; divide by the diagonal of the *inverse* of G.",
            lambda gram, outgoing: outgoing.square().sum(1) / gram.diagonal(),
        ),
        (
            "You multiply by the inverse's diagonal; divide by it.",
            lambda gram, outgoing: outgoing.square().sum(1) * inv(gram).diagonal(),
        ),
        (
            "The weights count squared: ||w_i||^2, the sum of the squares, without a root.",
            lambda gram, outgoing: outgoing.norm(dim=1) / inv(gram).diagonal(),
        ),
        (
            "That is 1/[G^-1]_ii, what the others cannot rebuild; what is missing is how loudly it "
            "is written: times ||w_i||^2.",
            lambda gram, outgoing: 1 / inv(gram).diagonal(),
        ),
        (
            "You divide by the whole inverse; take its diagonal, a number for each neuron.",
            lambda gram, outgoing: outgoing.square().sum(1) / inv(gram),
        ),
    ],
)
def obs_scores(gram: Tensor, outgoing: Tensor) -> Tensor:
    """Give the price of removing each neuron, one at a time, with a refit of the others.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N), with its ridge on the diagonal.
    outgoing : Tensor
        The outgoing weights, (N, D).

    Returns
    -------
    Tensor
        ||w_i||^2 / [G^-1]_ii, (N,).
    """
    return outgoing.square().sum(1) / inv(gram).diagonal()


def _greedy(
    gram: Tensor,
    outgoing: Tensor,
    hand_on: bool = True,
    downdate: bool = True,
    again: bool = True,
    rising: bool = True,
    costliest: bool = False,
    added_up: bool = False,
    divided: bool = True,
    g_before: bool = True,
) -> Tensor:
    """Greedy OBS; each switch is one known mistake."""
    inverse, weights = inv(gram), outgoing.clone()
    score = torch.zeros(len(gram), dtype=gram.dtype)
    left = torch.ones(len(gram), dtype=torch.bool)
    first = weights.square().sum(1) / inverse.diagonal()
    paid = 0.0
    for _ in range(len(gram)):
        cost = weights.square().sum(1) / inverse.diagonal() if again else first.clone()
        i = int(torch.where(left, -cost if costliest else cost, torch.inf).argmin())
        paid_before = paid if rising else 0.0
        paid = paid_before + float(cost[i]) if added_up else max(paid_before, float(cost[i]))
        score[i] = paid
        share = inverse[:, i] / (inverse[i, i] if divided else 1)
        if downdate:
            inverse.addr_(share, inverse[i].clone(), alpha=-1)  # G^-1 - g [G^-1]_i:
        if not g_before:
            share = inverse[:, i] / inverse[i, i]
        if hand_on:
            weights.addr_(share, weights[i].clone(), alpha=-1)
        left[i] = False
    return score


def _order(gram: Tensor, outgoing: Tensor) -> Tensor:
    """At which place each neuron goes."""
    return _greedy(gram, outgoing).argsort().argsort()


@exercise(
    cases=_LAYERS,
    hints=[
        (
            "That is OBS once; after each removal ask again, of those that are left.",
            partial(_greedy, again=False, rising=False, hand_on=False, downdate=False),
        ),
        (
            "The others do not take over: W <- W - g w_i is missing.",
            partial(_greedy, hand_on=False),
        ),
        (
            "The inverse still knows the neuron that went: G^-1 <- G^-1 - g [G^-1]_i: is missing.",
            partial(_greedy, downdate=False),
        ),
        (
            "A later removal may cost less than an earlier one: give each neuron the largest cost "
            "paid so far, so that the order is kept.",
            partial(_greedy, rising=False),
        ),
        (
            "The cheapest neuron goes first, not the one that costs most.",
            partial(_greedy, costliest=True),
        ),
        ("You return the places in the order; return what was paid.", _order),
        (
            "You add up what was paid; give each neuron the largest single cost so far.",
            partial(_greedy, added_up=True),
        ),
        (
            "g is the column of the inverse *divided by* [G^-1]_ii.",
            partial(_greedy, divided=False),
        ),
        (
            "Compute g before you change the inverse: afterwards column i is 0.",
            partial(_greedy, g_before=False),
        ),
    ],
)
def greedy_scores(gram: Tensor, outgoing: Tensor) -> Tensor:
    """Remove the cheapest neuron, let the others take over, and look again, to the last.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N), with its ridge on the diagonal.
    outgoing : Tensor
        The outgoing weights, (N, D).

    Returns
    -------
    Tensor
        For each neuron the largest cost paid up to its own removal, (N,).
    """
    return _greedy(gram, outgoing)


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
        (
            "You choose by the training loss, which the fit has made small. Choose on validation.",
            partial(_report, chosen_on="train"),
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
