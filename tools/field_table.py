"""The situations of tests/field, as the tests name them, with outcome: results/field.md.

    python tools/field_table.py                     # runs tests/field, a few minutes
    python tools/field_table.py --faults FOLDER     # and each script of a folder of faults

A class of tests is a kind: its docstring says what went wrong, and in which public report. A test
is a situation: its name says what must come. "sentence" is a `GumlabError` that the test asks for,
"value" a value that it computes by itself.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIELD = ROOT / "tests" / "field"
RESULT = ROOT / "results" / "field.md"
SENTENCE = "GumlabError"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=Path, help="a folder of scripts to run, too")
    parser.add_argument("--jobs", default="2", help="processes (default: 2)")
    args = parser.parse_args()
    outcomes = run_tests(args.jobs)
    total = Counter(outcome for found in outcomes.values() for outcome in found.elements())
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
    parts = [
        "# What people who prune models run into, and what comes\n",
        "Made by `python tools/field_table.py`: the tests of tests/field by their own names. A "
        "skipped case needs a package or a device that was not there.\n",
        f"{counted}.\n",
        *(section(path, outcomes) for path in sorted(FIELD.glob("test_*.py"))),
    ]
    if args.faults:
        parts.append(faults_table(args.faults))
    RESULT.write_text("\n".join(parts), encoding="utf-8")
    print(f"{RESULT.relative_to(ROOT)}: {counted}")
    if total["failed"]:
        sys.exit(1)


def run_tests(jobs: str) -> dict[tuple[str, str, str], Counter[str]]:
    """How often each test of each class (file, class, test) passed, failed, or was skipped."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", jobs, "--dist", "loadfile"]
        subprocess.run([*command, str(FIELD), f"--junitxml={junit}"], cwd=ROOT)
        cases = list(ElementTree.parse(junit).iter("testcase"))
    outcomes: dict[tuple[str, str, str], Counter[str]] = {}
    for case in cases:
        module, _, kind = case.attrib["classname"].partition("field.")[2].partition(".")
        test = case.attrib["name"].split("[")[0]
        outcomes.setdefault((module, kind, test), Counter())[outcome_of(case)] += 1
    return outcomes


def outcome_of(case: ElementTree.Element) -> str:
    """What became of a test case."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def section(path: Path, outcomes: dict[tuple[str, str, str], Counter[str]]) -> str:
    """A file's table, by kind."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [f"## {heading(tree)}\n", "| situation | what comes | cases |", "|---|---|---|"]
    for kind, told, test in tests_of(tree):
        found = outcomes.get((path.stem, kind, test.name))
        if found is None:
            continue
        if told:
            lines.append(f"| **{told}** | | |")
        words = test.name.removeprefix("test_").replace("_", " ")
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
        lines.append(f"| {words} | {what_comes(test)} | {counted} |")
    return "\n".join(lines) + "\n"


def tests_of(tree: ast.Module) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """The tests of a file: class name, the kind where it begins, and the function."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield "", "", node
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            told = heading(node)
            for test in node.body:
                if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                    yield node.name, told, test
                    told = ""


def heading(node: ast.Module | ast.ClassDef) -> str:
    """The first paragraph of a docstring as one line, without its full stop."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".").replace("|", "\\|")


def what_comes(test: ast.FunctionDef) -> str:
    """Whether a test asks for a sentence, for a value, or for one after the other."""
    asks = any(
        isinstance(node, ast.Attribute | ast.Name)
        and SENTENCE in (getattr(node, "attr", ""), getattr(node, "id", ""))
        for node in ast.walk(test)
    )
    checks = any(isinstance(node, ast.Assert) for node in ast.walk(test))
    if asks:
        return "sentence"
    return "value" if checks else "value or sentence, by case"


def faults_table(folder: Path) -> str:
    """What each script of a folder prints now: its last line."""
    told = "The reports' smallest inputs, scripts that are not part of the project.\n"
    lines = ["## The smallest inputs\n", told, "| script | what it ends with |", "|---|---|"]
    for script in sorted(folder.resolve().glob("*.py")):
        with tempfile.TemporaryDirectory() as scratch:
            for name in ("out", "data"):
                (Path(scratch) / name).mkdir()
            done = subprocess.run(
                [sys.executable, str(script)], cwd=scratch, capture_output=True, text=True
            )
        printed = (done.stderr if done.returncode else done.stdout).strip().splitlines()
        last = printed[-1].replace("|", "\\|").replace(scratch, "...") if printed else "(nothing)"
        lines.append(f"| {script.name} | {last[:400]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
