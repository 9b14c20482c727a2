"""How a notebook shows a table."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from gumlab.course.tables import as_html, show_tables_so

LONG = "A candle is a small, portable flame that is used to light up a room."


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([3822592, 7], ["3,822,592", "7"]),
        ([0.5, np.nan], ["0.5", "–"]),
        (pd.array([12000, None], dtype="Int64"), ["12,000", "–"]),
        (["one", None], ["one", "–"]),
        (["<NA>", "a & b"], ["&lt;NA&gt;", "a &amp; b"]),
        ([True, False], ["True", "False"]),
        ([1500, "none"], ["1,500", "none"]),
    ],
)
def test_a_value_is_shown_as_it_is_read(values, shown):
    cells = re.findall(r"<td>(.*?)</td>", as_html(pd.DataFrame({"column": values})))
    assert [re.sub(r"</?(span|div).*?>", "", cell) for cell in cells] == shown


def test_short_texts_are_never_wrapped_and_a_column_with_a_long_one_begins_at_the_left():
    table = pd.DataFrame({"number": ["-0.071 ± 0.015 *", "0.1"], "text": ["and so on", LONG]})
    cells = re.findall(r"<td>(.*?)</td>", as_html(table))
    numbers, texts = cells[::2], cells[1::2]
    assert all("nowrap" in cell and "left" not in cell for cell in numbers)
    assert all("text-align: left" in cell and "nowrap" not in cell for cell in texts)
    assert LONG in texts[1]  # whole, however long pandas would show


def test_names_of_rows_and_columns_are_text_and_stay_in_their_levels():
    index = pd.MultiIndex.from_tuples([("<b>", 0.5), ("<b>", 0.25)], names=["base", "kept"])
    page = as_html(pd.DataFrame({"<i>": [1, 2]}, index=index))
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("&lt;b&gt;") == 1  # of both rows
    assert "kept" in page


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"number": range(500)}),
        pd.DataFrame([[1, 2]], columns=["same", "same"]),
    ],
    ids=["many rows", "two columns of one name"],
)
def test_what_is_too_large_or_odd_is_left_to_pandas(table):
    assert as_html(table) == table._repr_html_()


def test_a_notebook_that_was_started_shows_its_tables_so(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    show_tables_so()
    shown = shell.display_formatter.formatters["text/html"](pd.DataFrame({"a": [1234]}))
    assert "1,234" in shown


def test_outside_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    show_tables_so()
