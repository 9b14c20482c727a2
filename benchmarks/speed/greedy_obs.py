"""Greedy OBS in blocks beside one removal at a time: results/greedy_obs.md.

    python benchmarks/speed/greedy_obs.py

One removal at a time, as gumlab 0.1 had it, reads and writes all of A = G^-1 and of the outgoing
weights, and drops the rows of the neurons gone after each eighth. The package
(`gumlab.gram.removal_costs`) keeps the removals of a block in thin factors and applies them in one
product. Both in float64, in turns, each turn a process of its own; the inverse is made before the
clock starts.
"""

from __future__ import annotations

import statistics as middle
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import torch
from torch import Tensor

from gumlab.gram import inverse, removal_costs

SHAPES = ((768, 192), (2048, 512), (5632, 2048))  # N neurons, D outputs
QUICK_SHAPES = ((256, 64),)
LARGE = 4096  # neurons; from here on there are LARGE_TURNS turns
LARGE_TURNS = 2
WAYS = ("one at a time", "in blocks")


def made(n: int, d: int) -> tuple[Tensor, Tensor]:
    """The inverse Gram matrix of neurons that fire together in part, and outgoing weights."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(2 * n, n // 4, generator=generator) @ torch.randn(
        n // 4, n, generator=generator
    )
    activations = (shared / (n // 4) ** 0.5 + torch.randn(2 * n, n, generator=generator)).relu()
    weights = torch.randn(n, d, generator=generator).double()
    return inverse(activations.T @ activations), weights


def one_at_a_time(inverse_gram: Tensor, weights: Tensor) -> Tensor:
    """The neurons in the order of their removal, every matrix followed at every removal."""
    remaining = torch.arange(len(weights))
    order = []
    while len(remaining):
        gone = torch.zeros(len(remaining), dtype=torch.bool)
        for _ in range(-(-len(remaining) // 8)):  # then the rows of those gone are dropped
            costs = weights.square().sum(1) / inverse_gram.diagonal()
            i = int(torch.where(gone, torch.inf, costs).argmin())
            order.append(int(remaining[i]))
            gone[i] = True
            column = inverse_gram[:, i] / inverse_gram[i, i]
            weights -= torch.outer(column, weights[i])
            inverse_gram -= torch.outer(column, inverse_gram[i].clone())
            inverse_gram[i] = 0.0
            inverse_gram[:, i] = 0.0
            inverse_gram[i, i] = 1.0
            weights[i] = 0.0
        remaining = remaining[~gone]
        weights = weights[~gone]
        inverse_gram = inverse_gram[~gone][:, ~gone]
    return torch.tensor(order)


def turn(order: dict[str, Any]) -> dict[str, Any]:
    """In a child process: seconds and MB of one way, and the neurons in the order of removal."""
    torch.set_num_threads(order["threads"])
    inverse_gram, weights = made(order["n"], order["d"])
    harness.forget_high_water()
    before = harness.high_water()
    began = time.perf_counter()
    if order["way"] == "in blocks":
        removed = removal_costs(inverse_gram, weights @ weights.T).argsort(stable=True)
    else:
        removed = one_at_a_time(inverse_gram, weights)
    return {
        "seconds": time.perf_counter() - began,
        "MB": harness.high_water() - before,
        "removed": removed.tolist(),
    }


def agreement(first: list[int], second: list[int]) -> str:
    """Whether two orders of removal are one, or from which removal on they differ."""
    differing = [
        place for place, pair in enumerate(zip(first, second, strict=True)) if len({*pair}) > 1
    ]
    if not differing:
        return "yes"
    half = len(first) // 2
    same = len(set(first[:half]) & set(second[:half]))
    return f"{len(differing):,} places differ; of the first half {same / half:.1%} are the same"


def main() -> None:
    harness.answer(turn)
    parser = harness.options(__doc__, rounds=5)
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    args = harness.parsed(parser)
    rows = []
    for n, d in QUICK_SHAPES if args.quick else SHAPES:

        def run(way: str, _: int, n: int = n, d: int = d) -> dict[str, Any]:
            order = {"n": n, "d": d, "way": way, "threads": args.threads}
            return harness.child(__file__, order)

        rounds = min(args.rounds, LARGE_TURNS) if n >= LARGE else args.rounds
        turns = harness.in_turns(WAYS, rounds, run)
        old, new = (turns[way] for way in WAYS)
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(old, new, strict=True)]
        rows.append(
            {
                "neurons": n,
                "outputs": d,
                "one at a time, s": f"{middle.median(row['seconds'] for row in old):.2f}",
                "in blocks, s": f"{middle.median(row['seconds'] for row in new):.2f}",
                "ratio": f"{middle.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                "turns": rounds,
                "memory one at a time, N x N": f"{old[0]['MB'] * 1e6 / (8 * n * n):.2f}",
                "memory in blocks, N x N": f"{new[0]['MB'] * 1e6 / (8 * n * n):.2f}",
                "same order": agreement(old[0]["removed"], new[0]["removed"]),
            }
        )
        print(rows[-1], flush=True)
    harness.write(
        args,
        "greedy_obs.md",
        f"# Greedy OBS in blocks\n\n{harness.made_by(args.command)} {harness.machine()}, "
        f"{args.threads} threads. Medians, and the ratio turn by turn (lowest to highest). Memory: "
        "how far it rose at most above the inverse and the weights, in float64 matrices of N x N. "
        "The blocks need the products of the weights, an N x N matrix, which is counted.\n\n"
        f"{harness.markdown(rows)}",
    )


if __name__ == "__main__":
    main()
