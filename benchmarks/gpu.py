"""Throughput of training and pruning, GUM's overhead and latency on a GPU: results/gpu.md.

    python benchmarks/gpu.py                       # some minutes on one large GPU
    python benchmarks/gpu.py --device cpu --toy    # a trial of the script; writes nothing

Random weights in the shapes of GPT-2-small and GPT-2-medium, random tokens, bf16 autocast where
`gumlab.train` would use it, fused AdamW. Steps: batches of 8 x 512; the methods take turns, 16
steps each (two refreshes of GUM's similarity), in the middle of the schedule, where every method
does all its work; a ratio is taken within a round, the table gives median and quartiles. Latency:
the dense model and the same shrunk to a quarter of its neurons take turns
(`gumlab.measurement.turns`), in float32 as loaded and in bf16.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from grid import made_by, markdown
from step import in_turns
from transformers import GPT2Config, GPT2LMHeadModel

import gumlab as gl
from gumlab.measurement import compare
from gumlab.tasks import Example
from gumlab.training import in_precision

ROOT = Path(__file__).parents[1]
CONTENDERS = {
    "dense": None,
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement, global": ("movement", {"scope": "global"}),
    "GUM": ("gum", {}),
    "GUM, gate": ("gum", {"gradient": "gate"}),
    "GUM, exact Gram each step": ("gum", {"gram_every": 1, "gram_tokens": 1.0}),
}


@dataclass(frozen=True)
class Setting:
    """A model's shape and how much of it is measured."""

    name: str
    d: int
    layers: int
    heads: int
    vocabulary: int = 50257
    context: int = 1024
    batch: int = 8
    tokens: int = 512
    steps: int = 16
    rounds: int = 5
    examples: int = 128  # sequences of `tokens` that the one-shot methods read
    batches: tuple[int, ...] = (1, 8, 32)
    turn: tuple[int, int, int] = (512, 24, 8)  # prompt tokens, decoded tokens, repeats


SETTINGS = (Setting("GPT-2-small", 768, 12, 12), Setting("GPT-2-medium", 1024, 24, 16))
TOYS = (
    Setting(
        "toy",
        32,
        2,
        2,
        128,
        64,
        batch=2,
        tokens=16,
        rounds=2,
        examples=6,
        batches=(1, 2),
        turn=(8, 4, 2),
    ),
)


def build(setting: Setting, device: str) -> GPT2LMHeadModel:
    """A model of this shape with random weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=setting.vocabulary, n_positions=setting.context, n_embd=setting.d,
        n_layer=setting.layers, n_head=setting.heads, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).to(device)


def step_times(setting: Setting, device: str) -> pd.DataFrame:
    """Seconds of one step of each contender (columns) in each round (rows)."""
    model = build(setting, device).train()
    fused = True if device == "cuda" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)
    shape = (setting.batch, setting.tokens)
    ids = torch.randint(0, setting.vocabulary, shape, device=device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return in_turns(
        model, CONTENDERS, setting.rounds,
        lambda p: seconds(lambda: step(model, optimizer, batch, p), setting, device),
    )  # fmt: skip


def step(model: Any, optimizer: Any, batch: dict, pruner: Any) -> None:
    """One training step, as in `gumlab.train`."""
    with in_precision(model, None):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if pruner is not None:
        pruner.step()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def seconds(work: Callable[[], None], setting: Setting, device: str) -> float:
    """Seconds of one call, over the setting's steps."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    work()  # what a fresh pruner does once
    wait()
    began = time.perf_counter()
    for _ in range(setting.steps):
        work()
    wait()
    return (time.perf_counter() - began) / setting.steps


def step_rows(setting: Setting, device: str) -> list[dict[str, Any]]:
    """Tokens per second of each contender, and its step beside the dense one."""
    times = step_times(setting, device)
    ratios = times.div(times["dense"], axis=0)
    rows = []
    for label in CONTENDERS:
        low, middle, high = ratios[label].quantile([0.25, 0.5, 0.75])
        rate = setting.batch * setting.tokens / times[label].median()
        row = {"shape": setting.name, "step": label, "tokens/s": f"{rate:,.0f}"}
        row["ratio to the dense step"] = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        rows.append(row)
    return rows


class Numbers:
    """A tokenizer of texts that are token ids already: "17 4 99"."""

    eos_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def one_shot_rows(setting: Setting, device: str) -> list[dict[str, Any]]:
    """Seconds and tokens per second of pruning without training, and of the redundancy report."""
    model = build(setting, device).eval()
    shape = (setting.examples, setting.tokens - 2)
    drawn = torch.randint(1, setting.vocabulary, shape).tolist()
    examples = [Example(" ".join(map(str, ids)), "1") for ids in drawn]
    given = (Numbers(), examples)
    work = {
        "wanda, no refit": lambda: gl.prune(model, "wanda", *given, keep=0.25, refit=False),
        "recommended, refit": lambda: gl.prune(model, "recommended", *given, keep=0.25),
        "redundancy": lambda: gl.redundancy(model, *given),
    }
    rows = []
    gl.score(model, "wanda", *given)  # warms up
    for label, do in work.items():
        began = time.perf_counter()
        do()
        if device == "cuda":
            torch.cuda.synchronize()
        spent = time.perf_counter() - began
        row = {"shape": setting.name, "work": label, "seconds": f"{spent:.2f}"}
        row["tokens/s"] = f"{setting.examples * setting.tokens / spent:,.0f}"
        rows.append(row)
    return rows


def latency_rows(setting: Setting, device: str) -> list[dict[str, Any]]:
    """Dense beside shrunk, by precision of the weights and batch size."""
    rows, (tokens, decoded, repeats) = [], setting.turn
    options = {"tokens": tokens, "decoded": decoded, "repeats": repeats}
    for dtype in (torch.float32, torch.bfloat16):
        dense = build(setting, device).to(dtype).eval()
        small = gl.shrink(dense, gl.select(gl.score(dense, "random"), keep=0.25))
        models = {"dense": dense, "shrunk": small}
        found = compare(models, batches=setting.batches, **options)
        pairs = zip(found["dense"]["speed"], found["shrunk"]["speed"], strict=True)
        for before, after in pairs:
            row = {"shape": setting.name, "weights": str(dtype).removeprefix("torch.")}
            row["batch"] = before["batch"]
            for key, title in (("prefill_ms", "prefill, ms"),
                               ("decode_tokens_per_s", "decoded tokens/s")):  # fmt: skip
                row[f"{title}: dense"], row[f"{title}: shrunk"] = (
                    both(before, key),
                    both(after, key),
                )
            row["peak MB: dense"] = f"{before['peak_bytes'] / 1e6:,.0f}"
            row["peak MB: shrunk"] = f"{after['peak_bytes'] / 1e6:,.0f}"
            rows.append(row)
    return rows


def both(row: dict[str, Any], key: str) -> str:
    """A median with its quartiles as text."""
    low, high = row[f"{key}_quartiles"]
    return f"{row[key]:,.1f} ({low:,.1f} to {high:,.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--toy", action="store_true", help="small shapes; results are only printed")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here, so nothing was measured or written.")
    if args.device == "cpu" and not args.toy:
        sys.exit("On a CPU only --toy is of use; nothing was measured or written.")
    warnings.simplefilter("ignore")
    parts: dict[str, list[dict[str, Any]]] = {}
    for setting in TOYS if args.toy else SETTINGS:
        for title, rows_of in (
            ("A training step", step_rows),
            ("Without training", one_shot_rows),
            ("Dense against a quarter of the neurons", latency_rows),
        ):
            parts.setdefault(title, []).extend(rows_of(setting, args.device))
            print(f"{setting.name}: {title.lower()}, done", flush=True)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "a CPU"
    text = f"# On a GPU\n\n{made_by('python benchmarks/gpu.py')} On {device}.\n"
    for title, rows in parts.items():
        text += f"\n## {title}\n\n{markdown(rows)}"
    print(text)
    if not args.toy:
        (ROOT / "results" / "gpu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
