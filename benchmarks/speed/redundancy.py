"""What `gl.redundancy` costs beside the bare work it needs: results/redundancy.md and .png.

    python benchmarks/speed/redundancy.py

All metrics against the passes, matrix products and factorisations they need; reconstructability of
all neurons at once against one least-squares fit per neuron; peak memory against one Gram matrix
per layer; how the seconds grow with tokens, width and layers. What is compared takes turns in one
process, so that a busy moment of the machine falls on all.
"""

from __future__ import annotations

import cProfile
import inspect
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import numpy as np
import pandas as pd
import torch
from harness import seconds, spread

import gumlab as gl
from gumlab import inspection
from gumlab.collecting import Statistics
from gumlab.gram import lifted
from gumlab.tasks.batches import batches, token_losses

BUDGET = 1.5  # of the seconds of all metrics in those of the bare work
FASTER = 100  # than one fit per neuron
AGREE = 1e-4  # the difference in R2
BATCH = 16
D = 768
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
SMALL = Size(16, 64, 1)
QUICK = {"tokens": [SMALL, Size(32, 64, 1)], "width": [SMALL, Size(16, 128, 1)]}
PANELS = {  # a size of two panels is measured once
    "tokens": [Size(n, layers=1) for n in (16, 32, 64, 128)],
    "width": [Size(64, n, 1) for n in (512, 1024, 2048, 3072)],
    "layers": [Size(64, 1024, n) for n in (1, 2, 4)],
}


def build(size: Size) -> tuple[Any, Any, list[Any]]:
    """A GPT-2 with random weights, a tokenizer of its vocabulary, and the examples."""
    _, tokenizer = gl.load("tiny-gpt2", device="cpu")
    shape = harness.Shape("", D, size.width, size.layers, 12, len(tokenizer))
    examples = gl.load_task("restaurants").train[: size.examples]
    return harness.random_gpt2(shape, 128).eval(), tokenizer, examples


def redundancy(inputs: tuple[Any, Any, list[Any]]) -> Any:
    return gl.redundancy(*inputs, limit=None, batch_size=BATCH)


def passes(model: Any, tokenizer: Any, examples: list) -> None:
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


def activations(model: Any, tokenizer: Any, examples: list) -> list[torch.Tensor]:
    """H of each layer, (tokens, N), without padding."""
    heard = defaultdict(list)
    harness.hear(model, tokenizer, examples, lambda i, rows: heard[i].append(rows), BATCH)
    return [torch.cat(rows) for rows in heard.values()]


def profiled(inputs: tuple[Any, Any, list[Any]]) -> dict[str, float]:
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

    def run(name: str, _: int) -> dict[str, float]:
        if name == "gl.redundancy":
            return profiled(inputs)
        return {part: seconds(work) for part, work in bare.items()}

    profiled((*inputs[:2], inputs[2][:BATCH]))  # warms up
    turns = harness.in_turns(["bare work", "gl.redundancy"], rounds, run)
    both = [pd.DataFrame(rows) for rows in turns.values()]
    return pd.concat(both, axis=1).assign(tokens=len(tensors[0]))


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
        statistics = Statistics(gram, *[torch.zeros(len(gram))] * 7, tokens=len(h))
        return inspection.reconstructability(statistics, ridge).numpy()

    def fit(i: int) -> float:
        target = h[:, i].numpy()
        others = np.delete(h.numpy(), i, axis=1)
        weights = np.linalg.lstsq(others, target, rcond=None)[0]
        return 1 - np.square(target - others @ weights).sum() / np.square(target).sum()

    rows = []
    for _ in range(rounds):
        all_r2, together = harness.measured(at_once)
        fitted, apiece = harness.measured(lambda: [fit(i) for i in chosen])
        once = together["seconds"]
        fits = apiece["seconds"] * h.shape[1] / sample
        apart = np.abs(all_r2[chosen] - fitted).max()
        rows.append({"once": once, "fits": fits, "faster": fits / once, "apart": apart})
    return pd.DataFrame(rows).assign(tokens=len(h), width=h.shape[1], sample=sample)


def peak_memory(size: Size) -> dict[str, float]:
    """MB beyond the loaded model, at most: of the passes alone, and of gl.redundancy.

    For a fresh process: what an earlier work has held and freed would count as loaded.
    """
    inputs = build(size)
    loaded = harness.high_water()
    passes(*inputs)
    after_passes = harness.high_water()
    redundancy(inputs)
    grams = size.layers * size.width**2 * 4 / 1e6  # float32
    return {
        "layers": size.layers,
        "grams": grams,
        "passes": after_passes - loaded,
        "all": harness.high_water() - loaded,
    }


def growth(panels: Mapping[str, Sequence[Size]], rounds: int) -> pd.DataFrame:
    """One row per size: tokens, width, layers; median, least and most seconds of gl.redundancy."""
    sizes = list(dict.fromkeys(size for panel in panels.values() for size in panel))
    inputs = {size: build(size) for size in sizes}
    tokens = {}

    def run(size: Size, _: int) -> float:
        return seconds(lambda: tokens.update({size: redundancy(inputs[size]).tokens}))

    times = pd.DataFrame(harness.in_turns(sizes, rounds, run).values(), index=sizes)
    rows = pd.DataFrame([asdict(size) | {"tokens": tokens[size]} for size in sizes], index=sizes)
    return rows.assign(median=times.median(axis=1), least=times.min(axis=1), most=times.max(axis=1))


def draw(grown: pd.DataFrame, panels: Mapping[str, Sequence[Size]]) -> Any:
    """Seconds against tokens, width and layers; dashed: in proportion."""
    from matplotlib.ticker import LogLocator

    from gumlab.course.plots.figure import BLUE, GREY, new_figure

    figure, axes = new_figure(len(panels), width=9.6, height=3.2)
    for ax, (name, sizes) in zip(axes, panels.items(), strict=True):
        rows = grown.loc[sizes]
        x = rows[name]
        y = rows["median"]
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


def bare_text(size: Size, times: pd.DataFrame) -> str:
    rows = []
    for part, (label, needed) in PARTS.items():
        bare = times[needed].sum(axis=1)
        share = (times[part] / times["whole"]).median()
        rows.append(
            {
                "part": label,
                "bare work, s": spread(bare) if needed else "",
                "gl.redundancy, s": spread(times[part]),
                "ratio": spread(times[part] / bare) if needed else "",
                "share of its time": f"{share:.1%}",
            }
        )
    ratio = times["whole"] / times[PARTS["whole"][1]].sum(axis=1)
    good = ratio.median() <= BUDGET
    return f"""## All metrics against the bare work

Layers of GPT-2-small shape (d = {D}, {size.width:,} neurons), {size.layers} of them, and a smaller
vocabulary than GPT-2's, so that it fits the time: the ratio is per layer.
{times["tokens"].iloc[0]:,} tokens of {size.examples} examples, {len(times)} rounds. Bare work, on
the same tensors: the same batches forward, and back to the first layer's neurons
({times["passes"].median():.2f} s); one product H^T H a layer ({times["products"].median():.2f} s);
one Cholesky factorisation and inverse a layer; one eigvalsh a layer.

{harness.markdown(rows)}
The budget is a ratio of at most {BUDGET}: {"kept" if good else "exceeded"}.
"""


def lstsq_text(fits: pd.DataFrame) -> str:
    first = fits.iloc[0]
    apart = fits["apart"].max()
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


def memory_text(marks: Sequence[Mapping[str, float]], width: int) -> str:
    rows = [
        {
            "layers": mark["layers"],
            "a Gram matrix per layer, MB": f"{mark['grams']:.0f}",
            "passes alone, MB": f"{mark['passes']:.0f}",
            "gl.redundancy, MB": f"{mark['all']:.0f}",
            "in Gram matrices of all layers": f"{mark['all'] / mark['grams']:.1f}",
        }
        for mark in marks
    ]
    return f"""## Peak memory

Beyond the loaded model, {width:,} neurons a layer: how far the process's high-water mark
(VmHWM) rises, each row in a fresh process. Gram matrices in float32.

{harness.markdown(rows)}
The peak is the higher of two: the passes' activations beside the Gram matrices of all layers, or
one layer's factorisation in float64 beside the Gram matrices and cosines of all layers.
"""


def main() -> None:
    harness.answer(lambda size: peak_memory(Size(**size)))
    args = harness.parsed(harness.options(__doc__, rounds=5))
    whole, memory, panels = (SMALL, [SMALL], QUICK) if args.quick else (WHOLE, MEMORY, PANELS)
    marks = [harness.child(__file__, asdict(size)) for size in memory]
    few = args.rounds // 2 + 1
    times = against_bare_work(whole, args.rounds)
    fits = against_lstsq(*(512, 2) if args.quick else (4096, 16), few)
    harness.save_figure(args, "redundancy.png", draw(growth(panels, few), panels))
    text = f"""# What measuring redundancy costs

{harness.made_by(args.command)} {torch.get_num_threads()} threads. Medians over the
rounds, quartiles in brackets; ratios are taken within a round.

{bare_text(whole, times)}
{lstsq_text(fits)}
{memory_text(marks, memory[0].width)}
## Growth

Seconds of gl.redundancy, {few} rounds.

![Seconds against tokens, width and layers](redundancy.png)
"""
    harness.write(args, "redundancy.md", text)


if __name__ == "__main__":
    main()
