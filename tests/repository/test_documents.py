"""What the repository's texts name is there: files, headings, commands, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "TEACHING.md", "results/README.md")
PACKAGE = ROOT / "gumlab"
by_name = pytest.mark.parametrize("name", DOCUMENTS)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {word.replace(" ", "-") for word in words}


@by_name
def test_links_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(name)):
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@by_name
def test_files_that_are_named_exist(name):
    roots = "gumlab|tools|tests|benchmarks|docs|notebooks|results"
    for path in re.findall(rf"`(?:python )?((?:{roots})/[\w./]+)", read(name)):
        assert (ROOT / path).exists(), path


@by_name
def test_every_make_target_that_is_named_exists(name):
    targets = set(re.findall(r"^([\w./-]+):", read("Makefile"), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([\w./]+)", read(name), re.MULTILINE)
    assert [target for target in named if target not in targets] == []


def test_the_drawing_shows_every_module_and_room_of_the_house():
    drawing = re.search(r"```text\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)[1]
    floor = r"^\| (?:[a-z]+ +| {10})([a-z]+)  "
    modules = re.findall(floor, drawing, re.MULTILINE)
    assert sorted(modules) == sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem[0] != "_")
    rooms = re.findall(r"(\w+)/ ", drawing)
    assert sorted(rooms) == sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


def test_the_modules_that_moved_are_where_the_changes_say():
    rows = re.findall(r"^\| (`gumlab.*?) \| (.*?) \|$", read("CHANGELOG.md"), re.MULTILINE)
    assert len(rows) > 10
    for _, now in rows:
        for module in re.findall(r"`gumlab\.([\w.]+)`", now):
            path = PACKAGE / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or path.is_dir(), module


def test_readme_says_how_many_notebooks_there_are():
    counts = {13: "thirteen", 14: "fourteen", 15: "fifteen", 16: "sixteen"}
    course = len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert f"{counts[course]} notebooks" in read("README.md")
