"""The columns of a study's table: what was set, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = {  # what a run's settings lead to, and what it was made with
    "neurons",
    "parameters",
    "parameters_kept",
    "loss",
    "perplexity",
    "bleu",
    "rouge1",
    "rouge2",
    "rougeL",
    "execution",
    "exact_match",
    "logical_form",
    "nats",
    "tokens",
    "words",
    "sensitivity",
    "uniqueness",
    "widths",
    "train_seconds",
    "cut_seconds",
    "seconds",
    "error",
    "gumlab",
    "torch",
    "transformers",
    "machine",
    "threads",
    "way",
}


def _as_text(cells: pd.Series) -> pd.Series:
    """The cells as text, so that lists can be told apart too; whatever is missing is None."""
    return cells.astype(object).where(cells.notna(), None).map(str, na_action="ignore")


def differing_settings(rows: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """The settings in which rows that share some columns differ.

    Parameters
    ----------
    rows : pandas.DataFrame
        Of a study's table.
    by : sequence of str
        The columns that they share, such as method and seed.

    Returns
    -------
    list of str
        Columns, as the table has them; not `keep` where there is `asked`, which leads to it.
    """
    outcomes = {*OUTCOMES, "keep"} if "asked" in rows else OUTCOMES
    keys = [rows[column] for column in by]
    return [
        column
        for column in rows
        if column not in (*by, *outcomes)
        and (_as_text(rows[column]).groupby(keys, dropna=False).nunique(dropna=False) > 1).any()
    ]
