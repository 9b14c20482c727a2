"""What a pruning step costs beside a dense step, and what GUM's sampling loses: results/step.md.

    python benchmarks/step.py

One process, one model of GPT-2-small layer shapes (d = 768, 3,072 neurons; 2 layers, batch 8 x 128,
vocabulary 1,024). The methods take turns, 8 steps each (one refresh of GUM's similarity), in the
middle of the schedule, where every method does all its work; each round begins with the next one.
A ratio is taken within a round; the table gives the median over the rounds and the quartiles. glibc
is told to keep the memory that is freed: else the page faults of its return, which come and go with
what the heap looks like, blur the ratios by one or two hundredths.

Rank agreement: Spearman's correlation of GUM's running mean |cosine| with the exact one, taken from
1,024 training examples, in every layer of tiny-gpt-neo on restaurants at every tenth of a run,
until the masks freeze.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from grid import two_layers

import gumlab as gl
from gumlab.collecting import RunningGrams
from gumlab.feedforward import FeedForward, neurons
from gumlab.scoring import mean_similarity
from gumlab.tasks.batches import batches, evaluating

ROOT = Path(__file__).parents[1]
CONTENDERS = {
    "dense": None,
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement, local": ("movement", {}),
    "movement, global": ("movement", {"scope": "global"}),
    "movement, global, gate": ("movement", {"scope": "global", "gradient": "gate"}),
    "soft movement": ("soft_movement", {}),
    "GUM": ("gum", {}),
    "GUM, gate": ("gum", {"gradient": "gate"}),
}
SAMPLED = {  # other settings of GUM's similarity than the default: every 8 steps, 1/4, memory 0.8
    "GUM, every 2 steps, 1/8 of the tokens, memory 0.8": (2, 1 / 8, 0.8),
    "GUM, every step, 1/16 of the tokens, memory 0.8": (1, 1 / 16, 0.8),
    "GUM, every step, 1/8 of the tokens, memory 0.8": (1, 1 / 8, 0.8),
    "GUM, every step, 1/4 of the tokens, memory 0.8": (1, 1 / 4, 0.8),
    "GUM, every step, all tokens, memory 0.8": (1, 1.0, 0.8),
    "GUM, every step, all tokens, memory 0.001 (reference code)": (1, 1.0, 0.001),
}
NAMES = ("gram_every", "gram_tokens", "gram_memory")
CONTENDERS |= {
    label: ("gum", dict(zip(NAMES, values, strict=True))) for label, values in SAMPLED.items()
}


def keep_freed_memory() -> None:
    """Tell glibc, where there is one, to keep it for the next allocation."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def step_times(rounds: int, steps: int = 8) -> pd.DataFrame:
    """Seconds of one step of each contender (columns) in each round (rows)."""
    torch.manual_seed(0)
    model = two_layers(128).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, 1024, (8, 128))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return in_turns(
        model,
        CONTENDERS,
        rounds,
        lambda p: _seconds(lambda: _step(model, optimizer, batch, p), steps),
    )


def in_turns(
    model: Any, contenders: dict[str, Any], rounds: int, seconds: Callable[[Any], float]
) -> pd.DataFrame:
    """`seconds` of each contender's pruner (columns) in each round (rows), in mid-schedule."""
    rows, labels = [], list(contenders)
    for turn in range(rounds + 1):
        row = {}
        for label in (*labels[turn:], *labels[:turn]):
            contender = contenders[label]
            pruner = None
            if contender is not None:
                pruner = gl.Pruner(model, contender[0], 0.25, 1000, **contender[1])
                pruner.step_count = 400
            row[label] = seconds(pruner)
            if pruner is not None:
                pruner.remove()
        rows.append(row)
    return pd.DataFrame(rows[1:])  # the first round warms up


def _step(model, optimizer, batch, pruner) -> None:
    model(**batch).loss.backward()
    if pruner is not None:
        pruner.step(optimizer)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _seconds(work: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


class Tap:
    """A layer's ungated h for several running sums, which take it for a gate."""

    def __init__(self, layer: FeedForward) -> None:
        self.mask, self.watch = torch.ones(layer.width, dtype=torch.bool), None


class Enough(Exception):
    """The masks are frozen: nothing more to compare."""


def rank_agreement(
    settings: dict[str, tuple[int, float, float]], steps: int, every: int
) -> dict[str, list[float]]:
    """Spearman per layer and checkpoint of each setting's running similarity with the exact one.

    All along one run, of the default setting: the same weights and masks for all of them.
    """
    model, tokenizer = gl.load("tiny-gpt-neo", device="cpu")
    task = gl.load_task("restaurants")
    pruner = gl.Pruner(model, "gum", 0.25, steps)
    taps = {label: [Tap(layer) for layer in pruner.layers] for label in settings}
    sums = {label: RunningGrams(model, taps[label], *values) for label, values in settings.items()}
    found = {label: [] for label in settings}

    def hear(i: int, proj: Any, inputs: tuple) -> None:
        if proj.training:
            for label in settings:
                taps[label][i].watch(inputs[0].detach())

    for i, layer in enumerate(pruner.layers):
        layer.proj.register_forward_pre_hook(partial(hear, i), prepend=True)
    one_step = pruner.step

    def step(*optimizers: Any) -> bool:
        cut = one_step(*optimizers)
        if pruner.frozen:
            raise Enough
        for running in sums.values():
            running.step += 1
        if pruner.step_count % every == 0:
            exact = exact_grams(model, tokenizer, task)
            for label, running in sums.items():
                rows = zip(running.sums, exact, pruner.masks, strict=True)
                found[label] += [
                    _spearman(mean_similarity(a, mask), mean_similarity(b, mask))
                    for a, b, mask in rows
                ]
        return cut

    pruner.step = step
    with suppress(Enough):
        gl.train(model, tokenizer, task, steps=steps, pruner=pruner, progress=False)
    return found


def exact_grams(model, tokenizer, task, limit: int = 1024) -> list[torch.Tensor]:
    """G of every layer over training examples, of the h that the running sums see.

    That is h before its own layer's gate, behind the gates of the layers below.
    """
    layers, real = neurons(model), None
    grams = [torch.zeros(n.width, n.width) for n in layers]

    def add(i: int, proj: Any, inputs: tuple) -> None:
        rows = inputs[0].flatten(0, -2)[real]
        grams[i].addmm_(rows.T, rows)

    hooks = [
        layer.proj.register_forward_pre_hook(partial(add, i), prepend=True)
        for i, layer in enumerate(layers)
    ]
    with evaluating(model), torch.no_grad():
        for batch in batches(model, tokenizer, task.train[:limit], 16):
            real = batch["attention_mask"].flatten().bool()
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for hook in hooks:
        hook.remove()
    return grams


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).float()
    return float(torch.corrcoef(ranks)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="*", default=[160, 600])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    times = step_times(args.rounds)
    ratios = times.div(times["dense"], axis=0)
    lines = [
        "# What a pruning step costs",
        "",
        f"Made by `python benchmarks/step.py` with torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, {args.rounds} rounds, freed "
        f"memory kept. Dense step: {1000 * times['dense'].median():.0f} ms (median).",
        "",
        "| step | ratio to dense (median) | quartiles |"
        + "".join(f" rank agreement, {n} steps: mean, smallest |" for n in args.steps),
        "|---|---|---|" + "---|" * len(args.steps),
    ]
    settings = {"GUM": (8, 1 / 4, 0.8), **SAMPLED}
    found = {n: rank_agreement(settings, n, max(1, n // 10)) for n in args.steps}
    for label in CONTENDERS:
        low, mid, high = ratios[label].quantile([0.25, 0.5, 0.75])
        row = f"| {label} | {mid:.3f} | {low:.3f} to {high:.3f} |"
        for n in args.steps:
            values = found[n].get(label)
            row += f" {statistics.mean(values):.3f}, {min(values):.3f} |" if values else "  |"
        lines.append(row)
    text = "\n".join(lines) + "\n"
    (ROOT / "results" / "step.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
