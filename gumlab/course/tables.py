"""How a notebook shows a pandas table: digits in threes, no NaN, texts to the left."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LONG = 32  # letters from which on a text may be wrapped
NOTHING = "–"


def show_tables_so() -> None:
    """Show the tables of this notebook by `as_html`, if this is a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None:
        import pandas as pd

        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, as_html)


def as_html(table: pd.DataFrame) -> str:
    """Write a table as pandas does, and easier to read.

    Parameters
    ----------
    table : pandas.DataFrame
        The table; one with more rows or columns than pandas shows is left to pandas.

    Returns
    -------
    str
        HTML. Whole numbers have commas, what is missing is a dash, texts of a column with long
        ones begin at the left, and others are never wrapped.
    """
    import pandas as pd

    most = [pd.get_option(f"display.max_{side}") for side in ("rows", "columns")]
    is_large = any(limit and size > limit for size, limit in zip(table.shape, most, strict=True))
    if is_large or not table.columns.is_unique:
        return table._repr_html_()
    is_nullable = pd.api.types.is_extension_array_dtype  # pandas would write <NA> as it is
    plain = {name: object for name, kind in table.dtypes.items() if is_nullable(kind)}
    escaped = table.astype(plain).rename(index=_row_name, columns=_escaped)
    escaped = escaped.where(escaped.notna(), float("nan"))
    formatters: list[Callable[[Any], str] | None] = [
        None
        if pd.api.types.is_float_dtype(column.dtype)
        else partial(_cell, is_prose=column.map(_is_long).any())
        for _, column in escaped.items()
    ]
    with pd.option_context("display.max_colwidth", None):
        return escaped.to_html(formatters=formatters, na_rep=NOTHING, escape=False, notebook=True)


def _escaped(label: Any) -> Any:
    return html.escape(label) if isinstance(label, str) else label


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= LONG


def _row_name(label: Any) -> Any:
    if isinstance(label, str) and not _is_long(label):
        return _text(label, False)
    return _escaped(label)


def _cell(value: Any, is_prose: bool) -> str:
    """A value of a column that has more than floats; is_prose: some of its texts are long."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}"
    return _text(str(value), is_prose)


def _text(text: str, is_prose: bool) -> str:
    if not is_prose:
        return f'<span style="white-space: nowrap">{html.escape(text)}</span>'
    return f'<div style="text-align: left; min-width: 16em">{html.escape(text)}</div>'
