"""Neurons that are out for good leave a live model: its tensors, and all that has their shape.

A parameter stays the same object, so optimizers, schedules and hooks go on holding it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons
from gumlab.gating import Gate
from gumlab.models import width_field


def check_optimizers(layers: Sequence[FeedForward], optimizers: Sequence[Any]) -> None:
    """Raise GumlabError unless optimizers hold the layers' weights, in state that can be cut too.

    That is: a tensor of their state has its parameter's shape, or is one number.
    """
    held = {p for o in optimizers for group in o.param_groups for p in group["params"]}
    for p in (p for layer in layers for p, *_ in layer.places(torch.arange(0))):
        if p.requires_grad and p not in held:
            raise GumlabError(
                "With cut=True the optimizer's state is cut with the weights. Call "
                "pruner.step(optimizer) with the optimizer of the model, or with all of them."
            )
        for key, value in ((k, v) for o in optimizers for k, v in o.state.get(p, {}).items()):
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != p.shape:
                raise GumlabError(
                    f"The optimizer's {key!r} of a weight {tuple(p.shape)} is {tuple(value.shape)} "
                    "and cannot be cut with it. Use AdamW or SGD, or final=True, not cut=True."
                )


def cut_pays(gates: Sequence[Gate], last: bool) -> bool:
    """Whether an eighth of the neurons there is out; at the last chance, whether one is."""
    out, there = sum(int((~g.mask).sum()) for g in gates), sum(len(g.mask) for g in gates)
    return out > 0 if last else out >= there / 8


def cut(
    model: nn.Module, gates: Sequence[Gate], grams: list[Tensor], optimizers: Sequence[Any]
) -> None:
    """Leave in a model only the neurons that its gates keep, and in their Gram sums (or [])."""
    for i, gate in enumerate(gates):
        index = gate.mask.nonzero().flatten()
        cut_layer(gate.layer, index, optimizers)
        gate.cut(index)
        if grams:
            grams[i] = grams[i][index][:, index]
    agree(model)


@torch.no_grad()
def cut_layer(layer: FeedForward, index: Tensor, optimizers: Sequence[Any] = ()) -> None:
    """Leave only the neurons `index` (k,) in a layer: in weights, gradients and optimizer state."""
    for p, axis, rows in layer.places(index):
        shape, weight, grad, p.grad = p.shape, p.detach(), p.grad, None
        # torch keeps the node that gathers p's gradient, of the old shape, until p's type changes
        p.data = p.new_empty(0, dtype=torch.half if p.dtype != torch.half else torch.float)
        p.data = weight.index_select(axis, rows)
        p.grad = None if grad is None else grad.index_select(axis, rows)
        for state in (o.state[p] for o in optimizers if p in o.state):
            for key, value in state.items():
                if isinstance(value, Tensor) and value.numel() > 1 and value.shape == shape:
                    state[key] = value.index_select(axis, rows)
    layer.set_sizes()


def agree(model: nn.Module) -> None:
    """Make the config's width agree with the layers', where they are equal and it has one."""
    widths = {layer.width for layer in neurons(model)}
    if len(widths) == 1 and hasattr(model.config, field := width_field(model)):
        setattr(model.config, field, widths.pop())


def among_left(layers: Sequence[FeedForward], masks: Sequence[Tensor]) -> list[Tensor]:
    """Masks over the neurons that a cutting `Pruner` began with as masks over those still there.

    Masks of another length, or that keep a neuron which has left, come back as they are.
    """
    masks = list(masks)
    for i, (layer, mask) in enumerate(zip(layers, masks, strict=False)):
        left, size = getattr(layer.proj, "neurons_left", (None, layer.width))
        if size > layer.width and mask.shape == (size,) and mask.sum() == mask[left].sum():
            masks[i] = mask[left]
    return masks
