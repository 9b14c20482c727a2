"""What the students write in notebook 09 is what the package does."""

from __future__ import annotations

import inspect

import torch
from helpers.models import tiny
from helpers.texts import make_examples, word_tokenizer

from gumlab.course import check
from gumlab.study import paper
from gumlab.tasks.batches import batches
from gumlab.training import distillation, mean_loss

TEMPERATURE = 3.0


def teacher_loss(student, teacher, labels):
    rows = [check.target_rows.reference(logits, labels) for logits in (student, teacher)]
    return check.distillation_loss.reference(*rows, TEMPERATURE)


def one_batch(model):
    return next(batches(model, word_tokenizer(), make_examples(6), 6))


def test_the_teachers_part_is_the_packages():
    student, teacher = tiny("gpt2"), tiny("gpt2", seed=1)
    batch = one_batch(student)
    labels = batch.pop("labels")
    logits = student(**batch).logits
    mine = teacher_loss(logits, teacher(**batch).logits, labels)
    assert mine > 0
    torch.testing.assert_close(mine, distillation(teacher, batch, logits, labels, TEMPERATURE))


def test_the_lesson_teaches_the_student_alone_and_the_loop_lowers_it():
    student, teacher = tiny("gpt2"), tiny("gpt2", seed=1).train()
    batch = one_batch(student)

    def lesson(model, batch):
        return check.taught_lesson.reference(model, teacher, batch, mean_loss, teacher_loss)

    losses = check.heal.reference(student, [batch] * 8, lesson, 1e-2)
    assert losses[-1] < 0.9 * losses[0]
    assert not teacher.training
    assert all(weight.grad is None for weight in teacher.parameters())


def test_a_loss_without_a_gradient_for_the_student_is_no_right_answer(capsys):
    def distillation_loss(student, teacher, temperature):
        return inspect.unwrap(check.distillation_loss.reference)(
            student.detach(), teacher, temperature
        )

    @torch.no_grad()
    def taught_lesson(*case):
        return inspect.unwrap(check.taught_lesson.reference)(*case)

    check.distillation_loss(distillation_loss)
    assert "no gradient flows through yours" in capsys.readouterr().out
    check.taught_lesson(taught_lesson)
    said = capsys.readouterr().out
    assert "no gradient flows through yours" in said
    assert "should give a float tensor of shape () with a gradient" in said
    assert not check.taught_lesson.passes(taught_lesson)


def test_in_the_longer_runs_almost_every_method_gains_from_a_teacher():
    by = ["model", "task", "asked", "method", "distilled"]
    loss = paper.study().groupby(by)["loss"].mean().unstack().dropna()
    assert (loss[True] < loss[False]).mean() > 0.9
