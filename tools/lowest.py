"""Test with the oldest versions that pyproject.toml allows; what was seen is in results/supply.md.

Usage: python tools/lowest.py [ENVIRONMENT]
Makes a virtual environment with every requirement of the project, and of its extras `lab` and
`train`, at its lower bound, and runs a part of the tests there: three minutes. A named ENVIRONMENT
is kept and used again, else it is a temporary one. On Linux this torch brings CUDA, several GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TESTS = (  # most of the suite; test_trainer and test_feedforward name what is newer
    "repository/test_package.py unit/test_scoring.py unit/test_selection.py unit/test_gating.py "
    "unit/test_training.py unit/test_removal.py unit/io unit/tasks/test_generated.py "
    "unit/tasks/test_tables_and_sql.py unit/test_evaluation.py unit/course/test_explore.py "
    "integration/test_cli.py"
)

REFUSED = "unit/io/test_diagnosis.py::test_what_cannot_be_loaded_gets_a_sentence"
NEWER = {  # what else names the newer: test -> why it is left out
    f"{REFUSED}[cut_off-says]": (
        "the old safetensors calls a file that was cut off a damaged header"
    ),
    f"{REFUSED}[weights_of_another-says]": (
        "the old transformers refuses other weights itself, in another sentence"
    ),
    "unit/course/test_explore.py::test_a_floor_is_named_in_the_sentence": "an old matplotlib warns",
    "unit/course/test_explore.py::test_controls_are_labelled_and_answer_when_let_go": (
        "ipywidgets 7 has no tooltips"
    ),
}


def bounds(lines: Iterable[str]) -> dict[str, str]:
    """Name -> lower bound of each requirement that has one."""
    lowest = {}
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        for limit in requirement.specifier:
            if limit.operator == ">=":
                lowest[name] = limit.version
    return lowest


def make(folder: Path, pins: dict[str, str]) -> Path:
    """The Python of an environment in `folder` that has the pinned versions."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = folder / "lowest.txt"
    lines = [f"{name}=={version}\n" for name, version in pins.items()]
    constraints.write_text("".join(lines), encoding="utf-8")
    wanted = ["-e", f"{ROOT}[lab,train]", "pytest", "nbformat"]
    command = [python, "-m", "pip", "install", "-q", "-c", constraints, *wanted]
    subprocess.run(command, check=True)
    return python


def passed(python: Path) -> str:
    """The closing line of the tests; leaves with their code where one fails."""
    files = [f"tests/{name}" for name in TESTS.split()]
    # what a newer version warns of is not asked of an old one
    left_out = [f"--deselect=tests/{name}" for name in NEWER]
    options = ["-q", "-m", "not slow", "-o", "filterwarnings=", *left_out]
    command = [python, "-m", "pytest", *options, *files]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout.strip().splitlines()[-1].split(" in ")[0]


def report(python: Path, pins: dict[str, str], result: str) -> str:
    """The versions and what the tests said, as Markdown."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], check=True, stdout=subprocess.PIPE
    )
    packages = json.loads(listed.stdout)
    installed = {canonicalize_name(package["name"]): package["version"] for package in packages}
    rows = [
        f"| {name} | {lowest} | {installed[name]} |\n"
        for name, lowest in pins.items()
        if name in installed
    ]
    reasons = [f"- `{test}`: {why}\n" for test, why in NEWER.items()]
    version = sys.version.split()[0]
    return (
        "# The oldest versions that work\n\n"
        f"Made by `python tools/lowest.py` with Python {version}: {result}, in the test files "
        f"{', '.join(TESTS.split())}. Left out, for what the newest versions do otherwise:\n\n"
        + "".join(reasons)
        + "\n| package | lower bound | installed |\n|---|---|---|\n"
        + "".join(rows)
    )


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = bounds([*project["dependencies"], *extras["lab"], *extras["train"], *extras["test"]])
    with tempfile.TemporaryDirectory() as folder:
        python = make(Path(sys.argv[1] if len(sys.argv) > 1 else folder), pins)
        text = report(python, pins, passed(python))
    (ROOT / "results" / "supply.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
