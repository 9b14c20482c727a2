"""Slides for the 90-minute class, made from the notebooks: one HTML file that needs nothing else.

    python tools/make_slides.py [build/slides.html]

A slide is what a notebook's text has between `<!-- slide -->` and `<!-- end slide -->`, which no
reader of the notebook sees, and below it the pictures and tables of the code cells up to the next
text cell, where they have the tag `slide`. The notebooks and their order are those of
TEACHING.md's plan. Arrow keys, space and a swipe turn the page; the browser prints a slide a page.
"""

from __future__ import annotations

import base64
import html
import io
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.mathtext
import mistune
import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = (
    "00_start_here",
    "02_mask_or_remove",
    "03_random_the_honest_baseline",
    "07_sensitivity_and_uniqueness",
    "08_gum",
    "13_your_own_score",
)
PART = re.compile(r"<!-- slide -->(.*?)<!-- end slide -->", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
TAG = "slide"
STYLE = """
:root { color-scheme: light; --ink: #1b1b1b; --line: #d0d0d0; }
html { scroll-snap-type: y mandatory; }
body { margin: 0; font: 1.5rem/1.45 system-ui, sans-serif; color: var(--ink); background: #fff; }
section { box-sizing: border-box; min-height: 100vh; padding: 4vh 7vw; scroll-snap-align: start;
  display: flex; flex-direction: column; justify-content: center; gap: 1.2rem;
  border-bottom: 1px solid var(--line); }
section > * { margin: 0; max-width: 62rem; }
h1, h2, h3 { line-height: 1.2; }
img, svg { max-width: 100%; max-height: 62vh; height: auto; }
img.formula { max-height: none; height: 1.5em; vertical-align: -0.4em; }
img.display { height: 3.2em; }
table { border-collapse: collapse; font-size: 0.8em; }
th, td { border: 1px solid var(--line); padding: 0.2em 0.6em; text-align: right; }
pre { font-size: 0.75em; white-space: pre-wrap; }
footer { font-size: 0.9rem; color: #595959; }
@media (max-width: 40rem) { body { font-size: 1.1rem; } section { padding: 3vh 5vw; } }
@media print { section { page-break-after: always; border: 0; } }
"""
SCRIPT = """
const slides = [...document.querySelectorAll("section")];
const now = () => slides.findIndex((s) => s.getBoundingClientRect().bottom > innerHeight / 2);
addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1,
    ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  slides[Math.min(slides.length - 1, Math.max(0, now() + step))].scrollIntoView();
});
"""


def formula(tex: str, display: bool) -> str:
    """A formula as a picture within the page, with its source for those who do not see it."""
    drawn = io.BytesIO()
    matplotlib.mathtext.math_to_image(f"${tex.strip()}$", drawn, dpi=200, format="png")
    image = base64.b64encode(drawn.getvalue()).decode()
    kind = "formula display" if display else "formula"
    return f'<img class="{kind}" alt="{html.escape(tex)}" src="data:image/png;base64,{image}">'


def as_html(text: str) -> str:
    """Markdown with formulas as HTML."""
    pictures: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        display, inline = found.groups()
        pictures.append(formula(display or inline, display is not None))
        return f"@@{len(pictures) - 1}@@"

    renderer = mistune.create_markdown(plugins=["table"])
    page = renderer(FORMULA.sub(put_aside, text))
    return re.sub(r"@@(\d+)@@", lambda found: pictures[int(found[1])], page)


def shown(cell: Any) -> list[str]:
    """The pictures and tables that a code cell shows."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/svg+xml" in data:
            parts.append("".join(data["image/svg+xml"]))
        elif "image/png" in data:
            told = html.escape("".join(data.get("text/plain", "")))
            image = "".join(data["image/png"]).replace("\n", "")
            parts.append(f'<img alt="{told}" src="data:image/png;base64,{image}">')
        elif "text/html" in data:
            parts.append(f"<div>{''.join(data['text/html'])}</div>")
    return parts


def slides_of(path: Path) -> list[str]:
    """The slides of one notebook, as the HTML inside a section."""
    slides: list[list[str]] = []
    takes_pictures = False
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts = PART.findall(cell.source)
            slides += [[as_html(part.strip())] for part in parts]
            takes_pictures = bool(parts)
        elif takes_pictures and TAG in cell.metadata.get("tags", []):
            slides[-1] += shown(cell)
    name = path.stem.replace("_", " ")
    return ["".join([*slide, f"<footer>Notebook {name}</footer>"]) for slide in slides]


def deck(folder: Path = ROOT / "notebooks") -> str:
    """The whole page."""
    slides = [slide for name in NOTEBOOKS for slide in slides_of(folder / f"{name}.ipynb")]
    if not slides:
        sys.exit(
            f"No notebook in {folder} has a part between <!-- slide --> and <!-- end slide -->."
        )
    sections = "\n".join(f"<section>{slide}</section>" for slide in slides)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What matters in pruning: 90 minutes</title><style>{STYLE}</style></head>\n"
        f"<body>{sections}<script>{SCRIPT}</script></body></html>\n"
    )


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "slides.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    page = deck()
    target.write_text(page, encoding="utf-8")
    print(f"{target}: {page.count('<section>')} slides, {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
