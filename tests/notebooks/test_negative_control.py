"""A score that is broken on purpose must make the notebooks fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import ROOT

NOTEBOOKS = ROOT / "notebooks"
BREAK = """
import gumlab.scoring as s
right = s.WEIGHT_SCORES["magnitude"]
s.magnitude = s.WEIGHT_SCORES["magnitude"] = lambda layer: -right(layer)
"""
SHORT = {
    "STEPS = 40": "STEPS = 1",
    "SEEDS = (0, 1, 2)": "SEEDS = (0,)",
    "batch_size=8)": "batch_size=2, examples=4)",
}

pytestmark = pytest.mark.slow


def nbval(
    folder: Path,
    name: str,
    *options: str,
    start: str = "",
    settings: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """Run one notebook under nbval in a folder of its own, its kernel beginning with `start`.

    `settings` says which of its texts are replaced by which.
    """
    (folder / "notebooks").mkdir()
    shutil.copy(NOTEBOOKS / "conftest.py", folder / "notebooks")
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    for old, new in (settings or {}).items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "notebooks" / name).write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n")  # this folder is the root, not the project
    profile = folder / "ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "00.py").write_text(start)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, *options, f"notebooks/{name}"],
        cwd=folder,
        env=os.environ | {"IPYTHONDIR": str(folder / "ipython")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_broken_score_fails_the_notebook_that_teaches_it(tmp_path):
    done = nbval(tmp_path, "04_magnitude.ipynb", "--nbval-lax", start=BREAK, settings=SHORT)
    assert done.returncode == 1, done.stdout[-2000:]
    claim = "your score keeps what gumlab's keeps"
    assert f"no longer holds with your settings: {claim}" in done.stdout
