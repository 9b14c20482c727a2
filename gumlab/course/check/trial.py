"""A function tried on a case: it can neither stop the notebook nor change anything outside."""

from __future__ import annotations

import contextlib
import copy
import dis
import inspect
import io
import itertools
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LONGEST = 10_000  # of what a generator yields, that many are taken


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
        The line of the cell that it came from, where that is known.
    is_stub : bool
        Whether it is the `raise NotImplementedError` that the notebook gives.
    """

    kind: type
    text: str
    line: int | None
    is_stub: bool = False


@dataclass(frozen=True)
class Yielded:
    """The answer of a generator: what it yields, `LONGEST` at most."""

    values: list


@dataclass(frozen=True)
class Trial:
    """What a function does with a case.

    Attributes
    ----------
    answer : Any
        What it returned, or a `Raised`, or a `Yielded`.
    changed : list of int
        The places of the arguments that it changed.
    """

    answer: Any
    changed: list[int]


def one_line(text: str, longest: int) -> str:
    """A text in one line of characters that can be printed, cut where it is too long."""
    beginning = text[: 4 * longest]
    words = "".join(letter if letter.isprintable() else " " for letter in beginning).split()
    line = " ".join(words)
    return line if len(line) <= longest else line[: longest - 3] + "..."


def tried(run: Callable, function: Callable, case: tuple, seed: int = 0) -> Trial:
    """Try a function on a case.

    Parameters
    ----------
    run : callable
        run(function, *case) calls the function.
    function : callable
        The function.
    case : tuple
        The arguments; the function gets copies.
    seed : int
        Of the random numbers that the function draws. The notebook's own are left alone, so that
        a check says the same each time and moves no number of the cells below.

    Returns
    -------
    Trial
    """
    given = copy.deepcopy(case)
    with _sheltered(seed):
        answer = _answer(run, function, given)
    pairs = zip(given, case, strict=True)
    changed = [place for place, (now, before) in enumerate(pairs) if not unchanged(now, before)]
    return Trial(answer, changed)


@contextlib.contextmanager
def _sheltered(seed: int) -> Iterator[None]:
    """Undo what a function does to the outside, and keep quiet what it prints and warns."""
    dtype = torch.get_default_dtype()
    device = torch.get_default_device()
    states = random.getstate(), np.random.get_state()
    with (
        torch.random.fork_rng(devices=[]),
        torch.set_grad_enabled(torch.is_grad_enabled()),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(None)  # set to "cpu", torch would be slower from now on
            if torch.get_default_device() != device:
                torch.set_default_device(device)


def _answer(run: Callable, function: Callable, given: tuple) -> Any:
    """What a function returns, or how it raised; only Ctrl-C passes through."""
    try:
        answer = run(function, *given)
        if inspect.iscoroutine(answer):
            answer.close()  # else Python warns later that nobody awaited it
        if inspect.isgenerator(answer):
            return Yielded(list(itertools.islice(answer, LONGEST)))
        return answer
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit as well: whatever a learner's code raises
        return _raised(function, error)


def _raised(function: Callable, error: BaseException) -> Raised:
    try:
        text = str(error)
    except Exception:  # an error's message is the learner's code, too
        text = ""
    first_line = (text.strip().splitlines() or [""])[0]
    file = _file(function)
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file
    ]
    return Raised(
        kind=type(error),
        text=one_line(first_line, 200).rstrip("."),
        line=lines[-1] if lines else None,
        is_stub=isinstance(error, NotImplementedError) and _is_raise_statement(error),
    )


def _file(function: Any) -> str | None:
    """The file, or the notebook's cell, that a function or a class is written in."""
    if isinstance(function, partial):
        return _file(function.func)
    if isinstance(function, MethodType):
        return _file(function.__func__)
    if isinstance(function, FunctionType):
        return function.__code__.co_filename
    if isinstance(function, type):
        files = [_file(part) for part in vars(function).values() if isinstance(part, FunctionType)]
        return files[0] if files else None
    return None


def _is_raise_statement(error: BaseException) -> bool:
    """Whether a `raise` made the error; torch's own NotImplementedErrors come from elsewhere."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def unchanged(now: Any, before: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Whether an argument is what it was: its numbers, tensors, lists, and those of its parts.

    Parameters
    ----------
    now, before : Any
        The argument after the call, and the one that it was copied from.
    seen : frozenset of int
        The objects around it, by id, for those that hold themselves.

    Returns
    -------
    bool
        True also for what cannot be told, such as a function.
    """
    if isinstance(before, Tensor):
        return _same_tensor(now, before)
    if isinstance(before, bool | int | float | str):
        return type(now) is type(before) and repr(now) == repr(before)
    if id(before) in seen or (callable(before) and not isinstance(before, nn.Module)):
        return True
    parts_before, parts_now = _parts(before), _parts(now)
    if isinstance(before, Mapping | list | tuple) and parts_now.keys() != parts_before.keys():
        return False
    inside = seen | {id(before)}
    return all(
        name in parts_now and unchanged(parts_now[name], part, inside)
        for name, part in parts_before.items()
    )


def _same_tensor(now: Any, before: Tensor) -> bool:
    if not isinstance(now, Tensor) or now.device != before.device:
        return False
    if now.shape != before.shape or now.dtype != before.dtype:
        return False
    both_nan = now.isnan() & before.isnan()
    return bool(((now == before) | both_nan).all())


def _parts(value: Any) -> dict:
    """What a value is made of, by key, position or name."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return getattr(value, "__dict__", {})
