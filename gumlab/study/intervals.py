"""How sure a difference is: means over seeds with Student's t intervals, paired by seed."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@functools.cache
def t_95(count: int) -> float:
    """Student's t of the two-sided 95 % interval of a mean of `count` values, to three digits.

    Half the interval is t s / sqrt(count), with s the standard deviation of the values.

    Parameters
    ----------
    count : int
        How many values, 2 or more; the distribution has count - 1 degrees of freedom.

    Returns
    -------
    float
        The 0.975 quantile, rounded to three digits after the point: as tables of t print it, and
        as the stored results were made (with more digits a few of their last digits would change).

    Examples
    --------
    >>> [t_95(n) for n in (2, 3, 4, 5)]
    [12.706, 4.303, 3.182, 2.776]
    """
    from scipy import stats  # here: it takes a second, and most of what imports this draws no t

    return round(float(stats.t.ppf(0.975, df=count - 1)), 3)


def half_interval(values: pd.Series) -> float:
    """Half the 95 % t interval of the mean of some seeds.

    Parameters
    ----------
    values : pandas.Series
        A value per seed; missing ones do not count.

    Returns
    -------
    float
        In the unit of the values; NaN for fewer than two of them.
    """
    values = values.dropna()
    count = len(values)
    if count < 2:
        return math.nan
    return t_95(count) * values.std() / math.sqrt(count)


def verdict(differences: pd.Series) -> str:
    """What paired differences show, at 95 %.

    Parameters
    ----------
    differences : pandas.Series
        A difference per seed.

    Returns
    -------
    str
        "lower" or "higher" where the interval of their mean leaves 0 out, else "no difference
        shown"; one seed alone shows nothing.

    Examples
    --------
    >>> import pandas as pd
    >>> verdict(pd.Series([-1.0, -1.1, -0.9])), verdict(pd.Series([-1.0, 1.1, 0.9]))
    ('lower', 'no difference shown')
    """
    mean = differences.mean()
    half = half_interval(differences)
    leaves_0_out = abs(mean) > half  # False where half is NaN
    if not leaves_0_out:
        return "no difference shown"
    return "lower" if mean < 0 else "higher"


def paired(table: pd.DataFrame, one: str, other: str, value: str = "loss") -> pd.Series:
    """A value of one method minus that of another, by seed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per method and seed, with the columns method, seed and `value`.
    one, other : str
        The two methods, as the table calls them.
    value : str
        The column that is compared.

    Returns
    -------
    pandas.Series
        A difference for every seed that both methods have.
    """
    by_method = table.pivot(index="seed", columns="method", values=value)
    return (by_method[one] - by_method[other]).dropna()


def compared(table: pd.DataFrame, one: str, other: str, value: str = "loss") -> dict[str, Any]:
    """`paired` as a row of text: the mean difference, its interval, and what they show.

    Parameters
    ----------
    table, one, other, value
        As in `paired`.

    Returns
    -------
    dict
        method, against, "difference of ..." (mean +- half the 95 % interval) and `verdict`.
    """
    differences = paired(table, one, other, value)
    return {
        "method": one,
        "against": other,
        f"difference of {value}": f"{differences.mean():+.4f} +- {half_interval(differences):.4f}",
        "verdict": verdict(differences),
    }


def rank_correlation(one: Any, other: Any) -> float:
    """Spearman's rank correlation of two rows of numbers, ties at their mean rank, by pandas.

    Parameters
    ----------
    one, other : array-like
        Equally many numbers: lists, arrays, or tensors on the CPU.

    Examples
    --------
    >>> rank_correlation([1, 2, 30], [2, 4, 5]), round(rank_correlation([1, 2, 3], [3, 1, 2]), 3)
    (1.0, -0.5)
    """
    import numpy as np
    import pandas as pd

    return float(pd.Series(np.asarray(one)).corr(pd.Series(np.asarray(other)), method="spearman"))
