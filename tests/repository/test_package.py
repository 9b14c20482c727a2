"""The package as a whole: light to import, whole in its names, small in its files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gumlab as gl

PACKAGE = Path(gl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LIFECYCLE = [
    "feedforward",
    "scoring",
    "twins",
    "selection",
    "gating",
    "cutting",
    "pruner",
    "batches",
    "training",
    "statistics",
    "inspection",
    "shrinking",
    "errors",
]
HEAVY = (
    "torch",
    "datasets",
    "ipywidgets",
    "matplotlib",
    "transformers",
    "pandas",
    "sacrebleu",
    "rouge_score",
)


def relative(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize(
    ("start", "needed"),
    [
        ("import gumlab", set()),
        ("import gumlab.cli; gumlab.cli.main()", set()),  # given --help
        ("import gumlab; gumlab.start()", {"torch", "matplotlib", "transformers"}),
    ],
)
def test_what_people_run_first_imports_only_what_it_needs(start, needed):
    last = f"atexit.register(lambda: print(*[m for m in {HEAVY} if m in sys.modules]))"
    command = [sys.executable, "-c", f"import atexit, sys; {last}; {start}", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(out.stdout.splitlines()[-1].split()) == needed


@pytest.mark.parametrize("name", gl.__all__)
def test_every_public_name_resolves(name):
    assert getattr(gl, name) is not None
    assert name in dir(gl)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gumlab' has no attribute 'cut'"):
        gl.cut  # noqa: B018


def test_no_module_bears_a_public_functions_name():
    functions = set(gl._HOMES)
    assert not functions & {p.stem for p in PACKAGE.iterdir()}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_can_be_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 260
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = node.end_lineno - body[0].lineno + 1  # signature and docstring not counted
            assert lines <= 45, f"{node.name} has {lines} lines"


def test_the_package_stays_small():
    """Lines that are not blank: 4,500 in the package, of them 1,800 in the lifecycle.

    Two parts hang on it like leaves and are counted apart: the tasks, each a grammar or a reader
    of files, 1,500; and what only the course uses, the explorers, the figures (but for those of a
    study), the judge of exercises and the release for classes, 1,800. The exercises
    (check/notebook_*.py) are read with their notebooks, and not counted.
    """
    parts = {"tasks": ("tasks",), "course": ("explore", "plots", "check", "release.py")}
    sizes = {
        p: sum(bool(line.strip()) for line in p.read_text(encoding="utf-8").splitlines())
        for p in FILES
        if not p.match("check/notebook_*.py")
    }
    tasks, course = (
        sum(
            size
            for p, size in sizes.items()
            if p.relative_to(PACKAGE).parts[0] in names and not p.match("plots/study.py")
        )
        for names in parts.values()
    )
    assert sum(sizes.values()) - tasks - course < 4500
    assert tasks < 1500
    assert course < 1800
    stages = {PACKAGE / f"{name}.py" for name in LIFECYCLE}  # explore/twins.py is of the course
    assert sum(size for p, size in sizes.items() if p in stages) < 1800


def imports(path):
    """The gumlab modules a file imports anywhere, by their first name after `gumlab.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gumlab."):
            found.add(node.module.split(".")[1])
    return found


def test_no_circle_of_imports():
    graph = {}
    for path in FILES:
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        graph.setdefault(name, set()).update(imports(path) - {name})
    done = set()
    while len(done) < len(graph):
        ready = {n for n, needs in graph.items() if n not in done and needs & graph.keys() <= done}
        assert ready, f"these import each other: {sorted(graph.keys() - done)}"
        done |= ready


def test_nothing_is_unpickled_and_no_remote_code_runs():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for word in ("torch.load(", "import pickle", "trust_remote_code=True"):
            assert word not in text, f"{relative(path)} has {word}"


def test_one_error_class():
    """Raised on purpose is only GumlabError, but for Python's protocols and a failed exercise."""
    allowed = {
        "AttributeError",
        "GumlabError",
        "unknown",
        "restored",
        None,
        "Exit",
        "BadParameter",
        "AssertionError",
    }
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                called = node.exc.func
                name = called.attr if isinstance(called, ast.Attribute) else called.id
                assert name in allowed or name.startswith("_"), f"{relative(path)} raises {name}"
