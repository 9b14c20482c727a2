"""What a model is: the part of it that is a language model, and a sentence where there is none."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError
from gumlab.offloading import held, is_offloaded

# What wraps a model holds it under one of these: DataParallel and DDP, torch.compile, FSDP.
WRAPPED = ("module", "_orig_mod", "_fsdp_wrapped_module")
# What a config says of a model that reads in both directions: XLNet's and XLM's.
BOTH_WAYS = (("attn_type", "bi"), ("causal", False))


def check_model(model: Any) -> None:
    """Raise GumlabError for what is no model, and for what wraps one, saying where it is."""
    if not isinstance(model, nn.Module):
        raise GumlabError(f"Expected a model, got {_described(model)}")
    inner = _wrapped(model)
    if inner:
        raise GumlabError(
            f"{type(model).__name__} wraps a model. Give gumlab the model itself, "
            f"{' or '.join(inner)}: what is done to it is seen through the wrapper too."
        )


def check_runs(model: Any) -> None:
    """Raise GumlabError for what has no numbers, is no model, or a wrapper that does not stand in.

    A compiled model answers for its model in all that a run asks (config, generate).
    """
    if not (isinstance(model, nn.Module) and hasattr(model, "config")):
        check_model(model)
    for name, parameter in model.named_parameters():
        if parameter.is_meta and not is_offloaded(model):
            raise GumlabError(
                f"{name} is on the meta device: it has a shape and no numbers. Load the model: "
                "model, tokenizer = gumlab.load(...)."
            )


def check_trainable(model: nn.Module) -> None:
    """Raise GumlabError for weights that torch takes no gradient of and lets nobody change."""
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise GumlabError(
                f"{name} was made under torch.inference_mode(), so torch neither trains nor "
                "changes it. Make or load the model outside of it, or take a copy outside of it: "
                "copy.deepcopy(model)."
            )


def check_head(model: nn.Module) -> None:
    """Raise GumlabError for a model that says nothing of the next token: a classifier, say."""
    check_runs(model)
    if _is_of_transformers(model) and model.get_output_embeddings() is None:
        raise GumlabError(
            f"{type(model).__name__} has no language-model head, so it gives no loss of the next "
            "token and no text. Take a score that needs neither (magnitude, wanda, obs), or load "
            "the model as a language model (ForCausalLM, LMHeadModel)."
        )


def check_reads_text(model: nn.Module) -> None:
    """Raise GumlabError for what does not run on text alone, and for what `check_runs` refuses."""
    check_runs(model)
    read = getattr(model, "main_input_name", "input_ids")
    if read != "input_ids":
        raise GumlabError(
            f"{type(model).__name__} does not run on text alone: it reads {read}. Take a score "
            'that needs no data ("magnitude"), or prune its language model by itself.'
        )


def head_and_embedding(model: nn.Module) -> list[Any]:
    """A model's head and its embedding; None for one that it does not have."""
    finders = ("get_output_embeddings", "get_input_embeddings")
    return [getattr(model, find, lambda: None)() for find in finders]


def is_tied(model: nn.Module) -> bool:
    """Whether a model's head is its embedding.

    Accelerate's `cpu_offload` and `disk_offload` make two weights of one: there the numbers tell.
    """
    head, embedding = head_and_embedding(model)
    weight = getattr(head, "weight", None)
    other = getattr(embedding, "weight", None)
    if weight is None or other is None or weight is other:
        return weight is not None and weight is other
    is_said = getattr(text_config(model.config), "tie_word_embeddings", True)
    if not is_said or not (is_offloaded(head) or is_offloaded(embedding)):
        return False
    with held(head, embedding):
        return torch.equal(head.weight, embedding.weight)


def distinct_parameters(model: nn.Module) -> list[nn.Parameter]:
    """A model's parameters, a tied head's once, also where accelerate has made two of one."""
    head, embedding = head_and_embedding(model)
    is_twice = is_tied(model) and head.weight is not embedding.weight
    return [p for p in model.parameters() if not (is_twice and p is head.weight)]


def language_config(model: nn.Module) -> Any:
    """The config of a model's language part (`text_config`); None where it has no config."""
    return text_config(getattr(model, "config", None))


def text_config(config: Any) -> Any:
    """The part of a config that is of the text: in a multimodal one its own, else all of it."""
    find = getattr(config, "get_text_config", None)
    if find is None or config.is_encoder_decoder:
        return config
    return find()


def language_part(model: nn.Module) -> str:
    """Where in a model its language model is.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    str
        The name of the module whose config is that of the text; "" for the model itself.

    Raises
    ------
    GumlabError
        For a model that is something else than one decoder of text, saying what it is, and for what
        `check_model` refuses.
    """
    check_model(model)
    config = language_config(model)
    name = ""
    if config is not getattr(model, "config", None):
        name = _part_with(model, type(config))
    what = _other_kind(model, name, config)
    if what:
        raise GumlabError(
            f"{type(model).__name__} is {what}. gumlab prunes decoder models of text, which "
            "predict the next token from those before it, such as GPT-2, GPT-Neo, OPT or Llama, "
            "and the language part of a model that also sees or hears."
        )
    return name


def _part_with(model: nn.Module, kind: type) -> str:
    """The name of the one module, as far out as can be, whose config is of a class."""
    parts: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(part + ".") for part in parts)
        if name and not inside and type(getattr(module, "config", None)) is kind:
            parts.append(name)
    if len(parts) != 1:
        raise GumlabError(
            f"Expected one language part in {type(model).__name__}, a module with a "
            f"{kind.__name__}, found {', '.join(parts) or 'none'}. Give gumlab the language model "
            "itself, as a model of its own."
        )
    return parts[0]


def _other_kind(model: nn.Module, part_name: str, config: Any) -> str | None:
    """What a model is that is no decoder of text; None for one that is, as far as it says."""
    part = model.get_submodule(part_name)
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder-decoder (config.is_encoder_decoder)"
    read = getattr(part, "main_input_name", "input_ids")
    if read != "input_ids":
        return f"no model of text: it reads {read}"
    for setting, value in BOTH_WAYS:
        if getattr(config, setting, None) == value:
            return f"an encoder: it looks at later tokens too (config.{setting} is {value!r})"
    for name, module in part.named_modules(prefix=part_name):
        is_self_attention = "cross" not in name and "encoder_" not in name
        if is_self_attention and getattr(module, "is_causal", True) is False:
            return f"an encoder: its attention looks at later tokens too ({name} is not causal)"
    return None


def _is_of_transformers(model: nn.Module) -> bool:
    """Whether a model is of one of the library's own classes, or of one derived from them."""
    return any(kind.__module__.startswith("transformers.models.") for kind in type(model).__mro__)


def _wrapped(model: nn.Module) -> list[str]:
    """How to reach the models in a wrapper; empty for a model."""
    if hasattr(type(model), "config_class"):
        return []
    children = dict(model.named_children())
    names = [name for name in WRAPPED if name in children]
    if not names and not hasattr(model, "config"):
        names = [name for name, child in children.items() if hasattr(type(child), "config_class")]
    return [f"model.{name}" if name.isidentifier() else f"model[{name}]" for name in names]


def _described(thing: Any) -> str:
    """What stands in the place of a model, and what to do, as the end of a sentence."""
    load = "Load one: model, tokenizer = gumlab.load(...)."
    kind = type(thing).__name__
    if isinstance(thing, tuple | list) and any(isinstance(item, nn.Module) for item in thing):
        items = ", ".join(type(item).__name__ for item in thing)
        return f"a {kind} ({items}). Give the model alone: model, tokenizer = gumlab.load(...)."
    if isinstance(getattr(thing, "model", None), nn.Module):
        return f"a {kind}, which holds one. Give gumlab the model itself, its .model."
    if hasattr(thing, "convert_ids_to_tokens"):
        return f"a tokenizer ({kind}). The order is model, what, tokenizer, task."
    if isinstance(thing, type):
        return f"the class {thing.__name__}. {load}"
    is_short = isinstance(thing, str | os.PathLike | int | float | None)
    return f"{thing!r:.60}. {load}" if is_short else f"a {kind}. {load}"
