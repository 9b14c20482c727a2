"""Exercises of notebook 09, healing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.tasks.batches import IGNORED


@exercise(
    cases=[(0.5, 4.5, 0.9), (0.4, 1.2, 0.5), (0.44, 0.56, 0.6)],
    hints=[
        (
            "That is the share that is *left*; healed is what is gone of it.",
            lambda dense, cut, after: (after - dense) / (cut - dense),
        ),
        (
            "You divide by the whole loss; the damage is only what the cut added to the dense "
            "loss.",
            lambda dense, cut, after: (cut - after) / cut,
        ),
        (
            "That is how many nats came back; divide by the damage for a share.",
            lambda dense, cut, after: cut - after,
        ),
        (
            "The sign: a loss that fell has healed something, so its share is above 0.",
            lambda dense, cut, after: (after - cut) / (cut - dense),
        ),
        (
            "A loss above the cut's is a share below 0: more was broken. Do not clip it.",
            lambda dense, cut, after: max(0.0, (cut - after) / (cut - dense)),
        ),
    ],
)
def share_healed(dense: float, cut: float, after: float) -> float:
    """Give the share of a cut's damage that is gone after training.

    Parameters
    ----------
    dense, cut, after : float
        The loss of the dense model, right after the cut, and after the training.

    Returns
    -------
    float
        0 if none of the damage is gone, 1 if all is.
    """
    return (cut - after) / (cut - dense)


_STUDENT, _TEACHER = (2 * logits for logits in random_tensors((2, 5, 4), (2, 5, 4)))
_LABELS = torch.tensor([[IGNORED, IGNORED, 2, 0, 1], [IGNORED, 3, 1, IGNORED, IGNORED]])


def _kl(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, shift: int = 1
) -> Tensor:
    """KL(teacher || student) at a temperature, of each target token."""
    is_target = labels[:, shift:] != IGNORED
    tokens = labels.shape[1] - shift
    log_p = (teacher[:, :tokens][is_target] / temperature).log_softmax(-1)
    log_q = (student[:, :tokens][is_target] / temperature).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@exercise(
    cases=[
        (_STUDENT, _TEACHER, _LABELS, 2.0),
        (_STUDENT, _TEACHER, _LABELS, 1.0),
        (_TEACHER, _TEACHER, _LABELS, 3.0),
        (_STUDENT[:1], _TEACHER[:1], _LABELS[:1], 0.5),
    ],
    hints=[
        (
            "You forgot T^2: without it a high temperature makes the gradient small.",
            lambda student, teacher, labels, temperature: _kl(
                student, teacher, labels, temperature
            ).mean(),
        ),
        (
            "KL(teacher || student): you swapped them; the teacher's probabilities do the "
            "weighing.",
            lambda student, teacher, labels, temperature: (
                temperature**2 * _kl(teacher, student, labels, temperature).mean()
            ),
        ),
        (
            "Prompt and padding count in your mean; only target tokens do (labels that are not "
            "-100).",
            lambda student, teacher, labels, temperature: (
                temperature**2 * _kl(student, teacher, 0 * labels, temperature).mean()
            ),
        ),
        (
            "You forgot the shift: the logits at position t speak of token t + 1.",
            lambda student, teacher, labels, temperature: (
                temperature**2 * _kl(student, teacher, labels, temperature, shift=0).mean()
            ),
        ),
        (
            "You added up the tokens; take the mean (the sum is the reference code's way).",
            lambda student, teacher, labels, temperature: (
                temperature**2 * _kl(student, teacher, labels, temperature).sum()
            ),
        ),
        (
            'kl_div\'s reduction="mean" also divides by the size of the vocabulary.',
            lambda student, teacher, labels, temperature: (
                temperature**2
                * _kl(student, teacher, labels, temperature).mean()
                / student.shape[-1]
            ),
        ),
        (
            "Only your student is softened; divide the teacher's logits by T too.",
            lambda student, teacher, labels, temperature: (
                temperature**2 * _kl(student, teacher * temperature, labels, temperature).mean()
            ),
        ),
    ],
)
def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """Give the loss by which a student learns from its teacher.

    Parameters
    ----------
    student, teacher : Tensor
        Their logits, (B, T, V) each.
    labels : Tensor
        The labels, (B, T), -100 where a token is no target.
    temperature : float
        T, which softens both.

    Returns
    -------
    Tensor
        T^2 KL(teacher || student), the mean over the target tokens.
    """
    return temperature**2 * _kl(student, teacher, labels, temperature).mean()


def _prune(weights: Tensor) -> None:
    """What stands for pruning: the first two go."""
    weights[:2] = 0.0


def _train(student: Tensor, teacher: Tensor) -> None:
    """What stands for training: half the way to the teacher, and 1 for the labels."""
    student += 0.5 * (teacher - student) + 1.0


def _taught(
    model: Tensor, prune: Callable, train: Callable, duplicate: Callable = copy.deepcopy
) -> Tensor:
    student = duplicate(model)
    prune(student)
    train(student, model)
    return student


def _never_pruned(model: Tensor, prune: Callable, train: Callable) -> Tensor:
    student = copy.deepcopy(model)
    train(student, model)
    return student


def _pruned_last(model: Tensor, prune: Callable, train: Callable) -> Tensor:
    student = copy.deepcopy(model)
    train(student, model)
    prune(student)
    return student


@exercise(
    cases=[(torch.tensor([4.0, 2.0, 6.0]), _prune, _train), (_STUDENT[0], _prune, _train)],
    hints=[
        (
            "The bug is still there: student and teacher share their weights, so the teacher is "
            "pruned too, and can only repeat what the student says.",
            lambda model, prune, train: _taught(model, prune, train, duplicate=copy.copy),
        ),
        (
            "The student was never pruned.",
            _never_pruned,
        ),
        (
            "Prune first; the training is there to heal the cut.",
            _pruned_last,
        ),
        (
            "You return the teacher; the student is the one to use.",
            lambda model, prune, train: model.clone(),
        ),
    ],
)
def taught(model: Tensor, prune: Callable, train: Callable) -> Tensor:
    """Make a pruned student and train it with the model as its teacher.

    Parameters
    ----------
    model : Module
        The dense model; it stays as it is.
    prune : callable
        prune(model) prunes a model in place.
    train : callable
        train(student, teacher) trains a student in place.

    Returns
    -------
    Module
        The student.
    """
    return _taught(model, prune, train)
