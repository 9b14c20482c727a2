"""One view of a feed-forward block's neurons, whatever the architecture.

A block computes h = act(x W_in^T + b) (gated: h = act(x W_gate^T) * (x W_up^T)) and returns
h W_out^T + b_out. Neuron i is row i of W_in, entry i of b, and column i of W_out. Blocks are found
by structure: outside attention, inside a numbered layer, the last linear map N -> D of a module
whose earlier linear maps are all D -> N (one: plain, two: gated) or D -> 2N (fused gate and up).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError


def is_conv1d(module: nn.Module) -> bool:
    """True for GPT-2's Conv1D, a linear map that stores its weight as (in, out)."""
    return type(module).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def by_output(module: nn.Module, grad: bool = False) -> Tensor:
    """A linear map's weight (or its gradient) as (out, in), a view whichever way it is stored."""
    weight = module.weight.grad if grad else module.weight
    if weight is None:
        raise GumlabError(
            "A weight has no gradient yet: call loss.backward() before pruner.step()."
        )
    return weight.T if is_conv1d(module) else weight


@dataclass(frozen=True)
class FeedForward:
    """The neurons of one layer: `width` N, their incoming and outgoing weights.

    `fc` are the maps into the neurons (two in a gated block; one of double height where gate and
    up are fused), `proj` the map out of them. `proj`'s input is the activation h, shape (B, T, N).
    """

    name: str
    fc: tuple[nn.Module, ...]
    proj: nn.Module

    @property
    def width(self) -> int:
        """N, the number of neurons."""
        return by_output(self.proj).shape[1]

    @property
    def fused(self) -> bool:
        """True where one map computes gate and up together, as in Phi-3."""
        return by_output(self.fc[0]).shape[0] != self.width

    @property
    def gated(self) -> bool:
        return len(self.fc) == 2 or self.fused

    def incoming(self, grad: bool = False) -> Tensor:
        """W_in by neuron, (N, D), without bias; gated: gate and up side by side, (N, 2 D).

        With `grad`, the gradients in the same shape. A view where the storage allows it.
        """
        rows = [part for m in self.fc for part in by_output(m, grad).split(self.width)]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def incoming_bias(self) -> Tensor | None:
        """b by neuron, (N, 1) or gated (N, 2); None where the block has no bias."""
        biases = [b for m in self.fc if m.bias is not None for b in m.bias.split(self.width)]
        return torch.stack(biases, dim=1) if biases else None

    def outgoing(self, grad: bool = False) -> Tensor:
        """W_out by neuron, (N, D): row i is w_i, what neuron i writes. With `grad`, gradients."""
        return by_output(self.proj, grad).T

    def parameters_per_neuron(self) -> int:
        """How many numbers leave the model with one neuron: incoming, bias and outgoing."""
        bias = self.incoming_bias()
        columns = self.incoming().shape[1] + self.outgoing().shape[1]
        return columns + (0 if bias is None else bias.shape[1])

    def replacements(self, index: Tensor) -> dict[nn.Parameter, nn.Parameter]:
        """This block's parameters at the neurons `index` (k,), as old -> new; nothing changes here.

        An index of N or more gives a zero neuron (padding). The bias of `proj` is not a neuron's.
        """
        new = {}
        for module in self.fc:
            parts = by_output(module).shape[0] // self.width
            new[module.weight] = self._take(module.weight, index, is_conv1d(module), parts)
            if module.bias is not None:
                new[module.bias] = self._take(module.bias, index, 0, parts)
        new[self.proj.weight] = self._take(self.proj.weight, index, not is_conv1d(self.proj))
        return new

    def _take(self, weight: nn.Parameter, index: Tensor, dim: int, parts: int = 1) -> nn.Parameter:
        index = index.to(weight.device)
        rows = torch.cat([index.clamp(max=self.width - 1) + p * self.width for p in range(parts)])
        taken = weight.detach().index_select(int(dim), rows)
        padding = (index >= self.width).repeat(parts).nonzero().flatten()
        if len(padding):
            taken.index_fill_(int(dim), padding, 0)
        return nn.Parameter(taken, weight.requires_grad)

    def set_sizes(self) -> None:
        """Make the modules' own size fields agree with their weights, after a cut."""
        for module in (*self.fc, self.proj):
            size_out, size_in = by_output(module).shape
            if is_conv1d(module):
                module.nf, module.nx = size_out, size_in
            else:
                module.out_features, module.in_features = size_out, size_in

    def __repr__(self) -> str:
        kind = "gated (fused)" if self.fused else "gated" if self.gated else "plain"
        return f"FeedForward({self.name}: {self.width} neurons, {kind})"


def neurons(model: nn.Module) -> list[FeedForward]:
    """The feed-forward blocks of a model, one per layer, in order.

    Raises GumlabError where no block of a known structure is found, or where a layer holds several
    (a mixture of experts), saying what was found.
    """
    blocks = [block for name, module in model.named_modules() if (block := _block(name, module))]
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", len(blocks))
    if not blocks or len(blocks) != layers:
        names = ", ".join(b.name for b in blocks[:3]) or "none"
        raise GumlabError(
            f"Expected one feed-forward block in each of the {layers} layers of "
            f"{type(model).__name__}, found {len(blocks)} ({names}). gumlab prunes decoder models "
            "whose layers hold one plain or gated block, such as GPT-2, GPT-Neo, OPT or Llama; "
            "mixtures of experts are not supported."
        )
    return blocks


def _block(name: str, module: nn.Module) -> FeedForward | None:
    path = name.split(".")
    if "attn" in name or "attention" in name or not any(part.isdigit() for part in path):
        return None
    maps = [child for child in module.children() if is_linear(child)]
    if len(maps) not in (2, 3) or any("expert" in part for part in path):
        return None
    *fc, proj = maps
    size_d, size_n = by_output(proj).shape  # W_out is (D, N)
    heights = [size_n] if len(fc) == 2 else [size_n, 2 * size_n]
    if all(by_output(m).shape[1] == size_d and by_output(m).shape[0] in heights for m in fc):
        return FeedForward(name, tuple(fc), proj)
    return None
