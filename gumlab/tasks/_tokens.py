"""Texts to token ids: a prompt and its target as one text, whatever a tokenizer puts around one."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

from gumlab.errors import GumlabError
from gumlab.tasks import Example
from gumlab.tasks._texts import Chat

MANY = 256  # texts; fewer are read about as soon as looked up
READINGS = 8  # of many texts are remembered: several runs on the same task read it once
LONGEST = 2**24  # characters of a remembered reading
_latest: dict[str, _Reading] = {}  # the oldest first


def check_tokenizer(tokenizer: Any) -> None:
    """Raise GumlabError for something else in a tokenizer's place."""
    if not callable(tokenizer):
        raise GumlabError(
            f"Expected a tokenizer, got {type(tokenizer).__name__} {tokenizer!r:.60}. The order is "
            "model, tokenizer, task; model, tokenizer = gumlab.load(...) gives both."
        )


class _Reading(NamedTuple):
    """The token ids of many texts, one after the other, and where each text's end."""

    ids: array[int]
    ends: list[int]

    def texts(self) -> list[list[int]]:
        """The token ids of each text."""
        starts = [0, *self.ends[:-1]]
        return [self.ids[start:end].tolist() for start, end in zip(starts, self.ends, strict=True)]


def tokens_of(tokenizer: Any, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """The token ids of each text.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    texts : sequence of str, or of chats
        A chat is written by the tokenizer's template, which asks for the answer and has its own
        special tokens.
    special : bool, default False
        With the tokens that the tokenizer puts before a text, such as a beginning of text. What it
        puts behind one is left out: the text goes on.

    Returns
    -------
    list of list of int

    Raises
    ------
    GumlabError
        For chats without a template, and for chats and texts in one.
    """
    kinds = {isinstance(text, Chat) for text in texts}
    if len(kinds) > 1:
        raise GumlabError(
            "Some prompts are chats and some are texts. Write all as messages or all as texts: "
            "a model is asked in one way."
        )
    written = [_written(tokenizer, text) for text in texts]
    return _tokenised(tokenizer, written, special and kinds == {False})


def _tokenised(tokenizer: Any, texts: Sequence[str], special: bool) -> list[list[int]]:
    """The token ids of each text; many texts that were just read are not read again."""
    key = _known_by(tokenizer, texts, special)
    if key is not None and key in _latest:
        return _latest[key].texts()
    # not verbose: it would say which texts are longer than the context, which is our care
    encoded = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    behind = _tokens_behind(tokenizer) if special else 0
    found = [list(ids[: len(ids) - behind]) for ids in encoded]
    if key is not None:
        _remember(key, found)
    return found


def _known_by(tokenizer: Any, texts: Sequence[str], special: bool) -> str | None:
    """What the token ids of texts depend on, as a SHA-256.

    None for few or very long texts, and where a tokenizer does not say how it reads.
    """
    if len(texts) < MANY or sum(map(len, texts)) > LONGEST:
        return None
    kind = type(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not kind.__module__.startswith("transformers."):
        return None
    how = [kind.__qualname__, tokenizer.split_special_tokens, special]
    said = json.dumps([how, backend.to_str(), list(texts)])
    return hashlib.sha256(said.encode()).hexdigest()


def _remember(key: str, found: list[list[int]]) -> None:
    """Keep a reading, and forget the oldest one where there are too many."""
    ends = list(accumulate(len(ids) for ids in found))
    _latest[key] = _Reading(array("i", chain.from_iterable(found)), ends)
    if len(_latest) > READINGS:
        del _latest[next(iter(_latest))]


def _tokens_behind(tokenizer: Any) -> int:
    """How many tokens a tokenizer puts behind every text, so also behind a prompt."""
    whole = tokenizer("a", add_special_tokens=True, verbose=False)["input_ids"]
    bare = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    count = len(whole) - len(bare)
    places = (n for n in range(count, -1, -1) if whole[n : n + len(bare)] == bare)
    return count - next(places, count)


def targets_of(
    tokenizer: Any, examples: Sequence[Example], prompts: Sequence[list[int]]
) -> list[list[int]]:
    """The tokens of each target, as they follow the prompt's in one text, without end of text.

    A tokenizer that parts a text otherwise where prompt and target are joined is given the target
    by itself: a prompt is always what it will be when the model is asked. Of a chat the target is
    all that the template writes after the prompt.

    Raises
    ------
    GumlabError
        For a prompt without tokens, and an end of text that does not end its target.
    """
    answers = [_after_prompt(tokenizer, example) for example in examples]
    joined = [
        _written(tokenizer, example.prompt) + answer
        for example, answer in zip(examples, answers, strict=True)
    ]
    is_chat = isinstance(examples[0].prompt, Chat)
    wholes = _tokenised(tokenizer, joined, special=not is_chat)
    end = tokenizer.eos_token_id
    targets = []
    for number, (prompt, whole, answer) in enumerate(zip(prompts, wholes, answers, strict=True)):
        if not prompt:
            raise GumlabError(
                f"Example {number} has a prompt without tokens, so that the first token of its "
                "target would not be learned. Give it a prompt, or take it out."
            )
        if whole[: len(prompt)] == prompt:
            target = whole[len(prompt) :]
        else:
            (target,) = _tokenised(tokenizer, [answer], special=False)
        if target and target[-1] == end:  # it was written into the text
            target = target[:-1]
        if end in target:
            raise GumlabError(
                f"Example {number} has the end-of-text token {tokenizer.eos_token!r} within its "
                f"target {examples[number].target!r:.60}: what is written ends there. Take it out, "
                "or make several examples of it."
            )
        targets.append(target)
    return targets


def _written(tokenizer: Any, prompt: str, answer: str | None = None) -> str:
    """A prompt as the text that a model is given: a chat by its template, asking for the answer.

    With `answer`, the chat that ends with it.
    """
    if not isinstance(prompt, Chat):
        return prompt
    if not getattr(tokenizer, "chat_template", None):
        raise GumlabError(
            "The examples are chats, and the tokenizer has no chat template to write them by. Take "
            "a chat model's tokenizer, set tokenizer.chat_template, or write prompts as texts."
        )
    messages = [message._asdict() for message in prompt.messages]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer is None
        )
    except Exception as error:  # of the template's own code, which refuses by raising anything
        raise GumlabError(
            f"The tokenizer's chat template refuses the chat {messages!r:.120}: {error}. Change "
            "its roles or their order."
        ) from error


def _after_prompt(tokenizer: Any, example: Example) -> str:
    """What the text goes on with after the prompt."""
    if not isinstance(example.prompt, Chat):
        return " " + example.target
    asked = _written(tokenizer, example.prompt)
    whole = _written(tokenizer, example.prompt, example.target)
    if not whole.startswith(asked):
        raise GumlabError(
            f"The tokenizer's chat template writes {asked[-40:]!r} where it asks for an answer, "
            f"and {whole[-80:]!r} where one is there: what to learn does not follow from what is "
            "asked. Set a tokenizer.chat_template that goes on from its own prompt."
        )
    return whole[len(asked) :].rstrip()  # white space behind the template's end of text
