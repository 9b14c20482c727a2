"""The wheel holds the whole package and nothing else, and the demo runs from it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT

pytest.importorskip("pip")
pytest.importorskip("hatchling")  # without it pip would fetch it to build the wheel


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "-q"]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("gumlab-*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / "gumlab").rglob("*") if p.is_file()}
    assert held == {name for name in there if "__pycache__" not in name}
    assert {"gumlab/py.typed", "gumlab/assets/tiny-gpt2/model.safetensors"} <= held


def test_the_demo_runs_from_the_wheel_in_another_folder(wheel, tmp_path):
    pip("install", "--target", tmp_path / "alone", wheel)
    (tmp_path / "work" / "own").mkdir(parents=True)
    row = json.dumps({"prompt": "what is it ->", "target": "a small place"})
    for split in ("train", "validation", "test"):
        (tmp_path / "work" / "own" / f"{split}.jsonl").write_text(f"{row}\n" * 4, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "alone"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path / "work",
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    home = Path(run("-c", "import gumlab; print(gumlab.__file__)").strip()).parent
    assert home == tmp_path / "alone" / "gumlab"
    said = run("-m", "gumlab.cli", "demo", "--task", "own", "--steps", "1", "--keep", "0.5")
    assert "recommended" in said
    assert (tmp_path / "work" / "gumlab-demo" / "figure.png").is_file()
