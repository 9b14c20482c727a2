"""Exercises of notebook 02, mask or remove."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


def _mask(text: str) -> Tensor:
    return torch.tensor([c == "1" for c in text])


@exercise(
    cases=[(*random_tensors((4, 4)), _mask("1011"), *random_tensors((4, 4), (4,))),
           (*random_tensors((2, 6)), _mask("110010"), *random_tensors((3, 6), (3,)))],
    hints=[
        ("Your mask is on the tokens (rows of h); it belongs on the neurons (columns).",
         lambda h, mask, weight, bias: (h * mask[:, None]) @ weight.T + bias),
        ("Your mask comes after proj, where there are no neurons any more; mask h first.",
         lambda h, mask, weight, bias: (h @ weight.T + bias) * mask),
        ("Your mask keeps the neurons that should go; True means stay.",
         lambda h, mask, weight, bias: (h * ~mask) @ weight.T + bias),
        ("You forgot the bias of proj.",
         lambda h, mask, weight, bias: (h * mask) @ weight.T),
        ("Weights have shape (out, in): multiply by weight.T.",
         lambda h, mask, weight, bias: (h * mask) @ weight + bias),
    ],
)  # fmt: skip
def apply_mask(h: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A gated block's output (T, D). h (T, N), mask (N,) bool, proj's weight (D, N), bias (D,)."""
    return (h * mask) @ weight.T + bias


@exercise(
    cases=[(*random_tensors((4, 4), (4,), (4, 4), (4,)), _mask("1011")),
           (*random_tensors((6, 3), (6,), (3, 6), (3,)), _mask("110010"))],
    hints=[
        ("You forgot the bias of fc: entry i belongs to neuron i and goes with it.",
         lambda fc, b, proj, c, m: (fc[m], b, proj[:, m], c)),
        ("You cut the rows of proj; its neurons are the columns.",
         lambda fc, b, proj, c, m: (fc[m], b[m], proj[m], c)),
        ("You cut the columns of fc; its neurons are the rows.",
         lambda fc, b, proj, c, m: (fc[:, m], b[m], proj[:, m], c)),
        ("You cut the bias of proj; it belongs to the output, not to a neuron.",
         lambda fc, b, proj, c, m: (fc[m], b[m], proj[:, m], c[m])),
        ("You set weights to zero; that masks. Leave the rows and columns out instead.",
         lambda fc, b, proj, c, m: (fc * m[:, None], b * m, proj * m, c)),
        ("You keep the neurons that should go; True means stay.",
         lambda fc, b, proj, c, m: (fc[~m], b[~m], proj[:, ~m], c)),
    ],
)  # fmt: skip
def remove_neurons(
    fc: Tensor, fc_bias: Tensor, proj: Tensor, proj_bias: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A plain block's four parameters after the cut. fc (N, D), proj (D, N), mask (N,) bool."""
    return fc[mask], fc_bias[mask], proj[:, mask], proj_bias


@exercise(
    cases=[(*random_tensors((4, 4), (4, 4), (4, 4)), _mask("1011")),
           (*random_tensors((6, 3), (6, 3), (3, 6)), _mask("010110"))],
    hints=[
        ("The bug is still there: up keeps its first rows, whatever the mask says.",
         lambda gate, up, down, m: (gate[m], up[: int(m.sum())], down[:, m])),
        ("The gate is cut, up is not: h is a product of the two, so both lose the same rows.",
         lambda gate, up, down, m: (gate[m], up, down[:, m])),
        ("Up is cut, the gate is not: h is a product of the two, so both lose the same rows.",
         lambda gate, up, down, m: (gate, up[m], down[:, m])),
        ("Down is proj: its neurons are the columns.",
         lambda gate, up, down, m: (gate[m], up[m], down[m])),
    ],
)  # fmt: skip
def remove_gated(
    gate: Tensor, up: Tensor, down: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A gated block's weights after the cut. gate and up (N, D), down (D, N), mask (N,) bool."""
    return gate[mask], up[mask], down[:, mask]
