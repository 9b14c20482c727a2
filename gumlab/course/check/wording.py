"""What a check's line says of values: how they are shown, and how two of them differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gumlab.course.check.comparison import close, kind_of, numbers_of, same, same_values
from gumlab.course.check.trial import Yielded, one_line

NUMBERS = 12  # a tensor of so many numbers is shown whole
SEARCHED = 1_000_000  # numbers among which NaN is looked for
DEPTH = 4  # of lists in lists
PASTED = 110  # characters of a call that is shown as Python
SHOWN = 160  # characters of a value
NOT_A_NUMBER = "NaN is not a number; 0 / 0 and the root of a negative number give it"
INFINITE = "inf is infinite; a number / 0 gives it"


def as_python(value: Any) -> str | None:
    """Write an argument as Python that makes it again.

    Parameters
    ----------
    value : Any
        A number, a text, a small tensor, or lists and the like of them.

    Returns
    -------
    str or None
        None for what cannot be written, or is too long.
    """
    text = _written(value)
    return text if text is not None and len(text) <= PASTED else None


def _written(value: Any) -> str | None:
    if isinstance(value, Tensor):
        return _written_tensor(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, dict):
        keys, parts = [_written(key) for key in value], [_written(part) for part in value.values()]
        if None in keys or None in parts:
            return None
        return "{" + ", ".join(f"{k}: {p}" for k, p in zip(keys, parts, strict=True)) + "}"
    if type(value) in (list, tuple):
        parts = [_written(part) for part in value]
        if any(part is None for part in parts):
            return None
        inside = ", ".join(str(part) for part in parts)
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return None


def _written_tensor(tensor: Tensor) -> str | None:
    if tensor.numel() == 0 or tensor.numel() > 2 * NUMBERS or tensor.is_meta:
        return None
    numbers = _written(_shortest(tensor.tolist(), tensor.dtype))
    plain = {"bool": torch.bool, "int": torch.int64, "float": torch.float32}
    is_plain = plain.get(kind_of(tensor.dtype)) == tensor.dtype
    dtype = "" if is_plain else f", dtype={tensor.dtype}"
    gradient = ", requires_grad=True" if tensor.requires_grad else ""
    return f"torch.tensor({numbers}{dtype}{gradient})"


def _shortest(number: Any, dtype: torch.dtype) -> Any:
    """The number, or the numbers in lists, with no more digits than its dtype needs."""
    if isinstance(number, list):
        return [_shortest(part, dtype) for part in number]
    if not isinstance(number, float):
        return number
    exact = torch.tensor(number, dtype=dtype)
    for digits in range(1, 17):
        rounded = float(f"{number:.{digits}g}")
        if torch.equal(torch.tensor(rounded, dtype=dtype), exact):
            return rounded
    return number


def shown(value: Any, digits: int = 4, depth: int = DEPTH) -> str:
    """Show a value in a sentence: numbers with some digits, what is large by its shape.

    Parameters
    ----------
    value : Any
        Anything; nothing that it does raises here.
    digits : int
        The significant digits.
    depth : int
        How many lists in lists are opened.

    Returns
    -------
    str
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        is_whole = value.is_integer() and abs(value) < 10**digits
        return f"{value + 0.0:.1f}" if is_whole else f"{value:.{digits}g}"  # no -0.0
    if isinstance(value, np.generic):
        return shown(value.item(), digits)
    if isinstance(value, Tensor | np.ndarray):
        return _shown_tensor(value, digits)
    if isinstance(value, list | tuple) and depth and len(value) <= NUMBERS:
        inside = ", ".join(shown(part, digits, depth - 1) for part in value)
        if len(inside) > SHOWN:
            inside = one_line(", ".join(described(part) for part in value), SHOWN)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, str | bytes | int | None) or value is ...:
        return one_line(repr(value), 80)
    if isinstance(value, Mapping) and depth and len(value) <= NUMBERS:
        parts = [f"{shown(key)}: {shown(value[key], digits, depth - 1)}" for key in value]
        return "{" + ", ".join(parts) + "}"
    return described(value)


def _shown_tensor(value: Any, digits: int) -> str:
    numbers = numbers_of(value)
    if numbers is None or numbers.is_complex() or not 0 < numbers.numel() <= NUMBERS:
        return described(value)
    return shown(numbers.tolist(), digits)


def described(value: Any, with_shape: bool = True) -> str:
    """Name the kind of a value: "a float tensor of shape (2, 3)", "a list", "an int".

    Parameters
    ----------
    value : Any
        Anything.
    with_shape : bool
        Whether to add a tensor's shape.

    Returns
    -------
    str
    """
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        shape = f" of shape {tuple(value.shape)}" if with_shape else ""
        where = ' on the device "meta", which holds no numbers' if value.is_meta else ""
        return f"{_article(kind_of(value.dtype))} tensor{shape}{where}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}" if with_shape else "a numpy array"
    if isinstance(value, Yielded):
        return "a generator"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    if type(value).__module__ in ("builtins", "types"):
        return _article(name)
    return f"an object of type {name}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def contrast(got: Any, wanted: Any) -> str:
    """Say what was wanted and what came: "should give 4, yours gives 3".

    Parameters
    ----------
    got, wanted : Any
        The learner's answer, and the reference's, which differs.

    Returns
    -------
    str
        The rest of a sentence that begins with the call.
    """
    far_from_small = isinstance(wanted, Tensor) and wanted.numel() > NUMBERS
    if far_from_small and isinstance(got, Tensor) and got.shape == wanted.shape:
        numbers = numbers_of(got)
        if numbers is not None and kind_of(numbers.dtype) == kind_of(wanted.dtype):
            return _first_difference(numbers, wanted)
    for digits in (4, 6, 9, 17):
        due, came = shown(wanted, digits), shown(got, digits)
        if due != came:
            break
    else:
        due, came = described(wanted), described(got)
        if _is_detached(got, wanted):
            due = f"{due} with a gradient"
    if isinstance(got, Tensor) and isinstance(wanted, Tensor) and got.shape != wanted.shape:
        due, came = described(wanted), described(got)
    return f"should give {due}, yours gives {came}{_oddity(got, wanted)}"


def _first_difference(got: Tensor, wanted: Tensor) -> str:
    """The first place where two large tensors of one shape differ."""
    differs = (~close(got, wanted)).nonzero()
    place = tuple(differs[0].tolist())
    for digits in (4, 6, 9, 17):
        due, came = shown(wanted[place].item(), digits), shown(got[place].item(), digits)
        if due != came:
            break
    return (
        f"should give {described(wanted)} with {due} at {list(place)}, yours has {came} there; "
        f"{len(differs)} of {wanted.numel()} numbers differ{_oddity(got, wanted)}"
    )


def _oddity(got: Any, wanted: Any) -> str:
    """A word on NaN and infinity, where they came and were not wanted."""
    came, due = numbers_of(got), numbers_of(wanted)
    if came is None or came.numel() > SEARCHED or (due is not None and not due.isfinite().all()):
        return ""
    if came.isnan().any():
        return f" ({NOT_A_NUMBER})"
    return f" ({INFINITE})" if came.isinf().any() else ""


def right_but(got: Any, wanted: Any) -> str | None:
    """Say what else is wrong with an answer whose values are right.

    Parameters
    ----------
    got, wanted : Any
        The learner's answer, and the reference's.

    Returns
    -------
    str or None
        One sentence; None if the values are not right, or nothing is wrong.
    """
    if same(got, wanted) or not same_values(got, wanted):
        return None
    return f"The values are right, but {_due(got, wanted)}"


def _is_detached(got: Any, wanted: Any) -> bool:
    """Whether an answer lacks the gradient that the wanted one has."""
    both = isinstance(got, Tensor) and isinstance(wanted, Tensor)
    return both and wanted.requires_grad and not got.requires_grad


def _due(got: Any, wanted: Any, where: str = "") -> str:
    """What to return, and not what: of several results the first that is of another kind."""
    if isinstance(wanted, list | tuple) and isinstance(got, list | tuple):
        for number, (part, part_wanted) in enumerate(zip(got, wanted, strict=True), start=1):
            if not same(part, part_wanted):
                return _due(part, part_wanted, where or f" as result {number}")
    if isinstance(wanted, Mapping):
        key = next(key for key, part in wanted.items() if not same(got[key], part))
        return _due(got[key], wanted[key], where or f" as {shown(key)}")
    due, came = described(wanted, with_shape=False), described(got, with_shape=False)
    if due == came and _is_detached(got, wanted):
        return f"no gradient flows through yours{where}: something detached it"
    if due == came or not isinstance(wanted, Tensor):
        due, came = described(wanted), described(got)
    return f"return {due}{where}, not {came}"
