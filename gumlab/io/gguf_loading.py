"""A GGUF file, as llama.cpp, Ollama and LM Studio run it, opened as a model of transformers.

transformers converts the weights, dequantised to floats. What it leaves out is done here: settings
that it does not read, the rule by which a byte-level tokenizer splits words, layers of unequal
widths (architecture deci), and the note of the quantisation, with which nothing can be saved.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, first_line, warn_caller
from gumlab.io.configuration import quietly
from gumlab.io.gguf_header import INSTALL, MAGIC, Header, check_is_model, gguf_package, read_header

UNEQUAL = "deci"  # llama.cpp's name for Llama's block with a width for each layer
# The architectures whose settings are all set here, as the file has them; of others, those that
# transformers reads.
SET_HERE = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gpt2", UNEQUAL)
# A setting of the file, and what the config of one model or another calls it.
CONFIG_NAMES = {
    "block_count": ("num_hidden_layers",),
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}
# The factors of Llama 3's rotary embedding travel as this tensor, which transformers leaves out.
ROTARY_FACTORS = "rope_freqs.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
# llama.cpp's names for GPT-2's way to split words, and for the same with each digit by itself.
AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "mellum")
AS_GPT2_BY_DIGIT = (
    "smollm",
    "starcoder",
    "refact",
    "command-r",
    "codeshell",
    "exaone",
    "minerva-7b",
)
# llama.cpp's names for the rules by which a word that is a token is taken whole, merges or not.
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "tekken")
USER_DEFINED = 4  # the format's number for a token that was added to a vocabulary
MARKS = ("hf_quantizer", "quantization_method", "is_quantized")  # what a loader leaves on a model


def is_gguf(path: Path) -> bool:
    """Whether a path is to be opened as a GGUF file: by its ending, or as it begins.

    Ollama's files have no ending.

    Raises
    ------
    GumlabError
        For a folder that holds no model but GGUF files, naming them.
    """
    if path.is_dir():
        has_config = (path / "config.json").exists()
        found = [] if has_config else sorted(path.glob("*.gguf"))
        if found:
            listed = " or ".join(f'"{name}"' for name in found[:3])
            raise GumlabError(
                f"{path} holds no config.json, but {len(found)} GGUF file(s). Give the path of "
                f"the file: {listed}."
            )
        return False
    if path.suffix == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load_gguf(path: Path, dtype: torch.dtype | str = torch.float32) -> tuple[nn.Module, Any]:
    """The model and tokenizer of a GGUF file.

    Parameters
    ----------
    path : Path
    dtype : torch.dtype or "auto"
        Of the weights; "auto" for the file's where it is not quantised, else float32.

    Returns
    -------
    model : nn.Module
        Dequantised, on the CPU, in eval mode.
    tokenizer : transformers.PreTrainedTokenizerBase
        With a padding token.

    Raises
    ------
    GumlabError
        If it is no GGUF file, damaged, not the whole of a language model, or of a kind that
        transformers does not open; if something in it would be lost; or if a package is missing.
    """
    header = read_header(path)
    check_loadable(header)
    dtype = _dtype(header, dtype)
    with _alone(path) as (folder, name), quietly():
        try:
            if _is_built_here(header):
                model = _build_llama(header, dtype)
            else:
                model = _open(header, folder, name, dtype)
            tokenizer = _open_tokenizer(header, folder, name)
        except GumlabError:
            raise
        except Exception as error:  # transformers raises many kinds for a file it does not expect
            raise GumlabError(
                f"{path} could not be opened by transformers ({type(error).__name__}: "
                f"{first_line(error)}). Take the model's folder of safetensors instead."
            ) from error
    _check_all_is_used(header, model)
    for mark in MARKS:
        if mark in vars(model):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = model.name_or_path = str(path)
    tokenizer.name_or_path = str(path)
    return model.eval(), tokenizer


def check_loadable(header: Header) -> None:
    """Raise GumlabError for a file that `load_gguf` does not open, before any weight is read.

    Parameters
    ----------
    header : Header
    """
    check_is_model(header)
    gguf_package()
    if importlib.util.find_spec("accelerate") is None:
        raise GumlabError(
            f"transformers opens GGUF files only where accelerate is installed: {INSTALL}."
        )
    known = _known_architectures()
    if _spelled(header.architecture) not in known:
        raise GumlabError(
            f"{header.path} holds a model of architecture {header.architecture!r}, which this "
            f"transformers does not open. Known: {', '.join(sorted(known))}. Take the model's "
            "folder of safetensors instead."
        )
    per_layer = header.get("feed_forward_length")
    if isinstance(per_layer, list) and header.architecture != UNEQUAL and len(set(per_layer)) > 1:
        raise GumlabError(
            f"{header.path} gives a feed-forward width for each layer ({_some(per_layer)}), which "
            f"gumlab reads of architecture {UNEQUAL!r} only, not of {header.architecture!r}. Take "
            "the model's folder of safetensors instead."
        )
    scaling = header.get("rope.scaling.type") or "none"
    if scaling != "none":
        raise GumlabError(
            f"{header.path} stretches its rotary embedding ({scaling!r}), which transformers does "
            "not read from a GGUF file: the model would be another. Take the model's folder of "
            "safetensors instead."
        )


def _known_architectures() -> set[str]:
    """The architectures that this transformers opens, as it spells them, and the one built here."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {*GGUF_SUPPORTED_ARCHITECTURES, UNEQUAL}
    with contextlib.suppress(ImportError):  # since transformers 5
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS

        known |= set(GGUF_CONFIG_ARCHS)
    return {_spelled(name) for name in known} - {"general", "tokenizer", "t5", "umt5"}


def _spelled(architecture: str) -> str:
    """An architecture's name as llama.cpp and transformers agree on it: qwen2moe for qwen2_moe."""
    return architecture.replace("_", "").replace("-", "").lower()


def _some(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:4])
    return f"{shown}, ..." if len(numbers) > 4 else shown


def _dtype(header: Header, dtype: torch.dtype | str) -> torch.dtype:
    """The dtype asked for; for "auto" that of the matrices, if all are plain."""
    if isinstance(dtype, torch.dtype):
        return dtype
    names = gguf_package().GGMLQuantizationType
    kinds = {names(t.kind).name for t in header.tensors.values() if len(t.shape) > 1}
    plain = {"F16": torch.float16, "BF16": torch.bfloat16}
    return plain.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[tuple[str, str]]:
    """A folder that holds nothing but the file, and its name there.

    transformers would take a tokenizer's settings, or an adapter, from what lies beside the file.
    """
    with tempfile.TemporaryDirectory(prefix="gumlab-") as folder:
        link = Path(folder) / "model.gguf"
        try:
            link.symlink_to(path.resolve())
        except OSError:  # Windows, where a link asks for a right
            yield str(path.parent), path.name
            return
        yield folder, link.name


def _open(header: Header, folder: str, name: str, dtype: torch.dtype) -> nn.Module:
    """The model as transformers converts it, with all of the file's settings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    _set_as_the_file_says(config, header)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        config=config,
        dtype=dtype,
        output_loading_info=True,
        trust_remote_code=False,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise GumlabError(
            f"{header.path} lacks weights of a {type(model).__name__} ({_listed(missing)}). The "
            "file is damaged or of another kind; take the model's folder of safetensors instead."
        )
    return model


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3])


def _set_as_the_file_says(config: Any, header: Header) -> None:
    """Set what transformers does not read: GPT-2's width and context, a head's size, a softcap."""
    if header.architecture in SET_HERE:
        for setting, names in CONFIG_NAMES.items():
            value = header.get(setting)
            known = [name for name in names if hasattr(config, name)]
            if known and isinstance(value, int | float):  # a list is of a width for each layer
                setattr(config, known[0], value)
    for role in ("bos", "eos", "padding"):
        if f"tokenizer.ggml.{role}_token_id" not in header.settings:
            setattr(config, f"{role[:3]}_token_id", None)  # not another vocabulary's default
    if ROTARY_FACTORS in header.tensors:
        _set_rotary(config, header)


def _set_rotary(config: Any, header: Header) -> None:
    """Llama 3's rotary embedding, whose factors by frequency are those of the file.

    The file has the factors and not the four numbers they were made from. Llama 3.1 and its
    followers share three of these, and the fourth is the largest factor; the factors that come of
    them are compared with the file's.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factors = torch.from_numpy(_numbers(header, ROTARY_FACTORS)).double()
    base = header.get("rope.freq_base") or 10000.0
    asked = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = {**asked, "rope_theta": base}
    else:  # transformers 4
        config.rope_theta = base
        config.rope_scaling = asked
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(len(factors), dtype=torch.float64) / len(factors)
    expected = base**-exponents / factors
    if not torch.allclose(frequencies.double(), expected, rtol=1e-4):
        raise GumlabError(
            f"{header.path} stretches its rotary embedding by factors ({ROTARY_FACTORS}) that are "
            "not Llama 3's, and transformers has no setting for these. Take the model's folder of "
            "safetensors instead."
        )


def _numbers(header: Header, name: str) -> np.ndarray:
    """A tensor as float32, dequantised."""
    package = gguf_package()
    tensor = header.tensors[name]
    raw = np.fromfile(header.path, np.uint8, count=tensor.size, offset=tensor.start)
    rows = raw.reshape(*tensor.shape[:-1], -1)
    values = package.dequantize(rows, package.GGMLQuantizationType(tensor.kind))
    return np.ascontiguousarray(values, dtype=np.float32).reshape(tensor.shape)


def _is_built_here(header: Header) -> bool:
    """Whether a model of Llama's form has widths by layer or biases, which transformers leaves."""
    has_biases = any(f"blk.0.{part}.bias" in header.tensors for part in ("attn_output", "ffn_up"))
    return header.architecture == UNEQUAL or (header.architecture == "llama" and has_biases)


def _build_llama(header: Header, dtype: torch.dtype) -> nn.Module:
    """Llama's form, with biases where the file has them and a width for each layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = _one(header, "attention.head_count")
    groups = _one(header, "attention.head_count_kv")
    widths = header.widths
    if not all(widths):
        raise GumlabError(
            f"{header.path} has layers without a feed-forward block (neurons by layer: "
            f"{_some(widths)}), which no model of transformers has."
        )
    config = LlamaConfig(
        vocab_size=header.tensors["token_embd.weight"].shape[0],
        hidden_size=header.tensors["token_embd.weight"].shape[1],
        head_dim=header.tensors["blk.0.attn_q.weight"].shape[0] // heads,
        intermediate_size=max(widths),
        num_hidden_layers=len(widths),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        attention_bias="blk.0.attn_q.bias" in header.tensors,
        mlp_bias="blk.0.ffn_up.bias" in header.tensors,
        tie_word_embeddings="output.weight" not in header.tensors,
        bos_token_id=header.settings.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=header.settings.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=header.settings.get("tokenizer.ggml.padding_token_id"),
    )
    base = header.get("rope.freq_base") or 10000.0
    if hasattr(config, "rope_parameters"):
        config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    else:  # transformers 4
        config.rope_theta = base
    _set_as_the_file_says(config, header)
    model: Any = LlamaForCausalLM(config)
    for layer, width in zip(model.model.layers, widths, strict=True):
        layer_config = copy.deepcopy(config)
        layer_config.intermediate_size = width
        layer.mlp = type(layer.mlp)(layer_config)
    wanted = model.state_dict()
    weights = {}
    for name in header.tensors:
        if name != ROTARY_FACTORS:
            weights[_llama_name(name)] = _llama_weight(header, name, heads, groups)
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if weights.keys() != wanted.keys():
        odd = sorted(weights.keys() ^ wanted.keys())
        raise GumlabError(
            f"{header.path} has other tensors than Llama's form ({_listed(odd)}). Take the model's "
            "folder of safetensors instead."
        )
    model.load_state_dict(weights)
    return model.to(dtype)


def _one(header: Header, setting: str) -> int:
    """A number that is the same in every layer."""
    value = header.get(setting)
    numbers = set(value) if isinstance(value, list) else {value}
    if len(numbers) != 1 or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise GumlabError(
            f"{header.path} gives {setting} layer by layer ({_some(sorted(numbers, key=str))}); "
            "gumlab builds unequal feed-forward widths, not unequal attention."
        )
    return numbers.pop()


LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _llama_name(name: str) -> str:
    """What Llama in transformers calls a tensor: blk.3.ffn_up.weight -> model.layers.3.mlp...."""
    *place, part, kind = name.split(".")
    prefix = f"model.layers.{place[1]}." if place else ""
    return f"{prefix}{LLAMA_NAMES.get(part, part)}.{kind}"


def _llama_weight(header: Header, name: str, heads: int, groups: int) -> Tensor:
    """A tensor in transformers' order: llama.cpp interleaves the two halves of each head."""
    weight = torch.from_numpy(_numbers(header, name))
    rotated = {"attn_q": heads, "attn_k": groups}.get(name.split(".")[-2])
    if rotated is None:
        return weight
    by_pair = weight.view(rotated, -1, 2, *weight.shape[1:])  # (heads, half a head, 2, D)
    return by_pair.transpose(1, 2).reshape(weight.shape)


def _check_all_is_used(header: Header, model: nn.Module) -> None:
    """Raise GumlabError if the file holds numbers that are not in the model."""
    left_out = {ROTARY_FACTORS}
    if model.config.tie_word_embeddings:
        left_out.add("output.weight")  # some converters write the embedding a second time
    stored = sum(t.numbers for name, t in header.tensors.items() if name not in left_out)
    built = sum(parameter.numel() for parameter in model.parameters())
    if stored != built:
        raise GumlabError(
            f"{header.path} holds {stored:,} numbers and a {type(model).__name__} of its settings "
            f"{built:,}: something would be lost or made up. Take the model's folder of "
            "safetensors instead."
        )


def _open_tokenizer(header: Header, folder: str, name: str) -> Any:
    """The tokenizer, which splits words by the file's rule and has the file's special tokens."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, gguf_file=name)
    _drop_made_up_tokens(tokenizer, len(header.settings["tokenizer.ggml.tokens"]))
    for role, setting in SPECIAL_TOKENS.items():
        number = header.settings.get(f"tokenizer.ggml.{setting}")
        if number is not None:
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(number))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if header.settings.get("tokenizer.ggml.model") == "gpt2":
        _split_by_rule(tokenizer, header)
        _say_which_tokens_are_cut(tokenizer, header)
    return tokenizer


def _drop_made_up_tokens(tokenizer: Any, count: int) -> None:
    """Take out what transformers adds to a vocabulary without an <|endoftext|>, beyond its end."""
    from tokenizers import Tokenizer

    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    own = [token for token in parts["added_tokens"] if token["id"] < count]
    if len(own) < len(parts["added_tokens"]):
        made_up = {token["content"] for token in parts["added_tokens"] if token["id"] >= count}
        for role in SPECIAL_TOKENS:
            if getattr(tokenizer, role) in made_up:
                setattr(tokenizer, role, None)
        parts["added_tokens"] = own
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(parts))


def _split_by_rule(tokenizer: Any, header: Header) -> None:
    """Give a byte-level tokenizer the file's rule to split words; warn of one that is not known."""
    from tokenizers import pre_tokenizers

    rule = header.settings.get("tokenizer.ggml.pre")
    tokenizer.backend_tokenizer.model.ignore_merges = rule in WHOLE_WORDS
    bytes_and_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule in AS_GPT2:
        tokenizer.backend_tokenizer.pre_tokenizer = bytes_and_words
    elif rule in AS_GPT2_BY_DIGIT:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [digits, bytes_and_words]
        )
    elif rule not in _rules_of_transformers():
        warn_caller(
            f"{header.path} splits words by the rule {rule!r}, which neither gumlab nor this "
            "transformers knows: some texts become other tokens than in llama.cpp. Take the "
            "tokenizer of the model's own folder where that matters."
        )


def _say_which_tokens_are_cut(tokenizer: Any, header: Header) -> None:
    """Warn of added tokens with a space or the like, which transformers does not take whole."""
    tokens = header.settings["tokenizer.ggml.tokens"]
    kinds = header.settings.get("tokenizer.ggml.token_type", ())
    known = tokenizer.get_vocab()
    added = [token for token, kind in zip(tokens, kinds, strict=False) if kind == USER_DEFINED]
    cut = [token for token in added if token not in known]
    if cut:
        warn_caller(
            f"{header.path} holds {len(cut)} added token(s) such as {cut[0]!r}, which transformers "
            "cuts into pieces and llama.cpp does not. Take the tokenizer of the model's own folder "
            "where that matters."
        )


def _rules_of_transformers() -> set[str]:
    """The names of the rules that this transformers applies by itself."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping
    except ImportError:  # transformers 4
        return set()
    return set(gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS)
