"""The same seeds give the same bits: run a fixed set of small runs and compare their digests.

    python tools/same_numbers.py record FILE    # write a digest of every run
    python tools/same_numbers.py compare FILE   # run again and compare; exit code 1 if any differs

For whoever rebuilds the package without meaning to change what it computes: record on the old
commit, compare on the new one, on the same machine with the same versions and threads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gumlab as gl

STEPS = 40


def digest(*values: Any) -> str:
    """The first 16 hex digits of the SHA-256 of some tensors and numbers, bit for bit."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, list | tuple):
            found.update(digest(*value).encode())
        elif isinstance(value, dict):
            flat = [item for pair in sorted(value.items()) for item in pair]
            found.update(digest(*flat).encode())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:16]


def trained(base: str, task_name: str, method: str, keep: float, **options: Any) -> str:
    """Masks, losses, weights and evaluation of a model pruned while it trains."""
    model, tokenizer = gl.load(base)
    task = gl.load_task(task_name)
    teacher = gl.load(base)[0] if options.pop("distil", False) else None
    pruner = gl.Pruner(model, method, keep, STEPS, **options)
    history = gl.train(
        model,
        tokenizer,
        task,
        steps=STEPS,
        pruner=pruner,
        teacher=teacher,
        batch_size=8,
        record=10,
        progress=False,
    )
    masks = getattr(pruner, "original_masks", None) or pruner.masks
    small = gl.shrink(model, pruner.masks)
    scores = gl.evaluate(small, tokenizer, task, limit=60, generated=10)
    frames = [
        [frame.step, frame.masks, [s[m] for s, m in zip(frame.scores, frame.masks, strict=True)]]
        for frame in history.frames
    ]
    return digest(
        masks,
        history.losses,
        history.kept,
        frames,
        list(small.parameters()),
        scores,
        pruner.returned,
    )


def cut_once(base: str, task_name: str, method: str, keep: float, **options: Any) -> str:
    """Weights and evaluation of a model that is pruned without training."""
    model, tokenizer = gl.load(base)
    task = gl.load_task(task_name)
    small = gl.prune(model, method, tokenizer, task, keep=keep, **options)
    scores = gl.evaluate(small, tokenizer, task, limit=60, generated=10)
    return digest(list(small.parameters()), scores)


def report(base: str, task_name: str) -> str:
    """Every figure of a redundancy report, and the scores that need gradients."""
    model, tokenizer = gl.load(base)
    task = gl.load_task(task_name)
    found = gl.redundancy(model, tokenizer, task, limit=64)
    scores = [gl.score(model, name, tokenizer, task, limit=64) for name in ("taylor", "fisher")]
    filtered = gl.select(found.obs, 0.3, "global", floor=4, multiple_of=8, grams=found.gram)
    return digest(
        found.sensitivity,
        found.max_cosine,
        found.twin,
        found.unique,
        found.reconstructability,
        found.obs,
        found.effective_rank,
        found.uniqueness,
        scores,
        filtered,
    )


RUNS: dict[str, Callable[[], str]] = {
    "random, tiny-gpt-neo": lambda: trained("tiny-gpt-neo", "restaurants", "random", 0.25),
    "random, distilled, tiny-gpt2": lambda: trained(
        "tiny-gpt2", "restaurants", "random", 0.25, distil=True, seed=3
    ),
    "magnitude, tables, tiny-gpt-neo": lambda: trained("tiny-gpt-neo", "tables", "magnitude", 0.5),
    "movement, layer, tiny-gpt2": lambda: trained(
        "tiny-gpt2", "restaurants", "movement", 0.25, scope="layer"
    ),
    "movement, global, gate gradient, tiny-llama": lambda: trained(
        "tiny-llama", "restaurants", "movement", 0.25, scope="global", gradient="gate", floor=10
    ),
    "soft movement, tiny-gpt-neo": lambda: trained(
        "tiny-gpt-neo", "restaurants", "soft_movement", 0.5
    ),
    "GUM, tiny-gpt-neo": lambda: trained(
        "tiny-gpt-neo", "restaurants", "gum", 0.25, lambda_gum=4.0
    ),
    "GUM, twin filter, gate gradient, tiny-twins": lambda: trained(
        "tiny-twins", "restaurants", "gum", 0.25, gradient="gate", twin_filter=0.8
    ),
    "GUM, final, exact sums, tiny-llama": lambda: trained(
        "tiny-llama", "chats", "gum", 0.5, final=True, gram_every=1, gram_tokens=1.0
    ),
    "GUM, cut, twin filter, tiny-twins": lambda: trained(
        "tiny-twins", "restaurants", "gum", 0.25, cut=True, twin_filter=0.8, multiple_of=8
    ),
    "magnitude, cut, tiny-gpt2": lambda: trained(
        "tiny-gpt2", "tables", "magnitude", 0.25, cut=True
    ),
    "movement, cut, gate gradient, tiny-gpt-neo": lambda: trained(
        "tiny-gpt-neo", "restaurants", "movement", 0.25, cut=True, gradient="gate"
    ),
    "OBS while training, not frozen, tiny-wide": lambda: trained(
        "tiny-wide", "tables", "obs", 0.25, freeze=False, final=True
    ),
    "random at fixed widths, tiny-gpt2": lambda: trained(
        "tiny-gpt2", "restaurants", "random", 0.25, widths=[200, 150, 100, 62], start=0.0
    ),
    "recommended, tiny-llama": lambda: cut_once("tiny-llama", "restaurants", "recommended", 0.25),
    "FLAP, bias refit, standardised, tiny-gpt2": lambda: cut_once(
        "tiny-gpt2", "restaurants", "flap", 0.5, refit="bias", scope="global", standardise=True
    ),
    "Wanda, no refit, tiny-gpt-neo": lambda: cut_once(
        "tiny-gpt-neo", "tables", "wanda", 0.5, refit=False, multiple_of=16
    ),
    "redundancy report, tiny-twins": lambda: report("tiny-twins", "restaurants"),
    "redundancy report, tiny-llama": lambda: report("tiny-llama", "chats"),
}


def digests() -> dict[str, str]:
    """The digest of each run, by its name."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = {}
    for name, run in RUNS.items():
        torch.manual_seed(0)
        found[name] = run()
        print(f"{found[name]}  {name}", flush=True)
    return found


def main() -> int:
    """Record or compare; 1 where a run differs from its record."""
    action, path = sys.argv[1], Path(sys.argv[2])
    found = digests()
    if action == "record":
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    recorded = json.loads(path.read_text(encoding="utf-8"))
    differ = [name for name, value in recorded.items() if found.get(name) != value]
    print(f"{len(recorded) - len(differ)} of {len(recorded)} runs equal bit for bit.")
    for name in differ:
        print(f"differs: {name}: {recorded[name]} was, {found.get(name)} is")
    return int(bool(differ))


if __name__ == "__main__":
    raise SystemExit(main())
