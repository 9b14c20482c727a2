"""Write results/licences.md: the licences of all that `pip install gumlab[lab]` brings.

Usage: python tools/licences.py
What is installed, who asks for it and under which licence it is, pipdeptree reads from the
packages' own metadata.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "gumlab"
ABOUT = (
    "# The licences of what gumlab needs\n\n"
    "Made by `python tools/licences.py`: the {count} packages of `gumlab[lab]` and all that they "
    "need, as their own metadata say. gumlab itself: {licence}. On Linux the torch of PyPI brings "
    "NVIDIA's CUDA libraries too, under NVIDIA's own terms; a CPU build of torch does not.\n\n"
    "| package | version | licence | asked for by |\n|---|---|---|---|\n"
)


def dependency_tree() -> list[dict]:
    """Every installed package that `gumlab[lab]` needs, itself included, with what each needs."""
    command = [sys.executable, "-m", "pipdeptree", "--packages", f"{PACKAGE}[lab]"]
    command += ["--output", "json", "--metadata", "license"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def report(tree: list[dict]) -> str:
    """The text of results/licences.md."""
    askers: dict[str, list[str]] = {}
    for entry in tree:
        for needed in entry["dependencies"]:
            askers.setdefault(needed["key"], []).append(entry["package"]["key"])
    licences = {}
    rows = []
    for entry in tree:
        package = entry["package"]
        name = package["key"]
        licences[name] = package["metadata"]["license"].removesuffix(" License")
        if name != PACKAGE:
            asked_by = PACKAGE if PACKAGE in askers[name] else ", ".join(sorted(askers[name]))
            cells = [name, package["installed_version"], licences[name], asked_by]
            rows.append("| " + " | ".join(cells) + " |\n")
    return ABOUT.format(count=len(rows), licence=licences[PACKAGE]) + "".join(sorted(rows))


def main() -> None:
    text = report(dependency_tree())
    (ROOT / "results" / "licences.md").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
