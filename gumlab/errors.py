"""The one exception class of gumlab, and the checks of arguments, which are the same everywhere.

A check raises GumlabError with the argument's name, what was expected and what was given; a check
of a number gives it back as Python's own, so that what numpy and torch count with is welcome.
"""

from __future__ import annotations

import difflib
import math
import operator
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

LARGEST_SEED = 2**32 - 1  # that numpy takes


class GumlabError(Exception):
    """A mistake the user can mend: says what was wrong, what was expected, and what to do."""


def unknown(kind: str, name: object, known: Iterable[str]) -> GumlabError:
    """The error for a name that does not exist, with the nearest names first.

    >>> print(unknown("task", "restaurant", ["restaurants", "tables"]))
    Unknown task 'restaurant'. Did you mean 'restaurants'? Known: restaurants, tables.
    """
    known = list(known)
    return GumlabError(f"Unknown {kind} {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")


def nearest(name: object, known: Iterable[str]) -> str:
    """The question after the names nearest to one that does not exist; nothing where none is near.

    >>> nearest("penality", ["penalty", "score_lr"])
    " Did you mean 'penalty'?"
    """
    near = difflib.get_close_matches(str(name), list(known), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise GumlabError unless an argument is one of some names.

    >>> check_choice("scope", "global", ("layer", "global"))
    """
    if not isinstance(value, str) or value not in choices:
        raise unknown(name, value, choices)


def check_options(kind: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise GumlabError for the first of some options that does not exist, with the nearest name.

    >>> check_options("option", {"lr": 0.1}, ("lr", "clip"))
    """
    for name in options:
        if name not in known:
            raise unknown(kind, name, known)


def is_flag(value: Any) -> bool:
    """Whether a value is Python's or numpy's True or False."""
    return type(value).__name__ in ("bool", "bool_")


def check_flag(name: str, value: Any) -> bool:
    """The argument as True or False; GumlabError for anything else.

    >>> check_flag("latency", True)
    True
    """
    if not is_flag(value):
        raise GumlabError(f"{name} must be True or False; got {value!r:.60}.")
    return bool(value)


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """The argument as a whole number, `least` or more; GumlabError where it is none.

    >>> check_whole("batch_size", 16)
    16
    """
    number = _index(value)
    if number is None or number < least or (most is not None and number > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise GumlabError(f"{name} must be a whole number, {wanted}; got {value!r:.60}.")
    return number


def check_seed(value: Any, name: str = "seed") -> int:
    """The argument as a seed that Python, numpy and torch take alike; GumlabError for another.

    >>> check_seed(0)
    0
    """
    return check_whole(name, value, 0, LARGEST_SEED)


def check_number(
    name: str, value: Any, *, above: float = -math.inf, least: float = 0.0, most: float = math.inf
) -> float:
    """The argument as a finite number, `least` or more, above `above` and at most `most`.

    GumlabError where it is none.

    >>> check_number("lr", 1e-3, above=0)
    0.001
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    in_bounds = is_number and math.isfinite(value) and value >= least and above < value <= most
    if not in_bounds:
        if above > -math.inf:
            wanted = f", above {above:g}"
        else:
            wanted = f", {least:g} or more" if least > -math.inf else ""
        if most < math.inf:
            wanted += f" and at most {most:g}"
        raise GumlabError(f"{name} must be a finite number{wanted}; got {value!r:.60}.")
    return float(value)


def check_text(name: str, value: Any, what: str = "a text") -> str:
    """The argument, where it is a text with something in it; else GumlabError.

    >>> check_text("label", "GUM")
    'GUM'
    """
    if not isinstance(value, str) or not value:
        raise GumlabError(f"{name} must be {what}; got {value!r:.60}.")
    return value


def check_list(name: str, value: Any, of: str) -> list[Any]:
    """The argument as a list of one or more.

    GumlabError for a text, a mapping, an iterator, or one thing alone.

    Parameters
    ----------
    name : str
        Of the argument.
    value : Any
        What was given.
    of : str
        What it should hold, in words.

    >>> check_list("batches", (1, 8), "batch sizes")
    [1, 8]
    """
    is_other = isinstance(value, str | bytes | Mapping | Iterator)  # which gives its items once
    is_list = isinstance(value, Iterable) and not is_other
    if not is_list or getattr(value, "ndim", 1) == 0:
        raise GumlabError(f"{name} must be a list of {of}; got {value!r:.60}.")
    items = list(value)
    if not items:
        raise GumlabError(f"{name} is empty; expected a list of {of}, one or more.")
    return items


def _index(value: Any) -> int | None:
    """A whole number of Python, numpy or torch as an int; None for anything else, truth included.

    >>> _index(3), _index(3.0), _index(True)
    (3, None, None)
    """
    if "bool" in str(getattr(value, "dtype", type(value).__name__)):
        return None
    if getattr(value, "ndim", 0):  # an array of one number is a list
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, and of a heading the next, without a full stop.

    >>> first_line(ValueError("no such file.\\nAnd more."))
    'no such file'
    >>> first_line(ValueError("Field 'width':\\n    must be a number.\\nAnd more."))
    "Field 'width': must be a number"
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return "no reason given"
    is_heading = lines[0].endswith(":") and len(lines) > 1
    return (f"{lines[0]} {lines[1]}" if is_heading else lines[0]).rstrip(".")


def warn_caller(message: str) -> None:
    """A warning that points to the first line outside of gumlab, where the user can mend it."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    """Whether a module is gumlab's, or `contextlib`, which a decorator of ours goes through."""
    return module.split(".")[0] in ("gumlab", "contextlib")
