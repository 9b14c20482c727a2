"""Check that the project's files agree on versions, extras and constraints.

Usage: python tools/check_in_step.py [FOLDER]. It reads pyproject.toml, constraints.txt,
environment.yml, Makefile, CITATION.cff, CHANGELOG.md and gumlab/__init__.py, and needs packaging
and PyYAML.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

CONSTRAINTS = "constraints.txt"
NEVER_PINNED = {"numpy"}  # hosted notebooks come with one already loaded


def declared_ranges(project: dict) -> dict[str, SpecifierSet]:
    """Every dependency of the project and its extras: name -> allowed versions."""
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines.extend(extra)
    ranges: dict[str, SpecifierSet] = {}
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name != project["name"]:
            ranges[name] = ranges.get(name, SpecifierSet()) & requirement.specifier
    return ranges


def requirement_lines(path: Path) -> Iterator[str]:
    """The lines of a requirements file without comments and blanks."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            yield text


def check_constraints(folder: Path, project: dict) -> Iterator[str]:
    """One sentence for each constraint that pyproject.toml does not allow."""
    allowed = declared_ranges(project)
    for line in requirement_lines(folder / CONSTRAINTS):
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        pins = list(requirement.specifier)
        if name in NEVER_PINNED:
            yield f"{CONSTRAINTS} pins {name}, which must stay unpinned."
        elif name not in allowed:
            yield f"{CONSTRAINTS} pins {name}, which pyproject.toml does not declare."
        elif len(pins) != 1 or pins[0].operator != "==" or "*" in pins[0].version:
            yield f"{CONSTRAINTS} says {line!r}; write one exact version, {name}==X.Y.Z."
        elif not allowed[name].contains(pins[0].version, prereleases=True):
            yield (
                f"{CONSTRAINTS} pins {name} {pins[0].version}, "
                f"but pyproject.toml allows {allowed[name]}."
            )


def check_python(environment: dict, project: dict) -> Iterator[str]:
    """A sentence if environment.yml has no Python, or one that the project does not take."""
    required = project["requires-python"]
    pinned = [
        entry.split("=")[-1]
        for entry in environment["dependencies"]
        if isinstance(entry, str) and entry.startswith("python=")
    ]
    if not pinned:
        yield "environment.yml names no Python version; write python=X.Y."
    elif not SpecifierSet(required).contains(pinned[0]):
        yield f"environment.yml has Python {pinned[0]}, but pyproject.toml requires {required}."


def installed_extras(command: str) -> set[str]:
    """The extras in the `-e .[EXTRAS]` of a pip command; none without it."""
    target = re.search(r"-e [\"']?\.\[([\w,]+)\]", command)
    return set(target[1].split(",")) if target else set()


def check_installs(folder: Path, environment: dict, project: dict) -> Iterator[str]:
    """One sentence for each way in which environment.yml and Makefile install otherwise."""
    for_pip = [
        line
        for entry in environment["dependencies"]
        if isinstance(entry, dict)
        for line in entry.get("pip", [])
    ]
    by_conda = " ".join(for_pip)
    makefile = (folder / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in makefile if "pip install" in line and " -e " in line]
    by_make = installs[0] if installs else ""
    constrained = f"-c {CONSTRAINTS}"
    if constrained not in by_make or not installed_extras(by_make):
        yield f"Makefile has no `pip install {constrained} -e .[EXTRAS]` line."
    if constrained not in by_conda:
        yield f"environment.yml does not pass {constrained} to pip."
    if installed_extras(by_conda) != installed_extras(by_make):
        yield (
            f"environment.yml installs extras {sorted(installed_extras(by_conda))}, "
            f"Makefile {sorted(installed_extras(by_make))}."
        )
    installed = installed_extras(by_conda) | installed_extras(by_make)
    for extra in sorted(installed - set(project["optional-dependencies"])):
        yield f"The extra {extra!r} is installed, but pyproject.toml does not define it."


def check_version(folder: Path, project: dict) -> Iterator[str]:
    """One sentence for each file that does not know the project's version or licence."""
    version = project["version"]
    citation = yaml.safe_load((folder / "CITATION.cff").read_text(encoding="utf-8"))
    for key in ("version", "license"):
        if str(citation.get(key)) != project[key]:
            yield f"CITATION.cff has {key} {citation.get(key)}, pyproject.toml {project[key]}."
    package = (folder / "gumlab" / "__init__.py").read_text(encoding="utf-8")
    if f'\n__version__ = "{version}"\n' not in package:
        yield f"gumlab/__init__.py has not pyproject.toml's version, {version}."
    changelog = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)}\b", changelog, re.MULTILINE):
        yield f"CHANGELOG.md has no heading `## {version}`, which is pyproject.toml's version."


def mismatches(folder: Path) -> Iterator[str]:
    """One sentence for each disagreement of the files in `folder`."""
    settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    environment = yaml.safe_load((folder / "environment.yml").read_text(encoding="utf-8"))
    yield from check_constraints(folder, project)
    yield from check_python(environment, project)
    yield from check_installs(folder, environment, project)
    yield from check_version(folder, project)


def main(folder: Path) -> int:
    """Print one sentence per mismatch; 1 if there is any."""
    sentences = list(mismatches(folder))
    print("\n".join(sentences) or "The project's files are in step.")
    return int(bool(sentences))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])))
