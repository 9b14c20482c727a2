"""How fast it prunes without training, and measures redundancy: results/throughput.md.

    python benchmarks/speed/throughput.py [--device cuda]

Random weights and random tokens: on a CPU two layers of GPT-2-small's shapes (vocabulary 1,024) and
32 sequences of 128; on a GPU GPT-2-small and GPT-2-medium, 128 sequences of 512.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import torch

import gumlab as gl
from gumlab.tasks import Example


@dataclass(frozen=True)
class Setting:
    """A model's shape, and how many sequences of how many tokens it reads."""

    shape: harness.Shape
    examples: int
    tokens: int


SETTINGS = {
    "cpu": [Setting(harness.Shape("GPT-2-small layers"), 32, 128)],
    "cuda": [Setting(harness.SMALL, 128, 512), Setting(harness.MEDIUM, 128, 512)],
}
QUICK = [Setting(harness.TOY, 6, 16)]


class Numbers:
    """A tokenizer of texts that are token ids already: "17 4 99"."""

    eos_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def rows_of(setting: Setting, device: str) -> list[dict[str, Any]]:
    """Seconds and tokens per second of each work."""
    model = harness.random_gpt2(setting.shape, setting.tokens).to(device).eval()
    size = (setting.examples, setting.tokens - 2)  # the target and the end are two more
    drawn = torch.randint(1, setting.shape.vocabulary, size).tolist()
    data = (Numbers(), [Example(" ".join(map(str, ids)), "1") for ids in drawn])
    work = {
        "wanda, no refit": lambda: gl.prune(model, "wanda", *data, keep=0.25, refit=False),
        "recommended, refit": lambda: gl.prune(model, "recommended", *data, keep=0.25),
        "redundancy": lambda: gl.redundancy(model, *data),
    }
    gl.score(model, "wanda", *data)  # warms up
    rows = []
    for label, do in work.items():
        spent = harness.seconds(do, device)
        rate = setting.examples * setting.tokens / spent
        row = {"shape": setting.shape.name, "work": label}
        rows.append({**row, "seconds": f"{spent:.2f}", "tokens/s": f"{rate:,.0f}"})
    return rows


def main() -> None:
    args = harness.parsed(harness.options(__doc__, device=True))
    settings = QUICK if args.quick else SETTINGS[args.device]
    rows = [row for setting in settings for row in rows_of(setting, args.device)]
    text = (
        "# How fast pruning without training is\n\n"
        f"{harness.made_by(args.command)} A quarter of the neurons "
        f"is kept.\n\n{harness.markdown(rows)}"
    )
    harness.write(args, "throughput.md", text)


if __name__ == "__main__":
    main()
