"""Methods compared by seed: what a study's table may hold, and what is told instead of a result."""

from __future__ import annotations

import math

import pandas as pd
import pytest

import gumlab as gl
from gumlab.study.intervals import compared, half_interval, paired, verdict


def table(**settings) -> pd.DataFrame:
    """Two methods, three seeds, and each value of some settings."""
    rows = [
        {"method": method, "seed": seed, "loss": seed + len(method), "seconds": seed / 7}
        for method in ("GUM", "random")
        for seed in range(3)
    ]
    for name, values in settings.items():
        rows = [{**row, name: value} for row in rows for value in values]
    for i, row in enumerate(rows):
        row["perplexity"] = i
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"keep": [0.25, 0.5]},
            r'differ in keep. Take one keep first: table.query\("keep == 0.25"\)',
        ),
        ({"lr": [0.1, 0.2], "split": ["test"]}, r'differ in lr. .*query\("lr == 0.1"\)'),
        ({"penalty": [0.1, 0.2]}, r'differ in penalty. .*query\("penalty == 0.1"\)'),
        ({"task": ["chats", "tables"], "lr": [1, 2]}, r"in task, lr. .*\"task == 'chats'\""),
        ({"asked": [0.25, 0.5], "keep": [0.2, 0.4]}, r"differ in asked. Take one asked first"),
    ],
)
def test_several_rows_of_a_seed_are_named_by_what_differs(settings, words):
    with pytest.raises(gl.GumlabError, match=words):
        compared(table(**settings), "GUM", "random")
    name, values = next(iter(settings.items()))
    one = table(**settings | {name: values[:1]})
    if len(settings) == 1:
        assert compared(one, "GUM", "random")["verdict"] == "lower"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((table(), "GUN", "random"), "Unknown method 'GUN'. Did you mean 'GUM'"),
        ((table(), "GUM", "rnadom"), "Unknown method 'rnadom'. Did you mean 'random'"),
        ((table(), "GUM", "random", "los"), "Unknown column 'los'. Did you mean 'loss'"),
        ((table().drop(columns="seed"), "GUM", "random"), "Unknown column 'seed'"),
        (([1, 2], "GUM", "random"), "table must be a study's table.*got list"),
        ((table(), "GUM", "random", "method"), "The column 'method' must hold numbers"),
        ((pd.concat([table()] * 2), "GUM", "random"), "alike in every setting"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(given, words):
    for function in (paired, compared):
        with pytest.raises(gl.GumlabError, match=words):
            function(*given)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ((None, math.nan), r"alike in every setting.*drop_duplicates\(\[\"method\", \"seed\"\]\)"),
        ((math.nan, 0.1), r"which differ in lr.*query\(\"lr == 0.1\"\)"),
        (([1, 2], [1, 3]), "which differ in lr"),
    ],
)
def test_what_is_missing_is_no_setting_of_its_own(cells, words):
    """Two tables in one, of which one lacks a column: it was an IndexError."""
    parts = [table().assign(lr=pd.Series([cell] * len(table()), dtype=object)) for cell in cells]
    with pytest.raises(gl.GumlabError, match=words):
        compared(pd.concat(parts), "GUM", "random")


def test_methods_that_share_no_seed_say_so():
    """It gave "+nan"."""
    rows = table()
    shared_none = rows[(rows["method"] == "GUM") == (rows["seed"] == 0)]
    with pytest.raises(gl.GumlabError, match=r"share no seed with a loss: .* \[0\], .* \[1, 2\]"):
        compared(shared_none, "GUM", "random")
    rows.loc[rows["method"] == "GUM", "loss"] = math.nan  # runs that failed
    with pytest.raises(
        gl.GumlabError, match=r"the first has the seeds \[\], the second \[0, 1, 2\]"
    ):
        compared(rows, "GUM", "random")


def test_a_failed_run_leaves_its_seed_out():
    rows = table()
    rows.loc[0, "loss"] = math.nan
    assert list(paired(rows, "GUM", "random").index) == [1, 2]


@pytest.mark.parametrize("function", [half_interval, verdict])
def test_a_list_is_no_series(function):
    with pytest.raises(gl.GumlabError, match=r"must be a pandas Series.*got list"):
        function([1.0, 2.0])
    with pytest.raises(gl.GumlabError, match="must hold numbers"):
        function(pd.Series(["a", "b"]))
    assert math.isnan(half_interval(pd.Series([], dtype=object)))
