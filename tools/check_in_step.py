"""Check that pyproject.toml, constraints.txt, environment.yml and Makefile agree.

Usage: python tools/check_in_step.py [FOLDER]. Needs Python 3.11 (tomllib), packaging and PyYAML.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

NEVER_PINNED = {"numpy"}  # hosted notebooks come with one already loaded


def declared(project: dict) -> dict[str, SpecifierSet]:
    """Every dependency of the project and its extras: name -> allowed versions."""
    found: dict[str, SpecifierSet] = {}
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (Requirement(line) for group in groups for line in group):
        name = canonicalize_name(requirement.name)
        if name != project["name"]:
            found[name] = found.get(name, SpecifierSet()) & requirement.specifier
    return found


def lines(path: Path) -> Iterator[str]:
    """The lines of a requirements file without comments and blanks."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            yield text


def check_constraints(folder: Path, project: dict) -> Iterator[str]:
    """One sentence for each constraint that pyproject.toml does not allow."""
    allowed = declared(project)
    for line in lines(folder / "constraints.txt"):
        requirement = Requirement(line)
        name, pins = canonicalize_name(requirement.name), list(requirement.specifier)
        if name in NEVER_PINNED:
            yield f"constraints.txt pins {name}, which must stay unpinned."
        elif name not in allowed:
            yield f"constraints.txt pins {name}, which pyproject.toml does not declare."
        elif len(pins) != 1 or pins[0].operator != "==" or "*" in pins[0].version:
            yield f"constraints.txt says {line!r}; write one exact version, {name}==X.Y.Z."
        elif not allowed[name].contains(pins[0].version, prereleases=True):
            yield (
                f"constraints.txt pins {name} {pins[0].version}, "
                f"but pyproject.toml allows {allowed[name]}."
            )


def installed(words: list[str]) -> tuple[set[str], str]:
    """The extras and the constraints file of a `-c FILE -e .[EXTRAS]` command."""
    options = dict(pairwise(words))
    target = options.get("-e", "").strip("\"'")
    extras = Requirement("project" + target[1:]).extras if target.startswith(".") else set()
    return extras, options.get("-c", "")


def check_environment(folder: Path, project: dict) -> Iterator[str]:
    """One sentence for each way in which environment.yml departs from the other files."""
    environment = yaml.safe_load((folder / "environment.yml").read_text(encoding="utf-8"))
    entries = environment["dependencies"]
    pythons = [e for e in entries if isinstance(e, str) and e.split("=")[0] == "python"]
    version = pythons[0].strip("=").split("=")[1] if pythons and "=" in pythons[0] else ""
    if not version:
        yield "environment.yml names no Python version; write python=X.Y."
    elif not SpecifierSet(project["requires-python"]).contains(version):
        yield (
            f"environment.yml has Python {version}, "
            f"but pyproject.toml requires {project['requires-python']}."
        )
    pip = [line for e in entries if isinstance(e, dict) for line in e.get("pip", [])]
    extras, constraints = installed(" ".join(pip).split())
    makefile = (folder / "Makefile").read_text(encoding="utf-8").splitlines()
    install = [line for line in makefile if "pip install" in line and " -e " in line]
    wanted, pinned_by = installed(install[0].split() if install else [])
    if not wanted or pinned_by != "constraints.txt":
        yield "Makefile has no `pip install -c constraints.txt -e .[EXTRAS]` line."
    if constraints != "constraints.txt":
        yield "environment.yml does not pass -c constraints.txt to pip."
    if extras != wanted:
        yield f"environment.yml installs extras {sorted(extras)}, Makefile {sorted(wanted)}."
    for extra in sorted((extras | wanted) - set(project["optional-dependencies"])):
        yield f"The extra {extra!r} is installed, but pyproject.toml does not define it."


def main(folder: Path) -> int:
    """Print one sentence per mismatch; 1 if there is any."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    mismatches = [*check_constraints(folder, project), *check_environment(folder, project)]
    print("\n".join(mismatches) or "pyproject, constraints, environment and Makefile are in step.")
    return int(bool(mismatches))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])))
