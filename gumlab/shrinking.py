"""Physical removal: a smaller copy that computes what the gated model computes; and the refit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons
from gumlab.gating import Gate, remove_gates
from gumlab.models import width_field
from gumlab.selection import check_masks
from gumlab.statistics import RIDGE, Statistics, collect
from gumlab.tasks import Example, Task


def shrink(
    model: nn.Module,
    masks: Sequence[Tensor],
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    refit: bool = False,
    sequential: bool = True,
    ridge: float = RIDGE,
    **options: Any,
) -> nn.Module:
    """A copy of `model` with only the neurons that `masks` keep; the original is untouched.

    masks: one (N,) bool tensor per layer. Without refit the copy's logits equal the gated model's
    within float tolerance. With `refit` (needs tokenizer and task) the kept neurons' outgoing
    weights and the bias take over what the removed ones did, by least squares on the data;
    `sequential` measures each layer behind the layers already cut. options: as `collect` takes
    them (split, limit, batch_size). Raises GumlabError for masks that do not fit, or missing data.
    """
    layers = neurons(model)
    check_masks(masks, [layer.width for layer in layers])
    if refit:
        if tokenizer is None or task is None:
            raise GumlabError(
                "The refit is measured on data. Give them: "
                "gumlab.shrink(model, masks, tokenizer, task, refit=True)."
            )
        model = _refitted(model, masks, tokenizer, task, sequential, ridge, options)
    return with_neurons(model, [mask.nonzero().flatten() for mask in masks])


def with_neurons(model: nn.Module, indices: Sequence[Tensor]) -> nn.Module:
    """A copy of `model` whose layer l holds the neurons indices[l]; N or more is a zero neuron."""
    new = {}
    for layer, index in zip(neurons(model), indices, strict=True):
        new.update(layer.replacements(index))
    # deepcopy takes what its memo already holds, so the blocks are never copied at full width
    small = copy.deepcopy(model, {id(old): parameter for old, parameter in new.items()})
    remove_gates(small)
    for layer in neurons(small):
        layer.set_sizes()
    widths = {layer.width for layer in neurons(small)}
    if len(widths) == 1:
        setattr(small.config, width_field(small), widths.pop())
    return small


@torch.no_grad()
def refit_layer(layer: FeedForward, mask: Tensor, found: Statistics, ridge: float = RIDGE) -> None:
    """W_S <- W_S + (G_SS + ridge)^-1 G_SR W_R, in place: S kept, R removed (mask, (N,) bool).

    The least squares solution of H_S W_S' = H W with a ridge on the change, so that the error on
    the data is never larger than without the refit. Where `proj` has a bias it is solved for too,
    as a neuron that always fires 1 (for a constant h this is FLAP's bias compensation).
    """
    gram, total = found.gram.double(), found.total.double()
    w = layer.outgoing().double()
    lift = ridge * gram.diagonal().mean().clamp_min(1e-30)
    left = gram[mask][:, mask] + lift * torch.eye(int(mask.sum()), dtype=w.dtype, device=w.device)
    right = gram[mask][:, ~mask] @ w[~mask]
    if layer.proj.bias is not None:
        ones = total[mask][:, None]
        count = total.new_full((1, 1), found.tokens)
        left = torch.cat([torch.cat([left, ones], 1), torch.cat([ones.T, count], 1)])
        right = torch.cat([right, total[~mask][None] @ w[~mask]])
    change = torch.cholesky_solve(right, torch.linalg.cholesky(left)).to(layer.proj.weight.dtype)
    layer.outgoing()[mask] += change[: int(mask.sum())]
    if layer.proj.bias is not None:
        layer.proj.bias += change[-1]


def _refitted(
    model: nn.Module,
    masks: Sequence[Tensor],
    tokenizer: Any,
    task: Task | Sequence[Example],
    sequential: bool,
    ridge: float,
    options: dict[str, Any],
) -> nn.Module:
    """A full-width copy whose kept neurons do the removed ones' work; the removed are gated."""
    model = copy.deepcopy(model)
    remove_gates(model)
    layers = neurons(model)
    found = None if sequential else collect(model, tokenizer, task, **options)
    for i, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
        mask = mask.to(layer.proj.weight.device)
        if found is None:
            (seen,) = collect(model, tokenizer, task, only=[i], **options)
        else:
            seen = found[i]
        refit_layer(layer, mask, seen, ridge)
        Gate(layer).mask = mask
    return model
