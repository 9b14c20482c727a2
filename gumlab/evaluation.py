"""How good a model is: loss, perplexity, BLEU, ROUGE, exact match, execution accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, check_choice, check_whole, unknown, warn_caller
from gumlab.language import check_head
from gumlab.offloading import device_of
from gumlab.progress import shown
from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks.batches import (
    BLOCK,
    IGNORED,
    Row,
    as_examples,
    batches,
    by_itself,
    check_loss,
    collated,
    context_length,
    evaluating,
    is_running_text,
    memory_guard,
    token_losses,
    token_stream,
    tokens_of,
)


@by_itself(casts=True)
def evaluate(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    split: str = "test",
    *,
    limit: int | None = None,
    generated: int | None = 200,
    batch_size: int = 50,
    beams: int = 1,
    stride: int | None = None,
) -> dict[str, float]:
    """Loss (mean per target token), perplexity, and the task's metric on generated texts.

    Parameters
    ----------
    model, tokenizer, task
        The model comes back in the mode it was in.
    split : str
        A task without a test split is evaluated on validation, with a warning.
    limit : int, optional
        How many of the first examples are used for the loss; by default all.
    generated : int, optional
        How many of the first examples are generated for the metric; None: all, 0: none, which
        leaves the metric out.
    batch_size : int
        Sequences at a time.
    beams : int
        1 is greedy, more is beam search.
    stride : int, optional
        Of running text, which is scored as a whole (`text_loss`): tokens from one window to the
        next; by default half the context.

    Returns
    -------
    dict
        "loss" in nats, "perplexity", and the metric's columns; of running text also "context" and
        "stride".

    Raises
    ------
    GumlabError
        For a split that is not there, an unknown metric, or a stride without running text. Prompts
        that had to be cut are counted in a warning.
    """
    check_head(model)
    if not isinstance(task, Task):
        raise GumlabError(
            f"evaluate takes a task, got {type(task).__name__}: gumlab.load_task(...), or "
            'gumlab.tasks.Task("mine", "bleu", test=examples).'
        )
    check_choice("split", split, SPLITS)
    limit = _whole_or_none("limit", limit)
    generated = _whole_or_none("generated", generated, least=0)
    stride = _whole_or_none("stride", stride)
    batch_size = check_whole("batch_size", batch_size)
    beams = check_whole("beams", beams)
    if beams > 1 and generated == 0:
        raise GumlabError("beams would change nothing: with generated=0 nothing is written.")
    if split == "test" and not task.test and task.validation:
        split = "validation"
        message = f"Task {task.name!r} has no test split; this is validation."
        warn_caller(message)
    if task.metric not in MAIN_METRIC:
        raise unknown("metric", task.metric, MAIN_METRIC)
    examples = task.split(split)[:limit]
    if generated != 0:
        check_judged(task, examples[:generated])
    with memory_guard(batch_size):
        if is_running_text(examples):
            return text_loss(model, tokenizer, examples, batch_size, stride=stride)
        if stride is not None:
            raise GumlabError(f"stride is for running text; task {task.name!r} has prompts.")
        loss = mean_target_loss(model, tokenizer, examples, batch_size)
        result = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if generated != 0 and task.metric in METRICS:
            examples = examples[:generated]
            texts = generate(model, tokenizer, examples, batch_size, beams=beams)
            result.update(METRICS[task.metric](texts, examples))
    return result


def check_judged(task: Task, examples: Sequence[Example]) -> None:
    """Raise GumlabError for targets that the task's metric cannot judge."""
    if task.metric == "sql" and not all(example.databases for example in examples):
        raise GumlabError(
            f"Metric 'sql' runs the queries, and examples of task {task.name!r} have no databases. "
            "Give each its databases, or take another metric: "
            'load_task(..., metric="bleu").'
        )
    if task.metric == "logical_form":
        from gumlab.tasks.wikisql import logical_form

        for example in examples:
            if logical_form(example.target) is None:
                raise GumlabError(
                    "Metric 'logical_form' compares queries of WikiSQL's form, and "
                    f"{example.target!r:.60}, a target of task {task.name!r}, is none. Take "
                    'another metric: load_task(..., metric="bleu").'
                )


def _whole_or_none(name: str, value: Any, least: int = 1) -> int | None:
    return None if value is None else check_whole(name, value, least)


def windows(ids: Sequence[int], context: int, stride: int) -> list[Row]:
    """Windows over running text that predict every token but the very first, and each once.

    The first predicts all of its own, a later one those past the window before it: each from at
    least context - stride others.

    Parameters
    ----------
    ids : sequence of int
        The text's tokens.
    context : int
        Tokens of a window.
    stride : int
        Tokens from the start of one window to that of the next.

    Returns
    -------
    list of (token ids, how many of them are not to be predicted)

    Raises
    ------
    GumlabError
        For a stride that would leave a token without a window.
    """
    context = check_whole("context", context)
    stride = check_whole("stride", stride)
    if not 1 <= stride < context:
        raise GumlabError(f"stride must be 1 to {context - 1}, less than a window; got {stride}.")
    count = 1 + max(0, -((context - len(ids)) // stride))
    starts = [i * stride for i in range(count)]
    return [(list(ids[s : s + context]), context - stride if s else 1) for s in starts]


@by_itself(casts=True)
def text_loss(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    batch_size: int = 50,
    *,
    stride: int | None = None,
) -> dict[str, float]:
    """Loss and perplexity of running text as one stream of tokens, and the context and stride.

    Every token but the first is predicted once, from those before it in its window of `context`
    tokens (the model's, at most BLOCK; see `windows`); no end of text is added. The numbers depend
    on the tokenizer, the context and the stride, and not on the batch size.

    Parameters
    ----------
    model, tokenizer, examples, batch_size, stride
        As in `evaluate`.

    Returns
    -------
    dict
        "loss" in nats per token, "perplexity", "context" and "stride" in tokens.
    """
    batch_size = check_whole("batch_size", batch_size)
    context = min(context_length(model), BLOCK)
    stride = context // 2 if stride is None else stride
    rows = windows(token_stream(tokenizer, as_examples(examples)), context, stride)
    size = min(batch_size, max(1, 4096 // context))  # windows are long: no more tokens at a time
    loss = _mean_loss(model, collated(model, rows, size))
    perplexity = math.exp(min(loss, 700.0))
    return {"loss": loss, "perplexity": perplexity, "context": context, "stride": stride}


@by_itself(casts=True)
def mean_target_loss(
    model: nn.Module, tokenizer: Any, examples: Sequence[Example], batch_size: int = 50
) -> float:
    """Cross entropy per target token over all examples together, in nats."""
    return _mean_loss(model, batches(model, tokenizer, examples, batch_size))


@torch.no_grad()
def _mean_loss(model: nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> float:
    total = 0.0
    count = 0.0
    with evaluating(model):
        for batch in shown(list(batches), "loss", "batch"):
            labels = batch.pop("labels")
            total += token_losses(model(**batch).logits, labels).sum().item()
            count += (labels[:, 1:] != IGNORED).sum().item()
    return check_loss(total) / count


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Example],
    batch_size: int = 50,
    *,
    beams: int = 1,
) -> list[str]:
    """What the model writes after each prompt, end of text excluded.

    At most 1.5 x the longest reference is generated; after a prompt that leaves less room, the
    largest quarter of the context that fits. Padding is on the left; a text does not depend on its
    batch.

    Parameters
    ----------
    model, tokenizer
        The model comes back in the mode it was in.
    examples : sequence of Example
        With prompts. Those longer than 3/4 of the context are cut from the left, and a warning
        counts them.
    batch_size : int
        Prompts at a time.
    beams : int
        1 is greedy, more is beam search.

    Returns
    -------
    list of str
        One text per example, in order.

    Raises
    ------
    GumlabError
        Where there are no prompts.
    """
    check_head(model)
    batch_size = check_whole("batch_size", batch_size)
    beams = check_whole("beams", beams)
    examples = as_examples(examples) if examples else []
    if not all(e.prompt for e in examples) or not examples:
        what = "Running text has no prompts" if examples else "There are no prompts"
        raise GumlabError(f"{what} to generate from; expected one or more.")
    context = context_length(model)
    rooms = _rooms(tokenizer, examples, context)
    prompts = tokens_of(tokenizer, [e.prompt for e in examples], True)
    longest = context - rooms[-1]
    too_long = sum(len(prompt) > longest for prompt in prompts)
    if too_long:
        warn_caller(
            f"{too_long} of {len(prompts)} prompts are longer than {longest} tokens; they were cut "
            "from the left to leave room for what is generated."
        )
    prompts = [prompt[-longest:] for prompt in prompts]
    room_of = [next(r for r in rooms if len(prompt) + r <= context) for prompt in prompts]
    longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts = [""] * len(examples)
    for room in rooms:
        group = [i for i in longest_first if room_of[i] == room]
        for start in shown(range(0, len(group), batch_size), "generation", "batch"):
            chosen = group[start : start + batch_size]
            answers = _answers(model, tokenizer, [prompts[i] for i in chosen], room, beams)
            for i, answer in zip(chosen, answers, strict=True):
                texts[i] = answer
    return texts


def _rooms(tokenizer: Any, examples: Sequence[Example], context: int) -> list[int]:
    """How many tokens may be generated, largest first: what is wanted, or a quarter that fits."""
    references = [" " + reference for e in examples for reference in e.references]
    longest_reference = max(map(len, tokens_of(tokenizer, references)))
    wanted = int(1.5 * longest_reference) + 2
    return sorted({min(wanted, quarters * context // 4) for quarters in (1, 2, 3)}, reverse=True)


def _answers(
    model: nn.Module, tokenizer: Any, prompts: Sequence[list[int]], room: int, beams: int
) -> list[str]:
    """What the model writes after prompts of one batch, longest first."""
    size = len(prompts[0])
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id
    embeddings = model.get_input_embeddings()
    if pad is None or pad >= embeddings.num_embeddings:  # added, and the model not resized
        pad = tokenizer.eos_token_id  # masked, so any token serves
    rows = [[pad] * (size - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (size - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = device_of(model)
    plain = GenerationConfig(
        max_new_tokens=room,
        do_sample=False,
        num_beams=beams,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
    )
    with evaluating(model), _generating_by(model, plain):
        written = model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
        )
    return [
        tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in written[:, size:]
    ]


@contextmanager
def _generating_by(model: nn.Module, settings: Any) -> Iterator[None]:
    """The model generates by these settings alone, whatever its checkpoint asks for."""
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


def bleu(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Corpus BLEU against all references of each example, by sacrebleu, 0 to 100."""
    import sacrebleu

    most = max(len(e.references) for e in examples)
    columns: list[list[Any]] = []  # the first reference of every example, the second, ...
    for k in range(most):
        columns.append([e.references[k] if k < len(e.references) else None for e in examples])
    return {"bleu": sacrebleu.corpus_bleu(list(outputs), columns).score}


def rouge(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Mean ROUGE-1, -2 and -L F1 (the best reference counts), by rouge-score, 0 to 100."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    scores = [scorer.score_multi(e.references, o) for o, e in zip(outputs, examples, strict=True)]
    return {kind: 100 * sum(s[kind].fmeasure for s in scores) / len(scores) for kind in kinds}


def sql_accuracy(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Exact match and execution accuracy (the same rows on every database), 0 to 100."""
    from gumlab.tasks.sql import exact_match, same_result

    pairs = list(zip(outputs, examples, strict=True))
    exact = sum(exact_match(o, e.target) for o, e in pairs)
    same = sum(same_result(o, e.target, e.databases) for o, e in pairs)
    return {"execution": 100 * same / len(pairs), "exact_match": 100 * exact / len(pairs)}


def logical_form_accuracy(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Same logical form (see `tasks.wikisql`), and, where every example has its table filled,
    execution accuracy: queries of the form that get the target's rows; 0 to 100."""
    from gumlab.tasks.wikisql import executes_alike, logical_form

    pairs = list(zip(outputs, examples, strict=True))
    # a target is of the form, so None (text that is not) is never equal to it
    same = {"logical_form": sum(logical_form(o) == logical_form(e.target) for o, e in pairs)}
    if all(e.databases for e in examples):
        same["execution"] = sum(executes_alike(o, e) for o, e in pairs)
    return {name: 100 * count / len(pairs) for name, count in same.items()}


METRICS: dict[str, Callable[[Sequence[str], Sequence[Example]], dict[str, float]]] = {
    "bleu": bleu,
    "rouge": rouge,
    "sql": sql_accuracy,
    "logical_form": logical_form_accuracy,
}
# of every metric, the column that tables show
MAIN_METRIC = {
    "bleu": "bleu",
    "rouge": "rougeL",
    "sql": "execution",
    "logical_form": "logical_form",
    "perplexity": "perplexity",
}
