"""How sure a difference is: means over seeds with Student's t intervals, paired by seed."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from gumlab.errors import GumlabError, unknown
from gumlab.study.rows import differing_settings

if TYPE_CHECKING:
    import pandas as pd


@functools.cache
def t_95(count: int) -> float:
    """Student's t of the two-sided 95 % interval of a mean of `count` values, to three digits.

    Half the interval is t s / sqrt(count), with s the standard deviation of the values.

    Parameters
    ----------
    count : int
        How many values; the distribution has count - 1 degrees of freedom.

    Returns
    -------
    float
        The 0.975 quantile, rounded to three digits after the point: as tables of t print it, and
        as the stored results were made (with more digits a few of their last digits would change).
        NaN for fewer than two values, which have no interval.

    Examples
    --------
    >>> [t_95(n) for n in (2, 3, 4, 5)]
    [12.706, 4.303, 3.182, 2.776]
    """
    from mpmath import betainc, findroot  # here: most of what imports this draws no t

    if count < 2:
        return math.nan
    freedom = count - 1

    def excess(t: Any) -> Any:
        """P(|T| > t) - 0.05, by the incomplete beta function: I_x(freedom / 2, 1 / 2)."""
        x = freedom / (freedom + t * t)
        return betainc(freedom / 2, 0.5, 0, x, regularized=True) - 0.05

    between = (1.9, 13)  # the normal distribution's 1.96, and the 12.706 of two values
    return round(float(findroot(excess, between, solver="illinois")), 3)


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

    Raises
    ------
    GumlabError
        For something else than a Series of numbers.
    """
    values = _numbers(values, "values").dropna()
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
    return shown(_numbers(differences, "differences").mean(), half_interval(differences))


def shown(mean: float, half: float) -> str:
    """What a mean difference shows, in the words of `verdict`.

    Parameters
    ----------
    mean, half : float
        The mean, and half its 95 % interval; NaN where there is none.
    """
    leaves_0_out = abs(mean) > half  # False where half is NaN
    if not leaves_0_out:
        return "no difference shown"
    return "lower" if mean < 0 else "higher"


def paired(table: pd.DataFrame, one: str, other: str, value: str = "loss") -> pd.Series:
    """A value of one method minus that of another, by seed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per method and seed, with the columns method, seed and `value`; rows of runs that
        failed do not count.
    one, other : str
        The two methods, as the table calls them.
    value : str
        The column that is compared.

    Returns
    -------
    pandas.Series
        A difference for every seed that both methods have.

    Raises
    ------
    GumlabError
        For a method or a column that the table does not have, several rows of a method and seed
        (naming the settings in which they differ), and methods that share no seed.
    """
    rows = _of_methods(table, one, other, value)
    several = rows[rows.duplicated(["method", "seed"], keep=False)]
    if len(several):
        raise _not_one_row(several, value)
    by_method = rows.pivot(index="seed", columns="method", values=value)
    by_method = by_method.reindex(columns=[one, other])  # all runs of one may have failed
    differences = (by_method[one] - by_method[other]).dropna()
    if not len(differences):
        seeds = {name: sorted(by_method[name].dropna().index) for name in (one, other)}
        raise GumlabError(
            f"{one!r} and {other!r} share no seed with a {value}: the first has the seeds "
            f"{seeds[one]}, the second {seeds[other]}. Run both with the same seeds."
        )
    return differences


def _of_methods(table: Any, one: str, other: str, value: str) -> pd.DataFrame:
    """The rows of two methods that have a value; GumlabError where there are none."""
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise GumlabError(
            f"table must be a study's table, Study(...).table(); got {type(table).__name__}."
        )
    for column in ("method", "seed", value):
        if column not in table:
            raise unknown("column", column, map(str, table.columns))
    _numbers(table[value], f"The column {value!r}")
    for method in (one, other):
        if not (table["method"] == method).any():
            raise unknown("method", method, map(str, table["method"].unique()))
    rows = table[table["method"].isin([one, other])]
    return rows[rows[value].notna()]


def _not_one_row(several: pd.DataFrame, value: str) -> GumlabError:
    """The error for rows of one method and seed, with the settings in which they differ."""
    differing = differing_settings(several.drop(columns=value), ["method", "seed"])
    what = "The table has several rows of a method and seed"
    if not differing:
        return GumlabError(
            f"{what}, alike in every setting. Leave one of each: "
            'table.drop_duplicates(["method", "seed"]).'
        )
    first = differing[0]
    example = several[first].dropna().tolist()[0]  # Python's own
    return GumlabError(
        f"{what}, which differ in {', '.join(differing)}. Take one {first} first: "
        f'table.query("{first} == {example!r}").'
    )


def _numbers(values: Any, name: str) -> pd.Series:
    """The values, where they are a Series of numbers; else GumlabError."""
    import pandas as pd

    if not isinstance(values, pd.Series):
        raise GumlabError(
            f"{name} must be a pandas Series, such as a table's column; got "
            f"{type(values).__name__}. Write pandas.Series(...) around a list."
        )
    if len(values) and not pd.api.types.is_numeric_dtype(values):
        raise GumlabError(f"{name} must hold numbers; got {values.dtype}.")
    return values


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

    Raises
    ------
    GumlabError
        As `paired`.
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

    both = pd.DataFrame({"one": np.asarray(one), "other": np.asarray(other)})
    return float(both.corr("spearman").loc["one", "other"])
