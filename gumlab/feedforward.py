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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.language import language_config, language_part
from gumlab.offloading import check_separate, device_of
from gumlab.tasks.batches import check_reads_as_given

WIDTHS = ("n_inner", "ffn_dim", "intermediate_size", "ffn_hidden_size")
BY_CODE = "pruned_feed_forward"  # a config's entry for gumlab/io/modeling_pruned.py
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what can be summed


def is_conv1d(module: nn.Module) -> bool:
    """True for GPT-2's Conv1D, a linear map that stores its weight as (in, out)."""
    return type(module).__name__ == "Conv1D"


def is_linear(module: nn.Module) -> bool:
    """True for a linear map, whichever way it stores its weight."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def by_output(module: nn.Module, grad: bool = False) -> Tensor:
    """A linear map's weight as (out, in), a view whichever way it is stored.

    Parameters
    ----------
    module : nn.Module
        A linear map (`is_linear`).
    grad : bool
        Give the weight's gradient instead.

    Raises
    ------
    GumlabError
        Where the gradient is asked for before a backward pass.
    """
    weight = module.weight.grad if grad else module.weight
    if weight is None:
        raise GumlabError(
            "A weight has no gradient yet: call loss.backward() before pruner.step()."
        )
    return weight.T if is_conv1d(module) else weight


@dataclass(frozen=True)
class FeedForward:
    """The neurons of one layer: `width` N, their incoming and outgoing weights.

    Attributes
    ----------
    name : str
        The block's name in its model.
    fc : tuple of nn.Module
        The maps into the neurons: one, two in a gated block, or one of double height where gate and
        up are fused.
    proj : nn.Module
        The map out of them. Its input is the activation h, (B, T, N).
    """

    name: str
    fc: tuple[nn.Module, ...]
    proj: nn.Module

    @property
    def width(self) -> int:
        """N, the number of neurons."""
        return by_output(self.proj).shape[1]

    @property
    def device(self) -> torch.device:
        """Where the block's output projection, and so its neurons' activations, live."""
        return device_of(self.proj)

    @property
    def linear_maps(self) -> tuple[nn.Module, ...]:
        """The maps into the neurons, and the one out of them."""
        return (*self.fc, self.proj)

    @property
    def fused(self) -> bool:
        """True where one map computes gate and up together, as in Phi-3."""
        return by_output(self.fc[0]).shape[0] != self.width

    @property
    def gated(self) -> bool:
        return len(self.fc) == 2 or self.fused

    def maps(self, grad: bool = False) -> list[Tensor]:
        """Views of the weights by neuron, (N, D): incoming (gated: gate, up), then outgoing."""
        if grad:
            self._check_not_frozen()
        maps = []
        for module in self.fc:
            maps.extend(by_output(module, grad).split(self.width))
        maps.append(self.outgoing(grad))
        return maps

    def _check_not_frozen(self) -> None:
        """Raise GumlabError where a map's weight can have no gradient."""
        if not all(module.weight.requires_grad for module in self.linear_maps):
            raise GumlabError(
                f"A weight of {self.name} is frozen (requires_grad=False), so it has no gradient "
                'to score by. Unfreeze it, or take gradient="gate", which needs none.'
            )

    def incoming(self, grad: bool = False) -> Tensor:
        """W_in by neuron, (N, D), without bias; gated: gate and up side by side, (N, 2 D).

        With `grad`, the gradients in the same shape. A view where the storage allows it.
        """
        rows = self.maps(grad)[:-1]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def incoming_bias(self) -> Tensor | None:
        """b by neuron, (N, 1) or gated (N, 2); None where the block has no bias."""
        biases: list[Tensor] = []
        for module in self.fc:
            if module.bias is not None:
                biases.extend(module.bias.split(self.width))
        return torch.stack(biases, dim=1) if biases else None

    def outgoing(self, grad: bool = False) -> Tensor:
        """W_out by neuron, (N, D): row i is w_i, what neuron i writes. With `grad`, gradients."""
        return by_output(self.proj, grad).T

    def parameters_per_neuron(self) -> int:
        """How many numbers leave the model with one neuron: incoming, bias and outgoing."""
        first_neuron = torch.arange(1)
        return sum(
            parameter.numel() // parameter.shape[axis] * len(rows)
            for parameter, axis, rows in self.places(first_neuron)
        )

    def places(self, index: Tensor) -> list[tuple[nn.Parameter, int, Tensor]]:
        """Where some neurons sit in the block's parameters.

        The bias of `proj` is not a neuron's.

        Parameters
        ----------
        index : Tensor
            (k,), the neurons.

        Returns
        -------
        list of tuple
            (parameter, axis, rows) of each parameter: rows is (k,), or (2 k,) where gate and up
            are fused.
        """
        places = []
        for module in self.fc:
            parts = by_output(module).shape[0] // self.width
            rows = torch.cat([index + part * self.width for part in range(parts)])
            places.append((module.weight, int(is_conv1d(module)), rows))
            if module.bias is not None:
                places.append((module.bias, 0, rows))
        places.append((self.proj.weight, int(not is_conv1d(self.proj)), index))
        once = {place[0]: place for place in places}  # gate and up may be one weight
        return list(once.values())

    def replacements(self, index: Tensor) -> dict[nn.Parameter, nn.Parameter]:
        """This block's parameters at some neurons, as old -> new; nothing changes here.

        Parameters
        ----------
        index : Tensor
            (k,), the neurons, in order. An index of N or more gives a zero neuron (padding).
        """
        index = index.to(self.device)
        is_padding = index >= self.width
        new = {}
        for old, axis, rows in self.places(index.clamp(max=self.width - 1)):
            taken = old.detach().index_select(axis, rows)
            parts = len(rows) // len(index)
            padding = is_padding.repeat(parts).nonzero().flatten()
            new[old] = nn.Parameter(taken.index_fill_(axis, padding, 0), old.requires_grad)
        return new

    def set_sizes(self) -> None:
        """Make the modules' own size fields agree with their weights, after a cut."""
        for module in self.linear_maps:
            size_out, size_in = by_output(module).shape
            if is_conv1d(module):
                module.nf, module.nx = size_out, size_in
            else:
                module.out_features, module.in_features = size_out, size_in

    def __repr__(self) -> str:
        kind = "gated (fused)" if self.fused else "gated" if self.gated else "plain"
        return f"FeedForward({self.name}: {self.width} neurons, {kind})"


def neurons(model: nn.Module) -> list[FeedForward]:
    """The feed-forward blocks of a model.

    Parameters
    ----------
    model : nn.Module
        A decoder-only model of plain, gated or fused blocks; of one that also sees or hears, the
        blocks of its language part.

    Returns
    -------
    list of FeedForward
        One per layer, in order.

    Raises
    ------
    GumlabError
        For what is no decoder of text (an encoder-decoder, a wrapper, a tokenizer), where no block
        of a known structure is found, and where a layer holds several (a mixture of experts),
        saying what was found; for weights that are not here whole, or not a layer's own; and for
        numbers that are no plain weights: quantised, computed from others, with an adapter on them.
    """
    part = language_part(model)
    inside = f"{part}." if part else ""
    modules = [(name, module) for name, module in model.named_modules() if name.startswith(inside)]
    _check_whole(modules)
    _check_maps_called(modules)
    config = language_config(model)
    hidden_size = getattr(config, "hidden_size", None)
    check_reads_as_given(model)
    _check_adapters(modules)
    candidates = [_block(name, module, hidden_size) for name, module in modules]
    blocks = [block for block in candidates if block is not None]
    layers = getattr(config, "num_hidden_layers", None)
    experts = [name for name, _ in modules if "expert" in name or "moe" in name]
    if layers is None:
        _check_one_stack(model, blocks)
        layers = len(blocks)
    if not blocks or len(blocks) != layers or experts:
        names = ", ".join([block.name for block in blocks[:3]] + experts[:1]) or "none"
        mixture = ", a mixture of experts" if experts else ""
        raise GumlabError(
            f"Expected one feed-forward block in each of the {layers} layers of "
            f"{type(model).__name__}, found {len(blocks)} ({names}){mixture}; "
            f"{_first_layer(modules)}. gumlab prunes decoder models whose layers hold one plain or "
            "gated block, such as GPT-2, GPT-Neo, OPT or Llama; mixtures of experts are not "
            "supported."
        )
    _check_owners(blocks)
    _check_not_shared(model, blocks)
    return blocks


def check_values(layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError where the weights are shapes without numbers (on the meta device)."""
    for layer in layers:
        if layer.device.type == "meta":
            raise GumlabError(
                f"The weights of {layer.name} are on the meta device: they have a shape and no "
                "numbers. Load the model: model, tokenizer = gumlab.load(...)."
            )


def _check_whole(modules: list[tuple[str, nn.Module]]) -> None:
    """Raise GumlabError for linear maps whose weights do not come whole, each by itself."""
    for name, module in modules:
        check_separate(name, module)
        weight = module._parameters.get("weight") if is_linear(module) else None
        if weight is None:
            continue
        if weight.ndim != 2 or hasattr(weight, "full_tensor") or hasattr(weight, "ds_id"):
            raise GumlabError(
                f"The weights of {name} are spread over processes or flattened (FSDP, DeepSpeed, "
                "tensor parallel), so that none of them holds a neuron whole. Gather and save the "
                "model, then load and prune it in one process."
            )


def _check_maps_called(modules: list[tuple[str, nn.Module]]) -> None:
    """Raise GumlabError for a block that reads slices of its last map instead of calling it."""
    for name, module in modules:
        exact = getattr(module, "slow_but_exact", False) and module.pretraining_tp > 1
        if exact and not _is_attention(name):
            raise GumlabError(
                f"{name} multiplies by slices of its last map without calling it (slow_but_exact, "
                "of BLOOM), so masks would not reach it. Load the model without: "
                "AutoModelForCausalLM.from_pretrained(name, slow_but_exact=False)."
            )


def _check_one_stack(model: nn.Module, blocks: list[FeedForward]) -> None:
    """Raise GumlabError for blocks of several stacks, where no config says which is the text's."""
    stacks: dict[str, str] = {}
    for block in blocks:
        stack = ".".join("*" if part.isdigit() else part for part in block.name.split("."))
        stacks.setdefault(stack, block.name)
    if len(stacks) > 1:
        raise GumlabError(
            f"{type(model).__name__} holds several stacks of feed-forward blocks "
            f"({', '.join(stacks)}), and no config that says which is the language model. Give "
            "gumlab that part of it alone."
        )


def _check_not_shared(model: nn.Module, blocks: list[FeedForward]) -> None:
    """Raise GumlabError for a neuron's weights that something outside of its block uses too."""
    nobody = torch.arange(0)
    owners: dict[nn.Parameter, FeedForward] = {}
    for block in blocks:
        if any(module.weight is block.proj.weight for module in block.fc):
            raise GumlabError(
                f"{block.name} leads into its neurons and out of them by the same weights, so no "
                "neuron can be cut from one side alone. gumlab prunes blocks with weights for each."
            )
        owners.update((parameter, block) for parameter, _, _ in block.places(nobody))
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            owner = owners.get(parameter)
            if owner is not None and module not in owner.linear_maps:
                raise GumlabError(
                    f"{name} and the layer {owner.name} share their weights, so neither can be cut "
                    "by itself. gumlab prunes models whose layers have their own."
                )


def holds_adapters(model: nn.Module) -> bool:
    """Whether a model is one of peft's, or has modules of peft put into it."""
    return any(_is_peft(module) for module in model.modules())


def check_in_place(model: nn.Module, layers: list[FeedForward]) -> None:
    """Raise GumlabError where a layer's maps are no longer the ones that its block calls.

    Parameters
    ----------
    model : nn.Module
        In which the layers were found.
    layers : list of FeedForward
    """
    for layer in layers:
        try:
            called = set(model.get_submodule(layer.name).children())
        except AttributeError:
            raise GumlabError(
                f"{layer.name} is no longer in the model, which had it when its Pruner was made. "
                "Take layers out first, then make the Pruner."
            ) from None
        if not called.issuperset(layer.linear_maps):
            raise GumlabError(
                f"The maps of {layer.name} were wrapped or replaced after the gates were put on, "
                "by an adapter perhaps: what goes past them would not be pruned. Put adapters on "
                "attention only, or shrink first and heal the smaller model with the adapter."
            )


def check_no_layer_dropped(model: nn.Module, layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError for a model that leaves layers out by chance while it trains.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of FeedForward
        Of the model, to be pruned while it trains.
    """
    for name, module in model.named_modules():
        share = getattr(module, "layerdrop", 0)
        holds_layers = any(layer.name.startswith(f"{name}." if name else "") for layer in layers)
        if isinstance(share, float) and share > 0 and holds_layers:
            raise GumlabError(
                f"{type(model).__name__} leaves layers out by chance while it trains "
                f"({name}.layerdrop is {share}), so a step would tell nothing of their neurons. "
                f"Set it to 0: model.{name}.layerdrop = 0.0."
            )


def _is_peft(module: nn.Module) -> bool:
    return any(kind.__module__.split(".")[0] == "peft" for kind in type(module).__mro__)


def _check_adapters(modules: list[tuple[str, nn.Module]]) -> None:
    """Raise GumlabError for an adapter on a feed-forward map: a neuron's numbers are in it too."""
    for name, module in modules:
        is_on_a_map = _is_peft(module) and any(is_linear(part) for part in module.modules())
        if is_on_a_map and _in_a_layer(name) and not _is_attention(name):
            raise GumlabError(
                f"{name} carries an adapter ({type(module).__name__} of peft), in which the "
                "neurons have numbers too. Merge it into the weights first, "
                "model = peft_model.merge_and_unload(), or take it off, peft_model.unload(); prune "
                "that, and heal the smaller model with an adapter of its own. (One that "
                "model.add_adapter made: save it, and take "
                "peft.PeftModel.from_pretrained(base_model, folder).)"
            )


def _check_plain(name: str, maps: list[nn.Module]) -> None:
    """Raise GumlabError for maps whose numbers are not just a weight and a bias of plain floats."""
    for module in maps:
        weight = module._parameters.get("weight")
        if weight is None and not _is_packed(module):
            raise GumlabError(
                f"The weights of {name} are computed from others (by "
                "torch.nn.utils.prune, a parametrisation, an adapter): a cut would not last. "
                "Make them plain first: torch.nn.utils.prune.remove, remove_parametrizations, "
                "or merge."
            )
        kind = type(module).__name__
        if weight is None or not _is_plain(weight):
            stored = "packed" if weight is None else _stored_as(weight)
            what, remedy = _odd(weight)
            raise GumlabError(
                f"The weights of {name} are {what} ({kind}, {stored}); gumlab prunes plain "
                f"floating-point weights. {remedy}"
            )
        others = [key for key, value in module._parameters.items() if value is not None]
        more = {*others, *module._modules} - {"weight", "bias"}
        if more:
            raise GumlabError(
                f"A map of {name} ({kind}) holds {', '.join(sorted(more))} beside weight and bias, "
                "which a cut would not follow. Merge that into the weight, or put an nn.Linear in "
                "its place."
            )


def _is_plain(weight: Tensor) -> bool:
    """Whether a parameter is a dense tensor of floats, and of torch's own class."""
    is_dense = weight.layout == torch.strided and not weight.is_nested
    return type(weight) is nn.Parameter and is_dense and weight.dtype in FLOATS


def _is_packed(module: nn.Module) -> bool:
    """Whether a module holds a matrix that is no floats, or is one of torch's quantised ones."""
    own = [*module._parameters.values(), *module._buffers.values()]
    matrices = [tensor.dtype for tensor in own if tensor is not None and tensor.ndim > 1]
    plain = (*FLOATS, torch.bool)  # masks of attention are bool
    return any(dtype not in plain for dtype in matrices) or ".quantized." in type(module).__module__


def _stored_as(weight: Tensor) -> str:
    """A weight's type and layout, where that is not the common one, for a sentence."""
    parts = [] if type(weight) is nn.Parameter else [type(weight).__name__]
    parts.append(str(weight.dtype))
    if weight.layout != torch.strided:
        parts.append(str(weight.layout))
    return ", ".join(parts)


def _odd(weight: Tensor | None) -> tuple[str, str]:
    """What a weight is that is no plain one, and what to do."""
    if weight is not None and weight.is_complex():
        return "complex", "A complex neuron is none that it knows."
    if weight is not None and type(weight).__name__ == "DTensor":
        return "sharded", "Prune before the model is sharded, or gather it: weight.full_tensor()."
    if weight is not None and (weight.is_sparse or "sparse" in _stored_as(weight).lower()):
        return "sparse", "Make them dense first: nn.Parameter(weight.to_dense())."
    if weight is not None and weight.is_nested:
        return "nested", "Give each map a weight of its own."
    return (
        "quantised",
        "Load the model without quantisation, prune it, and quantise the smaller one.",
    )


def _check_owners(blocks: list[FeedForward]) -> None:
    """Raise GumlabError for weights that two layers share."""
    owners: dict[Any, str] = {}
    for block in blocks:
        for module in block.linear_maps:
            owner = owners.setdefault(_memory_of(module.weight), block.name)
            if owner != block.name:
                raise GumlabError(
                    f"The layers {owner} and {block.name} share their weights, so neither can be "
                    "cut by itself. gumlab prunes models whose layers have their own."
                )


def _memory_of(weight: Tensor) -> Any:
    """What two weights have in common that change together, also where each is its own object."""
    has_memory = weight.device.type != "meta" and weight.numel() > 0
    return (weight.device, weight.data_ptr()) if has_memory else id(weight)


def width_field(model: nn.Module) -> str:
    """The name of the config's entry for the feed-forward width, or to record it under.

    The config is that of the language part (`gumlab.language.language_config`).
    """
    config = language_config(model)
    present = [field for field in WIDTHS if hasattr(config, field)]
    return present[0] if present else "intermediate_size"


def _first_layer(modules: list[tuple[str, nn.Module]]) -> str:
    """What the first numbered layer holds, for the sentence of a refusal."""
    for name, module in modules:
        if name.rpartition(".")[2].isdigit():
            parts = []
            for part_name, part in _outside_attention(module):
                inside = [type(part).__name__, *dict(part.named_children())]
                parts.append(f"{part_name} ({' '.join(inside)})")
            content = ", ".join(parts) or "no modules"
            return f"{name}, a {type(module).__name__}, holds {content}"
    return "no module is a numbered layer"


def _in_a_layer(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


def _is_attention(name: str) -> bool:
    return "attn" in name or "attention" in name


def _outside_attention(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if not _is_attention(name)]


def _block(name: str, module: nn.Module, hidden_size: int | None) -> FeedForward | None:
    """The module as a feed-forward block, if its linear maps are as one of the table's rows."""
    if _is_attention(name) or "adapter" in name or not _in_a_layer(name):
        return None
    children = [child for _, child in _outside_attention(module)]
    maps = [child for child in children if is_linear(child) or _is_packed(child)]
    if len(maps) not in (2, 3):
        return None
    _check_plain(name, maps)
    for proj in reversed(maps):  # defined last, as a rule
        fc = tuple(child for child in maps if child is not proj)
        size_d, size_n = by_output(proj).shape  # W_out is (D, N)
        if hidden_size in (size_d, None) and _lead_into(fc, size_d, size_n):
            others = [child for child in children if child not in maps]
            known = size_n == size_d or not _has_size(module, others, size_n)
            return FeedForward(name, fc, proj) if known else None
    return None


def _lead_into(fc: tuple[nn.Module, ...], size_d: int, size_n: int) -> bool:
    """Whether the maps go from D to N (plain, gated) or to 2 N (fused)."""
    heights = [size_n] if len(fc) == 2 else [size_n, 2 * size_n]
    shapes = [by_output(module).shape for module in fc]
    return all(width == size_d and height in heights for height, width in shapes)


def _has_size(module: nn.Module, others: list[nn.Module], size_n: int) -> bool:
    """Whether a block holds numbers by neuron besides its linear maps: a norm over the N, say."""
    own = list(module.parameters(recurse=False))
    for child in others:
        own.extend(child.parameters())
    return any(size_n in parameter.shape for parameter in own)
