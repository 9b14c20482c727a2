"""What `gl.redundancy` costs beside the bare work it needs: results/redundancy.md and .png.

    python benchmarks/redundancy.py

All metrics against the passes, matrix products and factorisations they need; reconstructability of
all neurons at once against one least-squares fit per neuron; peak memory against one Gram matrix
per layer; how the seconds grow with tokens, width and layers. What is compared takes turns in one
process, so that a busy moment of the machine falls on all.
"""

from __future__ import annotations

import cProfile
import inspect
import multiprocessing
import resource
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from grid import ROOT, made_by, markdown
from matplotlib.ticker import LogLocator

import gumlab as gl
from gumlab import inspection
from gumlab.collecting import Statistics
from gumlab.course.plots.figure import BLUE, GREY, new_figure
from gumlab.gram import lifted
from gumlab.tasks.batches import batches, token_losses

BUDGET, FASTER, AGREE = 1.5, 100, 1e-4  # of the ratio, of the speed-up, of the difference in R2
D, BATCH = 768, 16
PARTS = {  # what gl.redundancy calls, in words, and the bare work it is set against
    "collect": ("passes and Gram matrices", ["passes", "products"]),
    "unrebuilt": ("Cholesky and inverse, float64", ["Cholesky"]),
    "effective_rank": ("eigenvalues, float64", ["eigenvalues"]),
    "rest": ("the rest: cosines, twins, R2", []),
    "whole": ("all", ["passes", "products", "Cholesky", "eigenvalues"]),
}


@dataclass(frozen=True)
class Size:
    """What is measured: examples of task restaurants, neurons a layer, layers."""

    examples: int = 128
    width: int = 3072
    layers: int = 2


WHOLE = Size()
MEMORY = [Size(32, layers=n) for n in (1, 4)]
PANELS = {  # a size of two panels is measured once
    "tokens": [Size(n, layers=1) for n in (16, 32, 64, 128)],
    "width": [Size(64, n, 1) for n in (512, 1024, 2048, 3072)],
    "layers": [Size(64, 1024, n) for n in (1, 2, 4)],
}


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


def redundancy(inputs: tuple[Any, Any, list[Any]]) -> Any:
    return gl.redundancy(*inputs, limit=None, batch_size=BATCH)


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
        real = batch["attention_mask"].bool()
        model(batch["input_ids"], attention_mask=batch["attention_mask"])
    for handle in handles:
        handle.remove()
    return [torch.cat(rows) for rows in found.values()]


def measured(inputs: tuple[Any, Any, list[Any]]) -> dict[str, float]:
    """Seconds of gl.redundancy and of its parts, by the profiler (which adds a little to both)."""
    profile = cProfile.Profile()
    whole = seconds(lambda: profile.runcall(redundancy, inputs))
    times = {entry.code: entry.totaltime for entry in profile.getstats()}
    parts = {name: inspect.unwrap(getattr(inspection, name)).__code__ for name in list(PARTS)[:3]}
    spent = {name: times[code] for name, code in parts.items()}
    return {**spent, "rest": whole - sum(spent.values()), "whole": whole}


def against_bare_work(size: Size, rounds: int) -> pd.DataFrame:
    """Seconds of gl.redundancy, of its parts and of the bare work (columns) by round."""
    inputs = build(size)
    tensors = activations(*inputs)
    grams = [lifted(h.T @ h) for h in tensors]
    bare = {
        "passes": lambda: passes(*inputs),
        "products": lambda: [h.T @ h for h in tensors],
        "Cholesky": lambda: [torch.cholesky_inverse(torch.linalg.cholesky(g)) for g in grams],
        "eigenvalues": lambda: [torch.linalg.eigvalsh(g) for g in grams],
    }
    turns = [lambda: {k: seconds(work) for k, work in bare.items()}, lambda: measured(inputs)]
    measured((*inputs[:2], inputs[2][:BATCH]))  # warms up
    rows = []
    for _ in range(rounds):
        rows.append(turns[0]() | turns[1]())
        turns.reverse()  # each goes first in every other round
    return pd.DataFrame(rows).assign(tokens=len(tensors[0]))


def against_lstsq(tokens: int, sample: int, rounds: int, ridge: float = 1e-12) -> pd.DataFrame:
    """By round: seconds of R2 of all neurons at once and by one fit each, largest difference.

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
        r2: list[Any] = []
        once = seconds(lambda r2=r2: r2.append(at_once()))
        fits = seconds(lambda r2=r2: r2.append([fit(i) for i in chosen])) * h.shape[1] / sample
        apart = np.abs(r2[0][chosen] - r2[1]).max()
        rows.append({"once": once, "fits": fits, "faster": fits / once, "apart": apart})
    return pd.DataFrame(rows).assign(tokens=len(h), width=h.shape[1], sample=sample)


def peak_memory(size: Size) -> dict[str, float]:
    """Bytes beyond the loaded model, at most: of the passes alone, and of gl.redundancy.

    For a fresh process of a small parent: its high-water mark starts at the parent's.
    """

    def high_water() -> int:  # the most this process has held so far
        unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    inputs = build(size)
    loaded = high_water()
    passes(*inputs)
    marks = {"layers": size.layers, "passes": high_water() - loaded}
    redundancy(inputs)
    grams = size.layers * size.width**2 * 4  # float32
    return {**marks, "all": high_water() - loaded, "grams": grams}


def growth(panels: Mapping[str, Sequence[Size]], rounds: int) -> pd.DataFrame:
    """One row per size: tokens, width, layers; median, least and most seconds of gl.redundancy."""
    built = {size: build(size) for sizes in panels.values() for size in sizes}
    times, tokens = defaultdict(list), {}
    for _ in range(rounds):
        for size, inputs in built.items():
            spent = seconds(lambda i=inputs, s=size: tokens.update({s: redundancy(i).tokens}))
            times[size].append(spent)
    t = np.array(list(times.values()))  # (sizes, rounds)
    found = pd.DataFrame([asdict(size) | {"tokens": tokens[size]} for size in times], list(times))
    return found.assign(median=np.median(t, axis=1), least=t.min(axis=1), most=t.max(axis=1))


def draw(found: pd.DataFrame, panels: Mapping[str, Sequence[Size]]) -> Any:
    """Seconds against tokens, width and layers; dashed: in proportion."""
    figure, axes = new_figure(len(panels), width=9.6, height=3.2)
    for ax, (name, sizes) in zip(axes, panels.items(), strict=True):
        rows = found.loc[sizes]
        x, y = rows[name], rows["median"]
        bars = [y - rows["least"], rows["most"] - y]
        ax.errorbar(x, y, bars, fmt="o-", color=BLUE, capsize=3, label="median, least to most")
        ax.plot(x, y.iloc[-1] * x / x.iloc[-1], "--", color=GREY, label="in proportion")
        ax.set(xscale="log", yscale="log", ylabel="gl.redundancy (seconds)")
        ax.set_xlabel("width (neurons a layer)" if name == "width" else name)
        ax.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_xticks(x, [f"{n:,}" for n in x])
        others = [f"{other} {rows[other].iloc[-1]:,}" for other in panels if other != name]
        ax.set_title(", ".join(others), fontsize=9)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def spread(values: pd.Series, digits: str = ".2f") -> str:
    """Median and quartiles as text."""
    low, mid, high = values.quantile([0.25, 0.5, 0.75])
    return f"{mid:{digits}} ({low:{digits}} to {high:{digits}})"


def bare_text(size: Size, times: pd.DataFrame) -> str:
    rows, ratios = [], {}
    for part, (label, needed) in PARTS.items():
        bare = times[needed].sum(axis=1)
        ratios[part] = times[part] / bare
        row = {"part": label, "bare work, s": spread(bare), "gl.redundancy, s": spread(times[part])}
        row |= {"ratio": spread(ratios[part])} if needed else {"bare work, s": ""}
        share = (times[part] / times["whole"]).median()
        rows.append(row | {"share of its time": f"{share:.1%}"})
    good = ratios["whole"].median() <= BUDGET
    return f"""## All metrics against the bare work

Layers of GPT-2-small shape (d = {D}, {size.width:,} neurons), {size.layers} of them, and a smaller
vocabulary than GPT-2's, so that it fits the time: the ratio is per layer.
{times["tokens"].iloc[0]:,} tokens of {size.examples} examples, {len(times)} rounds. Bare work, on
the same tensors: the same batches forward, and back to the first layer's neurons
({times["passes"].median():.2f} s); one product H^T H a layer ({times["products"].median():.2f} s);
one Cholesky factorisation and inverse a layer; one eigvalsh a layer.

{markdown(rows)}
The budget is a ratio of at most {BUDGET}: {"kept" if good else "exceeded"}.
"""


def lstsq_text(fits: pd.DataFrame) -> str:
    first, apart = fits.iloc[0], fits["apart"].max()
    good = fits["faster"].median() >= FASTER and apart <= AGREE
    return f"""## Reconstructability: all at once, or one fit per neuron

A layer of tiny-gpt-neo: {first["width"]:,.0f} neurons, {first["tokens"]:,.0f} tokens of task
restaurants, float64, {len(fits)} rounds. All at once, forming the Gram matrix included:
{spread(1000 * fits["once"], ".0f")} ms. One numpy.linalg.lstsq per neuron:
{spread(fits["fits"], ".0f")} s, extrapolated from {first["sample"]:.0f} neurons. That is
{spread(fits["faster"], ",.0f")} times faster, and the largest difference in R2 is {apart:.1e}.

The budget is {FASTER} times faster and no more than {AGREE:.0e} apart:
{"kept" if good else "missed"}.
"""


def memory_text(marks: pd.DataFrame, width: int) -> str:
    names = {"grams": "a Gram matrix per layer", "passes": "passes alone", "all": "gl.redundancy"}
    rows = [
        {"layers": f"{m['layers']:.0f}"}
        | {f"{name}, MB": f"{m[key] / 1e6:.0f}" for key, name in names.items()}
        | {"in Gram matrices of all layers": f"{m['all'] / m['grams']:.1f}"}
        for _, m in marks.iterrows()
    ]
    return f"""## Peak memory

Beyond the loaded model, {width:,} neurons a layer: how far the process's high-water mark
(ru_maxrss) rises, each row in a fresh process. Gram matrices in float32.

{markdown(rows)}
The peak is the higher of two: the passes' activations beside the Gram matrices of all layers, or
one layer's factorisation in float64 beside the Gram matrices and cosines of all layers.
"""


def main(
    folder: Path = ROOT / "results",
    size: Size = WHOLE,
    memory: Sequence[Size] = MEMORY,
    panels: Mapping[str, Sequence[Size]] = PANELS,
    rounds: int = 5,
) -> None:
    warnings.simplefilter("ignore")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        marks = pd.DataFrame(fresh.map(peak_memory, memory, chunksize=1))
    few = rounds // 2 + 1
    times, fits = against_bare_work(size, rounds), against_lstsq(4096, 16, few)
    draw(growth(panels, few), panels).savefig(
        folder / "redundancy.png", dpi=100, metadata={"Software": None}
    )
    text = f"""# What measuring redundancy costs

{made_by("python benchmarks/redundancy.py")} {torch.get_num_threads()} threads. Medians over the
rounds, quartiles in brackets; ratios are taken within a round.

{bare_text(size, times)}
{lstsq_text(fits)}
{memory_text(marks, memory[0].width)}
## Growth

Seconds of gl.redundancy, {few} rounds.

![Seconds against tokens, width and layers](redundancy.png)
"""
    (folder / "redundancy.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
