"""How sure a difference is: means over seeds with Student's t intervals, paired by seed."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@functools.cache
def t_95(count: int) -> float:
    """Student's t, two-sided 95 %, for `count` values, to three digits.

    With t = sqrt(v) tan a the density is proportional to cos(a)^(v - 1), v = count - 1 degrees of
    freedom; a grid of a million angles is exact to more than three digits.

    >>> [t_95(n) for n in (2, 3, 4, 5)]
    [12.706, 4.303, 3.182, 2.776]
    """
    angles = (np.arange(1_000_000) + 0.5) * (math.pi / 2_000_000)
    share = np.cumsum(np.cos(angles) ** (count - 2))
    angle = np.interp(0.95 * share[-1], share, angles + math.pi / 4_000_000)
    return round(math.sqrt(count - 1) * math.tan(angle), 3)


def half_interval(values: pd.Series) -> float:
    """Half the 95 % t interval of the mean of some seeds; NaN for fewer than two."""
    values = values.dropna()
    return (
        t_95(len(values)) * values.std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    )


def verdict(values: pd.Series) -> str:
    """Of paired differences: "lower" or "higher" where the interval leaves 0 out.

    >>> import pandas as pd
    >>> verdict(pd.Series([-1.0, -1.1, -0.9])), verdict(pd.Series([-1.0, 1.1, 0.9]))
    ('lower', 'no difference shown')
    """
    mean, half = values.mean(), half_interval(values)
    if not abs(mean) > half:  # NaN too: one seed shows nothing
        return "no difference shown"
    return "lower" if mean < 0 else "higher"


def paired(table: pd.DataFrame, one: str, other: str, value: str = "loss") -> pd.Series:
    """A value of one method minus another's by seed; table: one row per method and seed."""
    wide = table.pivot(index="seed", columns="method", values=value)
    return (wide[one] - wide[other]).dropna()


def compared(table: pd.DataFrame, one: str, other: str, value: str = "loss") -> dict[str, Any]:
    """`paired` as a row of text: the mean difference, its interval, and what they say."""
    by_seed = paired(table, one, other, value)
    said = f"{by_seed.mean():+.4f} +- {half_interval(by_seed):.4f}"
    pair = {"method": one, "against": other}
    return {**pair, f"difference of {value}": said, "verdict": verdict(by_seed)}
