"""The exercises' checks: `check.<name>(fn)` prints one line and returns a function that works.

The line says ok, or gives a hint for the mistake it recognises, or says "not attempted". The
function that comes back is the learner's own if it is right, else the reference, so that Run All
always ends. A mistake is recognised by its answers: each hint comes with a wrong implementation,
and a learner's function that answers every case as that one does has made that mistake.

In a notebook the learner's function, the check and the printed solution share one name, and the
solution's fence begins with the comment `# solution: <name>`.
"""

from __future__ import annotations

import copy
import math
import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from gumlab.selection import schedule, top

REFERENCE = "Going on with the reference."
Hint = tuple[str, Callable]


@dataclass(frozen=True)
class Raised:
    """The answer of a function that raised: the kind of error, its first line, where it was."""

    kind: type
    text: str
    line: int | None


@dataclass(frozen=True)
class Exercise:
    """One exercise: the reference, the cases it is tried on, and (hint, wrong implementation) pairs."""

    reference: Callable
    cases: Sequence[tuple]
    hints: Sequence[Hint]

    @property
    def name(self) -> str:
        return self.reference.__name__

    def __call__(self, attempt: Callable) -> Callable:
        """Print what the cases say about `attempt`; return it if it is right, else the reference."""
        answers = [_answer(attempt, case) for case in self.cases]
        verdict = self.verdict(answers)
        print(f"{self.name}: {verdict or 'ok'}")
        return self.reference if verdict else attempt

    def verdict(self, answers: Sequence[Any]) -> str | None:
        """One line on what is wrong with the answers to the cases, or None."""
        if any(isinstance(a, Raised) and a.kind is NotImplementedError for a in answers):
            return f"not attempted. {REFERENCE}"
        right = [_answer(self.reference, case) for case in self.cases]
        wrong = [i for i, pair in enumerate(zip(answers, right, strict=True)) if not _same(*pair)]
        if not wrong:
            return None
        for hint, implementation in self.hints:
            if _alike(answers, [_answer(implementation, case) for case in self.cases]):
                return f"not yet. {hint} {REFERENCE}"
        return f"not yet. {self._difference(wrong[0], answers, right)} {REFERENCE}"

    def _difference(self, i: int, answers: Sequence[Any], right: Sequence[Any]) -> str:
        got, call = answers[i], f"{self.name}({', '.join(map(_show, self.cases[i]))})"
        if isinstance(got, Raised):
            where = f" in line {got.line} of the cell" if got.line else ""
            return f"Your code stopped{where}: {got.kind.__name__}: {got.text}."
        if got is None:
            return "Your function returned None; does it end with `return`?"
        if isinstance(right[i], tuple) and isinstance(got, tuple) and len(got) == len(right[i]):
            k = next(k for k, pair in enumerate(zip(got, right[i], strict=True)) if not _same(*pair))
            return f"Part {k + 1} of {call} should be {_show(right[i][k])}, yours is {_show(got[k])}."
        return f"{call} should give {_show(right[i])}, yours gives {_show(got)}."

    def __repr__(self) -> str:
        return f"Exercise({self.name}: {len(self.cases)} cases, {len(self.hints)} known mistakes)"


def exercise(cases: Sequence[tuple], hints: Sequence[Hint]) -> Callable[[Callable], Exercise]:
    """Decorator that turns a reference implementation into the check of its exercise."""
    return lambda reference: Exercise(reference, cases, hints)


def _answer(function: Callable, case: tuple) -> Any:
    try:
        return function(*copy.deepcopy(case))
    except Exception as error:  # whatever a learner's code raises becomes one line
        code = getattr(function, "__code__", None)
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_code is code]
        text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        return Raised(type(error), text, lines[-1] if lines else None)


def _same(got: Any, right: Any) -> bool:
    if isinstance(right, Tensor):
        if not isinstance(got, Tensor) or got.shape != right.shape:
            return False
        if torch.bool in (got.dtype, right.dtype) and got.dtype != right.dtype:
            return False
        return torch.allclose(got.detach().double(), right.double(), atol=1e-5)
    if isinstance(right, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(right)
            and all(map(_same, got, right))
        )
    if isinstance(right, Integral):
        return isinstance(got, Integral) and got == right
    if isinstance(right, Real):
        number = isinstance(got, Real) or (isinstance(got, Tensor) and got.numel() == 1)
        return number and math.isclose(got, right, rel_tol=1e-5, abs_tol=1e-9)
    return got == right


def _alike(answers: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two functions answer every case alike; errors count by kind, but not errors alone."""
    same = [
        a.kind is b.kind if isinstance(a, Raised) and isinstance(b, Raised) else _same(a, b)
        for a, b in zip(answers, others, strict=True)
    ]
    return all(same) and not all(isinstance(b, Raised) for b in others)


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.ndim == 1 and len(value) <= 8:
            return str([round(v, 3) if isinstance(v, float) else v for v in value.tolist()])
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_show, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return getattr(value, "__name__", repr(value))


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


# --- 00 start here -------------------------------------------------------------------------------


@exercise(
    cases=[(0.25, [512] * 4), (0.3, [4, 4, 4]), (0.4, [4, 4, 4]), (0.1, [6, 6]), (1.0, [7])],
    hints=[
        ("int() cuts the fraction off; round to the nearest whole number.",
         lambda keep, widths: int(keep * sum(widths))),
        ("You always round up; round to the nearest whole number.",
         lambda keep, widths: math.ceil(keep * sum(widths))),
        ("You round in each layer, and the errors add up; sum the widths first, round once.",
         lambda keep, widths: sum(round(keep * w) for w in widths)),
        ("You count the neurons that go, not those that stay.",
         lambda keep, widths: sum(widths) - round(keep * sum(widths))),
    ],
)  # fmt: skip
def kept_count(keep: float, widths: list[int]) -> int:
    """How many neurons stay in a model with these layer widths."""
    return round(keep * sum(widths))


@exercise(
    cases=[(512, 2048, 257, 953_088), (1024, 2048, 384, 1_200_000), (10, 10, 3, 100)],
    hints=[
        ("That is the fraction of neurons; attention and embeddings have parameters too, and stay.",
         lambda kept, total, each, size: kept / total),
        ("You forgot the rest: everything outside the feed-forward neurons stays as well.",
         lambda kept, total, each, size: kept * each / size),
        ("That is the fraction that goes; the question is what is left.",
         lambda kept, total, each, size: (total - kept) * each / size),
        ("That is a percentage; give a fraction between 0 and 1.",
         lambda kept, total, each, size: 100 * (1 - (total - kept) * each / size)),
    ],
)  # fmt: skip
def fraction_of_parameters(
    neurons_kept: int, neurons_total: int, parameters_per_neuron: int, parameters_total: int
) -> float:
    """The fraction of the whole model's parameters that is left."""
    removed = (neurons_total - neurons_kept) * parameters_per_neuron
    return 1 - removed / parameters_total
