"""tools/on_gpu.py, with small commands in the place of its own."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT

SLEEPS = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
)


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("on_gpu")


def test_every_job_ends_and_says_how(on_gpu, tmp_path):
    jobs = [
        on_gpu.Job("good", ("-c", "print('four | five')"), 1),
        on_gpu.Job("bad", ("-c", "raise SystemExit('no card')"), 1),
        on_gpu.Job("long", ("-c", SLEEPS), 0.001),
        on_gpu.Job("text", ("-c", "print(1)"), 1, needs_text=True),
        on_gpu.Job("late", ("-c", "print(2)"), 1),
    ]
    rows = on_gpu.run_all(jobs, 0.5, tmp_path, None)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [job.name for job in jobs]
    assert [row[1].split(" after")[0] for row in cells] == [
        "done", "failed (1)", "stopped", "left out", "done"
    ]  # fmt: skip
    assert cells[0][3] == "four   five"
    assert cells[1][3] == "no card"
    assert cells[3][3] == "no --data-dir"


def test_without_time_a_job_is_left_out(on_gpu, tmp_path):
    (row,) = on_gpu.run_all([on_gpu.Job("one", ("-c", "print(1)"), 1)], 0, tmp_path, None)
    assert "| left out |" in row


def test_its_commands_take_the_options_that_it_gives(on_gpu, tmp_path, monkeypatch, capsys):
    for job in on_gpu.JOBS:
        script, *options = on_gpu.command_of(job, tmp_path, "text")[1:]
        if script == "-m":
            assert (ROOT / options[-1]).is_file()
            continue
        monkeypatch.syspath_prepend((ROOT / script).parent)
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert done.value.code == 0
        known = capsys.readouterr().out
        assert all(option in known for option in options if option.startswith("--"))
        assert not any("cuda" in option for option in options) or "cuda" in known


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, Path("tools/on_gpu.py")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no GPU here" in done.stderr
