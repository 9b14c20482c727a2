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
