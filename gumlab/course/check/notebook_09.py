"""Exercises of notebook 09, healing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.course.check.judging import exercise, random_tensors
from gumlab.tasks.batches import IGNORED

# --- the loop: a model that says of each token which comes next, by a table


class Table(nn.Module):
    """The smallest language model: a row of logits for each token.

    As dropout does, it answers otherwise while it trains than when it is asked (`eval`).
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits.clone())
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Logits (B, T, V) of the next token."""
        logits = self.table[input_ids] * attention_mask[..., None]
        return SimpleNamespace(logits=logits * 1.25 if self.training else logits)


class Batch(dict):
    """A batch that says in a word what it is."""

    def __repr__(self) -> str:
        rows, tokens = self["labels"].shape
        return f"a batch of {rows} x {tokens} tokens"


def _batch(labels: list[list[int]]) -> Batch:
    """A batch whose labels are its own tokens; what is ignored is token 0."""
    wanted = torch.tensor(labels)
    ids = wanted.clamp_min(0)
    return Batch(input_ids=ids, attention_mask=torch.ones_like(ids), labels=wanted)


def _surprise(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What stands for a lesson: the cross entropy of the next token, three times over."""
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    rows = logits[:, :-1].flatten(0, 1)
    return 3 * nn.functional.cross_entropy(rows, batch["labels"][:, 1:].flatten())


def _half_surprise(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A lesson whose gradients are longer than 1 at some steps, and shorter at others."""
    return _surprise(model, batch) / 2


_TABLE, _OTHER_TABLE = random_tensors((4, 4), (4, 4))
_THREE = [_batch([[0, 1, 2, 3]]), _batch([[3, 3, 1, 0], [2, 1, 0, 0]]), _batch([[1, 2, 2, 2]])]
_SAME = [_THREE[1]] * 4


OTHER_LENGTHS = (0.1, 0.5, 1.1, 2.0)  # that a gradient is clipped to by mistake


def _healed(
    model: nn.Module,
    batches: Iterable,
    lesson: Callable,
    lr: float,
    optimizer: Callable = torch.optim.AdamW,
    training: bool = True,
    clear: bool = True,
    clip: float | None = 1.0,
    numbers: bool = True,
    step: bool = True,
    renewed: bool = False,
    after: bool = False,
) -> list[float]:
    """The healing loop; each switch is one known mistake."""
    model.train(training)
    updates = optimizer(model.parameters(), lr=lr)
    losses = []
    for batch in batches:
        if renewed:
            updates = optimizer(model.parameters(), lr=lr)
        loss = lesson(model, batch)
        if clear:
            updates.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if step:
            updates.step()
        if after:
            loss = lesson(model, batch)
        losses.append(loss.item() if numbers else loss)
    return losses


def _with(**switches: Any) -> Callable:
    """The healing loop with one mistake."""
    return lambda model, batches, lesson, lr: _healed(model, batches, lesson, lr, **switches)


@exercise(
    cases=[
        (Table(_TABLE), _THREE, _surprise, 0.3),
        (Table(_OTHER_TABLE), _SAME, _surprise, 0.1),
        (Table(_TABLE), _THREE * 2, _half_surprise, 0.3),
    ],
    hints=[
        (
            "You keep the losses as tensors, each with its whole graph, and memory fills up; "
            "write down loss.item(), a plain number.",
            _with(numbers=False),
        ),
        *(
            ("You clip the gradient to another length than 1: max_norm is 1.0.", _with(clip=length))
            for length in OTHER_LENGTHS
        ),
        (
            "Nothing is learned: the losses are those of the model as it came. After backward() "
            "the optimizer must step(), and the gradient must not be cleared between the two.",
            _with(step=False),
        ),
        (
            "The gradients of all steps add up; clear them once a step (optimizer.zero_grad()).",
            _with(clear=False),
        ),
        (
            "You make a new optimizer at every step, which forgets what it learned; make one, "
            "before the loop.",
            _with(renewed=True),
        ),
        (
            "Your model is still in eval mode, without dropout; call model.train() before the "
            "loop.",
            _with(training=False),
        ),
        (
            "The gradient is not clipped; clip_grad_norm_(model.parameters(), 1.0) stands between "
            "backward() and step().",
            _with(clip=None),
        ),
        (
            "You write down the loss after the step; write down the one you took the gradient of.",
            _with(after=True),
        ),
        (
            "Take torch.optim.AdamW as the optimizer; plain gradient descent needs other rates.",
            _with(optimizer=torch.optim.SGD),
        ),
        (
            "Only the first batch is learned: `return` stands inside the loop.",
            lambda model, batches, lesson, lr: _healed(model, batches[:1], lesson, lr),
        ),
        (
            "Your optimizer has its own learning rate; give it yours, lr=lr.",
            lambda model, batches, lesson, lr: _healed(model, batches, lesson, 1e-3),
        ),
    ],
)
def heal(model: nn.Module, batches: Iterable, lesson: Callable, lr: float) -> list[float]:
    """Train a model in place, a step for each batch.

    Parameters
    ----------
    model : Module
        Changed in place, in training mode.
    batches : iterable
        What each step sees.
    lesson : callable
        lesson(model, batch) is the loss of a batch, a tensor with one number.
    lr : float
        The learning rate of AdamW, the same at every step; gradients are clipped to length 1.

    Returns
    -------
    list of float
        The loss of each batch before its step.
    """
    return _healed(model, batches, lesson, lr)


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
        (
            "That is in percent; a share is 1 if all is healed.",
            lambda dense, cut, after: 100 * (cut - after) / (cut - dense),
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


# --- the teacher's part of the loss

_STUDENT, _TEACHER = (2 * logits for logits in random_tensors((2, 5, 4), (2, 5, 4)))
_LABELS = torch.tensor([[IGNORED, IGNORED, 2, 0, 1], [IGNORED, 3, 1, IGNORED, IGNORED]])


def _rows(logits: Tensor, labels: Tensor, shift: int = 1) -> Tensor:
    """The rows of logits that stand `shift` before the labels that count."""
    counts = labels[:, shift:] != IGNORED
    return logits[:, : counts.shape[1]][counts]


@exercise(
    cases=[(_STUDENT, _LABELS), (_TEACHER[:1], _LABELS[1:]), (_TEACHER, _LABELS.flip(0))],
    hints=[
        (
            "You forgot the shift: the row at position t speaks of the token at t + 1.",
            lambda logits, labels: _rows(logits, labels, shift=0),
        ),
        (
            "You left out the last row of logits, but took the labels of the same places: the "
            "label that counts is the next one, labels[:, 1:].",
            lambda logits, labels: logits[:, :-1][labels[:, :-1] != IGNORED],
        ),
        (
            "You shifted the wrong way: leave out the first label and the last row of logits.",
            lambda logits, labels: logits[:, 1:][labels[:, :-1] != IGNORED],
        ),
        (
            "Prompt and padding are still among your rows; only those count whose next label is "
            "not -100.",
            lambda logits, labels: _rows(logits, 0 * labels),
        ),
        (
            "You took the rows that do *not* count: keep where the label is not -100.",
            lambda logits, labels: logits[:, :-1][labels[:, 1:] == IGNORED],
        ),
        (
            "Return one row for each target token, (rows, V), not the rows set to 0.",
            lambda logits, labels: logits[:, :-1] * (labels[:, 1:] != IGNORED)[..., None],
        ),
        (
            "Label 0 is a token like any other; only -100 says that a position does not count.",
            lambda logits, labels: logits[:, :-1][labels[:, 1:] > 0],
        ),
    ],
)
def target_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the rows of logits that speak of a target token.

    Parameters
    ----------
    logits : Tensor
        What a model says at each position of the next token, (B, T, V).
    labels : Tensor
        The tokens, (B, T), -100 for prompt and padding.

    Returns
    -------
    Tensor
        (rows, V), a row for each target token.
    """
    return _rows(logits, labels)


_ONE, _OTHER = (2 * logits for logits in random_tensors((6, 4), (6, 4)))
# so sure that the other probability is too small for a float
_SURE, _OTHER_SURE = torch.tensor([[0.0, 150.0], [0.0, 2.0]]), torch.tensor([[150.0, 0.0]] * 2)


def _learns(logits: Tensor) -> Tensor:
    """Logits as a student has them: the loss must leave a gradient for them."""
    return logits.clone().requires_grad_()


def _kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    soft: float | None = None,
    axis: int = -1,
    summed: int | None = None,
) -> Tensor:
    """KL(teacher || student) of each row; the teacher's temperature may be another one."""
    log_p = (teacher / (temperature if soft is None else soft)).log_softmax(axis)
    log_q = (student / temperature).log_softmax(axis)
    return (log_p.exp() * (log_p - log_q)).sum(axis if summed is None else summed)


def _cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The mistake: log p is left out."""
    p, log_q = (teacher / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    return -(temperature**2) * (p * log_q).sum(-1).mean()


def _log_of_softmax(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The mistake: the softmax first, then its logarithm."""
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


@exercise(
    cases=[
        (_learns(_ONE), _OTHER, 2.0),
        (_learns(_ONE), _OTHER, 1.0),
        (_learns(_ONE), _ONE, 3.0),
        (_learns(_OTHER[:2]), _ONE[:2], 0.5),
        (_learns(_SURE), _OTHER_SURE, 1.0),
    ],
    hints=[
        (
            "You forgot T^2: without it a high temperature makes the gradient small.",
            lambda student, teacher, temperature: _kl(student, teacher, temperature).mean(),
        ),
        (
            "You multiply by T; it takes T^2, since the gradient shrinks with its square.",
            lambda student, teacher, temperature: (
                temperature * _kl(student, teacher, temperature).mean()
            ),
        ),
        (
            "KL(teacher || student): you swapped them; the teacher's probabilities do the "
            "weighing.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(teacher, student, temperature).mean()
            ),
        ),
        (
            "You multiply the logits by T; a temperature divides them.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, 1 / temperature).mean()
            ),
        ),
        (
            "Only your student is softened; divide the teacher's logits by T too.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, temperature, soft=1.0).mean()
            ),
        ),
        (
            "The softmax runs over the tokens of the vocabulary, the last axis, not over the rows.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, temperature, axis=0).mean()
            ),
        ),
        (
            "The softmax runs over the tokens of the vocabulary, the last axis, and so does the "
            "sum.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, temperature, axis=0, summed=-1).mean()
            ),
        ),
        (
            "That is the cross entropy: log p is missing, so a student that says the same as its "
            "teacher would still pay.",
            _cross_entropy,
        ),
        (
            "Where a probability is too small for a float, softmax gives 0 and its log -inf: take "
            "log_softmax.",
            _log_of_softmax,
        ),
        (
            "No gradient reaches the student, so it cannot learn: do not detach its logits.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student.detach(), teacher, temperature).mean()
            ),
        ),
        (
            "You added up the rows; take their mean.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, temperature).sum()
            ),
        ),
        (
            'You also divide by the size of the vocabulary (as kl_div with reduction="mean" '
            "does): add up over the vocabulary, then take the mean over the rows.",
            lambda student, teacher, temperature: (
                temperature**2 * _kl(student, teacher, temperature).mean() / student.shape[-1]
            ),
        ),
    ],
)
def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Give the loss by which a student learns from its teacher.

    Parameters
    ----------
    student, teacher : Tensor
        Their logits at the target tokens, (rows, V) each.
    temperature : float
        T, which softens both.

    Returns
    -------
    Tensor
        T^2 KL(teacher || student), the mean over the rows.
    """
    return temperature**2 * _kl(student, teacher, temperature).mean()


class Expert(Table):
    """A teacher that notices how it is asked: under no_grad, or with a gradient kept for it."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Logits (B, T, V); others, where a gradient is kept."""
        logits = super().forward(input_ids, attention_mask).logits
        return SimpleNamespace(logits=logits + torch.is_grad_enabled() * logits.roll(1, -1))


def _in_training(model: Table) -> Table:
    """A model that comes in training mode."""
    model.train()
    return model


def _labels_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What stands for the cross entropy: how far the logits of the labels are below 5."""
    rows = _rows(logits, labels)
    return 5 - rows.gather(1, labels[:, 1:][labels[:, 1:] != IGNORED][:, None]).mean()


def _teacher_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """What stands for the distillation: the squared distance from twice the teacher."""
    apart = _rows(student - 2 * teacher, labels)
    return apart.square().mean()


def _taught(
    model: nn.Module,
    teacher: nn.Module,
    batch: dict[str, Tensor],
    labels_loss: Callable,
    teacher_loss: Callable,
    asked: Callable = torch.no_grad,
    by_itself: bool = True,
    shares: tuple[float, float] = (0.5, 0.5),
    swapped: bool = False,
    quiet: bool = False,
) -> Tensor:
    """Half the labels' loss and half the teacher's; each switch is one known mistake."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if quiet:
        model.eval()
    logits = model(**given).logits
    if by_itself:
        teacher.eval()
    with asked():
        wanted = teacher(**given).logits
    pair = (wanted, logits) if swapped else (logits, wanted)
    of_labels = labels_loss(logits, batch["labels"])
    return shares[0] * of_labels + shares[1] * teacher_loss(*pair, batch["labels"])


def _all_without_gradient(*case: Any) -> Tensor:
    """The mistake: the student, too, is asked under no_grad."""
    with torch.no_grad():
        return _taught(*case)


def _taught_with(**switches: Any) -> Callable:
    """The lesson with one mistake."""
    return lambda model, teacher, batch, labels_loss, teacher_loss: _taught(
        model, teacher, batch, labels_loss, teacher_loss, **switches
    )


_LESSON = _batch([[IGNORED, 1, 2, 3], [3, 0, 1, IGNORED]])


@exercise(
    cases=[
        (Table(_TABLE), Expert(_OTHER_TABLE), _LESSON, _labels_loss, _teacher_loss),
        (
            _in_training(Table(_OTHER_TABLE)),
            _in_training(Expert(_TABLE)),
            _THREE[1],
            _labels_loss,
            _teacher_loss,
        ),
    ],
    hints=[
        (
            "Ask the teacher inside `with torch.no_grad():`. Yours keeps a gradient for it; "
            "detach() afterwards is too late to save the memory.",
            _taught_with(asked=torch.enable_grad),
        ),
        (
            "Your teacher may come in training mode, with dropout; call teacher.eval() first.",
            _taught_with(by_itself=False),
        ),
        (
            "Half and half: you add the two losses whole.",
            _taught_with(shares=(1.0, 1.0)),
        ),
        (
            "The labels are missing: half of the loss is theirs.",
            _taught_with(shares=(0.0, 1.0)),
        ),
        (
            "Half of the loss is the teacher's, and yours is the labels' alone.",
            _taught_with(shares=(1.0, 0.0)),
        ),
        (
            "You swapped the two in teacher_loss: first the student's logits, then the teacher's.",
            _taught_with(swapped=True),
        ),
        (
            "Only the teacher is asked without a gradient. The student needs its own: call it "
            "outside torch.no_grad().",
            _all_without_gradient,
        ),
        (
            "Leave the student in the mode in which it comes; only the teacher goes into eval "
            "mode.",
            _taught_with(quiet=True),
        ),
    ],
)
def taught_lesson(
    model: nn.Module,
    teacher: nn.Module,
    batch: dict[str, Tensor],
    labels_loss: Callable,
    teacher_loss: Callable,
) -> Tensor:
    """Give the loss of a batch, half of it by the labels and half by a teacher.

    Parameters
    ----------
    model, teacher : Module
        Both take input_ids and attention_mask; their answer has `logits`. The teacher is asked in
        eval mode, and no gradient is kept for it.
    batch : dict
        input_ids, attention_mask and labels, (B, T) each.
    labels_loss : callable
        labels_loss(logits, labels).
    teacher_loss : callable
        teacher_loss(student_logits, teacher_logits, labels).

    Returns
    -------
    Tensor
        0.5 labels_loss + 0.5 teacher_loss.
    """
    return _taught(model, teacher, batch, labels_loss, teacher_loss)
