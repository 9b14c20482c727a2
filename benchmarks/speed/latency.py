"""Is a shrunk model as fast as one that was built small? And how fast is that? results/latency.md.

    python benchmarks/speed/latency.py [--device cuda]

Random weights. On a CPU two shapes: 4 layers of GPT-2-small (d = 768, 3,072 neurons) and
tiny-gpt2's (4 layers, d = 128, 512 neurons), vocabulary 1,024; on a GPU GPT-2-small and
GPT-2-medium, in float32 as loaded and in bfloat16. Of each: the dense model, the same shrunk to a
quarter of its neurons by `gumlab.shrink`, and one built by transformers from a config with that
width. The three take turns (`gumlab.measurement.turns`), in an order drawn anew each time; a ratio
is taken within a turn. The table gives the median over all turns and the quartiles. Models are
built anew in each round, so that where their weights happen to lie in memory differs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
import torch

import gumlab as gl
from gumlab.measurement import compare, turns


@dataclass(frozen=True)
class Setting:
    """A shape, a batch of prompts, the turns of a round, and the weights' precision."""

    shape: harness.Shape
    batch: int
    repeats: int
    tokens: int = 128
    decoded: int = 16
    dtype: torch.dtype = torch.float32


LAYERS = harness.Shape("GPT-2-small layers", layers=4)
TINY = harness.Shape("tiny-gpt2", 128, 512, 4, 4)
SETTINGS = {
    "cpu": [
        Setting(LAYERS, 1, 24),
        Setting(LAYERS, 8, 6),  # it is slow
        Setting(TINY, 1, 100),
        Setting(TINY, 8, 40),
    ],
    "cuda": [
        Setting(shape, batch, 8, 512, 24, dtype)
        for shape in (harness.SMALL, harness.MEDIUM)
        for dtype in (torch.float32, torch.bfloat16)
        for batch in (1, 8, 32)
    ],
}
QUICK = [Setting(harness.TOY, 1, 2, 8, 4)]


def models(setting: Setting, seed: int, device: str) -> dict[str, torch.nn.Module]:
    """The dense model, its quarter, and a model built with the quarter's width."""
    positions = setting.tokens + 2 * setting.decoded  # a half is left for what is decoded
    narrow = replace(setting.shape, width=setting.shape.width // 4)
    dense, built = (
        harness.random_gpt2(shape, max(256, positions), seed).to(device, setting.dtype).eval()
        for shape in (setting.shape, narrow)
    )
    shrunk = gl.shrink(dense, gl.select(gl.score(dense, "random", seed=seed), keep=0.25))
    sizes = [gl.measure(model, latency=False)["parameters"] for model in (shrunk, built)]
    assert sizes[0] == sizes[1]
    return {"dense": dense, "shrunk": shrunk, "built small": built}


def times(setting: Setting, rounds: int, device: str) -> pd.DataFrame:
    """Milliseconds of each turn: columns (work, model), work "prefill" or "decoding step"."""
    rows = []
    for seed in range(rounds):
        seen = turns(
            models(setting, seed, device),
            batch=setting.batch,
            tokens=setting.tokens,
            decoded=setting.decoded,
            repeats=setting.repeats,
        )
        for turn in zip(*seen.values(), strict=True):
            row = {}
            for name, (_, prefill, per_second) in zip(seen, turn, strict=True):
                row["prefill", name] = prefill
                row["decoding step", name] = 1000 * setting.batch / per_second
            rows.append(row)
    return pd.DataFrame(rows)


def peaks(setting: Setting, device: str) -> dict[str, str]:
    """The most memory that the dense and the shrunk model take, weights included."""
    here = models(setting, 0, device)
    found = compare(
        {name: here[name] for name in ("dense", "shrunk")},
        batches=(setting.batch,),
        tokens=setting.tokens,
        decoded=setting.decoded,
        repeats=2,
    )
    speeds = {name: figures["speed"][0] for name, figures in found.items()}
    return {f"peak MB: {name}": f"{row['peak_bytes'] / 1e6:,.0f}" for name, row in speeds.items()}


def main() -> None:
    args = harness.parsed(harness.options(__doc__, rounds=3, device=True))
    rows = []
    for setting in QUICK if args.quick else SETTINGS[args.device]:
        seen = times(setting, args.rounds, args.device)
        about = {"shape": setting.shape.name, "batch": setting.batch}
        more = {}
        if args.device == "cuda":
            about["weights"] = str(setting.dtype).removeprefix("torch.")
            more = peaks(setting, args.device)
        for work in ("prefill", "decoding step"):
            ms = {name: seen[work, name] for name in ("dense", "shrunk", "built small")}
            rows.append(
                {
                    **about,
                    "work": work,
                    "dense, ms": f"{ms['dense'].median():.2f}",
                    "shrunk, ms": f"{ms['shrunk'].median():.2f}",
                    "built small, ms": f"{ms['built small'].median():.2f}",
                    "shrunk / built small": harness.spread(ms["shrunk"] / ms["built small"], ".3f"),
                    "dense / shrunk": harness.spread(ms["dense"] / ms["shrunk"], ".3f"),
                    "turns": len(seen),
                    **more,
                }
            )
            print(rows[-1], flush=True)
    longest = " and ".join(str(n) for n in sorted({s.tokens for s in SETTINGS[args.device]}))
    text = (
        "# How fast a shrunk model is\n\n"
        f"{harness.made_by(args.command)} "
        f"{torch.get_num_threads()} thread(s). A quarter of the neurons is kept. Median, and "
        "quartiles in brackets; ratios are taken within a turn of the three models. Prefill: "
        f"{longest} tokens a sequence; decoding step: one token a sequence, with the KV cache. "
        "Milliseconds depend on what else the machine did, ratios much less.\n\n"
        f"{harness.markdown(rows)}"
    )
    harness.write(args, "latency.md", text)


if __name__ == "__main__":
    main()
