"""A word-level tokenizer, small examples, and batches of them."""

from __future__ import annotations

import random

import torch
import transformers
from torch import nn

from gumlab.tasks import Example
from gumlab.tasks.batches import batches
from helpers.models import VOCAB


def word_tokenizer(bos: bool = False):
    """One token per word of "w4" ... "w63"; with `bos`, a text starts with <bos>, as Llama's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<eos>", "<pad>", "<bos>", "<unk>", *(f"w{i}" for i in range(4, VOCAB))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<eos>",
        pad_token="<pad>",
        bos_token="<bos>",
        unk_token="<unk>",
    )


def make_examples(count: int, seed: int = 0) -> list[Example]:
    """Prompts of 2 to 9 words; the target repeats some of them, so there is something to learn."""
    draw = random.Random(seed)
    prompts = [
        [f"w{draw.randrange(4, 24)}" for _ in range(draw.randint(2, 9))] for _ in range(count)
    ]
    return [Example(" ".join(p), " ".join(p[: draw.randint(1, len(p))][::-1])) for p in prompts]


def one_batch(model: nn.Module, tokenizer, examples) -> dict[str, torch.Tensor]:
    """All examples as one padded batch, labels included."""
    return next(batches(model, tokenizer, examples, len(examples)))
