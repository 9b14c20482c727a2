"""gumlab beside other ways to do the same: results/peers.md and peers.png.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/peers.py

The work: magnitude, half of the neurons of every layer, a Llama-shaped model with random weights
(12 layers, d = 768, 3,072 neurons, 1,024 tokens). The contenders, in benchmarks/contenders.py, are
gumlab; Torch-Pruning and optipfair; PyTorch's own weight masks, spread over the three matrices,
which is the textbook form; and the bare tensor operations, which are the limit. Each run is a
process of its own that warms up on a toy model, prunes, says what it generates, and saves. The
contenders take turns, and each round begins with the next one. What they saved is then loaded by
gumlab and by a process that can import neither gumlab nor a peer. At last a training step: dense,
behind gumlab's gates, and behind weight masks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from contenders import CONTENDERS, IN_PLACE, PACKAGES, TOY, TRAINED_BY, Shape
from grid import ROOT, made_by, markdown

from gumlab.course.plots.figure import BLUE, GREY, new_figure

BUDGET = 1.3  # gumlab's seconds in those of the bare operations and a copy of the rest
WHOLE, TRAINED = Shape(), Shape(layers=4)
INSTALL = "not installed: `pip install gumlab[bench]`"
Rows = dict[str, list[dict[str, Any]]]
Run = Callable[[str, str, Shape, Any], dict[str, Any]]  # work, name, shape, folder -> a row


def machine() -> str:
    """The processor by name, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "a processor without a name"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads"


def child(work: str, name: str, shape: Shape, folder: Any = "") -> dict[str, Any]:
    """One run in a process of its own; one that fails is a row with the error's last line."""
    order = json.dumps([work, name, asdict(shape), str(folder)])
    script = str(Path(__file__).with_name("contenders.py"))
    done = subprocess.run([sys.executable, script, order], capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
    return json.loads(lines[-1])


def in_turns(names: Sequence[str], rounds: int, run: Callable[[str], dict[str, Any]]) -> Rows:
    """The rows of each name; every round begins with the next name."""
    rows: Rows = {name: [] for name in names}
    for turn in range(rounds):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            rows[name].append(run(name))
            print(turn, name, rows[name][-1], flush=True)
    return rows


def contest(
    shapes: Sequence[Shape], rounds: int, folder: Path, run: Run = child
) -> dict[str, Rows]:
    """All rows: of pruning, of loading by gumlab and by transformers, of a training step.

    shapes: the model that is pruned, the one that is trained. Runs of peers that are not there are
    left out.
    """
    shape, smaller = shapes
    here = [n for n in CONTENDERS if n not in PACKAGES or importlib.util.find_spec(PACKAGES[n])]
    found = {"prune": in_turns(here, rounds, lambda n: run("prune", n, shape, folder / n))}
    good = [n for n in here if "error" not in found["prune"][n][0]]
    for name in good:
        row, config = found["prune"][name][0], folder / name / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8"))
        row["untold"] = settings["intermediate_size"] != row["width"]
        if row["untold"]:  # what happens is on record; then the width is written in by hand
            row["as saved"] = run("load", "plain", shape, folder / name)
            told = settings | {"intermediate_size": row["width"]}
            config.write_text(json.dumps(told), encoding="utf-8")
    for by in ("plain", "gumlab"):
        found[by] = in_turns(good, rounds, lambda n, by=by: run("load", by, shape, folder / n))
    found["train"] = in_turns(TRAINED_BY, rounds, lambda n: run("train", n, smaller, ""))
    return found


def column(rows: Sequence[Mapping[str, Any]], *keys: str) -> pd.Series:
    """One figure of every round, such as column(rows, "save", "seconds")."""
    for key in keys:
        rows = [row[key] for row in rows]
    return pd.Series(rows)


def spread(values: pd.Series, digits: str = ".2f") -> str:
    """Median and quartiles as text."""
    low, mid, high = values.quantile([0.25, 0.5, 0.75])
    return f"{mid:{digits}} ({low:{digits}} to {high:{digits}})"


def pruning_table(rows: Rows) -> str:
    limit = rows["bare operations"]
    copied = column(limit, "deepcopy", "seconds")
    bare = {
        "contender": "bare operations alone",
        "seconds": spread(column(limit, "operations")),
        "in limits": spread(column(limit, "operations") / column(limit, "seconds")),
    }
    whole = {
        "contender": "a deepcopy of the model, no pruning",
        "seconds": spread(copied),
        "MB more, at most": spread(column(limit, "deepcopy", "MB"), ".0f"),
    }
    lines = [bare]
    for name in CONTENDERS:
        label = (
            "bare operations and a copy of the rest: the limit" if rows.get(name) is limit else name
        )
        lines.append({"contender": label, "seconds": trouble(rows, name)})
        if not lines[-1]["seconds"]:
            mine = column(rows[name], "seconds")
            lines[-1] |= {
                "seconds": spread(mine),
                "in limits": spread(mine / column(limit, "seconds")),
                "MB more, at most": spread(column(rows[name], "MB"), ".0f"),
                "the original": "stays" if name not in IN_PLACE else "is changed",
                "with a deepcopy first, s": spread(mine + copied) if name in IN_PLACE else "",
            }
    head = ("contender", "seconds", "in limits", "MB more, at most", "the original",
            "with a deepcopy first, s")  # fmt: skip
    return markdown([dict.fromkeys(head, "") | line for line in [*lines, whole]])


def trouble(rows: Rows, name: str) -> str:
    """Why a contender has no figures, or nothing."""
    errors = [row["error"] for row in rows.get(name, []) if "error" in row]
    return INSTALL if name not in rows else f"failed: {errors[0]}" if errors else ""


def saving_table(found: dict[str, Rows]) -> str:
    def verdict(name: str, row: Mapping[str, Any]) -> str:
        if "error" in row:
            return f"no: {row['error'][:90]}"
        same = row["tokens"] == found["prune"][name][0]["tokens"]
        return "yes" if same else "loads, other tokens"

    lines = []
    for name in CONTENDERS:
        if trouble(found["prune"], name):
            continue
        first, plain, ours = (found[k][name] for k in ("prune", "plain", "gumlab"))
        by_hand = f"{verdict(name, plain[0])}, the width written into config.json by hand"
        lines.append(
            {
                "saved by": name,
                "neurons a layer": first[0]["width"],
                "tokens of the limit": "yes"
                if first[0]["tokens"] == found["prune"]["bare operations"][0]["tokens"]
                else "no",
                "plain transformers loads it, same tokens": f"no; {by_hand}"
                if first[0]["untold"] and verdict(name, first[0]["as saved"]) != "yes"
                else verdict(name, plain[0]),
                "gumlab does": verdict(name, ours[0]),
                "save, s": spread(column(first, "save", "seconds")),
                "load by transformers, s": timed(plain),
                "load by gumlab, s": timed(ours),
                "MB more, at most (save, load, load by gumlab)": ", ".join(
                    f"{column(rows, *keys).median():.0f}"
                    for rows, *keys in ((first, "save", "MB"), (plain, "MB"), (ours, "MB"))
                    if "error" not in rows[0]
                ),
            }
        )
    return markdown(lines)


def timed(rows: Sequence[Mapping[str, Any]]) -> str:
    return "" if "error" in rows[0] else spread(column(rows, "seconds"))


def training_table(rows: Rows) -> str:
    dense, lines = column(rows["dense"], "seconds"), []
    for name in TRAINED_BY:
        seconds = column(rows[name], "seconds")
        lines.append(
            {
                "step": name,
                "seconds": spread(seconds),
                "in dense steps": spread(seconds / dense),
                "MB more, at most": spread(column(rows[name], "MB"), ".0f"),
                "last loss": f"{rows[name][0]['losses'][-1]:.4f}",
            }
        )
    return markdown(lines)


def draw(rows: Rows) -> Any:
    """Seconds and memory of pruning, a point a contender, its quartiles as a line."""
    figure, axes = new_figure(2, width=8.0, height=3.0)
    names = [n for n in reversed(CONTENDERS) if not trouble(rows, n)]
    for ax, key, label in ((axes[0], "seconds", "seconds"), (axes[1], "MB", "MB more, at most")):
        for y, name in enumerate(names):
            low, mid, high = column(rows[name], key).quantile([0.25, 0.5, 0.75])
            colour = BLUE if name.startswith("gumlab") else GREY
            ax.plot([low, high], [y, y], "-", color=colour)
            ax.plot(mid, y, "o", color=colour)
        ax.set(xlabel=label, ylim=(-0.5, len(names) - 0.5), xlim=(0, None))
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [])
    return figure


def text_of(found: dict[str, Rows], shapes: Sequence[Shape], rounds: int) -> str:
    """results/peers.md."""
    shape, smaller = shapes
    rows, ratio = found["prune"], float("nan")
    if not trouble(rows, "gumlab"):
        ratio = column(rows["gumlab"], "seconds") / column(rows["bare operations"], "seconds")
        ratio = ratio.median()
    peers = ", ".join(f"{n} {version(n)}" for n in PACKAGES if n in rows)
    return f"""# gumlab beside its peers

{made_by("python benchmarks/peers.py")} {peers or "No peer is installed"}.
{machine()}. {rounds} rounds, a process per run; medians, quartiles in brackets, ratios within a
round. MB: how far the process's high-water mark rose above what it held (VmHWM).

## Pruning

Magnitude, half of the neurons of each layer; {shape.layers} layers, d = {shape.d},
{shape.width:,} neurons, float32, random weights. optipfair's L2 score leaves the outgoing weights
out, so it keeps other neurons. Weight masks put zeros where neurons were: nothing gets smaller.

{pruning_table(rows)}
The budget is {BUDGET} limits for gumlab: {ratio:.2f}, {"kept" if ratio <= BUDGET else "exceeded"}.

![Seconds and memory of each contender](peers.png)

## Saving, and who can load it

Loaded by a process that cannot import gumlab or a peer, and by gumlab; "same tokens" are those the
pruned model generated before it was saved. gumlab's save writes checksums and a model card, and its
load verifies them. Seconds of loading include a first look at every weight, which is when a file
that was mapped into memory is read.

{saving_table(found)}
## A training step

{smaller.layers} layers, {smaller.tokens:,} tokens a step, AdamW; after each step magnitude picks
half of the neurons anew. Weight masks: torch.nn.utils.prune, a mask for each of the three matrices.

{training_table(found["train"])}
More on single questions: [every method's training step](step.md), [redundancy against the bare
factorisations](redundancy.md), [generation by the dense, the shrunk and a natively small
model](latency.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="tiny models; writes to runs/peers")
    args = parser.parse_args()
    shapes = (TOY, TOY) if args.toy else (WHOLE, TRAINED)
    results = ROOT / ("runs/peers" if args.toy else "results")
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = contest(shapes, args.rounds, Path(folder))
    draw(found["prune"]).savefig(results / "peers.png", dpi=100, metadata={"Software": None})
    text = text_of(found, shapes, args.rounds)
    (results / "peers.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
