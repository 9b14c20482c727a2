"""Exercises of notebook 04, magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top

Layers = list[Tensor]  # a (N,) tensor per layer

_INCOMING, _OUTGOING, _SQUARE_INCOMING, _SQUARE_OUTGOING = random_tensors(
    (6, 4), (6, 3), (3, 3), (3, 3)
)


def _norms(incoming: Tensor, outgoing: Tensor) -> tuple[Tensor, Tensor]:
    """Each neuron's norm in the two matrices, (N,) each."""
    return incoming.norm(dim=1), outgoing.norm(dim=1)


@exercise(
    cases=[
        (torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[12.0], [1.0]])),
        (_INCOMING, _OUTGOING),
        (_SQUARE_INCOMING, _SQUARE_OUTGOING),
    ],
    hints=[
        (
            "You forgot the root.",
            lambda incoming, outgoing: incoming.square().sum(1) + outgoing.square().sum(1),
        ),
        (
            "You add the two norms; add the squares of all weights, then take one root.",
            lambda incoming, outgoing: incoming.norm(dim=1) + outgoing.norm(dim=1),
        ),
        (
            "You add absolute values (L1); L2 adds squares and takes the root.",
            lambda incoming, outgoing: incoming.abs().sum(1) + outgoing.abs().sum(1),
        ),
        ("The outgoing weights are missing.", lambda incoming, outgoing: incoming.norm(dim=1)),
        ("The incoming weights are missing.", lambda incoming, outgoing: outgoing.norm(dim=1)),
        (
            "That is the mean of the squares; a length has their sum under its root.",
            lambda incoming, outgoing: torch.cat([incoming, outgoing], 1).square().mean(1).sqrt(),
        ),
        (
            "You add up columns; a neuron is a row: sum over dim=1.",
            lambda incoming, outgoing: (incoming.square().sum(0) + outgoing.square().sum(0)).sqrt(),
        ),
    ],
)
def neuron_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Give the magnitude of each neuron.

    Parameters
    ----------
    incoming, outgoing : Tensor
        The weights, (N, K) and (N, D), a row for each neuron.

    Returns
    -------
    Tensor
        sqrt(||W_in,i||^2 + ||w_i||^2), (N,).
    """
    return torch.hypot(*_norms(incoming, outgoing))


def _masks(*rows: str) -> Layers:
    """The masks of layers: True where a row has an x."""
    return [torch.tensor([letter == "x" for letter in row]) for row in rows]


def _kept(masks: Layers) -> int:
    """How many neurons masks keep together."""
    return sum(int(mask.sum()) for mask in masks)


def _in_both(masks: Layers, others: Layers) -> Layers:
    """The neurons that both choices keep."""
    return [mask & other for mask, other in zip(masks, others, strict=True)]


def _in_either(masks: Layers, others: Layers) -> Layers:
    """The neurons that at least one choice keeps."""
    return [mask | other for mask, other in zip(masks, others, strict=True)]


def _mean_of_layers(masks: Layers, others: Layers) -> float:
    """Each layer's share of shared neurons, averaged over the layers."""
    pairs = zip(_in_both(masks, others), masks, strict=True)
    shares = [float(both.sum() / mask.sum()) for both, mask in pairs]
    return sum(shares) / len(shares)


def _squares(magnitudes: Layers) -> Tensor:
    """The squared magnitudes of all layers' neurons, one behind the other."""
    return torch.cat(magnitudes).square()


def _share_gone(sizes: Tensor, masks: Layers) -> float:
    """Which share of the neurons' sizes those have that go."""
    return float(sizes[~torch.cat(masks)].sum() / sizes.sum())


def _mean_lost(magnitudes: Layers, masks: Layers) -> float:
    """Each layer's lost share, averaged over the layers."""
    pairs = zip(magnitudes, masks, strict=True)
    shares = [_share_gone(one.square(), [mask]) for one, mask in pairs]
    return sum(shares) / len(shares)


@exercise(
    cases=[
        ([torch.tensor([3.0, 4.0])], _masks(".x")),
        ([torch.tensor([3.0, 4.0, 1.0]), torch.tensor([2.0, 0.5])], _masks("x.x", ".x")),
        ([_INCOMING.norm(dim=1), _OUTGOING.norm(dim=1)], _masks("x..xx.", ".x...x")),
        ([torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0, 7.0])], _masks("xx", "x..")),
    ],
    hints=[
        (
            "Those are lengths; squares add up, lengths do not: square the magnitudes first.",
            lambda magnitudes, masks: _share_gone(torch.cat(magnitudes), masks),
        ),
        (
            "That is what stays; ask for what goes.",
            lambda magnitudes, masks: 1 - _share_gone(_squares(magnitudes), masks),
        ),
        (
            "That is the fraction of the neurons that go, large or small.",
            lambda magnitudes, masks: _share_gone(torch.ones(len(_squares(magnitudes))), masks),
        ),
        (
            "You average the layers' shares; add up over all layers first, and divide once.",
            _mean_lost,
        ),
        (
            "You divide by what stays; divide by the squares of all neurons.",
            lambda magnitudes, masks: 1 / (1 / _share_gone(_squares(magnitudes), masks) - 1),
        ),
        (
            "That is how much goes; divide by the squares of all neurons.",
            lambda magnitudes, masks: float(_squares(magnitudes)[~torch.cat(masks)].sum()),
        ),
        (
            "You took the root at the end; the fraction is that of the squares.",
            lambda magnitudes, masks: _share_gone(_squares(magnitudes), masks) ** 0.5,
        ),
        (
            "You stopped after the first layer: does `return` stand inside the loop?",
            lambda magnitudes, masks: _share_gone(_squares(magnitudes[:1]), masks[:1]),
        ),
    ],
)
def weight_lost(magnitudes: Layers, masks: Layers) -> float:
    """Say how much of the weights a choice throws away.

    Parameters
    ----------
    magnitudes : list of Tensor
        The magnitude of each neuron, a (N,) tensor per layer.
    masks : list of Tensor
        Who stays, a (N,) bool tensor per layer.

    Returns
    -------
    float
        Of the squares of all weights of all neurons, the fraction in the neurons that go.
    """
    return _share_gone(_squares(magnitudes), masks)


@exercise(
    cases=[
        (_masks("xx..", "x..."), _masks("x.x.", ".x..")),
        (_masks("xxx.", ".x"), _masks("xx.x", ".x")),
        (_masks("x...", "xxx."), _masks("xx..", "..xx")),
        (_masks("xx..x"), _masks("x....")),
    ],
    hints=[
        (
            "You divide by all neurons; divide by those that the first choice keeps.",
            lambda masks, others: _kept(_in_both(masks, others)) / sum(len(mask) for mask in masks),
        ),
        (
            "You count the neurons that both remove as well; count only those that both keep.",
            lambda masks, others: float(torch.cat(masks).eq(torch.cat(others)).float().mean()),
        ),
        (
            "You average the layers' shares; count over all layers first, and divide once.",
            _mean_of_layers,
        ),
        (
            "You divide by the neurons that at least one choice keeps; divide by the first's.",
            lambda masks, others: _kept(_in_both(masks, others)) / _kept(_in_either(masks, others)),
        ),
        (
            "You divide by what the second choice keeps; divide by the first's.",
            lambda masks, others: _kept(_in_both(masks, others)) / _kept(others),
        ),
        (
            "That is how many; divide by how many the first choice keeps.",
            lambda masks, others: _kept(_in_both(masks, others)),
        ),
        (
            "You stopped after the first layer: does `return` stand inside the loop?",
            lambda masks, others: _kept(_in_both(masks[:1], others[:1])) / _kept(masks[:1]),
        ),
    ],
)
def shared(masks: Layers, others: Layers) -> float:
    """Say how much of a choice another choice shares.

    Parameters
    ----------
    masks, others : list of Tensor
        Two choices, a (N,) bool tensor per layer each.

    Returns
    -------
    float
        Of the neurons that `masks` keeps, in all layers together, the fraction that `others` keeps.
    """
    return _kept(_in_both(masks, others)) / _kept(masks)


Block = tuple[Tensor, Tensor, Tensor]  # incoming weights, bias, outgoing weights


def _rescaled(incoming: Tensor, bias: Tensor, outgoing: Tensor, a: Tensor) -> Block:
    """The rescaled block."""
    return incoming * a[:, None], bias * a, outgoing / a[:, None]


@exercise(
    cases=[
        (*random_tensors((4, 3), (4,), (4, 2)), torch.tensor([2.0, 0.5, 4.0, 1.0])),
        (*random_tensors((3, 3), (3,), (3, 3)), torch.tensor([3.0, 0.25, 2.0])),
    ],
    hints=[
        (
            "You forgot the bias: a h = max(0, a z), and z has the bias in it.",
            lambda incoming, bias, outgoing, a: (
                incoming * a[:, None],
                bias,
                outgoing / a[:, None],
            ),
        ),
        (
            "You left the outgoing weights as they are; then the neuron writes a times as much.",
            lambda incoming, bias, outgoing, a: (incoming * a[:, None], bias * a, outgoing),
        ),
        (
            "You multiply the outgoing weights, too; divide them by a.",
            lambda incoming, bias, outgoing, a: (
                incoming * a[:, None],
                bias * a,
                outgoing * a[:, None],
            ),
        ),
        (
            "It is the other way round: multiply what comes in, divide what goes out.",
            lambda incoming, bias, outgoing, a: _rescaled(incoming, bias, outgoing, 1 / a),
        ),
        (
            "You scale columns; a neuron is a row: a[:, None] has one number for each row.",
            lambda incoming, bias, outgoing, a: (incoming * a, bias * a, outgoing / a),
        ),
        (
            "You divide the bias; it belongs to z, so it is multiplied.",
            lambda incoming, bias, outgoing, a: (
                incoming * a[:, None],
                bias / a,
                outgoing / a[:, None],
            ),
        ),
    ],
)
def rescale(incoming: Tensor, bias: Tensor, outgoing: Tensor, a: Tensor) -> Block:
    """Rescale the neurons of a ReLU block without changing what the block computes.

    Parameters
    ----------
    incoming, bias, outgoing : Tensor
        The weights, (N, K), (N,) and (N, D), a row for each neuron.
    a : Tensor
        A positive number for each neuron, (N,).

    Returns
    -------
    incoming, bias, outgoing : Tensor
        The weights of the rescaled block: what comes in times a, what goes out divided by a.
    """
    return _rescaled(incoming, bias, outgoing, a)


def _both(norm_in: Tensor, norm_out: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The masks of the two matrices, each by its own norms."""
    count = round(keep * len(norm_in))
    return top(norm_in, count), top(norm_out, count)


@exercise(
    cases=[
        (torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5),
        (torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), 0.4),
        (_INCOMING.norm(dim=1), _OUTGOING.norm(dim=1), 0.6),
        (torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 4.0, 3.0, 2.0]), 0.7),  # 2.8
    ],
    hints=[
        (
            "Those keep at least one side; whole means both sides.",
            lambda norm_in, norm_out, keep: torch.logical_or(*_both(norm_in, norm_out, keep)),
        ),
        (
            "Those keep one side alone; whole means both sides.",
            lambda norm_in, norm_out, keep: torch.logical_xor(*_both(norm_in, norm_out, keep)),
        ),
        (
            "You rank the neuron as one, as gumlab does; here each matrix ranks by its own norms.",
            lambda norm_in, norm_out, keep: top(
                torch.hypot(norm_in, norm_out), round(keep * len(norm_in))
            ),
        ),
        (
            "That is the mask of the incoming matrix alone.",
            lambda norm_in, norm_out, keep: _both(norm_in, norm_out, keep)[0],
        ),
        (
            "That is the mask of the outgoing matrix alone.",
            lambda norm_in, norm_out, keep: _both(norm_in, norm_out, keep)[1],
        ),
        (
            "You keep the smallest norms; a large norm means stay.",
            lambda norm_in, norm_out, keep: torch.logical_and(*_both(-norm_in, -norm_out, keep)),
        ),
        (
            "That is how many; return the mask, one bool per neuron.",
            lambda norm_in, norm_out, keep: int(
                torch.logical_and(*_both(norm_in, norm_out, keep)).sum()
            ),
        ),
    ],
)
def stay_whole(norm_in: Tensor, norm_out: Tensor, keep: float) -> Tensor:
    """Find the neurons that stay whole when each matrix is pruned by itself.

    Parameters
    ----------
    norm_in, norm_out : Tensor
        The norm of each neuron's incoming and of its outgoing weights, (N,) each.
    keep : float
        The fraction of neurons that each matrix keeps.

    Returns
    -------
    Tensor
        The mask, (N,) bool, of the neurons that both matrices keep.
    """
    return torch.logical_and(*_both(norm_in, norm_out, keep))


@exercise(
    cases=[
        (torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[10.0], [2.0]])),
        (_INCOMING, _OUTGOING),
    ],
    hints=[
        (
            "You take the smallest sum of squares, 2 I O; a magnitude is its root.",
            lambda incoming, outgoing: 2 * incoming.norm(dim=1) * outgoing.norm(dim=1),
        ),
        (
            "I O gives the same ranks, but it is no magnitude: put the best a into the formula.",
            lambda incoming, outgoing: incoming.norm(dim=1) * outgoing.norm(dim=1),
        ),
        (
            "At the best a the two sides are equal, I O each; both belong under the root.",
            lambda incoming, outgoing: (incoming.norm(dim=1) * outgoing.norm(dim=1)).sqrt(),
        ),
        (
            "You made the incoming norm 1. That is one rescaling, not the one with the least "
            "weight.",
            lambda incoming, outgoing: torch.hypot(
                torch.ones(len(incoming)), incoming.norm(dim=1) * outgoing.norm(dim=1)
            ),
        ),
        (
            "That is the magnitude as it stands, a = 1; look for the best a.",
            lambda incoming, outgoing: torch.hypot(*_norms(incoming, outgoing)),
        ),
        (
            "The smaller of the two norms changes with a as well.",
            lambda incoming, outgoing: torch.minimum(*_norms(incoming, outgoing)),
        ),
    ],
)
def smallest_magnitude(incoming: Tensor, outgoing: Tensor) -> Tensor:
    """Give the least magnitude that rescaling can give each neuron.

    Parameters
    ----------
    incoming, outgoing : Tensor
        The weights, (N, K) and (N, D), a row for each neuron. A rescaling multiplies a
        neuron's incoming weights by some a > 0 and divides its outgoing weights by it.

    Returns
    -------
    Tensor
        The least magnitude, sqrt(2 I O) with the norms I and O, (N,).
    """
    norm_in, norm_out = _norms(incoming, outgoing)
    return (2 * norm_in * norm_out).sqrt()
