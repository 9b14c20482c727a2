"""What a model costs: parameters, FLOPs, bytes, speed by batch size, peak memory."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, check_flag, check_list, check_whole
from gumlab.feedforward import is_linear, neurons
from gumlab.language import check_runs, distinct_parameters, language_config
from gumlab.offloading import check_resident
from gumlab.tasks.batches import context_length, evaluating, memory_guard

WARM_UP_TURNS = 3


def measure(
    model: nn.Module,
    *,
    latency: bool = True,
    batches: Sequence[int] = (1, 8),
    tokens: int = 128,
    decoded: int = 16,
    repeats: int = 12,
) -> dict[str, Any]:
    """What a model costs.

    FLOPs are two per weight of every linear map; attention's own products are left out.

    Parameters
    ----------
    model : nn.Module
        Read only.
    latency : bool
        Also time it: all of `compare`.
    batches, tokens, decoded, repeats
        As in `compare`.

    Returns
    -------
    dict
        "parameters", "neurons", "widths" by layer, "bytes" of the weights, "flops_per_token"; with
        `latency` what `compare` adds. They are those of the matrices that the model computes with:
        masks alone save nothing, so a gated model has the dense one's.
    """
    _check_timing(batches, tokens, decoded, repeats)
    if check_flag("latency", latency):
        models = {"model": model}
        costs = compare(models, batches=batches, tokens=tokens, decoded=decoded, repeats=repeats)
        return costs["model"]
    widths = [layer.width for layer in neurons(model)]
    linear_maps = [module for module in model.modules() if is_linear(module)]
    parameters = distinct_parameters(model)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "neurons": sum(widths),
        "widths": widths,
        "bytes": sum(p.numel() * p.element_size() for p in parameters),
        "flops_per_token": sum(2 * module.weight.numel() for module in linear_maps),
    }


def compare(
    models: Mapping[str, nn.Module],
    *,
    batches: Sequence[int] = (1, 8),
    tokens: int = 128,
    decoded: int = 16,
    repeats: int = 12,
) -> dict[str, dict[str, Any]]:
    """`measure` of several models, timed in turns.

    Parameters
    ----------
    models : mapping of str to nn.Module
        By the names they get in the result.
    batches : sequence of int
        Batch sizes.
    tokens, decoded : int
        Tokens of a prompt, and tokens written after it.
    repeats : int
        Timed turns of each model, 2 or more.

    Returns
    -------
    dict
        {name: costs}. To the costs of `measure` it adds "speed", a row for each batch size: medians
        and quartiles of prefill_ms and decode_tokens_per_s (see `turns`), and peak_bytes, the
        weights and the most that the tensors of one turn took beside them (by torch's allocator:
        what libraries take for themselves is left out). latency_ms is the prefill at the first
        batch size.

    Raises
    ------
    GumlabError
        For numbers below 1 (repeats: 2), and for a batch that does not fit into memory.
    """
    _check_timing(batches, tokens, decoded, repeats)
    _check_models(models)
    costs = {name: measure(model, latency=False) for name, model in models.items()}
    for row in costs.values():
        row["speed"] = []
    for batch in batches:
        with memory_guard(batch):
            timed = turns(models, batch=batch, tokens=tokens, decoded=decoded, repeats=repeats)
            for name, model in models.items():
                read, prefill, decode = zip(*timed[name], strict=True)
                speed = {
                    "batch": batch,
                    "tokens": read[0],
                    **spread("prefill_ms", prefill),
                    **spread("decode_tokens_per_s", decode),
                    "peak_bytes": _peak(model, batch, tokens, decoded),
                }
                costs[name]["speed"].append(speed)
    for row in costs.values():
        row["latency_ms"] = row["speed"][0]["prefill_ms"]
    return costs


def _check_timing(batches: Sequence[int], tokens: int, decoded: int, repeats: int) -> None:
    for batch in check_list("batches", batches, "batch sizes"):
        check_whole("batches", batch)
    check_whole("tokens", tokens)
    check_whole("decoded", decoded)
    check_whole("repeats", repeats, least=2)


def _check_models(models: Mapping[str, nn.Module]) -> None:
    if not isinstance(models, Mapping) or not models:
        raise GumlabError(
            f"models must be one or more models by their names; got {models!r:.60}. For one alone "
            "there is gumlab.measure(model)."
        )
    for model in models.values():
        if isinstance(model, nn.Module):
            check_resident(model, "Timing")
            check_runs(model)


def latencies(
    models: Mapping[str, nn.Module], *, batch: int = 1, tokens: int = 128, repeats: int = 20
) -> dict[str, float]:
    """Median milliseconds of a forward pass of (batch, tokens) for each model, in turns.

    Parameters
    ----------
    models, batch, tokens, repeats
        As in `turns`.

    Returns
    -------
    dict
        {name: milliseconds}.
    """
    _check_models(models)
    batch = check_whole("batch", batch)
    tokens = check_whole("tokens", tokens)
    repeats = check_whole("repeats", repeats)
    timed = turns(models, batch=batch, tokens=tokens, decoded=0, repeats=repeats)
    return {
        name: statistics.median(milliseconds for _, milliseconds, _ in rows)
        for name, rows in timed.items()
    }


def turns(
    models: Mapping[str, nn.Module], *, batch: int, tokens: int, decoded: int, repeats: int
) -> dict[str, list[tuple[int, float, float]]]:
    """Let models read and write in turns, and time each turn.

    The order is drawn anew each time, so that a busy moment of the machine falls on all of them:
    turn i of one model belongs to turn i of the others. In eval mode; the first turns, which warm
    up, are not counted.

    Parameters
    ----------
    models : mapping of str to nn.Module
        By name.
    batch, tokens, decoded : int
        Each model reads `batch` random prompts of `tokens` (fewer where the context is short), then
        writes `decoded` tokens to each, one a step, with its KV cache.
    repeats : int
        Counted turns of each model.

    Returns
    -------
    dict
        {name: rows}, a row a turn: prompt tokens, milliseconds of the prefill, tokens decoded per
        second.
    """
    return in_turns(models, repeats, lambda name: _turn(models[name], batch, tokens, decoded))


def in_turns(names: Iterable[str], repeats: int, run: Callable[[str], Any]) -> dict[str, list[Any]]:
    """What `run(name)` gives, `repeats` times for each name, in an order drawn anew each time.

    The first turns, which warm up, are not counted.
    """
    order = list(names)
    rows: dict[str, list[Any]] = {name: [] for name in order}
    draw = random.Random(0)
    for turn in range(WARM_UP_TURNS + repeats):
        draw.shuffle(order)
        for name in order:
            row = run(name)
            if turn >= WARM_UP_TURNS:
                rows[name].append(row)
    return rows


def why_little(dense: Mapping[str, Any], small: Mapping[str, Any]) -> str | None:
    """In words, why decoding at the first batch size gains little; None where it gains.

    Little is less than half of what is saved of the FLOPs and with them of the weights read: so
    most of the time is spent on neither.

    Parameters
    ----------
    dense, small : mapping
        Two models' costs from one `compare`.
    """
    saved = 1 - small["flops_per_token"] / dense["flops_per_token"]
    before = dense["speed"][0]
    after = small["speed"][0]
    gained = 1 - before["decode_tokens_per_s"] / after["decode_tokens_per_s"]  # of the time
    if saved <= 0 or gained >= saved / 2:
        return None
    return (
        f"{saved:.0%} of the arithmetic and of the weights to read are saved, but only "
        f"{max(gained, 0):.0%} of the time of a decoding step at batch {before['batch']}: about "
        f"{1 - max(gained, 0) / saved:.0%} of it goes into neither, but into calling the layers, "
        "attention and the cache. A larger batch shares the calls among more tokens."
    )


@torch.no_grad()
def _turn(model: nn.Module, batch: int, tokens: int, decoded: int) -> tuple[int, float, float]:
    """One turn's row; see `turns`."""
    context = context_length(model)
    decoded = min(decoded, context // 2)
    size = (batch, min(tokens, context - decoded))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, language_config(model).vocab_size, size, generator=generator)
    ids = ids.to(next(model.parameters()).device)
    with evaluating(model):
        began = _now(ids)
        out = model(ids, use_cache=True)  # whatever its config says
        read = _now(ids)
        for _ in range(decoded):
            chosen = out.logits[:, -1:].argmax(-1)  # (B, 1)
            out = model(chosen, past_key_values=out.past_key_values, use_cache=True)
        wrote = _now(ids)
    return size[1], 1000 * (read - began), batch * decoded / max(wrote - read, 1e-9)


def _peak(model: nn.Module, *turn: int) -> int:
    """Bytes of the weights and of the tensors alive at once in a turn."""
    weights = sum(t.nbytes for t in itertools.chain(model.parameters(), model.buffers()))
    device = next(model.parameters()).device
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _turn(model, *turn)
        return weights + torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would write lines to stderr
    with torch.autograd.profiler.profile(profile_memory=True, use_kineto=True) as seen:
        _turn(model, *turn)
    taken = [e.nbytes() for e in seen.kineto_results.events() if e.name() == "[memory]"]
    return weights + max(itertools.accumulate(taken))


def spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The median of some values under a name, and their quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {name: middle, f"{name}_quartiles": [low, high]}


def _now(on: Tensor) -> float:
    if on.is_cuda:
        torch.cuda.synchronize(on.device)
    return time.perf_counter()
