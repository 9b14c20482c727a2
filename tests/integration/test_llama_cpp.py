"""A released llama.cpp runs what gumlab exports, and writes what PyTorch writes."""

from __future__ import annotations

import copy
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    byte_level,
    llama,
    with_noise,
    wrapped,
)
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

import gumlab as gl
from gumlab.serving import LlamaCpp, compare

pytest.importorskip("xllamacpp")

WRITTEN = 24  # tokens after a prompt
# How far llama.cpp may be from the exact numbers, in the error of PyTorch's own float32: it sums
# in another order, and so errs as much, not by the same.
TIMES_FLOAT32 = 16
TEXTS = (
    *(text for text in HARD_TEXTS if text),
    "leading",
    " leading",
    "   leading spaces and 3.14159, 1,000,000 and 2026-11-28",
    "naïve café, ça va? Ünïcödé, e\u0301 apart",
    "日本語の文章と한국어, русский текст, עברית",
    "emoji 😀👩‍👩‍👧 and ½ ² Ⅷ",
    "def f(x):\n\treturn {'a': x[0] ** 2}  # comment\n\n\nclass A:\n    pass",
    "tabs\tand\r\nlines\n\n\n  ",
    "<|start|>user<|stop|>",
    "they're we'll I'D don't",
)


@dataclass
class Shipped:
    """A model, its file, and llama.cpp with that file open."""

    model: nn.Module
    tokenizer: Any
    path: Path
    opened: LlamaCpp


def ship(folder: Path, model: nn.Module, tokenizer: Any, dtype: str = "f32") -> Shipped:
    path = gl.export(model, tokenizer, folder / f"{dtype}.gguf", dtype=dtype)
    return Shipped(model, tokenizer, path, LlamaCpp(path, exact=True))


def cut(name: str, scope: str) -> tuple[nn.Module, Any]:
    model, tokenizer = gl.load(name, device="cpu")
    scores = gl.score(model, "magnitude")
    return gl.shrink(model, gl.select(scores, keep=0.5, scope=scope, multiple_of=32)), tokenizer


MADE = {
    "tiny-llama, unequal": lambda: cut("tiny-llama", "global"),
    "tiny-llama, equal": lambda: cut("tiny-llama", "layer"),
    "tiny-gpt2, equal": lambda: cut("tiny-gpt2", "layer"),
}


@pytest.fixture(scope="module", params=MADE)
def shipped(request, tmp_path_factory) -> Shipped:
    """Models of a built-in task, cut to a half."""
    return ship(tmp_path_factory.mktemp("files"), *MADE[request.param]())


def asked(opened: LlamaCpp, place: str, **fields: Any) -> Any:
    """What llama.cpp's server says at one of its addresses, on this computer."""
    request = urllib.request.Request(
        f"{opened.server.listening_address}/{place}",
        json.dumps(fields).encode(),
        {"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(direct.open(request, timeout=60).read())


def tokens_of(opened: LlamaCpp, text: str) -> list[int]:
    return asked(opened, "tokenize", content=text, add_special=True, parse_special=True)["tokens"]


class TableGelu(nn.Module):
    """GELU as llama.cpp computes it: from a table of float16 numbers, between -10 and 10."""

    def forward(self, x: Tensor) -> Tensor:
        looked_up = functional.gelu(x.half().to(x.dtype), approximate="tanh").half().to(x.dtype)
        return torch.where(x <= -10, 0, torch.where(x >= 10, x, looked_up))


def as_llama_cpp_computes(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for layer in getattr(getattr(twin, "transformer", None), "h", ()):
        layer.mlp.act = TableGelu()
    return twin


@torch.no_grad()
def log_probabilities(model: nn.Module, ids: list[int]) -> Tensor:
    """Of the next token, (V,)."""
    return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def answered(opened: LlamaCpp, ids: list[int], tokens: int = 1) -> list[dict[str, Any]]:
    """Of each token written: its id, and every token's log-probability."""
    answer = opened.complete(ids, tokens=tokens, logprobs=opened.vocabulary, ignore_eos=True)
    return answer["choices"][0]["logprobs"]["content"]


def furthest(entry: dict[str, Any], expected: Tensor, without: int) -> float:
    """The largest difference of a log-probability, the end of text apart, which was forbidden."""
    found = {one["id"]: one["logprob"] for one in entry["top_logprobs"] if one["id"] != without}
    assert len(found) >= len(expected) - 1
    return max(abs(value - float(expected[number])) for number, value in found.items())


def tolerance(model: nn.Module, ids: list[int]) -> float:
    """How far sums in float32 may be from the exact ones, by PyTorch's own."""
    exact = log_probabilities(copy.deepcopy(model).double(), ids)
    own = float((log_probabilities(model, ids).double() - exact).abs().max())
    return TIMES_FLOAT32 * max(own, torch.finfo(torch.float32).eps * float(exact.abs().max()))


def tolerance_of_table(model: nn.Module, twin: nn.Module, ids: list[int]) -> float:
    """How far llama.cpp may be from the twin: sums, and half of what the table does.

    An activation at the border of two entries of the table falls to either side.
    """
    table = (log_probabilities(twin, ids) - log_probabilities(model, ids)).abs().max()
    return tolerance(model, ids) + float(table) / 2


def continued_by_pytorch(shipped: Shipped, prompts: list[str]) -> list[list[int]]:
    """The tokens after each prompt, up to the end of text."""
    end = shipped.tokenizer.eos_token_id
    batch = shipped.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        rows = shipped.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=WRITTEN,
            do_sample=False,
        )[:, batch.input_ids.shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def test_fifty_prompts_of_a_task_are_continued_as_by_pytorch(shipped):
    """Token by token; where PyTorch's two likeliest are as good as equal, either will do."""
    twin = as_llama_cpp_computes(shipped.model)
    prompts = [example.prompt for example in gl.load_task("restaurants").test[:50]]
    ties = 0
    for text, expected in zip(prompts, continued_by_pytorch(shipped, prompts), strict=True):
        prompt = shipped.tokenizer(text).input_ids
        assert tokens_of(shipped.opened, text) == prompt
        answer = shipped.opened.complete(prompt, tokens=WRITTEN, return_tokens=True, verbose=True)
        written = answer["__verbose"]["tokens"]
        if written != expected:
            same = next(
                i for i, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b
            )
            left = prompt + expected[:same]
            likely = log_probabilities(twin, left)
            gap = abs(float(likely[written[same]] - likely[expected[same]]))
            assert gap < 0.01, text
            ties += 1
    assert ties <= 1


def test_hard_texts_are_cut_into_the_same_tokens_and_judged_alike(shipped):
    twin = as_llama_cpp_computes(shipped.model)
    end = shipped.tokenizer.eos_token_id
    for text in TEXTS:
        ids = shipped.tokenizer(text).input_ids
        assert tokens_of(shipped.opened, text) == ids, text
        (entry,) = answered(shipped.opened, ids)
        allowed = tolerance_of_table(shipped.model, twin, ids)
        assert furthest(entry, log_probabilities(twin, ids), end) < allowed < 5e-3, text


def test_bytes_without_a_token_are_left_out_as_they_are_by_transformers(tmp_path):
    """A real vocabulary lacks some: bytes that no text has, and control characters."""
    parts = json.loads(byte_level().to_str())
    vocabulary = parts["model"]["vocab"]
    places = {"Ĥ": 4, "Ċ": 10, "Ã": 0xC3, "©": 0xA9, "ÿ": 0xFF}  # how byte-level BPE writes them
    for number, name in enumerate(places):
        vocabulary[f"Ġx{number}"] = vocabulary.pop(name)
    parts["model"]["merges"] = [
        pair for pair in parts["model"]["merges"] if not set(places) & set("".join(pair))
    ]
    tokenizer = wrapped(Tokenizer.from_str(json.dumps(parts)))
    made = ship(tmp_path, llama(len(tokenizer)).eval(), tokenizer)
    for text in ("a\x04b", "one\ntwo", "café", "é", "naïve", "plain"):
        ids = tokenizer(text).input_ids
        assert tokens_of(made.opened, text) == ids, text
        assert made.opened.complete(text, tokens=2)["usage"]["prompt_tokens"] == len(ids)


def test_a_file_of_8_bits_is_small_and_close(shipped, tmp_path):
    """Close: of 50 targets' first tokens, the log-probability moves by a few per cent."""
    small = ship(tmp_path, shipped.model, shipped.tokenizer, "q8_0")
    half = gl.export(shipped.model, shipped.tokenizer, tmp_path / "f16.gguf", dtype="f16")
    sizes = [path.stat().st_size for path in (small.path, half, shipped.path)]
    assert sizes[0] < 0.6 * sizes[1]
    assert sizes[1] < 0.55 * sizes[2]
    moved = []
    for example in gl.load_task("restaurants").test[:20]:
        ids = shipped.tokenizer(example.prompt).input_ids
        expected = log_probabilities(shipped.model, ids)
        likeliest = int(expected.argmax())
        (entry,) = answered(small.opened, ids)
        found = {one["id"]: one["logprob"] for one in entry["top_logprobs"]}
        moved.append(abs(found[likeliest] - float(expected[likeliest])))
    assert sum(moved) / len(moved) < 0.05


def test_the_cut_file_is_smaller_than_the_dense_one_by_what_was_cut(shipped, tmp_path):
    name = "tiny-gpt2" if shipped.model.config.model_type == "gpt2" else "tiny-llama"
    dense, tokenizer = gl.load(name, device="cpu")
    path = gl.export(dense, tokenizer, tmp_path / "dense.gguf")
    saved = sum(p.numel() for p in dense.parameters())
    saved -= sum(p.numel() for p in shipped.model.parameters())
    difference = path.stat().st_size - shipped.path.stat().st_size
    assert difference == pytest.approx(4 * saved, abs=2000)  # settings and alignment


SIZES = {
    "vocab_size": 320,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "intermediate_size": 96,
    "max_position_embeddings": CONTEXT,
}
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
ROPE |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
BIASES = {"attention_bias": True, "mlp_bias": True}


def of(kind, **settings):
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    return with_noise(transformers.AutoModelForCausalLM.from_config(config))


FAMILIES = {
    "llama with biases": lambda: llama(320, **BIASES),
    "llama of wide heads, tied": lambda: llama(320, head_dim=32, tie_word_embeddings=True),
    "llama 3": lambda: llama(320, rope_parameters=ROPE),
    "mistral": lambda: of("Mistral", sliding_window=None),
    "qwen2": lambda: of("Qwen2"),
    "qwen3": lambda: of("Qwen3", head_dim=32),
}
NOT_UNEQUAL = ("qwen3",)


@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_pytorch_computes(tmp_path, family, unequal):
    if unequal and family in NOT_UNEQUAL:
        pytest.skip("llama.cpp has no block of this kind with a width for each layer")
    model = FAMILIES[family]()
    if unequal:
        scores = gl.score(model, "random")
        model = gl.shrink(model, gl.select(scores, widths=[64, 33]))
    tokenizer = wrapped(byte_level())
    opened = ship(tmp_path, model, tokenizer).opened
    told = 0
    for first in range(3, 40):
        ids = list(range(first, first + 40))
        expected = log_probabilities(model, ids)
        likeliest = int(expected.argmax())
        # of a token that is a part of a character, or special, the server says no numbers
        if likeliest > 2 and tokenizer.decode([likeliest]).isascii():
            (entry,) = answered(opened, ids)
            assert furthest(entry, expected, 2) < tolerance(model, ids) < 1e-3
            told += 1
        if told == 3:
            return
    pytest.fail("the model says too few tokens that the server tells of")


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_cuts_texts_in_llama_cpp_as_in_python(tmp_path, rule):
    tokenizer = wrapped(RULES[rule](), chat_template=TEMPLATE)
    tokenizer.add_tokens(["<think>", "  two"])
    opened = ship(tmp_path, llama(len(tokenizer) + 3), tokenizer).opened
    for text in (*TEXTS, "an unreachable word", "a <think>b  two"):
        assert tokens_of(opened, text) == tokenizer(text).input_ids, text
    chat = [{"role": role, "content": f"{role} 12"} for role in ("user", "assistant", "user")]
    expected = tokenizer.apply_chat_template(chat, tokenize=False)
    assert asked(opened, "apply-template", messages=chat)["prompt"] == expected


def test_files_are_timed_in_turns_by_thread_count(shipped, tmp_path):
    other = gl.export(shipped.model, shipped.tokenizer, tmp_path / "half.gguf", dtype="f16")
    found = compare([shipped.path, other], threads=[1, 2], tokens=9, decoded=4, repeats=2)
    assert list(found) == [str(shipped.path), str(other)]
    for path, numbers in ((shipped.path, "F32"), (other, "F16")):
        row = found[str(path)]
        assert row["file_bytes"] == path.stat().st_size
        assert row["numbers"] == numbers
        assert row["widths"] == [layer.width for layer in gl.neurons(shipped.model)]
        assert [(speed["threads"], speed["tokens"]) for speed in row["speed"]] == [(1, 9), (2, 9)]
        for speed in row["speed"]:
            for what in ("prefill_tokens_per_s", "decode_tokens_per_s"):
                low, high = speed[f"{what}_quartiles"]
                assert 0 < low <= speed[what] <= high


def refused(shipped: Shipped) -> dict[str, tuple[Any, str]]:
    """What is asked, and the sentence."""
    path = shipped.path
    damaged = path.with_name("damaged.gguf")
    damaged.write_bytes(path.read_bytes()[:-100])
    return {
        "a damaged file": (lambda: LlamaCpp(damaged), "was cut off"),
        "a missing file": (lambda: compare([path.with_name("gone.gguf")]), "There is no file"),
        "a file twice": (lambda: compare([path, str(path)]), "named twice"),
        "one path alone": (lambda: compare(str(path)), "must be a list of GGUF files"),
        "no threads": (lambda: compare([path], threads=[0]), "threads must be a whole number"),
        "one token": (lambda: compare([path], decoded=1), "decoded must be a whole number, 2"),
        "no such token": (lambda: shipped.opened.complete([9999]), "token ids below 1,024"),
        "a long prompt": (lambda: shipped.opened.complete([5] * 999), "fit into 256 tokens"),
    }


def test_what_cannot_be_asked_of_llama_cpp_is_one_sentence(shipped):
    for ask, sentence in refused(shipped).values():
        with pytest.raises(gl.GumlabError, match=sentence):
            ask()


def test_an_architecture_that_llama_cpp_does_not_know_is_one_sentence(shipped):
    data = shipped.path.read_bytes()
    for name in (b"llama", b"deci", b"gpt2"):
        data = data.replace(name, name[::-1])
    odd = shipped.path.with_name("odd.gguf")
    odd.write_bytes(data)
    with pytest.raises(gl.GumlabError, match=r"llama\.cpp does not open .*odd\.gguf"):
        LlamaCpp(odd)


def test_without_the_package_there_is_a_sentence(shipped, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    with pytest.raises(gl.GumlabError, match=r'xllamacpp.*pip install "gumlab\[gguf\]"'):
        LlamaCpp(shipped.path)
