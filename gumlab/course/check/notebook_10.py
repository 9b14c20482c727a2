"""Exercises of notebook 10, pruning without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.tasks import Task

BIAS, H, W = random_tensors((3,), (6, 4), (4, 3))
MASK = torch.tensor([True, False, False, True])


@exercise(
    cases=[(BIAS, H, W, MASK)],
    hints=[
        ("You took the kept neurons; what is missing is the mean output of the removed ones.",
         lambda b, h, w, m: b + h[:, m].mean(0) @ w[m]),
        ("You added up over the tokens; the bias is added at every token, so take the mean.",
         lambda b, h, w, m: b + h[:, ~m].sum(0) @ w[~m]),
        ("The sign is wrong: what the removed neurons wrote is missing now, so add it.",
         lambda b, h, w, m: b - h[:, ~m].mean(0) @ w[~m]),
        ("You forgot the old bias; the mean output comes on top of it.",
         lambda b, h, w, m: h[:, ~m].mean(0) @ w[~m]),
    ],
)  # fmt: skip
def new_bias(bias: Tensor, h: Tensor, outgoing: Tensor, mask: Tensor) -> Tensor:
    """FLAP's bias (D,). bias (D,), h (T, N), outgoing (N, D), mask (N,) bool."""
    return bias + h[:, ~mask].mean(0) @ outgoing[~mask]


def _lift(gram: Tensor, ridge: float) -> Tensor:
    return gram + ridge * torch.eye(len(gram))


@exercise(
    cases=[(H.T @ H, W, MASK, 2.0), (H.T @ H, W, torch.tensor([True, True, False, True]), 0.5)],
    hints=[
        ("You forgot the removed part: the kept weights must take over G_SR W_R.",
         lambda g, w, m, r: w[m]),
        ("Rows and columns are swapped: the kept neurons' rows, the removed ones' columns.",
         lambda g, w, m, r: w[m] + solve(_lift(g[m][:, m], r), g[~m][:, m] @ w[~m])),
        ("You solved for all N neurons; only the kept ones have weights left: G_SS is (k, k).",
         lambda g, w, m, r: solve(_lift(g, r), g @ w)),
        ("You forgot the ridge on the diagonal of G_SS.",
         lambda g, w, m, r: w[m] + solve(g[m][:, m], g[m][:, ~m] @ w[~m])),
        ("Your ridge pulls the weights to zero; put it on the change, and add that to W_S.",
         lambda g, w, m, r: solve(_lift(g[m][:, m], r), g[m] @ w)),
    ],
)  # fmt: skip
def refit_weights(gram: Tensor, outgoing: Tensor, mask: Tensor, ridge: float) -> Tensor:
    """W_S + (G_SS + ridge I)^-1 G_SR W_R, (k, D). gram (N, N), outgoing (N, D), mask (N,) bool."""
    right = gram[mask][:, ~mask] @ outgoing[~mask]
    return outgoing[mask] + solve(_lift(gram[mask][:, mask], ridge), right)


_TOY: Any = ([0, 0], [3], [5])  # numbers for examples


def _fit(examples: Sequence[float], option: float) -> float:
    return sum(examples) / len(examples) + option


def _loss(model: float, examples: Sequence[float]) -> float:
    return abs(model - sum(examples) / len(examples))


def _report(case: tuple, seen: str = "train", choice: str = "validation", said="test") -> tuple:
    task, options, fit, loss = case
    examples = [e for split in seen.split() for e in task.split(split)]
    models = {option: fit(examples, option) for option in options}
    best = min(options, key=lambda option: loss(models[option], task.split(choice)))
    return best, loss(models[best], task.split(said))


@exercise(
    cases=[(Task("toy", "bleu", *_TOY), (1, 3, 6), _fit, _loss)],
    hints=[
        ("The bug is still there: the fit sees the test examples, so the report says how well it "
         "remembers them, not how well it does on new ones.",
         lambda *case: _report(case, "train test")),
        ("The fit sees validation too; then the choice is made on examples it remembers.",
         lambda *case: _report(case, "train validation")),
        ("You choose by the test loss: of several tries the luckiest wins, and the report is too "
         "good. Choose on validation.", lambda *case: _report(case, choice="test")),
        ("You report the validation loss; it was chosen as the smallest of several. Report test.",
         lambda *case: _report(case, said="validation")),
    ],
)  # fmt: skip
def honest_report(task: Any, options: Sequence, fit: Callable, loss: Callable) -> tuple[Any, float]:
    """The option to use and the loss to report: fit on train, choose on validation, report test."""
    return _report((task, options, fit, loss))
