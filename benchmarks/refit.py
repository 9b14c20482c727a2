"""What the refit costs beside the bare work it needs: results/refit.md.

    python benchmarks/refit.py

`gumlab.shrink(..., refit=True)` at half of the neurons of two layers of GPT-2-small's shape, behind
the layers already cut and, `sequential=False`, all at once. Against it the bare work of the second:
a forward pass, a product H^T H a layer, a Cholesky solve in float64, the kept rows and columns; and
the textbook form: all activations kept, one `torch.linalg.lstsq` a layer. They take turns.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from grid import ROOT, made_by, markdown
from peers import column, in_turns, machine, spread
from redundancy import WHOLE, Size, activations, build, seconds
from torch import Tensor

import gumlab as gl
from gumlab.gram import RIDGE
from gumlab.tasks.batches import batches


@torch.no_grad()
def bare(model: Any, tokenizer: Any, examples: list, masks: list[Tensor]) -> list[Tensor]:
    """The new outgoing weights, (S, D), and bias of each layer, by its Gram matrix."""
    layers, grams = gl.neurons(model), [torch.zeros(len(m) + 1, len(m) + 1) for m in masks]

    def hear(gram: Tensor, x: Tensor) -> None:
        rows = torch.nn.functional.pad(x[real], (0, 1), value=1.0)  # the bias, as a neuron
        gram.addmm_(rows.T, rows)

    handles = [
        layer.proj.register_forward_pre_hook(lambda _, x, g=gram: hear(g, x[0]))
        for layer, gram in zip(layers, grams, strict=True)
    ]
    for batch in batches(model, tokenizer, examples, 16):
        real = batch["attention_mask"].bool()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for handle in handles:
        handle.remove()
    found = []
    for layer, gram, mask in zip(layers, grams, masks, strict=True):
        energy = gram.diagonal()[:-1].double()
        stay = torch.nn.functional.pad(mask, (0, 1), value=True)
        left = gram[stay][:, stay].double()
        left.diagonal()[:-1] += RIDGE * energy.sum() / (energy > 0).sum()
        gone = layer.proj.weight[~mask].double()  # of a Conv1D: (N, D)
        right = gram[stay][:, ~stay].double() @ gone
        change = torch.cholesky_solve(right, torch.linalg.cholesky(left)).float()
        old = torch.cat([layer.proj.weight[mask], layer.proj.bias[None]])
        found.append(old + change)
        _ = layer.fc[0].weight[:, mask], layer.fc[0].bias[mask]  # the cut
    return found


@torch.no_grad()
def textbook(model: Any, tokenizer: Any, examples: list, masks: list[Tensor]) -> list[Tensor]:
    """The same without a ridge, by least squares over all rows."""
    found = []
    rows = activations(model, tokenizer, examples)
    for layer, h, mask in zip(gl.neurons(model), rows, masks, strict=True):
        kept = torch.nn.functional.pad(h[:, mask], (0, 1), value=1.0).double()
        wanted = (h @ layer.proj.weight + layer.proj.bias).double()
        found.append(torch.linalg.lstsq(kept, wanted, driver="gels").solution.float())
    return found


def ours(model: Any, tokenizer: Any, examples: list, masks: list[Tensor], **how: Any) -> list:
    small = gl.shrink(model, masks, tokenizer, examples, refit=True, limit=None, **how)
    return [torch.cat([n.proj.weight, n.proj.bias[None]]) for n in gl.neurons(small)]


CONTENDERS: dict[str, Callable[..., list[Tensor]]] = {
    "bare work": bare,
    "gumlab, all at once": lambda *given: ours(*given, sequential=False),
    "gumlab, behind the cut": ours,
    "least squares over all rows": textbook,
}


def measured(size: Size, rounds: int) -> tuple[pd.DataFrame, float]:
    """Seconds by round (rows) and contender; how far gumlab's weights are from the bare work's."""
    given = build(size)
    masks = gl.select(gl.score(given[0], "random"), keep=0.5)
    made: dict[str, list[Tensor]] = {}
    for contender in CONTENDERS.values():  # warms up
        contender(*given[:2], given[2][:16], masks)

    def run(name: str) -> dict[str, float]:
        return {"seconds": seconds(lambda: made.update({name: CONTENDERS[name](*given, masks)}))}

    found = in_turns(list(CONTENDERS), rounds, run)
    times = pd.DataFrame({name: column(rows, "seconds") for name, rows in found.items()})
    pairs = zip(made["bare work"], made["gumlab, all at once"], strict=True)
    return times, max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    times, apart = measured(WHOLE, rounds)
    ratios = times.div(times["bare work"], axis=0)
    lines = [
        {"refit": k, "seconds": spread(times[k]), "in the bare work's": spread(ratios[k])}
        for k in times
    ]
    text = (
        f"# What the refit costs\n\n{made_by('python benchmarks/refit.py')} {machine()}.\n"
        f"{WHOLE.layers} layers, d = 768, {WHOLE.width:,} neurons, half of them stay; "
        f"{WHOLE.examples} examples of task restaurants. {rounds} rounds; medians, quartiles in "
        f"brackets, ratios within a round.\n\n{markdown(lines)}\n"
        f"The weights of gumlab, all at once, and of the bare work differ by {apart:.0e} of the "
        "largest at most: float32 sums in another order, before the solve. Behind the cut each "
        "layer runs once more, on what the cut layers give.\n"
    )
    (ROOT / "results" / "refit.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
