"""The drawings of a neuron: well-formed, described, and every text where it is read."""

from __future__ import annotations

import io
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import ROOT
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from PIL import Image

import gumlab as gl
from gumlab import GumlabError
from gumlab.course.plots.drawings import KINDS
from gumlab.course.plots.pixels import png_of

SVG = "{http://www.w3.org/2000/svg}"
ROOM = 6  # between a text and the edge of the card


def parsed(kind):
    return ElementTree.fromstring(gl.plots.neuron(kind).svg)


def extent(text):
    """The box of a text, in the wide letters of DejaVu Sans."""
    content = "".join(text.itertext())
    width = TextPath((0, 0), content, size=float(text.get("font-size", 16))).get_extents().width
    anchor = {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
    left = float(text.get("x")) - anchor * width
    return Bbox.from_bounds(left, float(text.get("y")) - 12, width, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawing_is_well_formed_and_says_what_it_shows(kind):
    drawing = gl.plots.neuron(kind)
    svg = parsed(kind)
    assert svg.tag == f"{SVG}svg"
    assert svg.get("role") == "img"
    assert svg[0].tag == f"{SVG}title"
    assert svg[0].text
    assert svg[1].tag == f"{SVG}desc"
    assert svg[1].text == drawing.sentence
    shown, look = drawing._repr_mimebundle_()
    assert set(shown) == {"image/png", "text/plain"}  # an untrusted notebook shows both
    assert shown["text/plain"] == drawing.sentence
    assert look["image/png"] == {"alt": drawing.sentence, "width": 640}
    assert repr(drawing) == f"Drawing({drawing.sentence})"


SHAPES = (  # on white, in a graphic of 100 x 40: a shape, a point of its line or area, one beside
    ('<rect x="10" y="10" width="20" height="20" fill="#FF0000"/>', (20, 20), (40, 20)),
    ('<circle cx="20" cy="20" r="8" fill="none" stroke="#FF0000" stroke-width="4"/>', (12, 20),
     (20, 20)),
    ('<line x1="0" y1="20" x2="60" y2="20" stroke="#FF0000" stroke-width="4"/>',
     (30, 20), (70, 20)),
    ('<path d="M10 5h40M10 30v8M60 5L90 35" stroke="#FF0000" stroke-width="4" fill="none"/>',
     (75, 20), (10, 20)),
    ('<polygon points="10,5 30,5 20,35" fill="#FF0000"/>', (20, 15), (28, 30)),
    ('<polyline points="10,20 50,20 50,38" fill="none" stroke="#FF0000" stroke-width="4"/>',
     (50, 30), (30, 30)),
    ('<text x="10" y="38" font-size="60" fill="#FF0000" text-anchor="start">█</text>', (20, 20),
     (95, 20)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "on", "beside"), SHAPES, ids=[re.match(r"<(\w+)", shape)[1] for shape, *_ in SHAPES]
)
def test_the_picture_has_each_shape_where_the_graphic_has_it(shape, on, beside):
    card = '<rect x="0" y="0" width="100" height="40" fill="#FFFFFF"/>'
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 40" fill="#000000" '
        f'font-size="16">{card}{shape}</svg>'
    )
    picture = Image.open(io.BytesIO(png_of(svg, scale=2))).convert("RGB")
    assert picture.size == (200, 80)
    colours = [picture.getpixel((2 * x, 2 * y)) for x, y in (on, beside)]
    red, white = (255, 0, 0), (255, 255, 255)
    assert np.abs(np.subtract(colours, (red, white))).max() <= 16  # it has few colours


def test_a_lower_letter_and_dashes_are_drawn_and_the_picture_is_small():
    svg = gl.plots.neuron("masked").svg
    pictures = {png_of(svg), png_of(svg.replace(' dy="4"', ' dy="0"'))}
    pictures.add(png_of(re.sub(r' stroke-dasharray="[^"]*"', "", svg)))
    assert len(pictures) == 3
    assert max(map(len, pictures)) < 60_000


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_is_large_enough_inside_the_card_and_beside_the_others(kind):
    svg = parsed(kind)
    _, _, width, height = map(float, svg.get("viewBox").split())
    assert width == 640
    sizes = [float(part.get("font-size")) for part in svg.iter() if part.get("font-size")]
    assert min(sizes) >= 12
    boxes = [("".join(text.itertext()), extent(text)) for text in svg.iter(f"{SVG}text")]
    for text, box in boxes:
        assert box.x0 >= ROOM, text
        assert box.x1 <= width - ROOM, text
        assert box.y0 >= ROOM, text
        assert box.y1 <= height - ROOM, text
    for (one, box), (other, its_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(its_box), (one, other)


def test_a_drawing_is_saved_as_a_file_that_a_browser_reads(tmp_path):
    drawing = gl.plots.neuron("masked")
    drawing.save(tmp_path / "masked.svg")
    tree = ElementTree.parse(tmp_path / "masked.svg")
    assert tree.getroot()[1].text == drawing.sentence


def test_each_kind_is_a_drawing_of_its_own():
    drawings = [gl.plots.neuron(kind) for kind in KINDS]
    assert len({drawing.svg for drawing in drawings}) == len(KINDS)
    assert len({drawing.sentence for drawing in drawings}) == len(KINDS)
    assert gl.plots.neuron().svg == gl.plots.neuron("whole").svg


def test_an_unknown_kind_is_told_all_kinds():
    with pytest.raises(GumlabError, match=r"Unknown kind 'maskd'\. Did you mean 'masked'") as told:
        gl.plots.neuron("maskd")
    assert all(kind in str(told.value) for kind in KINDS)


def test_the_drawing_of_teaching_is_what_the_code_makes():
    stored = (ROOT / "results" / "neuron.svg").read_text(encoding="utf-8")
    assert stored.strip() == gl.plots.neuron("whole").svg.strip()
    assert "results/neuron.svg" in (ROOT / "TEACHING.md").read_text(encoding="utf-8")
