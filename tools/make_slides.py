"""Slides for the 90-minute class, made from the notebooks: one HTML file that needs nothing else.

    python tools/make_slides.py [build/slides.html]

A slide is a heading of a notebook, the first paragraphs below it, and what some of its code cells
show. `SLIDES` lists them in the order of TEACHING.md's plan. Arrow keys, space and a swipe turn the
page; the browser prints a slide a page.
"""

from __future__ import annotations

import base64
import html
import io
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.mathtext
import mistune
import nbformat

ROOT = Path(__file__).parents[1]
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
DIFFICULTY = re.compile(r"^Difficulty [^.]*\. ")


class Slide(NamedTuple):
    """A heading (its words, without a number), how much text below it, and cells by their code."""

    notebook: str
    heading: str
    paragraphs: int = 1
    shows: tuple[str, ...] = ()


ALL = 99
DPI = 200
EM = 10 / 72 * DPI  # dots of matplotlib's font of 10 points
SLIDES = (
    Slide("00", "How many of a language model's neurons can you remove", 1),
    Slide("00", "Predict", ALL),
    Slide("00", "Watch a sentence break", 1, ("explorer",)),
    Slide("00", "What is a neuron?", 0, ('gl.plots.neuron("whole")',)),
    Slide("00", "who stays?", 1, ('gl.plots.neuron("mask")',)),
    Slide("02", "Predict", ALL),
    Slide("02", "put the mask in the right place", 2, ('gl.plots.neuron("masked")',)),
    Slide("02", "cut a plain block", 1, ('gl.plots.neuron("cut")',)),
    Slide("03", "Predict", ALL),
    Slide("03", "The cut alone", 1, ("bench.plot_curves",)),
    Slide("03", "And on a real language model?", 1, ("gl.plots.keep_curves",)),
    Slide("07", "Predict", ALL, ('gl.plots.neuron("twins")',)),
    Slide("07", "how alike are two?", 2, ('gl.plots.neuron("gram")',)),
    Slide("08", "Predict", 2, ('gl.plots.neuron("gum")',)),
    Slide("08", "a control that takes away one thing", 1, ("race.plot()",)),
    Slide("13", "Predict", ALL),
    Slide("13", "your score", 2),
)
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
img.formula { max-height: none; }
img.display { display: block; margin: 0.5em 0; }
table { border-collapse: collapse; font-size: 0.8em; }
th, td { border: 1px solid var(--line); padding: 0.2em 0.6em; text-align: left; }
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
    known = tex.replace(r"\lVert", r"\|").replace(r"\rVert", r"\|")  # in matplotlib's dialect
    below = matplotlib.mathtext.math_to_image(
        f"${' '.join(known.split())}$", drawn, dpi=DPI, format="png"
    )
    height = int.from_bytes(drawn.getvalue()[20:24], "big")  # of a PNG, in dots
    size = f"height: {height / EM:.2f}em; vertical-align: {-below / EM:.2f}em"
    image = base64.b64encode(drawn.getvalue()).decode()
    kind = "formula display" if display else "formula"
    return (
        f'<img class="{kind}" style="{size}" alt="{html.escape(tex)}" '
        f'src="data:image/png;base64,{image}">'
    )


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
        if "text/html" in data:
            parts.append(f"<div>{''.join(data['text/html'])}</div>")
        elif "image/png" in data:
            told = html.escape("".join(data.get("text/plain", "")))
            image = "".join(data["image/png"]).replace("\n", "")
            parts.append(f'<img alt="{told}" src="data:image/png;base64,{image}">')
    return parts


def paragraphs_below(source: str, heading: str, count: int) -> tuple[str, str] | None:
    """A heading as it stands in a cell, without its number, and the paragraphs below it."""
    pattern = rf"(?m)^#+ (?:\d+[.·]? ?(?:· )?)?(.*{re.escape(heading)}.*)$"
    found = re.search(pattern, source)
    if found is None:
        return None
    below = re.split(r"(?m)^(?:#|<details>|\*\*You )", source[found.end() :])[0].strip()
    title = re.sub(r"^Exercise \d+: ", "", found[1])
    text = "\n\n".join(below.split("\n\n")[:count])
    return title[0].upper() + title[1:], DIFFICULTY.sub("", text)


def made(slide: Slide, folder: Path) -> str:
    """The HTML inside a slide's section."""
    (path,) = folder.glob(f"{slide.notebook}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    found = [
        part for text in texts if (part := paragraphs_below(text, slide.heading, slide.paragraphs))
    ]
    if not found:
        sys.exit(f"{path.name} has no heading with {slide.heading!r}: edit SLIDES.")
    title, text = found[0]
    parts = [as_html(f"## {title}\n\n{text}")]
    for code in slide.shows:
        pictures = [
            picture
            for cell in cells
            if cell.cell_type == "code" and code in cell.source
            for picture in shown(cell)
        ]
        if not pictures:
            sys.exit(f"No cell of {path.name} with {code!r} shows a picture: edit SLIDES.")
        parts.append(pictures[0])
    return "".join([*parts, f"<footer>Notebook {path.stem.replace('_', ' ')}</footer>"])


def deck(folder: Path = ROOT / "notebooks") -> str:
    """The whole page."""
    sections = "\n".join(f"<section>{made(slide, folder)}</section>" for slide in SLIDES)
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
