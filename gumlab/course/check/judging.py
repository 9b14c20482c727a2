"""How an exercise is judged: by its answers to a few cases, next to those of known mistakes."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

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
    """A reference, the cases it is tried on, and (hint, wrong implementation) pairs."""

    reference: Callable
    cases: Sequence[tuple]
    hints: Sequence[Hint]

    @property
    def name(self) -> str:
        return self.reference.__name__

    def __call__(self, attempt: Callable) -> Callable:
        """Print what the cases say; return `attempt` if it is right, else the reference."""
        if attempt is self.reference:  # the check ran twice: its name already holds the reference
            verdict: str | None = f"not attempted, or not right yet. {REFERENCE}"
        else:
            verdict = self.verdict([_answer(attempt, case) for case in self.cases])
        print(f"{self.name}: {verdict or 'ok'}")
        return self.reference if verdict else attempt

    def passes(self, attempt: Callable) -> bool:
        """Whether `attempt` is right and the learner's own, for grading; prints and raises nothing.

        nbgrader gives no points to a cell that writes to stderr, so a warning stays quiet too.
        """
        if attempt is self.reference:
            return False
        with contextlib.redirect_stderr(io.StringIO()):
            return self.verdict([_answer(attempt, case) for case in self.cases]) is None

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
        parts = zip(got, right[i]) if isinstance(got, tuple | list) else []  # noqa: B905
        for k, (mine, wanted) in enumerate(parts):
            if isinstance(wanted, Tensor) and not _same(mine, wanted):
                return f"Result {k + 1} of {call} should be {_show(wanted)}, {_but(mine, wanted)}."
        return f"{call} should give {_show(right[i])}, {_but(got, right[i])}."

    def __repr__(self) -> str:
        return f"Exercise({self.name}: {len(self.cases)} cases, {len(self.hints)} known mistakes)"


def exercise(cases: Sequence[tuple], hints: Sequence[Hint]) -> Callable[[Callable], Exercise]:
    """Decorator that turns a reference implementation into the check of its exercise."""
    return lambda reference: Exercise(reference, cases, hints)


def claims(verdicts: Mapping[str, bool]) -> None:
    """Print a notebook's checked claims, a line each; AssertionError if one does not hold."""
    for sentence, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {sentence}")
    failed = [sentence for sentence, holds in verdicts.items() if not holds]
    if failed:
        raise AssertionError("; ".join(failed))


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
            isinstance(got, list | tuple) and len(got) == len(right) and all(map(_same, got, right))
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
        return f"{value:.1f}" if value == int(value) else f"{value:.4g}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_show, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return getattr(value, "__name__", repr(value))


def _but(got: Any, right: Any) -> str:
    """What the learner's function gave instead, in words that differ from what was wanted."""
    shown = _show(got)
    return f"yours gives {shown}" if shown != _show(right) else "yours has other numbers"


def random_tensors(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Normal random tensors of these shapes, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)
