"""The exercises of the course: their references, mistakes, and the solutions in notebooks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch

from gumlab.course import check
from gumlab.course.check import Exercise
from helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISES = {name: e for name, e in vars(check).items() if isinstance(e, Exercise)}
MISTAKES = [
    pytest.param(e, hint, wrong, id=f"{name}-{i}")
    for name, e in EXERCISES.items()
    for i, (hint, wrong) in enumerate(e.hints)
]
FENCE = re.compile(r"```python\n(# solution: (\w+)\n.*?)```", re.DOTALL)


def right(exercise: Exercise) -> Callable:
    """A function of one's own that answers as the reference does, and does not call it."""
    reference = inspect.unwrap(exercise.reference)
    return lambda *case: reference(*case)


def solutions(path: Path) -> dict[str, str]:
    """Exercise name -> code, from the folded solutions of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return {
        name: code
        for cell in cells
        if cell.cell_type == "markdown" and "<details>" in cell.source
        for code, name in FENCE.findall(cell.source)
    }


def defined(code: str, name: str) -> Callable:
    """The function of this name that a printed solution defines."""
    scope = {"torch": torch}
    exec(code, scope)
    return scope[name]


def checked(path: Path) -> set[str]:
    """The exercises that a notebook's code cells check."""
    code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells)
    return set(re.findall(r"gl\.check\.(\w+)\(", code)) - {"claims"}
