"""The nbval guard of notebooks/conftest.py, on small hand-made notebooks under real nbval."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from helpers import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

CONFTEST = ROOT / "notebooks" / "conftest.py"
WHOLLY_CHECKED = "01_a_gpt_you_can_look_inside"  # of conftest.py


def printed(text: str) -> list:
    return [new_output("stream", name="stdout", text=text)]


def cell(source: str, outputs: list | None = None, *, checked: bool = False):
    metadata = {"tags": ["nbval-check-output"]} if checked else {}
    count = None if outputs is None and checked else 1
    return new_code_cell(source, outputs=outputs or [], execution_count=count, metadata=metadata)


def picture() -> list:
    return [new_output("display_data", data={"image/png": "iVBORw0KGgo="})]


# the parts of an explorer that the guard touches; `draws` is what it does when its slider moves
EXPLORER = """
class Part:
    def __init__(self, **traits):
        vars(self).update(traits)

class Slider(Part):
    def __setattr__(self, name, value):
        vars(self)[name] = value
        explorer.answer(value)

def answer(value):
    {draws}

picture, words = Part(value="0"), Part(value="zero")
slider = Slider(value=1, min=0, max=10, step=1)
explorer = Part(controls={{"menu": Part(value=0), "x": slider}}, error=None, answer=answer)
explorer._picture, explorer._words = picture, words
explorer"""
DRAWS = "picture.value, words.value = str(value), str(value)"
NOTEBOOKS = {  # nbval alone passes "empty" and "picture"
    "good": [cell("x = 2"), cell("print(x)", printed("2\n"), checked=True)],
    "empty": [cell("print(1)", checked=True), cell("1")],
    "picture": [cell("x = 1", picture(), checked=True)],
    "wrong": [cell("print(1)", printed("2\n"), checked=True)],
    WHOLLY_CHECKED: [cell("print(1)", printed("2\n"))],  # not tagged
    "broken": [cell("1 / 0"), cell("1"), cell("print(1)", printed("1\n"), checked=True)],
    "kernel": [cell("1"), cell("2")],
    "explorer": [cell(EXPLORER.format(draws=DRAWS)), cell("x = 3")],
    "dumb": [cell(EXPLORER.format(draws="picture.value = str(value)"))],
    "blind": [cell(EXPLORER.format(draws="words.value = str(value)"))],
    "faulty": [cell(EXPLORER.format(draws="explorer.error = ValueError('too odd')"))],
}


GOOD = ("good", "explorer")


def run_nbval(folder: Path, names: list[str]) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """pytest's exit status, and for each notebook the (outcome, message) of its cells."""
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")  # this folder is the root, not the project
    for name in names:
        nb = new_notebook(cells=NOTEBOOKS[name])
        kernel = "elsewhere" if name == "kernel" else "python3"
        nb.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(nb, folder / f"{name}.ipynb")
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "--color=no"]
    command = [sys.executable, "-m", "pytest", *options, "--junitxml=report.xml", "."]
    code = subprocess.run(command, cwd=folder, capture_output=True, timeout=120).returncode
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        name = case.get("classname").removesuffix(".ipynb")
        outcome = next((c for c in case if c.tag in ("failure", "error", "skipped")), None)
        message = "" if outcome is None else f"{outcome.get('message')} {outcome.text}"
        found[name].append(("passed" if outcome is None else outcome.tag, message))
    return code, found


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> dict[str, list[tuple[str, str]]]:
    code, found = run_nbval(tmp_path_factory.mktemp("bad"), [n for n in NOTEBOOKS if n not in GOOD])
    assert code == 1
    return found


def test_a_good_notebook_passes(tmp_path):
    code, found = run_nbval(tmp_path, list(GOOD))
    assert code == 0
    assert [outcome for outcome, _ in found["good"]] == ["passed", "passed"]
    assert [outcome for outcome, _ in found["explorer"]] == ["passed", "passed", "passed"]


@pytest.mark.parametrize("name", ["empty", "picture"])
def test_a_checked_cell_needs_stored_output(bad, name):
    outcome, message = bad[name][0]
    assert outcome == "error"
    assert f"{name}.ipynb, code cell 0: tagged nbval-check-output, but no output" in message


def test_the_notebook_that_is_checked_wholly_is_there():
    assert (ROOT / "notebooks" / f"{WHOLLY_CHECKED}.ipynb").is_file()


@pytest.mark.parametrize("name", ["wrong", WHOLLY_CHECKED])
def test_a_wrong_stored_output_fails(bad, name):
    outcome, message = bad[name][0]
    assert outcome == "failure"
    assert "Cell outputs differ" in message


def test_a_failing_cell_stops_its_notebook(bad):
    assert [outcome for outcome, _ in bad["broken"]] == ["failure", "skipped", "skipped"]
    assert "an earlier cell failed (cell 0 of broken.ipynb)" in bad["broken"][1][1]


def test_the_kernelspec_must_be_python3(bad):
    assert [outcome for outcome, _ in bad["kernel"]] == ["error", "skipped"]
    assert "kernelspec must be python3, not elsewhere" in bad["kernel"][0][1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dumb", "the sentence stays as it was at 2"),
        ("blind", "the picture stays as it was at 2"),
        ("faulty", "too odd"),
    ],
)
def test_an_explorer_that_does_not_answer_fails(bad, name, says):
    assert [outcome for outcome, _ in bad[name]] == ["passed", "failure"]
    assert says in bad[name][1][1]
