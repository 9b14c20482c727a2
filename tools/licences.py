"""Write results/licences.md: the licences of all that `pip install gumlab[lab]` brings.

python tools/licences.py
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def closure(lines: Iterable[str]) -> dict[str, tuple[Distribution | None, str]]:
    """Name -> (what is installed, or None; who asks for it), with all that those need in turn."""
    found: dict[str, tuple[Distribution | None, str]] = {}
    waiting, seen = [(Requirement(line), "gumlab") for line in lines], set()
    while waiting:
        wanted, by = waiting.pop(0)
        name, extras = canonicalize_name(wanted.name), sorted(wanted.extras)
        if (name, *extras) in seen:
            continue
        seen.add((name, *extras))
        try:
            there = distribution(name)
        except PackageNotFoundError:
            there = None
        found.setdefault(name, (there, by))
        for line in (there.requires or ()) if there else ():
            need = Requirement(line)
            if not need.marker or any(need.marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((need, name))
    return found


def licence(there: Distribution | None) -> str:
    """The SPDX expression; else the classifiers; else the first line of the old free text."""
    if there is None:
        return "not installed here"
    told = there.metadata
    classes = [c.split(" :: ")[-1] for c in told.get_all("Classifier") or () if "License ::" in c]
    classes = [c for c in classes if c != "OSI Approved"]
    text = (told.get("License") or "").strip().splitlines()
    return told.get("License-Expression") or ", ".join(classes) or (text or ["not said"])[0][:60]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = closure([*project["dependencies"], *project["optional-dependencies"]["lab"]])
    rows = "".join(
        f"| {name} | {there.version if there else ''} | {licence(there)} | {by} |\n"
        for name, (there, by) in sorted(found.items())
    )
    (ROOT / "results" / "licences.md").write_text(
        "# The licences of what gumlab needs\n\n"
        f"Made by `python tools/licences.py`: the {len(found)} packages of `gumlab[lab]` and all "
        "that they need, as their own metadata say. gumlab itself: "
        f"{project['license']}. On Linux the torch of PyPI brings NVIDIA's CUDA libraries too, "
        "under NVIDIA's own terms; a CPU build of torch does not.\n\n"
        f"| package | version | licence | asked for by |\n|---|---|---|---|\n{rows}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
