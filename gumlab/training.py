"""The training loop, one screen, and distillation."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gumlab.errors import GumlabError, unknown
from gumlab.pruner import Pruner
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import IGNORED, evaluating, memory_guard, shuffled, token_losses

PRECISIONS = ("bf16", "fp32")


class Frame(NamedTuple):
    """Who stayed after a step, and by which scores: a (N,) tensor of each kind per layer."""

    step: int
    masks: list[Tensor]
    scores: list[Tensor]


@dataclass
class History:
    """What a run did: the loss and the fraction of neurons kept at each step, and its seconds.

    frames: what `gumlab.explore.replay` shows, where `train` was asked to `record`.
    """

    losses: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    seconds: float = 0.0
    frames: list[Frame] = field(default_factory=list)

    def __repr__(self) -> str:
        if not self.losses:
            return "History(no steps)"
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return (
            f"History({len(self.losses)} steps, loss {self.losses[0]:.3f} -> "
            f"{sum(tail) / len(tail):.3f}, kept {self.kept[-1]:.1%}, {self.seconds:.0f} s)"
        )


def train(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    steps: int = 600,
    pruner: Pruner | None = None,
    teacher: nn.Module | None = None,
    batch_size: int = 16,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    ce_weight: float = 0.5,
    kd_weight: float = 0.5,
    temperature: float = 2.0,
    seed: int = 0,
    record: int | None = None,
    precision: str | None = None,
    progress: bool = True,
) -> History:
    """Fine-tune `model` in place, pruning along the way if a `pruner` is given.

    AdamW, gradients clipped to norm `clip`, learning rate warmed up over 10 % of the steps, then
    linear to 0. With a `teacher` the loss is ce_weight * CE + kd_weight * T^2 KL(teacher ||
    student), both the mean over target tokens; without one it is CE. record: keep the pruner's
    masks and scores in the history every so many steps. precision: "bf16" (autocast: weights, loss
    and scores stay float32) or "fp32"; default bf16 on a GPU that has it, else fp32. Raises
    GumlabError when the loss or its gradient is not finite: the model then holds the last weights
    known to be good (a copy is kept from every twentieth of the run).
    """
    if pruner is not None and (pruner.steps != steps or pruner.step_count):
        raise GumlabError(
            f"The pruner was made for {pruner.steps} steps and has done {pruner.step_count}; this "
            f"run has {steps}. Make a fresh one: Pruner(model, ..., steps={steps})."
        )
    examples = task.split("train") if isinstance(task, Task) else task
    autocast, fuse = in_precision(model, precision), next(model.parameters()).is_cuda or None
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=fuse)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, steps))
    history, good, began = History(), _Copy(model, 0), time.perf_counter()
    model.train()
    bar = tqdm(total=steps, disable=not progress, unit="step", leave=False)
    with bar, memory_guard(batch_size):
        for batch in shuffled(model, tokenizer, examples, batch_size, steps, seed):
            labels = batch.pop("labels")
            with autocast:
                logits = model(**batch).logits
                loss = mean_loss(logits, labels)
                if teacher is not None:
                    kd = distillation(teacher, batch, logits, labels, temperature)
                    loss = ce_weight * loss + kd_weight * kd
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            done = len(history.losses)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise good.restored(model, f"{loss.item()} at step {done + 1} of {steps}", lr)
            cut = pruner is not None and pruner.step(optimizer)
            if cut or done % max(1, steps // 20) == 0:
                good = _Copy(model, done)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)
            history.losses.append(loss.item())
            history.kept.append(pruner.fraction_kept if pruner else 1.0)
            if pruner is not None and record and (done + 1) % record == 0:
                scores = [s.detach().clone() for s in pruner.original_scores]
                history.frames.append(Frame(done + 1, pruner.original_masks, scores))
            bar.update()
            bar.set_postfix(loss=history.losses[-1], kept=history.kept[-1], refresh=False)
    model.eval()
    history.seconds = time.perf_counter() - began
    return history


def in_precision(model: nn.Module, precision: str | None) -> AbstractContextManager[Any]:
    """The context in which `train` computes the loss; the backward pass follows by itself."""
    if precision not in (None, *PRECISIONS):
        raise unknown("precision", precision, PRECISIONS)
    weight = next(model.parameters())
    if weight.dtype == torch.float16:
        raise GumlabError("AdamW makes NaN of float16: train model.float() or model.bfloat16().")
    if precision is None and weight.is_cuda and weight.dtype == torch.float32:
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if precision is None:  # as the caller has it
        return nullcontext()
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=precision == "bf16")


class _Copy:
    """A model's weights as they were after `step` steps."""

    def __init__(self, model: nn.Module, step: int) -> None:
        self.step, self.weights = step, [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def restored(self, model: nn.Module, loss: str, lr: float) -> GumlabError:
        """Put the weights back; the error to raise."""
        for parameter, weight in zip(model.parameters(), self.weights, strict=True):
            parameter.copy_(weight)
            parameter.grad = None
        model.eval()
        return GumlabError(
            f"The loss or its gradient was not finite (loss {loss}); the model holds the weights "
            f"it had after step {self.step}. Lower lr (now {lr}) or check the data."
        )


def learning_rate(step: int, steps: int, warm_up: float = 0.1) -> float:
    """The factor on the learning rate before step `step` (from 0): linear up, then linear to 0."""
    rise = max(1, round(warm_up * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the target tokens. logits (B, T, V), labels (B, T)."""
    return token_losses(logits, labels).sum() / (labels[:, 1:] != IGNORED).sum()


def distillation(
    teacher: nn.Module, batch: dict[str, Tensor], logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, mean over the target tokens.

    The teacher runs in eval mode, without gradient. The reference code sums over tokens and
    divides by the batch size; the mean keeps both terms on the scale of the cross entropy.
    """
    if not math.isfinite(temperature) or temperature <= 0:
        raise GumlabError(f"temperature must be a positive number, got {temperature}.")
    with torch.no_grad(), evaluating(teacher):
        expected = teacher(**batch).logits[:, :-1]
    targets = labels[:, 1:] != IGNORED
    student = (logits[:, :-1][targets].float() / temperature).log_softmax(-1)  # (target tokens, V)
    wanted = (expected[targets].float() / temperature).log_softmax(-1)
    kl = nn.functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
    return temperature**2 * kl
