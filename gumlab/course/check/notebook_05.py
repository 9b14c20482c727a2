"""Exercises of notebook 05, movement."""

from __future__ import annotations

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.selection import top


def _summed(weights: Tensor, gradient: Tensor) -> Tensor:
    """The sum of w dL/dw along each neuron's row, (N,)."""
    return (weights * gradient).sum(1)


@exercise(
    cases=[
        random_tensors((4, 4), (4, 4), (4, 4), (4, 4)),
        random_tensors((3, 5), (3, 5), (3, 2), (3, 2)),
    ],
    hints=[
        (
            "The sign is wrong: this is the gradient itself; the score goes against it later.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                -(_summed(incoming, incoming_grad) + _summed(outgoing, outgoing_grad))
            ),
        ),
        (
            "Movement keeps the sign: |sum| would praise the neuron that the loss wants smaller.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                _summed(incoming, incoming_grad) + _summed(outgoing, outgoing_grad)
            ).abs(),
        ),
        (
            "You forgot the weights: each gradient is multiplied by its own weight, then added up.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                incoming_grad.sum(1) + outgoing_grad.sum(1)
            ),
        ),
        (
            "You multiply the sums; multiply each weight by its own gradient, then add up.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                incoming.sum(1) * incoming_grad.sum(1) + outgoing.sum(1) * outgoing_grad.sum(1)
            ),
        ),
        (
            "You added up over the neurons; a neuron is a row, so add up along it.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                (incoming * incoming_grad).sum(0) + (outgoing * outgoing_grad).sum(0)
            ),
        ),
        (
            "Leave abs() out: the sign says whether the training wants the neuron.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                (incoming * incoming_grad).abs().sum(1) + (outgoing * outgoing_grad).abs().sum(1)
            ),
        ),
        (
            "Take the sum over the neuron's weights, not the mean.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: (
                (incoming * incoming_grad).mean(1) + (outgoing * outgoing_grad).mean(1)
            ),
        ),
        (
            "The outgoing weights are missing.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: _summed(
                incoming, incoming_grad
            ),
        ),
        (
            "The incoming weights are missing.",
            lambda incoming, incoming_grad, outgoing, outgoing_grad: _summed(
                outgoing, outgoing_grad
            ),
        ),
    ],
)
def score_gradient(
    incoming: Tensor, incoming_grad: Tensor, outgoing: Tensor, outgoing_grad: Tensor
) -> Tensor:
    """Give what the loss says of each neuron's score, by the neuron's weights.

    Parameters
    ----------
    incoming, incoming_grad : Tensor
        The incoming weights and dL/dw, (N, K) each, a row for each neuron.
    outgoing, outgoing_grad : Tensor
        The outgoing weights and dL/dw, (N, D) each.

    Returns
    -------
    Tensor
        dL/dS: the sum over all of a neuron's weights of w dL/dw, (N,).
    """
    return _summed(incoming, incoming_grad) + _summed(outgoing, outgoing_grad)


_H, _GRAD = random_tensors((2, 3, 4), (2, 3, 4))


@exercise(
    cases=[
        (_H, torch.tensor([True, False, True, False]), _GRAD),
        (_H, torch.tensor([True, True, True, True]), _GRAD),
    ],
    hints=[
        (
            "h' = m h, so what flows back to h is m times the gradient: mask the first result.",
            lambda h, mask, grad: (grad, (h * grad).sum((0, 1))),
        ),
        (
            "You masked the score's gradient: straight-through uses h, so removed neurons are "
            "heard as well.",
            lambda h, mask, grad: (grad * mask, (h * mask * grad).sum((0, 1))),
        ),
        (
            "The score has one number per neuron: add up over the batch and the tokens.",
            lambda h, mask, grad: (grad * mask, h * grad),
        ),
        (
            "You added up over the neurons; add up over the other two dimensions.",
            lambda h, mask, grad: (grad * mask, (h * grad).sum(-1)),
        ),
        (
            "You added up over the batch alone; the tokens are the second dimension.",
            lambda h, mask, grad: (grad * mask, (h * grad).sum(0)),
        ),
        (
            "The score's gradient is h times the gradient: dh'/dm = h.",
            lambda h, mask, grad: (grad * mask, grad.sum((0, 1))),
        ),
        (
            "Add up, do not take the mean.",
            lambda h, mask, grad: (grad * mask, (h * grad).mean((0, 1))),
        ),
        (
            "The order is (to h, to the score).",
            lambda h, mask, grad: ((h * grad).sum((0, 1)), grad * mask),
        ),
    ],
)
def straight_through(h: Tensor, mask: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradients behind a gate h' = m h, straight through to the score.

    Parameters
    ----------
    h : Tensor
        The activations, (B, T, N).
    mask : Tensor
        m, (N,) bool.
    grad : Tensor
        dL/dh', (B, T, N).

    Returns
    -------
    to_h : Tensor
        The gradient that goes on to h, (B, T, N).
    to_score : Tensor
        The gradient that the scores get, (N,).
    """
    return grad * mask, (h * grad).sum((0, 1))


def _ranked(scores: Tensor) -> Tensor:
    """The scores, the highest first."""
    return scores.sort(descending=True).values


def _count(scores: Tensor, v: float) -> int:
    """How many neurons stay."""
    return round(v * len(scores))


def _moved(scores: Tensor, gradient: Tensor, rate: float, v: float) -> tuple[Tensor, Tensor]:
    """The scores one step on, and the neurons that stay by them."""
    scores = scores - rate * gradient
    return scores, top(scores, _count(scores, v))


def _by_threshold(scores: Tensor, gradient: Tensor, rate: float, v: float) -> tuple:
    """The neurons at or above the score of the last that stays: a tie keeps them all."""
    scores = scores - rate * gradient
    return scores, scores >= _ranked(scores)[_count(scores, v) - 1]


def _last_of_a_tie(scores: Tensor, gradient: Tensor, rate: float, v: float) -> tuple:
    """Of equal scores the last ones stay."""
    scores = scores - rate * gradient
    return scores, top(scores.flip(0), _count(scores, v)).flip(0)


def _never_back(scores: Tensor, gradient: Tensor, rate: float, v: float) -> tuple:
    """The scores of removed neurons set to 0."""
    scores, mask = _moved(scores, gradient, rate, v)
    return scores * mask, mask


_SCORES, _GRADIENT = random_tensors((5,), (5,))


@exercise(
    cases=[
        (_SCORES, _GRADIENT, 0.5, 0.4),
        (torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0]), torch.tensor([4.0, 0, 0, 0, -4]), 0.5, 0.35),
        (torch.zeros(4), torch.zeros(4), 0.1, 0.5),
        (torch.tensor([0.3, -0.1, 0.2]), torch.tensor([1.0, -1.0, 0.0]), 0.1, 1.0),
    ],
    hints=[
        (
            "The sign is wrong: the gradient points uphill, and the score goes down the loss.",
            lambda scores, gradient, rate, v: _moved(scores, gradient, -rate, v),
        ),
        (
            "You choose by the old scores; move them first, then choose.",
            lambda scores, gradient, rate, v: (
                _moved(scores, gradient, rate, v)[0],
                top(scores, _count(scores, v)),
            ),
        ),
        (
            "You forgot the old score: movement accumulates.",
            lambda scores, gradient, rate, v: _moved(torch.zeros_like(scores), gradient, rate, v),
        ),
        (
            "You forgot the rate.",
            lambda scores, gradient, rate, v: _moved(scores, gradient, 1.0, v),
        ),
        ("A threshold with >= keeps every neuron of a tie; take exactly `count`.", _by_threshold),
        (
            "Of equal scores the first should stay, not the last. torch.topk promises no order "
            "among them; argsort(descending=True, stable=True) does.",
            _last_of_a_tie,
        ),
        (
            "int() cuts the fraction off; keep exactly round(v * N).",
            lambda scores, gradient, rate, v: _moved(
                scores, gradient, rate, int(v * len(scores)) / len(scores)
            ),
        ),
        (
            "You set the scores of removed neurons to 0; they keep their scores, or none of them "
            "could come back by its own merit.",
            _never_back,
        ),
        (
            "The order is (scores, mask).",
            lambda scores, gradient, rate, v: _moved(scores, gradient, rate, v)[::-1],
        ),
    ],
)
def movement_step(scores: Tensor, gradient: Tensor, rate: float, v: float) -> tuple[Tensor, Tensor]:
    """Do one step of hard movement: move the scores, then choose the highest.

    Parameters
    ----------
    scores : Tensor
        The scores S before the step, (N,).
    gradient : Tensor
        dL/dS, (N,).
    rate : float
        The rate.
    v : float
        v_t, the fraction of neurons that the schedule keeps at this step.

    Returns
    -------
    scores : Tensor
        S - rate * gradient, (N,).
    mask : Tensor
        The neurons that stay, (N,) bool: exactly round(v N) are True, of a tie the first.
    """
    return _moved(scores, gradient, rate, v)


def _adam(
    score: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    power: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of Adam, its two memories and the power of the mean square being free."""
    of_mean, of_square = betas
    mean = of_mean * mean + (1 - of_mean) * gradient
    square = of_square * square + (1 - of_square) * gradient.square()
    steady_mean = mean / (1 - of_mean**step)
    steady_square = square / (1 - of_square**step)
    return score - rate * steady_mean / (steady_square**power + 1e-8), mean, square


def _uncorrected(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam without the correction of its first steps."""
    return _adam(score, gradient, mean, square, 10**9, rate)


def _corrected_state(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam that hands on the corrected means instead of the means."""
    score, mean, square = _adam(score, gradient, mean, square, step, rate)
    return score, mean / (1 - 0.9**step), square / (1 - 0.999**step)


def _epsilon_inside(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam with its small number under the root."""
    _, mean, square = _adam(score, gradient, mean, square, step, rate)
    root = (square / (1 - 0.999**step) + 1e-8).sqrt()
    return score - rate * mean / (1 - 0.9**step) / root, mean, square


def _old_means_first(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam whose score moves by the means as they were before this gradient."""
    root = (square / (1 - 0.999**step)).sqrt() + 1e-8
    moved = score - rate * mean / (1 - 0.9**step) / root
    return moved, *_adam(score, gradient, mean, square, step, rate)[1:]


def _no_small_number(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam without its small number."""
    _, mean, square = _adam(score, gradient, mean, square, step, rate)
    root = (square / (1 - 0.999**step)).sqrt()
    return score - rate * mean / (1 - 0.9**step) / root, mean, square


_ADAM = random_tensors((4,), (4,), (4,), (4,))


@exercise(
    cases=[
        (torch.zeros(3), torch.tensor([1.0, -2.0, 0.5]), torch.zeros(3), torch.zeros(3), 1, 0.5),
        (*_ADAM[:3], _ADAM[3].square(), 7, 0.1),
        (_ADAM[2], _ADAM[0], _ADAM[1], _ADAM[3].square() + 1, 400, 0.3),
        # gradients as small as real ones: the small number must not outweigh them
        (torch.zeros(2), torch.tensor([2e-4, -1e-4]), torch.zeros(2), torch.zeros(2), 1, 0.5),
    ],
    hints=[
        (
            "You forgot to correct the means: divide them by 1 - 0.9**step and 1 - 0.999**step.",
            _uncorrected,
        ),
        (
            "The sign is wrong: the score goes against the gradient.",
            lambda score, gradient, mean, square, step, rate: _adam(
                score, gradient, mean, square, step, -rate
            ),
        ),
        (
            "You swapped the two memories: the mean has 0.9, the mean square 0.999.",
            lambda score, gradient, mean, square, step, rate: _adam(
                score, gradient, mean, square, step, rate, betas=(0.999, 0.9)
            ),
        ),
        (
            "You forgot the root of the mean square.",
            lambda score, gradient, mean, square, step, rate: _adam(
                score, gradient, mean, square, step, rate, power=1.0
            ),
        ),
        (
            "Hand on the two means as they are: the corrected ones serve for this step alone.",
            _corrected_state,
        ),
        (
            "Add 1e-8 after the root; under it, it outweighs small gradients.",
            _epsilon_inside,
        ),
        (
            "The 1e-8 is missing below the line; without it a gradient of 0 would give 0 / 0.",
            _no_small_number,
        ),
        (
            "The score moves by the old means; first bring both up to date.",
            _old_means_first,
        ),
        (
            "You hand on the old means; return the new ones.",
            lambda score, gradient, mean, square, step, rate: (
                _adam(score, gradient, mean, square, step, rate)[0],
                mean,
                square,
            ),
        ),
        (
            "The score is the new one, old score included: movement accumulates.",
            lambda score, gradient, mean, square, step, rate: _adam(
                torch.zeros_like(score), gradient, mean, square, step, rate
            ),
        ),
    ],
)
def adam_step(
    score: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the scores by one step of Adam.

    Parameters
    ----------
    score, gradient : Tensor
        S before the step, and dL/dS, (N,) each.
    mean, square : Tensor
        The running means of the gradient and of its square before the step, (N,) each; 0 at first.
    step : int
        The number of this step, from 1.
    rate : float
        The rate.

    Returns
    -------
    score, mean, square : Tensor
        After the step, (N,) each.
    """
    return _adam(score, gradient, mean, square, step, rate)


def _soft(scores: Tensor, threshold: float, least: int) -> Tensor:
    """The neurons above a threshold, and at least so many."""
    return (torch.sigmoid(scores) > threshold) | top(scores, least)


def _rising(v: float, keep: float) -> float:
    """tau, which rises as v falls from 1 to keep."""
    return 0.1 * (1 - v) / (1 - keep)


def _guard(scores: Tensor, keep: float) -> int:
    """How many neurons stay at least."""
    return int(keep * len(scores)) + 1


@exercise(
    cases=[
        (torch.tensor([-3.0, -2.5, -1.0, 0.5, -4.0]), 0.4, 0.2),
        (torch.tensor([-5.0, -6.0, -7.0, -5.5, -8.0]), 0.35, 0.35),
        (torch.tensor([0.0, -200.0, 1.0, 2.0]), 1.0, 0.5),
        (torch.tensor([0.05, 1.0, -0.05, 2.0, 3.0, 0.2]), 0.3, 0.3),
        # one between a right threshold and those of a wrong sign or a product for the quotient
        (torch.tensor([3.0, 2.0, 1.0, -2.944, -2.2, -5.0, -6.0, -7.0]), 0.5, 0.25),
        (torch.tensor([-5.0, -6.0, -7.0, -8.0]), 0.25, 0.25),  # all by the guard, and 1 is whole
    ],
    hints=[
        (
            "The guard is missing: at least int(keep N) + 1 neurons stay.",
            lambda scores, v, keep: torch.sigmoid(scores) > _rising(v, keep),
        ),
        (
            "The guard has one neuron more: int(keep N) + 1.",
            lambda scores, v, keep: _soft(scores, _rising(v, keep), int(keep * len(scores))),
        ),
        (
            "The guard rounds down before it adds 1: int(keep N) + 1.",
            lambda scores, v, keep: _soft(scores, _rising(v, keep), round(keep * len(scores)) + 1),
        ),
        (
            "The guard has int(keep N) + 1 neurons, not round(keep N).",
            lambda scores, v, keep: _soft(scores, _rising(v, keep), round(keep * len(scores))),
        ),
        (
            "The guard goes by keep, the fraction at the end, not by v.",
            lambda scores, v, keep: _soft(scores, _rising(v, keep), _guard(scores, v)),
        ),
        (
            "Your threshold is 0.1 from the start; it rises from 0 as v falls from 1 to keep.",
            lambda scores, v, keep: _soft(scores, 0.1, _guard(scores, keep)),
        ),
        (
            "Your threshold falls as v falls; it should rise from 0 at v = 1 to 0.1 at v = keep.",
            lambda scores, v, keep: _soft(scores, 0.1 - _rising(v, keep), _guard(scores, keep)),
        ),
        (
            "Your threshold does not reach 0.1: divide by 1 - keep.",
            lambda scores, v, keep: _soft(scores, 0.1 * (1 - v), _guard(scores, keep)),
        ),
        (
            "You compare the scores themselves; the threshold is for sigmoid(S).",
            lambda scores, v, keep: (scores > _rising(v, keep)) | top(scores, _guard(scores, keep)),
        ),
        (
            "Above the threshold means >: at threshold 0 a sigmoid that has become 0 goes.",
            lambda scores, v, keep: (
                (torch.sigmoid(scores) >= _rising(v, keep)) | top(scores, _guard(scores, keep))
            ),
        ),
        (
            "You join the two with `and`; a neuron stays by the threshold or by the guard.",
            lambda scores, v, keep: (
                (torch.sigmoid(scores) > _rising(v, keep)) & top(scores, _guard(scores, keep))
            ),
        ),
    ],
)
def soft_mask(scores: Tensor, v: float, keep: float) -> Tensor:
    """Choose the neurons of a layer that stay in soft movement.

    Parameters
    ----------
    scores : Tensor
        S, (N,).
    v : float
        v_t, the fraction that the schedule keeps at this step.
    keep : float
        The fraction at the end, below 1.

    Returns
    -------
    Tensor
        The mask, (N,) bool: sigmoid(S) above a threshold that rises from 0 to 0.1 as v falls from 1
        to keep, or one of the int(keep N) + 1 best.
    """
    return _soft(scores, _rising(v, keep), _guard(scores, keep))
