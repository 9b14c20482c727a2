"""The list of breakages has not rotted: each still breaks one line, and its test is there."""

from __future__ import annotations

import ast

import mutations
import pytest
from helpers import ROOT

TESTS = ROOT / "tests"


@pytest.mark.parametrize("one", mutations.MUTATIONS, ids=lambda one: one.what)
def test_a_breakage_fits_its_file_and_names_a_test(one):
    ast.parse(mutations.mutated(one))  # raises where the old text is not there exactly once
    file, *path = one.test.split("[")[0].split("::")
    here = ast.parse((TESTS / file).read_text("utf-8"))
    for name in path:  # a class, where there is one, and the test in it
        (here,) = [node for node in here.body if getattr(node, "name", None) == name]


def test_a_text_that_is_gone_or_there_twice_is_an_error():
    one = mutations.MUTATIONS[0]
    for old in ("no such line", "return"):
        with pytest.raises(ValueError, match="expected once"):
            mutations.mutated(one._replace(old=old))


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        ("failure: assert 3 == 2", True),
        ("failure: NameError: name 'x' is not defined", False),
        ("error: fixture 'model' not found", False),
        ("", False),
        ("not run: ERROR tests/test_x.py", False),
    ],
)
def test_only_a_failure_of_what_is_tested_counts(outcome, good):
    assert mutations.caught(outcome) == good
