"""Whether an answer is the wanted one: of the same kind, or at least of the same values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import reduce
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gumlab.course.check.trial import LONGEST, Yielded

RELATIVE = 1e-5
ABSOLUTE = 2e-6  # for numbers up to 1; it grows with the largest of a tensor: float32 rounds so


def same(got: Any, wanted: Any) -> bool:
    """Whether an answer is right: its values within rounding, its shape, and its kind.

    A list may stand for a tuple, a whole number or a 0-d tensor for a float, and float64 for
    float32. A bool is no number, and a float no whole number. Where the wanted tensor has a
    gradient, the answer must have one.

    Parameters
    ----------
    got : Any
        The learner's answer, whatever it is; nothing that it does raises here.
    wanted : Any
        The reference's.

    Returns
    -------
    bool
    """
    try:
        return _same(got, wanted)
    except Exception:  # an answer's `==`, `len` and so on are the learner's code
        return False


def same_values(got: Any, wanted: Any) -> bool:
    """Whether an answer has the right values, be it in another container, dtype or shape.

    Parameters
    ----------
    got, wanted : Any
        As in `same`. Of the shape only dimensions of size 1 may differ.

    Returns
    -------
    bool
    """
    try:
        return _same(got, wanted) or _same_values(got, wanted)
    except Exception:
        return False


def numbers_of(value: Any) -> Tensor | None:
    """The numbers of a tensor, an array, a number or a list of them; None if there are none."""
    try:
        return _numbers(value)
    except Exception:
        return None


def _numbers(value: Any) -> Tensor | None:
    if isinstance(value, Yielded):
        value = value.values
    if isinstance(value, list | tuple):
        return _stacked(value)
    if isinstance(value, bool | int | float | complex):
        return torch.tensor(value)
    if isinstance(value, Tensor):
        if value.is_meta:
            return None
        value = value.detach().cpu()
        return value if value.layout is torch.strided else value.to_dense()
    return torch.from_numpy(np.array(value))  # refuses what has no numbers


def _stacked(values: Sequence) -> Tensor | None:
    """The numbers of a list as one tensor."""
    if len(values) > LONGEST:
        return None
    parts = []
    for value in values:
        part = _numbers(value)
        if part is None:
            return None
        parts.append(part)
    dtypes = [part.dtype for part in parts]
    common = reduce(torch.promote_types, dtypes)
    return torch.stack([part.to(common) for part in parts])


def kind_of(dtype: torch.dtype) -> str:
    """The kind of a dtype: "bool", "int", "float" or "complex"."""
    if dtype == torch.bool:
        return "bool"
    if dtype.is_complex:
        return "complex"
    return "float" if dtype.is_floating_point else "int"


def close(got: Tensor, wanted: Tensor) -> Tensor:
    """Where two tensors of one shape agree; floats within rounding, all else exactly."""
    if kind_of(got.dtype) == "complex":
        return close(got.real, wanted) & (got.imag == 0)
    got = got.detach().cpu()
    if not wanted.is_floating_point():
        return got.double() == wanted.double()
    wanted = wanted.detach().double()
    finite = wanted[wanted.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    absolute = ABSOLUTE * max(1.0, scale)
    return torch.isclose(got.double(), wanted, RELATIVE, absolute, equal_nan=True)


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return (
            isinstance(got, Tensor)
            and not got.is_meta
            and got.shape == wanted.shape
            and kind_of(got.dtype) == kind_of(wanted.dtype)
            and (got.requires_grad or not wanted.requires_grad)
            and bool(close(got, wanted).all())
        )
    if isinstance(wanted, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(wanted):
            return False
        return all(_same(part, part_wanted) for part, part_wanted in zip(got, wanted, strict=True))
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping) or got.keys() != wanted.keys():
            return False
        return all(_same(got[key], part) for key, part in wanted.items())
    if isinstance(wanted, Yielded):
        return isinstance(got, Yielded) and _same(got.values, wanted.values)
    if isinstance(wanted, np.ndarray):
        return isinstance(got, np.ndarray) and _same(numbers_of(got), numbers_of(wanted))
    if isinstance(wanted, Real) and not isinstance(wanted, bool):
        return _same_number(got, wanted)
    return type(got) is type(wanted) and bool(got == wanted)


def _same_number(got: Any, wanted: Real) -> bool:
    if isinstance(got, bool):
        return False
    if isinstance(wanted, Integral):
        return isinstance(got, Integral) and int(got) == int(wanted)
    if isinstance(got, Tensor):
        # one that still has its graph is none: kept in a list, it fills the memory
        is_number = got.ndim == 0 and kind_of(got.dtype) == "float" and not got.requires_grad
        return is_number and _same_number(got.item(), wanted)
    if not isinstance(got, Real):
        return False
    if math.isnan(float(wanted)):
        return math.isnan(float(got))
    absolute = ABSOLUTE * max(1.0, abs(float(wanted))) if math.isfinite(wanted) else 0.0
    return math.isclose(float(got), float(wanted), rel_tol=RELATIVE, abs_tol=absolute)


def _same_values(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if not isinstance(got, Mapping) or got.keys() != wanted.keys():
            return False
        return all(same_values(got[key], part) for key, part in wanted.items())
    if isinstance(got, Yielded):
        got = got.values
    if isinstance(wanted, Yielded):
        wanted = wanted.values
    if isinstance(wanted, list | tuple):
        parts = list(itertools.islice(got, len(wanted) + 1))  # it may have no end
        if isinstance(got, str | Mapping) or len(parts) != len(wanted):
            return False
        return all(same_values(part, due) for part, due in zip(parts, wanted, strict=True))
    found, due = numbers_of(got), numbers_of(wanted)
    if found is None or due is None or found.squeeze().shape != due.squeeze().shape:
        return False
    return bool(close(found.squeeze(), due.squeeze()).all())
