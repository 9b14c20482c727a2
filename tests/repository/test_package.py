"""The package as a whole: light to import, whole in its names, and nothing unpickled."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gumlab as gl

PACKAGE = Path(gl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
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
    functions = {name for name in gl._HOMES if inspect.isfunction(getattr(gl, name))}
    modules = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not functions & modules


def documented():
    """The public functions and classes, and the public methods of the classes, by name."""
    found = {name: getattr(gl, name) for name in gl._HOMES}
    for name, value in list(found.items()):
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    found[f"{name}.{method}"] = function
    return found


DOCUMENTED = documented()
# of Hugging Face's own callback: what they take is theirs
THEIRS = {name for name in DOCUMENTED if name.startswith("PruningCallback.on_")}


@pytest.mark.parametrize("name", sorted(DOCUMENTED.keys() - THEIRS))
def test_every_public_docstring_has_its_sections(name):
    """In numpydoc's form: a sentence, then every parameter by its name, and what comes back."""
    value = DOCUMENTED[name]
    text = inspect.getdoc(value) or ""
    assert re.match(r"[^\n]+[.:`](\n\n|$)", text), "begin with a sentence on a line of its own"
    sections = dict(re.findall(r"^(\w+)\n-{3,}\n((?:.|\n)*?)(?=^\w+\n-{3,}\n|\Z)", text, re.M))
    parameters = [
        parameter.name
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name != "self"
    ]
    for parameter in parameters:
        listed = re.search(rf"^[*\w, ]*\b{parameter}\b", sections.get("Parameters", ""), re.M)
        assert listed, f"Parameters does not list {parameter}"
    returned = inspect.signature(value).return_annotation
    if inspect.isfunction(value) and returned not in ("None", None, inspect.Signature.empty):
        assert sections.keys() & {"Returns", "Yields"}, "say what it returns"


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
        for word in ("torch.load(", "import pickle"):
            assert word not in text, f"{relative(path)} has {word}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                said = ast.unparse(node.value)
                assert said == "False", f"{relative(path)} has trust_remote_code={said}"


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
