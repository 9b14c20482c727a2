"""Exercises of notebook 03, random, the honest baseline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from gumlab.course.check.judging import Hint, exercise
from gumlab.selection import schedule, top


def _drawn(
    widths: list[int], seed: int, low: float = -1.0, high: float = 1.0, fresh: bool = False
) -> list[Tensor]:
    """Uniform random scores; with `fresh`, every layer begins the sequence of numbers anew."""
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for width in widths:
        if fresh:
            generator.manual_seed(seed)
        scores.append(torch.rand(width, generator=generator) * (high - low) + low)
    return scores


def _normal(widths: list[int], seed: int) -> list[Tensor]:
    """Normal random scores."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(width, generator=generator) for width in widths]


@exercise(
    cases=[([4, 3], 0), ([2, 2, 2], 1), ([5], 7)],
    hints=[
        (
            "All layers draw the same numbers: make one generator, before the loop.",
            lambda widths, seed: _drawn(widths, seed, fresh=True),
        ),
        (
            "torch.rand gives numbers from 0 to 1; stretch them to -1 to 1.",
            lambda widths, seed: _drawn(widths, seed, low=0.0),
        ),
        (
            "Yours go from -0.5 to 0.5; they should go from -1 to 1.",
            lambda widths, seed: _drawn(widths, seed, low=-0.5, high=0.5),
        ),
        (
            "randn draws from a bell curve; uniform numbers come from torch.rand.",
            _normal,
        ),
        (
            "The seed is always 0 in yours; take `seed`.",
            lambda widths, seed: _drawn(widths, 0),
        ),
        (
            "One long row of scores; give a list, a tensor for each layer.",
            lambda widths, seed: torch.cat(_drawn(widths, seed)),
        ),
    ],
)
def random_scores(widths: list[int], seed: int) -> list[Tensor]:
    """Draw a score for every neuron, layer after layer, from one generator.

    Parameters
    ----------
    widths : list of int
        How many neurons each layer has.
    seed : int
        Of the generator: the same seed gives the same scores.

    Returns
    -------
    list of Tensor
        For each layer (N,), uniform from -1 to 1: 2 r - 1, with r from torch.rand.
    """
    return _drawn(widths, seed)


def _cubic(step: float, steps: int, keep: float, power: int = 3, start: float = 0.1) -> float:
    """The falling part of the schedule, also outside the steps that it is meant for."""
    remaining = 1 - (step / steps - start) / (0.7 - start)
    return keep + (1 - keep) * remaining**power


def _clamped(step: int, steps: int) -> float:
    """The step, moved into the part of the run where the schedule falls."""
    return min(max(step, 0.1 * steps), 0.7 * steps)


@exercise(
    cases=[
        *((step, 100, 0.25) for step in (40, 20, 10, 0, 70, 85, 100)),
        (20, 40, 0.25),
        (30, 60, 0.1),
    ],
    hints=[
        (
            "You forgot the clamp: m must stay between 0 and 1, before the start and after the "
            "end.",
            _cubic,
        ),
        (
            "You forgot that v_t stays 1 at the start: m is above 1 there; clamp it to 1.",
            lambda step, steps, keep: _cubic(min(step, 0.7 * steps), steps, keep),
        ),
        (
            "You forgot that v_t stays at keep after 70 %: m is below 0 there; clamp it to 0.",
            lambda step, steps, keep: _cubic(max(step, 0.1 * steps), steps, keep),
        ),
        (
            "Your curve is a straight line; the schedule is cubic.",
            lambda step, steps, keep: _cubic(_clamped(step, steps), steps, keep, power=1),
        ),
        (
            "Your curve is a square; the schedule is cubic.",
            lambda step, steps, keep: _cubic(_clamped(step, steps), steps, keep, power=2),
        ),
        (
            "Your curve falls from step 0; the first 10 % of the steps stay dense.",
            lambda step, steps, keep: _cubic(min(step, 0.7 * steps), steps, keep, start=0.0),
        ),
        (
            "Your curve is that of 100 steps, however many the run has; use `steps`.",
            lambda step, steps, keep: _cubic(_clamped(step, 100), 100, keep),
        ),
        (
            "Your curve ends at 0.25, whatever is to be kept; use `keep`.",
            lambda step, steps, keep: _cubic(_clamped(step, steps), steps, 0.25),
        ),
    ],
)
def schedule_value(step: int, steps: int, keep: float) -> float:
    """Give v_t, the fraction of neurons that is kept at a step.

    Parameters
    ----------
    step : int
        The step, from 0 on.
    steps : int
        How many steps the run has.
    keep : float
        The fraction at the end.

    Returns
    -------
    float
        1 for the first 10 % of the steps, cubic down to `keep` at 70 %, constant after.
    """
    return schedule(step, steps, keep)


def how_many(scores: Tensor, keep: float) -> int:
    """How many neurons stay."""
    return round(keep * len(scores))


def best_first(scores: Tensor) -> Tensor:
    """The scores, the highest first."""
    return scores.sort(descending=True).values


# what a choice of exactly round(keep * N) neurons may get wrong
TOP_V_MISTAKES: list[Hint] = [
    (
        "A threshold with >= keeps every neuron of a tie; keep exactly round(keep * N).",
        lambda scores, keep: scores >= best_first(scores)[how_many(scores, keep) - 1],
    ),
    (
        "A threshold with > loses a neuron; keep exactly round(keep * N).",
        lambda scores, keep: scores > best_first(scores)[how_many(scores, keep) - 1],
    ),
    (
        "int() cuts the fraction off; keep exactly round(keep * N).",
        lambda scores, keep: top(scores, int(keep * len(scores))),
    ),
    (
        "You always round up; keep exactly round(keep * N).",
        lambda scores, keep: top(scores, math.ceil(keep * len(scores))),
    ),
    (
        "You keep the lowest scores; a high score means stay.",
        lambda scores, keep: top(-scores, how_many(scores, keep)),
    ),
    (
        "Your ties go to the last neuron; they go to the first (a stable sort).",
        lambda scores, keep: top(scores.flip(0), how_many(scores, keep)).flip(0),
    ),
    (
        "Those are the positions; a mask is one bool per neuron.",
        lambda scores, keep: scores.argsort(descending=True, stable=True)[: how_many(scores, keep)],
    ),
    (
        "argsort gives the positions of the best, not each neuron's rank; set the mask there.",
        lambda scores, keep: scores.argsort(descending=True, stable=True) < how_many(scores, keep),
    ),
]


@exercise(
    cases=[
        (torch.tensor([0.1, 0.9, 0.3, 0.7]), 0.5),
        (torch.tensor([3, 1, 2, 2, 2, 0]), 0.5),
        (torch.tensor([5, 4, 3, 2, 1]), 0.35),
        (torch.tensor([1, 1, 1, 1, 1]), 0.4),
        (torch.tensor([2, 5, 3, 1]), 0.3),
    ],
    hints=TOP_V_MISTAKES,
)
def top_v(scores: Tensor, keep: float) -> Tensor:
    """Choose who stays: the highest scores.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,).
    keep : float
        The fraction of neurons that stays.

    Returns
    -------
    Tensor
        The mask, (N,) bool: exactly round(keep * N) are True, of a tie the first.
    """
    return top(scores, how_many(scores, keep))


class Toy(nn.Module):
    """Three weights behind a mask: a model that is small enough to try a training loop on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.mask = torch.ones(3)

    def forward(self, x: Tensor, y: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=(x @ (self.mask * self.weight) - y) ** 2)

    def prune(self, step: int) -> None:
        """Take other weights out at every step; one that is out gets no gradient."""
        self.mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])[min(step, 2)]
        if self.weight.grad is not None:
            self.weight.grad *= self.mask


class Descent:
    """Plain gradient descent, as much of an optimizer as a training loop needs.

    Unlike torch's, a copy of it is the same in every attribute, and its `repr` is one line.
    """

    def __init__(self, weight: nn.Parameter, lr: float) -> None:
        self.weight = weight
        self.lr = lr

    def step(self) -> None:
        """Go a step down the gradient, if there is one."""
        if self.weight.grad is not None:
            self.weight.data -= self.lr * self.weight.grad

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient."""
        self.weight.grad = None if set_to_none else torch.zeros_like(self.weight)

    def __repr__(self) -> str:
        return f"Descent(lr={self.lr})"


def _toy_case(steps: int, lr: float) -> tuple:
    """A toy, its batches, its optimizer, and how it is pruned."""
    toy = Toy()
    generator = torch.Generator().manual_seed(steps)
    batches = [
        {"x": torch.rand(3, generator=generator), "y": torch.tensor(float(step))}
        for step in range(steps)
    ]
    return toy, batches, Descent(toy.weight, lr), toy.prune


def _run(
    model: nn.Module,
    batches: Sequence[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer | Descent,
    prune: Callable[[int], None],
    start: int = 1,
    learns: bool = True,
    clears: bool = True,
    pruned: str = "after backward",
) -> list[float]:
    """The loop, with what may be forgotten in it."""
    losses = []
    for step, batch in enumerate(batches, start):
        if pruned == "before the loss":
            prune(step)
        loss = model(**batch).loss
        loss.backward()
        if pruned == "after backward":
            prune(step)
        if learns:
            optimizer.step()
        if pruned == "after the step":
            prune(step)
        if clears:
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@exercise(
    cases=[_toy_case(4, 0.1), _toy_case(3, 0.3), _toy_case(1, 0.1)],
    hints=[
        (
            "Nothing is pruned: call prune(step) in every step.",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, lambda step: None
            ),
        ),
        (
            "Nothing is learned: call optimizer.step() after loss.backward().",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, prune, learns=False
            ),
        ),
        (
            "The gradients of all steps add up: call optimizer.zero_grad() in every step.",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, prune, clears=False
            ),
        ),
        (
            "Your steps begin with 0; they begin with 1: enumerate(batches, start=1).",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, prune, start=0
            ),
        ),
        (
            "You prune before the loss; a score may need the step's gradients, so prune after "
            "loss.backward().",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, prune, pruned="before the loss"
            ),
        ),
        (
            "The order matters: loss.backward(), then prune(step), then optimizer.step().",
            lambda model, batches, optimizer, prune: _run(
                model, batches, optimizer, prune, pruned="after the step"
            ),
        ),
        (
            "That is the last loss alone; return the list of all.",
            lambda model, batches, optimizer, prune: _run(model, batches, optimizer, prune)[-1],
        ),
    ],
)
def pruning_loop(
    model: nn.Module,
    batches: Sequence[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    prune: Callable[[int], None],
) -> list[float]:
    """Train a model while it is pruned.

    Parameters
    ----------
    model : torch.nn.Module
        `model(**batch).loss` is the loss of a batch.
    batches : sequence of dict
        One for each step.
    optimizer : torch.optim.Optimizer
        Of the model's weights.
    prune : callable
        `prune(step)` removes what should be gone at a step; steps count from 1.

    Returns
    -------
    list of float
        The loss of each step.
    """
    return _run(model, batches, optimizer, prune)


def _mean_and_half(
    values: list[float], t: float, spread: Callable = statistics.stdev, root: float = 0.5
) -> tuple[float, float]:
    """The mean, and t times a spread divided by a power of n."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, math.inf
    return mean, t * spread(values) / len(values) ** root


def _without_a_thought_for_one(values: list[float], t: float) -> tuple[float, float]:
    """As wanted, but that one value divides by zero."""
    return _mean_and_half(values, t) if len(values) > 1 else (values[0], t / (len(values) - 1))


@exercise(
    cases=[
        ([1.0, 2.0, 3.0], 4.303),
        ([1.57, 1.55, 1.59, 1.57], 3.182),
        ([-0.1, 0.3], 12.706),
        ([0.5], 12.706),
    ],
    hints=[
        (
            "That is about the spread of single runs; their mean is surer: divide by sqrt(n).",
            lambda values, t: _mean_and_half(values, t, root=0.0),
        ),
        (
            "Divide by n - 1 inside the spread: the mean was made from the same numbers.",
            lambda values, t: _mean_and_half(values, t, spread=statistics.pstdev),
        ),
        (
            "Divide the spread by sqrt(n), not by n.",
            lambda values, t: _mean_and_half(values, t, root=1.0),
        ),
        (
            "You forgot the root: the spread is the root of the mean squared distance.",
            lambda values, t: _mean_and_half(values, t, spread=statistics.variance),
        ),
        (
            "You forgot t: with so few runs the interval is wider than one standard error.",
            lambda values, t: _mean_and_half(values, 1.0),
        ),
        (
            "That is the whole width of the interval; give half of it.",
            lambda values, t: _mean_and_half(values, 2 * t),
        ),
        (
            "With one run n - 1 is 0. One run says nothing about others: return infinity.",
            _without_a_thought_for_one,
        ),
        (
            'The spread of one run is nan. It says nothing about others: return float("inf").',
            lambda values, t: _mean_and_half(values, t) if len(values) > 1 else (*values, math.nan),
        ),
        (
            'One run says nothing about others: then the half is float("inf").',
            lambda values, t: _mean_and_half(values, t) if len(values) > 1 else (values[0], 0.0),
        ),
    ],
)
def mean_and_interval(values: list[float], t: float) -> tuple[float, float]:
    """Give the mean of some runs, and half of its 95 % interval.

    Parameters
    ----------
    values : list of float
        A number from each run; one run or more.
    t : float
        Student's t for so many runs.

    Returns
    -------
    mean : float
        Their mean.
    half : float
        t times their spread (with n - 1) divided by sqrt(n); infinity for one run.
    """
    return _mean_and_half(values, t)
