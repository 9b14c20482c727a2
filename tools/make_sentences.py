"""Let SmolLM2-135M write, whole and cut: gumlab/assets/real_sentences.json, for the explorer.

    python tools/make_sentences.py --data-dir FOLDER    # of WikiText-2

The cuts are those of benchmarks/quality/allocation.py, by its first draw, and take some minutes on
one core; their losses are those that it measured. What that benchmark has measured (the sums over
the calibration data and the scores, in runs/allocation) is used; what it has not is measured now,
which takes longer. The file is written after each cut: stopped, the command goes on where it was.
Nothing of the data's text is in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "quality"))
import allocation
import torch
import transformers

import gumlab as gl
from gumlab.course.explore.writing import continued
from gumlab.io.loading import ASSETS

ROOT = Path(__file__).parents[1]
OUT = ASSETS / "real_sentences.json"
RESULTS = ROOT / "results" / "allocation.csv"
PROMPTS = (  # chosen by what the whole model writes: sense, so that what a cut spoils can be seen
    "Once upon a time, in a small village by the sea, there lived",
    "Paris is the capital of France, and Rome is the capital of",
    "Photosynthesis is the process by which plants",
    "The days of the week are Monday, Tuesday,",
    "To make a cup of tea, first boil the water. Then",
    "A dog is an animal that",
    "def mean(numbers):",
    "The sun rises in the east and sets in the",
)
TOKENS = 40
KEEPS = (0.5, 0.25, 0.75, 0.9)  # the most telling first
WAYS = (  # method, scope, and what allocation.py calls them
    ("recommended", "global", "greedy_obs", "loss_scalar"),
    ("magnitude", "layer", "magnitude", "equal"),
    ("random", "layer", "random", "equal"),
)


def made_with() -> dict[str, Any]:
    """What the texts depend on."""
    return {
        "command": "python tools/make_sentences.py --data-dir FOLDER",
        "model": allocation.REAL,
        "gumlab": gl.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokens": TOKENS,
        "calibration": f"WikiText-2, {allocation.BLOCKS * 1024} tokens",
        "test": f"WikiText-2, {allocation.TEST_BLOCKS * 1024} tokens",
    }


def begun() -> dict[str, Any]:
    """The file as it is, if the same settings made it; else an empty one."""
    fresh = {"made_with": made_with(), "prompts": list(PROMPTS), "dense": [], "rows": []}
    if not OUT.exists():
        return fresh
    known = json.loads(OUT.read_text(encoding="utf-8"))
    same = known["made_with"] == fresh["made_with"] and known["prompts"] == fresh["prompts"]
    return known if same else fresh


def write(found: dict[str, Any]) -> None:
    """Write the file at once or not at all: a line for each row."""
    head = {key: value for key, value in found.items() if key != "rows"}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found["rows"])
    text = json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n'
    unfinished = OUT.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, OUT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="WikiText-2's folder")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="of allocation.py")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.precision = "float32"
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    draw = allocation.Draw(allocation.REAL, "wikitext", 0, args)
    measured = allocation.reported_rows(RESULTS)
    found = begun()
    if not found["dense"]:
        dense = allocation.Order(
            allocation.REAL, "wikitext", 0, allocation.DENSE, "equal", "cut", 1.0
        )
        found["dense_loss"] = loss(measured, dense)
        found["dense"] = continued(draw.model, draw.tokenizer, PROMPTS, TOKENS)
        write(found)
    cuts = [
        (*way, keep, refit) for keep, way, refit in itertools.product(KEEPS, WAYS, (True, False))
    ]
    for number, (method, scope, score, share, keep, refit) in enumerate(cuts):
        named = {"method": method, "scope": scope, "keep": keep, "refit": refit}
        if any(named.items() <= row.items() for row in found["rows"]):
            continue
        order = allocation.Order(
            allocation.REAL, "wikitext", 0, score, share, "refit" if refit else "cut", keep
        )
        cost = loss(measured, order)
        small = draw.cut(draw.masks(order), refit)
        texts = continued(small, draw.tokenizer, PROMPTS, TOKENS)
        for prompt, text in enumerate(texts):
            found["rows"].append({"prompt": prompt, **named, "text": text, "loss": cost})
        write(found)
        print(f"{number + 1} of {len(cuts)}: {named}: loss {cost:.3f}: {texts[0]!r}", flush=True)


def loss(measured: dict[str, dict[str, Any]], order: allocation.Order) -> float:
    """Nats per token of the test text, as allocation.py measured them."""
    if order.name not in measured:
        sys.exit(f"{RESULTS.name} has no row {order.name}: run benchmarks/quality/allocation.py.")
    return round(measured[order.name]["loss"], 4)


if __name__ == "__main__":
    main()
