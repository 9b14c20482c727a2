"""Is a shrunk model as fast as one that was built small? And how fast is that? results/latency.md.

    python benchmarks/latency.py

Two shapes, random weights: 4 layers of GPT-2-small (d = 768, 3,072 neurons) and tiny-gpt2's (4
layers, d = 128, 512 neurons), vocabulary 1,024. Of each: the dense model, the same shrunk to a
quarter of its neurons by `gumlab.shrink`, and one built by transformers from a config with that
width. The three take turns (`gumlab.measurement.turns`), in an order drawn anew each time; a ratio
is taken within a turn. The table gives the median over all turns and the quartiles. Models are
built anew in each of three rounds, so that where their weights happen to lie in memory differs.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pandas as pd
import torch
from grid import made_by, markdown
from transformers import GPT2Config, GPT2LMHeadModel

import gumlab as gl
from gumlab.measurement import turns

ROOT = Path(__file__).parents[1]
ROUNDS = 3
SHAPES = {"GPT-2-small layers": (768, 12, 3072), "tiny-gpt2": (128, 4, 512)}  # d, heads, N
REPEATS = {  # turns a round: batch 8 of the wide shape is slow
    ("GPT-2-small layers", 1): 24,
    ("GPT-2-small layers", 8): 6,
    ("tiny-gpt2", 1): 100,
    ("tiny-gpt2", 8): 40,
}


def models(shape: str, seed: int) -> dict[str, torch.nn.Module]:
    """The dense model, its quarter, and a model built with the quarter's width."""
    d, heads, width = SHAPES[shape]
    torch.manual_seed(seed)
    dense, built = (
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=1024, n_positions=256, n_embd=d, n_layer=4, n_head=heads, n_inner=n,
                bos_token_id=0, eos_token_id=0,
            )
        ).eval()
        for n in (width, width // 4)
    )  # fmt: skip
    shrunk = gl.shrink(dense, gl.select(gl.score(dense, "random", seed=seed), keep=0.25))
    sizes = [gl.measure(m, latency=False)["parameters"] for m in (shrunk, built)]
    assert sizes[0] == sizes[1]
    return {"dense": dense, "shrunk": shrunk, "built small": built}


def times(shape: str, batch: int, scale: float) -> pd.DataFrame:
    """Milliseconds of each turn: columns (work, model), work "prefill" or "decoding step"."""
    rows = []
    for seed in range(ROUNDS):
        repeats = max(2, round(scale * REPEATS[shape, batch]))
        seen = turns(models(shape, seed), batch=batch, tokens=128, decoded=16, repeats=repeats)
        for made in zip(*seen.values(), strict=True):
            row = {}
            for name, (_, prefill, per_second) in zip(seen, made, strict=True):
                row["prefill", name] = prefill
                row["decoding step", name] = 1000 * batch / per_second
            rows.append(row)
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> str:
    """Median and quartiles as text."""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the turns; for a trial")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for shape, batch in REPEATS:
        seen = times(shape, batch, args.scale)
        for work in ("prefill", "decoding step"):
            ms = {name: seen[work, name] for name in ("dense", "shrunk", "built small")}
            rows.append(
                {
                    "shape": shape,
                    "batch": batch,
                    "work": work,
                    "dense, ms": f"{ms['dense'].median():.2f}",
                    "shrunk, ms": f"{ms['shrunk'].median():.2f}",
                    "built small, ms": f"{ms['built small'].median():.2f}",
                    "shrunk / built small": spread(ms["shrunk"] / ms["built small"]),
                    "dense / shrunk": spread(ms["dense"] / ms["shrunk"]),
                    "turns": len(seen),
                }
            )
            print(rows[-1], flush=True)
    text = (
        "# How fast a shrunk model is\n\n"
        f"{made_by('python benchmarks/latency.py')} {torch.get_num_threads()} thread(s). A quarter "
        "of the neurons is kept. Median, and quartiles in brackets; ratios are taken within a turn "
        "of the three models. Prefill: 128 tokens a sequence; decoding step: one token a sequence, "
        "with the KV cache. Milliseconds depend on what else the machine did, ratios much less.\n\n"
    )
    (ROOT / "results" / "latency.md").write_text(text + markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
