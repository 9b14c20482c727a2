"""Passes over data, and everything that scores, metrics and the refit need from them.

For each layer: the Gram matrix G = H^T H of the activations (tokens x neurons H, padding never
counts), sums and extremes of h, and with `gradients` the sensitivity. Sums are float32 or better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import IGNORED, batches, evaluating, memory_guard, token_losses


@dataclass
class Statistics:
    """What one pass found about one layer of N neurons; every tensor is (N,) but `gram` (N, N).

    sensitivity, fisher and slope (dL/dm, m the neuron's gate) are means over sequences and zero
    where no gradients were asked for; squared_means is a sum over sequences; the others are over
    all `tokens`.
    """

    gram: Tensor
    total: Tensor
    low: Tensor
    high: Tensor
    squared_means: Tensor
    sensitivity: Tensor
    fisher: Tensor
    slope: Tensor
    tokens: int = 0

    @property
    def energy(self) -> Tensor:
        """G_ii, the sum over tokens of h_i^2."""
        return self.gram.diagonal()

    @property
    def dead(self) -> Tensor:
        """True where a neuron never fired: G_ii = 0."""
        return self.energy == 0

    @property
    def mean(self) -> Tensor:
        """The mean of h over the tokens."""
        return self.total / self.tokens


def collect(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    batch_size: int = 16,
    gradients: bool = False,
    only: Sequence[int] | None = None,
) -> list[Statistics]:
    """One `Statistics` per layer from the first `limit` examples of a split, in eval mode.

    only: the indices of the layers to look at, where not all are wanted.

    The figures do not depend on the batch size. On a gated model h is what the gate lets through,
    so removed neurons are dead. Raises GumlabError where there are no examples.
    """
    layers = neurons(model)
    layers = layers if only is None else [layers[i] for i in only]
    found = [_empty(layer) for layer in layers]
    taps = [_Tap(layer) for layer in layers]
    try:
        with evaluating(model), memory_guard(batch_size), torch.set_grad_enabled(gradients):
            rows = _rows(model, tokenizer, task, split, limit, batch_size)
            sequences = sum(len(batch["labels"]) for batch in rows)  # of running text: its blocks
            for batch in rows:
                labels, real = batch.pop("labels"), batch["attention_mask"].bool()
                logits = model(**batch).logits
                for tap, layer in zip(taps, found, strict=True):
                    _add_activations(layer, tap.kept[-1].detach(), real)
                if gradients:
                    losses = token_losses(logits, labels)
                    means = losses.sum(1) / (labels[:, 1:] != IGNORED).sum(1)  # each sequence's L
                    slopes = _gradients(means.sum(), taps)
                    for tap, layer, grads in zip(taps, found, slopes, strict=True):
                        _add_gradients(layer, tap.kept, grads, real, sequences)
    finally:
        for tap in taps:
            tap.remove()
    return found


@torch.no_grad()
def one_by_one(
    model: nn.Module, tokenizer: Any, task: Any, *, changing: bool = False, **options: Any
) -> Iterator[Statistics]:
    """`collect`'s figures without gradients, layer by layer: one Gram matrix in memory at a time.

    Only the layer at hand runs, on what the one before gave, which is kept, (tokens, D). With
    `changing` it runs again after its turn, in which the caller may refit or cut it.
    """
    layers, rows = neurons(model), _rows(model, tokenizer, task, **options)
    blocks = [model.get_submodule(re.findall(r"^(?:.*?\.)?\d+\b", n.name)[0]) for n in layers]
    given: list[Any] = [None] * len(rows)
    for i, layer in enumerate(layers):
        seen: list[Tensor] = []
        found, before, given = _empty(layer), given, []
        with layer.proj.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0])):
            for batch, state in zip(rows, before, strict=True):
                given.append(_through(model, blocks, i, batch, state))
                _add_activations(found, seen.pop(), batch["attention_mask"].bool())
        yield found
        if changing:
            given = [_through(model, blocks, i, *p) for p in zip(rows, before, strict=True)]


def _rows(model, tokenizer, task, split="train", limit=256, batch_size=16) -> list[dict]:
    examples = (task.split(split) if isinstance(task, Task) else list(task))[:limit]
    return list(batches(model, tokenizer, examples, batch_size))


def _through(model: nn.Module, blocks: list[nn.Module], i: int, batch: dict, state: Any) -> Any:
    """What block i makes of `state`, what block i - 1 gave; the other blocks pass it on."""
    passed, others = [state], [block for block in blocks if block is not blocks[i]]
    own = [vars(block).get("forward") for block in others]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    hook = blocks[i].register_forward_hook(lambda module, x, y: passed.append(y))
    try:
        for block in others:
            block.forward = lambda *_, **__: passed[-1]
        with hook, evaluating(model), memory_guard(len(batch["labels"])):
            getattr(model, "base_model", model)(**inputs)
    finally:
        for block, forward in zip(others, own, strict=True):
            vars(block).update(forward=forward) if forward else vars(block).pop("forward", None)
    return passed[-1]


def sequence_sensitivity(
    kept: Sequence[Tensor], gradients: Sequence[Tensor], sequences: int
) -> Tensor:
    """|sum over a neuron's weights of w dL/dw| for each sequence, (B, N).

    From activations alone: the sum over tokens of z dL/dz (each incoming row with its bias) plus
    h dL/dh. kept, gradients: the z's and h, (B, T, N) or flat (B T, N), and dL/d of them.
    """
    products = [(x.detach() * g).float() for x, g in zip(kept, gradients, strict=True)]
    sums = (p.view(sequences, -1, p.shape[-1]).sum(1) for p in products)
    return sum(sums, torch.tensor(0.0)).abs()


def _empty(layer: FeedForward) -> Statistics:
    n, device = layer.width, layer.proj.weight.device
    gram, a, b, c, d, e = (torch.zeros(*s, device=device) for s in ((n, n), *[(n,)] * 5))
    low, high = (torch.full((n,), x, device=device) for x in (torch.inf, -torch.inf))
    return Statistics(gram, a, low, high, b, c, d, e)


def _add_activations(layer: Statistics, h: Tensor, real: Tensor) -> None:
    rows = h.flatten(0, -2)[real.flatten()].float()  # (real tokens, N)
    layer.gram.addmm_(rows.T, rows)
    layer.total += rows.sum(0)
    layer.low = torch.minimum(layer.low, rows.min(0).values)
    layer.high = torch.maximum(layer.high, rows.max(0).values)
    size = h.float().view(*real.shape, -1).abs() * real[..., None]  # (B, T, N)
    layer.squared_means += (size.sum(1) / real.sum(1, keepdim=True)).square().sum(0)
    layer.tokens += len(rows)


def _add_gradients(
    layer: Statistics, kept: list[Tensor], grads: Sequence[Tensor], real: Tensor, sequences: int
) -> None:
    layer.sensitivity += sequence_sensitivity(kept, grads, len(real)).sum(0) / sequences
    to_mask = (kept[-1].detach() * grads[-1]).float().view(*real.shape, -1).sum(1)  # dL/dm
    layer.fisher += to_mask.square().sum(0) / sequences
    layer.slope += to_mask.sum(0) / sequences


class _Tap:
    """Keeps a layer's z (one or two) and h of the last forward pass, with their graph."""

    def __init__(self, layer: FeedForward) -> None:
        self.layer = layer
        self.kept: list[Tensor] = []
        hooks = [m.register_forward_hook(self._after_fc) for m in layer.fc]
        self._handles = [*hooks, layer.proj.register_forward_pre_hook(self._before_proj)]

    def _after_fc(self, module: nn.Module, inputs: tuple, z: Tensor) -> Tensor | None:
        if module is self.layer.fc[0]:
            self.kept = []
        if torch.is_grad_enabled() and not z.requires_grad:
            z.requires_grad_(True)
        parts = z.split(self.layer.width, dim=-1)
        if len(parts) == 1:
            self.kept.append(z)
            return None
        self.kept.extend(parts)  # gate and up are fused: differentiate the two halves
        return torch.cat(parts, dim=-1)

    def _before_proj(self, module: nn.Module, inputs: tuple) -> None:
        self.kept.append(inputs[0])

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _gradients(loss: Tensor, taps: Sequence[_Tap]) -> list[tuple[Tensor, ...]]:
    flat = iter(torch.autograd.grad(loss, [x for tap in taps for x in tap.kept]))
    return [tuple(islice(flat, len(tap.kept))) for tap in taps]


def check_running(every: int, tokens: float, memory: float) -> None:
    """Raise GumlabError for settings of `RunningGrams` that make no sense."""
    if every < 1 or not 0 < tokens <= 1 or not 0 <= memory < 1:
        raise GumlabError(
            "The running Gram sums need gram_every >= 1, gram_tokens in (0, 1] and gram_memory in "
            f"[0, 1), got {every}, {tokens} and {memory}."
        )


class RunningGrams:
    """Running Gram sums G <- memory G + (1 - memory) h^T h / tokens of every layer, (N, N) each.

    Takes a random share `tokens` of a batch's real tokens (padding never counts) at every
    `every`-th training step; `step` is advanced by the owner. Only a step's first forward pass
    fades what was there, so accumulated micro-batches count together. h is ungated. The reference
    code's settings are every=1, tokens=1, memory=0.001; the `Pruner`'s cost a thirty-second.
    """

    def __init__(
        self, model: nn.Module, gates: list, every: int, tokens: float, memory: float, seed: int = 0
    ) -> None:
        self.every, self.tokens, self.memory, self.step = every, tokens, memory, 0
        self.sums = [torch.zeros(len(g.mask), len(g.mask), device=g.mask.device) for g in gates]
        self._generator = torch.Generator().manual_seed(seed)
        self._rows: Tensor | None = None
        self._added_at, self._fade = -1, memory
        for i, gate in enumerate(gates):
            gate.watch = partial(self._add, i)
        self._handle = model.register_forward_pre_hook(self, with_kwargs=True)

    @property
    def due(self) -> bool:
        """True at the steps that add to the sums."""
        return self.step % self.every == 0

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._rows = None
        if not (self.due and model.training and torch.is_grad_enabled()):
            return
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones_like(kwargs["input_ids"] if "input_ids" in kwargs else args[0])
        real = mask.flatten().nonzero().flatten()
        chosen = torch.randperm(len(real), generator=self._generator)[
            : math.ceil(self.tokens * len(real))
        ]
        self._rows = real[chosen.to(real.device)]
        self._fade = 1.0 if self._added_at == self.step else self.memory
        self._added_at = self.step

    def _add(self, i: int, h: Tensor) -> None:
        if self._rows is not None:
            rows = h.flatten(0, -2)[self._rows].float()  # (sampled tokens, N)
            self.sums[i].addmm_(rows.T, rows, beta=self._fade, alpha=(1 - self.memory) / len(rows))

    def __deepcopy__(self, memo: dict) -> RunningGrams:
        return self

    def remove(self) -> None:
        self._handle.remove()
        self.sums = []


def averaged(tensors: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The same tensors, each averaged in place over the ranks where several processes train."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for tensor in tensors:
            if tensor is not None:
                torch.distributed.all_reduce(tensor)
                tensor /= torch.distributed.get_world_size()
    return tensors
