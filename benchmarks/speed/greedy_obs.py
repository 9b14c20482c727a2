"""Greedy OBS in blocks beside one removal at a time: results/greedy_obs.md.

    python benchmarks/speed/greedy_obs.py

One removal at a time reads and writes all of A = G^-1 and of the outgoing weights; the package
(`gumlab.gram.removal_costs`) keeps the removals of a block in thin factors and applies them in one
product. Both in float64, in turns, each turn a process of its own; the inverse is made before the
clock starts. At the widest layer one at a time does an eighth of the removals, and its seconds are
multiplied: a removal costs the same early and late, since nothing gets smaller there.
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
PARTLY_FROM = 4096  # neurons; from here on one at a time does only a part
PART = 8
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


def one_at_a_time(inverse_gram: Tensor, weights: Tensor, removals: int) -> Tensor:
    """The neurons in the order of their removal, every matrix followed at every removal."""
    gone = torch.zeros(len(weights), dtype=torch.bool)
    order = torch.empty(removals, dtype=torch.long)
    for step in range(removals):
        costs = weights.square().sum(1) / inverse_gram.diagonal()
        i = int(torch.where(gone, torch.inf, costs).argmin())
        order[step] = i
        gone[i] = True
        column = inverse_gram[:, i] / inverse_gram[i, i]
        weights.sub_(torch.outer(column, weights[i].clone()))
        inverse_gram.sub_(torch.outer(column, inverse_gram[i].clone()))
        inverse_gram[i, i] = 1.0  # gone: never read again, but not 0
    return order


def turn(order: dict[str, Any]) -> dict[str, Any]:
    """In a child process: seconds and MB of one way, and the neurons it removes first."""
    n, d = order["n"], order["d"]
    torch.set_num_threads(order["threads"])
    inverse_gram, weights = made(n, d)
    part = PART if n >= PARTLY_FROM else 1
    harness.forget_high_water()
    before = harness.high_water()
    began = time.perf_counter()
    if order["way"] == "in blocks":
        removed = removal_costs(inverse_gram, weights @ weights.T).argsort(stable=True)
        factor = 1
    else:
        removed = one_at_a_time(inverse_gram, weights, n // part)
        factor = part
    seconds = (time.perf_counter() - began) * factor
    return {
        "seconds": seconds,
        "MB": harness.high_water() - before,
        "first": removed[: n // part].tolist(),
    }


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

        turns = harness.in_turns(WAYS, args.rounds, run)
        old, new = (turns[way] for way in WAYS)
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(old, new, strict=True)]
        same = [a["first"] == b["first"] for a, b in zip(old, new, strict=True)]
        rows.append(
            {
                "neurons": n,
                "outputs": d,
                "one at a time, s": f"{middle.median(row['seconds'] for row in old):.2f}",
                "in blocks, s": f"{middle.median(row['seconds'] for row in new):.2f}",
                "ratio": f"{middle.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                "memory in blocks, N x N": f"{new[0]['MB'] * 1e6 / (8 * n * n):.2f}",
                "same order": "yes" if all(same) else "no",
            }
        )
        print(rows[-1], flush=True)
    harness.write(
        args,
        "greedy_obs.md",
        f"# Greedy OBS in blocks\n\n{harness.made_by(args.command)} {harness.machine()}, "
        f"{args.threads} threads, {args.rounds} turns each: medians, and the ratio turn by turn "
        "(lowest to highest). Memory: how far it rose at most above the inverse and the weights, "
        f"in matrices of N x N. From {PARTLY_FROM:,} neurons on, one at a time did one removal in "
        f"{PART}, and its seconds are multiplied. Same order: of the removals that both did.\n\n"
        f"{harness.markdown(rows)}",
    )


if __name__ == "__main__":
    main()
