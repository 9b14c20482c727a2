"""GGUF files out: they hold the model that was given, or there is a sentence and no file."""

from __future__ import annotations

import copy
import warnings

import gguf
import pytest
import torch
import transformers
from helpers.gguf_files import (
    CONTEXT,
    GROUPS,
    HARD_TEXTS,
    HEADS,
    LAYERS,
    RULES,
    TEMPLATE,
    D,
    as_stored,
    byte_level,
    llama,
    with_noise,
    with_whole_word,
    wrapped,
)
from helpers.models import tiny
from helpers.texts import word_tokenizer
from tokenizers import Regex, normalizers, pre_tokenizers, processors
from torch import nn

import gumlab as gl
from gumlab.gating import gate
from gumlab.io.diagnosis import doctor
from gumlab.io.gguf_header import read_header

TOKENIZER = wrapped(byte_level())
VOCABULARY = len(TOKENIZER)
IDS = torch.arange(3, 40)[None]
UNEQUAL = [64, 33]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "intermediate_size": 96,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
ROPE |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def of(kind, **settings):
    """A tiny model of a family that is named as its config is."""
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    return with_noise(transformers.AutoModelForCausalLM.from_config(config))


def gpt2(**settings):
    sizes = {"n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 96, "n_positions": CONTEXT}
    return of("GPT2", **sizes | settings)


def narrowed(model, widths=UNEQUAL):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(layer.width, generator=generator) for layer in gl.neurons(model)]
    return gl.shrink(model, gl.select(scores, widths=widths))


# what is written: the model, and llama.cpp's name for it
KINDS = {
    "gpt2": (gpt2, "gpt2"),
    "llama": (lambda: llama(VOCABULARY), "llama"),
    "llama, tied": (lambda: llama(VOCABULARY, tie_word_embeddings=True), "llama"),
    "llama with biases": (lambda: llama(VOCABULARY, **BIASES), "llama"),
    "llama of wide heads": (lambda: llama(VOCABULARY, head_dim=32), "llama"),
    "llama 3": (lambda: llama(VOCABULARY, rope_parameters=ROPE), "llama"),
    "mistral": (lambda: of("Mistral", sliding_window=None), "llama"),
    "qwen2": (lambda: of("Qwen2"), "qwen2"),
    "qwen3": (lambda: of("Qwen3", head_dim=32), "qwen3"),
    "unequal llama": (lambda: narrowed(llama(VOCABULARY)), "deci"),
    "unequal llama, tied": (
        lambda: narrowed(llama(VOCABULARY, tie_word_embeddings=True)),
        "deci",
    ),
    "unequal llama with biases": (lambda: narrowed(llama(VOCABULARY, **BIASES)), "deci"),
    "unequal llama 3": (lambda: narrowed(llama(VOCABULARY, rope_parameters=ROPE)), "deci"),
    "unequal mistral": (lambda: narrowed(of("Mistral", sliding_window=None)), "deci"),
    "unequal qwen2": (lambda: narrowed(of("Qwen2")), "deci"),
    "a width of its own": (lambda: narrowed(llama(VOCABULARY), [40, 40]), "llama"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_model_bit_for_bit(tmp_path, kind):
    make, architecture = KINDS[kind]
    model = make()
    path = gl.export(model, TOKENIZER, tmp_path / "small.gguf")
    header = read_header(path)
    assert header.architecture == architecture
    assert header.widths == [layer.width for layer in gl.neurons(model)]
    again, tokenizer = gl.load(path, device="cpu")
    held = dict(again.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(held.pop(name), weight), name
    assert not any(weight.any() for weight in held.values())  # Qwen2's output has no bias: zeros
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-5)
    assert len(tokenizer) == VOCABULARY
    for text in (*HARD_TEXTS, "an <|endoftext|> of another vocabulary"):
        assert tokenizer(text).input_ids == TOKENIZER(text).input_ids, text


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "unequal qwen2"])
def test_matrices_are_rounded_as_was_asked_and_nothing_else(tmp_path, kind, dtype):
    model = KINDS[kind][0]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = gl.export(model, TOKENIZER, tmp_path / "small.gguf", dtype=dtype)
    again, _ = gl.load(path, device="cpu")
    rounded = dict(as_stored(model, dtype.upper()).named_parameters()) if kind == "llama" else {}
    stored = {"F16": torch.float16, "F32": torch.float32}
    kinds = gguf.GGMLQuantizationType
    for name, tensor in read_header(path).tensors.items():
        expected = "F32" if len(tensor.shape) == 1 or "position" in name else dtype.upper()
        if dtype == "q8_0" and tensor.shape[-1] % 32:
            expected = "F16"
        assert kinds(tensor.kind).name == expected, name
    for name, weight in again.named_parameters():
        if name in rounded:
            assert torch.equal(weight, rounded[name]), name
    if dtype == "f16" and kind == "gpt2":
        for name, weight in model.named_parameters():
            plain = "F32" if weight.ndim == 1 or "wpe" in name else "F16"
            assert torch.equal(
                dict(again.named_parameters())[name], weight.to(stored[plain]).float()
            )


def test_rows_that_q8_0_does_not_fit_are_said(tmp_path):
    model = narrowed(llama(VOCABULARY))
    with pytest.warns(UserWarning, match=r"1 of 16 matrices stay in float16.*ffn_down.weight: 33.*"
                      r"multiple_of=32") as seen:  # fmt: skip
        gl.export(model, TOKENIZER, tmp_path / "small.gguf", dtype="q8_0")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gl.export(narrowed(model, [32, 32]), TOKENIZER, tmp_path / "fits.gguf", dtype="q8_0")


def test_a_padded_model_goes_out_under_its_own_name(tmp_path):
    model = narrowed(gpt2())
    gl.save(model, TOKENIZER, tmp_path / "padded", pad=True)
    padded, tokenizer = gl.load(tmp_path / "padded", device="cpu")
    path = gl.export(padded, tokenizer, tmp_path / "small.gguf")
    again, _ = gl.load(path, device="cpu")
    assert read_header(path).widths == [64, 64]
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-5)


def test_the_model_stays_as_it_is(tmp_path):
    model = narrowed(of("Qwen2"))
    before = copy.deepcopy(model)
    gl.export(model, TOKENIZER, tmp_path / "small.gguf", dtype="f16")
    assert model.config.to_dict() == before.config.to_dict()
    for (name, weight), (_, old) in zip(
        model.named_parameters(), before.named_parameters(), strict=True
    ):
        assert torch.equal(weight, old), name


def test_what_comes_from_a_file_is_pruned_and_goes_out_again(tmp_path):
    gl.export(llama(VOCABULARY), TOKENIZER, tmp_path / "dense.gguf", dtype="q8_0")
    model, tokenizer = gl.load(tmp_path / "dense.gguf", device="cpu")
    small = narrowed(model)
    gl.export(small, tokenizer, tmp_path / "dense.gguf")  # in its own place
    again, _ = gl.load(tmp_path / "dense.gguf", device="cpu")
    assert torch.equal(logits(again), logits(small))
    report = doctor(tmp_path / "dense.gguf")
    assert (report.layout, report.widths, report.loads_with) == ("unequal", UNEQUAL, ["gumlab"])


# --- the tokenizer --------------------------------------------------------------------------------


def settings(tmp_path, tokenizer, rows=None, **generation):
    model = llama(rows or len(tokenizer))
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    return read_header(gl.export(model, tokenizer, tmp_path / "small.gguf")).settings


def test_the_tokenizer_travels_whole(tmp_path):
    tokenizer = wrapped(byte_level(), chat_template=TEMPLATE)
    tokenizer.add_tokens(["<think>"])
    rows = len(tokenizer) + 3
    held = settings(tmp_path, tokenizer, rows, eos_token_id=[2, 5, 7])
    tokens = held["tokenizer.ggml.tokens"]
    assert tokens[: rows - 3] == tokenizer.convert_ids_to_tokens(range(rows - 3))
    assert len(set(tokens)) == rows == len(held["tokenizer.ggml.token_type"])
    assert held["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert held["tokenizer.ggml.token_type"][-4:] == [4, 5, 5, 5]
    assert held["tokenizer.chat_template"] == TEMPLATE
    assert (held["tokenizer.ggml.bos_token_id"], held["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert (held["tokenizer.ggml.eot_token_id"], held["tokenizer.ggml.eom_token_id"]) == (5, 7)
    again = gl.load(tmp_path / "small.gguf", device="cpu")[1]
    for text in (*HARD_TEXTS, "a <think> b"):
        assert again(text).input_ids == tokenizer(text).input_ids
    chat = [{"role": "user", "content": "Hi"}]
    rendered = [t.apply_chat_template(chat, tokenize=False) for t in (again, tokenizer)]
    assert rendered[0] == rendered[1]


def test_chat_templates_by_name_travel_by_name(tmp_path):
    tokenizer = wrapped(byte_level())
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "{{ tools }}"}
    held = settings(tmp_path, tokenizer)
    assert held["tokenizer.chat_template"] == TEMPLATE
    assert held["tokenizer.chat_template.tool_use"] == "{{ tools }}"
    assert held["tokenizer.chat_templates"] == ["tool_use"]


@pytest.mark.parametrize("single", ["$A", "<|start|> $A", "$A <|stop|>", "<|start|> $A <|stop|>"])
def test_what_begins_and_ends_every_text_travels(tmp_path, single):
    backend = byte_level()
    special = [("<|start|>", 1), ("<|stop|>", 2)]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    tokenizer = wrapped(backend)
    gl.export(llama(VOCABULARY), tokenizer, tmp_path / "small.gguf")
    again = gl.load(tmp_path / "small.gguf", device="cpu")[1]
    for text in HARD_TEXTS:
        assert again(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_that_splits_words_is_known_by_what_it_does(tmp_path, rule):
    tokenizer = wrapped(RULES[rule]())
    assert settings(tmp_path, tokenizer)["tokenizer.ggml.pre"] == rule
    again = gl.load(tmp_path / "small.gguf", device="cpu")[1]
    for text in (*HARD_TEXTS, "an unreachable word"):
        assert again(text).input_ids == tokenizer(text).input_ids


def test_a_tokenizer_that_composes_accents_is_written_with_a_warning(tmp_path):
    backend = byte_level()
    backend.normalizer = normalizers.NFC()
    with pytest.warns(UserWarning, match="NFC"):
        gl.export(llama(VOCABULARY), wrapped(backend), tmp_path / "small.gguf")


def test_an_added_token_that_transformers_cuts_is_said_when_the_file_is_read(tmp_path):
    tokenizer = wrapped(byte_level())
    tokenizer.add_tokens(["two words"])
    path = gl.export(llama(VOCABULARY + 1), tokenizer, tmp_path / "small.gguf")
    with pytest.warns(UserWarning, match="1 added token.* 'two words'"):
        gl.load(path, device="cpu")


def test_more_stops_than_a_file_has_room_for_are_said(tmp_path):
    with pytest.warns(UserWarning, match="write on after 8"):
        settings(tmp_path, TOKENIZER, eos_token_id=[2, 5, 7, 8])


# --- what cannot be -------------------------------------------------------------------------------


def with_gates():
    model = llama(VOCABULARY)
    gate(model, [torch.arange(96) < 48] * LAYERS)
    return model


def with_adapter():
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(llama(VOCABULARY), peft.LoraConfig(target_modules=["q_proj"]))


def with_value(value):
    model = llama(VOCABULARY)
    model.lm_head.weight.data[3, 3] = value
    return model


def with_a_part():
    model = llama(VOCABULARY)
    model.model.layers[0].mlp.down_proj.bias = nn.Parameter(torch.ones(D))
    return model


def with_int8():
    model = llama(VOCABULARY)
    numbers = torch.ones(D, D, dtype=torch.int8)
    model.model.layers[0].self_attn.q_proj.weight = nn.Parameter(numbers, requires_grad=False)
    return model


def a_classifier():
    return transformers.LlamaForSequenceClassification(llama(VOCABULARY).config)


STRETCHED = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
MODELS = {
    "gates are on": (with_gates, "gumlab.shrink"),
    "an adapter is not merged": (with_adapter, "merge_and_unload"),
    "gpt-neo": (lambda: tiny("gpt_neo", vocab_size=VOCABULARY), "of another .gpt_neo"),
    "gemma": (lambda: tiny("gemma", vocab_size=VOCABULARY), "convert_hf_to_gguf.py"),
    "a mixture of experts": (lambda: tiny("mixtral"), "mixture of experts"),
    "a classifier": (a_classifier, "another head or parts of its own"),
    "unequal gpt2": (lambda: narrowed(gpt2()), "pad=True"),
    "unequal qwen3": (lambda: narrowed(of("Qwen3", head_dim=32)), "pad=True"),
    "another activation": (lambda: gpt2(activation_function="relu"), "made with relu"),
    "gelu by erf": (lambda: gpt2(activation_function="gelu"), "made with gelu"),
    "llama by gelu": (lambda: llama(VOCABULARY, hidden_act="gelu"), "computes silu"),
    "attention of its own scale": (lambda: gpt2(scale_attn_weights=False), "scale_attn_weights"),
    "attention scaled by layer": (
        lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
        "scaled in a way of its own",
    ),
    "a stretched rotary embedding": (
        lambda: llama(VOCABULARY, rope_parameters=STRETCHED),
        "stretched .linear",
    ),
    "llama 3's stretching elsewhere": (
        lambda: of("Qwen2", rope_parameters=ROPE),
        "stretched .llama3",
    ),
    "a qwen3 with biases": (
        lambda: of("Qwen3", head_dim=32, attention_bias=True),
        "biases .attention_bias., which llama.cpp does not read",
    ),
    "a window": (lambda: of("Mistral", sliding_window=8), "max_position_embeddings = 8"),
    "a window in some layers": (
        lambda: of("Qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1),
        "looks back 8 of 96",
    ),
    "a bias that the config does not say": (with_a_part, "down_proj.bias"),
    "infinity": (lambda: with_value(torch.inf), "NaN or infinity"),
    "no number": (lambda: with_value(torch.nan), "NaN or infinity"),
    "too large for float16": (lambda: with_value(1e6), 'float16 ends at 65,504.*dtype="f32"'),
    "quantised attention": (with_int8, r"attn_q.weight is quantised .torch.int8"),
    "no model": (lambda: "tiny-llama", "Expected a model"),
}


@pytest.mark.parametrize("case", MODELS)
def test_what_llama_cpp_would_not_compute_is_refused_before_the_file(tmp_path, case):
    make, sentence = MODELS[case]
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.export(make(), TOKENIZER, tmp_path / "small.gguf", dtype="f16")
    assert list(tmp_path.iterdir()) == []


def changed(change):
    backend = byte_level()
    change(backend)
    return wrapped(backend)


def _prefix_space(backend):
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _other_rule(backend):
    split = pre_tokenizers.Split(Regex(r"\w+|\W+"), behavior="isolated")
    by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, by_byte])


def _lowercase(backend):
    backend.normalizer = normalizers.Lowercase()


def _twice(backend):
    backend.post_processor = processors.TemplateProcessing(
        single="<|start|> <|start|> $A", special_tokens=[("<|start|>", 1)]
    )


def with_added(**settings):
    tokenizer = wrapped(byte_level())
    tokenizer.add_tokens([transformers.AddedToken("<mask>", **settings)])
    return tokenizer


def without_end():
    tokenizer = wrapped(byte_level())
    tokenizer.eos_token = None
    return tokenizer


def named_as_filling():
    tokenizer = wrapped(byte_level())
    tokenizer.add_tokens([f"[PAD{VOCABULARY + 1}]"])
    return tokenizer


TOKENIZERS = {
    "words": (word_tokenizer, "not byte-level BPE.*convert_hf_to_gguf.py"),
    "none": (lambda: None, "Expected the model's tokenizer"),
    "a space before every text": (lambda: changed(_prefix_space), "splits words by a rule"),
    "an unknown expression": (lambda: changed(_other_rule), r"rule .*\\w\+.*Known: gpt-2, smollm"),
    "whole words by another rule": (
        lambda: wrapped(with_whole_word(True, "gpt-2")),
        "words that are tokens taken whole",
    ),
    "another normalisation": (lambda: changed(_lowercase), "changes texts .*Lowercase"),
    "two beginnings": (lambda: changed(_twice), "other tokens around a text"),
    "a token that takes its space along": (lambda: with_added(lstrip=True), "'<mask>' takes"),
    "no end of text": (without_end, "no end of text"),
    "a token named as the filling": (named_as_filling, r"named as .*PAD"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_tokenizer_that_llama_cpp_would_not_follow_is_refused(tmp_path, case):
    make, sentence = TOKENIZERS[case]
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.export(llama(VOCABULARY + 3), make(), tmp_path / "small.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_outgrew_its_model_is_refused(tmp_path):
    with pytest.raises(gl.GumlabError, match="resize_token_embeddings"):
        gl.export(llama(VOCABULARY - 1), TOKENIZER, tmp_path / "small.gguf")


PATHS = {
    "a folder": (".", "is a folder. Name a file in it"),
    "another ending": ("small.bin", "Let it end in .gguf"),
    "a part's name": ("small-00001-of-00002.gguf", "not as one of several parts"),
    "nothing": ("", "must be a path"),
    "no text": (3, "must be a path"),
    "a file on the way": ("file/small.gguf", "file is a file"),
    "too long": ("x" * 400 + ".gguf", "Choose another path"),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_that_cannot_be_is_refused(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    path, sentence = PATHS[case]
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.export(llama(VOCABULARY), TOKENIZER, path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(gl.GumlabError, match="Did you mean 'q8_0'"):
        gl.export(llama(VOCABULARY), TOKENIZER, tmp_path / "small.gguf", dtype="Q8_0")


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch, there, error):
    path = tmp_path / "small.gguf"
    if there:
        gl.export(llama(VOCABULARY), TOKENIZER, path)
    before = path.read_bytes() if there else None
    write = gguf.GGUFWriter.write_tensor_data
    written = []

    def fail_half_way(self, tensor):
        written.append(tensor)
        if len(written) > 5:
            raise error
        write(self, tensor)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail_half_way)
    with pytest.raises((gl.GumlabError, KeyboardInterrupt), match=r"No space left|^$"):
        gl.export(llama(VOCABULARY, seed=1), TOKENIZER, path)
    assert [p.name for p in tmp_path.iterdir()] == (["small.gguf"] if there else [])
    assert (path.read_bytes() if there else None) == before


def test_folders_on_the_way_are_made_and_a_link_stays_one(tmp_path):
    path = gl.export(llama(VOCABULARY), TOKENIZER, tmp_path / "a" / "b" / "small.gguf")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    gl.export(narrowed(llama(VOCABULARY)), TOKENIZER, link)
    assert link.is_symlink()
    assert read_header(path).widths == UNEQUAL
    assert path.stat().st_mode & 0o044 == 0o044  # everyone may read


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_damaged_file_is_refused(tmp_path, share):
    path = gl.export(narrowed(llama(VOCABULARY)), TOKENIZER, tmp_path / "small.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for look in (gl.load, doctor):
        with pytest.raises(gl.GumlabError, match="cut off"):
            look(path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(gl.GumlabError, match=r'pip install "gumlab\[gguf\]"'):
        gl.export(llama(VOCABULARY), TOKENIZER, tmp_path / "small.gguf")
