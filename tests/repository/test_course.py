"""The course as a whole: its numbers, and the slides that are made from it."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from helpers import ROOT


@pytest.fixture(scope="module")
def numbers():
    import course_numbers

    now = course_numbers.course(ROOT / "notebooks")
    before = pd.read_csv(course_numbers.BEFORE, dtype={"notebook": str}).set_index("notebook")
    assert course_numbers.REPORT.read_text(encoding="utf-8") == course_numbers.report(before, now)
    return before, now


def test_students_write_twice_as_much_and_read_half_as_much_code(numbers):
    before, now = numbers
    assert now.loc["all", "students' lines"] >= 2 * before.loc["all", "students' lines"]
    assert now.loc["all", "visible lines"] <= 0.52 * before.loc["all", "visible lines"]
    assert now.loc["all", "words"] < before.loc["all", "words"]


def test_no_code_cell_asserts(numbers):
    _, now = numbers
    assert not now["asserts"].any()


def test_the_slides_are_one_page_that_needs_nothing_else():
    import make_slides

    page = make_slides.deck()
    assert page.count("<section>") == len(make_slides.SLIDES)
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", "", page, flags=re.DOTALL)
    assert "$" not in text
    assert "Difficulty" not in text
    assert "@@" not in text
    assert page.count('class="formula') > 3  # formulas are pictures


def test_a_heading_or_a_picture_that_is_gone_is_told():
    import make_slides

    for slide, words in (
        (make_slides.Slide("00", "no such heading"), "no heading with 'no such heading'"),
        (make_slides.Slide("00", "Predict", 1, ("no such code",)), "with 'no such code' shows"),
    ):
        with pytest.raises(SystemExit, match=words):
            make_slides.made(slide, ROOT / "notebooks")
