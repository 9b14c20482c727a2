"""Examples to padded tensors. Only the target is learned and scored; padding never counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, check_whole, warn_caller
from gumlab.language import check_reads_text, language_config
from gumlab.offloading import device_of
from gumlab.tasks import Example
from gumlab.tasks._tokens import check_tokenizer, targets_of, tokens_of
from gumlab.tasks.own import examples_in

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
BLOCK = 1024  # the longest block of running text, in tokens, where the model's context is longer
LOGITS = 2**27  # numbers that a batch's logits may be where nothing trains: half a gigabyte
POOL = 16  # batches whose examples are sorted by length together
Row = tuple[list[int], int]  # token ids, and how many of them are not to be predicted


def encode(tokenizer: Any, examples: Sequence[Example], context: int) -> list[Row]:
    """The token ids of each example, and the length of its prompt.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With an end-of-text token.
    examples : sequence of Example, str or dict
        One or more; texts by themselves are running text, dicts are rows.
    context : int
        The longest sequence, in tokens.

    Returns
    -------
    list of (list of int, int)
        Of each example: prompt, " " + target and end of text; and how many tokens are the prompt's.
        Of running text: blocks of `context` tokens, at most BLOCK, and 0.

    Raises
    ------
    GumlabError
        If there are no examples, or no end-of-text token; if one stands within a target, or a
        prompt has no tokens; if there are chats and the tokenizer has no template for them.

    Notes
    -----
    Prompt and target are tokenised as one text. Of a chat the target is what the tokenizer's chat
    template writes after the prompt, up to the end of text.

    An example longer than `context` loses tokens from the left of its prompt, all but one, and a
    target that is still too long loses its end; a warning says how many were cut.
    """
    check_tokenizer(tokenizer)
    examples = as_examples(examples)
    if is_running_text(examples):
        return _blocks(token_stream(tokenizer, examples), min(context, BLOCK))
    end = tokenizer.eos_token_id
    if end is None:
        raise GumlabError("The tokenizer has no end-of-text token; set tokenizer.eos_token.")
    prompts = tokens_of(tokenizer, [example.prompt for example in examples], special=True)
    targets = targets_of(tokenizer, examples, prompts)
    rows = []
    prompts_cut = 0
    targets_cut = 0
    for prompt, target in zip(prompts, targets, strict=True):
        answer = [*target, end]
        if len(answer) >= context:
            targets_cut += 1
            answer = answer[: context - 1]
        room = context - len(answer)
        if len(prompt) > room:
            prompts_cut += 1
            prompt = prompt[-room:]
        rows.append((prompt + answer, len(prompt)))
    for count, what, side in ((targets_cut, "targets", "right"), (prompts_cut, "prompts", "left")):
        if count:
            warn_caller(
                f"{count} of {len(examples)} {what} do not fit into the context of {context} "
                f"tokens; they were cut from the {side}."
            )
    return rows


def as_examples(examples: Any) -> list[Example]:
    """The examples in what is given for them (see `tasks.own.examples_in`), one or more.

    Raises
    ------
    GumlabError
        If there are none, or for something else than examples, texts and rows.
    """
    if isinstance(examples, Iterator):
        raise GumlabError(
            f"The examples are read more than once, and a {type(examples).__name__} gives them "
            "once. Make a list of it first: list(examples)."
        )
    found = examples_in(examples)
    if not found:
        raise GumlabError("There are no examples to work on; expected one or more. Check the task.")
    return found


def check_reads_as_given(model: nn.Module) -> None:
    """Raise GumlabError for a model of peft that puts virtual tokens before every text."""
    peft_config = getattr(model, "active_peft_config", None)
    if getattr(peft_config, "is_prompt_learning", False):
        raise GumlabError(
            f"{type(model).__name__} puts virtual tokens before every text (prompt tuning), which "
            "gumlab would count as the text's. Give it the model itself, model.get_base_model(), "
            "or tune it by an adapter of another kind, such as LoRA."
        )


def _check_tokens(model: nn.Module, rows: Sequence[Row]) -> None:
    """Raise GumlabError for a token that the model has no embedding of, or adds by itself."""
    check_reads_as_given(model)
    count = _vocabulary(model)
    largest = max(max(ids) for ids, _ in rows)
    if 0 < count <= largest:
        raise GumlabError(
            f"The tokenizer gives token {largest}, but the model knows {count:,} tokens (0 to "
            f"{count - 1}). Take the model's own tokenizer, or resize: "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def _vocabulary(model: nn.Module) -> int:
    """How many tokens a model has embeddings of; 0 where it does not say."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return getattr(embeddings, "num_embeddings", 0)


def _blocks(ids: list[int], size: int) -> list[Row]:
    """Running text in blocks, of which every token but the first is predicted."""
    blocks = [ids[start : start + size] for start in range(0, len(ids), size)]
    if len(blocks[-1]) == 1:  # one token predicts nothing
        blocks.pop()
    return [(block, 0) for block in blocks]


def is_running_text(examples: Sequence[Example]) -> bool:
    """True where no example has a prompt: the targets are one text."""
    return not any(example.prompt for example in examples)


def token_stream(tokenizer: Any, examples: Sequence[Example]) -> list[int]:
    """Running text as one list of token ids: every example's, in order, with nothing between.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    examples : sequence of Example

    Returns
    -------
    list of int
        Two or more.

    Raises
    ------
    GumlabError
        If the text has fewer than two tokens, so that there is nothing to predict.
    """
    ids: list[int] = []
    for passage in tokens_of(tokenizer, [example.target for example in examples]):
        ids.extend(passage)
    if len(ids) < 2:
        raise GumlabError(
            f"The text has {len(ids)} token(s); expected two or more. Check the task's files."
        )
    return ids


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """One batch of rows, padded on the right.

    Parameters
    ----------
    rows : sequence of (list of int, int)
        Token ids, and how many of them are not to be predicted (see `encode`).
    device : torch.device or str, default "cpu"

    Returns
    -------
    dict of str to Tensor
        "input_ids", "attention_mask" and "labels", (B, T) each. The labels of what is not to be
        predicted, and of padding, are IGNORED.
    """
    longest = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, T)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for i, (ids, start) in enumerate(rows):
        end = len(ids)
        input_ids[i, :end] = torch.tensor(ids)
        attention_mask[i, :end] = 1
        labels[i, start:end] = input_ids[i, start:end]
    return {
        "input_ids": input_ids.to(device),
        "attention_mask": attention_mask.to(device),
        "labels": labels.to(device),
    }


def batches(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], size: int
) -> Iterator[dict[str, Tensor]]:
    """All examples once, longest first.

    Parameters
    ----------
    model : nn.Module
        Gives the context and the device.
    tokenizer : transformers.PreTrainedTokenizerBase
    examples : sequence of Example
    size : int
        Examples in a batch.

    Yields
    ------
    dict of str to Tensor
        As `collate` makes them, on the model's device.

    Raises
    ------
    GumlabError
        If there are no examples, or no end-of-text token.
    """
    yield from collated(model, encode(tokenizer, examples, context_length(model)), size)


def collated(model: nn.Module, rows: Sequence[Row], size: int) -> Iterator[dict[str, Tensor]]:
    """The rows in batches of `size`, longest first, on the model's device.

    Fewer at a time where a batch's logits would be more than LOGITS numbers: a model of 49,152
    tokens takes blocks of 1,024 two by two.
    """
    check_whole("batch_size", size)
    _check_tokens(model, rows)
    device = device_of(model)
    longest_first = sorted(rows, key=lambda row: -len(row[0]))
    logits_of_a_row = len(longest_first[0][0]) * max(1, _vocabulary(model))
    size = max(1, min(size, LOGITS // logits_of_a_row))
    for start in range(0, len(longest_first), size):
        yield collate(longest_first[start : start + size], device)


def shuffled(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    size: int,
    steps: int,
    seed: int,
    block: int | None = None,
    first: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """Training batches, reshuffled each epoch; of near lengths, so little is padding.

    Parameters
    ----------
    model : nn.Module
        Gives the context and the device.
    tokenizer : transformers.PreTrainedTokenizerBase
    examples : sequence of Example
    size : int
        Examples in a batch, but for an epoch's last ones.
    steps : int
        Batches.
    seed : int
        The order depends on it alone.
    block : int, optional
        Tokens of a block of running text; by default the model's context, at most BLOCK.
    first : int
        How many of the batches to leave out at the start, where a run goes on.

    Yields
    ------
    dict of str to Tensor
        As `collate` makes them, on the model's device.

    Raises
    ------
    GumlabError
        If there are no examples, or no end-of-text token; for a block longer than that, and one of
        examples with prompts, which are not cut into blocks.
    """
    check_whole("batch_size", size)
    context = context_length(model)
    rows = encode(tokenizer, examples, checked_block(block, examples, context))
    _check_tokens(model, rows)
    device = next(model.parameters()).device
    lengths = [len(ids) for ids, _ in rows]
    for chosen in islice(_drawn(lengths, size, seed), first, steps):
        yield collate([rows[i] for i in chosen], device)


def _drawn(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Batches of indices without end: every index once an epoch, near lengths together."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(lengths), generator=generator, device="cpu").tolist()
        for start in range(0, len(order), POOL * size):
            pool = sorted(order[start : start + POOL * size], key=lambda i: lengths[i])
            groups = [pool[first : first + size] for first in range(0, len(pool), size)]
            for number in torch.randperm(len(groups), generator=generator, device="cpu").tolist():
                yield groups[number]


def check_loss(total: float) -> float:
    """A summed loss; GumlabError where it is infinite or no number."""
    if not math.isfinite(total):
        raise GumlabError(
            f"The loss on these data is not finite ({total}). float16 overflows easily; take "
            "model.float() or model.bfloat16(), or check the model's weights."
        )
    return total


def checked_block(block: int | None, examples: Sequence[Example], context: int) -> int:
    """The longest sequence in tokens: the context, or a shorter block of running text.

    Raises GumlabError where that is longer than the model takes, or would change nothing.
    """
    if block is None:
        return context
    longest = min(context, BLOCK)
    block = check_whole("block", block, least=2)
    if block > longest:
        raise GumlabError(
            f"block={block} is longer than a block can be: the model takes {context:,} tokens, and "
            f"running text is cut at {BLOCK:,} at most. Give {longest} or less."
        )
    if not is_running_text(as_examples(examples)):
        raise GumlabError(
            f"block={block} cuts running text, and these examples have prompts, each of which "
            "stays whole. Leave block out."
        )
    return block


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode, each of their modules back in its own mode afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def by_itself(casts: bool = False) -> Iterator[None]:
    """torch as it is by itself, whatever the context of the caller; as a decorator too.

    Gradients can be taken (torch.no_grad), what is made can be trained (torch.inference_mode),
    nothing is cast (torch.autocast), and tensors are made on the CPU where no device is said
    (torch.set_default_device).

    Parameters
    ----------
    casts : bool
        Let the caller's autocast go on. It then casts weights anew at each use: by itself it keeps
        what it has cast up to the end of its block, and does not see a weight change.
    """
    casting = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    cached = torch.is_autocast_cache_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if casting:
            torch.clear_autocast_cache()
            stack.callback(torch.clear_autocast_cache)
            torch.set_autocast_cache_enabled(False)
            stack.callback(torch.set_autocast_cache_enabled, cached)
        if not casts:
            for kind in casting:
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def memory_guard(batch_size: int) -> Iterator[None]:
    """Turns running out of memory, on a GPU or not, into a GumlabError that says what to lower."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise GumlabError(
                f"Out of memory with batch_size={batch_size}. Lower batch_size, shorten the "
                "examples, or use a smaller model."
            ) from error
        raise


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each predicted token, in nats.

    Parameters
    ----------
    logits : Tensor
        (B, T, V): what the model says at each position of the next token.
    labels : Tensor
        (B, T): the tokens, or IGNORED.

    Returns
    -------
    Tensor
        (B, T - 1) of float32; 0 where the label is ignored.
    """
    predictions = logits[:, :-1].float()  # (B, T - 1, V)
    wanted = labels[:, 1:]  # (B, T - 1)
    losses = nn.functional.cross_entropy(
        predictions.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(wanted)


def context_length(model: nn.Module) -> int:
    """The longest sequence the model takes, in tokens; GumlabError where it reads no text."""
    check_reads_text(model)
    config = language_config(model)
    said = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    return int(next((length for length in said if length), 1024))
