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
Hint = tuple[str, Callable]  # a sentence, and the wrong implementation that it is about


@dataclass(frozen=True)
class Raised:
    """The answer of a function that raised.

    Attributes
    ----------
    kind : type
        The class of the error.
    text : str
        The first line of its message.
    line : int or None
        The line of the function that it came from, where that is known.
    """

    kind: type
    text: str
    line: int | None


@dataclass(frozen=True)
class Exercise:
    """The check of an exercise: called with the learner's function, it says what it thinks of it.

    Its own docstring is that of the reference: what the learner's function takes and returns.

    Attributes
    ----------
    reference : callable
        A right implementation; its name is the exercise's.
    cases : sequence of tuple
        The arguments that a function is tried on.
    hints : sequence of (str, callable)
        Known mistakes: a hint, and the wrong implementation that it is for.
    """

    reference: Callable
    cases: Sequence[tuple]
    hints: Sequence[Hint]

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.reference.__doc__)

    @property
    def name(self) -> str:
        """The name of the function that the learner writes."""
        return self.reference.__name__

    def __call__(self, attempt: Callable) -> Callable:
        """Print one line that says "ok", gives a hint, or says "not attempted".

        Parameters
        ----------
        attempt : callable
            The learner's function; whatever it raises becomes part of the line.

        Returns
        -------
        callable
            `attempt` if it is right, else the reference, so that a notebook always goes on.
        """
        verdict: str | None
        if attempt is self.reference:  # the check ran twice: its name already holds the reference
            verdict = f"not attempted, or not right yet. {REFERENCE}"
        else:
            verdict = self.verdict([_answer(attempt, case) for case in self.cases])
        print(f"{self.name}: {verdict or 'ok'}")
        return self.reference if verdict else attempt

    def passes(self, attempt: Callable) -> bool:
        """Tell whether a function is right and the learner's own, for grading.

        It prints nothing: nbgrader gives no points to a cell that writes to stderr, so a warning
        stays quiet too.

        Parameters
        ----------
        attempt : callable
            The learner's function.

        Returns
        -------
        bool
            Whether it deserves the points.
        """
        if attempt is self.reference:
            return False
        with contextlib.redirect_stderr(io.StringIO()):
            return self.verdict([_answer(attempt, case) for case in self.cases]) is None

    def verdict(self, answers: Sequence[Any]) -> str | None:
        """Say what is wrong with a function's answers.

        Parameters
        ----------
        answers : sequence
            What it returned for each of the cases, or a `Raised`.

        Returns
        -------
        str or None
            One line, or None if all are right.
        """
        if not_attempted(answers):
            return f"not attempted. {REFERENCE}"
        right = [_answer(self.reference, case) for case in self.cases]
        pairs = zip(answers, right, strict=True)
        wrong = [number for number, (got, wanted) in enumerate(pairs) if not _same(got, wanted)]
        if not wrong:
            return None
        for hint, mistake in self.hints:
            if _alike(answers, [_answer(mistake, case) for case in self.cases]):
                return f"not yet. {hint} {REFERENCE}"
        first = wrong[0]
        difference = self.difference(self.cases[first], answers[first], right[first])
        return f"not yet. {difference} {REFERENCE}"

    def difference(self, case: tuple, got: Any, wanted: Any) -> str:
        """Say in a sentence how the answer to a case differs from the one that is wanted."""
        if isinstance(got, Raised):
            where = f" in line {got.line} of the cell" if got.line else ""
            return f"Your code stopped{where}: {got.kind.__name__}: {got.text}."
        if got is None:
            return "Your function returned None; does it end with `return`?"
        call = f"{self.name}({', '.join(_show(argument) for argument in case)})"
        if isinstance(got, tuple | list) and isinstance(wanted, tuple | list):
            # of several results only tensors are compared one by one: the rest is short to show
            for number, (part, part_wanted) in enumerate(zip(got, wanted, strict=False), start=1):
                if isinstance(part_wanted, Tensor) and not _same(part, part_wanted):
                    return (
                        f"Result {number} of {call} should be {_show(part_wanted)}, "
                        f"{_instead(part, part_wanted)}."
                    )
        return f"{call} should give {_show(wanted)}, {_instead(got, wanted)}."

    def __repr__(self) -> str:
        return f"Exercise({self.name}: {len(self.cases)} cases, {len(self.hints)} known mistakes)"


def exercise(cases: Sequence[tuple], hints: Sequence[Hint]) -> Callable[[Callable], Exercise]:
    """Turn a reference implementation into the check of its exercise; a decorator.

    Parameters
    ----------
    cases : sequence of tuple
        The arguments that a function is tried on.
    hints : sequence of (str, callable)
        Known mistakes: a hint, and the wrong implementation that it is for.

    Returns
    -------
    callable
        The decorator.
    """
    return lambda reference: Exercise(reference, cases, hints)


def claims(verdicts: Mapping[str, bool]) -> None:
    """Print a notebook's checked claims, a line each.

    They were measured with the notebook's own settings. With others one may no longer hold; then
    its line says so, which is worth a thought and no mistake.

    Parameters
    ----------
    verdicts : mapping of str to bool
        For each sentence whether it holds.
    """
    for sentence, holds in verdicts.items():
        print(f"{'holds' if holds else 'no longer holds with your settings'}: {sentence}")


def not_attempted(answers: Sequence[Any]) -> bool:
    """Whether the function is still the stub that the notebook gives."""
    return any(
        isinstance(answer, Raised) and answer.kind is NotImplementedError for answer in answers
    )


def _answer(function: Callable, case: tuple) -> Any:
    """What a function returns for a case, which it cannot change, or how it raised."""
    try:
        return function(*copy.deepcopy(case))
    except Exception as error:  # whatever a learner's code raises becomes one line
        code = getattr(function, "__code__", None)
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code
        ]
        message_lines = str(error).strip().splitlines() or [""]
        return Raised(
            kind=type(error),
            text=message_lines[0].rstrip("."),
            line=lines[-1] if lines else None,
        )


def _same(got: Any, wanted: Any) -> bool:
    """Whether an answer is the wanted one, numbers within rounding and of the same kind."""
    if isinstance(wanted, Tensor):
        if not isinstance(got, Tensor) or got.shape != wanted.shape:
            return False
        if torch.bool in (got.dtype, wanted.dtype) and got.dtype != wanted.dtype:
            return False
        return torch.allclose(got.detach().double(), wanted.double(), atol=1e-5)
    if isinstance(wanted, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(wanted):
            return False
        return all(_same(part, part_wanted) for part, part_wanted in zip(got, wanted, strict=True))
    if isinstance(wanted, Integral):
        return isinstance(got, Integral) and got == wanted
    if isinstance(wanted, Real):
        is_number = isinstance(got, Real) or (isinstance(got, Tensor) and got.numel() == 1)
        return is_number and math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-9)
    return got == wanted


def _alike(answers: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two functions answer every case alike; errors count by kind, but not errors alone."""
    if all(isinstance(other, Raised) for other in others):
        return False
    for answer, other in zip(answers, others, strict=True):
        if isinstance(answer, Raised) and isinstance(other, Raised):
            alike = answer.kind is other.kind
        else:
            alike = _same(answer, other)
        if not alike:
            return False
    return True


def _show(value: Any) -> str:
    """A value as a sentence shows it."""
    if isinstance(value, Tensor):
        if value.ndim == 1 and len(value) <= 8:
            numbers = value.tolist()
            return str([round(n, 3) if isinstance(n, float) else n for n in numbers])
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() else f"{value:.4g}"
    if isinstance(value, list | tuple):
        inside = ", ".join(_show(part) for part in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return getattr(value, "__name__", repr(value))


def _instead(got: Any, wanted: Any) -> str:
    """What the learner's function gave instead, in words that differ from what was wanted."""
    shown = _show(got)
    return f"yours gives {shown}" if shown != _show(wanted) else "yours has other numbers"


def random_tensors(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Normal random tensors of these shapes, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def cosine_matrix(
    neurons: int, pairs: Mapping[tuple[int, int], float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """The cosines (N, N) of neurons that are orthogonal but for these pairs."""
    cosines = torch.eye(neurons, dtype=dtype)
    for (i, j), cosine in pairs.items():
        cosines[i, j] = cosine
        cosines[j, i] = cosine
    return cosines
