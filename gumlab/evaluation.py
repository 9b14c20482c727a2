"""How good a model is: loss, perplexity, BLEU, ROUGE, exact match, execution accuracy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from gumlab.batches import IGNORED, batches, context_length, evaluating, memory_guard, token_losses
from gumlab.errors import GumlabError, unknown
from gumlab.tasks import Example, Task


def evaluate(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    split: str = "test",
    *,
    limit: int | None = None,
    generated: int | None = 200,
    batch_size: int = 50,
) -> dict[str, float]:
    """Loss (mean per target token), perplexity, and the task's metric on greedy generations.

    limit: the first examples used for the loss (default all). generated: the first examples that
    are generated for the metric (None: all, 0: none, which leaves the metric out). A split that is
    not there is an error; a task without a test split is evaluated on validation, with a warning.
    """
    if split == "test" and not task.test and task.validation:
        split = "validation"
        warnings.warn(f"Task {task.name!r} has no test split; this is validation.", stacklevel=2)
    if task.metric not in METRICS:
        raise unknown("metric", task.metric, METRICS)
    examples = task.split(split)[:limit]
    with memory_guard(batch_size):
        loss = mean_target_loss(model, tokenizer, examples, batch_size)
        result = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if generated != 0:
            examples = examples[:generated]
            texts = generate(model, tokenizer, examples, batch_size)
            result.update(METRICS[task.metric](texts, examples))
    return result


@torch.no_grad()
def mean_target_loss(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], batch_size: int = 50
) -> float:
    """Cross entropy per target token over all examples together, in nats."""
    total = count = 0.0
    with evaluating(model):
        for batch in batches(model, tokenizer, examples, batch_size):
            labels = batch.pop("labels")
            total += token_losses(model(**batch).logits, labels).sum().item()
            count += (labels[:, 1:] != IGNORED).sum().item()
    return total / count


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    batch_size: int = 50,
    *,
    beams: int = 1,
) -> list[str]:
    """What the model writes after each prompt, greedily (or by beam search), end of text excluded.

    Prompts are padded on the left; at most 1.5 x the longest reference is generated.
    """
    if not examples:
        raise GumlabError("There are no prompts to generate from; expected one or more.")
    prompts = tokenizer([e.prompt for e in examples])["input_ids"]
    answers = [" " + r for e in examples for r in e.references]
    longest = max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"]))
    pad = tokenizer.pad_token_id  # masked, so any token serves where there is none
    pad = tokenizer.eos_token_id if pad is None else pad
    room = min(int(1.5 * longest) + 2, context_length(model) - 1)
    device, texts = next(model.parameters()).device, [""] * len(examples)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        cut = [prompts[i][-(context_length(model) - room) :] for i in chosen]
        size = max(map(len, cut))
        ids = torch.tensor([[pad] * (size - len(p)) + p for p in cut], device=device)
        mask = torch.tensor([[0] * (size - len(p)) + [1] * len(p) for p in cut], device=device)
        with evaluating(model):
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=room,
                do_sample=False,
                num_beams=beams,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
            )
        for i, tokens in zip(chosen, out[:, size:], strict=True):
            texts[i] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return texts


def bleu(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Corpus BLEU against all references of each example, by sacrebleu, 0 to 100."""
    import sacrebleu

    most = max(len(e.references) for e in examples)
    columns = [
        [e.references[k] if k < len(e.references) else None for e in examples] for k in range(most)
    ]
    return {"bleu": sacrebleu.corpus_bleu(list(outputs), columns).score}


def rouge(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean ROUGE-1, -2 and -L F1 (the best reference counts), by rouge-score, 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    scores = [scorer.score_multi(e.references, o) for o, e in zip(outputs, examples, strict=True)]
    return {kind: 100 * sum(s[kind].fmeasure for s in scores) / len(scores) for kind in kinds}


def sql(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Exact match and execution accuracy (the same rows on every database), 0 to 100."""
    from gumlab.tasks.sql import exact_match, same_result

    pairs = list(zip(outputs, examples, strict=True))
    exact = sum(exact_match(o, e.target) for o, e in pairs)
    same = sum(same_result(o, e.target, e.databases) for o, e in pairs)
    return {"execution": 100 * same / len(pairs), "exact_match": 100 * exact / len(pairs)}


METRICS: dict[str, Callable[[Sequence[str], Sequence[Example]], dict[str, float]]] = {
    "bleu": bleu,
    "rouge": rouge,
    "sql": sql,
}
MAIN_METRIC = {"bleu": "bleu", "rouge": "rougeL", "sql": "execution"}
