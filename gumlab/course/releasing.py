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

from gumlab.course.addresses import BADGES, write_badges, write_install_cell
from gumlab.course.citations import without_citations
from gumlab.errors import GumlabError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"  # beside the package, not inside it
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "gumlab"
c.Execute.timeout = 300  # seconds a cell; nbgrader's 30 are too few for some trainings
"""
SOLUTION = re.compile(r"<details>((?!</details>).)*?# solution: .*?</details>\s*", re.DOTALL)
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
    """An exercise as a teacher sees it.

    Attributes
    ----------
    name : str
        The name of the function that the learner writes, and of its check.
    title : str
        What the exercise's heading says after "Exercise 1: ".
    points : int
        The points for a right answer: the difficulty, 1 to 3.
    minutes : str
        How long it takes: a number, or words such as "as long as you like".
    """

    name: str
    title: str
    points: int
    minutes: str


def student_copy(notebook: dict, for_nbgrader: bool = False) -> tuple[dict, list[Graded]]:
    """Copy a notebook without solutions, badges and outputs; each exercise gets a grading cell.

    Parameters
    ----------
    notebook : dict
        The notebook as its JSON says it; it is left as it is.
    for_nbgrader : bool, default False
        Make the teacher's source, from which nbgrader makes the students' version: the stubs are
        marked as the part to replace, and the hidden assertions are there.

    Returns
    -------
    copy : dict
        The copied notebook.
    exercises : list of Graded
        Its exercises, in their order.

    Raises
    ------
    GumlabError
        If a checked exercise has no heading, or no cell that defines its function.
    """
    cells: list[dict] = []
    exercises: list[Graded] = []
    for original in notebook["cells"]:
        cell = _cleared(original)
        if not cell["source"]:
            continue
        cells.append(cell)
        check = CHECK.search(cell["source"]) if cell["cell_type"] == "code" else None
        if check:
            name = check[1]
            _mark_answer(_defining_cell(name, cells), name, for_nbgrader)
            exercise = _exercise(name, cells)
            exercises.append(exercise)
            cells.append(_grading_cell(exercise, for_nbgrader))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "gumlab"}
    return notebook | {"cells": cells, "metadata": metadata, "nbformat_minor": 5}, exercises


def _cleared(cell: dict) -> dict:
    """A copy of a cell without solution, badges and outputs; its source is one string.

    The badges open the notebook that has the solutions.
    """
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        source = BADGES.sub("", SOLUTION.sub("", source)).strip()
    cleared = cell | {"source": source, "metadata": dict(cell["metadata"])}
    if cell["cell_type"] == "code":
        cleared["outputs"] = []
        cleared["execution_count"] = None
    return cleared


def _exercise(name: str, cells: list[dict]) -> Graded:
    """What the last heading of an exercise in `cells` says."""
    prose = "\n".join(cell["source"] for cell in cells if cell["cell_type"] != "code")
    headings = HEADING.findall(prose)
    if not headings:
        raise GumlabError(
            f"exercise {name!r} has no heading. Write one in a Markdown cell above its check: "
            "'Exercise 1: its title', and below it 'Difficulty 1 of 3, 5 minutes.'"
        )
    title, points, minutes = headings[-1]
    return Graded(name, title, int(points), minutes)


def _defining_cell(name: str, cells: list[dict]) -> dict:
    """The last cell that defines the function of this name."""
    definition = re.compile(rf"^def {name}\(", re.MULTILINE)
    for cell in reversed(cells):
        if definition.search(cell["source"]):
            return cell
    raise GumlabError(
        f"exercise {name!r} has no cell that defines it. Put `def {name}(...)` into a cell above "
        "its check."
    )


def _mark_answer(cell: dict, name: str, for_nbgrader: bool) -> None:
    """Mark a stub as the cell that the student answers in.

    Code with a hidden bug stays an ordinary cell: nbgrader would empty it, were it an answer.
    """
    if not STUB.search(cell["source"]):
        return
    cell["metadata"]["nbgrader"] = _nbgrader_metadata(f"{name}-answer") | {"solution": True}
    if for_nbgrader:
        cell["source"] = STUB.sub(REGION, cell["source"])


def _grading_cell(exercise: Graded, for_nbgrader: bool) -> dict:
    """The cell that bears an exercise's points; the source for nbgrader has the assertion in it."""
    points = f"{exercise.points} point" if exercise.points == 1 else f"{exercise.points} points"
    source = f"# {exercise.name}: {points}, if the check above says ok"
    if for_nbgrader:
        source += HIDDEN.format(exercise.name)
    graded = {"grade": True, "locked": True, "points": exercise.points}
    marks = _nbgrader_metadata(f"{exercise.name}-test") | graded
    return {
        "cell_type": "code",
        "metadata": {"deletable": False, "editable": False, "nbgrader": marks},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }


def _nbgrader_metadata(grade_id: str) -> dict:
    """What nbgrader wants to know of a cell: here that it is nothing special."""
    return {
        "schema_version": 3,
        "grade_id": grade_id,
        "cell_type": "code",
        "grade": False,
        "solution": False,
        "locked": False,
        "task": False,
    }


def table(exercises: dict[str, list[Graded]]) -> str:
    """Write the exercises of each notebook as a Markdown table.

    Parameters
    ----------
    exercises : dict of str to list of Graded
        The stem of each notebook's file name, such as "03_random_the_honest_baseline", and the
        notebook's exercises.

    Returns
    -------
    str
        The table, a row for each exercise.
    """
    lines = ["| notebook | exercise | function | difficulty = points | minutes |", "|---" * 5 + "|"]
    for stem, of_notebook in exercises.items():
        number = stem[:2]
        for exercise in of_notebook:
            lines.append(
                f"| {number} | {exercise.title} | `{exercise.name}` | {exercise.points} "
                f"| {exercise.minutes} |"
            )
    return "\n".join(lines) + "\n"


def release(
    directory: Path, notebooks: Path = NOTEBOOKS, repository: str | None = None
) -> dict[str, list[Graded]]:
    """Write copies of the notebooks for a class.

    `students/` has a copy of every notebook, `course/` the source for nbgrader of those that have
    exercises, and `exercises.md` the table of the exercises.

    Parameters
    ----------
    directory : Path
        The folder to write; it must be new or empty.
    notebooks : Path, optional
        The folder of the notebooks, by default those of this repository.
    repository : str, optional
        The address of the repository on GitHub that will hold `directory` at its top, and gumlab
        itself: every copy gets badges that open the student's copy there, on the branch `main`, and
        a cell that installs gumlab from there on Colab. By default there are no badges. What the
        notebooks say of other files of the repository, such as `results/README.md`, becomes a link
        to it there; by default, words that say where it lies.

    Returns
    -------
    dict of str to list of Graded
        The stem of each notebook's file name, and the notebook's exercises.

    Raises
    ------
    GumlabError
        If there are no notebooks, one of them cannot be released, `repository` is no repository on
        GitHub, or `directory` is not empty or cannot be written. Nothing is left behind then.
    """
    directory = Path(directory).resolve()
    is_empty_folder = directory.is_dir() and not any(directory.iterdir())
    if directory.exists() and not is_empty_folder:
        raise GumlabError(f"{directory} exists and is not an empty folder; name a new one.")
    paths = sorted(Path(notebooks).glob("*.ipynb"))
    if not paths:
        raise GumlabError(
            f"No notebooks in {notebooks}: they come with the repository, not with pip; "
            "say where they are with --notebooks."
        )
    exercises: dict[str, list[Graded]] = {}
    files = {"course/nbgrader_config.py": CONFIG}
    for path in paths:
        for_students, for_nbgrader, exercises[path.stem] = _copies(path)
        copies = {f"students/{path.name}": for_students}
        if exercises[path.stem]:
            copies[f"course/source/{path.stem}/{path.name}"] = for_nbgrader
        for name, copy in copies.items():
            for cell in copy["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = without_citations(cell["source"], repository)
            if repository is not None:
                write_badges(copy, repository, f"{directory.name}/students/{path.name}")
                write_install_cell(copy, repository)
            files[name] = _json(copy)
    files["exercises.md"] = table(exercises)
    try:
        _write(directory, files)
    except OSError as error:
        raise GumlabError(f"Cannot write {directory}: {error.strerror}.") from error
    return exercises


def _copies(path: Path) -> tuple[dict, dict, list[Graded]]:
    """The students' copy of a notebook, the source for nbgrader, and the exercises."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for_students, exercises = student_copy(notebook)
        for_nbgrader, _ = student_copy(notebook, for_nbgrader=True)
    except GumlabError as error:
        raise GumlabError(f"{path} cannot be released: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise GumlabError(
            f"{path} cannot be released: it is no Jupyter notebook "
            f"({type(error).__name__}: {error}). Save it anew, or take it out of the folder."
        ) from error
    return for_students, for_nbgrader, exercises


def _json(notebook: dict) -> str:
    """A notebook as Jupyter writes it to a file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _write(directory: Path, files: dict[str, str]) -> None:
    """Write all files into a folder beside `directory`, then move them there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".gumlab-") as scratch:
        complete = Path(scratch) / "complete"
        for name, text in files.items():
            path = complete / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        directory.mkdir(exist_ok=True)
        for part in complete.iterdir():
            part.rename(directory / part.name)
