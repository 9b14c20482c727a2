"""One view of a feed-forward block's neurons, whatever the architecture.

A block computes h = act(x W_in^T + b) (gated: h = act(x W_gate^T) * (x W_up^T)) and returns
h W_out^T + b_out. Neuron i is row i of W_in, entry i of b, and column i of W_out. Blocks are found
by structure, not by class: outside attention, inside a numbered layer, a module whose linear maps
are as one of these rows says (D the model's width, N the neurons; out, by its shape, is N -> D):

| maps   | into the neurons  | out    | incoming of neuron i            | as in                    |
|--------|-------------------|--------|---------------------------------|--------------------------|
| plain  | fc: D -> N        | N -> D | row i of fc                     | GPT-2, GPT-Neo, OPT, Phi |
| gated  | gate, up: D -> N  | N -> D | row i of gate, row i of up      | Llama, Qwen3, Gemma      |
| fused  | gate_up: D -> 2 N | N -> D | rows i and N + i of gate_up     | Phi-3, GLM               |

Where N = D, the shapes cannot tell, and the map that was defined last counts as out. A block with
other numbers by neuron (a norm over the N), and a layer with experts, are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError

WIDTHS = ("n_inner", "ffn_dim", "intermediate_size", "ffn_hidden_size")


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

    def maps(self, grad: bool = False) -> list[Tensor]:
        """Views of the weights by neuron, (N, D): incoming (gated: gate, up), then outgoing."""
        rows = [part for m in self.fc for part in by_output(m, grad).split(self.width)]
        return [*rows, self.outgoing(grad)]

    def incoming(self, grad: bool = False) -> Tensor:
        """W_in by neuron, (N, D), without bias; gated: gate and up side by side, (N, 2 D).

        With `grad`, the gradients in the same shape. A view where the storage allows it.
        """
        rows = self.maps(grad)[:-1]
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
        first = self.places(torch.arange(1))
        return sum(p.numel() // p.shape[axis] * len(rows) for p, axis, rows in first)

    def places(self, index: Tensor) -> list[tuple[nn.Parameter, int, Tensor]]:
        """(parameter, axis, rows) of each of the block's parameters: where the neurons `index` sit.

        index: (k,); rows: (k,), or (2 k,) where gate and up are fused. The bias of `proj` is not a
        neuron's.
        """
        found = []
        for module in self.fc:
            parts = by_output(module).shape[0] // self.width
            rows = torch.cat([index + part * self.width for part in range(parts)])
            found.append((module.weight, int(is_conv1d(module)), rows))
            if module.bias is not None:
                found.append((module.bias, 0, rows))
        return [*found, (self.proj.weight, int(not is_conv1d(self.proj)), index)]

    def replacements(self, index: Tensor) -> dict[nn.Parameter, nn.Parameter]:
        """This block's parameters at the neurons `index` (k,), as old -> new; nothing changes here.

        An index of N or more gives a zero neuron (padding).
        """
        new, index = {}, index.to(self.proj.weight.device)
        for old, axis, rows in self.places(index.clamp(max=self.width - 1)):
            taken = old.detach().index_select(axis, rows)
            padding = (index >= self.width).repeat(len(rows) // len(index)).nonzero().flatten()
            new[old] = nn.Parameter(taken.index_fill_(axis, padding, 0), old.requires_grad)
        return new

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
    config, modules = getattr(model, "config", None), list(model.named_modules())
    size_d = getattr(config, "hidden_size", None)
    blocks = [block for name, module in modules if (block := _block(name, module, size_d))]
    layers = getattr(config, "num_hidden_layers", len(blocks))
    experts = [name for name, _ in modules if "expert" in name or "moe" in name]
    if not blocks or len(blocks) != layers or experts:
        names = ", ".join([b.name for b in blocks[:3]] + experts[:1]) or "none"
        raise GumlabError(
            f"Expected one feed-forward block in each of the {layers} layers of "
            f"{type(model).__name__}, found {len(blocks)} ({names}); {_layer(modules)}. gumlab "
            "prunes decoder models whose layers hold one plain or gated block, such as GPT-2, "
            "GPT-Neo, OPT or Llama; mixtures of experts are not supported."
        )
    return blocks


def width_field(model: nn.Module) -> str:
    """The name of the config's entry for the feed-forward width, or to record it under."""
    return next((f for f in WIDTHS if hasattr(model.config, f)), "intermediate_size")


def _layer(modules: list[tuple[str, nn.Module]]) -> str:
    """What the first numbered layer holds, for the sentence of a refusal."""
    for name, module in modules:
        if name.rpartition(".")[2].isdigit():
            parts = {n: [type(m).__name__, *dict(m.named_children())] for n, m in _parts(module)}
            text = ", ".join(f"{n} ({' '.join(inside)})" for n, inside in parts.items())
            return f"{name}, a {type(module).__name__}, holds {text or 'no modules'}"
    return "no module is a numbered layer"


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in module.named_children() if "attn" not in n and "attention" not in n]


def _block(name: str, module: nn.Module, hidden: int | None) -> FeedForward | None:
    if "attn" in name or "attention" in name or not any(p.isdigit() for p in name.split(".")):
        return None
    parts = dict(_parts(module))
    maps = [child for child in parts.values() if is_linear(child)]
    if len(maps) not in (2, 3):
        return None
    for proj in reversed(maps):  # defined last, as a rule
        fc = tuple(m for m in maps if m is not proj)
        size_d, size_n = by_output(proj).shape  # W_out is (D, N)
        heights = [size_n] if len(fc) == 2 else [size_n, 2 * size_n]
        fits = all(by_output(m).shape[1] == size_d and by_output(m).shape[0] in heights for m in fc)
        if fits and hidden in (size_d, None):
            own = [p for m in parts.values() if m not in maps for p in m.parameters()]
            own += module.parameters(recurse=False)
            known = size_n == size_d or not any(size_n in p.shape for p in own)
            return FeedForward(name, fc, proj) if known else None
    return None
