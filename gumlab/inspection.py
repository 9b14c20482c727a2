"""What a neuron is worth to its model: Gram statistics, sensitivity, uniqueness, twins.

One pass over the data gathers, per layer, the Gram matrix G = H^T H (tokens x neurons H, padding
never counts) and the sensitivity; every other figure comes from G.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.batches import IGNORED, batches, memory_guard, token_losses
from gumlab.feedforward import neurons
from gumlab.tasks import Example, Task

UNIQUE_BELOW = 0.8  # the paper's threshold on the cosine


@dataclass
class Redundancy:
    """One figure per neuron, lists of (N,) tensors by layer; `uniqueness` for the whole model."""

    sensitivity: list[Tensor]
    max_cosine: list[Tensor]
    twin: list[Tensor]
    unique: list[Tensor]
    dead: list[Tensor]
    gram: list[Tensor]
    tokens: int

    @property
    def uniqueness(self) -> float:
        """Share of neurons without a later neuron of their layer at cosine 0.8 or more."""
        return float(torch.cat(self.unique).float().mean())

    @property
    def mean_sensitivity(self) -> float:
        """Mean over all neurons."""
        return float(torch.cat(self.sensitivity).mean())

    def table(self) -> Any:
        """A pandas DataFrame, one row per layer."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": range(len(self.unique)),
                "neurons": [len(u) for u in self.unique],
                "uniqueness": [float(u.float().mean()) for u in self.unique],
                "dead": [int(d.sum()) for d in self.dead],
                "sensitivity": [float(s.mean()) for s in self.sensitivity],
                "mean_max_cosine": [float(c.abs().mean()) for c in self.max_cosine],
            }
        )

    def __repr__(self) -> str:
        head = f"Redundancy(uniqueness {self.uniqueness:.3f}, {self.tokens:,} tokens)"
        return f"{head}\n{self.table().round(4)}"


def redundancy(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    batch_size: int = 16,
) -> Redundancy:
    """Measure every neuron on the first `limit` examples of a split (the paper: the training set).

    Works on dense and shrunk models. The figures do not depend on the batch size.
    """
    examples = (task.split(split) if isinstance(task, Task) else list(task))[:limit]
    layers = neurons(model)
    taps = [_Tap(layer) for layer in layers]
    device = layers[0].proj.weight.device
    grams = [torch.zeros(n.width, n.width, device=device) for n in layers]
    sums = [torch.zeros(n.width, device=device) for n in layers]
    tokens, was_training = 0, model.training
    model.eval()
    try:
        with memory_guard(batch_size), torch.enable_grad():
            for batch in batches(model, tokenizer, examples, batch_size):
                labels, real = batch.pop("labels"), batch["attention_mask"].bool()
                losses = token_losses(model(**batch).logits, labels)
                means = losses.sum(1) / (labels[:, 1:] != IGNORED).sum(1)  # L of each sequence
                for layer, gradients in enumerate(_gradients(means.sum(), taps)):
                    kept = taps[layer].kept
                    sums[layer] += sequence_sensitivity(kept, gradients, len(real)).sum(0)
                    h = kept[-1].detach().flatten(0, -2)[real.flatten()].float()
                    grams[layer].addmm_(h.T, h)
                tokens += int(real.sum())
    finally:
        for tap in taps:
            tap.remove()
        model.train(was_training)
    cosines = [cosine(g) for g in grams]
    twins = [nearest(c) for c in cosines]
    return Redundancy(
        sensitivity=[s / len(examples) for s in sums],
        max_cosine=[c for c, _ in twins],
        twin=[i for _, i in twins],
        unique=[unique(c) for c in cosines],
        dead=[g.diagonal() == 0 for g in grams],
        gram=grams,
        tokens=tokens,
    )


def sequence_sensitivity(
    kept: Sequence[Tensor], gradients: Sequence[Tensor], sequences: int
) -> Tensor:
    """|sum over a neuron's weights of w dL/dw| for each sequence, (B, N).

    From activations alone: the sum over tokens of z dL/dz (each incoming row with its bias) plus
    h dL/dh. kept, gradients: the z's and h, (B, T, N) or flat (B T, N), and dL/d of them.
    """
    products = [(x.detach() * g).float() for x, g in zip(kept, gradients, strict=True)]
    return sum(p.view(sequences, -1, p.shape[-1]).sum(1) for p in products).abs()


def cosine(gram: Tensor) -> Tensor:
    """G_ij / sqrt(G_ii G_jj), (N, N), signed; 0 in the rows of dead neurons."""
    energy = gram.diagonal()
    inverse = torch.where(energy > 0, energy.clamp_min(1e-30).rsqrt(), 0.0)
    return gram * inverse * inverse[:, None]


def nearest(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """The signed cosine with the twin (largest |cosine|), and the twin's index; (N,) each."""
    if len(cosines) == 1:
        return torch.zeros(1), torch.zeros(1, dtype=torch.long)
    off = cosines - torch.diag(cosines.diagonal())
    index = off.abs().argmax(1)
    return off.gather(1, index[:, None]).squeeze(1), index


def unique(cosines: Tensor, threshold: float = UNIQUE_BELOW) -> Tensor:
    """True for neurons with no later neuron j > i at cosine >= threshold; dead ones are False."""
    has_later = (cosines >= threshold).triu(diagonal=1).any(1)
    return ~has_later & (cosines.diagonal() > 0)


class _Tap:
    """Keeps a layer's z (one or two) and h of the last forward pass, with their graph."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.kept = layer, []
        hooks = [m.register_forward_hook(self._after_fc) for m in layer.fc]
        self._handles = [*hooks, layer.proj.register_forward_pre_hook(self._before_proj)]

    def _after_fc(self, module: nn.Module, inputs: tuple, z: Tensor) -> Tensor | None:
        if module is self.layer.fc[0]:
            self.kept = []
        if not z.requires_grad:
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
    flat = torch.autograd.grad(loss, [x for tap in taps for x in tap.kept])
    counts = [len(tap.kept) for tap in taps]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [flat[s : s + c] for s, c in zip(starts, counts, strict=True)]
