"""Exercises of notebook 12, real models."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


@exercise(
    cases=[(0.5, 0.25), (0.8, 0.5), (0.3, 0.1), (0.6, 1.0)],
    hints=[
        (
            "That holds only if the blocks take all of the time; the share outside them stays.",
            lambda share, keep: 1 / keep,
        ),
        (
            "That is the time that is left; the speed-up is one over it.",
            lambda share, keep: 1 - share + share * keep,
        ),
        (
            "You forgot the time outside the blocks, 1 - share, which stays.",
            lambda share, keep: 1 / (share * keep),
        ),
        (
            "`keep` is what stays of the blocks' time; you took it away.",
            lambda share, keep: 1 / (1 - share * keep),
        ),
        (
            "That is the bound if no neuron at all stays; a part `keep` of them does.",
            lambda share, keep: 1 / (1 - share),
        ),
    ],
)
def largest_speedup(share: float, keep: float) -> float:
    """Give how many times faster a model can get at most.

    Parameters
    ----------
    share : float
        The share of the time that the feed-forward blocks take.
    keep : float
        The fraction of the neurons that stays.

    Returns
    -------
    float
        The time before over the time after.
    """
    return 1 / (1 - share + share * keep)


Shapes = list[tuple[int, int]]  # the sizes (out, in) of linear maps, that out of the neurons last


def _kind(d: int, shapes: Shapes, forgotten: str = "") -> str | None:
    """What the maps make, but for one thing that is forgotten."""
    *into, (writes, neurons) = shapes
    if writes != d and forgotten != "out":
        return None
    if any(reads != d for _, reads in into) and forgotten != "in":
        return None
    rows = [map_rows for map_rows, _ in into]
    if rows == [neurons]:
        return "plain"
    if rows == [neurons, neurons] or (len(rows) == 2 and forgotten == "up"):
        return "gated"
    if rows == [2 * neurons] and forgotten != "fused":
        return "fused"
    return None


@exercise(
    cases=[
        (4, [(12, 4), (4, 12)]),  # plain
        (4, [(12, 4), (12, 4), (4, 12)]),  # gated
        (4, [(24, 4), (4, 12)]),  # fused
        (4, [(12, 4), (4, 4)]),  # GPT-2's attention: query, key and value in one map
        (4, [(4, 4), (4, 4), (4, 4), (4, 4)]),  # Llama's
        (4, [(12, 4), (8, 12)]),  # writes another width
        (4, [(12, 8), (4, 12)]),  # reads another width
        (4, [(12, 4), (6, 4), (4, 12)]),  # gate and up do not match
    ],
    hints=[
        (
            "You count the maps; attention has two as well, in GPT-2. Compare their sizes.",
            lambda d, shapes: {2: "plain", 3: "gated"}.get(len(shapes)),
        ),
        (
            "You found no fused block: one map of 2 N rows, for gate and up together.",
            lambda d, shapes: _kind(d, shapes, forgotten="fused"),
        ),
        (
            "The last map must write to the model's width D: its first size.",
            lambda d, shapes: _kind(d, shapes, forgotten="out"),
        ),
        (
            "The maps into the neurons must read the model's width D: their second size.",
            lambda d, shapes: _kind(d, shapes, forgotten="in"),
        ),
        (
            "In a gated block gate *and* up have a row for each of the N neurons.",
            lambda d, shapes: _kind(d, shapes, forgotten="up"),
        ),
    ],
)
def block_kind(d: int, shapes: Shapes) -> str | None:
    """Tell what kind of feed-forward block some linear maps make.

    Parameters
    ----------
    d : int
        The model's width D.
    shapes : list of (int, int)
        The size (out, in) of each map of a module, the map out of the neurons last.

    Returns
    -------
    str or None
        "plain", "gated", "fused" (gate and up in one map), or None if they make none.
    """
    return _kind(d, shapes)


def _missing(down: Tensor, width: int) -> int:
    """How many zero neurons are due."""
    return width - down.shape[1]


def _with_zeros(weight: Tensor, rows: int) -> Tensor:
    """A matrix with rows of zeros below it."""
    return torch.cat([weight, torch.zeros(rows, weight.shape[1])])


def _padded_gate_up(gate_up: Tensor, down: Tensor, width: int) -> Tensor:
    """Gate and up in one matrix, each with its zeros."""
    neurons = down.shape[1]
    return torch.cat([_with_zeros(part, _missing(down, width)) for part in gate_up.split(neurons)])


def _padded_gate(gate_up: Tensor, down: Tensor, width: int) -> Tensor:
    """Gate and up in one matrix, zeros for the gate alone."""
    gate, up = gate_up.split(down.shape[1])
    return torch.cat([_with_zeros(gate, _missing(down, width)), up])


def _padded_down(down: Tensor, width: int) -> Tensor:
    return _with_zeros(down.T, _missing(down, width)).T


@exercise(
    cases=[(*random_tensors((6, 4), (4, 3)), 5), (*random_tensors((8, 3), (3, 4)), 6)],
    hints=[
        (
            "The bug is still there: all zeros stand at the end, so where the model cuts the map "
            "in half, the gate begins to hold rows of up. Split it, pad both parts, join them.",
            lambda gate_up, down, width: (
                _with_zeros(gate_up, 2 * _missing(down, width)),
                _padded_down(down, width),
            ),
        ),
        (
            "Down got no zeros: h has `width` columns now, and down must read them all.",
            lambda gate_up, down, width: (_padded_gate_up(gate_up, down, width), down),
        ),
        (
            "Only the gate got zeros; up needs as many.",
            lambda gate_up, down, width: (
                _padded_gate(gate_up, down, width),
                _padded_down(down, width),
            ),
        ),
        (
            "Down's zeros stand before its neurons, the others' behind: neuron 0 must stay the "
            "first.",
            lambda gate_up, down, width: (
                _padded_gate_up(gate_up, down, width),
                _padded_down(down, width).roll(_missing(down, width), 1),
            ),
        ),
        (
            "Down's neurons are its columns; you gave it more rows.",
            lambda gate_up, down, width: (
                _padded_gate_up(gate_up, down, width),
                _with_zeros(down, _missing(down, width)),
            ),
        ),
    ],
)
def pad_fused(gate_up: Tensor, down: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Pad a fused block with neurons that are zero.

    Parameters
    ----------
    gate_up : Tensor
        Gate and up in one map, (2 N, D): the first N rows are the gate's.
    down : Tensor
        The map out of the neurons, (D, N).
    width : int
        How many neurons there are to be.

    Returns
    -------
    gate_up : Tensor
        (2 width, D).
    down : Tensor
        (D, width).
    """
    return _padded_gate_up(gate_up, down, width), _padded_down(down, width)
