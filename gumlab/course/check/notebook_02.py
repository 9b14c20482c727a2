"""Exercises of notebook 02, mask or remove."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


def _mask(text: str) -> Tensor:
    """A bool tensor: True where the text has a 1."""
    return torch.tensor([letter == "1" for letter in text])


@exercise(
    cases=[
        (*random_tensors((4, 4)), _mask("1011"), *random_tensors((4, 4), (4,))),
        (*random_tensors((2, 6)), _mask("110010"), *random_tensors((3, 6), (3,))),
    ],
    hints=[
        (
            "Your mask is on the tokens (rows of h); it belongs on the neurons (columns).",
            lambda h, mask, weight, bias: (h * mask[:, None]) @ weight.T + bias,
        ),
        (
            "Your mask comes after proj, where there are no neurons any more; mask h first.",
            lambda h, mask, weight, bias: (h @ weight.T + bias) * mask,
        ),
        (
            "Your mask keeps the neurons that should go; True means stay.",
            lambda h, mask, weight, bias: (h * ~mask) @ weight.T + bias,
        ),
        ("You forgot the bias of proj.", lambda h, mask, weight, bias: (h * mask) @ weight.T),
        (
            "Weights have shape (out, in): multiply by weight.T.",
            lambda h, mask, weight, bias: (h * mask) @ weight + bias,
        ),
    ],
)
def apply_mask(h: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Give a block's output with a mask on its neurons.

    Parameters
    ----------
    h : Tensor
        The activations, (T, N).
    mask : Tensor
        (N,) bool, True for a neuron that stays.
    weight, bias : Tensor
        Those of proj, (D, N) and (D,).

    Returns
    -------
    Tensor
        The output, (T, D).
    """
    return (h * mask) @ weight.T + bias


@exercise(
    cases=[
        (*random_tensors((4, 4), (4,), (4, 4), (4,)), _mask("1011")),
        (*random_tensors((6, 3), (6,), (3, 6), (3,)), _mask("110010")),
    ],
    hints=[
        (
            "You forgot the bias of fc: entry i belongs to neuron i and goes with it.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc[mask],
                fc_bias,
                proj[:, mask],
                proj_bias,
            ),
        ),
        (
            "You cut the rows of proj; its neurons are the columns.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc[mask],
                fc_bias[mask],
                proj[mask],
                proj_bias,
            ),
        ),
        (
            "You cut the columns of fc; its neurons are the rows.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc[:, mask],
                fc_bias[mask],
                proj[:, mask],
                proj_bias,
            ),
        ),
        (
            "You cut the bias of proj; it belongs to the output, not to a neuron.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc[mask],
                fc_bias[mask],
                proj[:, mask],
                proj_bias[mask],
            ),
        ),
        (
            "You set weights to zero; that masks. Leave the rows and columns out instead.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc * mask[:, None],
                fc_bias * mask,
                proj * mask,
                proj_bias,
            ),
        ),
        (
            "You keep the neurons that should go; True means stay.",
            lambda fc, fc_bias, proj, proj_bias, mask: (
                fc[~mask],
                fc_bias[~mask],
                proj[:, ~mask],
                proj_bias,
            ),
        ),
    ],
)
def remove_neurons(
    fc: Tensor, fc_bias: Tensor, proj: Tensor, proj_bias: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut a plain block's neurons out of its four parameters.

    Parameters
    ----------
    fc, fc_bias : Tensor
        The map into the neurons, (N, D) and (N,).
    proj, proj_bias : Tensor
        The map out of them, (D, N) and (D,).
    mask : Tensor
        (N,) bool, True for a neuron that stays.

    Returns
    -------
    tuple of Tensor
        The four parameters after the cut, in the same order.
    """
    return fc[mask], fc_bias[mask], proj[:, mask], proj_bias


@exercise(
    cases=[
        (*random_tensors((4, 4), (4, 4), (4, 4)), _mask("1011")),
        (*random_tensors((6, 3), (6, 3), (3, 6)), _mask("010110")),
    ],
    hints=[
        (
            "The bug is still there: up keeps its first rows, whatever the mask says.",
            lambda gate, up, down, mask: (gate[mask], up[: int(mask.sum())], down[:, mask]),
        ),
        (
            "The gate is cut, up is not: h is a product of the two, so both lose the same rows.",
            lambda gate, up, down, mask: (gate[mask], up, down[:, mask]),
        ),
        (
            "Up is cut, the gate is not: h is a product of the two, so both lose the same rows.",
            lambda gate, up, down, mask: (gate, up[mask], down[:, mask]),
        ),
        (
            "Down keeps its first columns, whatever the mask says.",
            lambda gate, up, down, mask: (gate[mask], up[mask], down[:, : int(mask.sum())]),
        ),
        (
            "Down is proj: its neurons are the columns.",
            lambda gate, up, down, mask: (gate[mask], up[mask], down[mask]),
        ),
    ],
)
def remove_gated(
    gate: Tensor, up: Tensor, down: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a gated block's neurons out of its three weights.

    Parameters
    ----------
    gate, up : Tensor
        The maps into the neurons, (N, D) each.
    down : Tensor
        The map out of them, (D, N).
    mask : Tensor
        (N,) bool, True for a neuron that stays.

    Returns
    -------
    tuple of Tensor
        The three weights after the cut, in the same order.
    """
    return gate[mask], up[mask], down[:, mask]


def _flops(d: int, widths: list[int], vocabulary: int, attention: int = 4, block: int = 2) -> int:
    """FLOPs of a model with so many maps in its attention and in its feed-forward block."""
    inside = sum(2 * attention * d * d + 2 * block * d * width for width in widths)
    return inside + 2 * d * vocabulary


@exercise(
    cases=[
        (128, [512, 512, 512, 512], 1024),
        (128, [128, 128, 128, 128], 1024),
        (10, [40, 7], 100),
        (3, [5], 11),
    ],
    hints=[
        (
            "A weight of a map costs two operations, one multiplication and one addition.",
            lambda d, widths, vocabulary: _flops(d, widths, vocabulary) // 2,
        ),
        (
            "You forgot the attention: four maps from d to d in each layer.",
            lambda d, widths, vocabulary: _flops(d, widths, vocabulary, attention=0),
        ),
        (
            "You counted the attention once; each layer has its own.",
            lambda d, widths, vocabulary: (
                _flops(d, widths, vocabulary) - (len(widths) - 1) * 8 * d * d
            ),
        ),
        (
            "Attention has four maps in each layer: queries, keys, values and output.",
            lambda d, widths, vocabulary: _flops(d, widths, vocabulary, attention=3),
        ),
        (
            "A feed-forward block has two maps: into the neurons, and out of them.",
            lambda d, widths, vocabulary: _flops(d, widths, vocabulary, block=1),
        ),
        (
            "You forgot the last map, from d to the vocabulary.",
            lambda d, widths, vocabulary: _flops(d, widths, 0),
        ),
        (
            "The layers may have different widths; add them up, do not take the first one.",
            lambda d, widths, vocabulary: _flops(d, [widths[0]] * len(widths), vocabulary),
        ),
    ],
)
def flops_per_token(d: int, widths: list[int], vocabulary: int) -> int:
    """Count the multiplications and additions that a GPT-2 needs for one token.

    A map from n to m numbers takes 2 n m of them. Biases, norms, and attention's products of
    tokens with each other are left out.

    Parameters
    ----------
    d : int
        The model's width D.
    widths : list of int
        How many neurons each layer has.
    vocabulary : int
        How many tokens the model knows.

    Returns
    -------
    int
        The FLOPs of all maps: four of attention and two of the feed-forward block in each layer,
        and the last one, to the vocabulary.
    """
    return _flops(d, widths, vocabulary)
