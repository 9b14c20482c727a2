"""The project files agree, and the check that says so can fail."""

from __future__ import annotations

import shutil

import check_in_step
import pytest
from helpers import ROOT

FILES = (
    "pyproject.toml", "constraints.txt", "environment.yml", "Makefile",
    "CITATION.cff", "CHANGELOG.md", "gumlab/__init__.py",
)  # fmt: skip


def test_project_files_are_in_step(capsys):
    assert check_in_step.main(ROOT) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("pyproject.toml", '"torch>=2.6"', '"torch>=99"', "but pyproject.toml allows >=99"),
        ("pyproject.toml", ">=3.11", ">=3.12", "Python 3.11, but pyproject.toml requires >=3.12"),
        ("constraints.txt", "tqdm==", "unheard-of==", "pins unheard-of, which pyproject.toml does"),
        ("constraints.txt", "tqdm==", "numpy==", "numpy, which must stay unpinned"),
        ("constraints.txt", "torch==", "torch>=", "write one exact version, torch==X.Y.Z"),
        ("environment.yml", "python=3.11", "python=3.9", "Python 3.9, but pyproject.toml requires"),
        ("environment.yml", "lab,test", "lab", "extras ['lab'], Makefile ['lab', 'test']"),
        ("environment.yml", "- -c constraints.txt", "- tqdm", "does not pass -c constraints.txt"),
        ("Makefile", "-c constraints.txt -e", "-e", "Makefile has no `pip install -c"),
        ("pyproject.toml", 'version = "', 'version = "9.', "CITATION.cff has version 0"),
        (
            "CITATION.cff",
            "Apache-2.0",
            "MIT",
            "CITATION.cff has license MIT",
        ),
        ("CHANGELOG.md", "## 0", "## Not 0", "CHANGELOG.md has no heading `## 0"),
        (
            "gumlab/__init__.py",
            '__version__ = "0',
            '__version__ = "9',
            "__init__.py has not pyproject",
        ),
        ("environment.yml", "python=3.11", "python", "environment.yml names no Python version"),
        ("pyproject.toml", "\nlab = [", "\nlaboratory = [", "'lab' is installed, but pyproject"),
    ],
)
def test_a_mismatch_is_named(tmp_path, capsys, name, old, new, sentence):
    (tmp_path / "gumlab").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    assert check_in_step.main(tmp_path) == 1
    assert sentence in capsys.readouterr().out
