"""A billion parameters on a machine of 24 GB: results/billion.md and billion.png.

    python benchmarks/speed/billion.py [--device cuda]
    python benchmarks/speed/billion.py --offload

Half of the neurons of a Llama-shaped model of 1.1 billion random weights in bfloat16, scored, then
refitted and cut in place: by OBS in equal shares, which must never need more than 1.3 times the
model's own memory, and by the recommended recipe, greedy OBS priced by the loss, which also needs a
backward pass. Smaller models then say how seconds and memory of OBS grow with the width, the tokens
and the layers, and what a model of 70 billion would need. Each size is a process of its own, which
warms up on a toy model.

With --offload, only results/offload.md: the large model is written to a folder once, and opened
from there whole and offloaded to disk (`device_map`), by a process each; both score, refit, cut and
save it, and must do the same. Where this process may make control groups (as root, cgroup v1), the
offloaded one's memory is limited to LIMIT of the model's: who takes more is killed.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import numpy as np
import pandas as pd
import torch

import gumlab as gl
from gumlab.removal import recommended
from gumlab.tasks import Example
from gumlab.tasks.batches import token_stream

METHODS = ("obs", "recommended")
BUDGET = 1.3  # memory at its highest, in models
PLACES = ("whole", "offloaded")
LIMIT = 0.6  # of the model: what a limited process may take beyond what it held before
SMALLEST_LIMIT = 5e8  # bytes: the libraries' own
GROUPS = Path("/sys/fs/cgroup/memory")
DOUBLE = 30e12  # operations a second in float64 of one 80 GB GPU, assumed
BUS = 25e9  # bytes a second between it and the machine's memory, assumed


@dataclass(frozen=True)
class Size:
    """A Llama's shape, and how many tokens of running text it is measured on, or a few more."""

    d: int = 512
    width: int = 1408
    layers: int = 4
    tokens: int = 1024
    heads: int = 8
    shared: int = 1
    vocabulary: int = 1024
    method: str = "obs"
    device: str = "cpu"

    def layer(self) -> int:
        """Weights of a layer, norms apart."""
        return self.d * (3 * self.width + 2 * self.d * (self.heads + self.shared) // self.heads)

    def operations(self) -> dict[str, float]:
        """Of one layer: three passes and a Gram matrix twice; factor, inverse and refit."""
        n = self.width
        kept = n / 2
        passes = 3 * 2 * self.tokens * self.layer() + 2 * 2 * self.tokens * n**2
        refit = kept**3 / 3 + 2 * kept**2 * self.d + 2 * kept * (n - kept) * self.d
        return {"passes": passes, "float64": n**3 + refit}

    def working_set(self) -> float:
        """Bytes: G in float32, and in float64 with the ridge, where its inverse takes its place."""
        return (4 + 8) * self.width**2


WHOLE = Size(2048, 5632, 22, 2048, 32, 4, 32_000)
SEVENTY = Size(8192, 28_672, 80, 2048, 64, 8, 128_256)
TOY = Size(64, 128, 2, 128, 4, 1)
QUICK = {"width": (1, 2), "tokens": (1, 2), "layers": (1, 2)}
FACTORS = {"width": (0.5, 1, 2, 4), "tokens": (0.5, 1, 2, 4), "layers": (0.5, 1, 2)}


def build(size: Size) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.d,
        intermediate_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.shared,
        max_position_embeddings=512,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


@functools.cache
def task() -> Any:
    return gl.load_task("restaurants")


def text_of(tokens: int, tokenizer: Any) -> list[Example]:
    """Running text of a built-in task: as few examples as have that many tokens."""
    examples = []
    count = 0
    for example in task().train:
        examples.append(Example("", example.target))
        count += len(token_stream(tokenizer, examples[-1:]))
        if count >= tokens:
            break
    return examples


def memory(device: str, anew: bool = False) -> float:
    """MB that were held at most, on a GPU of its own memory; anew: from now on."""
    if device == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    if anew:
        harness.forget_high_water()
    return harness.high_water()


def perform(size: Size) -> dict[str, float]:
    """Build, score, refit and cut; seconds, and bytes beyond what the process held before."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(harness.TOKENIZER)
    prune(size.method, build(TOY), tokenizer, text_of(TOY.tokens, tokenizer))
    examples = text_of(size.tokens, tokenizer)
    before = memory(size.device, anew=True)
    model = build(size).to(size.device)
    size_before = {
        "model": sum(p.nbytes for p in model.parameters()) / 1e6,
        "parameters": sum(p.numel() for p in model.parameters()),
        "built": memory(size.device) - before,
    }
    spent = prune(size.method, model, tokenizer, examples)
    return {
        **size_before,
        **spent,
        "tokens": len(token_stream(tokenizer, examples)),
        "peak": memory(size.device) - before,
        "left": sum(p.numel() for p in model.parameters()),
    }


def prune(method: str, model: Any, tokenizer: Any, examples: list[Example]) -> dict[str, float]:
    """Seconds of the scores, and of the refit and the cut; a sequence at a time."""
    began = time.perf_counter()
    masks = chosen(method, model, tokenizer, examples)
    scored = time.perf_counter()
    cut(model, masks, tokenizer, examples)
    return {"score": scored - began, "shrink": time.perf_counter() - scored}


def chosen(method: str, model: Any, tokenizer: Any, examples: list[Example]) -> list[torch.Tensor]:
    """Half of the neurons: of each layer's by a score, or by the recommended recipe."""
    recipe = {"method": method, "currency": "output", "scope": "layer"}
    if method == "recommended":
        recipe = recommended()
    scores = gl.score(
        model,
        recipe["method"],
        tokenizer,
        examples,
        currency=recipe["currency"],
        batch_size=1,
        limit=None,
    )
    return gl.select(scores, 0.5, recipe["scope"])


def cut(model: Any, masks: list[torch.Tensor], tokenizer: Any, examples: list[Example]) -> None:
    """Refit and cut a model in place, a layer at a time."""
    gl.shrink(
        model, masks, tokenizer, examples, refit=True, in_place=True, batch_size=1, limit=None
    )


def limit_memory(size: Size) -> float:
    """From here on this process may hold that many bytes more, files' pages included.

    Infinity where no control group can be made.
    """
    weights = 2 * (size.layers * size.layer() + 2 * size.vocabulary * size.d)  # bfloat16
    most = int(max(SMALLEST_LIMIT, LIMIT * weights))
    group = GROUPS / f"gumlab-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(most))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return float("inf")
    return most


def perform_from(folder: Path, place: str, size: Size, limited: bool) -> dict[str, Any]:
    """Open a model that was written, score, refit, cut and save it; seconds, bytes, checksums."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(harness.TOKENIZER)
    prune(size.method, build(TOY), tokenizer, text_of(TOY.tokens, tokenizer))
    examples = text_of(size.tokens, tokenizer)
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    if place == "offloaded":
        options |= {"device_map": {"": "disk"}, "offload_folder": folder / "away"}
    harness.forget_high_water()
    before = harness.high_water()
    limit = limit_memory(size) if limited else math.inf
    times = [time.perf_counter()]
    model = AutoModelForCausalLM.from_pretrained(folder / "model", **options).eval()
    times.append(time.perf_counter())
    sizes = {
        "model": sum(p.nbytes for p in model.parameters()) / 1e6,
        "parameters": sum(p.numel() for p in model.parameters()),
        "layer": size.layer() * 2 / 1e6,
    }
    masks = chosen(size.method, model, tokenizer, examples)
    times.append(time.perf_counter())
    cut(model, masks, tokenizer, examples)
    times.append(time.perf_counter())
    gl.save(model, tokenizer, folder / place)
    times.append(time.perf_counter())
    spent = dict(zip(("open", "score", "shrink", "save"), np.diff(times).tolist(), strict=True))
    peak = harness.high_water() - before
    checksum = hashlib.sha256(b"".join(mask.numpy().tobytes() for mask in masks)).hexdigest()
    return {
        "place": place,
        "limit": limit / 1e6,
        **sizes,
        **spent,
        "peak": peak,
        "masks": checksum,
        "weights": weights_checksum(folder / place),
    }


def weights_checksum(folder: Path) -> str:
    """Of a saved model's weights by their names, in whichever files they are."""
    from safetensors import safe_open

    total = hashlib.sha256()
    homes = {}
    for path in folder.glob("*.safetensors"):
        file = safe_open(path, "pt")
        homes.update(dict.fromkeys(list(file.keys()), file))
    for name in sorted(homes):
        total.update(name.encode())
        total.update(homes[name].get_tensor(name).flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def in_a_child(order: dict[str, Any]) -> dict[str, Any]:
    """What a child process is told to do: `perform`, to write a model, or `perform_from`."""
    size = Size(**order["size"])
    if "folder" not in order:
        return perform(size)
    folder = Path(order["folder"])
    if order["place"] == "written":
        build(size).save_pretrained(folder / "model")
        return {}
    return perform_from(folder, order["place"], size, order["limited"])


def child(size: Size) -> dict[str, float]:
    """`perform` in a process of its own; a run that fails ends the program."""
    found = told({"size": asdict(size)})
    row = asdict(size) | found
    print(row, flush=True)
    return row


def told(order: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own answers; one that fails ends the program."""
    found = harness.child(__file__, order)
    if "error" in found:
        sys.exit(f"{order}: {found['error']}")
    return found


def both_places(size: Size) -> list[dict[str, Any]]:
    """A row for each of PLACES, of one model in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="billion-") as folder:
        order = {"size": asdict(size), "folder": folder}
        told(order | {"place": "written"})
        rows = [told(order | {"place": p, "limited": p == "offloaded"}) for p in PLACES]
    for group in GROUPS.glob("gumlab-*"):
        with suppress(OSError):  # one that is still in use
            group.rmdir()
    return rows


def growth(
    base: Size,
    rounds: int,
    factors: Mapping[str, Sequence[float]],
    run: Callable[[Size], dict[str, float]] = child,
) -> dict[str, pd.DataFrame]:
    """By panel, a row a size: seconds (median of the rounds) and MB beyond the model."""
    sizes = {
        name: [replace(base, **{name: int(factor * getattr(base, name))}) for factor in panel]
        for name, panel in factors.items()
    }
    once = list(dict.fromkeys(size for panel in sizes.values() for size in panel))
    rows = harness.in_turns(once, rounds, lambda size, _: run(size))
    medians = {size: pd.DataFrame(found).median(numeric_only=True) for size, found in rows.items()}
    panels = {name: pd.DataFrame([medians[s] for s in found]) for name, found in sizes.items()}
    return {
        name: table.assign(seconds=table.score + table.shrink, beyond=table.peak - table.model)
        for name, table in panels.items()
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """b of the least squares fit log y = a + b log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(panels: Mapping[str, pd.DataFrame]) -> Any:
    """Seconds and memory beyond the model against width, tokens and layers; first size = 1."""
    from gumlab.course.plots.figure import BLUE, ORANGE, new_figure

    figure, axes = new_figure(3, width=9.0, height=3.0)
    for ax, (name, rows) in zip(axes, panels.items(), strict=True):
        for key, style, colour in (("seconds", "o-", BLUE), ("beyond", "s--", ORANGE)):
            label = "seconds" if key == "seconds" else "memory beyond the model"
            ax.plot(rows[name], rows[key] / rows[key].iloc[0], style, color=colour, label=label)
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.set_xticks(rows[name], [f"{x:,.0f}" for x in rows[name]])
        ax.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        ax.minorticks_off()
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:  # one scale, so that slopes compare
        ax.set_ylim(0.8, top)
    axes[0].set_ylabel("in those of the smallest")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def whole_text(size: Size, rows: Mapping[str, Mapping[str, float]]) -> str:
    """What each method needs of the large model."""
    one = rows["obs"]
    ratio = one["peak"] / one["model"]
    table = [
        {
            "what": what,
            **{method: value(row) for method, row in rows.items()},
        }
        for what, value in (
            ("the model, MB", lambda row: f"{row['model']:,.0f}"),
            ("memory at its highest, MB", lambda row: f"{row['peak']:,.0f}"),
            ("the same, in models", lambda row: f"{row['peak'] / row['model']:.2f}"),
            ("built, and no more, MB", lambda row: f"{row['built']:,.0f}"),
            ("scores, s a layer", lambda row: f"{row['score'] / size.layers:.2f}"),
            ("refit and cut, s a layer", lambda row: f"{row['shrink'] / size.layers:.2f}"),
            ("all, s", lambda row: f"{row['score'] + row['shrink']:,.0f}"),
            ("parameters left, billions", lambda row: f"{row['left'] / 1e9:.2f}"),
        )
    ]
    return f"""## {one["parameters"] / 1e9:.2f} billion parameters

{size.layers} layers, d = {size.d:,}, {size.width:,} neurons, {size.heads} heads and {size.shared}
of keys and values, a vocabulary of {size.vocabulary:,}; {one["tokens"]:,} tokens.

{harness.markdown(table)}
OBS's budget is {BUDGET} models: {"kept" if ratio <= BUDGET else "exceeded"}.
"""


def growth_text(base: Size, panels: Mapping[str, pd.DataFrame]) -> str:
    rows = [
        {
            "what grows": name,
            "from, to": f"{table[name].iloc[0]:,.0f}, {table[name].iloc[-1]:,.0f}",
            "seconds, exponent": f"{exponent(table[name], table.seconds):.2f}",
            "memory beyond the model, exponent": f"{exponent(table[name], table.beyond):.2f}",
        }
        for name, table in panels.items()
    ]
    return f"""## Growth

Around {base.layers} layers, d = {base.d}, {base.width:,} neurons, {base.tokens:,} tokens; one thing
grows at a time. The exponent b is that of the least squares line log y = a + b log x. Over sizes
this small the fixed costs still count, and lower it.

{harness.markdown(rows)}
![Seconds and memory against width, tokens and layers](billion.png)
"""


def seventy_text(whole: Size, row: Mapping[str, float], panels: Mapping[str, pd.DataFrame]) -> str:
    """What a streamed model of 70 billion would need: arithmetic, nothing here was run."""
    big = SEVENTY
    widths = panels["width"]
    lengths = panels["tokens"]
    wider = big.width / whole.width
    longer = big.tokens / whole.tokens
    measured_beyond = (row["peak"] - row["model"]) / 1e3
    beyond = measured_beyond * wider ** exponent(widths.width, widths.beyond)
    weights = 2 * big.layer() / 1e9  # bfloat16
    states = 2 * 2 * big.tokens * big.d * 2 / 1e9
    per_layer = (row["score"] + row["shrink"]) / whole.layers
    by_width = wider ** exponent(widths.width, widths.seconds)
    by_tokens = longer ** exponent(lengths.tokens, lengths.seconds)
    by_exponents = by_width * by_tokens * per_layer * big.layers / 3600
    counted = sum(big.operations().values()) / sum(whole.operations().values())
    by_operations = counted * per_layer * big.layers / 3600
    double = big.layers * big.operations()["float64"] / DOUBLE
    moved = 3.5 * big.layers * weights * 1e9 / BUS
    need = 2 * weights + states + max(beyond, big.working_set() / 1e9)
    return f"""## On paper: 70 billion, one GPU of 80 GB

Not run. {big.layers} layers, d = {big.d:,}, {big.width:,} neurons, {big.tokens:,} tokens, bfloat16;
the weights lie in the machine's memory and visit the GPU a layer at a time.

| what | value | from |
|---|---|---|
| a layer's weights | {weights:.1f} GB, twice while the next one comes | shapes |
| what is kept between layers | {states:.2f} GB | shapes |
| beyond the weights | {beyond:.1f} GB | the run above, and the exponent of the width |
| the same | {big.working_set() / 1e9:.1f} GB | 12 N^2 bytes: G, and its inverse in float64 |
| together, at most | {need:.1f} of 80 GB | the larger of the two |
| time on this processor | {by_exponents:,.0f} hours | the run above, and the exponents |
| the same | {by_operations:,.0f} hours | the run above, and the number of operations |
| float64 on the GPU | {double / 60:,.1f} minutes | N^3 and more a layer |
| weights moved | {moved / 60:,.1f} minutes | three visits and a half of a layer |

Assumed, not measured: the GPU's {DOUBLE / 1e12:.0f} TFLOP/s in float64 and the bus's
{BUS / 1e9:.0f} GB/s; that the factorisations reach the first, and the copies the second; that
exponents of small widths hold for a large one. A layer's visits: once to be scored, twice to be
refitted and run again, and half of it goes back.
"""


def report(
    command: str,
    whole: Size,
    rows: Mapping[str, Mapping[str, float]],
    base: Size,
    panels: Mapping[str, Any],
    rounds: int,
) -> str:
    """results/billion.md."""
    return f"""# A billion parameters on 24 GB

{harness.made_by(command)} {harness.machine()}. Random weights in bfloat16, half of
the neurons, refit behind the layers already cut, in place; a layer at a time. MB: how
far the process's high-water mark (VmHWM; on a GPU what torch held there) rose above what it held
before the model was built. The smaller models ran {rounds} times, by OBS; the large one once by
each method.

{whole_text(whole, rows)}
{growth_text(base, panels)}
{seventy_text(whole, rows["obs"], panels)}"""


def offload_report(command: str, size: Size, rows: Sequence[Mapping[str, Any]]) -> str:
    """results/offload.md."""
    layers = size.layers

    def line(what: str, shown: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
        return {"what": what, **{row["place"]: shown(row) for row in rows}}

    table = [
        line("the model", lambda row: f"{row['model']:,.0f} MB"),
        line("one of its layers", lambda row: f"{row['layer']:,.0f} MB"),
        line(
            "memory at its highest",
            lambda row: f"{row['peak']:,.0f} MB, {row['peak'] / row['model']:.2f} models",
        ),
        line("opened", lambda row: f"{row['open']:.1f} s"),
        line("scores, a layer", lambda row: f"{row['score'] / layers:.2f} s"),
        line("refit and cut, a layer", lambda row: f"{row['shrink'] / layers:.2f} s"),
        line("saved", lambda row: f"{row['save']:.1f} s"),
    ]
    verdicts = {
        key: "the same" if rows[0][key] == rows[1][key] else "NOT the same"
        for key in ("masks", "weights")
    }
    limit = "The memory of neither process was limited."
    if rows[1]["limit"] < math.inf:
        limit = (
            "The offloaded process ran in a control group that may hold "
            f"{rows[1]['limit']:,.0f} MB, pages of files\nincluded, beyond what it held before the "
            "model was opened."
        )
    shape = f"{layers} layers, d = {size.d:,}, {size.width:,} neurons; {size.tokens:,} tokens"
    return f"""# A model that does not fit into memory

{harness.made_by(command)} {harness.machine()}. {rows[0]["parameters"] / 1e9:.2f} billion random
weights in bfloat16: {shape}.
The model was opened from one folder, whole, and with all of its weights offloaded to disk; then OBS
scores, half of every layer's neurons, refit behind the layers already cut, in place, and saved. MB:
how far the process's high-water mark (VmHWM) rose above what it held before the model was opened;
pages of files that it reads count.

{harness.markdown(table)}
{limit}

The masks of both are {verdicts["masks"]}, and the weights in the saved folders, bit for bit, are
{verdicts["weights"]}. Beside a layer's weights an offloaded model needs square matrices of the
layer's neurons: a Gram matrix takes {size.width**2 * 4 / 1e6:,.0f} MB in float32, a copy in float64
twice that.
"""


def main() -> None:
    harness.answer(in_a_child)
    parser = harness.options(__doc__, rounds=3, device=True)
    parser.add_argument("--offload", action="store_true", help="offloaded to disk beside whole")
    args = harness.parsed(parser)
    if args.offload:
        size = TOY if args.quick else WHOLE
        text = offload_report(f"{args.command} --offload", size, both_places(size))
        harness.write(args, "offload.md", text)
        return
    sizes, factors = ((TOY, TOY), QUICK) if args.quick else ((WHOLE, Size()), FACTORS)
    whole, base = (replace(size, device=args.device) for size in sizes)
    panels = growth(base, args.rounds, factors)
    harness.save_figure(args, "billion.png", draw(panels))
    rows = {method: child(replace(whole, method=method)) for method in METHODS}
    text = report(args.command, whole, rows, base, panels, args.rounds)
    harness.write(args, "billion.md", text)


if __name__ == "__main__":
    main()
