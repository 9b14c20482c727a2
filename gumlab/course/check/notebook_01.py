"""Exercises of notebook 01, a GPT you can look inside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors


@exercise(
    cases=[(128, False, True), (128, True, False), (64, True, True), (32, False, False)],
    hints=[
        ("A gated neuron has two incoming rows, gate and up; you counted one.",
         lambda d, gated, bias: 2 * d + bias),
        ("You forgot the bias: with it, each incoming row brings one more number.",
         lambda d, gated, bias: (3 if gated else 2) * d),
        ("A gated neuron with bias has two of them, one for each incoming row.",
         lambda d, gated, bias: (3 if gated else 2) * d + bias),
        ("You forgot the outgoing weights w_i: they leave with the neuron.",
         lambda d, gated, bias: (2 if gated else 1) * (d + bias)),
        ("The bias of proj belongs to no neuron; it stays when a neuron goes.",
         lambda d, gated, bias: (3 if gated else 2) * (d + bias)),
    ],
)  # fmt: skip
def neuron_parameters(d: int, gated: bool, bias: bool) -> int:
    """How many parameters one neuron has in a model of width d."""
    incoming = 2 if gated else 1
    return incoming * (d + bias) + d


def _silu(z: Tensor) -> Tensor:
    return torch.nn.functional.silu(z)


@exercise(
    cases=[(*random_tensors((5, 3), (4, 3), (4, 3)), torch.relu),
           (*random_tensors((2, 6), (7, 6), (7, 6)), _silu)],
    hints=[
        ("The activation function is on the gate, not on up.",
         lambda x, gate, up, act: (x @ gate.T) * act(x @ up.T)),
        ("You multiply first; the activation function comes before the product, on the gate.",
         lambda x, gate, up, act: act((x @ gate.T) * (x @ up.T))),
        ("The activation function is on the gate alone, not on both.",
         lambda x, gate, up, act: act(x @ gate.T) * act(x @ up.T)),
        ("That is a plain block; a gated one multiplies by x @ up.T as well.",
         lambda x, gate, up, act: act(x @ gate.T)),
        ("Gate and up are multiplied, not added.",
         lambda x, gate, up, act: act(x @ gate.T) + x @ up.T),
    ],
)  # fmt: skip
def gated_activation(x: Tensor, gate: Tensor, up: Tensor, act: Callable) -> Tensor:
    """h of a gated block without bias. x (T, D), gate and up (N, D) by neuron -> (T, N)."""
    return act(x @ gate.T) * (x @ up.T)


@exercise(
    cases=[(*random_tensors((4, 4), (4, 4), (4, 4)), 2),
           (*random_tensors((3, 5), (3, 6), (6, 5)), 1)],
    hints=[
        ("You take away w_i once for each token; neuron i writes h_i times w_i.",
         lambda out, h, outgoing, i: out - outgoing[i]),
        ("h[i] is token i; the activations of neuron i are the column h[:, i].",
         lambda out, h, outgoing, i: out - torch.outer(h[i], outgoing[i])),
        ("outgoing[:, i] is not a neuron; what neuron i writes is the row outgoing[i].",
         lambda out, h, outgoing, i: out - torch.outer(h[:, i], outgoing[:, i])),
        ("That is what neuron i writes; take it away from the output.",
         lambda out, h, outgoing, i: torch.outer(h[:, i], outgoing[i])),
        ("You lost the bias of proj: it stays when a neuron goes. Start from `out`.",
         lambda out, h, outgoing, i: h @ outgoing - torch.outer(h[:, i], outgoing[i])),
    ],
)  # fmt: skip
def without_neuron(out: Tensor, h: Tensor, outgoing: Tensor, i: int) -> Tensor:
    """A block's output (T, D) after neuron i is gone. h (T, N), outgoing (N, D)."""
    return out - torch.outer(h[:, i], outgoing[i])
