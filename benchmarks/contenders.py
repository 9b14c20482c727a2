"""The contenders of benchmarks/speed/peers.py, and what one run of one of them does.

The work: magnitude, half of the neurons of every layer, a Llama-shaped model with random weights.
Nothing of gumlab is imported before it is a contender's turn: each run is a process of its own.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import TOKENIZER, measured
from torch import Tensor, nn
from torch.nn.utils import prune as masks

PACKAGES = {"Torch-Pruning": "torch_pruning", "optipfair": "optipfair"}


@dataclass(frozen=True)
class Shape:
    """A Llama's shape; `tokens` are those of a training step, in sequences of 128."""

    d: int = 768
    width: int = 3072
    layers: int = 12
    tokens: int = 512


TOY = Shape(32, 64, 2, 128)


def build(shape: Shape, width: int | None = None) -> Any:
    """The model, the same in every process; width: other than the shape's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=shape.d,
        intermediate_size=width or shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.d // 16,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        initializer_range=shape.d**-0.5,  # activations of order one, whatever the width
    )
    return LlamaForCausalLM(config).eval()


def maps(block: nn.Module) -> list[tuple[nn.Module, int]]:
    """A block's three linear maps, and the dimension of their weights that counts neurons."""
    return [(block.gate_proj, 0), (block.up_proj, 0), (block.down_proj, 1)]


def blocks(model: Any, name: str = "weight") -> Iterator[tuple[nn.Module, Tensor]]:
    """Each feed-forward block, and which of its neurons magnitude keeps: the plainest form."""
    for layer in model.model.layers:
        block = layer.mlp
        score = torch.zeros(len(getattr(block.gate_proj, name)))
        for module, dim in maps(block):  # `norm` is several times slower down a column
            score += getattr(module, name).detach().square().sum(1 - dim)
        yield block, score.topk(len(score) // 2).indices.sort().values


@torch.no_grad()
def bare(model: Any, marks: list[float]) -> dict[str, Tensor]:
    """The limit: norms, indices, the kept rows and columns. Then, apart, a copy of the rest."""
    new = {}
    marks.append(time.perf_counter())
    for block, kept in blocks(model):
        for module, dim in maps(block):
            new[module.weight] = module.weight.index_select(dim, kept)
    marks.append(time.perf_counter())
    return {k: new[p] if p in new else p.clone() for k, p in model.named_parameters()}


def gumlab(model: Any, marks: list[float], in_place: bool = False) -> Any:
    import gumlab as gl

    kept = gl.select(gl.score(model, "magnitude"), keep=0.5)
    return gl.shrink(model, kept, in_place=in_place)


@torch.no_grad()
def weight_masks(model: Any, marks: list[float]) -> Any:
    """Zeros in place of neurons, by torch.nn.utils.prune: nothing gets smaller."""
    mask_weights(model)
    for layer in model.model.layers:
        for module, _ in maps(layer.mlp):
            masks.remove(module, "weight")
    return model


def mask_weights(model: Any) -> None:
    for block, kept in blocks(model):
        for (module, _), mask in zip(maps(block), weight_mask(block, kept), strict=True):
            masks.custom_from_mask(module, "weight", mask)


def weight_mask(block: nn.Module, kept: Tensor) -> Iterator[Tensor]:
    """A mask of neurons as one of weights, for each of a block's three matrices."""
    for module, dim in maps(block):
        mask = torch.zeros_like(module.weight)
        yield mask.index_fill_(dim, kept, 1.0)


def torch_pruning(model: Any, marks: list[float]) -> Any:
    import torch_pruning as tp

    attention = [m for layer in model.model.layers for m in layer.self_attn.children()]
    ends = [layer.mlp.down_proj for layer in model.model.layers]
    tp.pruner.MagnitudePruner(
        model,
        {"input_ids": torch.ones(1, 8, dtype=torch.long), "use_cache": False},
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[model.lm_head, *attention, *ends],
        output_transform=lambda out: out.logits,
    ).step()
    return model


def optipfair(model: Any, marks: list[float]) -> Any:
    import optipfair as op

    return op.prune_model(
        model, neuron_selection_method="L2", pruning_percentage=50, show_progress=False
    )


CONTENDERS: dict[str, Callable[[Any, list[float]], Any]] = {
    "bare operations": bare,
    "gumlab": gumlab,
    "gumlab, in place": partial(gumlab, in_place=True),
    "weight masks": weight_masks,
    "Torch-Pruning": torch_pruning,
    "optipfair": optipfair,
}
IN_PLACE = (
    "gumlab, in place",
    "weight masks",
    "Torch-Pruning",
    "optipfair",
)  # the model that was given is changed
TRAINED_BY = ("dense", "gumlab", "weight masks")


@torch.no_grad()
def tokens(model: Any, count: int = 16) -> list[int]:
    """What the model generates, greedily, after eight fixed tokens."""
    ids = torch.arange(10, 18)[None]
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
    )
    return out[0, ids.shape[1] :].tolist()


def pruned(name: str, shape: Shape, folder: str) -> dict[str, Any]:
    """One contender prunes, generates and saves."""
    from transformers import AutoTokenizer

    CONTENDERS[name](build(TOY), [])  # warms up
    model = build(shape)
    marks: list[float] = []
    small, row = measured(partial(CONTENDERS[name], model, marks))
    if name == "bare operations":
        row["operations"] = marks[1] - marks[0]
        row["deepcopy"] = measured(partial(copy.deepcopy, model))[1]
        weights = small
        small = build(shape, shape.width // 2)
        small.load_state_dict(weights, strict=True)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    row["width"] = len(small.model.layers[0].mlp.gate_proj.weight)
    row["tokens"] = tokens(small)
    row["save"] = measured(partial(save, name, small, tokenizer, folder))[1]
    return row


def save(name: str, model: Any, tokenizer: Any, folder: str) -> None:
    if name.startswith("gumlab"):
        import gumlab as gl

        gl.save(model, tokenizer, folder)
    else:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def loaded(name: str, shape: Shape, folder: str) -> dict[str, Any]:
    """gumlab or plain transformers loads what was saved, and generates."""
    if name == "gumlab":
        import gumlab as gl

        load = partial(gl.load, device="cpu")
        load("tiny-llama")  # warms up
    else:
        sys.modules.update(dict.fromkeys(["gumlab", *PACKAGES.values()]))  # none can be imported
        from transformers import AutoModelForCausalLM, AutoTokenizer

        def load(path: Any) -> tuple[Any, Any]:
            model = AutoModelForCausalLM.from_pretrained(path)
            return model, AutoTokenizer.from_pretrained(path)

        load(TOKENIZER)

    def looked_at() -> Any:
        model, _ = load(folder)
        for weight in model.parameters():
            weight.sum()
        return model.eval()

    model, row = measured(looked_at)
    return row | {"tokens": tokens(model)}


def trained(name: str, shape: Shape, folder: str, steps: int = 4) -> dict[str, Any]:
    """Seconds of a training step behind masks that are drawn anew each step; the losses."""
    model = build(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, 1024, (shape.tokens // 128, 128))
    after = partial(remask, model) if name == "weight masks" else lambda: None
    if name == "gumlab":
        import gumlab as gl

        after = gl.Pruner(model, "magnitude", 0.5, 1000, start=0, end=1e-3, freeze=False).step
    elif name == "weight masks":
        for layer in model.model.layers:
            for module, _ in maps(layer.mlp):
                masks.identity(module, "weight")
    losses = []
    times = []

    def step() -> None:
        began = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        after()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        times.append(time.perf_counter() - began)

    _, row = measured(lambda: [step() for _ in range(steps + 1)])
    return row | {"seconds": statistics.median(times[1:]), "losses": losses}


@torch.no_grad()
def remask(model: Any) -> None:
    for block, kept in blocks(model, "weight_orig"):
        for (module, _), mask in zip(maps(block), weight_mask(block, kept), strict=True):
            module.weight_mask.copy_(mask)


WORK = {"prune": pruned, "load": loaded, "train": trained}
