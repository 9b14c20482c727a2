"""What cutting saves: runs to 25 % that cut, that only mask, and dense ones: results/paying.md.

    python benchmarks/paying.py [--rounds 5] [--device cuda]

Two bases: tiny-gpt-neo on restaurants (60 steps of 16), and GPT-2-small's layer shapes (d = 768,
3,072 neurons; 2 layers, 40 steps of 4 x 64 random tokens, vocabulary 1,024). In a round the dense
run, `final=True` and `cut=True` take turns for each method, in an order that turns too; a ratio is
taken within a round, and the table gives the median and the quartiles. One thread, its CPU seconds
(on a GPU: seconds). The two pruned runs start from the same weights, batches and seeds, so that
their masks and losses can be compared.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from grid import ROOT, made_by, markdown, two_layers
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


def tiny(device: str) -> Callable[[Made], Outcome]:
    """A run of tiny-gpt-neo on restaurants."""
    base, tokenizer = gl.load("tiny-gpt-neo", device=device)
    task = gl.load_task("restaurants")

    def run(made: Made) -> Outcome:
        model = copy.deepcopy(base)
        pruner = made(model)
        history = gl.train(
            model, tokenizer, task, steps=STEPS["tiny-gpt-neo"], pruner=pruner, progress=False
        )
        return history.losses, pruner.masks if pruner else []

    return run


def layer_shapes(device: str) -> Callable[[Made], Outcome]:
    """A run of a hand-written loop over two layers of GPT-2-small's shapes."""
    torch.manual_seed(0)
    base = two_layers(64).to(device).train()
    batches = torch.randint(0, 1024, (STEPS["GPT-2-small layers"], 4, 64)).to(device)

    def run(made: Made) -> Outcome:
        model, losses = copy.deepcopy(base), []
        pruner = made(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for ids in batches:
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            if pruner is not None:
                pruner.step(optimizer)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses, pruner.masks if pruner else []

    return run


BASES = {"tiny-gpt-neo": tiny, "GPT-2-small layers": layer_shapes}
STEPS = {"tiny-gpt-neo": 60, "GPT-2-small layers": 40}


def measured(base: str, rounds: int, device: str) -> pd.DataFrame:
    """One row per round and method: seconds of each way, and how the two pruned runs differ."""
    run, rows = BASES[base](device), []
    clock = time.perf_counter if device == "cuda" else time.process_time
    run(lambda model: None)  # warms up
    for turn in range(rounds):
        for label, (method, options) in METHODS.items():
            row, ends = {"base": base, "method": label}, {}
            for i in range(len(WAYS)):
                way = list(WAYS)[(i + turn) % len(WAYS)]

                def made(model: Any, way: str = way, method: str = method, options: dict = options):
                    how = WAYS[way]
                    settings = options | (how or {})
                    return how and gl.Pruner(model, method, 0.25, STEPS[base], **settings)

                torch.manual_seed(turn)  # the same dropout
                began = clock()
                ends[way] = run(made)
                row[way] = clock() - began
            (losses, masks), (others, theirs) = ends["masked"], ends["cut"]
            row["differ"] = sum(int((a ^ b).sum()) for a, b in zip(masks, theirs, strict=True)) // 2
            row["gap"] = max(abs(a - b) / a for a, b in zip(losses, others, strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the result."""
    rows = []
    for (base, method), part in found.groupby(["base", "method"], sort=False):
        ratio = part["cut"] / part["dense"]
        low, high = ratio.quantile([0.25, 0.75])
        swapped = int(part["differ"].max())
        rows.append(
            {
                "base": base,
                "method": method,
                "dense, s": f"{part['dense'].median():.1f}",
                "masks only / dense": f"{(part['masked'] / part['dense']).median():.3f}",
                "cut / dense": f"{ratio.median():.3f}",
                "quartiles": f"{low:.3f} to {high:.3f}",
                "same masks": "yes" if not swapped else f"no, {swapped} neurons swapped",
                "largest difference of the losses": f"{part['gap'].max():.1e}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bases", nargs="*", choices=BASES, default=list(BASES))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for label in set(METHODS) - set(args.methods):
        del METHODS[label]
    found = pd.concat([measured(base, args.rounds, args.device) for base in args.bases])
    text = (
        "# What cutting saves\n\n"
        + made_by("python benchmarks/paying.py")
        + f" {args.rounds} rounds on {args.device}, one thread. The difference of the losses is "
        "relative, the largest of any step and round.\n\n" + markdown(table(found))
    )
    print(text)
    if args.bases == list(BASES) and len(METHODS) == len(args.methods) == 4:
        name = "paying.md" if args.device == "cpu" else "paying_gpu.md"
        (ROOT / "results" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
