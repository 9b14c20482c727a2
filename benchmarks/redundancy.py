"""What `gl.redundancy` costs beside the bare work it needs: results/redundancy.md and .png.

    python benchmarks/redundancy.py

Three comparisons and a figure: all metrics against the passes, matrix products and factorisations
they need; reconstructability of all neurons at once against one least-squares fit per neuron; peak
memory against one Gram matrix per layer; how the seconds grow with tokens, width and layers. What
is compared takes turns in one process, so that a busy moment of the machine falls on all.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from grid import ROOT, made_by, markdown

import gumlab as gl
from gumlab import inspection
from gumlab.batches import batches, token_losses
from gumlab.plots.figure import BLUE, GREY, new_figure
from gumlab.statistics import Statistics, lifted

BUDGET, FASTER, AGREE = 1.5, 100, 1e-4  # of the ratio, of the speed-up, of the difference in R2
D, BATCH = 768, 16
BARE = ("passes", "products", "Cholesky", "eigenvalues")
PARTS = {  # what gl.redundancy calls: what the table says, and the bare work it is set against
    "collect": ("passes and Gram matrices", ["passes", "products"]),
    "unrebuilt": ("Cholesky and inverse, float64", ["Cholesky"]),
    "effective_rank": ("eigenvalues, float64", ["eigenvalues"]),
    "rest": ("the rest: cosines, twins, shares", []),
}


@dataclass(frozen=True)
class Size:
    """What is measured: examples of task restaurants, neurons a layer, layers."""

    examples: int = 256
    width: int = 3072
    layers: int = 2


TOKENS = [Size(n, layers=1) for n in (16, 32, 64, 128)]
WIDTHS = [Size(64, n, 1) for n in (512, 1024, 2048, 3072)]
LAYERS = [Size(64, 1024, n) for n in (1, 2, 4)]


def build(size: Size) -> tuple[Any, Any, list[Any]]:
    """A GPT-2 with random weights, a tokenizer of its vocabulary, and the examples."""
    from transformers import GPT2Config, GPT2LMHeadModel

    _, tokenizer = gl.load("tiny-gpt2", device="cpu")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=D, n_inner=size.width,
        n_layer=size.layers, n_head=12, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    examples = gl.load_task("restaurants").train[: size.examples]
    return GPT2LMHeadModel(config).eval(), tokenizer, examples


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def passes(model, tokenizer, examples) -> None:
    """Forward, and back as far as the first layer's neurons; no gradient of a weight."""
    seen: list[torch.Tensor] = []
    handles = [
        layer.fc[0].register_forward_hook(lambda *call: seen.append(call[2]))
        for layer in gl.neurons(model)
    ]
    for batch in batches(model, tokenizer, examples, BATCH):
        labels = batch.pop("labels")
        torch.autograd.grad(token_losses(model(**batch).logits, labels).sum(), seen)
        seen.clear()
    for handle in handles:
        handle.remove()


@torch.no_grad()
def activations(model, tokenizer, examples) -> list[torch.Tensor]:
    """H of each layer, (tokens, N), without padding."""
    found = defaultdict(list)
    handles = [
        layer.proj.register_forward_pre_hook(lambda _, x, i=i: found[i].append(x[0][real]))
        for i, layer in enumerate(gl.neurons(model))
    ]
    for batch in batches(model, tokenizer, examples, BATCH):
        real = batch.pop("attention_mask").bool()
        model(batch["input_ids"], attention_mask=real)
    for handle in handles:
        handle.remove()
    return [torch.cat(rows) for rows in found.values()]


def measured(model, tokenizer, examples) -> dict[str, float]:
    """Seconds of gl.redundancy and of its parts."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **options)
            spent[name] += time.perf_counter() - began
            return result

        return call

    inner = {name: timed(name, getattr(inspection, name)) for name in PARTS if name != "rest"}
    with mock.patch.multiple(inspection, **inner):
        whole = seconds(
            lambda: gl.redundancy(model, tokenizer, examples, limit=None, batch_size=BATCH)
        )
    return {**spent, "rest": whole - sum(spent.values()), "whole": whole}


def against_bare_work(size: Size, rounds: int) -> pd.DataFrame:
    """Seconds of gl.redundancy, of its parts and of the bare work (columns) by round."""
    model, tokenizer, examples = build(size)
    tensors = activations(model, tokenizer, examples)
    grams = [lifted(h.T @ h) for h in tensors]
    bare: list[Callable[[], Any]] = [
        lambda: passes(model, tokenizer, examples),
        lambda: [h.T @ h for h in tensors],
        lambda: [torch.cholesky_inverse(torch.linalg.cholesky(g)) for g in grams],
        lambda: [torch.linalg.eigvalsh(g) for g in grams],
    ]
    rows = []
    measured(model, tokenizer, examples[:BATCH])  # warms up
    for turn in range(rounds):
        row = {}
        for first in (turn % 2 == 0, turn % 2 == 1):  # each goes first in every other round
            if first:
                row |= {name: seconds(work) for name, work in zip(BARE, bare, strict=True)}
            else:
                row |= measured(model, tokenizer, examples)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(bare=table[list(BARE)].sum(axis=1), tokens=len(tensors[0]))


def against_lstsq(tokens: int, sample: int, rounds: int, ridge: float = 1e-12) -> pd.DataFrame:
    """By round: seconds of R2 of all neurons at once and of one fit, and the largest difference.

    H is of a layer of tiny-gpt-neo, float64; the sampled neurons are spread over the layer.
    """
    model, tokenizer = gl.load("tiny-gpt-neo", device="cpu")
    examples = gl.load_task("restaurants").train[: tokens // 32]
    h = activations(model, tokenizer, examples)[1][:tokens].double()
    chosen = np.linspace(0, h.shape[1] - 1, sample).astype(int)

    def at_once() -> np.ndarray:
        gram = h.T @ h
        found = Statistics(gram, *[torch.zeros(len(gram))] * 7, tokens=len(h))
        return inspection.reconstructability(found, ridge).numpy()

    def fit(i: int) -> float:
        others, target = np.delete(h.numpy(), i, axis=1), h[:, i].numpy()
        weights = np.linalg.lstsq(others, target, rcond=None)[0]
        return 1 - np.square(target - others @ weights).sum() / np.square(target).sum()

    rows = []
    for _ in range(rounds):
        results: list[Any] = []
        once = seconds(lambda r=results: r.append(at_once()))
        fits = seconds(lambda r=results: r.append([fit(i) for i in chosen]))
        difference = float(np.abs(results[0][chosen] - results[1]).max())
        rows.append({"once": once, "fits": fits * h.shape[1] / sample, "difference": difference})
    return pd.DataFrame(rows).assign(tokens=len(h), width=h.shape[1], sample=sample)


def peak_memory(size: Size) -> dict[str, float]:
    """Bytes beyond the loaded model, at most: of the passes alone and of gl.redundancy."""
    warnings.simplefilter("ignore")
    model, tokenizer, examples = build(size)
    loaded = high_water()
    passes(model, tokenizer, examples)
    passed = high_water()
    gl.redundancy(model, tokenizer, examples, limit=None, batch_size=BATCH)
    grams = size.layers * size.width**2 * 4  # float32
    marks = {"passes": passed - loaded, "redundancy": high_water() - loaded}
    return {"layers": size.layers, "grams": grams, **marks}


def high_water() -> int:
    """The most memory this process has held so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory(sizes: Sequence[Size]) -> pd.DataFrame:
    """`peak_memory` of each size in a fresh process. To be called while this one is still small:
    a new process's high-water mark starts at its parent's."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pd.DataFrame(pool.map(peak_memory, sizes, chunksize=1))


def growth(sizes: Iterable[Size], rounds: int) -> pd.DataFrame:
    """By size: tokens, and the median, least and most seconds of gl.redundancy."""
    built = {size: build(size) for size in sizes}  # a size of two panels is measured once
    times, tokens = defaultdict(list), {}
    for _ in range(rounds):
        for size, inputs in built.items():
            began = time.perf_counter()
            report = gl.redundancy(*inputs, limit=None, batch_size=BATCH)
            times[size].append(time.perf_counter() - began)
            tokens[size] = report.tokens
    rows = {
        size: {"tokens": tokens[size], "median": np.median(t), "least": min(t), "most": max(t)}
        for size, t in times.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def draw(found: pd.DataFrame, panels: Sequence[Sequence[Size]]) -> Any:
    """Seconds against tokens, width and layers; dashed: in proportion."""
    figure, axes = new_figure(len(panels), width=9.6, height=3.2)
    labels = ("tokens", "width N (neurons a layer)", "layers")
    for ax, label, sizes in zip(axes, labels, panels, strict=True):
        rows, last = found.loc[list(sizes)], sizes[-1]
        x = {"tokens": rows["tokens"], "layers": [s.layers for s in sizes]}.get(
            label, [s.width for s in sizes]
        )
        y, x = rows["median"].to_numpy(), np.array(x, dtype=float)
        bars = [y - rows["least"].to_numpy(), rows["most"].to_numpy() - y]
        ax.errorbar(x, y, bars, fmt="o-", color=BLUE, capsize=3, label="median, least to most")
        ax.plot(x, y[-1] * x / x[-1], "--", color=GREY, label="in proportion")
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.set_xticks(x, [f"{n:,.0f}" for n in x])
        ax.minorticks_off()
        fixed = {
            "tokens": f"{rows['tokens'].iloc[-1]:,} tokens",
            "width": f"N = {last.width:,}",
            "layers": f"{last.layers} layer" + "s" * (last.layers > 1),
        }
        ax.set_title(", ".join(v for k, v in fixed.items() if k != label.split()[0]), fontsize=9)
    axes[0].set_ylabel("gl.redundancy (seconds)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure
