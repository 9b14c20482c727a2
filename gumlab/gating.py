"""Masks on live neurons: h' = m * h before the output projection, straight-through to the score."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import RunningGrams
from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons
from gumlab.ranks import GradientsByHand, ServesNobody
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
        product = h * grad
        to_score = product.flatten(0, -2).sum(0, dtype=torch.float32)
        to_h = torch.mul(grad, mask, out=product)  # in memory that is at hand
        return to_h, to_score, None


class Gate:
    """The mask m of one layer, hooked in before `proj`: h' = m h.

    Attributes
    ----------
    layer : FeedForward
        The layer it gates.
    mask : Tensor
        m, (N,) bool, N the layer's width now. All True at first.
    score : Tensor or None
        A leaf tensor that receives the straight-through gradient dL/dm, one entry per neuron that
        the gate began with.
    watch : callable or None
        Called with the ungated h (B, T, N), detached, at every forward pass in training.
    origin : Tensor
        (N,): where the layer's neurons stood when the gate was made, before any `cut`.
    fixed : bool
        Whether `gate` put it on: its mask is no pruner's.
    passed : bool
        Whether a forward pass went through it; whoever asks sets it back.
    in_float16 : bool
        Whether one in training did with h in float16, which needs a loss scale.

    Notes
    -----
    A copy of a gated model has gates of its own: its masks stay as they are, and its forward passes
    feed neither the scores nor the Gram sums of the original.
    """

    def __init__(self, layer: FeedForward, score: Tensor | None = None) -> None:
        self.layer = layer
        self.score = score
        self.watch: Callable[[Tensor], None] | None = None
        self.size = layer.width  # how many neurons there were at first
        self.origin = torch.arange(layer.width, device=layer.device)
        self.mask = torch.ones(layer.width, dtype=torch.bool, device=layer.device)
        self.fixed = False
        self.passed = False
        self.in_float16 = False
        layer.proj.register_forward_pre_hook(self)
        _forget_compiled()

    @property
    def original_mask(self) -> Tensor:
        """m over all the neurons that the gate began with, (size,) bool; those cut are out."""
        nobody = self.mask.new_zeros(self.size)
        return nobody.index_copy(0, self.origin, self.mask)

    @property
    def in_force(self) -> bool:
        """Whether it is still hooked to its layer."""
        return self in self.layer.proj._forward_pre_hooks.values()

    def cut(self, index: Tensor) -> None:
        """Follow a layer that now holds only its neurons `index` (k,)."""
        self.origin = self.origin[index]
        self.mask = self.mask[index]

    def __call__(self, proj: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = inputs
        self.passed = True
        if self.mask.device != h.device:
            self._move(h.device)
        training = proj.training and torch.is_grad_enabled()
        if self.watch is not None and training:
            self.watch(h.detach())
        mask = self.mask.to(h.dtype)
        self.in_float16 |= training and h.dtype == torch.float16
        if self.score is not None and training:
            if self.in_float16:
                raise GumlabError(
                    "float16 needs a loss scale, which would reach the scores that learn by the "
                    'gates. Take autocast in bfloat16, or gradient="neuron" after '
                    "scaler.unscale_(optimizer)."
                )
            score = self.score if len(mask) == self.size else self.score[self.origin]
            return (_StraightThrough.apply(h, score, mask),)
        return (h * mask,)

    def _move(self, device: torch.device) -> None:
        """Follow a model that went to another device; a run that has begun cannot."""
        if self.score is not None or self.watch is not None:
            check_device(self.mask.device, device)
        self.mask = self.mask.to(device)
        self.origin = self.origin.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle of the model takes along: the mask, and no tie to the run."""
        return {**vars(self), "score": None, "watch": None, "passed": False}

    def remove(self) -> None:
        """Take the hook off; the model computes what it did before."""
        _take_off(self.layer.proj, lambda hook: hook is self)

    def __repr__(self) -> str:
        return f"Gate({self.layer.name}: {int(self.mask.sum())} of {self.layer.width} kept)"


class Gates(tuple[Gate, ...], AbstractContextManager):
    """One Gate per layer; `remove()`, or the end of a `with` block, takes them all off."""

    def remove(self) -> None:
        """Take every one of them off the model."""
        for one in self:
            one.remove()

    def __exit__(self, *_: object) -> None:
        self.remove()


def gate(model: nn.Module, masks: Sequence[Tensor]) -> Gates:
    """Put masks in force on a live model: h' = m h in every layer.

    Use it as `with gumlab.gate(model, masks): ...`, or keep it and call its `remove()`.

    Parameters
    ----------
    model : nn.Module
        Gated in place; its weights stay as they are.
    masks : sequence of Tensor
        (N,) bool per layer.

    Returns
    -------
    Gates
        One `Gate` per layer.

    Raises
    ------
    GumlabError
        For masks that do not fit the model.
    """
    layers = neurons(model)
    check_masks(masks, [layer.width for layer in layers])
    gates = Gates(Gate(layer) for layer in layers)
    for one, mask in zip(gates, masks, strict=True):
        one.mask = mask.to(one.mask.device, copy=True)
        one.fixed = True
    return gates


def kept_by_gates(layers: Sequence[FeedForward]) -> list[Tensor]:
    """The masks of whatever gates the layers carry.

    Parameters
    ----------
    layers : sequence of FeedForward
        As `gumlab.neurons` gives them.

    Returns
    -------
    list of Tensor
        (N,) bool per layer: True where every gate of the layer keeps the neuron; all True where a
        layer has none.
    """
    masks = []
    for layer in layers:
        hooks = layer.proj._forward_pre_hooks.values()
        gate_masks = [hook.mask for hook in hooks if isinstance(hook, Gate)]
        everybody = torch.ones(layer.width, dtype=torch.bool, device=layer.device)
        masks.append(torch.stack([everybody, *gate_masks]).all(0))
    return masks


def fraction_by_gates(model: nn.Module) -> float:
    """The fraction of neurons that whatever gates are on a model keep; 1 where there are none.

    Parameters
    ----------
    model : nn.Module
        Or what wraps one.
    """
    kept = there = 0
    for module in model.modules():
        masks = [hook.mask for hook in module._forward_pre_hooks.values() if isinstance(hook, Gate)]
        if masks:
            kept += int(torch.stack(masks).all(0).sum())
            there += len(masks[0])
    return kept / there if there else 1.0


def remove_gates(model: nn.Module) -> None:
    """Take every gate off a model, whoever put it there, and what follows its activations."""
    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, GradientsByHand):
                hook.remove()
        _take_off(module, lambda hook: isinstance(hook, Gate | RunningGrams | ServesNobody))


def check_nobody_held_out(layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError where gates hold neurons out of a model that is to be scored and cut."""
    for layer, mask in zip(layers, kept_by_gates(layers), strict=True):
        if not mask.all():
            raise GumlabError(
                f"Gates hold {int((~mask).sum())} of {len(mask)} neurons out of {layer.name}, and "
                "a cut would let them in again. Cut them first: "
                "small = gumlab.shrink(model, pruner.masks); or take the gates off: "
                "pruner.remove()."
            )


def check_no_fixed_gates(layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError where `gate` holds neurons out of a model that is to be pruned anew."""
    for layer in layers:
        for hook in layer.proj._forward_pre_hooks.values():
            if isinstance(hook, Gate) and hook.fixed and not hook.mask.all():
                raise GumlabError(
                    f"gumlab.gate holds neurons out of {layer.name}, and a Pruner would let them "
                    "in again. Take the gates off first (gates.remove(), or after the with block), "
                    "or prune what is left: small = gumlab.shrink(model, masks)."
                )


def check_device(before: torch.device, now: torch.device) -> None:
    """Raise GumlabError where a model went to another device than its pruner's."""
    if before != now:
        raise GumlabError(
            f"The model is on {now}, but was on {before} when its Pruner was made, whose scores "
            "and sums are still there. Move the model first, then make the Pruner (a Trainer moves "
            "it to its args.device)."
        )


def _forget_compiled() -> None:
    """Have compiled models compiled anew: their code does not look for a hook where none was."""
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import takes seconds
        torch.compiler.reset()


def _take_off(module: nn.Module, which: Callable[[Any], bool]) -> None:
    """Remove some of a module's forward pre-hooks."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if which(hook):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
