"""GGUF files that tests write by themselves, tensor by tensor, from tiny models of transformers."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf.quants import dequantize, quantize
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from gumlab.feedforward import neurons

D, HEADS, GROUPS, LAYERS, CONTEXT = 64, 4, 2, 2, 96
SPECIAL = ("<|end|>", "<|start|>", "<|stop|>")  # unknown, beginning, end: 0, 1, 2
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|stop|>{% endfor %}"
HARD_TEXTS = (
    "Hello world",
    "In 2026 it cost 1,234.50 dollars  42\n\n  7",
    "  2026\t\t12 a1b2  3   4",
    "don't DON'T it's  I'll",
    "naïve café 漢字 ½ Ⅷ ١٢٣",
    "   \n \n\t x   ",
    "<|start|>user\nHi<|stop|>\n",
    "",
)
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(rule: str = "smollm") -> Tokenizer:
    """A byte-level tokenizer that splits words by one of llama.cpp's rules, trained on a few."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        splitter = pre_tokenizers.Sequence([digits, words])
    elif rule == "llama-bpe":
        split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
        by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        splitter = pre_tokenizers.Sequence([split, by_byte])
    else:
        splitter = words
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for text in HARD_TEXTS if "<|" not in text]
    tokenizer.train_from_iterator(texts * 3, trainer)
    return tokenizer


def with_whole_word(whole: bool, rule: str = "llama-bpe") -> Tokenizer:
    """A tokenizer with a word that no merges lead to, taken whole or not."""
    parts = json.loads(byte_level(rule).to_str())
    parts["model"]["vocab"]["Ġunreachable"] = len(parts["model"]["vocab"])
    parts["model"]["ignore_merges"] = whole
    return Tokenizer.from_str(json.dumps(parts))


def by_digit() -> Tokenizer:
    """Llama 3's rule, but for numbers, which are cut into digits: Qwen2's."""
    backend = byte_level("llama-bpe")
    text = backend.to_str().replace(r"\\p{N}{1,3}", r"\\p{N}")
    return Tokenizer.from_str(text)


# by llama.cpp's name of a rule, a tokenizer that follows it
RULES = {
    "gpt-2": lambda: byte_level("gpt-2"),
    "smollm": byte_level,
    "llama-bpe": lambda: with_whole_word(True),
    "dbrx": lambda: with_whole_word(False),
    "qwen2": by_digit,
}


def wrapped(tokenizer: Tokenizer, **settings: Any) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer as transformers has it, with its special tokens."""
    unknown, begin, end = SPECIAL
    named = {"unk_token": unknown, "bos_token": begin, "eos_token": end, "pad_token": end}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named | settings)


def llama(vocabulary: int, width: int = 96, seed: int = 0, **settings: Any) -> nn.Module:
    """A tiny Llama whose rows fit every block of quantised numbers, so that each weight shows."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=D,
        intermediate_size=width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **settings,
    )
    return with_noise(transformers.LlamaForCausalLM(config), seed)


def with_noise(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with random weights, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = 0.2 * torch.randn(parameter.shape, generator=generator)
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = noise + 1 if is_norm else noise
    return model.eval()


def settings_of(model: nn.Module) -> dict[str, Any]:
    """The file's settings of a model in Llama's form, its widths layer by layer if unequal."""
    config = model.config
    widths = [layer.width for layer in neurons(model)]
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": widths[0] if len(set(widths)) == 1 else widths,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }


def write_gguf(
    path: Path,
    model: nn.Module | None,
    *,
    architecture: str = "llama",
    kind: str = "F32",
    rule: str | None = "smollm",
    tokenizer: Tokenizer | None = None,
    settings: Mapping[str, Any] | None = None,
    general: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    without: str = "-",
) -> Path:
    """Write a model and a byte-level tokenizer; tensors whose name contains `without` are left out.

    `settings` are the architecture's, by default Llama's; `general` any others; `extra` tensors are
    added by their name in the file.
    """
    writer = gguf.GGUFWriter(path, architecture)
    if settings is None:
        settings = settings_of(model) if model is not None else {}
    named = {f"{architecture}.{name}": value for name, value in settings.items()}
    for name, value in {**named, **(general or {})}.items():
        _add(writer, name, value)
    _add_tokenizer(writer, tokenizer or byte_level(rule or "gpt-2"), rule)
    tensors = dict(_tensors(model, architecture)) if model is not None else {}
    for name, values in {**tensors, **(extra or {})}.items():
        if without not in name:
            stored = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
            writer.add_tensor(name, quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    else:
        writer.add_uint32(name, value)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, rule: str | None) -> None:
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [by_number[number] for number in range(len(by_number))]
    merges = _merges(tokenizer)
    writer.add_tokenizer_model("gpt2")
    if rule is not None:
        writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _merges(tokenizer: Tokenizer) -> list[str]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _tensors(model: nn.Module, architecture: str) -> list[tuple[str, np.ndarray]]:
    """(name in the file, values) of every weight, in the file's rotary order."""
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[architecture], model.config.num_hidden_layers)
    heads = {"attn_q": model.config.num_attention_heads}
    heads["attn_k"] = getattr(model.config, "num_key_value_heads", None)
    tensors = []
    for name, weight in model.named_parameters():
        values = weight.detach().float().numpy()
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        part = stored.split(".")[-2]
        if architecture in ("llama", "deci") and part in heads:
            halves = values.reshape(heads[part], 2, -1, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if architecture == "gpt2" and name.endswith(
            ("c_attn.weight", "c_fc.weight", "c_proj.weight")
        ):
            values = values.T
        if architecture in ("gemma2", "gemma3") and stored.endswith("norm.weight"):
            values = values + 1
        tensors.append((stored, np.ascontiguousarray(values)))
    return tensors


def as_stored(model: nn.Module, kind: str) -> nn.Module:
    """The model with the weights that are left after quantising and dequantising them."""
    rounded = copy.deepcopy(model)
    stored = gguf.GGMLQuantizationType[kind]
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            values = dequantize(quantize(parameter.detach().numpy(), stored), stored)
            parameter.data = torch.from_numpy(np.array(values, dtype=np.float32))
    return rounded


def write_wheel(folder: Path, package: str, member: str, content: bytes) -> Path:
    """A wheel that pip takes, with one file in it."""
    name, version = package.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{stem}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        )
        archive.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
