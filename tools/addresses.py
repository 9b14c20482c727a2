"""Write the repository's address wherever it is needed; --check only compares.

Usage: python tools/addresses.py [--check]
The address stands once, as `Repository` in the table `project.urls` of pyproject.toml. From it come
the badges and the install cell of every notebook, README's badges and links, and CITATION.cff's
`repository-code`. While it is unset there are none of them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from update_readme import filled, repository_of

from gumlab.course.addresses import write_badges, write_install_cell
from gumlab.errors import GumlabError

ROOT = Path(__file__).resolve().parents[1]


def notebook_text(path: Path, repository: str | None) -> str:
    """A notebook's file with the badges and the install cell that belong there.

    It stays in the normal form of tools/run_notebooks.py.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    write_badges(notebook, repository, f"notebooks/{path.name}")
    write_install_cell(notebook, repository)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def citation_text(text: str, repository: str | None) -> str:
    """CITATION.cff with the line that says where the code is, below its licence."""
    text = re.sub(r"^repository-code:.*\n", "", text, flags=re.MULTILINE)
    if repository is None:
        return text
    line = f'repository-code: "{repository}"'
    return re.sub(r"^license:.*$", rf"\g<0>\n{line}", text, flags=re.MULTILINE)


def wanted_texts(root: Path) -> dict[Path, str]:
    """Every file in which the address can stand -> the text that it should have."""
    repository = repository_of(root)
    citation = root / "CITATION.cff"
    readme = root / "README.md"
    wanted = {
        citation: citation_text(citation.read_text(encoding="utf-8"), repository),
        readme: filled(readme.read_text(encoding="utf-8"), root),
    }
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        wanted[path] = notebook_text(path, repository)
    return wanted


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check; 1 if a file differs under --check, or if the address is none."""
    try:
        wanted = wanted_texts(root)
    except GumlabError as error:
        print(f"pyproject.toml, project.urls: {error}", file=sys.stderr)
        return 1
    stale = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(
                f"{path.relative_to(root)} does not bear pyproject.toml's address (or bears one "
                "that is not there): run python tools/addresses.py.",
                file=sys.stderr,
            )
        return int(bool(stale))
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
        print(f"{path.relative_to(root)}: written.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
