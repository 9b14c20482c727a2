"""How an exercise is judged: by its answers to a few cases, next to those of known mistakes."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gumlab.course.check.comparison import same, same_values
from gumlab.course.check.trial import Raised, Trial, one_line, tried
from gumlab.course.check.wording import as_python, contrast, right_but, shown

REFERENCE = "Going on with the reference."
NOT_ATTEMPTED = f"not attempted. {REFERENCE}"
CALLS_REFERENCE = (
    "The values are right, but your function calls the reference; write the lines yourself."
)
LONGEST_LINE = 700  # characters
Hint = tuple[str, Callable]  # a sentence, and the wrong implementation that it is about


def by_place(function: Callable, *case: Any) -> Any:
    """How a function is tried on a case, unless its exercise has a way of its own."""
    return function(*case)


@dataclass(frozen=True)
class Exercise:
    """The check of an exercise: called with the learner's function, it says what it thinks of it.

    Its own docstring is that of the reference: what the learner's function takes and returns.
    Whatever that function does, the check prints one line and goes on; only Ctrl-C stops it. The
    function gets copies of the arguments, and its printing, warnings, random numbers and changed
    defaults do not leave the check.

    Attributes
    ----------
    reference : callable
        A right implementation; its name is the exercise's. It takes note when the learner's
        function calls it.
    cases : sequence of tuple
        The arguments that a function is tried on.
    hints : sequence of (str, callable)
        Known mistakes: a hint, and the wrong implementation that it is for.

    Notes
    -----
    The field ``run``, called with a function and the arguments of a case, gives the answer that is
    compared, for an exercise whose answer is not simply what the function returns: a class (make
    an object, call its methods), a function that returns a function (call that one too), an object
    whose numbers count, or what is left in an argument that the function is to change. It is used
    for the reference and the known mistakes as well.
    """

    reference: Callable
    cases: Sequence[tuple]
    hints: Sequence[Hint]
    run: Callable = by_place
    _memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.reference.__doc__)
        object.__setattr__(self, "reference", self._noticing(self.reference))

    def _noticing(self, reference: Callable) -> Callable:
        """The reference, which takes note of its calls."""

        @functools.wraps(reference, updated=())
        def noticing(*arguments: Any, **named: Any) -> Any:
            self._memory["calls"] = self._memory.get("calls", 0) + 1
            return reference(*arguments, **named)

        return noticing

    @property
    def name(self) -> str:
        """The name of the function that the learner writes."""
        return self.reference.__name__

    @property
    def yours(self) -> Callable | None:
        """The learner's function that was checked last, be it wrong; None before the first."""
        return self._memory.get("yours")

    def case(self, number: int) -> tuple:
        """The arguments of a case, to try a function on them: `top_v(*gl.check.top_v.case(2))`.

        Parameters
        ----------
        number : int
            From 1 to the number of cases.

        Returns
        -------
        tuple
            Copies, which may be changed.
        """
        return copy.deepcopy(self.cases[number - 1])

    def answer(self, function: Callable, number: int) -> Any:
        """What a function gives for a case, the way the check calls it; nothing is caught.

        Parameters
        ----------
        function : callable
            The function.
        number : int
            From 1 to the number of cases.

        Returns
        -------
        Any
            Its answer.
        """
        return self.run(function, *self.case(number))

    def __call__(self, attempt: Callable) -> Callable:
        """Print one line that says "ok", what is wrong, or "not attempted".

        If the name already holds the reference, because the check runs a second time, it says
        again what it said of the learner's function.

        Parameters
        ----------
        attempt : callable
            The learner's function; whatever it raises becomes part of the line.

        Returns
        -------
        callable
            `attempt` if it is right, else the reference, so that a notebook always goes on.
        """
        if self._is_reference(attempt):
            verdict = self._memory.get("verdict") or NOT_ATTEMPTED
        else:
            verdict = self._judged(attempt)
            self._memory["verdict"] = verdict
            self._memory["yours"] = attempt
        print(one_line(f"{self.name}: {verdict or 'ok'}", LONGEST_LINE))
        return self.reference if verdict else attempt

    def passes(self, attempt: Callable) -> bool:
        """Tell whether a function is right and the learner's own, for grading.

        It prints nothing: nbgrader gives no points to a cell that writes to stderr, so a warning
        stays quiet too.

        The reference earns no points, nor does a function that calls it. What this cannot see: a
        copy of the printed solution or of the reference's source, a reference that was unwrapped
        (`inspect.unwrap`), and a call of another function of gumlab that does the same work.

        Parameters
        ----------
        attempt : callable
            The learner's function.

        Returns
        -------
        bool
            Whether it deserves the points.
        """
        return not self._is_reference(attempt) and self._judged(attempt) is None

    def _is_reference(self, attempt: Callable) -> bool:
        return attempt is self.reference or attempt is inspect.unwrap(self.reference)

    def _tried(self, function: Callable) -> list[Trial]:
        """What a function does with each of the cases."""
        return [
            tried(self.run, function, case, seed=number) for number, case in enumerate(self.cases)
        ]

    def _right(self) -> list[Trial]:
        """What the reference does with each of the cases."""
        if "right" not in self._memory:
            self._memory["right"] = self._tried(self.reference)
        return self._memory["right"]

    def _mistakes(self) -> list[tuple[str, list]]:
        """The hints, and what the wrong implementations answer to each of the cases."""
        if "mistakes" not in self._memory:
            self._memory["mistakes"] = [
                (hint, [trial.answer for trial in self._tried(wrong)]) for hint, wrong in self.hints
            ]
        return self._memory["mistakes"]

    def _judged(self, attempt: Callable) -> str | None:
        """What is wrong with a function, whatever it does: its answers, or how it got them."""
        calls_before = self._memory.get("calls", 0)
        trials = self._tried(attempt)
        calls_reference = self._memory.get("calls", 0) > calls_before
        try:
            verdict = self.verdict([trial.answer for trial in trials])
        except Exception as error:  # the answer's own methods are the learner's code, too
            problem = f"An answer cannot be compared with the right one: {type(error).__name__}."
            return f"not yet. {problem} {self._going_on()}"
        change = self._changed_input(trials)
        if verdict is None and change:
            return f"not yet. The values are right, but y{change[1:]} {self._going_on()}"
        if verdict is None and calls_reference:
            return f"not yet. {CALLS_REFERENCE} {REFERENCE}"
        return f"{verdict} {change}" if verdict and change else verdict

    def _changed_input(self, trials: Sequence[Trial]) -> str | None:
        """A sentence on an argument that a function changed and the reference does not."""
        names = list(inspect.signature(self.reference).parameters)
        for number, (trial, right) in enumerate(zip(trials, self._right(), strict=True)):
            for place in trial.changed:
                if place not in right.changed:
                    name = names[place] if place < len(names) else str(place + 1)
                    return (
                        f"Your function changes its input `{name}` in {self._call(number)}; "
                        "work on a copy."
                    )
        return None

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
            return NOT_ATTEMPTED
        right = [trial.answer for trial in self._right()]
        pairs = list(zip(answers, right, strict=True))
        wrong = [number for number, pair in enumerate(pairs) if not same(*pair)]
        if not wrong:
            return None
        has_right_values = all(same_values(*pair) for pair in pairs)
        first = next((n for n in wrong if has_right_values or not same_values(*pairs[n])), wrong[0])
        difference = self.difference(self.cases[first], *pairs[first])
        hint = self._hint(answers, has_right_values)
        return f"not yet. {hint}{difference} {self._going_on()}"

    def _hint(self, answers: Sequence[Any], has_right_values: bool) -> str:
        """The hint for the known mistake that gives these answers, and a blank; or nothing."""
        # the same mistake in another container is the same mistake, but right values are none
        for alike in (same,) if has_right_values else (same, same_values):
            for hint, others in self._mistakes():
                if _alike(answers, others, alike):
                    return f"{hint} "
        return ""

    def difference(self, case: tuple, got: Any, wanted: Any) -> str:
        """Say in a sentence how the answer to a case differs from the one that is wanted."""
        number = next(place for place, other in enumerate(self.cases) if other is case)
        call = self._call(number)
        if isinstance(got, Raised):
            where = f" in line {got.line} of the cell" if got.line else ""
            error = f"{got.kind.__name__}: {got.text}" if got.text else got.kind.__name__
            return f"Your code stopped{where}: {error}. {_due(call, wanted)}"
        may_be_none = "None" in str(inspect.signature(self.reference).return_annotation)
        if got is None and not may_be_none:
            return f"Your function returned None; does it end with `return`? {_due(call, wanted)}"
        if sentence := right_but(got, wanted):
            return f"{sentence}. It was called as {call}; it {contrast(got, wanted)}."
        if isinstance(got, tuple | list) and isinstance(wanted, tuple | list):
            # of several results only tensors are compared one by one: the rest is short to show
            for number, (part, part_wanted) in enumerate(zip(got, wanted, strict=False), start=1):
                if isinstance(part_wanted, Tensor) and not same(part, part_wanted):
                    return f"Result {number} of {call} {contrast(part, part_wanted)}."
        return f"{call} {contrast(got, wanted)}."

    def _call(self, number: int) -> str:
        """The call of a case, as Python that can be run again."""
        if self.run is not by_place:
            return f"gl.check.{self.name}.answer({self.name}, {number + 1})"
        arguments = as_python(list(self.cases[number]))
        if arguments is None:
            return f"{self.name}(*gl.check.{self.name}.case({number + 1}))"
        return f"{self.name}({arguments[1:-1]})"

    def _going_on(self) -> str:
        """What a line ends with when there is a function of the learner's to go back to."""
        return f"{REFERENCE[:-1]}; yours is gl.check.{self.name}.yours."

    def __repr__(self) -> str:
        return f"Exercise({self.name}: {len(self.cases)} cases, {len(self.hints)} known mistakes)"


def exercise(
    cases: Sequence[tuple], hints: Sequence[Hint], run: Callable = by_place
) -> Callable[[Callable], Exercise]:
    """Turn a reference implementation into the check of its exercise; a decorator.

    Parameters
    ----------
    cases : sequence of tuple
        The arguments that a function is tried on.
    hints : sequence of (str, callable)
        Known mistakes: a hint, and the wrong implementation that it is for.
    run : callable, optional
        As in `Exercise`: run(function, *case) gives the answer that is compared.

    Returns
    -------
    callable
        The decorator.
    """
    return lambda reference: Exercise(reference, cases, hints, run)


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
    return all(isinstance(answer, Raised) and answer.is_stub for answer in answers)


def _alike(answers: Sequence[Any], others: Sequence[Any], alike: Callable) -> bool:
    """Whether two functions answer every case alike; errors count by kind, but not errors alone."""
    if all(isinstance(other, Raised) for other in others):
        return False
    for answer, other in zip(answers, others, strict=True):
        if isinstance(answer, Raised) and isinstance(other, Raised):
            if answer.kind is not other.kind:
                return False
        elif not alike(answer, other):
            return False
    return True


def _due(call: str, wanted: Any) -> str:
    """What a call should give, where that is known."""
    return f"It was called as {call}." if wanted is None else f"{call} should give {shown(wanted)}."


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
