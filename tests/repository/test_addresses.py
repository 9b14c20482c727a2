"""The repository's address stands once; what is made from it comes, and goes, with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import addresses
import nbformat
import pytest
import run_notebooks
from helpers import ROOT

from gumlab.course.addresses import ON_COLAB, badges, links, write_badges, write_install_cell
from gumlab.errors import GumlabError

ADDRESS = "https://github.com/somebody/gumlab-2"
COPIED = (
    *("pyproject.toml", "CITATION.cff", "README.md", "results", "notebooks"),
    *(f"gumlab/assets/{name}.csv" for name in ("study", "real_study", "real_one_shot")),
)


def set_address(folder: Path, address: str | None) -> None:
    path = folder / "pyproject.toml"
    kept, *_ = path.read_text(encoding="utf-8").split("\n[project.urls]\n")
    table = f'\n[project.urls]\nRepository = "{address}"\n' if address else ""
    path.write_text(kept + table, encoding="utf-8")


def texts(folder: Path) -> dict[str, str]:
    """Everything in which an address can stand."""
    paths = [folder / "CITATION.cff", folder / "README.md", *folder.glob("notebooks/*.ipynb")]
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture
def house(tmp_path) -> Path:
    """A copy of the files that the command reads and writes; its address is unset."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    set_address(tmp_path, None)
    assert addresses.main([], tmp_path) == 0
    return tmp_path


def test_the_project_bears_its_own_address_and_no_other(capsys):
    assert addresses.main(["--check"]) == 0, capsys.readouterr().err


def test_without_an_address_there_is_none(house):
    for name, text in texts(house).items():
        for word in ("colab", "mybinder", "github.com", "repository-code"):
            assert word not in text, name


def test_an_address_is_written_everywhere_and_taken_back(house, capsys):
    before = texts(house)
    set_address(house, ADDRESS)
    assert addresses.main(["--check"], house) == 1
    assert len(capsys.readouterr().err.splitlines()) == len(before)
    assert addresses.main([], house) == 0
    assert addresses.main(["--check"], house) == 0
    after = texts(house)
    assert f'\nrepository-code: "{ADDRESS}"\n' in after["CITATION.cff"]
    assert badges(ADDRESS, "notebooks/00_start_here.ipynb") in after["README.md"]
    for name, text in after.items():
        assert "somebody/gumlab-2" in text, name
        if name.endswith(".ipynb"):
            assert links(ADDRESS, name)["Binder"] in after["README.md"]
            first, *others = nbformat.reads(text, as_version=4).cells
            assert first.source.startswith(badges(ADDRESS, name) + "\n# ")
            install = next(cell for cell in others if cell.cell_type == "code")
            assert f'%pip install -q "gumlab @ git+{ADDRESS}"' in install.source
            assert ON_COLAB in install.source
    set_address(house, None)
    assert addresses.main([], house) == 0
    assert texts(house) == before


def test_an_address_leaves_fresh_notebooks_fresh(house):
    paths = sorted(house.glob("notebooks/*.ipynb"))
    before = {path: run_notebooks.problems(path) for path in paths}
    set_address(house, ADDRESS)
    addresses.main([], house)
    assert {path: run_notebooks.problems(path) for path in paths} == before


@pytest.mark.parametrize("address", [ADDRESS, f"{ADDRESS}/", f"{ADDRESS}.git"])
def test_links_are_colabs_and_binders(address):
    assert links(address, "my class/a.ipynb") == {
        "Colab": "https://colab.research.google.com/github/somebody/gumlab-2/blob/main/"
        "my%20class/a.ipynb",
        "Binder": "https://mybinder.org/v2/gh/somebody/gumlab-2/HEAD?labpath=my%20class%2Fa.ipynb",
    }


@pytest.mark.parametrize(
    "address", ["https://example.org/a/b", "https://github.com/a", "github.com/a/b", "", "a b"]
)
def test_what_is_no_repository_on_github_is_refused_by_its_name(address, house, capsys):
    with pytest.raises(GumlabError, match=r"open only those; write https://github\.com/") as error:
        links(address, "a.ipynb")
    assert repr(address) in str(error.value)
    if address:
        before = texts(house)
        set_address(house, address)
        assert addresses.main([], house) == 1
        assert repr(address) in capsys.readouterr().err
        assert texts(house) == before


def test_another_address_replaces_the_first_one():
    cells = [("markdown", ["# 00\n", "text"]), ("markdown", "more"), ("code", "1")]
    notebook = {"cells": [{"cell_type": kind, "source": text} for kind, text in cells]}
    plain = json.dumps(notebook)
    for address in (ADDRESS, "https://github.com/other/name"):
        write_badges(notebook, address, "a.ipynb")
        write_install_cell(notebook, address)
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-0{n}" for n in range(4)]
    text = json.dumps(notebook)
    assert "somebody" not in text
    assert text.count("other/name") == 3
    write_badges(notebook, None, "a.ipynb")
    write_install_cell(notebook, None)
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert sources == ["".join(cell["source"]) for cell in json.loads(plain)["cells"]]
