"""Physical removal: a smaller copy that computes what the gated model computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from gumlab.feedforward import neurons
from gumlab.gating import remove_gates
from gumlab.models import width_field
from gumlab.selection import check_masks


def shrink(model: nn.Module, masks: Sequence[Tensor]) -> nn.Module:
    """A copy of `model` with only the neurons that `masks` keep; the original is untouched.

    masks: one (N,) bool tensor per layer. The copy has no gates, and its logits equal the gated
    model's within float tolerance. Raises GumlabError for masks that do not fit.
    """
    layers = neurons(model)
    check_masks(masks, [layer.width for layer in layers])
    kept = [mask.nonzero().flatten() for mask in masks]
    return with_neurons(model, kept)


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
