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


def _block(
    x: Tensor, w_in: Tensor, b: Tensor, w_out: Tensor, b_out: Tensor, act: Callable
) -> Tensor:
    """A plain block's output, all neurons at once."""
    return act(x @ w_in.T + b) @ w_out + b_out


def _silu(z: Tensor) -> Tensor:
    """SiLU, without the further arguments that torch's own takes."""
    return torch.nn.functional.silu(z)


@exercise(
    cases=[
        (*random_tensors((4, 4), (4, 4), (4,), (4, 4), (4,)), torch.relu),
        (*random_tensors((5, 3), (6, 3), (6,), (6, 3), (3,)), _silu),
    ],
    hints=[
        (
            "You forgot the neurons' own bias b: neuron i fires with act(x . row i of w_in + b_i).",
            lambda x, w_in, b, w_out, b_out, act: _block(x, w_in, 0 * b, w_out, b_out, act),
        ),
        (
            "You forgot b_out: it belongs to no neuron, and is there before any of them writes.",
            lambda x, w_in, b, w_out, b_out, act: _block(x, w_in, b, w_out, 0 * b_out, act),
        ),
        (
            "You add b_out once for each neuron; it is there once.",
            lambda x, w_in, b, w_out, b_out, act: _block(x, w_in, b, w_out, len(w_in) * b_out, act),
        ),
        (
            "You forgot the activation function: h_i = act(z_i).",
            lambda x, w_in, b, w_out, b_out, act: _block(x, w_in, b, w_out, b_out, lambda z: z),
        ),
        (
            "The bias comes before the activation function, not after it.",
            lambda x, w_in, b, w_out, b_out, act: (act(x @ w_in.T) + b) @ w_out + b_out,
        ),
        (
            "That is the last neuron alone; add up what all of them write.",
            lambda x, w_in, b, w_out, b_out, act: _block(
                x, w_in[-1:], b[-1:], w_out[-1:], b_out, act
            ),
        ),
        (
            "You missed the last neuron: range(n) goes from 0 to n - 1.",
            lambda x, w_in, b, w_out, b_out, act: _block(
                x, w_in[:-1], b[:-1], w_out[:-1], b_out, act
            ),
        ),
        (
            "Neuron i reads with row i of w_in, w_in[i], not with a column.",
            lambda x, w_in, b, w_out, b_out, act: act(x @ w_in + b) @ w_out + b_out,
        ),
    ],
)
def block_output(
    x: Tensor, w_in: Tensor, b: Tensor, w_out: Tensor, b_out: Tensor, act: Callable
) -> Tensor:
    """Give a plain block's output as the sum of what its neurons write.

    Parameters
    ----------
    x : Tensor
        What enters the block, (T, D).
    w_in : Tensor
        The incoming weights, (N, D), a row for each neuron.
    b : Tensor
        The bias of each neuron, (N,).
    w_out : Tensor
        The outgoing weights, (N, D), a row w_i for each neuron.
    b_out : Tensor
        The bias of the output, (D,).
    act : callable
        The activation function, from a tensor to one of the same shape.

    Returns
    -------
    Tensor
        The output, (T, D).
    """
    return _block(x, w_in, b, w_out, b_out, act)


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
            "Each token needs its own multiple of the row: torch.outer(h[:, i], outgoing[i]).",
            lambda out, h, outgoing, i: out - h[:, i] * outgoing[i],
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


def _ids_of_top(h: Tensor, ids: Tensor, count: int) -> Tensor:
    """The ids of the tokens at which each neuron fires most, (count, N)."""
    return ids[h.topk(count, dim=0).indices]


@exercise(
    cases=[
        (
            torch.tensor([[5.0, 1.0, 9.0], [4.0, 2.0, 0.0], [1.0, 3.0, 8.0], [-6.0, -9.0, 7.0]]),
            torch.tensor([7, 7, 3, 3]),
            2,
        ),
        (
            torch.tensor([[0.5, 2.0, 3.0], [0.9, 1.0, 1.0], [0.8, 1.5, 2.0], [0.1, 0.2, 4.0]]),
            torch.tensor([1, 2, 2, 1]),
            2,
        ),
        (
            torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0], [0.5, 0.1], [0.1, 2.5]]),
            torch.tensor([4, 4, 4, 6, 8]),
            3,
        ),
        (  # the best two places have the same token, the third has another
            torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0], [0.5, 0.1]]),
            torch.tensor([4, 4, 5, 4]),
            3,
        ),
    ],
    hints=[
        (
            "You look along the neurons; go along the tokens: dim=0.",
            lambda h, ids, count: (
                ids[h.topk(count, dim=1).indices] == ids[h.topk(count, dim=1).indices][0]
            ).all(0),
        ),
        (
            "Those are places in the text; look up which tokens stand there: ids[places].",
            lambda h, ids, count: (
                h.topk(count, dim=0).indices == h.topk(count, dim=0).indices[0]
            ).all(0),
        ),
        (
            "One equal token is not enough: all `count` must be the same.",
            lambda h, ids, count: (
                _ids_of_top(h, ids, count)[1:] == _ids_of_top(h, ids, count)[0]
            ).any(0),
        ),
        (
            "You took the tokens where the neurons fire least.",
            lambda h, ids, count: (
                _ids_of_top(-h, ids, count) == _ids_of_top(-h, ids, count)[0]
            ).all(0),
        ),
        (
            "A neuron fires where h is high; far below zero is not firing. Leave abs() out.",
            lambda h, ids, count: (
                _ids_of_top(h.abs(), ids, count) == _ids_of_top(h.abs(), ids, count)[0]
            ).all(0),
        ),
        (
            "Those are the tokens; say for each neuron whether they are all the same.",
            _ids_of_top,
        ),
    ],
)
def one_favourite(h: Tensor, ids: Tensor, count: int) -> Tensor:
    """Tell which neurons fire most at one and the same token.

    Parameters
    ----------
    h : Tensor
        The activations, (T, N).
    ids : Tensor
        Which token stands at each place of the text, (T,).
    count : int
        At how many places to look: those where the neuron fires most.

    Returns
    -------
    Tensor
        (N,) bool: True where the same token stands at all of these places.
    """
    top = _ids_of_top(h, ids, count)
    return (top == top[0]).all(0)
