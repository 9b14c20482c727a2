"""One drawing of a neuron, as a small vector graphic, and the same drawing for each idea.

All kinds share one layout and a few helpers: a shape is a line of SVG. Colours are those of the
figures; what a colour says is also said by a dash, a mark or a label. The sizes are those of a
drawing 640 wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gumlab.course.plots.figure import BLUE, GREEN, GREY, ORANGE, RED
from gumlab.course.plots.pixels import png_of
from gumlab.errors import check_choice
from gumlab.selection import schedule

INK = "#222222"
FAINT = "#D8D8D8"
PALE = "#F3F3F3"
DASHED = "7 5"
THICK: dict[str, Any] = {"stroke": BLUE, "stroke_width": 2.5}  # lines of the neuron looked at
ON_COLOUR: dict[str, Any] = {"fill": "white", "font_weight": "bold"}
WIDTH = 640

# where things stand in the drawing of a block
X, HIDDEN, OUT = 70, 310, 560
MIDDLE = 154  # where the neuron looked at stands
SIZE, PITCH = 22, 28  # of the boxes of x and of the block's output
RADIUS = 19
NEURONS = tuple(MIDDLE + 45 * place for place in (-2, -1, 0, 1, 2))
NUMBERS = tuple(MIDDLE + PITCH * (place - 2.5) for place in range(6))
CAPTION, STREAM = 298, 330
BLOCK_HEIGHT = 374


@dataclass
class Drawing:
    """A vector graphic and one sentence that says what it shows; a notebook displays it.

    Attributes
    ----------
    svg : str
        The graphic: one `<svg>` element with a title and a description.
    sentence : str
        What it shows; its description for whoever does not see it.
    """

    svg: str
    sentence: str

    def save(self, path: str | Path) -> None:
        """Write the graphic to a file, for a slide or a sheet of paper.

        Parameters
        ----------
        path : str or Path
            Where to; a name that ends in .svg.
        """
        Path(path).write_text(self.svg + "\n", encoding="utf-8")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # not the graphic itself: an untrusted notebook hides it, and it is cut off on a phone
        look = {"alt": self.sentence, "width": WIDTH}
        return {"image/png": png_of(self.svg), "text/plain": self.sentence}, {"image/png": look}

    def __repr__(self) -> str:
        return f"Drawing({self.sentence})"


def neuron(kind: str = "whole") -> Drawing:
    """Draw a neuron: what it reads, what it writes, and what pruning does to it.

    Parameters
    ----------
    kind : str, default "whole"
        "whole", "gated", "masked", "cut", "twins" and "refit" are one block in the same layout;
        "score", "mask", "cosine", "gram", "gum" and "schedule" are the ideas of the course.

    Returns
    -------
    Drawing
        The graphic, and the sentence that says what it shows.

    Raises
    ------
    GumlabError
        For another kind; the message names them.
    """
    check_choice("kind", kind, KINDS)
    title, sentence, height, draw = KINDS[kind]
    return Drawing(_card(title, sentence, height, draw()), sentence)


# --- shapes ---------------------------------------------------------------------------------------


def _tag(name: str, content: str = "", **attributes: Any) -> str:
    """An SVG element; `stroke_width` stands for `stroke-width`, and None is left out."""
    given = "".join(
        f' {key.replace("_", "-")}="{value:g}"'
        if isinstance(value, float | int)
        else f' {key.replace("_", "-")}="{value}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def _card(title: str, sentence: str, height: float, parts: Sequence[str]) -> str:
    """The graphic: the parts on a white card, which is read on a dark page too."""
    words = _tag("title", escape(title)) + _tag("desc", escape(sentence))
    card = _tag(
        "rect", x=1, y=1, width=WIDTH - 2, height=height - 2, rx=10, fill="white", stroke="#BBBBBB"
    )
    return _tag(
        "svg",
        "\n".join([words, card, *parts]),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        role="img",
        style="max-width:100%;height:auto",
        font_family="sans-serif",
        font_size=16,
        fill=INK,
    )


def _label(x: float, y: float, text: str, **style: Any) -> str:
    """A text around x, on a line at y; what follows an underscore is set lower: h_i, W_in."""
    style = {"text_anchor": "middle", **style}
    first, *rest = re.split(r"_(\w+)", escape(text))
    content = first
    for lower, after in zip(rest[::2], rest[1::2], strict=True):
        content += _tag("tspan", lower, dy=4, font_size=13)
        content += _tag("tspan", after, dy=-4) if after else ""
    return _tag("text", content, x=x, y=y, **style)


def _box(x: float, y: float, width: float, height: float, **style: Any) -> str:
    style = {"fill": "white", "stroke": INK, **style}
    return _tag("rect", x=x, y=y, width=width, height=height, **style)


def _circle(x: float, y: float, radius: float, **style: Any) -> str:
    style = {"fill": "white", "stroke": INK, "stroke_width": 1.5, **style}
    return _tag("circle", cx=x, cy=y, r=radius, **style)


def _line(x1: float, y1: float, x2: float, y2: float, **style: Any) -> str:
    style = {"stroke": INK, "stroke_width": 1.5, **style}
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, **style)


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: str = INK, **style: Any) -> str:
    """A line with a head at its second end."""
    width = style.get("stroke_width", 2)
    angle = math.atan2(y2 - y1, x2 - x1)
    long = 5 + 2.5 * width
    sides = [
        f"{x2 - long * math.cos(angle + turn):.1f},{y2 - long * math.sin(angle + turn):.1f}"
        for turn in (-0.42, 0.42)
    ]
    head = _tag("polygon", points=f"{x2:.1f},{y2:.1f} {' '.join(sides)}", fill=colour)
    x, y = x2 - 0.7 * long * math.cos(angle), y2 - 0.7 * long * math.sin(angle)
    return _line(x1, y1, round(x, 1), round(y, 1), stroke=colour, **style) + head


def _cross(x: float, y: float, size: float = 9) -> str:
    style = {"stroke": RED, "stroke_width": 3}
    return _line(x - size, y - size, x + size, y + size, **style) + _line(
        x - size, y + size, x + size, y - size, **style
    )


def _bars(
    x: float, base: float, heights: Sequence[float], width: float, gap: float, **style: Any
) -> list[str]:
    return [
        _box(x + place * (width + gap), base - height, width, height, **style)
        for place, height in enumerate(heights)
    ]


# --- a block --------------------------------------------------------------------------------------


def _frame(caption: str, names: Sequence[str]) -> list[str]:
    """What every block has: x, the output, the residual stream; names stand above its columns."""
    parts = [
        _arrow(24, STREAM, 618, STREAM, GREY, stroke_width=7),
        _label(HIDDEN, STREAM + 27, "residual stream"),
        _arrow(X, STREAM - 6, X, NUMBERS[-1] + 20),
        _arrow(OUT, NUMBERS[-1] + 14, OUT, STREAM - 15),
        _circle(OUT, STREAM, 13),
        _label(OUT, STREAM + 6, "+", font_size=20),
        _label(HIDDEN, CAPTION, caption),
    ]
    for x in (X, OUT):
        parts += [_box(x - SIZE / 2, y - SIZE / 2, SIZE, SIZE, fill=PALE) for y in NUMBERS]
    places = (X, (X + HIDDEN) / 2, HIDDEN, (HIDDEN + OUT) / 2, OUT)
    parts += [_label(x, 27, name) for x, name in zip(places, names, strict=True)]
    return parts


def _fan(x: float, y: float, end: float, **style: Any) -> str:
    """Lines between a place and the six numbers of x or of the output: a row or a column."""
    lines = "".join(f"M{end:g} {number:g}L{x:g} {y:g}" for number in NUMBERS)
    return _tag("path", d=lines, **style)


def _row(y: float, x: float = HIDDEN, **style: Any) -> str:
    return _fan(x, y, X + SIZE / 2, **style)


def _column(y: float, x: float = HIDDEN, **style: Any) -> str:
    return _fan(x, y, OUT - SIZE / 2, **style)


def _others(*without: float) -> list[str]:
    """The grey neighbours, with their rows and columns; none at the heights `without`."""
    heights = [y for y in NEURONS if y not in without]
    lines = [_row(y, stroke=FAINT) + _column(y, stroke=FAINT) for y in heights]
    return lines + [_circle(HIDDEN, y, RADIUS, fill=PALE, stroke=GREY) for y in heights]


def _hidden(y: float, name: str, colour: str) -> str:
    """A neuron: a filled circle with its activation's name."""
    circle = _circle(HIDDEN, y, RADIUS, fill=colour)
    return circle + _label(HIDDEN, y + 5, name, **ON_COLOUR)


def _whole() -> list[str]:
    names = ("x: D numbers", "row i of W_in", "N neurons", "column w_i of W_out", "output")
    return [
        *_frame("h_i = act(row i · x + b_i) and it adds h_i w_i", names),
        *_others(MIDDLE),
        _row(MIDDLE, **THICK) + _column(MIDDLE, **THICK),
        _hidden(MIDDLE, "h_i", BLUE),
    ]


def _gated() -> list[str]:
    names = ("x: D numbers", "two rows: g, u", "N neurons", "column w_i of W_out", "output")
    between = HIDDEN - 72
    up, down = MIDDLE - 17, MIDDLE + 17
    other = {**THICK, "stroke": ORANGE, "stroke_dasharray": DASHED}
    parts = _frame("h_i = act(gate row i · x) × (up row i · x)", names)
    for y in NEURONS:
        if y != MIDDLE:
            parts += [_row(y, between, stroke=FAINT), _column(y, stroke=FAINT)]
            parts += [_line(between, y + side, HIDDEN, y, stroke=FAINT) for side in (-8, 8)]
            parts += [_circle(between, y + side, 6, fill=PALE, stroke=GREY) for side in (-8, 8)]
            parts.append(_circle(HIDDEN, y, RADIUS, fill=PALE, stroke=GREY))
    return [
        *parts,
        _row(up, between, **THICK) + _row(down, between, **other) + _column(MIDDLE, **THICK),
        _line(between, up, HIDDEN, MIDDLE, **THICK),
        _line(between, down, HIDDEN, MIDDLE, **other),
        *[
            _circle(between, y, 13, fill=fill) + _label(between, y + 5, name, **words)
            for y, name, fill, words in (
                (up, "g", BLUE, ON_COLOUR),
                (down, "u", ORANGE, {"font_weight": "bold"}),
            )
        ],
        _hidden(MIDDLE, "h_i", BLUE),
    ]


def _masked() -> list[str]:
    names = ("x: D numbers", "row i: still there", "N neurons", "w_i: still there", "output")
    return [
        *_frame("h_i is still computed, then times 0: it adds nothing", names),
        *_others(MIDDLE),
        _row(MIDDLE, **THICK) + _column(MIDDLE, HIDDEN + 92, stroke=BLUE, stroke_dasharray=DASHED),
        _line(HIDDEN, MIDDLE, HIDDEN + 55, MIDDLE, **THICK),
        _hidden(MIDDLE, "h_i", BLUE),
        _box(HIDDEN + 46, MIDDLE - 15, 46, 30, rx=4, stroke=RED, stroke_width=2.5),
        _label(HIDDEN + 69, MIDDLE + 6, "× 0", font_weight="bold"),
    ]


def _gone() -> str:
    """The place of a neuron that was removed."""
    empty = {"stroke": GREY, "stroke_dasharray": "4 4"}
    return _circle(HIDDEN, MIDDLE, RADIUS, **empty) + _cross(HIDDEN, MIDDLE)


def _cut() -> list[str]:
    names = ("x: D numbers", "N − 1 rows", "N − 1 neurons", "N − 1 columns", "output")
    caption = "row i, b_i and w_i are gone: W_in and W_out are smaller"
    return [*_frame(caption, names), *_others(MIDDLE), _gone()]


def _twins() -> list[str]:
    names = ("x: D numbers", "two rows", "twins", "two columns", "output")
    first, second = NEURONS[1], NEURONS[3]
    heights = (5, 19, 9, 24, 3, 14)
    like = (6, 17, 10, 22, 4, 14)
    parts = [
        *_frame("h_i and h_j are nearly the same at every token", names),
        *_others(first, second),
    ]
    for y, name, colour, dash, bars in (
        (first, "h_i", BLUE, None, heights),
        (second, "h_j", RED, DASHED, like),
    ):
        own = {**THICK, "stroke": colour, "stroke_dasharray": dash}
        parts += [_row(y, **own) + _column(y, **own), _hidden(y, name, colour)]
        parts.append(_box(HIDDEN + 30, y - 17, 76, 34, rx=3, stroke=colour, stroke_dasharray=dash))
        parts += _bars(HIDDEN + 36, y + 12, bars, 8, 3.2, fill=colour, stroke="none")
    sign = _circle(HIDDEN + 68, MIDDLE, 15, stroke=INK)
    return [*parts, sign, _label(HIDDEN + 68, MIDDLE + 7, "≈", font_size=20)]


def _refit() -> list[str]:
    names = ("x: D numbers", "N − 1 rows", "N − 1 neurons", "w_j + c_j w_i", "output")
    kept = [y for y in NEURONS if y != MIDDLE]
    column = HIDDEN + 72
    parts = [*_frame("the columns w_j that stay take over the work of w_i", names)]
    parts += [_row(y, stroke=FAINT) + _column(y, stroke=GREEN, stroke_width=2) for y in kept]
    parts += [_circle(HIDDEN, y, RADIUS, fill=PALE, stroke=GREEN, stroke_width=2.5) for y in kept]
    for y in kept:
        far = 10 if abs(y - MIDDLE) > 60 else -10
        parts.append(_arrow(column + far, MIDDLE, HIDDEN + 28, y, stroke_width=2.5))
    parts += [_gone(), _arrow(HIDDEN + RADIUS + 4, MIDDLE, column - 20, MIDDLE, RED)]
    parts.append(_box(column - 19, MIDDLE - 15, 38, 30, rx=4, stroke=RED, stroke_dasharray="4 4"))
    return [*parts, _label(column, MIDDLE + 5, "w_i")]


# --- the ideas ------------------------------------------------------------------------------------

SCORES = (0.9, 0.3, 0.7, 0.1, 0.6, 0.2)
IDEA_HEIGHT = 250


def _scored(scores: Sequence[float], kept: Sequence[bool], names: Sequence[str]) -> list[str]:
    """Neurons as circles, each with its score above it as a bar and a number."""
    parts = []
    for place, (value, stays, name) in enumerate(zip(scores, kept, names, strict=True)):
        x = 100 + 88 * place
        fill, dash = (BLUE, None) if stays else ("white", "4 4")
        parts += [
            _box(x - 17, 160 - 100 * value, 34, 100 * value, fill=fill, stroke_dasharray=dash),
            _label(x, 152 - 100 * value, f"{value:.1f}"),
            _circle(x, 190, RADIUS, fill=PALE if stays else "white", stroke_dasharray=dash),
            _label(x, 195, name),
        ]
    return [_line(56, 160, 584, 160), *parts]


def _names(order: Sequence[int]) -> list[str]:
    return [f"h_{place + 1}" for place in order]


def _score() -> list[str]:
    everyone = range(len(SCORES))
    caption = "one number for each neuron: the higher, the more it matters"
    return [
        *_scored(SCORES, [True] * len(SCORES), _names(everyone)),
        _label(WIDTH / 2, 234, caption),
    ]


def _mask() -> list[str]:
    order = sorted(range(len(SCORES)), key=lambda place: -SCORES[place])
    kept = len(SCORES) // 2
    line = 100 + 88 * (kept - 0.5)
    return [
        *_scored([SCORES[place] for place in order], [n < kept for n in range(6)], _names(order)),
        _line(line, 24, line, 212, stroke=RED, stroke_width=3, stroke_dasharray=DASHED),
        _label(line - 12, 38, f"these {kept} stay", text_anchor="end"),
        _label(line + 12, 38, f"these {len(SCORES) - kept} go", text_anchor="start"),
        _label(WIDTH / 2, 236, "Top_v: sort the scores, keep the share v of the neurons"),
    ]


def _cosine() -> list[str]:
    x, y, length = 60, 196, 190
    parts = []
    for degrees, name, colour, dash in ((12, "h_j", RED, DASHED), (48, "h_i", BLUE, None)):
        across = length * math.cos(math.radians(degrees))
        up = length * math.sin(math.radians(degrees))
        parts += [
            _arrow(x, y, x + across, y - up, colour, stroke_width=3.5, stroke_dasharray=dash),
            _label(x + 1.1 * across, y - 1.08 * up, name),
        ]
    arc = [
        f"{x + 80 * math.cos(math.radians(degrees)):.1f},"
        f"{y - 80 * math.sin(math.radians(degrees)):.1f}"
        for degrees in range(12, 49, 4)
    ]
    angle = math.radians(30)
    return [
        *parts,
        _tag("polyline", points=" ".join(arc), fill="none", stroke=INK),
        _label(x + 98 * math.cos(angle), y + 5 - 98 * math.sin(angle), "θ", font_size=18),
        _label(x + 120, y + 36, "one axis for each token"),
        _label(460, 70, "cos θ = h_i · h_j / (|h_i| |h_j|)"),
        _label(460, 112, "near 1 or −1: alike"),
        _label(460, 142, "near 0: nothing in common"),
    ]


def _grid(x: float, y: float, rows: int, columns: int) -> str:
    """An empty matrix of cells of 20 x 20."""
    across = "".join(f"M{x:g} {y + 20 * row:g}h{20 * columns}" for row in range(rows + 1))
    down = "".join(f"M{x + 20 * column:g} {y:g}v{20 * rows}" for column in range(columns + 1))
    return _tag("path", d=across + down, stroke=GREY)


def _gram() -> list[str]:
    n, tokens = 5, 8
    y_row, x_column = 106, 332  # of neurons i and j
    return [
        _label(136, 74, "N × T activations"),
        _box(56, y_row, 20 * tokens, 20, fill=BLUE),
        _grid(56, 86, n, tokens),
        _label(40, y_row + 15, "h_i"),
        _label(244, 143, "×", font_size=22),
        _label(322, 44, "T × N"),
        _box(x_column, 56, 20, 20 * tokens, fill=ORANGE),
        _grid(272, 56, tokens, n),
        _label(x_column + 10, 234, "h_j"),
        _label(405, 143, "=", font_size=22),
        _label(488, 74, "G: N × N"),
        _box(438 + x_column - 272, y_row, 20, 20, fill=GREEN),
        _grid(438, 86, n, n),
        _label(548, y_row + 15, "G_ij", text_anchor="start"),
        _label(WIDTH / 2, 264, "G_ij: h_i times h_j, added up over the T tokens"),
    ]


def _gum() -> list[str]:
    left, movement = 190, 200
    right = left + movement
    parts = []
    for y, name, u in ((18, "unlike others", 0.1), (112, "like others", 0.9)):
        penalty = 50 * (1 + u)
        score = movement - penalty
        up = 62 * math.sqrt(1 - u**2)  # the cosine of the angle is u
        parts += [
            _arrow(50, y + 62, 112, y + 62, BLUE, stroke_width=3),
            _arrow(50, y + 62, 50 + 62 * u, y + 62 - up, RED, stroke_width=3),
            _label(92, y + 84, f"{name}: u = {u}"),
            _box(left, y + 12, movement, 26, fill=BLUE),
            _label(right + 10, y + 31, "movement", text_anchor="start"),
            _box(left + score, y + 44, penalty, 26, stroke=RED, stroke_dasharray="5 3"),
            _label(right + 10, y + 63, f"− penalty × (1 + {u})", text_anchor="start"),
            _box(left, y + 44, score, 26, fill=GREEN),
            _label(left + score / 2, y + 63, "score", fill="white", font_weight="bold"),
        ]
    caption = "GUM: the more it is like the others on average (u), the larger the penalty"
    return [*parts, _label(WIDTH / 2, 232, caption)]


def _schedule() -> list[str]:
    keep, left, base, width, height = 0.25, 90, 190, 470, 140
    steps = 100
    points = [
        f"{left + width * step / steps:.1f},{base - height * schedule(step, steps, keep):.1f}"
        for step in range(0, steps + 1, 2)
    ]
    end = base - height * keep
    return [
        _arrow(left, base, left + width + 30, base),
        _arrow(left, base, left, 26),
        _tag("polyline", points=" ".join(points), fill="none", stroke=BLUE, stroke_width=4),
        _line(left, end, left + width, end, stroke=RED, stroke_dasharray=DASHED),
        _label(left - 10, base - height + 6, "all", text_anchor="end"),
        _label(left - 10, end + 6, "keep", text_anchor="end"),
        _label(left + width / 2, 222, "steps of the training"),
        _label(left + 230, 76, "v: the share that stays at this step", text_anchor="start"),
    ]


# kind -> title, sentence, height, and what draws it
KINDS: dict[str, tuple[str, str, int, Callable[[], list[str]]]] = {
    "whole": (
        "A neuron of a feed-forward block",
        "The neuron reads the residual stream x with its row i of W_in, fires with h_i, and adds "
        "h_i times its column w_i of W_out to the residual stream, as all N neurons do.",
        BLOCK_HEIGHT,
        _whole,
    ),
    "gated": (
        "A neuron of a gated block",
        "In a gated block a neuron has two rows: h_i is the activation of the gate row's product "
        "with x, times the up row's product with x; its column w_i is as in any block.",
        BLOCK_HEIGHT,
        _gated,
    ),
    "masked": (
        "A masked neuron",
        "A masked neuron is still there and still computed, but h_i is multiplied by 0, so it adds "
        "nothing to the residual stream; nothing gets smaller or faster.",
        BLOCK_HEIGHT,
        _masked,
    ),
    "cut": (
        "A removed neuron",
        "The neuron's row of W_in, its bias and its column of W_out are gone; N − 1 neurons are "
        "left, and both matrices are really smaller.",
        BLOCK_HEIGHT,
        _cut,
    ),
    "twins": (
        "Two neurons that are twins",
        "Two neurons whose activations h_i and h_j are nearly the same at every token: one of them "
        "can do the work of both.",
        BLOCK_HEIGHT,
        _twins,
    ),
    "refit": (
        "A removed neuron, and the others refitted",
        "The removed neuron's column w_i is folded into the columns of the neurons which stay: "
        "each w_j becomes w_j + c_j w_i.",
        BLOCK_HEIGHT,
        _refit,
    ),
    "score": (
        "A score",
        "A score gives each neuron one number: the higher, the more it matters.",
        IDEA_HEIGHT,
        _score,
    ),
    "mask": (
        "A mask by Top_v",
        "Top_v sorts the neurons by their scores and draws a line: the share v with the highest "
        "scores stays, the others go.",
        IDEA_HEIGHT,
        _mask,
    ),
    "cosine": (
        "The cosine of two neurons",
        "The activations of two neurons over the same tokens are two arrows; the cosine of the "
        "angle between them says how alike the neurons are.",
        IDEA_HEIGHT,
        _cosine,
    ),
    "gram": (
        "A Gram matrix",
        "N × T activations times their transpose give the Gram matrix, N × N: its entry for "
        "neurons i and j is h_i times h_j, added up over all tokens.",
        IDEA_HEIGHT + 32,
        _gram,
    ),
    "gum": (
        "GUM: movement minus a penalty",
        "Two neurons with the same movement: the one that is like the others, with a high u, gets "
        "the larger penalty and ends with the lower score.",
        IDEA_HEIGHT,
        _gum,
    ),
    "schedule": (
        "A schedule",
        "The share of the neurons that stays is 1 at first, falls along a cubic curve, and stays "
        "at keep for the last part of the training.",
        IDEA_HEIGHT,
        _schedule,
    ),
}
