"""The drawings of a neuron: well-formed, described, and every text where it is read."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from helpers import ROOT
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

import gumlab as gl
from gumlab import GumlabError
from gumlab.course.plots.drawings import KINDS

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
    shown, _ = drawing._repr_mimebundle_()
    assert shown == {"image/svg+xml": drawing.svg, "text/plain": drawing.sentence}
    assert repr(drawing) == f"Drawing({drawing.sentence})"


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
