"""Exercises of notebook 13, your own score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gumlab.collecting import Statistics
from gumlab.course.check.judging import (
    REFERENCE,
    Exercise,
    Raised,
    exercise,
    not_attempted,
    random_tensors,
)
from gumlab.feedforward import FeedForward
from gumlab.gram import cosine

NEARLY_NOTHING = 1e-5  # of what scores of the toy layer are
_ORDER = torch.tensor([3, 0, 5, 1, 4, 2])


def _toy(order: Tensor) -> tuple[FeedForward, Statistics]:
    """A layer of 6 neurons in this order, D = 3, and its statistics; one neuron is dead."""
    h, incoming, outgoing = random_tensors((20, 6), (6, 3), (6, 3))
    is_alive = torch.arange(6) != 4
    h = (h.relu() * is_alive)[:, order]
    fc = skip_init(nn.Linear, 3, 6)  # draws no random numbers
    proj = skip_init(nn.Linear, 6, 3, bias=False)
    fc.weight.data = incoming[order]
    fc.bias.data = incoming[order, 0] - 1
    proj.weight.data = outgoing[order].T
    slope = h.mean(0) * outgoing[order, 0]
    statistics = Statistics(
        gram=h.T @ h,
        total=h.sum(0),
        low=h.min(0).values,
        high=h.max(0).values,
        squared_means=h.mean(0).square(),
        sensitivity=slope.abs(),
        fisher=slope.square(),
        slope=slope,
        tokens=20,
    )
    return FeedForward("toy", (fc,), proj), statistics


_PER_OUTPUT = (
    "That is one number per output; outgoing() is (N, D), so for one per neuron sum over axis 1."
)
_NAN = "A dead neuron (found.dead) gives 0 / 0, which is NaN. Use clamp_min on what you divide by."
_INFINITE = "A dead neuron (found.dead) gives a number / 0, infinite: it would always stay."
_BY_PLACE = (
    "The same neurons in another order get other scores: neither a neuron's place nor chance "
    "may count."
)
_ITSELF = (
    "The scores of all neurons that fire are nearly 0: is each neuron its own nearest? The largest "
    "cosine stands on the diagonal; leave it out (fill_diagonal_(0))."
)
_ALL_EQUAL = "All neurons have the same score: then the first ones stay, whoever they are."


class Form(Exercise):
    """Judges a criterion's form: any score of the right form is right, whatever its values."""

    def verdict(self, answers: Sequence[Any]) -> str | None:
        """Say what is wrong with the scores of the toy layer in two orders.

        Parameters
        ----------
        answers : sequence
            The scores in both orders, or a `Raised`.

        Returns
        -------
        str or None
            One line, or None if they have the form of a score.
        """
        if not_attempted(answers):
            return f"not attempted. {REFERENCE}"
        for case, answer in zip(self.cases, answers, strict=True):
            if answer is None or isinstance(answer, Raised):
                return f"not yet. {self.difference(case, answer, wanted=None)} {REFERENCE}"
        scores, scores_in_order = answers
        problem = self._problem(scores, scores_in_order)
        return f"not yet. {problem} {REFERENCE}" if problem else None

    def _problem(self, scores: Any, scores_in_order: Any) -> str | None:
        """What is wrong with the scores, and with those of the same neurons in another order."""
        shape = tuple(getattr(scores, "shape", ()))
        if shape == (3,):
            return _PER_OUTPUT
        if not isinstance(scores, Tensor) or shape != _ORDER.shape:
            shown = f"one of shape {shape}" if isinstance(scores, Tensor) else repr(scores)
            return f"A tensor of shape (6,) is due, for 6 neurons; yours gives {shown}."
        if scores.isnan().any():
            return _NAN
        if not scores.isfinite().all():
            return _INFINITE
        if scores[self.cases[0][1].energy > 0].abs().max() < NEARLY_NOTHING:
            return _ITSELF
        if not torch.allclose(scores[_ORDER].double(), scores_in_order.double(), rtol=1e-3):
            return _BY_PLACE
        if (scores == scores[0]).all():
            return _ALL_EQUAL
        return None


def _norm(layer: FeedForward) -> Tensor:
    """The length of each neuron's outgoing weights, (N,)."""
    return layer.outgoing().detach().norm(dim=1)


# what a score of any idea may get wrong
_MISTAKES = [
    (
        _PER_OUTPUT,
        lambda layer, found: layer.outgoing().square().sum(0),
    ),
    (
        _NAN,
        lambda layer, found: _norm(layer) * found.gram.abs().sum(1) / found.energy,
    ),
    (
        _INFINITE,
        lambda layer, found: _norm(layer) / found.energy,
    ),
    (
        _BY_PLACE,
        lambda layer, found: found.energy * torch.arange(1, layer.width + 1),
    ),
    (
        _ALL_EQUAL,
        lambda layer, found: torch.ones(layer.width),
    ),
]


@partial(Form, cases=[_toy(torch.arange(6)), _toy(_ORDER)], hints=_MISTAKES)
def my_score(layer: FeedForward, found: Statistics) -> Tensor:
    """Score a layer's neurons: how far each can move the layer's output.

    Parameters
    ----------
    layer : FeedForward
        The layer: its `width`, `incoming()` (N, K) and `outgoing()` (N, D).
    found : Statistics
        What one pass over data saw of it, such as `gram`, `energy`, `low`, `high` and
        `dead`.

    Returns
    -------
    Tensor
        A finite score for each neuron, (N,), high for those to keep; the reference gives
        (max h_i - min h_i) ||w_i||.
    """
    return (found.high - found.low) * _norm(layer)


def _largest_cosine(gram: Tensor) -> Tensor:
    """How much each neuron is like the one most like it, (N,)."""
    return cosine(gram).abs().fill_diagonal_(0).max(1).values


def _like_itself(layer: FeedForward, found: Statistics) -> Tensor:
    """The variant with each neuron among those that it is compared with."""
    return (found.high - found.low) * _norm(layer) * (1 - cosine(found.gram).abs().max(1).values)


@partial(
    Form,
    cases=[_toy(torch.arange(6)), _toy(_ORDER)],
    hints=[*_MISTAKES, (_ITSELF, _like_itself)],
)
def my_variant(layer: FeedForward, found: Statistics) -> Tensor:
    """Score a layer's neurons in another way: less for one that is like another neuron.

    Parameters
    ----------
    layer, found
        As in `my_score`.

    Returns
    -------
    Tensor
        A finite score for each neuron, (N,), high for those to keep; the reference gives
        (max h_i - min h_i) ||w_i|| (1 - the largest |cosine| with another neuron).
    """
    return (found.high - found.low) * _norm(layer) * (1 - _largest_cosine(found.gram))


_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by the number of differences


def _interval(
    mine: Sequence[float], theirs: Sequence[float], t: float | None = None, power: float = 0.5
) -> tuple[float, float]:
    """Mean and half width, with `t` for the table's and n^power for the root of n."""
    differences = [a - b for a, b in zip(mine, theirs, strict=True)]
    count = len(differences)
    factor = _T_95[count] if t is None else t
    return statistics.mean(differences), factor * statistics.stdev(differences) / count**power


def _of_n(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Mean and half width, with n and not n - 1 inside the spread."""
    mean, half_width = _interval(mine, theirs)
    count = len(mine)
    return mean, half_width * math.sqrt((count - 1) / count)


def _unpaired(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Mean and half width, with the spreads of the two taken apart."""
    count = len(mine)
    spread = math.sqrt((statistics.variance(mine) + statistics.variance(theirs)) / count)
    return statistics.mean(mine) - statistics.mean(theirs), _T_95[count] * spread


def _ends(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Where the interval begins and ends."""
    mean, half_width = _interval(mine, theirs)
    return mean - half_width, mean + half_width


@exercise(
    cases=[([0.31, 0.35, 0.30], [0.33, 0.36, 0.33]), ([1.0, 2.0, 4.0, 3.0], [1.5, 1.0, 4.0, 2.0])],
    hints=[
        (
            "You took the spreads of the two apart. A seed moves both alike: subtract first, seed "
            "by seed, then take the spread of the differences.",
            _unpaired,
        ),
        (
            "That is t times the spread of single differences. Their mean is surer: divide by "
            "sqrt(n).",
            lambda mine, theirs: _interval(mine, theirs, power=0),
        ),
        (
            "1.96 is for many runs. With so few the spread itself is unsure: take t from the "
            "table.",
            lambda mine, theirs: _interval(mine, theirs, t=1.96),
        ),
        (
            "Inside the spread divide by n - 1: the mean was made from the same numbers.",
            _of_n,
        ),
        (
            "The sign: mine - theirs, so that a negative difference is a lower loss of yours.",
            lambda mine, theirs: _interval(theirs, mine),
        ),
        (
            "t is not the same for every number of seeds: take it from the table by n.",
            lambda mine, theirs: _interval(mine, theirs, t=_T_95[3]),
        ),
        (
            "You took the next row of the table: t belongs to n itself.",
            lambda mine, theirs: _interval(mine, theirs, t=_T_95[len(mine) + 1]),
        ),
        (
            "Those are the two ends; return the mean, and half of what lies between the ends.",
            _ends,
        ),
        (
            "That is the standard error; the half width is t times it.",
            lambda mine, theirs: _interval(mine, theirs, t=1.0),
        ),
    ],
)
def paired_interval(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Give the mean difference of two methods, and how sure it is.

    Parameters
    ----------
    mine, theirs : sequence of float
        The losses, one for each seed, in the same order of seeds.

    Returns
    -------
    mean : float
        The mean of mine - theirs.
    half : float
        Half the width of its 95 % t interval.
    """
    return _interval(mine, theirs)


Losses = Mapping[str, Sequence[float]]
Intervals = Mapping[str, tuple[float, float]]
Row = tuple[str, float, str]
_LOSSES = {"mine": [0.3, 0.5], "chance": [0.9, 0.7], "a": [0.2, 0.3], "b": [0.1, 1.0]}
_INTERVALS = {"chance": (-0.4, 0.1), "a": (0.15, 0.1), "b": (-0.15, 0.3)}
_EXACTLY = {"mine": [2.0, 2.0], "rival": [1.0, 1.0]}
_NEARLY = {"mine": [0.1, 0.2, 0.1999], "rival": [0.1, 0.2, 0.2]}  # alike after rounding


def _said(mean: float, half: float) -> str:
    """Whether mine is better than a rival."""
    if abs(mean) <= half:
        return "no difference shown"
    return "better" if mean < 0 else "worse"


def _smaller_is_open(mean: float, half: float) -> str:
    """The mistake: an interval of half width 0 at 0 does not hold 0."""
    if abs(mean) < half:
        return "no difference shown"
    return "better" if mean < 0 else "worse"


def _board(
    losses: Losses,
    intervals: Intervals,
    said: Callable[[float, float], str] = _said,
    loss_of: Callable[[Sequence[float]], float] = statistics.mean,
    worst_first: bool = False,
) -> list[Row]:
    """The rows of the leaderboard, with parts that may be wrong."""
    rows = []
    for name, values in losses.items():
        rows.append((name, float(loss_of(values)), said(*intervals.get(name, (0.0, 0.0)))))
    return sorted(rows, key=lambda row: row[1], reverse=worst_first)


@exercise(
    cases=[
        (_LOSSES, _INTERVALS),
        (_EXACTLY, {"rival": (1.0, 1.0)}),
        (_EXACTLY, {"rival": (1.0, 0.5)}),
        (_NEARLY, {"rival": (-0.00003, 0.0001)}),
    ],
    hints=[
        (
            "The lowest loss is the best, and stands first.",
            partial(_board, worst_first=True),
        ),
        (
            "Where the interval holds 0, no difference is shown, whatever the mean says.",
            partial(_board, said=lambda mean, half: _said(mean, 0.0)),
        ),
        (
            "Two words are not enough: where the interval holds 0, no difference is shown.",
            partial(_board, said=lambda mean, half: "better" if mean < 0 else "worse"),
        ),
        (
            "The rows are not sorted yet: the lowest mean loss stands first.",
            lambda losses, intervals: sorted(
                _board(losses, intervals), key=lambda row: list(losses).index(row[0])
            ),
        ),
        (
            "Do not round: rows that look alike then may differ.",
            partial(_board, loss_of=lambda values: round(statistics.mean(values), 3)),
        ),
        (
            "An interval that just touches 0 still holds it: |mean| must be *larger* than half.",
            partial(_board, said=lambda mean, half: _said(mean, half * (1 - 1e-12))),
        ),
        (
            "What has no interval has (0, 0), which touches 0. Where |mean| is half itself, no "
            "difference is shown: ask for |mean| > half, not >=.",
            partial(_board, said=_smaller_is_open),
        ),
        (
            "mine - theirs below 0 means that mine has the lower loss: better.",
            partial(_board, said=lambda mean, half: _said(-mean, half)),
        ),
        (
            "Rank by the mean over the seeds, not by the luckiest one.",
            partial(_board, loss_of=min),
        ),
        (
            "Every row is there, mine too; what has no interval shows no difference to itself.",
            lambda losses, intervals: [
                row for row in _board(losses, intervals) if row[0] in intervals
            ],
        ),
    ],
)
def leaderboard(losses: Losses, intervals: Intervals) -> list[Row]:
    """Give the rows of a leaderboard, the lowest mean loss first.

    Parameters
    ----------
    losses : mapping of str to sequence of float
        The losses of each way, mine among them, one for each seed.
    intervals : mapping of str to (float, float)
        For each rival the mean of mine - theirs, and half its 95 % interval.

    Returns
    -------
    list of (str, float, str)
        The name, the mean loss, and whether mine is "better" than this one, "worse", or "no
        difference shown": where the interval holds 0, and for mine itself.
    """
    return _board(losses, intervals)


# by variant and split a run's loss, and how much more it is when the run has few steps
_RACES = {
    "a": ({"train": 0.20, "validation": 0.27, "test": 0.10}, 1.0),  # best on test
    "b": ({"train": 0.25, "validation": 0.20, "test": 0.20}, 3.0),  # best on validation
    "c": ({"train": 0.05, "validation": 0.23, "test": 0.30}, 2.5),  # best on train
    "d": ({"train": 0.30, "validation": 0.50, "test": 0.25}, 2.0),  # worst on validation
    "rival": ({"train": 0.20, "validation": 0.28, "test": 0.22}, 4.0),
}


def _race(name: str, split: str, steps: int, seed: int) -> float:
    """What stands for a run's loss: less with more steps, and a seed does not move all alike."""
    losses, slow = _RACES[name]
    return losses[split] + slow / steps + (0.03 if name == "rival" else 0.07) * seed


def _duel(
    variants: Sequence,
    rival: Any,
    race: Callable,
    steps: int,
    chosen_on: str = "validation",
    reported_on: str = "test",
    steps_of_rival: float = 1.0,
    my_steps: float = 1.0,
    steps_to_choose: float = 1.0,
) -> list[float]:
    """The duel, with the splits as given and a share of the steps for each of its races."""
    tried = int(steps * steps_to_choose)
    best = min(variants, key=lambda score: race(score, chosen_on, tried, 0))
    rivals_steps = int(steps * steps_of_rival)
    differences = []
    for seed in range(3):
        mine = race(best, reported_on, int(steps * my_steps), seed)
        theirs = race(rival, reported_on, rivals_steps, seed)
        differences.append(mine - theirs)
    return differences


@exercise(
    cases=[
        (["a", "b", "c", "d"], "rival", _race, 40),
        (["d", "c", "b", "a"], "rival", _race, 60),
        (["a", "b"], "rival", _race, 60),
    ],
    hints=[
        (
            "Both mistakes are still there. On which split is the variant chosen? How long does "
            "the rival train?",
            partial(_duel, chosen_on="test", steps_of_rival=0.5),
        ),
        (
            "One mistake is left: the variant is chosen by the losses that are reported. Choose "
            "on validation.",
            partial(_duel, chosen_on="test"),
        ),
        (
            "One mistake is left: the rival trains half as long.",
            partial(_duel, steps_of_rival=0.5),
        ),
        (
            "Both train half as long now; `steps` is what both should get.",
            partial(_duel, my_steps=0.5, steps_of_rival=0.5),
        ),
        (
            "The variants are chosen after half of the steps; choose them as they will race.",
            partial(_duel, steps_to_choose=0.5),
        ),
        (
            "Nothing is held out on train, where the models learn. Choose on validation.",
            partial(_duel, chosen_on="train"),
        ),
        (
            "Leave the sign: a difference below 0 is a lower loss of mine.",
            lambda variants, rival, race, steps: [
                abs(difference) for difference in _duel(variants, rival, race, steps)
            ],
        ),
        (
            "The sign: mine less the rival's.",
            lambda variants, rival, race, steps: [
                -difference for difference in _duel(variants, rival, race, steps)
            ],
        ),
        (
            "Report test: what was chosen on validation looks too good there.",
            partial(_duel, reported_on="validation"),
        ),
    ],
)
def duel(variants: Sequence, rival: Any, race: Callable, steps: int) -> list[float]:
    """Let the best of my variants run against a rival, honestly.

    Parameters
    ----------
    variants : sequence
        My scores, of which one is chosen.
    rival : Any
        The score to compare with.
    race : callable
        race(score, split, steps, seed) is the loss of a run.
    steps : int
        How long to train.

    Returns
    -------
    list of float
        My loss less the rival's on test for seeds 0, 1 and 2: the variant is chosen on
        validation, and both train as long.
    """
    return _duel(variants, rival, race, steps)
