"""Models for notebook 12: small ones of many architectures, and the shapes of published ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from torch import nn

from gumlab.course.explore.models import Texts
from gumlab.errors import GumlabError
from gumlab.evaluation import evaluate
from gumlab.feedforward import by_output, neurons
from gumlab.gating import gate
from gumlab.io.diagnosis import doctor
from gumlab.io.loading import load
from gumlab.removal import shrink
from gumlab.scoring import score
from gumlab.selection import select
from gumlab.tasks import Example, Task

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}
GATED: dict[str, Any] = SMALL | {
    "intermediate_size": 48,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
}
COLOURS = ("red", "blue", "green", "white", "black", "grey")
GOODS = ("lamp", "chair", "table", "mug", "clock", "stool")


def small_models() -> dict[str, nn.Module]:
    """Three built-in models, and four untrained ones made from a config; Mixtral has experts.

    Returns
    -------
    dict of str to torch.nn.Module
        In eval mode.
    """
    models = {name: load(name, device="cpu")[0] for name in ("tiny-gpt2", "tiny-gpt-neo")}
    models["tiny-llama"] = load("tiny-llama", device="cpu")[0]
    configs = {
        "OPT": transformers.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32),
        "Qwen3": transformers.Qwen3Config(**GATED, head_dim=8),
        "Phi-3": transformers.Phi3Config(**GATED),
        "Mixtral": transformers.MixtralConfig(**GATED, num_local_experts=2),
    }
    for name, config in configs.items():
        models[name] = transformers.AutoModelForCausalLM.from_config(config).eval()
    return models


def published_models() -> dict[str, nn.Module]:
    """Three models of their publishers' shapes on the device "meta": no numbers, no memory.

    Returns
    -------
    dict of str to torch.nn.Module
        By their names on the hub.
    """
    attention: dict[str, Any] = {
        "num_layers": 12,
        "num_heads": 12,
        "attention_types": [[["global", "local"], 6]],
    }
    qwen: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "head_dim": 128,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    configs = {
        "gpt2": transformers.GPT2Config(),
        "EleutherAI/gpt-neo-125m": transformers.GPTNeoConfig(hidden_size=768, **attention),
        "Qwen/Qwen3-0.6B": transformers.Qwen3Config(**qwen),
    }
    with torch.device("meta"):
        return {
            name: transformers.AutoModelForCausalLM.from_config(config)
            for name, config in configs.items()
        }


def linear_shapes(model: nn.Module) -> list[tuple[int, list[tuple[int, int]]]]:
    """The sizes of the linear maps that each module holds itself.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    list of (int, list of (int, int))
        For each module with more than one map: the model's width, and each map's (rows, columns),
        however it is stored.
    """
    kinds = nn.Linear | transformers.pytorch_utils.Conv1D
    found = []
    for module in model.modules():
        maps = [child for child in module.children() if isinstance(child, kinds)]
        if len(maps) > 1:
            rows_columns = [by_output(one).shape for one in maps]
            found.append(
                (model.config.hidden_size, [(rows, columns) for rows, columns in rows_columns])
            )
    return found


def same_logits(models: dict[str, nn.Module], keep: float = 0.25) -> bool:
    """Whether each model that has neurons gives the same logits masked and cut.

    Parameters
    ----------
    models : dict of str to torch.nn.Module
        Those that `gumlab.neurons` refuses are passed over.
    keep : float
        The fraction of neurons that stays, over all layers together.
    """
    ids = torch.randint(1024, (2, 24), generator=torch.Generator().manual_seed(0))
    largest = 0.0
    for model in models.values():
        try:
            neurons(model)
        except GumlabError:
            continue
        masks = select(score(model, "random"), keep=keep, scope="global")
        cut = shrink(model, masks)
        with torch.no_grad(), gate(model, masks):
            masked = model(ids).logits
        with torch.no_grad():
            largest = max(largest, float((cut(ids).logits - masked).abs().max()))
    return largest < 1e-4


def kinds(models: Mapping[str, nn.Module], kind_of: Callable) -> pd.DataFrame:
    """What a function finds in each model by the sizes of its maps, and what gumlab finds.

    Parameters
    ----------
    models : mapping of str to torch.nn.Module
    kind_of : callable
        `kind_of(d, shapes)` gives a word or None.
    """
    rows = {}
    for name, model in models.items():
        found = {kind_of(d, shapes) for d, shapes in linear_shapes(model)} - {None}
        try:
            ours = str(neurons(model)[0])
        except GumlabError as error:
            ours = str(error).partition(";")[0]
        rows[name] = {"yours": ", ".join(sorted(map(str, found))) or "no block", "gumlab": ours}
    return pd.DataFrame.from_dict(rows, orient="index")


def parts(model: nn.Module) -> dict[str, int]:
    """A model's parameters: in neurons, in the embedding, and the rest."""
    total = sum(parameter.numel() for parameter in model.parameters())
    inside = sum(layer.width * layer.parameters_per_neuron() for layer in neurons(model))
    embedding = model.get_input_embeddings().weight.numel()
    return {"neurons": inside, "embedding": embedding, "rest": total - inside - embedding}


def first_byte(file: Path, tensor: str) -> int:
    """Where a tensor's numbers begin in a safetensors file: a length, a header, the numbers."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    return start + int(header[tensor]["data_offsets"][0])


def quality(explorer: Texts, task: Task) -> pd.DataFrame:
    """How well the models of a `texts` explorer do a task: loss, and how many texts are right."""
    rows = {}
    for (name, model), written in zip(
        explorer.models.items(), explorer.written.values(), strict=True
    ):
        pairs = zip(explorer.examples, written, strict=True)
        rows[name] = {
            "loss": evaluate(model, explorer.tokenizer, task, generated=0)["loss"],
            f"right of {len(explorer.examples)}": sum(
                text == example.target for example, text in pairs
            ),
        }
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def folders(
    folder: Path, models: Mapping[str, nn.Module], tokenizer: Any, task: Task
) -> pd.DataFrame:
    """Saved models by the name of their folder: kilobytes, what opens them, and the loss."""
    rows = {
        name: {
            "kB": round((folder / name / "model.safetensors").stat().st_size / 1000),
            "opens in": " and ".join(doctor(folder / name).loads_with),
            "loss": evaluate(model, tokenizer, task, generated=0)["loss"],
        }
        for name, model in models.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def shop(count: int) -> Task:
    """A shop's task: eight of ten of the rows to train on, one each to validate and to test."""
    rows = shop_rows(count)
    first, second = round(0.8 * count), round(0.9 * count)
    return Task(
        "shop", "bleu", train=rows[:first], validation=rows[first:second], test=rows[second:]
    )


def shop_rows(count: int, seed: int = 0) -> list[Example]:
    """Lines of a shop's stock list, each with the sentence that is wanted for it.

    Parameters
    ----------
    count : int
        How many, drawn without repetition.
    seed : int

    Returns
    -------
    list of Example
    """
    things = [
        (f"{colour} {good}", price, left)
        for colour in COLOURS
        for good in GOODS
        for price in range(5, 60, 5)
        for left in range(6)
    ]
    rows = []
    for thing, price, left in random.Random(seed).sample(things, count):
        sentences = (
            f"The {thing} is sold out.",
            f"This is the last {thing}, for {price} euros.",
            f"We have {left} {thing}s left, at {price} euros each.",
        )
        rows.append(Example(f"{thing}; price {price}; left {left}", sentences[min(left, 2)]))
    return rows
