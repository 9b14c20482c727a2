"""Exercises of notebook 01, a GPT you can look inside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


@exercise(
    cases=[(128, False, True), (128, True, False), (64, True, True), (32, False, False)],
    hints=[
        (
            "A gated neuron has two incoming rows, gate and up; you counted one.",
            lambda d, gated, bias: 2 * d + bias,
        ),
        (
            "You forgot the bias: with it, each incoming row brings one more number.",
            lambda d, gated, bias: (3 if gated else 2) * d,
        ),
        (
            "A gated neuron with bias has two of them, one for each incoming row.",
            lambda d, gated, bias: (3 if gated else 2) * d + bias,
        ),
        (
            "You forgot the outgoing weights w_i: they leave with the neuron.",
            lambda d, gated, bias: (2 if gated else 1) * (d + bias),
        ),
        (
            "The bias of proj belongs to no neuron; it stays when a neuron goes.",
            lambda d, gated, bias: (3 if gated else 2) * (d + bias),
        ),
    ],
)
def neuron_parameters(d: int, gated: bool, bias: bool) -> int:
    """Count the parameters of one feed-forward neuron.

    Parameters
    ----------
    d : int
        The model's width D.
    gated : bool
        Whether the block is gated, with a row of gate and one of up for each neuron.
    bias : bool
        Whether the maps into the neurons have a bias.

    Returns
    -------
    int
        How many parameters leave the model with the neuron.
    """
    incoming = 2 if gated else 1
    return incoming * (d + bias) + d


def _silu(z: Tensor) -> Tensor:
    """SiLU, without the further arguments that torch's own takes."""
    return torch.nn.functional.silu(z)


@exercise(
    cases=[
        (*random_tensors((5, 3), (4, 3), (4, 3)), torch.relu),
        (*random_tensors((2, 6), (7, 6), (7, 6)), _silu),
    ],
    hints=[
        (
            "The activation function is on the gate, not on up.",
            lambda x, gate, up, act: (x @ gate.T) * act(x @ up.T),
        ),
        (
            "You multiply first; the activation function comes before the product, on the gate.",
            lambda x, gate, up, act: act((x @ gate.T) * (x @ up.T)),
        ),
        (
            "The activation function is on the gate alone, not on both.",
            lambda x, gate, up, act: act(x @ gate.T) * act(x @ up.T),
        ),
        (
            "That is a plain block; a gated one multiplies by x @ up.T as well.",
            lambda x, gate, up, act: act(x @ gate.T),
        ),
        (
            "Gate and up are multiplied, not added.",
            lambda x, gate, up, act: act(x @ gate.T) + x @ up.T,
        ),
    ],
)
def gated_activation(x: Tensor, gate: Tensor, up: Tensor, act: Callable) -> Tensor:
    """Give the activations of a gated block without bias.

    Parameters
    ----------
    x : Tensor
        What enters the block, (T, D).
    gate, up : Tensor
        The weights, (N, D) each, a row for each neuron.
    act : callable
        The activation function, from a tensor to one of the same shape.

    Returns
    -------
    Tensor
        h, (T, N).
    """
    return act(x @ gate.T) * (x @ up.T)


@exercise(
    cases=[
        (*random_tensors((4, 4), (4, 4), (4, 4)), 2),
        (*random_tensors((3, 5), (3, 6), (6, 5)), 1),
    ],
    hints=[
        (
            "You take away w_i once for each token; neuron i writes h_i times w_i.",
            lambda out, h, outgoing, i: out - outgoing[i],
        ),
        (
            "h[i] is token i; the activations of neuron i are the column h[:, i].",
            lambda out, h, outgoing, i: out - torch.outer(h[i], outgoing[i]),
        ),
        (
            "outgoing[:, i] is not a neuron; what neuron i writes is the row outgoing[i].",
            lambda out, h, outgoing, i: out - torch.outer(h[:, i], outgoing[:, i]),
        ),
        (
            "That is what neuron i writes; take it away from the output.",
            lambda out, h, outgoing, i: torch.outer(h[:, i], outgoing[i]),
        ),
        (
            "You lost the bias of proj: it stays when a neuron goes. Start from `out`.",
            lambda out, h, outgoing, i: h @ outgoing - torch.outer(h[:, i], outgoing[i]),
        ),
    ],
)
def without_neuron(out: Tensor, h: Tensor, outgoing: Tensor, i: int) -> Tensor:
    """Give a block's output after one of its neurons is gone.

    Parameters
    ----------
    out : Tensor
        The block's output with all neurons, (T, D).
    h : Tensor
        The activations, (T, N).
    outgoing : Tensor
        The outgoing weights, (N, D), a row w_i for each neuron.
    i : int
        The neuron that goes.

    Returns
    -------
    Tensor
        The output, (T, D).
    """
    return out - torch.outer(h[:, i], outgoing[i])
