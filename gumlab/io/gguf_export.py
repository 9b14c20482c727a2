"""A model written as a GGUF file, for llama.cpp, Ollama and LM Studio, layers of any widths.

llama.cpp has a name for each family of models and reads one feed-forward width for all layers of
it; under the name deci it computes Llama's block with a width for each layer. The tensors are
written one after the other, so that no second copy of the model is held.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, check_choice, first_line, warn_caller
from gumlab.feedforward import is_conv1d, neurons
from gumlab.io.gguf_header import SPLIT_NAME, gguf_package
from gumlab.io.gguf_loading import CONFIG_NAMES, ROTARY_FACTORS, UNEQUAL
from gumlab.io.gguf_vocabulary import CONVERTER, vocabulary_settings
from gumlab.io.saving import check_savable, clear_leftovers, form_of, new_folder_beside
from gumlab.offloading import check_resident

# What is asked for: the format's names for the matrices' numbers, and for such a file.
DTYPES = {
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
BLOCK = 32  # numbers of a row that q8_0 scales together
LARGEST_F16 = 65504.0
QUANTISATION = 2  # the version of the format's quantised blocks
POSITIONS = "position_embd.weight"  # added to the tokens', which llama.cpp does in float32
SILU = ("silu", "swish")
GELU = ("gelu_new", "gelu_pytorch_tanh")  # by tanh, as llama.cpp computes it


@dataclass(frozen=True)
class _Family:
    """Models that llama.cpp computes as transformers does.

    Attributes
    ----------
    name : str
        llama.cpp's.
    activations : tuple of str
        The functions that it computes, as a config calls them.
    interleaved : bool
        Whether a head's two rotary halves alternate in the file.
    like_llama : bool
        Whether its block is Llama's, so that each layer may have a width of its own.
    """

    name: str
    activations: tuple[str, ...]
    interleaved: bool = False
    like_llama: bool = False


FAMILIES = {
    "gpt2": _Family("gpt2", GELU),
    "llama": _Family("llama", SILU, interleaved=True, like_llama=True),
    "mistral": _Family("llama", SILU, interleaved=True, like_llama=True),
    "qwen2": _Family("qwen2", SILU, like_llama=True),
    "qwen3": _Family("qwen3", SILU),
}
DECI = _Family(UNEQUAL, SILU, interleaved=True, like_llama=True)


def export(model: nn.Module, tokenizer: Any, path: str | Path, *, dtype: str = "f32") -> Path:
    """Write a model and its tokenizer as one GGUF file, for llama.cpp, Ollama and LM Studio.

    Parameters
    ----------
    model : nn.Module
        A language model of GPT-2's, Llama's, Mistral's, Qwen2's or Qwen3's family; of Llama's,
        Mistral's and Qwen2's also one whose layers differ in width. It stays as it is.
    tokenizer : transformers.PreTrainedTokenizerBase
        A byte-level one.
    path : str or Path
        Of the file, NAME.gguf. One that is there is replaced.
    dtype : {"f32", "f16", "q8_0"}
        Of the matrices: 4, 2, or 1.06 bytes a number. Norms, biases and GPT-2's positions stay in
        float32. q8_0 scales 32 numbers of a row together; a matrix whose rows are no multiple of
        32, such as those out of 257 neurons, stays in float16, with a warning (`multiple_of=32`
        of `gumlab.select` avoids it).

    Returns
    -------
    Path
        The file.

    Raises
    ------
    GumlabError
        Before the file is begun: for a path that cannot be written or does not end in .gguf; for
        what `gumlab.save` refuses (gates that remove neurons, an adapter, quantised weights); for
        a family, an activation, a rotary scaling, a sliding window or widths that llama.cpp does
        not compute; for a tokenizer that is not byte-level or splits words by an unknown rule; for
        weights that float16 does not hold; and if the package gguf is missing.

    Notes
    -----
    `gumlab.load` reads the file, in "f32" with the same weights bit for bit. Layers of equal widths
    go out under the family's own name in llama.cpp, layers of different ones as Llama's block with
    a width for each layer (architecture deci). The file appears whole or not at all.
    """
    check_choice("dtype", dtype, DTYPES)
    path, target = check_file(path)
    gguf_package()
    layers = neurons(model)
    check_resident(model, "An export")
    check_savable(model, tokenizer, layers)
    family, config = _family(model)
    settings = _settings(model, config, family, path.stem, dtype)
    embedding = model.get_input_embeddings().num_embeddings
    settings |= vocabulary_settings(tokenizer, embedding, _stops(model))
    weights = _weights(model, config, family)
    kinds = _kinds(weights, dtype)
    _check_numbers(weights, kinds)
    _say_what_stays_f16(weights, kinds, dtype)
    fresh = new_folder_beside(target)
    try:
        _write(fresh / target.name, family.name, settings, weights, kinds)
        os.replace(fresh / target.name, target)
        clear_leftovers(target)
    except OSError as error:
        raise GumlabError(
            f"Could not write {path} ({error.strerror or first_line(error)}). Nothing half-written "
            "is left. Make room, or choose another folder."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def check_file(path: str | Path) -> tuple[Path, Path]:
    """Make sure before the work that `export` will not refuse a path after it.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    path, target : Path
        As it was given, and behind links.

    Raises
    ------
    GumlabError
        If no GGUF file can be written there.
    """
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise GumlabError(f"The file must be a path such as 'small.gguf', got {path!r:.60}.")
    try:
        path = Path(path).expanduser()
        target = path.resolve()  # a link stays a link
        parent = next(folder for folder in target.parents if folder.exists())
        is_folder = target.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, links in a circle
        raise GumlabError(
            f"Cannot write to {str(path)!r:.60}: {first_line(error):.120}. Choose another path."
        ) from error
    if is_folder:
        raise GumlabError(f"{path} is a folder. Name a file in it: '{path / 'small.gguf'}'.")
    if path.suffix != ".gguf" or SPLIT_NAME.search(path.name):
        raise GumlabError(
            f"{path} is no name for a whole GGUF file, by which programs know it. Let it end in "
            f".gguf, and not as one of several parts: '{path.with_name('small.gguf')}'."
        )
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        obstacle = "read-only for you" if parent.is_dir() else "a file"
        raise GumlabError(f"Cannot write to {path}: {parent} is {obstacle}. Choose another folder.")
    return path, target


def _family(model: nn.Module) -> tuple[_Family, Any]:
    """How llama.cpp computes a model, and the config that says what the model is."""
    kind = getattr(model.config, "model_type", None)
    family = FAMILIES.get(str(kind))
    if family is None:
        raise GumlabError(
            f"gumlab writes GGUF files of the families {', '.join(FAMILIES)}, and "
            f"{type(model).__name__} is of another ({kind}). Where llama.cpp has that family, its "
            "own converter does it: gumlab.save(model, tokenizer, folder, pad=True), then "
            "convert_hf_to_gguf.py on that folder. Else run the model with transformers."
        )
    form = form_of(model)
    if not form.loaders.gumlab:
        raise GumlabError(
            f"{type(model).__name__} is no plain language model: it has another head or parts of "
            "its own, which llama.cpp would not compute. Export the language model in it "
            "(ForCausalLM, LMHeadModel)."
        )
    widths = [layer.width for layer in neurons(model)]
    if len(set(widths)) > 1:
        _check_may_be_unequal(model, family, widths)
        family = DECI
    _check_computed(form.config, family)
    _check_rotary(form.config, family)
    return family, form.config


def _check_may_be_unequal(model: nn.Module, family: _Family, widths: list[int]) -> None:
    """Raise GumlabError where llama.cpp reads one width for all layers."""
    if not family.like_llama:
        raise GumlabError(
            f"llama.cpp reads one feed-forward width for all layers of {family.name}, and "
            f"{type(model).__name__} has {', '.join(map(str, widths))}. Pad it: "
            "gumlab.save(model, tokenizer, folder, pad=True) and export what gumlab.load(folder) "
            'gives; or prune with scope="layer".'
        )


def _check_computed(config: Any, family: _Family) -> None:
    """Raise GumlabError where a config says what llama.cpp does not compute."""
    activation = getattr(config, "hidden_act", getattr(config, "activation_function", None))
    if activation not in family.activations:
        raise GumlabError(
            f"llama.cpp computes {family.activations[0]} in a model of {family.name}, and this one "
            f"was made with {activation}: it would write something else. Run it with transformers "
            "(gumlab.save), or prune a model with that activation."
        )
    scaled = getattr(config, "scale_attn_weights", True)
    if not scaled or getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise GumlabError(
            "The attention of this model is scaled in a way of its own (scale_attn_weights, "
            "scale_attn_by_inverse_layer_idx), which llama.cpp does not compute. Run it with "
            "transformers (gumlab.save)."
        )
    if config.model_type == "qwen3" and config.attention_bias:
        raise GumlabError(
            "The attention of this model has biases (attention_bias), which llama.cpp does not "
            "read in a Qwen3 model. Run it with transformers (gumlab.save)."
        )
    window = getattr(config, "sliding_window", None)
    context = config.max_position_embeddings
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    slides = slides or config.model_type == "mistral"  # each of its layers, where there is a window
    if slides and window is not None and window < context:
        raise GumlabError(
            f"The attention of this model looks back {window:,} of {context:,} tokens, and "
            "llama.cpp would look at all. Export it for texts within the window, where both do "
            f"the same: model.config.max_position_embeddings = {window}."
        )


def _rotary(config: Any) -> dict[str, Any]:
    """What a config says of the rotary embedding, in either edition of transformers."""
    said = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = said.get("rope_type", said.get("type", "default"))
    base = said.get("rope_theta", getattr(config, "rope_theta", None))
    return {**said, "rope_type": kind, "rope_theta": base}


def _check_rotary(config: Any, family: _Family) -> None:
    """Raise GumlabError for a rotary embedding that llama.cpp would compute in another way."""
    said = _rotary(config)
    kind = said["rope_type"]
    known = ("default", "llama3") if family.interleaved else ("default",)
    if kind not in known:
        raise GumlabError(
            f"The rotary embedding is stretched ({kind}), which gumlab does not write to a GGUF "
            f"file of {family.name}. {CONVERTER}"
        )
    if said.get("partial_rotary_factor", 1.0) != 1.0:
        raise GumlabError(
            "The rotary embedding turns a part of each head (partial_rotary_factor), which "
            f"llama.cpp does not do in a model of {family.name}. Run it with transformers "
            "(gumlab.save)."
        )


def _settings(
    model: nn.Module, config: Any, family: _Family, name: str, dtype: str
) -> dict[str, Any]:
    """The settings of the file, but for the tokenizer's."""
    widths = [layer.width for layer in neurons(model)]
    own: dict[str, Any] = {}
    for setting, names in CONFIG_NAMES.items():
        known = [getattr(config, entry) for entry in names if hasattr(config, entry)]
        if known and known[0] is not None and setting != "attention.sliding_window":
            own[setting] = known[0]
    own["feed_forward_length"] = widths[0]
    own["vocab_size"] = model.get_input_embeddings().num_embeddings
    base = _rotary(config)["rope_theta"]
    if base is not None:
        size = _head_size(config)
        own |= {"rope.freq_base": float(base), "rope.dimension_count": size}
        own |= {"attention.key_length": size, "attention.value_length": size}
    if family is DECI:
        own["feed_forward_length"] = widths
        for setting in ("attention.head_count", "attention.head_count_kv"):
            own[setting] = [own[setting]] * len(widths)
    file_type = getattr(gguf_package().LlamaFileType, DTYPES[dtype][1])
    return {
        "general.type": "model",
        "general.name": name,
        "general.file_type": int(file_type),
        "general.quantization_version": QUANTISATION,
        **{f"{family.name}.{setting}": value for setting, value in own.items()},
    }


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _stops(model: nn.Module) -> list[int]:
    """The tokens at which the model's own generation stops."""
    settings = getattr(model, "generation_config", None)
    said = getattr(settings, "eos_token_id", None)
    if said is None:
        said = model.config.eos_token_id
    if said is None:
        return []
    return list(said) if isinstance(said, Iterable) else [said]


def _weights(model: nn.Module, config: Any, family: _Family) -> dict[str, Tensor]:
    """The tensors of the file by their names there, rows first; views where the order allows it."""
    package = gguf_package()
    (number,) = (key for key, name in package.MODEL_ARCH_NAMES.items() if name == family.name)
    names = package.get_tensor_name_map(number, config.num_hidden_layers)
    rotated = {"attn_q": config.num_attention_heads}
    rotated["attn_k"] = getattr(config, "num_key_value_heads", config.num_attention_heads)
    transposed = {f"{name}.weight" for name, part in model.named_modules() if is_conv1d(part)}
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise GumlabError(
                f"{type(model).__name__} holds {name}, which llama.cpp has no place for in a model "
                f"of {family.name}. {CONVERTER}"
            )
        weight = parameter.detach()
        if name in transposed:
            weight = weight.T
        part = stored.split(".")[-2]
        if family.interleaved and part in rotated:
            weight = _interleaved(weight, rotated[part])
        weights[stored] = weight
    _complete_biases(weights, family)
    if family.interleaved and _rotary(config)["rope_type"] == "llama3":
        weights[ROTARY_FACTORS] = _rotary_factors(config)
    return weights


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows in llama.cpp's order: the two halves of each head take turns."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])  # (heads, 2, half a head, D)
    return halves.transpose(1, 2).reshape(weight.shape)


def _complete_biases(weights: dict[str, Tensor], family: _Family) -> None:
    """Qwen2's attention has no bias at its output; as Llama's block, which has all or none, 0."""
    if family is not DECI:
        return
    for name in [name for name in weights if name.endswith("attn_q.bias")]:
        output = name.replace("attn_q", "attn_output")
        size = weights[output.replace(".bias", ".weight")].shape[0]
        weights.setdefault(output, weights[name].new_zeros(size))


def _rotary_factors(config: Any) -> Tensor:
    """By how much Llama 3's rotary embedding stretches each frequency."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(len(frequencies), dtype=torch.float64) / len(frequencies)
    return _rotary(config)["rope_theta"] ** -exponents / frequencies.double()


def _kinds(weights: Mapping[str, Tensor], dtype: str) -> dict[str, str]:
    """The format's name for the numbers of each tensor."""
    kinds = {}
    for name, weight in weights.items():
        kind = DTYPES[dtype][0]
        if weight.ndim == 1 or name == POSITIONS:
            kind = "F32"
        elif kind == "Q8_0" and weight.shape[1] % BLOCK:
            kind = "F16"
        kinds[name] = kind
    return kinds


def _check_numbers(weights: Mapping[str, Tensor], kinds: Mapping[str, str]) -> None:
    """Raise GumlabError for weights that are no numbers, or too large for what they go into."""
    for name, weight in weights.items():
        if not weight.is_floating_point():
            raise GumlabError(
                f"{name} is quantised ({weight.dtype}). Load the model without quantisation, prune "
                "and export it, and quantise the file: llama.cpp's llama-quantize."
            )
        largest = float(weight.abs().max())
        if not largest < float("inf"):
            raise GumlabError(
                f"{name} holds NaN or infinity, so the model is of no use. Take one from before "
                "its training went wrong."
            )
        if kinds[name] == "F16" and largest > LARGEST_F16:
            raise GumlabError(
                f"{name} holds {largest:,.0f}, and float16 ends at {LARGEST_F16:,.0f}. Take "
                'dtype="f32".'
            )


def _say_what_stays_f16(
    weights: Mapping[str, Tensor], kinds: Mapping[str, str], dtype: str
) -> None:
    """Warn of matrices that q8_0 does not fit."""
    left = [name for name, kind in kinds.items() if kind == "F16" and dtype == "q8_0"]
    if left:
        first = left[0]
        warn_caller(
            f"{len(left)} of {sum(kind != 'F32' for kind in kinds.values())} matrices stay in "
            f"float16: a row of q8_0 is a multiple of {BLOCK}, and theirs are not ({first}: "
            f"{weights[first].shape[1]}). Widths that fit are selected with multiple_of={BLOCK}."
        )


def _write(
    path: Path,
    architecture: str,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    kinds: Mapping[str, str],
) -> None:
    """Write the file: settings, the table of tensors, then one tensor after the other."""
    package = gguf_package()
    writer = package.GGUFWriter(path, architecture)
    try:
        for name, value in settings.items():
            _add(writer, name, value)
        for name, weight in weights.items():
            stored = package.GGMLQuantizationType[kinds[name]]
            block, block_bytes = package.GGML_QUANT_SIZES[stored]
            size = weight.numel() // block * block_bytes
            writer.add_tensor_info(name, weight.shape, np.dtype(np.float32), size, stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, weight in weights.items():
            values = np.ascontiguousarray(weight.cpu().float().numpy())
            writer.write_tensor_data(
                package.quantize(values, package.GGMLQuantizationType[kinds[name]])
            )
    finally:
        writer.close()


def _add(writer: Any, name: str, value: Any) -> None:
    """Add a setting, as the format's type for its kind."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
