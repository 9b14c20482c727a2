"""Whatever a learner's function does, its check prints one line that helps; no wrong one passes.

Each strange function is tried on every exercise; what its line has to say stands beside it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import random
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers.exercises import EXERCISES, right
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

from gumlab.course import check
from gumlab.course.check.comparison import same
from gumlab.course.check.judging import Exercise
from gumlab.course.check.trial import unchanged

each_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
OPEN = {"my_score", "my_variant"}  # any answer of the right form is right
CLOSED = [pytest.param(e, id=name) for name, e in EXERCISES.items() if name not in OPEN]


def line_of(exercise, attempt, capsys) -> str:
    """What a check says of a function: one line, on stdout, that names the exercise."""
    capsys.readouterr()
    kept = exercise(attempt)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert out.startswith(f"{exercise.name}: ")
    assert len(out) < 720
    assert (kept is attempt) == (out == f"{exercise.name}: ok\n")
    return out


def altered(exercise, change):
    """The right function, its answers changed."""
    answer = right(exercise)
    return lambda *case: change(answer(*case))


def each_number(value, change):
    """An answer whose tensors and numbers are changed; texts, None and containers stay."""
    if isinstance(value, list | tuple):
        return type(value)(each_number(part, change) for part in value)
    return change(value) if isinstance(value, Tensor | int | float) else value


class Hostile:
    """An object whose every method raises."""

    def __repr__(self):
        raise ValueError("no repr")

    def __eq__(self, other):
        raise ValueError("no ==")

    def __len__(self):
        raise ValueError("no len")

    def __iter__(self):
        raise ValueError("no iter")

    def __float__(self):
        raise ValueError("no float")

    def __array__(self, *arguments, **options):
        raise ValueError("no array")

    __hash__ = None


class AgreesWithAll:
    """An object that says it equals everything."""

    def __eq__(self, other):
        return True

    __hash__ = None


def holds_itself() -> list:
    endless = []
    endless.extend([endless] * 3)
    return endless


WRONG_ANSWERS = {
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "a NaN tensor": lambda: torch.full((4,), torch.nan),
    "an empty list": lambda: [],
    "a list of lists": lambda: [[1.0, 2.0], [3.0]],
    "a list that holds itself": holds_itself,
    "a tuple": lambda: (1, "two", None),
    "an array": lambda: np.arange(6.0),
    "an array of objects": lambda: np.array([object(), None]),
    "a numpy number": lambda: np.float32(12345.5),
    "a numpy bool": lambda: np.bool_(True),
    "a bool": lambda: True,
    "a text": lambda: "text\nin two lines \x1b[31m and \ud800",
    "bytes": lambda: b"\xff",
    "a dict": lambda: {"a": torch.ones(2), 3: Hostile},
    "a set": lambda: {1, 2},
    "a complex number": lambda: 1 + 2j,
    "a complex tensor": lambda: torch.ones(4, dtype=torch.complex64) * 1j,
    "a 0-d tensor": lambda: torch.tensor(12345.5),
    "a tensor of shape (1, 1)": lambda: torch.tensor([[12345.5]]),
    "an empty tensor": lambda: torch.ones(0),
    "a tensor without numbers": lambda: torch.ones(4, device="meta"),
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "a tensor with a gradient": lambda: torch.ones(4, requires_grad=True),
    "a tensor of int8": lambda: torch.ones(4, dtype=torch.int8),
    "a huge tensor": lambda: torch.zeros(1).expand(10**10),
    "a huge list": lambda: [0] * 1_000_000,
    "a huge text": lambda: "x" * 1_000_000,
    "a generator": lambda: (number for number in (1, 2)),
    "an endless generator": lambda: iter(int, 1),
    "a function": lambda: len,
    "a lambda": lambda: lambda: 0,
    "a class": lambda: Hostile,
    "a module": lambda: sys,
    "an object": object,
    "an object that raises": Hostile,
    "a list of objects that raise": lambda: [Hostile(), Hostile()],
    "an object that agrees with all": AgreesWithAll,
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "an error": lambda: ValueError("not raised"),
}


@each_exercise
def test_no_strange_answer_stops_a_check_or_passes(exercise, capsys):
    for what, made in WRONG_ANSWERS.items():

        def strange(*case, made=made):
            return made()

        line = line_of(exercise, strange, capsys)
        assert "not yet." in line, what
    assert line == line_of(exercise, strange, capsys)
    assert not exercise.passes(strange)


class Odd(Exception):
    """An error whose message raises."""

    def __str__(self):
        raise ValueError


def forever(*case):
    return forever(*case)


def raising(error):
    def attempt(*case):
        raise error

    return attempt


@each_exercise
@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (raising(ValueError("one\ntwo.")), "ValueError: one. "),
        (raising(KeyError()), ": KeyError. "),
        (raising(SystemExit(3)), "SystemExit: 3. "),
        (raising(GeneratorExit()), "GeneratorExit. "),
        (raising(Odd()), "Odd. "),
        (raising(StopIteration()), "StopIteration. "),
        (raising(MemoryError()), "MemoryError. "),
        (raising(UserWarning("w" * 9999)), "UserWarning: www"),
        (forever, "RecursionError: maximum recursion depth exceeded"),
        (lambda *case: torch.ones(2, device="meta").sum().item(), "Error: "),
        (lambda *case, more: 0, "TypeError: "),
        (lambda: 0, "TypeError: "),
        ("a text", "TypeError: 'str' object is not callable. "),
        (None, "TypeError: 'NoneType' object is not callable. "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_is_told_with_its_case(exercise, attempt, said, capsys):
    line = line_of(exercise, attempt, capsys)
    assert said in line
    assert exercise.name + "(" in line
    assert "not attempted" not in line


@each_exercise
def test_ctrl_c_passes_through(exercise):
    with pytest.raises(KeyboardInterrupt):
        exercise(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        exercise.passes(raising(KeyboardInterrupt()))


def to_list(value):
    return value.tolist() if isinstance(value, Tensor) else value


def to_array(value):
    return value.detach().numpy() if isinstance(value, Tensor) else np.array(value)


def with_one_more_dimension(value):
    return torch.as_tensor(value)[None]


def to_complex(value):
    return value.to(torch.complex128) if isinstance(value, Tensor) else complex(value)


@pytest.mark.parametrize("exercise", CLOSED)
@pytest.mark.parametrize("change", [to_list, to_array, with_one_more_dimension, to_complex])
def test_right_values_in_another_container_are_told_so(exercise, change, capsys):
    attempt = altered(exercise, lambda answer: each_number(answer, change))
    line = line_of(exercise, attempt, capsys)
    answers = [exercise.answer(right(exercise), n + 1) for n in range(len(exercise.cases))]
    if all(same(each_number(answer, change), answer) for answer in answers):
        assert line == f"{exercise.name}: ok\n"  # a text has no container, an int no other one
    else:
        assert "The values are right, but return a" in line
        assert ", not a" in line


@pytest.mark.parametrize("exercise", CLOSED)
def test_a_generator_of_right_values_is_told_so(exercise, capsys):
    answer = right(exercise)
    if isinstance(exercise.answer(answer, 1), list | tuple):
        line = line_of(exercise, lambda *case: (part for part in answer(*case)), capsys)
        assert "The values are right, but return a" in line
        assert ", not a generator" in line


def as_float(mask):
    return mask.float() if isinstance(mask, Tensor) and mask.dtype == torch.bool else mask


@pytest.mark.parametrize("exercise", CLOSED)
def test_a_mask_of_floats_and_a_float_for_a_whole_number_are_told(exercise, capsys):
    wanted = exercise.answer(right(exercise), 1)
    first = wanted[0] if isinstance(wanted, list | tuple) else wanted
    if isinstance(first, Tensor) and first.dtype == torch.bool:
        masks = altered(exercise, lambda answer: each_number(answer, as_float))
        assert "return a bool tensor" in line_of(exercise, masks, capsys)
    if isinstance(first, int):
        line = line_of(exercise, altered(exercise, lambda a: each_number(a, float)), capsys)
        assert ("return a bool" if isinstance(first, bool) else "return an int") in line
        assert "not a float" in line


def set_to(number):
    """Put a number at the first place of a float answer."""

    def change(value):
        if isinstance(value, float):
            return number
        if isinstance(value, Tensor) and value.is_floating_point():
            value = value.clone()
            value[(0,) * value.ndim] = number
        return value

    return change


@pytest.mark.parametrize("exercise", CLOSED)
@pytest.mark.parametrize(("number", "said"), [(torch.nan, "NaN is not"), (torch.inf, "infinite")])
def test_nan_and_infinity_are_named(exercise, number, said, capsys):
    wanted = exercise.answer(right(exercise), 1)
    first = wanted[0] if isinstance(wanted, list | tuple) else wanted
    if isinstance(first, float) or (isinstance(first, Tensor) and first.is_floating_point()):
        attempt = altered(exercise, lambda answer: each_number(answer, set_to(number)))
        assert said in line_of(exercise, attempt, capsys)


def nudged(value):
    """A float answer that is wrong in its fourth digit, as one that was rounded is."""
    if isinstance(value, Tensor):
        return value * 1.0002 + 1e-4 if value.is_floating_point() else value
    return value * 1.0002 + 1e-4 if isinstance(value, float) else value


@pytest.mark.parametrize("exercise", CLOSED)
def test_a_wrong_fourth_digit_is_wrong_and_float64_is_not(exercise, capsys):
    answers = [exercise.answer(right(exercise), n + 1) for n in range(len(exercise.cases))]
    has_floats = any(not same(each_number(answer, nudged), answer) for answer in answers)
    line = line_of(exercise, altered(exercise, lambda a: each_number(a, nudged)), capsys)
    assert ("not yet." in line) == has_floats

    def precise(value):
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.double().requires_grad_() if is_float else value

    line = line_of(exercise, altered(exercise, lambda a: each_number(a, precise)), capsys)
    assert line == f"{exercise.name}: ok\n"


@each_exercise
def test_a_right_function_of_any_form_is_right_twice(exercise, capsys):
    answer = right(exercise)

    class Holder:
        def method(self, *case):
            return answer(*case)

        def __call__(self, *case):
            return answer(*case)

    for form in (answer, functools.partial(answer), Holder().method, Holder()):
        for _ in range(2):
            assert line_of(exercise, form, capsys) == f"{exercise.name}: ok\n"
        assert exercise.passes(form)
    assert capsys.readouterr() == ("", "")


@each_exercise
def test_a_check_that_runs_again_says_the_same_again(exercise, capsys):
    first = line_of(exercise, raising(ValueError("mine")), capsys)
    assert exercise.yours is not exercise.reference
    assert exercise(exercise.reference) is exercise.reference
    assert exercise(exercise.reference) is exercise.reference
    assert capsys.readouterr().out == 2 * first
    line_of(exercise, right(exercise), capsys)
    exercise(exercise.reference)
    assert (
        capsys.readouterr().out == f"{exercise.name}: not attempted. Going on with the reference.\n"
    )


@each_exercise
def test_a_call_of_the_reference_is_seen_and_told(exercise, capsys):
    def wrapper(*case):
        return exercise.reference(*case)

    assert "your function calls the reference" in line_of(exercise, wrapper, capsys)
    assert not exercise.passes(wrapper)
    assert not exercise.passes(functools.partial(exercise.reference))
    assert not exercise.passes(inspect.unwrap(exercise.reference))
    assert exercise.passes(right(exercise))


@each_exercise
def test_a_function_that_is_not_touched_and_one_that_is_half_done_are_told_apart(exercise, capsys):
    answer = right(exercise)
    calls = iter(range(99))

    def half(*case):
        if next(calls):
            raise NotImplementedError
        return answer(*case)

    assert "not attempted" in line_of(exercise, raising(NotImplementedError("yours")), capsys)
    if len(exercise.cases) > 1:
        assert ": NotImplementedError. " in line_of(exercise, half, capsys)


@each_exercise
def test_what_a_function_does_to_the_outside_stays_inside(exercise, capsys):
    answer = right(exercise)

    def meddles(*case):
        given = answer(*case)
        print("talks")
        print("talks", file=sys.stderr)
        warnings.warn("warns", stacklevel=1)
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        return given

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    assert line_of(exercise, meddles, capsys) == f"{exercise.name}: ok\n"
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert not _get_current_function_mode_stack()  # or all calls of torch would be slower
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("in_a_block", [True, False])
def test_the_default_device_that_a_notebook_chose_stays(in_a_block, capsys):
    exercise = EXERCISES["top_v"]
    answer = right(exercise)

    def meddles(*case):
        torch.set_default_device("cpu")
        return answer(*case)

    try:
        if not in_a_block:
            torch.set_default_device("meta")
        with torch.device("meta") if in_a_block else contextlib.nullcontext():
            line_of(exercise, meddles, capsys)
            assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)
    assert not _get_current_function_mode_stack()


def test_random_answers_are_told_the_same_twice(capsys):
    def guess(scores, keep):
        return torch.rand(len(scores)) > 0.5

    assert line_of(check.top_v, guess, capsys) == line_of(check.top_v, guess, capsys)


def spoil(argument) -> bool:
    """Change an argument in place, and say whether that could be done."""
    if isinstance(argument, Tensor):
        first = (0,) * argument.ndim
        with torch.no_grad():  # else torch itself refuses where the argument has a gradient
            argument[first] = not argument[first] if argument.dtype == torch.bool else 77
        return True
    if isinstance(argument, list):
        argument.append(0)
        return True
    return False


@pytest.mark.parametrize("exercise", CLOSED)
def test_a_changed_input_is_told_by_its_name(exercise, capsys):
    answer = right(exercise)
    names = list(inspect.signature(exercise.reference).parameters)
    for place, name in enumerate(names):
        if not spoil(exercise.case(1)[place]):
            continue

        def spoils(*case, place=place):
            given = answer(*case)
            spoil(case[place])
            return given

        line = line_of(exercise, spoils, capsys)
        assert f"our function changes its input `{name}` in {exercise.name}(" in line
        assert not exercise.passes(spoils)


# --- a line's case can be run again


@pytest.mark.parametrize("exercise", CLOSED)
def test_the_case_of_a_line_can_be_pasted(exercise, capsys):
    line = line_of(exercise, lambda *case: Hostile(), capsys)
    call = re.search(rf"({exercise.name}\(.*\)) should give", line)[1]
    seen = []

    def spy(*case):
        seen.append(copy.deepcopy(case))  # a training loop changes what it is given
        return right(exercise)(*case)

    eval(call, {"torch": torch, "gl": __import__("gumlab"), exercise.name: spy})
    assert any(unchanged(seen[0], case) for case in exercise.cases)


def test_small_cases_are_shown_as_python_and_large_ones_by_their_number(capsys):
    line = line_of(check.top_v, lambda scores, keep: scores >= 0.5, capsys)
    assert "top_v(torch.tensor([3, 1, 2, 2, 2, 0]), 0.5) should give" in line
    line = line_of(check.cosine_table, lambda gram: gram, capsys)
    assert "cosine_table(*gl.check.cosine_table.case(" in line
    assert ")) should give" in line


def test_a_case_is_a_copy():
    check.top_v.case(1)[0].zero_()
    assert check.top_v.case(1)[0].any()


def test_the_learners_function_can_be_called_after_it_was_wrong(capsys):
    def wrong(keep, widths):
        return 7

    assert check.kept_count(wrong) is not wrong
    assert "yours is gl.check.kept_count.yours" in capsys.readouterr().out
    assert check.kept_count.yours is wrong


# --- answers that are functions, classes, or what is left in an argument


def make_gate(open_from: float):
    """Give a function that tells whether a number passes."""
    return lambda number: number >= open_from


class Half:
    """Keep one of two."""

    def __init__(self, width):
        self.width = width

    def mask(self):
        return torch.arange(self.width) % 2 == 0


def zero_first(weights: Tensor) -> None:
    """Set the first weight to 0, in place."""
    weights[0] = 0.0


def left_in_it(function, weights):
    function(weights)
    return weights


ANSWERS = [
    Exercise(
        make_gate,
        [(0.5, 0.4), (0.5, 0.5), (0.5, 0.6)],
        [(">= means that the edge passes.", lambda edge: lambda number: number > edge)],
        run=lambda function, edge, number: function(edge)(number),
    ),
    Exercise(
        Half,
        [(4,), (5,)],
        [],
        run=lambda kind, width: kind(width).mask(),
    ),
    Exercise(zero_first, [(torch.ones(3),)], [], run=left_in_it),
]


class Own:
    def __init__(self, width):
        self.width = width

    def mask(self):
        return torch.tensor([n % 2 == 0 for n in range(self.width)])


class Unfinished(Own):
    def mask(self):
        raise NotImplementedError


def own_zero(weights):
    weights[:1] = 0


@pytest.mark.parametrize(
    ("exercise", "attempt"),
    [(ANSWERS[0], lambda edge: lambda n: not n < edge), (ANSWERS[1], Own), (ANSWERS[2], own_zero)],
    ids=["a function", "a class", "in place"],
)
def test_run_says_how_an_answer_is_made(exercise, attempt, capsys):
    assert line_of(exercise, attempt, capsys) == f"{exercise.name}: ok\n"
    assert exercise.passes(attempt)
    assert not exercise.passes(inspect.unwrap(exercise.reference))
    line = line_of(exercise, lambda *case: None, capsys)
    assert f"gl.check.{exercise.name}.answer({exercise.name}, 1)" in line or "Error" in line
    for made in WRONG_ANSWERS.values():
        assert "not yet." in line_of(exercise, lambda *case, made=made: made(), capsys)


def test_run_is_used_for_known_mistakes_and_stubs_too(capsys):
    gate, half, _ = ANSWERS
    assert "the edge passes" in line_of(gate, lambda edge: lambda n: n > edge, capsys)
    assert "not attempted" in line_of(half, Unfinished, capsys)
    assert half.answer(Own, 1).tolist() == [True, False, True, False]
    assert "gl.check.Half.answer(Half, 1)" in line_of(half, lambda width: Own(1), capsys)
