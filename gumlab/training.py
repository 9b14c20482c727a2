"""The training loop, one screen, and distillation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gumlab import ranks
from gumlab.errors import (
    GumlabError,
    check_choice,
    check_flag,
    check_number,
    check_seed,
    check_whole,
    unknown,
)
from gumlab.gating import Gate, fraction_by_gates
from gumlab.language import check_head, check_trainable, language_config
from gumlab.offloading import check_resident
from gumlab.pruner import Pruner
from gumlab.resuming import Run, RunFile
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import (
    IGNORED,
    Row,
    by_itself,
    checked_block,
    context_length,
    encode,
    evaluating,
    memory_guard,
    shuffled,
    token_losses,
)

PRECISIONS = ("bf16", "fp32")
LARGE = 10_000_000  # parameters, from which an update in one pass over memory pays on a CPU too
DISTILLATION = (0.5, 0.5, 2.0)  # ce_weight, kd_weight, temperature, where nothing else is said


class Frame(NamedTuple):
    """Which neurons stayed after a step, and by which scores.

    masks: (N,) bool per layer, scores: (N,) per layer, over the neurons that the run began with.
    """

    step: int
    masks: list[Tensor]
    scores: list[Tensor]

    @classmethod
    def of(cls, pruner: Pruner) -> Frame:
        """Where a pruner stands now."""
        scores = [score.detach().clone() for score in pruner.original_scores]
        return cls(pruner.step_count, pruner.original_masks, scores)


@dataclass
class History:
    """What a run did.

    Attributes
    ----------
    losses, kept : list of float
        The loss, and the fraction of neurons kept, at each step.
    seconds : float
        Of the whole run.
    frames : list of Frame
        What `gumlab.explore.replay` shows, where `train` was asked to `record`.
    """

    losses: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    seconds: float = 0.0
    frames: list[Frame] = field(default_factory=list)

    def add(self, loss: float, kept: float, seconds: float) -> None:
        """Note one step, `seconds` after the run began."""
        self.losses.append(loss)
        self.kept.append(kept)
        self.seconds = seconds

    def record(self, pruner: Pruner | None, every: int | None) -> None:
        """Keep where a pruner stands, if that is asked for at this step."""
        if pruner is not None and every is not None and len(self.losses) % every == 0:
            self.frames.append(Frame.of(pruner))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as lists, numbers and tensors."""
        return {**vars(self), "frames": [list(frame) for frame in self.frames]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self.losses = state["losses"]
        self.kept = state["kept"]
        self.seconds = state["seconds"]
        self.frames = [Frame(*frame) for frame in state["frames"]]

    def __repr__(self) -> str:
        if not self.losses:
            return "History(no steps)"
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return (
            f"History({len(self.losses)} steps, loss {self.losses[0]:.3f} -> "
            f"{sum(tail) / len(tail):.3f}, kept {self.kept[-1]:.1%}, {self.seconds:.0f} s)"
        )


@by_itself(casts=True)
def train(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    steps: int = 600,
    pruner: Pruner | None = None,
    teacher: nn.Module | None = None,
    batch_size: int = 16,
    block: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.1,
    eps: float = 1e-8,
    clip: float = 1.0,
    ce_weight: float = DISTILLATION[0],
    kd_weight: float = DISTILLATION[1],
    temperature: float = DISTILLATION[2],
    seed: int = 0,
    record: int | None = None,
    precision: str | None = None,
    state: str | Path | None = None,
    state_every: int | None = None,
    progress: bool = True,
) -> History:
    """Fine-tune a model in place, pruning along the way if a pruner is given.

    Parameters
    ----------
    model, tokenizer
        The model ends in eval mode.
    task : Task or sequence of Example
        Of a task the training examples.
    steps : int
        Optimizer steps.
    pruner : Pruner, optional
        A fresh one, made for this model and as many steps.
    teacher : nn.Module, optional
        With it the loss is ce_weight * CE + kd_weight * T^2 KL(teacher || student), both the mean
        over target tokens; without it CE.
    batch_size : int
        Sequences a step.
    block : int, optional
        Tokens of a sequence of running text; by default the model's context, at most 1,024.
    lr, weight_decay, eps, clip : float
        AdamW's learning rate, warmed up over 10 % of the steps, then linear to 0; its weight decay;
        what it adds to the root of the mean squared gradient; the norm that gradients are clipped
        to.
    ce_weight, kd_weight, temperature : float
        Of the distillation.
    seed : int
        Of the order of the examples, and of dropout; the caller's random state stays as it is.
    record : int, optional
        Keep the pruner's masks and scores in the history every so many steps.
    precision : {"bf16", "fp32"}, optional
        "bf16" is autocast: weights, loss and scores stay float32. By default bf16 on a GPU that has
        it, else the model's own.
    state : str or Path, optional
        A file that holds where the run stands. Where it is there the run goes on from it, and ends
        bit for bit as one that was never stopped: call with the same settings and data, on the
        model as it was at first (loaded anew) and a fresh pruner.
    state_every : int, optional
        Steps from one writing of that file to the next; by default a twentieth of the run.
    progress : bool
        Show a bar.

    Returns
    -------
    History
        Losses, fractions kept, seconds.

    Raises
    ------
    GumlabError
        For a pruner of another run, a model of which every weight is frozen, a teacher that is the
        model itself, a block that cannot be, and a `state` of a run with other settings; and where
        the loss or its gradient is not finite: the model then holds the last weights known to be
        good (a copy is kept from every twentieth of the run).

    Notes
    -----
    In several processes (`torchrun`, with `torch.distributed.init_process_group` called) each takes
    its share of every batch, gradients are averaged, and all end with the same weights and the same
    neurons, near those of one process. The model is given as it is, not wrapped.
    """
    check_head(model)
    steps = check_whole("steps", steps, least=0)
    batch_size = check_whole("batch_size", batch_size)
    seed = check_seed(seed)
    progress = check_flag("progress", progress)
    rates = {"lr": lr, "weight_decay": weight_decay, "eps": eps, "clip": clip}
    weights = {"ce_weight": ce_weight, "kd_weight": kd_weight, "temperature": temperature}
    check_settings({**rates, **weights})
    record = None if record is None else check_whole("record", record)
    _check_used(pruner, teacher, record, (ce_weight, kd_weight, temperature))
    _check_model(model, pruner, steps)
    examples = task.split("train") if isinstance(task, Task) else task
    _check_teacher(teacher, model, tokenizer, examples)
    autocast = in_precision(model, precision)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        fused=_fused(model),
    )
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, steps))
    history = History()
    run = Run(
        *(model, optimizer, rate, pruner, history, teacher),
        rows=_rows(model, tokenizer, examples, block) if state else [],  # only a file asks
    )
    settings: dict[str, Any] = {
        **{"steps": steps, "seed": seed, "record": record, "precision": precision},
        **{"batch_size": batch_size, "block": block},
        **{name: float(value) for name, value in {**rates, **weights}.items()},
    }
    file = RunFile(state, state_every, steps)
    file.go_on(run, settings)
    kept_before = fraction_by_gates(model)
    first = len(history.losses)
    good = _Copy(model, step=first)
    began = time.perf_counter() - history.seconds
    optimizer.zero_grad(set_to_none=True)  # what an earlier backward pass left
    silent = not progress or ranks.own() > 0
    bar = tqdm(total=steps, initial=first, disable=silent, unit="step", leave=False)
    with bar, memory_guard(batch_size), _training(model, seed):
        file.draw_on(model)
        data = shuffled(model, tokenizer, examples, batch_size, steps, seed, block, first)
        for done, batch in enumerate(data, first):
            ranks.draw_apart(seed, done)
            loss = _loss(model, batch, teacher, weights, autocast)
            loss.backward()
            ranks.averaged([loss.detach(), *(weight.grad for weight in model.parameters())])
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise good.restored(model, f"{loss.item()} at step {done + 1} of {steps}", lr)
            neurons_left = pruner is not None and pruner.step(optimizer)
            if neurons_left or done % max(1, steps // 20) == 0:
                good = _Copy(model, step=done)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)
            history.add(
                loss.item(),
                pruner.fraction_kept if pruner else kept_before,
                time.perf_counter() - began,
            )
            history.record(pruner, record)
            file.keep(run, done + 1)
            bar.update()
            bar.set_postfix(loss=history.losses[-1], kept=history.kept[-1], refresh=False)
    return history


def _rows(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], block: int | None
) -> list[Row]:
    """What a run trains on, as a sign of it; `shuffled` says what had to be cut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return encode(tokenizer, examples, checked_block(block, examples, context_length(model)))


def _loss(
    model: nn.Module,
    batch: dict[str, Tensor],
    teacher: nn.Module | None,
    weights: dict[str, float],
    autocast: AbstractContextManager[Any],
) -> Tensor:
    """The loss on a batch; of several processes each gives its part, which they average."""
    batch, share = _own_rows(batch)
    labels = batch.pop("labels")
    with autocast:
        logits = model(**batch).logits
        loss = mean_loss(logits, labels)
        if teacher is not None:
            kd = distillation(teacher, batch, logits, labels, weights["temperature"])
            loss = weights["ce_weight"] * loss + weights["kd_weight"] * kd
        return loss if share is None else share * loss


def _own_rows(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], float | None]:
    """This process's rows of a batch, and what their mean loss weighs in the mean of all.

    None where it is alone. Each takes the whole of a batch that has fewer rows than there are
    processes.
    """
    count = ranks.count()
    if count == 1:
        return batch, None
    if len(batch["labels"]) >= count:
        batch = {name: values[ranks.own() :: count] for name, values in batch.items()}
    targets = (batch["labels"][:, 1:] != IGNORED).sum().float()
    mean = targets.clone()
    ranks.averaged([mean])
    return batch, float(targets / mean)


def _fused(model: nn.Module) -> bool | None:
    """Whether AdamW updates all in one pass: the same formula, rounded elsewhere."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return next(model.parameters()).is_cuda or count >= LARGE or None


@contextmanager
def _training(model: nn.Module, seed: int) -> Iterator[None]:
    """Training mode with dropout by `seed`; then eval mode, and the caller's random state."""
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        model.train()
        try:
            yield
        finally:
            model.eval()


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise GumlabError for the first of some settings of `train` that cannot be."""
    for name, value in settings.items():
        if name == "batch_size":
            check_whole(name, value)
        elif name == "block" and value is not None:
            check_whole(name, value, least=2)
        elif name in ("lr", "weight_decay", "ce_weight", "kd_weight"):
            check_number(name, value)
        elif name in ("eps", "clip", "temperature"):
            check_number(name, value, above=0)
        elif name == "precision" and value is not None:
            check_choice(name, value, PRECISIONS)


def _check_used(
    pruner: Pruner | None,
    teacher: nn.Module | None,
    record: int | None,
    distillation: tuple[float, float, float],
) -> None:
    """Raise GumlabError for what was given and nothing would come of."""
    if record is not None and pruner is None:
        raise GumlabError(
            "record keeps a pruner's masks and scores, and no pruner is given. Leave it out, or "
            "give pruner=."
        )
    if teacher is None and distillation != DISTILLATION:
        raise GumlabError(
            "ce_weight, kd_weight and temperature weigh a teacher's part of the loss, and no "
            "teacher is given. Leave them out, or give teacher=."
        )
    if distillation[:2] == (0, 0):
        raise GumlabError("ce_weight=0 and kd_weight=0 leave no loss to train on. Raise one.")


def _check_model(model: nn.Module, pruner: Pruner | None, steps: int) -> None:
    """Raise GumlabError for a model that cannot learn or is not the pruner's, or an odd adapter."""
    check_resident(model, "Training")
    check_trainable(model)
    if pruner is not None and not (hasattr(pruner, "step") and hasattr(pruner, "model")):
        raise GumlabError(
            f"pruner must be a gumlab.Pruner made for this model; got {pruner!r:.60}."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise GumlabError(
            "Every weight of the model is frozen (requires_grad=False), so nothing would be "
            "trained. Unfreeze some: model.requires_grad_(True); of an adapter: "
            "peft.PeftModel.from_pretrained(..., is_trainable=True)."
        )
    for name, module in model.named_modules():
        hooks = module._forward_pre_hooks.values()
        if name.endswith(".base_layer") and any(isinstance(hook, Gate) for hook in hooks):
            raise GumlabError(
                f"{name} is gated, and the adapter around it sees the neurons that the gate "
                "removes: it would learn from what is to go. Shrink first, "
                "small = gumlab.shrink(model, masks), and put the adapter on the smaller model."
            )
    if pruner is not None and pruner.model not in model.modules():
        raise GumlabError(
            "The pruner was made for another model than the one to train, which it would leave "
            "dense; give both the same one."
        )
    if isinstance(pruner, Pruner) and pruner.removed:
        raise GumlabError(
            "The pruner's gates were taken off (pruner.remove()), so it prunes nothing any more. "
            f"Make a fresh one: Pruner(model, ..., steps={steps})."
        )
    if pruner is not None and (pruner.steps != steps or pruner.step_count):
        raise GumlabError(
            f"The pruner was made for {pruner.steps} steps and has done {pruner.step_count}; this "
            f"run has {steps}. Make a fresh one: Pruner(model, ..., steps={steps})."
        )


def _check_teacher(
    teacher: nn.Module | None, model: nn.Module, tokenizer: Any, examples: Sequence[Example]
) -> None:
    """Raise GumlabError for a teacher that its student cannot learn from on these examples."""
    if teacher is None:
        return
    check_head(teacher)
    sizes = [getattr(language_config(m), "vocab_size", None) for m in (teacher, model)]
    if sizes[0] != sizes[1]:
        raise GumlabError(
            f"The teacher knows {sizes[0]} tokens, the model {sizes[1]}: their predictions cannot "
            "be compared. Take a teacher with the same tokenizer."
        )
    own = set(model.parameters())
    shared = [name for name, weight in teacher.named_parameters() if weight in own]
    if any(teacher.get_parameter(name).requires_grad for name in shared):
        raise GumlabError(
            f"The teacher shares weights with the model ({shared[0]}), so it would change along "
            "with its student. Take a copy made before: teacher = copy.deepcopy(model)."
        )
    _check_context(teacher, model, tokenizer, examples)


def _check_context(
    teacher: nn.Module, model: nn.Module, tokenizer: Any, examples: Sequence[Example]
) -> None:
    """Raise GumlabError where an example is longer than the teacher's context."""
    context = context_length(teacher)
    if context >= context_length(model):
        return
    longest = max(len(ids) for ids, _ in encode(tokenizer, examples, context_length(model)))
    if longest > context:
        raise GumlabError(
            f"The teacher takes {context} tokens, and the longest example has {longest}. Take a "
            "teacher with a longer context, or shorter examples."
        )


def in_precision(model: nn.Module, precision: str | None) -> AbstractContextManager[Any]:
    """The context in which `train` computes the loss; the backward pass follows by itself.

    Parameters
    ----------
    model : nn.Module
        Its weights' type and device decide, where `precision` does not.
    precision : {"bf16", "fp32"}, optional
        As in `train`.

    Raises
    ------
    GumlabError
        For another precision, and for a float16 model, of which AdamW makes NaN.
    """
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
        self.step = step
        self.weights = [p.detach().clone() for p in model.parameters()]

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
    """The factor on the learning rate before a step (from 0): linear up, then linear to 0.

    >>> [learning_rate(t, 20) for t in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.05555555555555555]
    """
    rise = max(1, round(warm_up * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the target tokens, in nats.

    Parameters
    ----------
    logits : Tensor
        (B, T, V).
    labels : Tensor
        (B, T); IGNORED where a token is not a target.
    """
    return token_losses(logits, labels).sum() / (labels[:, 1:] != IGNORED).sum()


def distillation(
    teacher: nn.Module, batch: dict[str, Tensor], logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """T^2 KL(teacher || student) at temperature T, mean over the target tokens.

    The teacher runs in eval mode, without gradient. The reference code sums over tokens and
    divides by the batch size; the mean keeps both terms on the scale of the cross entropy.

    Parameters
    ----------
    teacher : nn.Module
        Of the student's vocabulary.
    batch : dict
        "input_ids" and "attention_mask", (B, T) each.
    logits : Tensor
        The student's, (B, T, V).
    labels : Tensor
        (B, T).
    temperature : float
        T, above 0.

    References
    ----------
    Hinton, Vinyals, Dean 2015.
    """
    check_number("temperature", temperature, above=0)
    with torch.no_grad(), evaluating(teacher):
        expected = teacher(**batch).logits[:, :-1]
    targets = labels[:, 1:] != IGNORED
    student = (logits[:, :-1][targets].float() / temperature).log_softmax(-1)  # (target tokens, V)
    wanted = (expected[targets].float() / temperature).log_softmax(-1)
    kl = nn.functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
    return temperature**2 * kl
