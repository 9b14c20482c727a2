"""Masks on live neurons: h' = m * h before the output projection, straight-through to the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from gumlab.collecting import RunningGrams
from gumlab.feedforward import FeedForward, neurons
from gumlab.selection import check_masks


class _StraightThrough(torch.autograd.Function):
    """h' = m h; backward passes m dL/dh' to h and sum over tokens of h dL/dh' to the score."""

    @staticmethod
    def forward(ctx, h: Tensor, score: Tensor, mask: Tensor) -> Tensor:  # (B, T, N), (N,), (N,)
        ctx.save_for_backward(h, mask)
        return h * mask

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        h, mask = ctx.saved_tensors
        to_score = (product := h * grad).flatten(0, -2).sum(0, dtype=torch.float32)
        return torch.mul(grad, mask, out=product), to_score, None  # in memory that is at hand


class Gate:
    """The mask m of one layer, hooked in before `proj`.

    score: a leaf tensor (N,) that receives the straight-through gradient dL/dm, or None.
    watch: called with the ungated h (B, T, N), detached, at every forward pass in training.
    left: where the neurons of `mask` stood among the `size` it began with, before any `cut`.
    """

    def __init__(self, layer: FeedForward, score: Tensor | None = None) -> None:
        weight = layer.proj.weight
        self.layer, self.score = layer, score
        self.watch: Callable[[Tensor], None] | None = None
        self.size, self.left = layer.width, torch.arange(layer.width, device=weight.device)
        self.mask = torch.ones(layer.width, dtype=torch.bool, device=weight.device)
        self._handle = layer.proj.register_forward_pre_hook(self)

    @property
    def kept(self) -> Tensor:
        """m over all the neurons it began with, (size,) bool; those that were cut are out."""
        return self.mask.new_zeros(self.size).index_copy(0, self.left, self.mask)

    def cut(self, index: Tensor) -> None:
        """The layer now holds only its neurons `index` (k,)."""
        self.left, self.mask = self.left[index], self.mask[index]
        self.layer.proj.neurons_left = self.left.cpu(), self.size  # for `shrink`

    def __call__(self, proj: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = inputs
        training = proj.training and torch.is_grad_enabled()
        if self.watch is not None and training:
            self.watch(h.detach())
        mask = self.mask.to(h.dtype)
        if self.score is not None and training:
            score = self.score if len(mask) == self.size else self.score[self.left]
            return (_StraightThrough.apply(h, score, mask),)
        return (h * mask,)

    def __deepcopy__(self, memo: dict) -> Gate:
        return self  # a copied model sheds its gates (see shrinking); never copy their statistics

    def remove(self) -> None:
        """Take the hook off; the model computes what it did before."""
        self._handle.remove()

    def __repr__(self) -> str:
        return f"Gate({self.layer.name}: {int(self.mask.sum())} of {self.layer.width} kept)"


class Gates(list[Gate], AbstractContextManager):
    """One Gate per layer; `remove()`, or the end of a `with` block, takes them all off."""

    def remove(self) -> None:
        for one in self:
            one.remove()

    def __exit__(self, *_: object) -> None:
        self.remove()


def gate(model: nn.Module, masks: Sequence[Tensor]) -> Gates:
    """Hook one Gate per layer with the given masks, (N,) bool each.

    Use it as `with gumlab.gate(model, masks): ...`, or keep it and call its `remove()`.
    """
    layers = neurons(model)
    check_masks(masks, [layer.width for layer in layers])
    gates = Gates(Gate(layer) for layer in layers)
    for one, mask in zip(gates, masks, strict=True):
        one.mask = mask.to(one.mask.device)
    return gates


def kept_by_gates(model: nn.Module) -> list[Tensor]:
    """The masks of a model's gates, (N,) bool per layer; all True where a layer has none."""
    masks = []
    for layer in neurons(model):
        gates = [h.mask for h in layer.proj._forward_pre_hooks.values() if isinstance(h, Gate)]
        mask = torch.ones(layer.width, dtype=torch.bool, device=layer.proj.weight.device)
        masks.append(torch.stack([mask, *gates]).all(0))
    return masks


def remove_gates(model: nn.Module) -> None:
    """Take every gate off a model, whoever put it there, and the note of what a cut left."""
    for module in model.modules():
        vars(module).pop("neurons_left", None)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Gate | RunningGrams):
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
