"""Copies of the notebooks for a class: without solutions, and graded by nbgrader if you like.

The check of an exercise never stops a notebook. So each copy gets one more cell after it, which
bears the points; the assertion in it is hidden, that is, nbgrader removes it for students and puts
it back to grade. What an exercise is comes from the notebooks: a heading "Exercise 1: ...", a line
"Difficulty 1 of 3, 5 minutes", and the line `name = gl.check.name(name)`.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gumlab.errors import GumlabError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"  # beside the package, not inside it
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "gumlab"
c.Execute.timeout = 300  # seconds a cell; nbgrader's 30 are too few for some trainings
"""
SOLUTION = re.compile(r"<details>((?!</details>).)*?# solution: .*?</details>\s*", re.DOTALL)
BADGE = re.compile(r"^\[!\[.*\n+", re.MULTILINE)  # it opens the notebook that has the solutions
CHECK = re.compile(r"^(\w+) = gl\.check\.\1\(\1\)", re.MULTILINE)
HEADING = re.compile(r"Exercise \d+: (.+)\s+Difficulty (\d) of 3, ([^.]+?)(?: minutes)?\.")
STUB = re.compile(r"^( *)raise NotImplementedError.*$", re.MULTILINE)
REGION = r"\1### BEGIN SOLUTION\n\g<0>\n\1### END SOLUTION"  # else nbgrader empties the whole cell
HIDDEN = """
### BEGIN HIDDEN TESTS
assert gl.check.{0}.passes({0}), "{0}: see the check above"
### END HIDDEN TESTS"""


@dataclass(frozen=True)
class Graded:
    """An exercise as a teacher sees it; its points are its difficulty, 1 to 3.

    `minutes` is text: a number, or "as long as you like".
    """

    name: str
    title: str
    points: int
    minutes: str


def student_copy(notebook: dict, hidden: bool = False) -> tuple[dict, list[Graded]]:
    """The notebook without solutions, badges and outputs, and its exercises.

    With `hidden` it is the teacher's source for nbgrader, which makes the students' version of it.
    """
    cells: list[dict] = []
    exercises: list[Graded] = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = BADGE.sub("", SOLUTION.sub("", text)).strip()
        if text:
            cells.append(cell | {"source": text, "metadata": dict(cell["metadata"])})
        if text and cell["cell_type"] == "code":
            cells[-1] |= {"outputs": [], "execution_count": None}
            if check := CHECK.search(text):
                exercises.append(_graded(check[1], cells, hidden))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    metadata = {k: v for k, v in notebook["metadata"].items() if k != "gumlab"}
    return notebook | {"cells": cells, "metadata": metadata, "nbformat_minor": 5}, exercises


def _graded(name: str, cells: list[dict], hidden: bool) -> Graded:
    """Mark the stub as the answer, and append the cell that grades it.

    Code with a hidden bug stays an ordinary cell: nbgrader would empty it, were it an answer.
    """
    headings = HEADING.findall("\n".join(c["source"] for c in cells if c["cell_type"] != "code"))
    answers = [c for c in cells if re.search(rf"^def {name}\(", c["source"], re.MULTILINE)]
    if not headings or not answers:
        raise GumlabError(f"exercise {name!r} has no heading, or no cell that defines it.")
    title, points, minutes = headings[-1]
    exercise = Graded(name, title, int(points), minutes)
    if STUB.search(answers[-1]["source"]):
        answers[-1]["metadata"]["nbgrader"] = _nbgrader(f"{name}-answer", solution=True)
        if hidden:
            answers[-1]["source"] = STUB.sub(REGION, answers[-1]["source"])
    marks = _nbgrader(f"{name}-test", grade=True, locked=True, points=exercise.points)
    text = f"# {name}: {points} point{'s' * (exercise.points > 1)}, if the check above says ok"
    about = {"deletable": False, "editable": False, "nbgrader": marks}
    cell: dict = {"cell_type": "code", "metadata": about, "outputs": [], "execution_count": None}
    cells.append(cell | {"source": text + HIDDEN.format(name) * hidden})
    return exercise


def _nbgrader(grade_id: str, **given: bool | int) -> dict:
    no = {"grade": False, "solution": False, "locked": False, "task": False}
    return {"schema_version": 3, "grade_id": grade_id, "cell_type": "code"} | no | given


def table(exercises: dict[str, list[Graded]]) -> str:
    """The exercises of each notebook, by its file's stem, as a Markdown table."""
    lines = ["| notebook | exercise | function | difficulty = points | minutes |", "|---" * 5 + "|"]
    for stem, found in exercises.items():
        for e in found:
            lines.append(f"| {stem[:2]} | {e.title} | `{e.name}` | {e.points} | {e.minutes} |")
    return "\n".join(lines) + "\n"


def release(directory: Path, notebooks: Path = NOTEBOOKS) -> dict[str, list[Graded]]:
    """Write students/, course/ (for nbgrader) and exercises.md; return each notebook's exercises.

    GumlabError, and nothing is written, without notebooks or if `directory` is not empty.
    """
    directory = Path(directory).resolve()
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise GumlabError(f"{directory} exists and is not an empty folder; name a new one.")
    exercises, files = {}, {"course/nbgrader_config.py": CONFIG}
    for path in sorted(Path(notebooks).glob("*.ipynb")):
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            copy, exercises[path.stem] = student_copy(notebook)
            source, _ = student_copy(notebook, hidden=True)
        except (GumlabError, ValueError, KeyError, TypeError) as error:
            raise GumlabError(f"{path} cannot be released: {error}") from error
        files[f"students/{path.name}"] = _text(copy)
        if exercises[path.stem]:
            files[f"course/source/{path.stem}/{path.name}"] = _text(source)
    if not exercises:
        raise GumlabError(
            f"No notebooks in {notebooks}: they come with the repository, not with pip; "
            "say where they are with --notebooks."
        )
    try:
        _write(directory, files | {"exercises.md": table(exercises)})
    except OSError as error:
        raise GumlabError(f"Cannot write {directory}: {error.strerror}.") from error
    return exercises


def _text(notebook: dict) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _write(directory: Path, files: dict[str, str]) -> None:
    """Write all files into a folder beside `directory`, then move them there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".gumlab-") as scratch:
        made = Path(scratch) / "made"
        for name, text in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text, encoding="utf-8", newline="\n")
        directory.mkdir(exist_ok=True)
        for part in made.iterdir():
            part.rename(directory / part.name)
