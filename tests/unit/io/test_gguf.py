"""GGUF files in: the same model as was written, or a sentence."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import sys

import numpy as np
import pytest
import torch
import transformers
from helpers.gguf_files import (
    CONTEXT,
    GROUPS,
    HARD_TEXTS,
    HEADS,
    LAYERS,
    D,
    as_stored,
    byte_level,
    llama,
    settings_of,
    with_noise,
    write_gguf,
)
from helpers.models import random_masks

import gumlab as gl
from gumlab.io.gguf_header import describe

VOCABULARY = byte_level().get_vocab_size()
IDS = torch.arange(3, 40)[None]


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", llama(VOCABULARY))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_the_model_of_a_file_is_the_model_that_was_written(tmp_path, kind, tied):
    written = llama(VOCABULARY, tie_word_embeddings=tied)
    path = write_gguf(tmp_path / "tiny.gguf", written, kind=kind)
    model, _ = gl.load(path, device="cpu")
    torch.testing.assert_close(logits(model), logits(as_stored(written, kind)))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    assert torch.equal(logits(model), logits(plain))


def test_what_is_loaded_is_pruned_saved_and_loaded_again(file, tmp_path):
    model, tokenizer = gl.load(file, device="cpu")
    small = gl.shrink(model, random_masks(model))
    small.save_pretrained(tmp_path / "plain")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(again), logits(small))
    gl.save(small, tokenizer, tmp_path / "saved")
    again, tokenizer_again = gl.load(tmp_path / "saved", device="cpu")
    assert torch.equal(logits(again), logits(small))
    for text in HARD_TEXTS:
        assert tokenizer_again(text).input_ids == tokenizer(text).input_ids


def test_unequal_widths_are_read_layer_by_layer(tmp_path):
    """Architecture deci, which transformers does not open."""
    dense = llama(VOCABULARY, attention_bias=True)
    written = gl.shrink(dense, gl.select([torch.rand(96), torch.rand(96)], widths=[64, 32]))
    path = write_gguf(tmp_path / "uneven.gguf", written, architecture="deci", kind="Q8_0")
    model, tokenizer = gl.load(path, device="cpu")
    assert [layer.width for layer in gl.neurons(model)] == [64, 32]
    torch.testing.assert_close(logits(model), logits(as_stored(written, "Q8_0")))
    gl.save(model, tokenizer, tmp_path / "saved")
    again, _ = gl.load(tmp_path / "saved", device="cpu")
    assert torch.equal(logits(again), logits(model))


_SAME = {
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "intermediate_size": 96,
    "max_position_embeddings": CONTEXT,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_HEAD = {"head_dim": 32}
OTHERS = {
    "qwen2": ("Qwen2Config", _SAME, {}),
    "qwen3": ("Qwen3Config", _SAME | _HEAD, {"attention.key_length": 32}),
    "gpt2": (
        "GPT2Config",
        {
            "n_embd": D,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_inner": 96,
            "n_positions": CONTEXT,
            "vocab_size": VOCABULARY,
        },
        None,
    ),
    "phi3": ("Phi3Config", _SAME, {}),
    "gemma2": (
        "Gemma2Config",
        _SAME | _HEAD | {"sliding_window": 8},
        {
            "attention.key_length": 32,
            "attention.sliding_window": 8,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
}


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures_are_the_models_that_were_written(tmp_path, architecture):
    kind, values, more = OTHERS[architecture]
    config = getattr(transformers, kind)(**values)
    written = with_noise(transformers.AutoModelForCausalLM.from_config(config))
    if more is None:
        settings = {
            "block_count": LAYERS,
            "context_length": CONTEXT,
            "embedding_length": D,
            "feed_forward_length": 96,
            "attention.head_count": HEADS,
            "attention.layer_norm_epsilon": 1e-5,
        }
    else:
        settings = settings_of(written) | more
    path = write_gguf(tmp_path / "tiny.gguf", written, architecture=architecture, settings=settings)
    model, _ = gl.load(path, device="cpu")
    torch.testing.assert_close(logits(model), logits(written), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        ("Q8_0", torch.bfloat16, torch.bfloat16),
        ("F32", "float16", torch.float16),
        ("F16", "auto", torch.float16),
        ("Q4_1", "auto", torch.float32),
    ],
)
def test_the_dtype_that_is_asked_for_is_given(tmp_path, kind, asked, expected):
    path = write_gguf(tmp_path / "tiny.gguf", llama(VOCABULARY), kind=kind)
    model, _ = gl.load(path, device="cpu", dtype=asked)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


@pytest.mark.parametrize("rule", ["smollm", "gpt-2", "llama-bpe"])
def test_words_are_split_by_the_rule_of_the_file(tmp_path, rule):
    written = byte_level(rule)
    model = llama(written.get_vocab_size())
    path = write_gguf(tmp_path / "tiny.gguf", model, rule=rule, tokenizer=written)
    _, tokenizer = gl.load(path, device="cpu")
    for text in HARD_TEXTS:
        assert tokenizer(text).input_ids == written.encode(text).ids, text
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|start|>Hi<|stop|>"


def test_a_rule_that_nobody_knows_is_said(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama(VOCABULARY), rule="from-tomorrow")
    with pytest.warns(UserWarning, match="rule 'from-tomorrow'"):
        gl.load(path, device="cpu")


def _llama3_factors(base: float = 10000.0, factor: float = 8.0) -> np.ndarray:
    """What llama.cpp's converter writes of Llama 3.1's rotary embedding."""
    size = D // HEADS
    wavelengths = 2 * np.pi * base ** (np.arange(0, size, 2) / size)
    smooth = (8192 / wavelengths - 1) / (4 - 1)
    between = 1 / ((1 - smooth) / factor + smooth)
    low, high = 8192 / 1, 8192 / 4
    factors = np.where(wavelengths > low, factor, between)
    return np.where(wavelengths < high, 1.0, factors).astype(np.float32)


def test_the_rotary_factors_of_llama_3_are_not_lost(tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    written = llama(VOCABULARY, rope_parameters=rope)
    extra = {"rope_freqs.weight": _llama3_factors()}
    model, _ = gl.load(write_gguf(tmp_path / "tiny.gguf", written, extra=extra), device="cpu")
    torch.testing.assert_close(logits(model), logits(written))
    assert not torch.allclose(logits(model), logits(llama(VOCABULARY)))


def test_a_file_from_ollama_has_no_suffix(file, tmp_path):
    blob = file.rename(tmp_path / "sha256-0123")
    model, _ = gl.load(blob, device="cpu")
    torch.testing.assert_close(logits(model), logits(llama(VOCABULARY)))


def test_what_lies_beside_the_file_is_not_taken(file, tmp_path):
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "e", "bos_token": "e"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "gone"}))
    _, tokenizer = gl.load(file, device="cpu")
    assert tokenizer.bos_token_id == 1


def _big_endian(path):
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack(">I", 3)
    path.write_bytes(data)


def _version_1(path):
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 1)
    path.write_bytes(data)


def _keep(share):
    def cut(path):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return cut


def _endless(path):
    """A list that says it has 2^60 members."""
    data = path.read_bytes()
    name = b"tokenizer.ggml.tokens"
    place = data.index(name) + len(name) + 8
    path.write_bytes(data[:place] + struct.pack("<Q", 1 << 60) + data[place + 8 :])


DAMAGE = {
    "an empty file": (lambda path: path.write_bytes(b""), "is not a GGUF file"),
    "another format": (lambda path: path.write_bytes(b"PK\3\4" * 9), "is not a GGUF file"),
    "the magic alone": (_keep(0.00002), "was cut off|is not a GGUF file"),
    "big-endian": (_big_endian, "big-endian"),
    "version 1": (_version_1, "GGUF version 1"),
    "half a header": (_keep(0.01), "damaged or was cut off"),
    "nearly all of the tensors": (_keep(0.99), r"was cut off: it has [\d,]+ bytes"),
    "a list of 2^60": (_endless, "damaged or was cut off"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_one_sentence(file, case):
    damage, sentence = DAMAGE[case]
    damage(file)
    for look in (gl.load, describe):
        with pytest.raises(gl.GumlabError, match=sentence):
            look(file)


OTHER_FILES = {
    "an unknown architecture": (
        {"architecture": "mamba2", "settings": {}, "model": None, "extra": {"x": np.ones(32)}},
        "architecture 'mamba2'.*Known: .*llama",
    ),
    "a vocabulary": ({"model": None}, "a vocabulary and no weights"),
    "a part": ({"general": {"split.count": 3}}, "one of the 3 parts.*--merge"),
    "an image tower": (
        {"architecture": "clip", "settings": {}, "model": None},
        "image or sound part",
    ),
    "an adapter": ({"general": {"general.type": "adapter"}}, "no model but an extra"),
    "widths that another architecture cannot have": (
        {"settings": {"feed_forward_length": [96, 64]}},
        "a feed-forward width for each layer",
    ),
    "a stretched rotary embedding": (
        {"settings": {"rope.scaling.type": "yarn"}},
        "stretches its rotary embedding .'yarn'",
    ),
    "unequal attention": (
        {"architecture": "deci", "settings": {"attention.head_count": [4, 2]}},
        "attention.head_count layer by layer",
    ),
    "a missing weight": ({"without": "blk.1.ffn_up"}, "lacks weights"),
    "a weight without a place": (
        {"extra": {"blk.0.attn_q.bias": np.ones(D, np.float32)}},
        "something would be lost",
    ),
    "rotary factors of another kind": (
        {"extra": {"rope_freqs.weight": np.linspace(1, 9, 8, dtype=np.float32)}},
        "not Llama 3's",
    ),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_what_cannot_be_opened_rightly_is_refused_in_its_own_words(tmp_path, case):
    changes, sentence = OTHER_FILES[case]
    changes = dict(changes)
    model = changes.pop("model", llama(VOCABULARY))
    if model is not None:
        changes["settings"] = settings_of(model) | changes.get("settings", {})
    path = write_gguf(tmp_path / "tiny.gguf", model, **changes)
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.load(path, device="cpu")


def test_a_part_is_known_by_its_name_too(file, tmp_path):
    part = file.rename(tmp_path / "tiny-00001-of-00003.gguf")
    with pytest.raises(gl.GumlabError, match="one of the 3 parts"):
        gl.load(part)


def test_a_missing_file_and_a_folder_of_files_are_said(file, tmp_path):
    with pytest.raises(gl.GumlabError, match=r"There is no file .*gone\.gguf"):
        gl.load(tmp_path / "gone.gguf")
    with pytest.raises(gl.GumlabError, match=r'Give the path of the file: ".*tiny\.gguf"'):
        gl.load(tmp_path)


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_missing_package_is_named_with_what_installs_it(file, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(gl.GumlabError, match=rf'{package}.*pip install "gumlab\[gguf\]"'):
        gl.load(file)


def test_a_description_says_what_a_file_holds(tmp_path):
    dense = llama(VOCABULARY)
    uneven = gl.shrink(dense, gl.select([torch.rand(96), torch.rand(96)], widths=[64, 32]))
    path = write_gguf(tmp_path / "tiny.gguf", uneven, architecture="deci", kind="Q8_0")
    found = describe(path)
    matrices = sum(p.numel() for p in uneven.parameters() if p.ndim > 1)
    vectors = sum(p.numel() for p in uneven.parameters() if p.ndim == 1)
    assert found.kinds == {"Q8_0": matrices, "F32": vectors}
    assert found.parameters == matrices + vectors
    assert (found.architecture, found.widths, found.layers) == ("deci", [64, 32], LAYERS)
    assert (found.context, found.tokens, found.tokenizer) == (CONTEXT, VOCABULARY, "gpt2 (smollm)")
    assert found.problem is None
    assert "64, 32" in str(found)
    shutil.copy(path, tmp_path / "tiny-00001-of-00002.gguf")
    assert "[FAIL]" in str(describe(tmp_path / "tiny-00001-of-00002.gguf"))
