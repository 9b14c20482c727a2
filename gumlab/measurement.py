"""What a model costs: parameters, FLOPs, bytes, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gumlab.batches import context_length, evaluating
from gumlab.feedforward import is_linear, neurons


def measure(model: nn.Module, *, latency: bool = True) -> dict[str, Any]:
    """Parameters, neurons, widths, bytes, FLOPs per token, latency of 128 tokens in milliseconds.

    FLOPs are two per weight of every linear map; attention's own products are left out.
    """
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "neurons": sum(layer.width for layer in neurons(model)),
        "widths": [layer.width for layer in neurons(model)],
        "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "flops_per_token": sum(2 * m.weight.numel() for m in model.modules() if is_linear(m)),
    }
    if latency:
        result["latency_ms"] = latencies({"model": model})["model"]
    return result


@torch.no_grad()
def latencies(
    models: Mapping[str, nn.Module], *, batch: int = 1, tokens: int = 128, repeats: int = 20
) -> dict[str, float]:
    """Median milliseconds of a forward pass of (batch, tokens) for each model, interleaved.

    In eval mode; shorter where the context is. The models take turns, so that a busy moment of
    the machine falls on all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    inputs = {name: _tokens(model, batch, tokens) for name, model in models.items()}
    with evaluating(*models.values()):
        for turn in range(repeats + 3):  # the first three turns warm up
            for name, model in models.items():
                _wait(model)
                began = time.perf_counter()
                model(inputs[name])
                _wait(model)
                if turn >= 3:
                    times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(t) for name, t in times.items()}


def _tokens(model: nn.Module, batch: int, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens = min(tokens, context_length(model))
    ids = torch.randint(0, model.config.vocab_size, (batch, tokens), generator=generator)
    return ids.to(next(model.parameters()).device)


def _wait(model: nn.Module) -> None:
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
