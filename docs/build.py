"""Build the site: `python docs/build.py build/site`, or `make docs`. It needs no network.

The pages of docs/, the notebooks, the results and the project's own texts are laid side by side in
one folder of sources, as they lie in the repository, so that the links between them hold. Sphinx
builds the site from there, and a warning is an error.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from gumlab.course.plots.drawings import neuron

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TEXTS = ("TEACHING.md", "CONTRIBUTING.md", "CHANGELOG.md")
PICTURES = {"image/png", "image/svg+xml"}
BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?:[^)]*\)\]\(([^)]*)\)\n*")  # its picture is elsewhere


def lay_out(sources: Path) -> None:
    """Write everything the site is made of to a new folder `sources`."""
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(DOCS, sources, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    shutil.copytree(ROOT / "results", sources / "results")
    neuron("whole").save(sources / "neuron.svg")
    for page in (sources / "results").glob("*.md"):
        page.write_text(unbroken(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in TEXTS:
        shutil.copy2(ROOT / name, sources)
    (sources / "notebooks" / "download").mkdir(parents=True)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy2(notebook, sources / "notebooks" / "download")
        page = as_page(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        text = json.dumps(page, ensure_ascii=False)
        (sources / "notebooks" / notebook.name).write_text(text, encoding="utf-8")


def unbroken(text: str) -> str:
    """The text with signs that keep a number and its spread in one line: 1.09e-03 +- 1.5e-05."""
    text = re.sub(r"(?<=\de)-(?=\d)", "-\u2060", text)
    return text.replace(" +- ", "\u00a0±\u00a0").replace("+-", "±")


def as_page(notebook: dict, name: str) -> dict:
    """A notebook as the site shows it: links for badges, and alternative texts for pictures."""
    cells = notebook["cells"]
    opening = "".join(cells[0]["source"])
    links = [f"[{text}]({address})" for text, address in BADGE.findall(opening)]
    cells[0]["source"] = BADGE.sub("", opening).lstrip()
    links.append(f"{{download}}`Download this notebook <download/{name}>`")
    under = {"cell_type": "markdown", "id": "links", "metadata": {}, "source": " · ".join(links)}
    cells.insert(1, under)
    notebook["cells"] = [part for cell in cells for part in with_one_picture(cell)]
    return notebook


def with_one_picture(cell: dict) -> list[dict]:
    """A cell as cells of one picture each, whose alternative text is what the picture says."""
    parts = [cell | {"outputs": []}] if "outputs" in cell else [cell]
    for output in cell.get("outputs", []):
        if PICTURES & output.get("data", {}).keys():
            if "mystnb" in parts[-1]["metadata"]:  # it has a picture
                name = f"{cell['id']}-{len(parts)}"
                hidden = {"tags": ["remove-input"]}
                parts.append(cell | {"id": name, "metadata": hidden, "outputs": []})
            sentence = "".join(output["data"]["text/plain"])
            parts[-1]["metadata"] |= {"mystnb": {"image": {"alt": sentence}}}
        parts[-1]["outputs"].append(output)
    return parts


def main(site: Path) -> int:
    """Build the site into the folder `site`; the exit status is Sphinx's."""
    site = site.absolute()
    sources = site.with_name(f"{site.name}-sources")
    lay_out(sources)
    shutil.rmtree(site, ignore_errors=True)
    doctrees = str(sources / ".doctrees")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--jobs=2"]
    return build_main([*options, f"--conf-dir={DOCS}", "-d", doctrees, str(sources), str(site)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
