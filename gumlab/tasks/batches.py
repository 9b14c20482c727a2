"""Examples to padded tensors. Only the target is learned and scored; padding never counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.tasks import Example

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
BLOCK = 1024  # the longest block of running text, in tokens, where the model's context is longer
Row = tuple[list[int], int]  # token ids, and how many of them are not to be predicted


def encode(tokenizer: Any, examples: Sequence[Example], context: int) -> list[Row]:
    """(token ids, length of the prompt) of each example: prompt, " " + target, end of text.

    Examples longer than `context` lose tokens from the left of the prompt, all but one, and a
    target that is still too long loses its end; how many were cut is said in a warning. Running
    text is cut into blocks of the context, at most BLOCK. Raises GumlabError for no examples.
    """
    if not examples:
        raise GumlabError("There are no examples to work on; expected one or more. Check the task.")
    if is_running_text(examples):
        ids, size = token_stream(tokenizer, examples), min(context, BLOCK)
        blocks = [(ids[i : i + size], 0) for i in range(0, len(ids), size)]
        return blocks[:-1] if len(blocks[-1][0]) == 1 else blocks  # one token predicts nothing
    if tokenizer.eos_token_id is None:
        raise GumlabError("The tokenizer has no end-of-text token; set tokenizer.eos_token.")
    prompts = tokens_of(tokenizer, [e.prompt for e in examples], True)
    targets = tokens_of(tokenizer, [" " + e.target for e in examples])
    encoded, cut, over = [], 0, 0
    for prompt, target in zip(prompts, targets, strict=True):
        target = [*target, tokenizer.eos_token_id]
        over += len(target) >= context
        target = target[: context - 1]
        room = context - len(target)
        cut += len(prompt) > room
        encoded.append((prompt[-room:] + target, min(len(prompt), room)))
    for count, what, side in ((over, "targets", "right"), (cut, "prompts", "left")):
        if count:
            said = f"{count} of {len(examples)} {what} do not fit into the context of {context} "
            warnings.warn(f"{said}tokens; they were cut from the {side}.", stacklevel=2)
    return encoded


def tokens_of(tokenizer: Any, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """The token ids of each text; no notice of its length, which is our care."""
    return tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]


def is_running_text(examples: Sequence[Example]) -> bool:
    """True where no example has a prompt: the targets are one text."""
    return not any(e.prompt for e in examples)


def token_stream(tokenizer: Any, examples: Sequence[Example]) -> list[int]:
    """Running text as one list of token ids: every example's, in order, with nothing between."""
    ids = list(chain.from_iterable(tokens_of(tokenizer, [e.target for e in examples])))
    if len(ids) < 2:
        raise GumlabError(
            f"The text has {len(ids)} token(s); expected two or more. Check the task's files."
        )
    return ids


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Right-padded input_ids, attention_mask and labels, (B, T) each; only targets are labelled."""
    size = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), size, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for i, (tokens, start) in enumerate(rows):
        n = len(tokens)
        ids[i, :n] = torch.tensor(tokens)
        labels[i, start:n] = ids[i, start:n]
        mask[i, :n] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {key: value.to(device) for key, value in batch.items()}


def batches(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], size: int
) -> Iterator[dict[str, Tensor]]:
    """All examples once, in batches of `size`, longest first, on the model's device."""
    yield from collated(model, encode(tokenizer, examples, context_length(model)), size)


def collated(model: nn.Module, rows: Sequence[Row], size: int) -> Iterator[dict[str, Tensor]]:
    """The rows in batches of `size`, longest first, on the model's device."""
    rows = sorted(rows, key=lambda row: -len(row[0]))
    for start in range(0, len(rows), size):
        yield collate(rows[start : start + size], next(model.parameters()).device)


def shuffled(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], size: int, steps: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """`steps` training batches, reshuffled each epoch; of near lengths, so little is padding."""
    rows = encode(tokenizer, examples, context_length(model))
    generator = torch.Generator().manual_seed(seed)
    device, made = next(model.parameters()).device, 0
    while made < steps:
        order = torch.randperm(len(rows), generator=generator).tolist()
        for p in range(0, len(order), 16 * size):  # sort within 16 batches, then draw from them
            part = sorted(order[p : p + 16 * size], key=lambda i: len(rows[i][0]))
            starts = range(0, len(part), size)
            for s in torch.randperm(len(starts), generator=generator).tolist()[: steps - made]:
                made += 1
                yield collate([rows[i] for i in part[starts[s] : starts[s] + size]], device)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode, each back in its own mode afterwards."""
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


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
    """Cross entropy of each predicted token, (B, T - 1); 0 where the label is ignored."""
    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    flat = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view_as(labels)


def context_length(model: nn.Module) -> int:
    """The longest sequence the model takes, in tokens."""
    return int(getattr(model.config, "max_position_embeddings", 1024))
