"""What cutting saves: runs to 25 % that cut, that only mask, and dense ones: results/paying.md.

    python benchmarks/speed/paying.py [--device cuda]

Two bases: tiny-gpt-neo on restaurants (60 steps of 16), and GPT-2-small's layer shapes (d = 768,
3,072 neurons; 2 layers, 40 steps of 4 x 64 random tokens, vocabulary 1,024). The dense run,
`final=True` and `cut=True` take turns for each method; a ratio is taken within a round, and the
table gives the median and the quartiles. One thread, its CPU seconds (on a GPU: seconds). The two
pruned runs start from the same weights, batches and seeds, so that their masks and losses can be
compared.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch
from torch import Tensor

import gumlab as gl

METHODS = {
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement": ("movement", {"scope": "global"}),
    "GUM": ("gum", {}),
}
WAYS = {"dense": None, "masked": {"final": True}, "cut": {"cut": True}}
Made = Callable[[Any], gl.Pruner | None]  # of a model: its pruner, None where the run is dense
Outcome = tuple[list[float], list[Tensor]]  # the losses, and the masks at the end


def tiny(device: str, steps: int) -> Callable[[Made], Outcome]:
    """A run of tiny-gpt-neo on restaurants."""
    base, tokenizer = gl.load("tiny-gpt-neo", device=device)
    task = gl.load_task("restaurants")

    def run(made: Made) -> Outcome:
        model = copy.deepcopy(base)
        pruner = made(model)
        history = gl.train(model, tokenizer, task, steps=steps, pruner=pruner, progress=False)
        return history.losses, pruner.original_masks if pruner else []

    return run


def random_weights(shape: harness.Shape, device: str, steps: int) -> Callable[[Made], Outcome]:
    """A run of a hand-written loop over a model with random weights."""
    base = harness.random_gpt2(shape, 64, **harness.without_dropout()).to(device).train()
    batches = torch.randint(0, shape.vocabulary, (steps, 4, 64)).to(device)

    def run(made: Made) -> Outcome:
        model = copy.deepcopy(base)
        pruner = made(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        losses = []
        for ids in batches:
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            if pruner is not None:
                pruner.step(optimizer)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses, pruner.original_masks if pruner else []

    return run


def compared(
    run: Callable[[Made], Outcome],
    method: str,
    settings: dict,
    steps: int,
    rounds: int,
    device: str,
) -> dict[str, str]:
    """What a method's runs cost in each of the WAYS, and how its two pruned runs differ."""
    clock = time.perf_counter if device == "cuda" else time.process_time

    def timed(way: str, turn: int) -> tuple[float, Outcome]:
        how = WAYS[way]

        def made(model: Any) -> gl.Pruner | None:
            return how and gl.Pruner(model, method, 0.25, steps, **settings, **how)

        torch.manual_seed(turn)  # the same dropout
        began = clock()
        outcome = run(made)
        harness.finish(device)
        return clock() - began, outcome

    return told(harness.in_turns(list(WAYS), rounds, timed))


def told(turns: dict[str, list[tuple[float, Outcome]]]) -> dict[str, str]:
    """A method's row: ratios within a round, the largest differences of all rounds."""
    times = pd.DataFrame({way: [spent for spent, _ in runs] for way, runs in turns.items()})
    swapped = []
    gaps = []
    for (_, masked), (_, cut) in zip(turns["masked"], turns["cut"], strict=True):
        pairs = zip(masked[1], cut[1], strict=True)
        swapped.append(sum(int((ours ^ theirs).sum()) for ours, theirs in pairs) // 2)
        gaps += [abs(a - b) / a for a, b in zip(masked[0], cut[0], strict=True)]
    ratio = times["cut"] / times["dense"]
    low, high = ratio.quantile([0.25, 0.75])
    return {
        "dense, s": f"{times['dense'].median():.1f}",
        "masks only / dense": f"{(times['masked'] / times['dense']).median():.3f}",
        "cut / dense": f"{ratio.median():.3f}",
        "quartiles": f"{low:.3f} to {high:.3f}",
        "same masks": f"no, {max(swapped)} neurons swapped" if max(swapped) else "yes",
        "largest difference of the losses": f"{max(gaps):.1e}",
    }


def main() -> None:
    args = harness.parsed(harness.options(__doc__, rounds=5, device=True))
    torch.set_num_threads(1)
    shape = harness.TOY if args.quick else harness.Shape("GPT-2-small layers")
    bases = {"tiny-gpt-neo": (tiny, 60), shape.name: (partial(random_weights, shape), 40)}
    rows = []
    for base, (made, usual) in bases.items():
        steps = 4 if args.quick else usual
        run = made(args.device, steps)
        run(lambda model: None)  # warms up
        for label, (method, settings) in METHODS.items():
            row = compared(run, method, settings, steps, args.rounds, args.device)
            rows.append({"base": base, "method": label, **row})
    text = (
        "# What cutting saves\n\n"
        f"{harness.made_by(args.command)} {args.rounds} rounds on "
        f"{args.device}, one thread. The difference of the losses is relative, the largest of any "
        f"step and round.\n\n{harness.markdown(rows)}"
    )
    harness.write(args, "paying.md", text)


if __name__ == "__main__":
    main()
