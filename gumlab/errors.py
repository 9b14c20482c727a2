"""The one exception class of gumlab, and the helper that names near misses."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


class GumlabError(Exception):
    """A mistake the user can mend: says what was wrong, what was expected, and what to do."""


def unknown(kind: str, name: object, known: Iterable[str]) -> GumlabError:
    """The error for a name that does not exist, with the nearest names first.

    >>> print(unknown("task", "restaurant", ["restaurants", "tables"]))
    Unknown task 'restaurant'. Did you mean 'restaurants'? Known: restaurants, tables.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return GumlabError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise GumlabError unless an argument is a whole number, `least` or more.

    >>> check_whole("batch_size", 16)
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise GumlabError(f"{name} must be a whole number, {least} or more; got {value!r}.")


def check_number(name: str, value: Any, *, above: float = -math.inf, least: float = 0.0) -> None:
    """Raise GumlabError unless an argument is a finite number, `least` or more and above `above`.

    >>> check_number("lr", 1e-3, above=0)
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < least or value <= above:
        if above > -math.inf:
            wanted = f", above {above:g}"
        else:
            wanted = f", {least:g} or more" if least > -math.inf else ""
        raise GumlabError(f"{name} must be a finite number{wanted}; got {value!r}.")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a full stop.

    >>> first_line(ValueError("no such file.\\nAnd more."))
    'no such file'
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason given"
