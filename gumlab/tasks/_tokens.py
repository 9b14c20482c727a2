"""Texts to token ids: a prompt and its target as one text, whatever a tokenizer puts around one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gumlab.errors import GumlabError
from gumlab.tasks import Example
from gumlab.tasks._texts import Chat


def check_tokenizer(tokenizer: Any) -> None:
    """Raise GumlabError for something else in a tokenizer's place."""
    if not callable(tokenizer):
        raise GumlabError(
            f"Expected a tokenizer, got {type(tokenizer).__name__} {tokenizer!r:.60}. The order is "
            "model, tokenizer, task; model, tokenizer = gumlab.load(...) gives both."
        )


class Remembering:
    """A tokenizer that reads the same texts once, for several runs on the same examples.

    It is asked for anything else as the tokenizer itself is, which may get more tokens meanwhile,
    but nothing else that changes how it reads.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._read: dict[tuple[Any, ...], Any] = {}

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        """The token ids of the texts, under "input_ids" alone."""
        asked = texts if isinstance(texts, str) else tuple(texts)
        key = (len(self.tokenizer), asked, *sorted(options.items()))
        if key not in self._read:
            self._read[key] = self.tokenizer(texts, **options)["input_ids"]
        return {"input_ids": self._read[key]}

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # of a copy that is just being made
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


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
    # not verbose: it would say which texts are longer than the context, which is our care
    encoded = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    behind = _tokens_behind(tokenizer) if special else 0
    return [ids[: len(ids) - behind] for ids in encoded]


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
        if target and target[-1] == tokenizer.eos_token_id:  # it was written into the text
            target = target[:-1]
        if tokenizer.eos_token_id in target:
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
