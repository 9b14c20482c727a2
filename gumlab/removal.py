"""Physical removal, of a copy or of a model that trains, and the refit: one engine for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, one_by_one
from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons, width_field
from gumlab.gating import Gate, remove_gates
from gumlab.gram import RIDGE, lifted
from gumlab.scoring import Criterion, score
from gumlab.selection import check_masks, select
from gumlab.tasks import Example, Task

RECOMMENDED = {"method": "greedy_obs", "scope": "global"}


def shrink(
    model: nn.Module,
    masks: Sequence[Tensor],
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    refit: bool | str = False,
    sequential: bool = True,
    ridge: float = RIDGE,
    in_place: bool = False,
    **options: Any,
) -> nn.Module:
    """A copy of `model` with only the neurons that `masks` keep; the original is untouched.

    masks: one (N,) bool tensor per layer. Without refit the copy's logits equal the gated model's
    within float tolerance. With `refit` (needs tokenizer and task) the kept neurons' outgoing
    weights and the bias take over what the removed ones did, by least squares on the data; with
    refit="bias" only the bias does (FLAP's compensation: the removed neurons' mean output).
    `sequential` measures each layer behind the layers already cut. `in_place` cuts `model` itself,
    layer by layer, and returns it: memory need hold it once (make optimizers after it).
    options: as `collect` takes them (split, limit, batch_size). Raises GumlabError for masks that
    do not fit, missing data, or refit="bias" where the output projection has no bias.
    """
    layers = neurons(model)
    masks = among_left(layers, masks)
    check_masks(masks, [layer.width for layer in layers])
    if refit not in (False, True, "bias"):
        raise GumlabError(f'refit must be True, False or "bias", got {refit!r}.')
    if refit:
        if tokenizer is None or task is None:
            raise GumlabError(
                "The refit is measured on data. Give them: "
                "gumlab.shrink(model, masks, tokenizer, task, refit=True)."
            )
        if refit == "bias" and any(layer.proj.bias is None for layer in layers):
            raise GumlabError(
                f"The output projections of {type(model).__name__} have no bias to refit. "
                "Use refit=True, which refits the outgoing weights."
            )
    if not refit and not in_place:
        return with_neurons(model, [mask.nonzero().flatten() for mask in masks])
    model = model if in_place else copy.deepcopy(model)
    remove_gates(model)
    data = (model, tokenizer, task)
    found = one_by_one(*data, changing=sequential, **options) if refit else [None] * len(layers)
    for layer, mask, seen in zip(neurons(model), masks, found, strict=False):
        mask = mask.to(layer.proj.weight.device)
        if seen is not None:
            refit_layer(layer, mask, seen, ridge, weights=refit != "bias")
        cut_layer(layer, mask.nonzero().flatten())
    agree(model)
    return model


def prune(
    model: nn.Module,
    method: str | Criterion = "recommended",
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    keep: float = 0.5,
    refit: bool | str = True,
    seed: int = 0,
    **selecting: Any,
) -> nn.Module:
    """Score, select, refit and shrink in one call, before or without training: a smaller copy.

    method: one of `gumlab.score`'s, or "recommended", which is the recipe of RECOMMENDED: greedy
    OBS, one budget over all layers, and the refit. It is for a model that already does the task,
    and followed by training (results/recipes.md is the evidence); a model that is still to learn
    the task is better pruned by a `Pruner` on the way. keep and selecting: as `gumlab.select` takes
    them. refit: as in `shrink`. Raises what those raise.
    """
    if method == "recommended":
        method, selecting = RECOMMENDED["method"], {"scope": RECOMMENDED["scope"], **selecting}
    scores = score(model, method, tokenizer, task, seed=seed)
    return shrink(model, select(scores, keep, **selecting), tokenizer, task, refit=refit)


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
    agree(small)
    return small


@torch.no_grad()
def refit_layer(
    layer: FeedForward, mask: Tensor, found: Statistics, ridge: float = RIDGE, weights: bool = True
) -> None:
    """W_S <- W_S + (G_SS + ridge)^-1 G_SR W_R, in place: S kept, R removed (mask, (N,) bool).

    The least squares solution of H_S W_S' = H W with a ridge on the change, so that the error on
    the data is never larger than without the refit. Where `proj` has a bias it is solved for too,
    as a neuron that always fires 1. Without `weights` the bias alone is: FLAP's compensation
    b <- b + (mean of h_R) W_R (An et al. 2023).
    """
    total, removed = found.total.double(), layer.outgoing()[~mask].double()
    if not weights:
        layer.proj.bias += (total[~mask] @ removed / found.tokens).to(layer.proj.weight.dtype)
        return
    left = lifted(found.gram, ridge, mask)
    right = found.gram[mask][:, ~mask].double() @ removed  # off the diagonal there is no ridge
    if layer.proj.bias is not None:
        ones = total[mask][:, None]
        count = total.new_full((1, 1), found.tokens)
        left = torch.cat([torch.cat([left, ones], 1), torch.cat([ones.T, count], 1)])
        right = torch.cat([right, total[~mask][None] @ removed])
    change = torch.cholesky_solve(right, torch.linalg.cholesky(left)).to(layer.proj.weight.dtype)
    layer.outgoing()[mask] += change[: int(mask.sum())]
    if layer.proj.bias is not None:
        layer.proj.bias += change[-1]


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
