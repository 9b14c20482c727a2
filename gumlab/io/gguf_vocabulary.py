"""A byte-level tokenizer as a GGUF file has it: tokens, merges, and the rule that splits words."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gumlab.errors import GumlabError, warn_caller
from gumlab.io.gguf_loading import AS_GPT2, AS_GPT2_BY_DIGIT, SPECIAL_TOKENS, USER_DEFINED

CONVERTER = (
    "Save the model for llama.cpp's own converter instead, gumlab.save(model, tokenizer, folder, "
    "pad=True), and run convert_hf_to_gguf.py on that folder."
)
NORMAL, CONTROL, UNUSED = 1, 3, 5  # the format's numbers for a token's kind
# The steps by which a tokenizer splits a text: each digit alone, words by GPT-2's expression, bytes
# as characters without any, or an expression of its own.
DIGITS, WORDS, BYTES = "digits", "words", "bytes"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# llama.cpp's name for a way to split words, and for whether a word that is a token is taken whole.
RULES = {
    ((WORDS,), False): AS_GPT2[0],
    ((DIGITS, WORDS), False): AS_GPT2_BY_DIGIT[0],
    ((LLAMA3, BYTES), True): "llama-bpe",
    ((LLAMA3, BYTES), False): "dbrx",
    ((QWEN2, BYTES), False): "qwen2",
}
# Where a model stops beside its end of text: the end of a turn, and of a message.
MORE_STOPS = ("eot_token_id", "eom_token_id")


def vocabulary_settings(tokenizer: Any, rows: int, stops: Sequence[int]) -> dict[str, Any]:
    """The settings of a GGUF file that make llama.cpp cut texts as a tokenizer does.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    rows : int
        Of the model's embedding; ids that no token has are filled.
    stops : sequence of int
        The tokens at which the model's own generation stops.

    Returns
    -------
    dict
        By the format's names.

    Raises
    ------
    GumlabError
        For a tokenizer that is not byte-level BPE, that splits words by a rule llama.cpp has no
        name for, or does something else that llama.cpp would not.
    """
    parts = _parts(tokenizer)
    model = parts["model"]
    rule = _rule(parts)
    _check_normalizer(parts["normalizer"])
    tokens, kinds = _tokens(tokenizer, rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        **_special(tokenizer, stops),
        **_added(tokenizer),
        **_templates(tokenizer.chat_template),
    }


def _parts(tokenizer: Any) -> dict[str, Any]:
    """The parts of a byte-level BPE tokenizer, as its own JSON has them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts: Any = {"model": {"type": "none"}}
    if backend is not None:
        parts = json.loads(backend.to_str())
    kind = parts["model"]["type"]
    steps = parts.get("pre_tokenizer") or {}
    kinds = [step["type"] for step in steps.get("pretokenizers", [steps]) if step]
    if kind != "BPE" or "ByteLevel" not in kinds or parts["model"]["byte_fallback"]:
        raise GumlabError(
            f"{type(tokenizer).__name__} is not byte-level BPE, as GPT-2's, Llama 3's and Qwen's "
            f"tokenizers are (its model: {kind}), and gumlab writes no other to a GGUF file. "
            f"{CONVERTER}"
        )
    odd = [
        name
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        if parts["model"].get(name)
    ]
    if odd:
        raise GumlabError(
            f"The tokenizer's BPE has a setting ({', '.join(odd)}) that llama.cpp does not know, "
            f"and would cut texts into other tokens there. {CONVERTER}"
        )
    return parts


def _rule(parts: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way in which a tokenizer splits words."""
    splitter = parts["pre_tokenizer"]
    steps = tuple(_step(step) for step in splitter.get("pretokenizers", [splitter]))
    whole_words = bool(parts["model"].get("ignore_merges"))
    rule = RULES.get((steps, whole_words))
    if rule is None:
        listed = ", then ".join(map(str, steps))
        taken = ", words that are tokens taken whole" if whole_words else ""
        raise GumlabError(
            f"The tokenizer splits words by a rule ({listed:.200}{taken}) for which gumlab knows "
            f"no name in llama.cpp; under another name texts become other tokens there. Known: "
            f"{', '.join(RULES.values())}. {CONVERTER}"
        )
    return rule


def _step(step: Mapping[str, Any]) -> str:
    """One step of splitting a text, in one word or by its expression."""
    kind = step["type"]
    if kind == "ByteLevel" and not step["add_prefix_space"]:
        return WORDS if step.get("use_regex", True) else BYTES
    if kind == "Digits" and step["individual_digits"]:
        return DIGITS
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return step["pattern"].get("Regex", f"{step['pattern']}")
    return json.dumps(step)


def _check_normalizer(normalizer: Mapping[str, Any] | None) -> None:
    """Raise GumlabError for a tokenizer that changes texts first; warn of one that composes."""
    if normalizer is None:
        return
    if normalizer["type"] != "NFC":
        raise GumlabError(
            f"The tokenizer changes texts before it cuts them ({normalizer['type']}), which "
            f"llama.cpp does not do for byte-level BPE. {CONVERTER}"
        )
    warn_caller(
        "The tokenizer composes accents first (NFC), and llama.cpp does not: a text with accents "
        "that stand apart from their letters becomes other tokens there."
    )


def _tokens(tokenizer: Any, rows: int) -> tuple[list[str], list[int]]:
    """The token and its kind for each row of the embedding."""
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(by_number) >= rows:
        raise GumlabError(
            f"The tokenizer's ids go up to {max(by_number):,}, and the model's embedding has "
            f"{rows:,} rows. They do not belong together; or tokens were added: "
            "model.resize_token_embeddings(len(tokenizer)), and train what is new."
        )
    tokens = []
    kinds = []
    for number in range(rows):
        is_there = number in by_number
        tokens.append(by_number[number] if is_there else f"[PAD{number}]")
        kinds.append(NORMAL if is_there else UNUSED)
    if len(set(tokens)) < rows:
        raise GumlabError(
            "The tokenizer has tokens named as llama.cpp names the rows that no token has "
            "([PAD...]). Give the model an embedding of as many rows: "
            "model.resize_token_embeddings(len(tokenizer))."
        )
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.lstrip or token.rstrip or token.single_word:
            raise GumlabError(
                f"The token {token.content!r} takes the space beside it along, or stands as a word "
                "of its own only (lstrip, rstrip, single_word), which llama.cpp does not do. Add "
                "it to the tokenizer without."
            )
        kinds[number] = CONTROL if token.special else USER_DEFINED
    return tokens, kinds


def _special(tokenizer: Any, stops: Sequence[int]) -> dict[str, int]:
    """The ids of the tokens that begin, end and pad, and of other tokens that stop."""
    end = tokenizer.eos_token_id
    if end is None:
        raise GumlabError(
            "The tokenizer has no end of text, and llama.cpp would take a token of its own choice "
            'for one. Set it: tokenizer.eos_token = "<|endoftext|>", or whichever it is.'
        )
    settings = {}
    for role, setting in SPECIAL_TOKENS.items():
        number = getattr(tokenizer, f"{role}_id")
        if number is not None:
            settings[f"tokenizer.ggml.{setting}"] = number
    others = [number for number in stops if number != end]
    for setting, number in zip(MORE_STOPS, others, strict=False):
        settings[f"tokenizer.ggml.{setting}"] = number
    if len(others) > len(MORE_STOPS):
        left_out = ", ".join(map(str, others[len(MORE_STOPS) :]))
        warn_caller(
            f"A GGUF file has room for {1 + len(MORE_STOPS)} tokens that stop; llama.cpp will "
            f"write on after {left_out}."
        )
    return settings


def _added(tokenizer: Any) -> dict[str, bool]:
    """Whether every text begins and ends with a token of its own."""
    cut = tokenizer("a", add_special_tokens=False).input_ids
    found = tokenizer("a").input_ids
    for begins, ends in itertools.product((False, True), repeat=2):
        first = [tokenizer.bos_token_id] if begins else []
        last = [tokenizer.eos_token_id] if ends else []
        if found == [*first, *cut, *last]:
            return {"tokenizer.ggml.add_bos_token": begins, "tokenizer.ggml.add_eos_token": ends}
    raise GumlabError(
        f"The tokenizer puts other tokens around a text ({found} for the letter a) than its "
        f"beginning and end of text, which llama.cpp would not. {CONVERTER}"
    )


def _templates(template: str | Mapping[str, str] | None) -> dict[str, Any]:
    """The chat template, or several by name."""
    by_name = {"default": template} if isinstance(template, str) else dict(template or {})
    settings: dict[str, Any] = {}
    if "default" in by_name:
        settings["tokenizer.chat_template"] = by_name.pop("default")
    for name, text in by_name.items():
        settings[f"tokenizer.chat_template.{name}"] = text
    if by_name:
        settings["tokenizer.chat_templates"] = list(by_name)
    return settings
