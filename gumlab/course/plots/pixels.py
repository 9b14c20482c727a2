"""A drawing's vector graphic as a picture: some pages show no SVG, such as untrusted notebooks.

matplotlib draws the few kinds of shape that the drawings are made of; nothing else is needed.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path

POINTS = 0.72  # of one pixel, at 100 pixels an inch
ANCHORS = {"start": "left", "middle": "center", "end": "right"}


@functools.lru_cache(maxsize=64)  # a page shows the same drawing again and again
def png_of(svg: str, scale: float = 1.5) -> bytes:
    """Draw a graphic of rect, circle, line, path, polygon, polyline and text.

    Parameters
    ----------
    svg : str
        One `<svg>` element with a viewBox, as `drawings.neuron` makes it. A path has the commands
        M, L, h and v.
    scale : float, default 1.5
        How many pixels of the picture one of the graphic becomes.

    Returns
    -------
    bytes
        The picture as a PNG file's bytes, in at most 96 colours.
    """
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    figure = Figure(figsize=(width / 100, height / 100))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    for order, shape in enumerate(root):
        name = shape.tag.rpartition("}")[2]
        if name == "text":
            _write(ax, shape, root.attrib, order)
        elif name in SHAPES:
            patch = SHAPES[name](shape.attrib)
            patch.set(zorder=order, **_look(shape.attrib, root.attrib["fill"]))
            ax.add_patch(patch)
    return _few_colours(figure, 100 * scale)


def _few_colours(figure: Figure, dpi: float) -> bytes:
    """The figure as a small file."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    picture = Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def _numbers(given: Mapping[str, str], *names: str) -> list[float]:
    return [float(given.get(name, 0)) for name in names]


def _rect(given: Mapping[str, str]) -> Patch:
    x, y, width, height, radius = _numbers(given, "x", "y", "width", "height", "rx")
    corners = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
    return FancyBboxPatch((x, y), width, height, corners)


def _circle(given: Mapping[str, str]) -> Patch:
    x, y, radius = _numbers(given, "cx", "cy", "r")
    return Circle((x, y), radius)


def _line(given: Mapping[str, str]) -> Patch:
    x1, y1, x2, y2 = _numbers(given, "x1", "y1", "x2", "y2")
    return PathPatch(Path([(x1, y1), (x2, y2)]))


def _points(given: Mapping[str, str]) -> np.ndarray:
    """Of a polygon or a polyline, (n, 2)."""
    return np.array(re.findall(r"[-\d.]+", given["points"]), float).reshape(-1, 2)


def _path(given: Mapping[str, str]) -> Patch:
    """Of straight lines: M and L go to a point, h and v by a distance."""
    corners: list[tuple[float, float]] = []
    codes = []
    for command, numbers in re.findall(r"([MLhv])([-\d. ]+)", given["d"]):
        values = [float(number) for number in numbers.split()]
        if command in "ML":
            x, y = values
        else:
            x, y = corners[-1]
            x += values[0] * (command == "h")
            y += values[0] * (command == "v")
        corners.append((x, y))
        codes.append(Path.MOVETO if command == "M" else Path.LINETO)
    return PathPatch(Path(corners, codes))


SHAPES = {
    "rect": _rect,
    "circle": _circle,
    "line": _line,
    "path": _path,
    "polygon": lambda given: Polygon(_points(given)),
    "polyline": lambda given: PathPatch(Path(_points(given))),
}


def _look(given: Mapping[str, str], ink: str) -> dict[str, Any]:
    """Colours, line width and dashes as a patch takes them."""
    look: dict[str, Any] = {
        "facecolor": given.get("fill", ink),
        "edgecolor": given.get("stroke", "none"),
        "linewidth": POINTS * float(given.get("stroke-width", 1)),
    }
    if dashes := given.get("stroke-dasharray"):
        width = float(given.get("stroke-width", 1))
        look["linestyle"] = (0, [float(length) / width for length in dashes.split()])
    return look


def _write(ax: Axes, text: ElementTree.Element, inherited: Mapping[str, str], order: int) -> None:
    """A text; parts of it that are set lower become subscripts."""
    content = text.text or ""
    for part in text:
        is_lower = float(part.get("dy", 0)) > 0
        words = part.text or ""
        content += rf"$_{{\mathrm{{{words}}}}}$" if is_lower else words
    x, y = _numbers(text.attrib, "x", "y")
    ax.text(
        x,
        y,
        content,
        size=0.94 * POINTS * float(text.get("font-size", inherited["font-size"])),  # wide letters
        color=text.get("fill", inherited["fill"]),
        weight=text.get("font-weight", "normal"),
        ha=ANCHORS[text.get("text-anchor", "start")],
        va="baseline",
        zorder=order,
    )
