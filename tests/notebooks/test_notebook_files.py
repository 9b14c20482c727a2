"""The form of the notebooks: every part of the template is there, in order, within its limits."""

from __future__ import annotations

import itertools
import re

import nbformat
import pytest
from helpers import ROOT
from update_readme import repository_of

from gumlab.course.addresses import ON_COLAB

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ADDRESS = repository_of(ROOT)  # badges and the install cell are there if it is
ORDER = (  # the first cell with each, in this order
    ("title, a question", "markdown", r"(?m)^# \d\d · .*\?$"),
    ("objectives", "markdown", r"(?s)\*\*You will\*\*.*1\..*2\..*3\..*\*\*You need\*\*"),
    ("time and hardware", "markdown", r"(?s)\*\*Time\*\*.*\*\*Hardware\*\*"),
    ("start", "code", r"gl\.start\(seed=0"),
    ("prediction", "markdown", r"(?s)## \d+\. Predict.*- \*\*A\*\*.*<details>"),
    ("figure, read", "markdown", r"\*\*Read the figure"),
    ("exercise 1", "markdown", r"## \d+\. Exercise 1: "),
    ("exercise 2", "markdown", r"## \d+\. Exercise 2: "),
    ("claims", "code", r"(?s)gl\.check\.claims\(.*|check\.claims\("),
    ("recap", "markdown", r"## \d+\. What you take with you"),
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def code(cells):
    return [c for c in cells if c.cell_type == "code"]


def tagged(cells, tag):
    return [c for c in code(cells) if tag in c.metadata.get("tags", [])]


def test_every_part_is_there_in_order(cells):
    at = {
        part: next(
            (
                i
                for i, c in enumerate(cells)
                if c.cell_type == kind and re.search(pattern, c.source)
            ),
            None,
        )
        for part, kind, pattern in ORDER
    }
    assert [part for part, i in at.items() if i is None] == []
    assert at.pop("figure, read") < at["claims"]
    assert list(at.values()) == sorted(at.values())


def test_cells_stay_small(cells):
    assert len(code(cells)) <= 25
    for cell in code(cells):
        lines = [x for x in cell.source.splitlines() if not x.startswith(("import ", "from "))]
        assert len(lines) <= 20


def test_two_to_six_exercises_each_with_difficulty_and_minutes(cells):
    headed = [c.source for c in cells if re.search(r"^## \d+\. Exercise \d: ", c.source, re.M)]
    assert 2 <= len(headed) <= 6
    assert all(re.search(r"Difficulty [123] of 3, ", source) for source in headed)
    checked = re.findall(r"= gl\.check\.(\w+)\(", "\n".join(c.source for c in code(cells)))
    assert len(checked) == len(headed)  # its check follows each


def test_one_explorer_that_ends_its_cell_and_shows_its_picture_before_any_run(cells):
    (cell,) = [c for c in code(cells) if c.source.rstrip().endswith("\nexplorer")]
    assert any("image/png" in out.get("data", {}) for out in cell.outputs)
    after = cells[cells.index(cell) + 1]
    assert after.cell_type == "markdown"
    assert "<details>" in after.source  # what one would see without a kernel


def test_one_checked_cell_of_three_to_six_claims_all_of_which_hold(cells):
    (cell,) = tagged(cells, "nbval-check-output")
    said = "".join(out.text for out in cell.outputs).splitlines()
    assert 3 <= len(said) <= 6
    assert all(line.startswith("holds: ") for line in said)


def test_skipped_cells_install_or_say_that_they_need_the_network_and_show_no_output(cells):
    skipped = tagged(cells, "nbval-skip")
    if ADDRESS:
        assert ON_COLAB in skipped.pop(0).source
    for cell in skipped:
        assert "**needs the network**" in cells[cells.index(cell) - 1].source
        assert cell.outputs == []


def test_nothing_touches_numpy_or_the_network(cells):
    for cell in code(cells):
        for word in ("!pip", "numpy==", "urllib", "requests.", "subprocess"):
            assert word not in cell.source
    assert sum("%pip" in c.source for c in code(cells)) == bool(ADDRESS)


def test_links_lead_somewhere_and_badges_to_the_notebook_itself(cells, request):
    name = request.node.callspec.params["cells"].name
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
        assert (FOLDER / target).exists(), target
    badges = re.findall(r"^\[!\[Open in .*$", cells[0].source, re.MULTILINE)
    own = [badge for badge in badges if re.search(rf"(?:notebooks/|notebooks%2F){name}\)", badge)]
    assert badges == own
    assert len(own) == (2 if ADDRESS else 0)


def test_fenced_formulas_and_folds_are_closed(cells):
    for cell in cells:
        if cell.cell_type == "markdown":
            assert cell.source.count("<details>") == cell.source.count("</details>")
            assert cell.source.count("```") % 2 == 0
            assert cell.source.count("$$") % 2 == 0


def test_every_notebook_links_to_the_next_one():
    for one, following in itertools.pairwise(NOTEBOOKS):
        text = "\n".join(c.source for c in nbformat.read(one, as_version=4).cells[-2:])
        assert f"({following.name})" in text, one.name
