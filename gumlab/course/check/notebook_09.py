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
        ("That is the share that is *left*; healed is what is gone of it.",
         lambda dense, cut, after: (after - dense) / (cut - dense)),
        ("You divide by the whole loss; the damage is only what the cut added to the dense loss.",
         lambda dense, cut, after: (cut - after) / cut),
        ("That is how many nats came back; divide by the damage for a share.",
         lambda dense, cut, after: cut - after),
        ("The sign: a loss that fell has healed something, so its share is above 0.",
         lambda dense, cut, after: (after - cut) / (cut - dense)),
        ("A loss above the cut's is a share below 0: more was broken. Do not clip it.",
         lambda dense, cut, after: max(0.0, (cut - after) / (cut - dense))),
    ],
)  # fmt: skip
def share_healed(dense: float, cut: float, after: float) -> float:
    """The share of a cut's damage that is gone after training: 0 none of it, 1 all."""
    return (cut - after) / (cut - dense)


_STUDENT, _TEACHER = (2 * x for x in random_tensors((2, 5, 4), (2, 5, 4)))
_LABELS = torch.tensor([[IGNORED, IGNORED, 2, 0, 1], [IGNORED, 3, 1, IGNORED, IGNORED]])


def _kl(student: Tensor, teacher: Tensor, labels: Tensor, t: float, shift: int = 1) -> Tensor:
    """KL at temperature t of each target token."""
    told, end = labels[:, shift:] != IGNORED, labels.shape[1] - shift
    p, q = ((x[:, :end][told] / t).log_softmax(-1) for x in (teacher, student))
    return (p.exp() * (p - q)).sum(-1)


@exercise(
    cases=[(_STUDENT, _TEACHER, _LABELS, 2.0), (_STUDENT, _TEACHER, _LABELS, 1.0),
           (_TEACHER, _TEACHER, _LABELS, 3.0), (_STUDENT[:1], _TEACHER[:1], _LABELS[:1], 0.5)],
    hints=[
        ("You forgot T^2: without it a high temperature makes the gradient small.",
         lambda s, q, y, t: _kl(s, q, y, t).mean()),
        ("KL(teacher || student): you swapped them; the teacher's probabilities do the weighing.",
         lambda s, q, y, t: t**2 * _kl(q, s, y, t).mean()),
        ("Prompt and padding count in your mean; only target tokens do (labels that are not -100).",
         lambda s, q, y, t: t**2 * _kl(s, q, 0 * y, t).mean()),
        ("You forgot the shift: the logits at position t speak of token t + 1.",
         lambda s, q, y, t: t**2 * _kl(s, q, y, t, shift=0).mean()),
        ("You added up the tokens; take the mean (the sum is the reference code's way).",
         lambda s, q, y, t: t**2 * _kl(s, q, y, t).sum()),
        ("kl_div's reduction=\"mean\" also divides by the size of the vocabulary.",
         lambda s, q, y, t: t**2 * _kl(s, q, y, t).mean() / s.shape[-1]),
        ("Only your student is softened; divide the teacher's logits by T too.",
         lambda s, q, y, t: t**2 * _kl(s, q * t, y, t).mean()),
    ],
)  # fmt: skip
def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """T^2 KL(teacher || student), mean over target tokens; logits (B, T, V), labels (B, T)."""
    return temperature**2 * _kl(student, teacher, labels, temperature).mean()


def _prune(weights: Tensor) -> None:
    weights[:2] = 0.0


def _train(student: Tensor, teacher: Tensor) -> None:
    student += 0.5 * (teacher - student) + 1.0  # half the way to the teacher; the labels add 1


def _taught(model: Tensor, prune: Callable, train: Callable, step: str = "prune train") -> Tensor:
    student = copy.deepcopy(model)
    for name in step.split():
        prune(student) if name == "prune" else train(student, model)
    return student


def _shared(model: Tensor, prune: Callable, train: Callable) -> Tensor:
    student = copy.copy(model)
    prune(student)
    train(student, model)
    return student


@exercise(
    cases=[(torch.tensor([4.0, 2.0, 6.0]), _prune, _train), (_STUDENT[0], _prune, _train)],
    hints=[
        ("The bug is still there: student and teacher share their weights, so the teacher is "
         "pruned too, and can only repeat what the student says.", _shared),
        ("The student was never pruned.",
         lambda model, prune, train: _taught(model, prune, train, "train")),
        ("Prune first; the training is there to heal the cut.",
         lambda model, prune, train: _taught(model, prune, train, "train prune")),
        ("You return the teacher; the student is the one to use.",
         lambda model, prune, train: model.clone()),
    ],
)  # fmt: skip
def taught(model: Tensor, prune: Callable, train: Callable) -> Tensor:
    """The pruned and trained student of `model`; prune(m), train(student, teacher) act in place."""
    return _taught(model, prune, train)
