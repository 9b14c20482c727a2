"""Exercises of notebook 12, real models."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


@exercise(
    cases=[(0.5, 0.25), (0.8, 0.5), (0.3, 0.1), (0.6, 1.0)],
    hints=[
        ("That holds only if the blocks take all of the time; the share outside them stays.",
         lambda share, keep: 1 / keep),
        ("That is the time that is left; the speed-up is one over it.",
         lambda share, keep: 1 - share + share * keep),
        ("You forgot the time outside the blocks, 1 - share, which stays.",
         lambda share, keep: 1 / (share * keep)),
        ("`keep` is what stays of the blocks' time; you took it away.",
         lambda share, keep: 1 / (1 - share * keep)),
        ("That is the bound if no neuron at all stays; a part `keep` of them does.",
         lambda share, keep: 1 / (1 - share)),
    ],
)  # fmt: skip
def largest_speedup(share: float, keep: float) -> float:
    """How many times faster a model can get at most, with a fraction `keep` of the neurons.

    share: of the time, in the feed-forward blocks.
    """
    return 1 / (1 - share + share * keep)


Shapes = list[tuple[int, int]]
PLAIN, GATED, FUSED = [(12, 4), (4, 12)], [(12, 4), (12, 4), (4, 12)], [(24, 4), (4, 12)]
OTHERS = (
    [(12, 4), (4, 4)],  # GPT-2's attention: query, key and value in one map
    [(4, 4)] * 4,  # Llama's
    [(12, 4), (8, 12)],  # writes another width
    [(12, 8), (4, 12)],  # reads another width
    [(12, 4), (6, 4), (4, 12)],  # gate and up do not match
)


def _kind(d: int, shapes: Shapes, forgotten: str = "") -> str | None:
    *into, (size_out, n) = shapes
    if size_out != d and forgotten != "out":
        return None
    if any(size_in != d for _, size_in in into) and forgotten != "in":
        return None
    heights = tuple(height for height, _ in into)
    if forgotten == "up" and len(into) == 2:
        heights = (n, n)
    known = {(n,): "plain", (n, n): "gated", (2 * n,): "fused"}
    return None if known.get(heights) == forgotten else known.get(heights)


@exercise(
    cases=[(4, shapes) for shapes in (PLAIN, GATED, FUSED, *OTHERS)],
    hints=[
        ("You count the maps; attention has two as well, in GPT-2. Compare their sizes.",
         lambda d, shapes: {2: "plain", 3: "gated"}.get(len(shapes))),
        ("You found no fused block: one map of 2 N rows, for gate and up together.",
         lambda d, shapes: _kind(d, shapes, "fused")),
        ("The last map must write to the model's width D: its first size.",
         lambda d, shapes: _kind(d, shapes, "out")),
        ("The maps into the neurons must read the model's width D: their second size.",
         lambda d, shapes: _kind(d, shapes, "in")),
        ("In a gated block gate *and* up have a row for each of the N neurons.",
         lambda d, shapes: _kind(d, shapes, "up")),
    ],
)  # fmt: skip
def block_kind(d: int, shapes: Shapes) -> str | None:
    """What the linear maps of a module make: "plain", "gated", "fused", or None.

    d: the model's width. shapes: (out, in) of each map, the map out of the neurons last.
    """
    return _kind(d, shapes)


def _zeros(weight: Tensor, rows: int) -> Tensor:
    return torch.cat([weight, torch.zeros(rows, weight.shape[1])])


def _padded(gate_up: Tensor, down: Tensor, width: int) -> tuple[Tensor, Tensor]:
    n = down.shape[1]
    parts = [_zeros(part, width - n) for part in gate_up.split(n)]
    return torch.cat(parts), _zeros(down.T, width - n).T


@exercise(
    cases=[(*random_tensors((6, 4), (4, 3)), 5), (*random_tensors((8, 3), (3, 4)), 6)],
    hints=[
        ("The bug is still there: all zeros stand at the end, so where the model cuts the map in "
         "half, the gate begins to hold rows of up. Split it, pad both parts, join them.",
         lambda w, down, width: (_zeros(w, 2 * (width - down.shape[1])),
                                 _padded(w, down, width)[1])),
        ("Down got no zeros: h has `width` columns now, and down must read them all.",
         lambda w, down, width: (_padded(w, down, width)[0], down)),
        ("Only the gate got zeros; up needs as many.",
         lambda w, down, width: (torch.cat([_zeros(w[: down.shape[1]], width - down.shape[1]),
                                            w[down.shape[1] :]]), _padded(w, down, width)[1])),
        ("Down's zeros stand before its neurons, the others' behind: neuron 0 must stay the first.",
         lambda w, down, width: (_padded(w, down, width)[0],
                                 _padded(w, down, width)[1].roll(width - down.shape[1], 1))),
        ("Down's neurons are its columns; you gave it more rows.",
         lambda w, down, width: (_padded(w, down, width)[0],
                                 _zeros(down, width - down.shape[1]))),
    ],
)  # fmt: skip
def pad_fused(gate_up: Tensor, down: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """A fused block's weights with zero neurons up to `width`. gate_up (2 N, D), down (D, N)."""
    return _padded(gate_up, down, width)
