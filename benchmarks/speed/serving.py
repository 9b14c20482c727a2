"""How large and how fast a pruned model is in llama.cpp, dense beside cut: results/serving.md.

    python benchmarks/speed/serving.py [--base smollm2-135m] [--keep 0.5] [--threads 1 2]

The base is cut by Wanda's score on restaurants to a fraction of its neurons: all layers of one
width, one budget over all layers, and the same with widths that are multiples of 32, 64 and 256.
Each is exported as f32, f16 and q8_0. The files of one type take turns (`gumlab.serving.compare`),
in an order drawn anew each time, at each thread count: a prompt of 128 tokens is read, 64 are
written. Memory is what a process of its own takes for opening a file and one such turn, at the most
(with what it maps of the file).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

DTYPES = ("f32", "f16", "q8_0")
CUTS = {
    "equal widths": {"scope": "layer"},
    "equal, multiple of 32": {"scope": "layer", "multiple_of": 32},
    "unequal widths": {"scope": "global"},
    "unequal, multiple of 32": {"scope": "global", "multiple_of": 32},
    "unequal, multiple of 64": {"scope": "global", "multiple_of": 64},
    "unequal, multiple of 256": {"scope": "global", "multiple_of": 256},
}
QUICK_CUTS = ("equal widths", "unequal, multiple of 32")
TOKENS, DECODED = 128, 64


def at_hand() -> str:
    """The fetched base, or a built-in model where it was not fetched."""
    import gumlab as gl
    from gumlab.io.bases import base_folder

    try:
        base_folder("smollm2-135m")
    except gl.GumlabError:
        return "tiny-llama"
    return "smollm2-135m"


def models_of(base: str, keep: float, quick: bool) -> tuple[dict[str, Any], Any]:
    """The base and what was cut of it, by name; and the tokenizer. In a trial two cuts."""
    import gumlab as gl

    dense, tokenizer = gl.load(base, device="cpu")
    task = gl.load_task("restaurants")
    scores = gl.score(dense, "wanda", tokenizer, task, limit=8 if quick else 128)
    models = {"dense": dense}
    for name in QUICK_CUTS if quick else CUTS:
        try:
            models[name] = gl.shrink(dense, gl.select(scores, keep=keep, **CUTS[name]))
        except gl.GumlabError as error:  # too few neurons for such multiples
            print(f"{name} is left out: {error}", flush=True)
    return models, tokenizer


def memory(order: Mapping[str, Any]) -> dict[str, float]:
    """In a child process: the MB that opening a file and one turn take at the most."""
    from gumlab.serving import LlamaCpp

    def turn() -> None:
        context = order["tokens"] + order["decoded"]
        opened = LlamaCpp(order["path"], threads=1, context=context)
        prompt = [5] * min(order["tokens"], opened.context // 2)
        opened.complete(prompt, tokens=order["decoded"], ignore_eos=True)

    _, spent = harness.measured(turn)
    return {"MB": spent["MB"]}


def rows_of(
    models: Mapping[str, Any], tokenizer: Any, dtype: str, folder: Path, args: argparse.Namespace
) -> list[dict[str, str]]:
    """A row of the report for each model, as a file of one type."""
    import gumlab as gl
    from gumlab.serving import compare

    files = {}
    for name, model in models.items():
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.gguf"
        files[name] = gl.export(model, tokenizer, path, dtype=dtype)
    tokens, decoded = args.tokens, args.decoded
    found = compare(
        list(files.values()),
        threads=args.threads,
        tokens=tokens,
        decoded=decoded,
        repeats=max(args.rounds, 2),
    )
    dense = found[str(files["dense"])]
    rows = []
    for name, path in files.items():
        figures = found[str(path)]
        order = {"path": str(path), "tokens": tokens, "decoded": decoded}
        taken = harness.child(__file__, order)
        widths = figures["widths"]
        row = {
            "numbers": figures["numbers"],
            "model": name,
            "architecture": figures["architecture"],
            "widths": f"{min(widths)} to {max(widths)}",
            "parameters": f"{figures['parameters']:,}",
            "file, MB": f"{figures['file_bytes'] / 1e6:.1f}",
            "memory, MB": f"{taken['MB']:.0f}" if "MB" in taken else taken["error"],
        }
        for speed, before in zip(figures["speed"], dense["speed"], strict=True):
            with_threads = f"{speed['threads']} thread(s)"
            for what, key in (("read", "prefill_tokens_per_s"), ("write", "decode_tokens_per_s")):
                low, high = speed[f"{key}_quartiles"]
                row[f"{what}/s, {with_threads}"] = f"{speed[key]:.0f} ({low:.0f} to {high:.0f})"
                row[f"{what}, x dense, {with_threads}"] = f"{speed[key] / before[key]:.2f}"
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    harness.answer(memory)
    parser = harness.options(__doc__, rounds=12)
    parser.add_argument("--base", help="a model (default: smollm2-135m if fetched, or tiny-llama)")
    parser.add_argument("--keep", type=float, default=0.5, help="of the neurons (default: 0.5)")
    parser.add_argument("--threads", type=int, nargs="+", help="(default: 1, and all cores)")
    args = harness.parsed(parser)
    args.tokens, args.decoded = (16, 8) if args.quick else (TOKENS, DECODED)
    base = args.base or at_hand()
    models, tokenizer = models_of(base, args.keep, args.quick)
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for dtype in DTYPES[-1:] if args.quick else DTYPES:
        with tempfile.TemporaryDirectory(dir=args.runs, prefix="serving-") as folder:
            rows += rows_of(models, tokenizer, dtype, Path(folder), args)
    text = (
        "# A pruned model in llama.cpp\n\n"
        f"{harness.made_by(f'{args.command} --base {base} --keep {args.keep:g}')} llama.cpp as in "
        f"xllamacpp {_version()}, {harness.machine()}; {max(args.rounds, 2)} turns of each file. "
        "Tokens a second: median, and quartiles in brackets; read: of a prompt of "
        f"{args.tokens} tokens, write: one token at a time. The first of a file's numbers is the "
        "type of most of its weights: in q8_0, rows that are no multiple of 32 stay in float16.\n\n"
        f"{harness.markdown(rows)}"
    )
    harness.write(args, "serving.md", text)


def _version() -> str:
    from importlib.metadata import version

    return version("xllamacpp")


if __name__ == "__main__":
    main()
