"""Copies for a class: no solution survives, each exercise is graded once, and nbgrader agrees."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import ROOT
from helpers.exercises import EXERCISES, MISTAKES, NOTEBOOKS, checked, right, solutions
from nbclient import NotebookClient
from run_notebooks import KERNEL_ENVIRONMENT

from gumlab.course import check
from gumlab.course.addresses import ON_COLAB, badges
from gumlab.course.citations import CITATION, FOLDERS, PAGES, WHERE, without_citations
from gumlab.course.releasing import CHECK, release, student_copy, table
from gumlab.course.releasing import NOTEBOOKS as FOLDER
from gumlab.errors import GumlabError

TEACHING = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
by_name = {"ids": lambda path: path.stem}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a class é") / "2027"
    return folder, release(folder)


def copies(folder: Path, path: Path) -> list[nbformat.NotebookNode]:
    """The students' copy of a notebook, and the source for nbgrader if it has exercises."""
    both = [folder / "students" / path.name, folder / "course/source" / path.stem / path.name]
    return [nbformat.read(p, as_version=4) for p in both if p.exists()]


def marks(nb: nbformat.NotebookNode, kind: str) -> list[nbformat.NotebookNode]:
    """The cells that nbgrader takes for "grade" or for "solution"."""
    return [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get(kind)]


def squeezed(text: str) -> str:
    """Code without comments, blank lines and indentation."""
    lines = (re.sub(r" *#.*", "", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_no_solution_survives(path, released):
    for nb in copies(released[0], path):
        text = "\n".join(cell.source for cell in nb.cells)
        assert "# solution" not in text
        assert "badge" not in text  # its link leads to the solutions
        for name, code in solutions(path).items():
            function = next(n for n in ast.parse(code).body if getattr(n, "name", "") == name)
            body = [
                n for n in function.body if not isinstance(getattr(n, "value", 0), ast.Constant)
            ]
            printed = squeezed("\n".join(code.splitlines()[body[0].lineno - 1 :]))
            assert printed not in squeezed(text)
        for cell in nb.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_everything_else_stays(path, released):
    kept = [cell.source for cell in copies(released[0], path)[0].cells]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.source in kept
        source = without_citations(cell.source)
        for fold in re.findall(r"<details>.*?</details>", source, re.DOTALL):
            assert ("# solution:" in fold) != any(fold in text for text in kept)
        for heading in re.findall(r"^#+ (?!solution).*$", source, re.MULTILINE):
            assert any(heading in text for text in kept)


def test_only_the_fold_with_the_solution_goes():
    kept = "Text.\n\n<details>\nAn answer.\n</details>"
    solution = "<details>\n\n```python\n# solution: top_v\n```\n\n</details>"
    cell = {"cell_type": "markdown", "metadata": {}, "source": f"{kept}\n\n{solution}\n\nMore."}
    copy, _ = student_copy({"cells": [cell], "metadata": {}})
    assert copy["cells"][0]["source"] == f"{kept}\n\nMore."


HINTS = """\
Think of the count first.

<details><summary>Hint 1</summary>

Sort the scores: `scores.argsort(descending=True)`.

</details>

<details>
<summary>Hint 2</summary>

```python
order = scores.argsort(descending=True)
```

</details>"""
ANSWER = """\
<details><summary>Solution</summary>

```python
# solution: top_v
def top_v(scores, keep):
    return scores >= 0
```

</details>"""


@pytest.mark.parametrize(
    "parts", [[HINTS, ANSWER], [ANSWER, HINTS], [HINTS, ANSWER, HINTS, ANSWER, "The end."]]
)
@pytest.mark.parametrize("for_nbgrader", [False, True])
def test_folded_hints_survive_where_solutions_go(parts, for_nbgrader):
    cell = {"cell_type": "markdown", "metadata": {}, "source": "\n\n".join(parts)}
    copy, _ = student_copy({"cells": [cell], "metadata": {}}, for_nbgrader)
    left = "\n\n".join(part for part in parts if part is not ANSWER)
    assert copy["cells"][0]["source"] == left


# --- what a copy cites


@pytest.mark.parametrize(
    ("text", "in_words", "as_address"),
    [
        (
            "See `results/step.md`.",
            f"See `results/step.md` {WHERE}.",
            "See [`results/step.md`](URL/blob/main/results/step.md).",
        ),
        (
            "[The table](../results/a.md#b) of it",
            f"The table (`results/a.md#b` {WHERE}) of it",
            "[The table](URL/blob/main/results/a.md#b) of it",
        ),
        (
            "`python benchmarks/quality/a.py --seed 1` made it",
            f"`python benchmarks/quality/a.py --seed 1` {WHERE} made it",
            "[`python benchmarks/quality/a.py --seed 1`](URL/blob/main/benchmarks/quality/a.py) "
            "made it",
        ),
        (
            "`results/m_*.csv`, `benchmarks/speed/`",
            f"`results/m_*.csv` {WHERE}, `benchmarks/speed/` {WHERE}",
            "[`results/m_*.csv`](URL/tree/main/results/), "
            "[`benchmarks/speed/`](URL/tree/main/benchmarks/speed/)",
        ),
        ("`TEACHING.md`", f"`TEACHING.md` {WHERE}", "[`TEACHING.md`](URL/blob/main/TEACHING.md)"),
        *[
            (text, text, text)
            for text in (
                "Next: [01](01_a_gpt.ipynb), `gumlab/rules.py`, `README.md`, two results / tests",
                "[web](https://example.org/results/a.md) and `my_results/a.md`",
            )
        ],
    ],
)
def test_a_file_of_the_repository_becomes_words_or_an_address(text, in_words, as_address):
    assert without_citations(text) == in_words
    assert without_citations(in_words) == in_words
    address = "https://github.com/a/b"
    for written in (address, f"{address}/", f"{address}.git"):
        assert without_citations(text, written) == as_address.replace("URL", address)


CITED = re.compile(rf"[^\s`(\[\"']*\b(?:{'|'.join(FOLDERS)})/[\w.*-]+|{'|'.join(PAGES)}")
MISNAMED = {"gumlab/paper.py"}  # notebook 11 means gumlab/study/paper.py


def without_addresses(cell: nbformat.NotebookNode) -> str:
    """What a cell says, but for links to the web."""
    return re.sub(r"\[[^\]]*\]\(https://[^)]*\)|https://\S+", "", cell.source)


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_copies_cite_nothing_that_students_do_not_have(path, released, released_to):
    for folder, words in [(released[0], WHERE), (released_to, "a link")]:
        for cell in [cell for nb in copies(folder, path) for cell in nb.cells]:
            text = without_addresses(cell)
            for found in CITED.finditer(text):
                after_its_name = text[found.end() :].partition("`")[2]
                assert after_its_name.startswith(f" {words}"), found[0]
            for module in re.findall(r"\bgumlab/[\w/]+\.py", text):
                assert (ROOT / module).exists() or module in MISNAMED
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\((?!#)([^)\s]+)\)", text):
                    assert (folder / "students" / target.partition("#")[0]).exists(), target


def test_files_that_the_notebooks_cite_exist():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            for found in CITATION.finditer(cell.source):
                name = (found[2] or found[3]).partition("#")[0]
                assert list(ROOT.glob(name.rstrip("/"))), f"{path.name} cites {name}"


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_every_exercise_is_graded_once_after_its_check(path, released):
    folder, exercises = released
    wanted = {e.name: e.points for e in exercises[path.stem]}
    assert set(wanted) == checked(path)
    for nb in copies(folder, path):
        nbformat.validate(nb)
        assert len({cell.id for cell in nb.cells}) == len(nb.cells)
        graded = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader for c in marks(nb, "grade")}
        assert {f"{name}-test": points for name, points in wanted.items()} == {
            grade_id: mark.points for grade_id, mark in graded.items()
        }
        assert len(marks(nb, "grade")) == len(wanted)
        assert all(mark.locked and not mark.solution for mark in graded.values())
        for before, cell in zip(nb.cells, nb.cells[1:], strict=False):
            if cell in marks(nb, "grade"):
                assert CHECK.search(before.source)[1] + "-test" == cell.metadata.nbgrader.grade_id
        for cell in marks(nb, "solution"):
            mark = cell.metadata.nbgrader
            assert mark.schema_version == 3
            assert not mark.grade
            assert not mark.locked
            assert f"def {mark.grade_id.removesuffix('-answer')}(" in cell.source
        stubs = [c for c in nb.cells if "raise NotImplementedError" in c.source]
        assert stubs == marks(nb, "solution")


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_the_source_has_what_nbgrader_takes_out_and_the_students_copy_has_not(path, released):
    students, *source = copies(released[0], path)
    assert not any("###" in cell.source and "BEGIN" in cell.source for cell in students.cells)
    assert bool(source) == bool(checked(path))
    for nb in source:
        for cell in marks(nb, "grade"):
            name = cell.metadata.nbgrader.grade_id.removesuffix("-test")
            assert f"assert gl.check.{name}.passes({name})" in cell.source
            assert "### BEGIN HIDDEN TESTS" in cell.source
        assert all("### BEGIN SOLUTION" in cell.source for cell in marks(nb, "solution"))
        for cell in nb.cells:
            if cell.cell_type == "code" and "skip-execution" not in cell.metadata.get("tags", []):
                ast.parse(cell.source)


@pytest.mark.parametrize("name", EXERCISES)
def test_grading_passes_a_right_answer_and_nothing_else(name, capsys):
    exercise = EXERCISES[name]

    def stub(*case):
        raise NotImplementedError

    def talks(*case):
        print("as a warning does", file=sys.stderr)
        return right(exercise)(*case)

    assert exercise.passes(right(exercise))
    assert exercise.passes(talks)
    assert not exercise.passes(lambda *case: exercise.reference(*case))
    assert not exercise.passes(stub)
    assert not exercise.passes("not a function")
    assert not exercise.passes(exercise.reference)  # what the check leaves behind after a mistake
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("exercise", "hint", "wrong"), MISTAKES)
def test_grading_passes_no_known_mistake(exercise, hint, wrong):
    assert not exercise.passes(wrong)


def test_a_hidden_assertion_raises_for_a_fallback_and_not_for_a_right_answer():
    code = "assert gl.check.kept_count.passes(kept_count)"
    scope = {"gl": __import__("gumlab"), "kept_count": lambda keep, widths: 0}
    scope["kept_count"] = check.kept_count(scope["kept_count"])
    with pytest.raises(AssertionError):
        exec(code, scope)
    scope["kept_count"] = check.kept_count(lambda keep, widths: round(keep * sum(widths)))
    exec(code, scope)


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "gumlab.cli", "release", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def test_the_command_says_what_it_wrote(tmp_path, released):
    done = command(tmp_path / "new" / "class")
    assert done.returncode == 0, done.stderr
    exercises = [e for found in released[1].values() for e in found]
    assert f"{len(NOTEBOOKS)} notebooks with {len(exercises)} exercises" in done.stdout
    made = {p.name for p in (tmp_path / "new" / "class").iterdir()}
    assert made == {"students", "course", "exercises.md"}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["class"]


ADDRESS = "https://github.com/a-teacher/gumlab"


@pytest.fixture(scope="module")
def released_to(tmp_path_factory) -> Path:
    """Copies that will lie in a repository of the teacher."""
    folder = tmp_path_factory.mktemp("to") / "my class"
    done = command(folder, "--repository", ADDRESS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_a_repository_gives_each_copy_badges_to_itself_and_an_install_cell(
    path, released, released_to
):
    plain, with_address = copies(released[0], path), copies(released_to, path)
    assert len(plain) == len(with_address)
    for before, after in zip(plain, with_address, strict=True):
        nbformat.validate(after)
        to_itself = badges(ADDRESS, f"my class/students/{path.name}")
        assert after.cells[0].source == f"{to_itself}\n{before.cells[0].source}"
        code = [cell for cell in after.cells if cell.cell_type == "code"]
        assert f'%pip install -q "gumlab @ git+{ADDRESS}"' in code[0].source
        assert {"skip-execution", "nbval-skip"} == set(code[0].metadata.tags)
        sources = [cell.source for cell in before.cells if ON_COLAB not in cell.source]
        others = [cell.source for cell in after.cells if cell is not code[0]]
        for there, here in zip(others[1:], sources[1:], strict=True):
            assert there == here or WHERE in here  # a file is cited by its address there


@pytest.mark.parametrize("address", ["https://example.org/a/b", ""])
def test_a_repository_that_is_not_on_github_is_refused_and_nothing_written(address, tmp_path):
    done = command(tmp_path / "class", "--repository", address)
    assert done.returncode == 1
    assert "open only those; write https://github.com/" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_notebooks_that_begin_with_code_or_have_none_get_badges_too(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, cells in {"a": [("code", "1")], "b": [("markdown", "Text.")]}.items():
        (tmp_path / "mine" / f"{name}.ipynb").write_text(notebook(*cells))
    release(tmp_path / "out", tmp_path / "mine", ADDRESS)
    first, second = (
        nbformat.read(tmp_path / "out" / "students" / f"{name}.ipynb", as_version=4).cells
        for name in "ab"
    )
    assert [cell.cell_type for cell in first] == ["markdown", "code", "code"]
    assert [cell.cell_type for cell in second] == ["markdown"]
    assert second[0].source == badges(ADDRESS, "out/students/b.ipynb") + "\nText."


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "grades.csv").touch()
    done = command(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("gumlab: ")
    assert "is not an empty folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["grades.csv"]
    with pytest.raises(GumlabError, match="is not an empty folder"):
        release(tmp_path / "grades.csv")


def test_an_empty_folder_will_do(tmp_path):
    release(tmp_path)
    assert (tmp_path / "students").is_dir()


def notebook(*cells: tuple[str, str]) -> str:
    made = [{"cell_type": kind, "metadata": {}, "source": [text]} for kind, text in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "--notebooks"),
        ("not JSON", "cannot be released"),
        ("[]", "cannot be released"),
        ("{}", "cannot be released"),
        (notebook(("code", "top_v = gl.check.top_v(top_v)")), "no cell that defines it"),
    ],
)
def test_notebooks_that_are_missing_or_broken_are_one_sentence(text, words, tmp_path):
    (tmp_path / "mine").mkdir()
    if text is not None:
        good = FOLDER / NOTEBOOKS[0].name
        (tmp_path / "mine" / good.name).write_bytes(good.read_bytes())
        (tmp_path / "mine" / "99_broken.ipynb").write_text(text)
    with pytest.raises(GumlabError, match=words):
        release(tmp_path / "out", tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write, count = Path.write_text, iter(range(3))

    def failing(self, *arguments, **options):
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(GumlabError, match="No space left on device"):
        release(tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GumlabError, match="Cannot write"):
        release(tmp_path / "file" / "out")


# --- TEACHING.md


def test_teaching_has_the_table_of_exercises(released):
    folder, exercises = released
    assert (folder / "exercises.md").read_text(encoding="utf-8") == table(exercises)
    shown = re.search(r"<!-- exercises -->\n(.*?)<!-- end -->", TEACHING, re.DOTALL)[1]
    assert shown == table(exercises), "Paste exercises.md, which `gumlab release DIR` writes."


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_teaching_gives_every_notebooks_time_and_the_answer_to_its_prediction(path):
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
    rows = re.search(r"<!-- notebooks -->\n(.*?)<!-- end -->", TEACHING, re.DOTALL)[1]
    row = re.search(rf"^\| {path.stem[:2]} \|.*$", rows, re.MULTILINE)
    assert row, f"TEACHING.md has no row for {path.stem[:2]}"
    minutes = re.search(r"\*\*Time\*\* (\d+) minutes", text)[1]
    assert f"| {minutes} |" in row[0]
    if answer := re.search(r"<summary>Answer</summary>\s+\*\*([A-E])\*\*", text):
        assert f"**{answer[1]}**" in row[0]


@pytest.mark.parametrize(("plan", "total"), [("90-minute", 90), ("3-hour", 180)])
def test_a_plan_lasts_as_long_as_it_says(plan, total):
    text = re.search(rf"^## The {plan} plan\n(.*?)^## ", TEACHING, re.MULTILINE | re.DOTALL)[1]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE))) == total


def test_every_section_that_teaching_names_exists():
    named = re.findall(r"(\d\d),? sections? (\d+(?:(?:, | and | to )[1-9]\d*)*)", TEACHING)
    assert len(named) > 30
    for number, sections in named:
        (path,) = (p for p in NOTEBOOKS if p.stem.startswith(number))
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
        for section in re.findall(r"\d+", sections):
            assert re.search(rf"^## {section}\. ", text, re.MULTILINE), (number, section)


# --- running them


def played_with(nb: nbformat.NotebookNode, settings: dict[str, str]) -> None:
    """A student tries smaller settings in a copy; each text stands in it once."""
    for old, new in settings.items():
        (cell,) = (cell for cell in nb.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)


@pytest.mark.slow
def test_a_students_copy_runs_to_its_end_before_anything_is_attempted(released, monkeypatch):
    for key, value in KERNEL_ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    path = released[0] / "students" / NOTEBOOKS[0].name
    nb = nbformat.read(path, as_version=4)
    played_with(nb, {"QUERIES = 100": "QUERIES = 5"})
    NotebookClient(nb, kernel_name="python3", timeout=300).execute()
    said = "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", []))
    assert said.count("not attempted") == len(released[1][path.stem])


READ_SCORES = """
import json, sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as gb:
    submissions = gb.assignment_submissions(sys.argv[1])
    print(json.dumps({s.student.id: [s.score, s.max_score] for s in submissions}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="nbgrader is not installed")
def test_nbgrader_generates_and_grades(tmp_path):
    path = next(p for p in NOTEBOOKS if p.stem.startswith("02"))
    release(tmp_path / "class")
    course = tmp_path / "class" / "course"
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # alembic
    environment = os.environ | KERNEL_ENVIRONMENT | {"PATH": scripts, "HOME": str(tmp_path)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=course,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def submit(student: str, copy: Path, answers: dict[str, str]) -> None:
        nb = nbformat.read(copy, as_version=4)
        for cell in nb.cells:
            for name, code in answers.items():
                if re.search(rf"^def {name}\(", cell.source, re.MULTILINE):
                    cell.source = code
        played_with(nb, {"repeats=9": "repeats=2", "n_embd=512": "n_embd=64"})
        folder = course / "submitted" / student / path.stem
        folder.mkdir(parents=True)
        nbformat.write(nb, folder / path.name)

    python("-m", "nbgrader", "generate_assignment", path.stem)
    given = course / "release" / path.stem / path.name
    text = "\n".join(cell.source for cell in nbformat.read(given, as_version=4).cells)
    assert text.count("raise NotImplementedError()") == 3
    assert "up[:kept]" in text  # the bug to find is still there
    assert "passes" not in text
    right = solutions(path)
    talks = right["apply_mask"] + '\nimport sys\nprint("as a warning does", file=sys.stderr)\n'
    submit("ann", course.parent / "students" / path.name, right | {"apply_mask": talks})
    wrong = right["apply_mask"].replace("h * mask", "h")
    submit("bob", given, {"apply_mask": wrong, "remove_neurons": right["remove_neurons"]})
    python("-m", "nbgrader", "autograde", path.stem)
    assert json.loads(python("-c", READ_SCORES, path.stem)) == {"ann": [8, 8], "bob": [2, 8]}
