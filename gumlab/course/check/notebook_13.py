"""Exercises of notebook 13, your own score."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from gumlab.collecting import Statistics
from gumlab.course.check.judging import REFERENCE, Exercise, Raised, exercise, random_tensors
from gumlab.feedforward import FeedForward

ORDER = torch.tensor([3, 0, 5, 1, 4, 2])


def _toy(order: Tensor) -> tuple[FeedForward, Statistics]:
    """A layer of 6 neurons in this order, D = 3, and its statistics; one neuron is dead."""
    h, incoming, outgoing = random_tensors((20, 6), (6, 3), (6, 3))
    h = (h.relu() * (torch.arange(6) != 4))[:, order]
    fc, proj = skip_init(nn.Linear, 3, 6), skip_init(nn.Linear, 6, 3, bias=False)  # draws nothing
    fc.weight.data, proj.weight.data = incoming[order], outgoing[order].T
    fc.bias.data = incoming[order, 0] - 1
    slope = h.mean(0) * outgoing[order, 0]
    found = Statistics(h.T @ h, h.sum(0), h.min(0).values, h.max(0).values, h.mean(0).square(),
                       slope.abs(), slope.square(), slope, tokens=20)  # fmt: skip
    return FeedForward("toy", (fc,), proj), found


class Form(Exercise):
    """Judges a criterion's form: any score of the right form is right, whatever its values."""

    def verdict(self, answers: Sequence[Any]) -> str | None:
        """One line on what is wrong with the scores of the toy layer in two orders, or None."""
        failed = [i for i, a in enumerate(answers) if a is None or isinstance(a, Raised)]
        if failed and getattr(answers[failed[0]], "kind", None) is NotImplementedError:
            return f"not attempted. {REFERENCE}"
        if failed:
            right = [self.reference(*case) for case in self.cases]
            return f"not yet. {self._difference(failed[0], answers, right)} {REFERENCE}"
        problem = self._problem(*answers)
        return f"not yet. {problem} {REFERENCE}" if problem else None

    def _problem(self, a: Any, b: Any) -> str | None:
        axis, nan, infinite, place, equal = (hint for hint, _ in self.hints)
        shape = tuple(getattr(a, "shape", ()))
        if shape == (3,):
            return axis
        if not isinstance(a, Tensor) or shape != ORDER.shape:
            shown = f"one of shape {shape}" if isinstance(a, Tensor) else repr(a)
            return f"A tensor of shape (6,) is due, for 6 neurons; yours gives {shown}."
        if not a.isfinite().all():
            return nan if a.isnan().any() else infinite
        if not torch.allclose(a[ORDER].double(), b.double(), rtol=1e-3):
            return place
        return equal if (a == a[0]).all() else None


def _norm(layer: FeedForward) -> Tensor:
    return layer.outgoing().detach().norm(dim=1)


@partial(
    Form,
    cases=[_toy(torch.arange(6)), _toy(ORDER)],
    hints=[
        ("That is one number per output; outgoing() is (N, D), so for one per neuron sum over "
         "axis 1.",
         lambda layer, found: layer.outgoing().square().sum(0)),
        ("A dead neuron (found.dead) gives 0 / 0, which is NaN. Use clamp_min on what you divide "
         "by.",
         lambda layer, found: _norm(layer) * found.gram.abs().sum(1) / found.energy),
        ("A dead neuron (found.dead) gives a number / 0, infinite: it would always stay.",
         lambda layer, found: _norm(layer) / found.energy),
        ("The same neurons in another order get other scores: neither a neuron's place nor chance "
         "may count.",
         lambda layer, found: found.energy * torch.arange(1, layer.width + 1)),
        ("All neurons have the same score: then the first ones stay, whoever they are.",
         lambda layer, found: torch.ones(layer.width)),
    ],
)  # fmt: skip
def my_score(layer: FeedForward, found: Statistics) -> Tensor:
    """How far a neuron can move its layer's output, (max h_i - min h_i) ||w_i||, (N,)."""
    return (found.high - found.low) * _norm(layer)


T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def _interval(a: Sequence[float], b: Sequence[float], t: float | None = None, root: float = 0.5):
    d = [x - y for x, y in zip(a, b, strict=True)]
    return statistics.mean(d), (t or T_95[len(d)]) * statistics.stdev(d) / len(d) ** root


def _unpaired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    spread = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(a))
    return statistics.mean(a) - statistics.mean(b), T_95[len(a)] * spread


@exercise(
    cases=[([0.31, 0.35, 0.30], [0.33, 0.36, 0.33]), ([1.0, 2.0, 4.0, 3.0], [1.5, 1.0, 4.0, 2.0])],
    hints=[
        ("You took the spreads of the two apart. A seed moves both alike: subtract first, seed by "
         "seed, then take the spread of the differences.", _unpaired),
        ("That is t times the spread of single differences. Their mean is surer: divide by "
         "sqrt(n).", lambda a, b: _interval(a, b, root=0)),
        ("1.96 is for many runs. With so few the spread itself is unsure: take t from the table.",
         lambda a, b: _interval(a, b, t=1.96)),
        ("Inside the spread divide by n - 1: the mean was made from the same numbers.",
         lambda a, b: (_interval(a, b)[0],
                       _interval(a, b)[1] * math.sqrt((len(a) - 1) / len(a)))),
        ("The sign: mine - theirs, so that a negative difference is a lower loss of yours.",
         lambda a, b: _interval(b, a)),
        ("That is the standard error; the half width is t times it.",
         lambda a, b: _interval(a, b, t=1.0)),
    ],
)  # fmt: skip
def paired_interval(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Mean of mine - theirs, paired by seed, and half the width of its 95 % t interval."""
    return _interval(mine, theirs)


def _race(name: str, split: str, steps: int, seed: int) -> float:
    gap = {"a": (0.3, 0.1), "b": (0.2, 0.2), "rival": (0.28, 0.15)}[name][split == "test"]
    return gap + 2 / steps + 0.01 * seed


def _duel(variants: Sequence, rival: Any, race: Callable, steps: int,
          *, split: str = "validation", short: int = 1) -> list[float]:  # fmt: skip
    best = min(variants, key=lambda score: race(score, split, steps, 0))
    pairs = [
        (race(best, "test", steps, s), race(rival, "test", steps // short, s)) for s in range(3)
    ]
    return [mine - theirs for mine, theirs in pairs]


@exercise(
    cases=[(["a", "b"], "rival", _race, 40), (["b", "a"], "rival", _race, 60)],
    hints=[
        ("Both mistakes are still there. On which split is the variant chosen? How long does the "
         "rival train?", lambda *case: _duel(*case, split="test", short=2)),
        ("One mistake is left: the variant is chosen by the losses that are reported. Choose on "
         "validation.", lambda *case: _duel(*case, split="test")),
        ("One mistake is left: the rival trains half as long.",
         lambda *case: _duel(*case, short=2)),
        ("Report test: what was chosen on validation looks too good there.",
         lambda variants, rival, race, steps: _duel(
             variants, rival, lambda n, s, t, seed: race(n, "validation", t, seed), steps)),
    ],
)  # fmt: skip
def duel(variants: Sequence, rival: Any, race: Callable, steps: int) -> list[float]:
    """mine - rival on test, by seed: the variant chosen on validation, the same steps for both."""
    return _duel(variants, rival, race, steps)
