"""Where a notebook opens on the web: its badges and its install cell, made from one address.

Without an address a notebook has neither. `tools/addresses.py` writes them into this repository's
notebooks, `gumlab release --repository URL` into the copies for a class.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from gumlab.errors import GumlabError

COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
BRANCH = "main"  # Colab's links need a branch

ON_COLAB = '"google.colab" in sys.modules'  # tells the install cell from all others
INSTALL = f"""\
# Only Google Colab needs this cell; elsewhere gumlab is installed already.
import sys

if {ON_COLAB}:
    %pip install -q "gumlab @ git+{{repository}}"\
"""
NEVER_RUN = ["nbval-skip", "skip-execution"]

_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
BADGES = re.compile(r"^(?:\[!\[Open in .*\n)+\n*", re.MULTILINE)


def links(repository: str, path: str) -> dict[str, str]:
    """Where a notebook of a repository can be run: name of the place -> address.

    Parameters
    ----------
    repository : str
        `https://github.com/` and the repository's two names.
    path : str
        The notebook's path inside the repository, with forward slashes.

    Returns
    -------
    dict of str to str
        The addresses at Colab and at Binder.

    Raises
    ------
    GumlabError
        If `repository` is no repository on GitHub; both places open only those in this way.
    """
    found = _GITHUB.fullmatch(repository)
    if found is None:
        raise GumlabError(
            f"{repository!r} is not the address of a repository on GitHub, and Colab and Binder "
            "open only those; write https://github.com/, the owner, a slash and the name."
        )
    names = found[1]
    return {
        "Colab": f"{COLAB}/github/{names}/blob/{BRANCH}/{quote(path)}",
        "Binder": f"{BINDER}/v2/gh/{names}/HEAD?labpath={quote(path, safe='')}",
    }


def badges(repository: str, path: str) -> str:
    """The two badges that open a notebook, one Markdown line each; arguments as in `links`."""
    address = links(repository, path)
    return (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({address['Colab']})\n"
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({address['Binder']})\n"
    )


def write_badges(notebook: dict, repository: str | None, path: str) -> None:
    """Put the badges at the top of a notebook's first cell, in place; None takes them away.

    Parameters
    ----------
    notebook : dict
        The notebook's JSON, or nbformat's object.
    repository : str or None
        As in `links`.
    path : str
        As in `links`.
    """
    cells = notebook["cells"]
    if not cells or cells[0]["cell_type"] != "markdown":
        cells.insert(0, {"cell_type": "markdown", "metadata": {}, "source": ""})
    text = BADGES.sub("", "".join(cells[0]["source"]))
    if repository is not None:
        text = f"{badges(repository, path)}\n{text}"
    cells[0]["source"] = text


def write_install_cell(notebook: dict, repository: str | None) -> None:
    """Put the cell that installs gumlab on Colab before all other code, in place; None: no cell.

    A notebook without code gets none. The cells' ids are numbered anew, as everywhere in this
    course.

    Parameters
    ----------
    notebook : dict
        The notebook's JSON, or nbformat's object.
    repository : str or None
        What pip installs from: the address of a repository that holds gumlab.
    """
    cells = [cell for cell in notebook["cells"] if ON_COLAB not in "".join(cell["source"])]
    kinds = [cell["cell_type"] for cell in cells]
    if repository is not None and "code" in kinds:
        install: dict[str, Any] = {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {"tags": list(NEVER_RUN)},
            "outputs": [],
            "source": INSTALL.format(repository=repository),
        }
        cells.insert(kinds.index("code"), install)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
    notebook["cells"] = cells
