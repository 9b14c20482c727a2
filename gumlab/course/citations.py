"""What a student's copy says of files that lie in gumlab's repository and nowhere else.

A student has the installed package and the folder of copies. So a file of the repository becomes
a web address, where the repository has one, and else words that say where it lies.
"""

from __future__ import annotations

import re

from gumlab.course.addresses import BRANCH

FOLDERS = ("benchmarks", "docs", "results", "tests", "tools")  # not in the package
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "TEACHING.md")
WHERE = "in gumlab's repository"
_PATH = rf"(?:\.\./)*((?:{'|'.join(FOLDERS)})/[\w./*#-]*|(?:{'|'.join(map(re.escape, PAGES))}))"
_LINK = re.compile(rf"\[([^\]]*)\]\({_PATH}\)")
_CODE = re.compile(rf"(?<!\[)`(?:[^`\n]*\s)?{_PATH}[^`\n]*`")
CITATION = re.compile(rf"{_LINK.pattern}|{_CODE.pattern}")


def without_citations(text: str, repository: str | None = None) -> str:
    """Rewrite the names of the repository's files in a Markdown text.

    Parameters
    ----------
    text : str
        Markdown, with links to files of the repository or their names in backticks.
    repository : str, optional
        The address of the repository on GitHub; None for words instead of addresses.

    Returns
    -------
    str
        The text, in which each such file is a web address, or said to be in the repository.
    """
    if repository is None:
        text = _LINK.sub(rf"\1 (`\2` {WHERE})", text)
        return _CODE.sub(_with_words, text)
    root = repository.removesuffix("/").removesuffix(".git")
    text = _LINK.sub(lambda found: f"[{found[1]}]({_address(root, found[2])})", text)
    return _CODE.sub(lambda found: f"[{found[0]}]({_address(root, found[1])})", text)


def _with_words(found: re.Match) -> str:
    """A name in backticks, and where it lies, unless that is said."""
    is_said = found.string.startswith(f" {WHERE}", found.end())
    return found[0] if is_said else f"{found[0]} {WHERE}"


def _address(root: str, path: str) -> str:
    """The web address of a file, or of the folder of files with a * in their name."""
    if "*" in path:
        path = path.rpartition("/")[0] + "/"
    kind = "tree" if path.endswith("/") else "blob"
    return f"{root}/{kind}/{BRANCH}/{path}"
