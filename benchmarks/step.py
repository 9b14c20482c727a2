"""What a pruning step costs beside a dense step, and what GUM's sampling loses: results/step.md.

    python benchmarks/step.py

One process, one model of GPT-2-small layer shapes (d = 768, 3,072 neurons; 2 layers, batch 8 x 128,
vocabulary 1,024). The methods take turns, 8 steps each (one refresh of GUM's similarity), in the
middle of the schedule, where every method does all its work. A ratio is taken within a round;
the table gives the median over the rounds and the quartiles. Rank agreement: Spearman's correlation
of GUM's running mean |cosine| with the exact one, taken from 256 training examples at every 20th
step of a run of tiny-gpt-neo on restaurants, in every layer, until the masks freeze.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import gumlab as gl
from gumlab.batches import batches, evaluating
from gumlab.feedforward import neurons
from gumlab.scoring import mean_similarity

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
    "GUM, every 4 steps, 1/8 of the tokens, memory 0.9": (4, 1 / 8, 0.9),
    "GUM, every 2 steps, 1/8 of the tokens, memory 0.9": (2, 1 / 8, 0.9),
    "GUM, every step, 1/8 of the tokens, memory 0.9": (1, 1 / 8, 0.9),
    "GUM, every 8 steps, all tokens, memory 0.8": (8, 1.0, 0.8),
    "GUM, every step, all tokens, memory 0.001 (reference code)": (1, 1.0, 0.001),
}
NAMES = ("gram_every", "gram_tokens", "gram_memory")
CONTENDERS |= {
    label: ("gum", dict(zip(NAMES, values, strict=True))) for label, values in SAMPLED.items()
}


def step_times(rounds: int, steps: int = 8) -> pd.DataFrame:
    """Seconds of one step of each contender (columns) in each round (rows)."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=1024, n_positions=128, n_embd=768, n_layer=2, n_head=12, bos_token_id=0,
        eos_token_id=0, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
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
    rows = []
    for _ in range(rounds + 1):
        row = {}
        for label, contender in contenders.items():
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


def rank_agreement(options: dict, steps: int = 160, every: int = 20) -> list[float]:
    """Spearman per layer and checkpoint of the running similarity with the exact one."""
    model, tokenizer = gl.load("tiny-gpt-neo", device="cpu")
    task = gl.load_task("restaurants")
    pruner = gl.Pruner(model, "gum", 0.25, steps, **options)
    found = []
    wrapped = pruner.step

    def step(*optimizers: Any) -> bool:
        cut = wrapped(*optimizers)
        if pruner.step_count % every == 0 and not pruner.frozen:
            found.extend(_agreement(model, tokenizer, task, pruner))
        return cut

    pruner.step = step
    gl.train(model, tokenizer, task, steps=steps, pruner=pruner, progress=False)
    return found


def _agreement(model, tokenizer, task, pruner) -> list[float]:
    rows = zip(pruner.grams.sums, exact_grams(model, tokenizer, task), pruner.masks, strict=True)
    return [
        _spearman(mean_similarity(running, mask), mean_similarity(true, mask))
        for running, true, mask in rows
    ]


def exact_grams(model, tokenizer, task, limit: int = 256) -> list[torch.Tensor]:
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
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    times = step_times(args.rounds)
    ratios = times.div(times["dense"], axis=0)
    lines = [
        "# What a pruning step costs",
        "",
        f"Made by `python benchmarks/step.py` with torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, {args.rounds} rounds. "
        f"Dense step: {1000 * times['dense'].median():.0f} ms (median).",
        "",
        "| step | ratio to dense (median) | quartiles | rank agreement: mean | smallest |",
        "|---|---|---|---|---|",
    ]
    for label, contender in CONTENDERS.items():
        low, mid, high = ratios[label].quantile([0.25, 0.5, 0.75])
        row = f"| {label} | {mid:.3f} | {low:.3f} to {high:.3f} |"
        if contender is not None and contender[0] == "gum":
            found = rank_agreement(contender[1])
            row += f" {statistics.mean(found):.3f} | {min(found):.3f} |"
        else:
            row += "  |  |"
        lines.append(row)
    text = "\n".join(lines) + "\n"
    (ROOT / "results" / "step.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
