"""Playing never breaks a notebook: each runs to its end with three other settings.

`other_settings/NOTEBOOK.json` lists them: a name, and texts of the notebook with what stands there
instead. Steps and examples are few, since what is tested is that nothing stops, not what comes out.
"""

from __future__ import annotations

import atexit
import json
import os
import random

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from helpers import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SETTINGS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests/notebooks/other_settings").glob("*.json"))
}

pytestmark = pytest.mark.slow


def cells_with(name, replace):
    """The code cells that a reader runs, with other texts in them."""
    cells = [
        cell.source
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
        if cell.cell_type == "code" and "nbval-skip" not in cell.metadata.get("tags", [])
    ]
    for old, new in replace.items():
        places = sum(cell.count(old) for cell in cells)
        assert places == 1, f"{old!r} stands {places} times in {name}, not once"
        cells = [cell.replace(old, new) for cell in cells]
    return cells


@pytest.fixture
def shell(monkeypatch):
    """A fresh IPython shell in the notebooks' folder; what a notebook sets is put back."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.chdir(FOLDER)
    threads = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    with matplotlib.rc_context():
        yield shell
    atexit.unregister(shell.atexit_operations)  # by which all would stay until the very end
    shell.atexit_operations()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "replace"),
    [
        pytest.param(name, setting["replace"], id=f"{name}: {setting['name']}")
        for name, settings in SETTINGS.items()
        for setting in settings
    ],
)
def test_a_notebook_runs_to_its_end_with_other_settings(name, replace, shell, capsys):
    for number, source in enumerate(cells_with(name, replace)):
        result = shell.run_cell(source)
        assert result.success, f"cell {number}: {result.error_in_exec or result.error_before_exec}"
    capsys.readouterr()
    assert os.getcwd() == str(FOLDER)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_three_other_settings(path):
    assert len(SETTINGS[path.stem]) >= 3
