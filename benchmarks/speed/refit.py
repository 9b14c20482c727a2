"""What the refit costs beside the bare work it needs: results/refit.md.

    python benchmarks/speed/refit.py [--device cuda]

`gumlab.shrink(..., refit=True)` at half of the neurons of two layers of GPT-2-small's shape, behind
the layers already cut and, `sequential=False`, all at once. Against it the bare work of the second:
a forward pass, a product H^T H a layer, a Cholesky solve in float64, the kept rows and columns; and
the textbook form: all activations kept, one `torch.linalg.lstsq` a layer. They take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch
from redundancy import SMALL, WHOLE, D, Size, activations, build
from torch import Tensor

import gumlab as gl
from gumlab.gram import RIDGE


@torch.no_grad()
def bare(model: Any, tokenizer: Any, examples: list, masks: list[Tensor]) -> list[Tensor]:
    """The new outgoing weights and bias of each layer, (S + 1, D), by its Gram matrix."""
    layers = gl.neurons(model)
    grams = [torch.zeros(len(m) + 1, len(m) + 1, device=m.device) for m in masks]

    def add(i: int, h: Tensor) -> None:
        rows = torch.nn.functional.pad(h, (0, 1), value=1.0)  # the bias, as a neuron
        grams[i].addmm_(rows.T, rows)

    harness.hear(model, tokenizer, examples, add)
    refitted = []
    for layer, gram, mask in zip(layers, grams, masks, strict=True):
        energy = gram.diagonal()[:-1].double()
        stay = torch.nn.functional.pad(mask, (0, 1), value=True)
        kept = gram[stay][:, stay].double()
        kept.diagonal()[:-1] += RIDGE * energy.sum() / (energy > 0).sum()
        removed = layer.proj.weight[~mask].double()  # of a Conv1D: (N, D)
        wanted = gram[stay][:, ~stay].double() @ removed
        change = torch.cholesky_solve(wanted, torch.linalg.cholesky(kept)).float()
        before = torch.cat([layer.proj.weight[mask], layer.proj.bias[None]])
        refitted.append(before + change)
        _ = layer.fc[0].weight[:, mask], layer.fc[0].bias[mask]  # the cut
    return refitted


@torch.no_grad()
def textbook(model: Any, tokenizer: Any, examples: list, masks: list[Tensor]) -> list[Tensor]:
    """The same without a ridge, by least squares over all rows."""
    refitted = []
    rows = activations(model, tokenizer, examples)
    for layer, h, mask in zip(gl.neurons(model), rows, masks, strict=True):
        kept = torch.nn.functional.pad(h[:, mask], (0, 1), value=1.0).double()
        wanted = (h @ layer.proj.weight + layer.proj.bias).double()
        refitted.append(torch.linalg.lstsq(kept, wanted, driver="gels").solution.float())
    return refitted


def by_gumlab(model: Any, tokenizer: Any, examples: list, masks: list[Tensor], **how: Any) -> list:
    """The same by `gumlab.shrink`."""
    small = gl.shrink(model, masks, tokenizer, examples, refit=True, limit=None, **how)
    return [torch.cat([n.proj.weight, n.proj.bias[None]]) for n in gl.neurons(small)]


CONTENDERS: dict[str, Callable[..., list[Tensor]]] = {
    "bare work": bare,
    "gumlab, all at once": partial(by_gumlab, sequential=False),
    "gumlab, behind the cut": by_gumlab,
    "least squares over all rows": textbook,
}


def refit_times(size: Size, rounds: int, device: str) -> tuple[pd.DataFrame, float]:
    """Seconds by round (rows) and contender; how far gumlab's weights are from the bare work's."""
    model, tokenizer, examples = build(size)
    model.to(device)
    masks = gl.select(gl.score(model, "random"), keep=0.5)
    masks = [mask.to(device) for mask in masks]
    refitted: dict[str, list[Tensor]] = {}
    for contender in CONTENDERS.values():  # warms up
        contender(model, tokenizer, examples[:16], masks)

    def run(name: str, _: int) -> float:
        def work() -> None:
            refitted[name] = CONTENDERS[name](model, tokenizer, examples, masks)

        return harness.seconds(work, device)

    times = pd.DataFrame(harness.in_turns(list(CONTENDERS), rounds, run))
    pairs = zip(refitted["bare work"], refitted["gumlab, all at once"], strict=True)
    return times, max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def main() -> None:
    args = harness.parsed(harness.options(__doc__, rounds=5, device=True))
    size = SMALL if args.quick else WHOLE
    times, apart = refit_times(size, args.rounds, args.device)
    ratios = times.div(times["bare work"], axis=0)
    rows = [
        {
            "refit": name,
            "seconds": harness.spread(times[name]),
            "in the bare work's": harness.spread(ratios[name]),
        }
        for name in times
    ]
    text = (
        f"# What the refit costs\n\n{harness.made_by(args.command)} {harness.machine()}.\n"
        f"{size.layers} layers, d = {D}, {size.width:,} neurons, half of them stay; "
        f"{size.examples} examples of task restaurants. {args.rounds} rounds; medians, quartiles "
        f"in brackets, ratios within a round.\n\n{harness.markdown(rows)}\n"
        f"The weights of gumlab, all at once, and of the bare work differ by {apart:.0e} of the "
        "largest at most: float32 sums in another order, before the solve. Behind the cut each "
        "layer runs once more, on what the cut layers give.\n"
    )
    harness.write(args, "refit.md", text)


if __name__ == "__main__":
    main()
