"""Exercises of notebook 12, real models."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors

_BYTES = {"f32": 4, "f16": 2, "q8_0": 34 / 32}


def _file_bytes(
    matrix: int, other: int, dtype: str, of_others: float = 4, eight_bits: float = 34 / 32
) -> float:
    """Bytes by type, of all but the matrices, and of a number in 8 bits."""
    of_matrices = eight_bits if dtype == "q8_0" else _BYTES[dtype]
    return matrix * of_matrices + other * of_others


@exercise(
    cases=[(3200, 100, "f32"), (3200, 100, "f16"), (3200, 100, "q8_0"), (64, 0, "q8_0")],
    hints=[
        (
            "What is no matrix keeps 4 bytes a number, whatever the type.",
            lambda matrix, other, dtype: (matrix + other) * _BYTES[dtype],
        ),
        (
            "In q8_0 each 32 numbers have a scale too, of 2 bytes.",
            lambda matrix, other, dtype: _file_bytes(matrix, other, dtype, eight_bits=1),
        ),
        (
            "The scale of q8_0 belongs to 32 numbers together, not to each of them.",
            lambda matrix, other, dtype: _file_bytes(matrix, other, dtype, eight_bits=3),
        ),
        (
            "The scale of q8_0 has 2 bytes, not 4.",
            lambda matrix, other, dtype: _file_bytes(matrix, other, dtype, eight_bits=36 / 32),
        ),
        (
            "That is in bits; a byte has 8 of them.",
            lambda matrix, other, dtype: 8 * _file_bytes(matrix, other, dtype),
        ),
        (
            "The numbers outside the matrices take room too: add other * 4.",
            lambda matrix, other, dtype: _file_bytes(matrix, other, dtype, of_others=0),
        ),
    ],
)
def gguf_bytes(matrix: int, other: int, dtype: str) -> float:
    """Count the bytes that a model's numbers take in a GGUF file.

    Parameters
    ----------
    matrix, other : int
        The numbers in matrices, a multiple of 32, and the others.
    dtype : {"f32", "f16", "q8_0"}

    Returns
    -------
    float
        Bytes.
    """
    return _file_bytes(matrix, other, dtype)


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
        (
            "Amdahl divides by how many times faster a part gets; `keep` is what is left of its "
            "time, so multiply.",
            lambda share, keep: 1 / (1 - share + share / keep),
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
    if any(reads != d for _, reads in into) and forgotten not in ("in", "others"):
        return None
    rows = [map_rows for map_rows, reads in into if reads == d or forgotten != "others"]
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
        (4, [(12, 4), (12, 8), (4, 12)]),  # one of them reads another width
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
            "You pass over a map that does not read D; then it is no block: return None.",
            lambda d, shapes: _kind(d, shapes, forgotten="others"),
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


def _rows_below(weight: Tensor, width: int) -> Tensor:
    """A tensor with a row for each neuron, and rows of zeros below up to `width`."""
    return torch.cat([weight, weight.new_zeros(width - len(weight), *weight.shape[1:])])


_PLAIN = random_tensors((3, 4), (3,), (3, 5))
_WIDE = random_tensors((2, 3), (2,), (2, 3))


@exercise(
    cases=[(*_PLAIN, 5), (*_WIDE, 3), (*_WIDE, 2)],
    hints=[
        (
            "You add `width` rows; `width` is how many there are to be in the end.",
            lambda incoming, bias, outgoing, width: tuple(
                _rows_below(part, len(part) + width) for part in (incoming, bias, outgoing)
            ),
        ),
        (
            "The zeros stand before the neurons; neuron 0 must stay the first.",
            lambda incoming, bias, outgoing, width: tuple(
                _rows_below(part, width).roll(width - len(part), 0)
                for part in (incoming, bias, outgoing)
            ),
        ),
        (
            "The bias is as long as before; a padded neuron has one too, a 0.",
            lambda incoming, bias, outgoing, width: (
                _rows_below(incoming, width),
                bias,
                _rows_below(outgoing, width),
            ),
        ),
        (
            "The outgoing weights got no rows; they have one for each neuron as well.",
            lambda incoming, bias, outgoing, width: (
                _rows_below(incoming, width),
                _rows_below(bias, width),
                outgoing,
            ),
        ),
        (
            "The outgoing weights got columns; they have a row for each neuron here.",
            lambda incoming, bias, outgoing, width: (
                _rows_below(incoming, width),
                _rows_below(bias, width),
                _rows_below(outgoing.T, outgoing.shape[1] + width - len(bias)).T,
            ),
        ),
        (
            "You padded with ones: such a neuron would write. Pad with zeros.",
            lambda incoming, bias, outgoing, width: tuple(
                torch.cat([part, torch.ones(width - len(part), *part.shape[1:])])
                for part in (incoming, bias, outgoing)
            ),
        ),
        (
            "You repeated a neuron that is there, so the block writes it twice. Pad with zeros.",
            lambda incoming, bias, outgoing, width: tuple(
                torch.cat([part, part[-1:].expand(width - len(part), *part.shape[1:])])
                for part in (incoming, bias, outgoing)
            ),
        ),
    ],
)
def pad_plain(
    incoming: Tensor, bias: Tensor, outgoing: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pad a plain block with neurons that are zero.

    Parameters
    ----------
    incoming, bias, outgoing : Tensor
        (N, D), (N,) and (N, D): a row for each neuron.
    width : int
        How many neurons there are to be.

    Returns
    -------
    incoming, bias, outgoing : Tensor
        (width, D), (width,) and (width, D).
    """
    padded = [_rows_below(part, width) for part in (incoming, bias, outgoing)]
    return padded[0], padded[1], padded[2]


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


def _changed(raw: bytes, place: int, value: int) -> bytes:
    """A copy with another byte at a place."""
    return raw[:place] + bytes([value % 256]) + raw[place + 1 :]


@exercise(
    cases=[(b"gumlab", 0, 0), (b"gumlab", 5, 7), (bytes(4), 2, 6), (bytes([255, 255]), 1, 3)],
    hints=[
        (
            "You set the bit to 1; where it was 1 already nothing changes. Use ^, not |.",
            lambda raw, place, bit: _changed(raw, place, raw[place] | 1 << bit),
        ),
        (
            "You set the bit to 0; where it was 0 already nothing changes. Use ^.",
            lambda raw, place, bit: _changed(raw, place, raw[place] & ~(1 << bit)),
        ),
        (
            "`^ bit` flips the bits of the number `bit` itself; the bit's own value is 1 << bit.",
            lambda raw, place, bit: _changed(raw, place, raw[place] ^ bit),
        ),
        (
            "In Python ^ is no power: 2 ^ bit flips bits of the 2. The bit's value is 1 << bit.",
            lambda raw, place, bit: _changed(raw, place, raw[place] ^ 2 ^ bit),
        ),
        (
            "Return bytes, not a bytearray: bytes(...) makes them.",
            lambda raw, place, bit: bytearray(_changed(raw, place, raw[place] ^ 1 << bit)),
        ),
        (
            "You flip all bits of the byte; only one is wanted.",
            lambda raw, place, bit: _changed(raw, place, raw[place] ^ 255),
        ),
        (
            "Bit 0 is the lowest, with the value 1; you count from the other end, or from 1.",
            lambda raw, place, bit: _changed(raw, place, raw[place] ^ (128 >> bit)),
        ),
        (
            "Nothing changed: a byte string cannot be changed in place. Work on a bytearray.",
            lambda raw, place, bit: raw,
        ),
    ],
)
def flip_bit(raw: bytes, place: int, bit: int) -> bytes:
    """Give a copy in which one bit is the other way round.

    Parameters
    ----------
    raw : bytes
        The file.
    place : int
        Which byte.
    bit : int
        Which of its bits, 0 the lowest to 7.

    Returns
    -------
    bytes
        As long as `raw`.
    """
    return _changed(raw, place, raw[place] ^ 1 << bit)
