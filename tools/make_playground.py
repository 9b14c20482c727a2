"""Make the data of the site's playground: docs/_static/playground_data.js.

    python tools/make_playground.py           # all of it: a few minutes on one core
    python tools/make_playground.py --real    # only what the assets hold of a real model: at once

The page has no kernel, so every state of its controls is measured here: tiny-gpt2 on restaurants,
cut by each score, scope and share kept, with and without the refit; its loss, who stays, and what
it writes after three prompts. What gumlab/assets/real_sentences.json holds of a real model is
taken as it is.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gumlab as gl
from gumlab.course.bench import Workbench
from gumlab.io.loading import ASSETS

OUT = Path(__file__).parents[1] / "docs" / "_static" / "playground_data.js"
NAME = "window.gumlabPlayground = "
REAL = ASSETS / "real_sentences.json"
MODEL, TASK = "tiny-gpt2", "restaurants"
METHODS = ("random", "magnitude", "taylor", "obs", "greedy_obs")
SCOPES = ("layer", "global")
KEEPS = tuple(range(10, 100, 10))  # in percent
PROMPTS = 3
TOKENS = 30
EXAMPLES = 60  # of the test split, for the loss
CALIBRATION = 64  # training examples that scores and refits see


def cuts(
    bench: Workbench,
    methods: Sequence[str] = METHODS,
    scopes: Sequence[str] = SCOPES,
    keeps: Sequence[int] = KEEPS,
) -> Iterator[dict[str, Any]]:
    """Every cut as the page reads it."""
    for method in methods:
        scores = gl.score(bench.model, method, bench.tokenizer, bench.task, limit=CALIBRATION)
        for scope, keep, refit in itertools.product(scopes, keeps, (False, True)):
            masks = gl.select(scores, keep / 100, scope)
            small = gl.shrink(
                bench.model, masks, bench.tokenizer, bench.task, refit=refit, limit=CALIBRATION
            )
            cut = {"method": method, "scope": scope, "keep": keep, "refit": refit}
            if not refit:  # the refit changes nothing about who stays
                cut["mask"] = packed(masks)
            yield {**cut, "loss": round(bench.loss(small), 3), "texts": texts(bench, small)}


def texts(bench: Workbench, model: torch.nn.Module) -> list[str]:
    """What a model writes after the first test prompts."""
    return [bench.writes(model, example, TOKENS) for example in bench.task.test[:PROMPTS]]


def packed(masks: Sequence[Tensor]) -> str:
    """The masks of all layers one after the other, a bit for each neuron, in base64."""
    bits = np.concatenate([mask.cpu().numpy() for mask in masks])
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def rounded(numbers: Sequence[Tensor]) -> list[list[float]]:
    """The numbers of each layer with three digits that count."""
    return [[float(f"{number:.3g}") for number in layer.tolist()] for layer in numbers]


def tiny(bench: Workbench) -> dict[str, Any]:
    """All that the page knows of the built-in model, but for its cuts."""
    report = gl.redundancy(bench.model, bench.tokenizer, bench.task, limit=CALIBRATION)
    return {
        "name": f"{MODEL} on {TASK}",
        "judged_on": f"{EXAMPLES} test texts",
        "widths": [layer.width for layer in bench.layers],
        "sensitivity": rounded(report.sensitivity),
        "uniqueness": rounded(report.exact_uniqueness),
        "prompts": [example.prompt for example in bench.task.test[:PROMPTS]],
        "dense": texts(bench, bench.model),
        "dense_loss": round(bench.loss(), 3),
    }


def real() -> dict[str, Any] | None:
    """The stored texts of a real model in the same form; None where there are none."""
    if not REAL.exists():
        return None
    stored = json.loads(REAL.read_text(encoding="utf-8"))
    by_cut: dict[tuple, dict[str, Any]] = {}
    for row in stored["rows"]:
        named = {"method": row["method"], "scope": row.get("scope", "layer")}
        named |= {"keep": round(100 * row["keep"]), "refit": row["refit"]}
        cut = by_cut.setdefault(tuple(named.values()), {**named, "loss": row["loss"], "texts": []})
        cut["texts"].append(row["text"])  # the rows of a cut stand in the prompts' order
    whole = [cut for cut in by_cut.values() if len(cut["texts"]) == len(stored["prompts"])]
    return {
        "name": stored["made_with"]["model"],
        "judged_on": stored["made_with"]["test"],
        "prompts": stored["prompts"],
        "dense": stored["dense"],
        "dense_loss": stored["dense_loss"],
        "cuts": whole,
    }


def read() -> dict[str, Any]:
    """The data that is stored."""
    return json.loads(OUT.read_text(encoding="utf-8").removeprefix(NAME).rstrip().rstrip(";"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="renew only the real model's texts")
    if parser.parse_args().real:
        models = read()[:1]
    else:
        torch.set_num_threads(1)
        bench = gl.workbench(MODEL, TASK, examples=EXAMPLES)
        models = [{**tiny(bench), "cuts": []}]
        for cut in cuts(bench):
            models[0]["cuts"].append(cut)
            print(cut["method"], cut["scope"], cut["keep"], cut["loss"], flush=True)
    stored = real()
    if stored is not None:
        models.append(stored)
    text = json.dumps(models, ensure_ascii=False, separators=(",", ":"))
    lines = text.replace('{"method"', '\n{"method"')  # a cut on each line
    OUT.write_text(f"{NAME}{lines};\n", encoding="utf-8")
    print(f"{OUT.name}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
