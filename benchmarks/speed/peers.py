"""gumlab beside other ways to do the same: results/peers.md and peers.png.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/speed/peers.py

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

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
import pandas as pd
from contenders import CONTENDERS, IN_PLACE, PACKAGES, TOY, TRAINED_BY, WORK, Shape
from harness import in_turns, markdown, spread

BUDGET = 1.3  # gumlab's seconds in those of the bare operations and a copy of the rest
WHOLE = Shape()
TRAINED = Shape(layers=4)
INSTALL = "not installed: `pip install gumlab[bench]`"
Rows = dict[str, list[dict[str, Any]]]
Run = Callable[[str, str, Shape, Any], dict[str, Any]]  # work, name, shape, folder -> a row


def child(work: str, name: str, shape: Shape, folder: Any = "") -> dict[str, Any]:
    """One run in a process of its own; one that fails is a row with the error's last line."""
    return harness.child(__file__, [work, name, asdict(shape), str(folder)])


def perform(order: list[Any]) -> dict[str, Any]:
    """What a child does."""
    work, name, shape, folder = order
    return WORK[work](name, Shape(**shape), folder)


def contest(
    shapes: Sequence[Shape], rounds: int, folder: Path, run: Run = child
) -> dict[str, Rows]:
    """All rows: of pruning, of loading by gumlab and by transformers, of a training step.

    shapes: the model that is pruned, the one that is trained. Runs of peers that are not there are
    left out.
    """
    shape, smaller = shapes
    here = [n for n in CONTENDERS if n not in PACKAGES or importlib.util.find_spec(PACKAGES[n])]
    found = {"prune": in_turns(here, rounds, lambda n, _: run("prune", n, shape, folder / n))}
    good = [n for n in here if "error" not in found["prune"][n][0]]
    for name in good:
        row = found["prune"][name][0]
        config = folder / name / "config.json"
        settings = json.loads(config.read_text(encoding="utf-8"))
        row["untold"] = settings["intermediate_size"] != row["width"]
        if row["untold"]:  # what happens is on record; then the width is written in by hand
            row["as saved"] = run("load", "plain", shape, folder / name)
            told = settings | {"intermediate_size": row["width"]}
            config.write_text(json.dumps(told), encoding="utf-8")
    for by in ("plain", "gumlab"):
        found[by] = in_turns(good, rounds, lambda n, _, by=by: run("load", by, shape, folder / n))
    found["train"] = in_turns(TRAINED_BY, rounds, lambda n, _: run("train", n, smaller, ""))
    return found


def column(rows: Sequence[Mapping[str, Any]], *keys: str) -> pd.Series:
    """One figure of every round, such as column(rows, "save", "seconds")."""
    for key in keys:
        rows = [row[key] for row in rows]
    return pd.Series(rows)


def pruning_table(rows: Rows) -> str:
    limit = rows["bare operations"]
    bare = column(limit, "operations")
    whole = column(limit, "seconds")
    copied = column(limit, "deepcopy", "seconds")
    lines = [
        {
            "contender": "bare operations alone",
            "seconds": spread(bare),
            "in limits": spread(bare / whole),
            "MB more, at most": "",
            "the original": "",
            "with a deepcopy first, s": "",
        }
    ]
    for name in CONTENDERS:
        if error := trouble(rows, name):
            lines.append({"contender": name, "seconds": error})
            continue
        mine = column(rows[name], "seconds")
        is_limit = name == "bare operations"
        lines.append(
            {
                "contender": f"{name} and a copy of the rest: the limit" if is_limit else name,
                "seconds": spread(mine),
                "in limits": spread(mine / whole),
                "MB more, at most": spread(column(rows[name], "MB"), ".0f"),
                "the original": "is changed" if name in IN_PLACE else "stays",
                "with a deepcopy first, s": spread(mine + copied) if name in IN_PLACE else "",
            }
        )
    lines.append(
        {
            "contender": "a deepcopy of the model, no pruning",
            "seconds": spread(copied),
            "MB more, at most": spread(column(limit, "deepcopy", "MB"), ".0f"),
        }
    )
    return markdown(lines)


def trouble(rows: Rows, name: str) -> str:
    """Why a contender has no figures, or nothing."""
    if name not in rows:
        return INSTALL
    errors = [row["error"] for row in rows[name] if "error" in row]
    return f"failed: {errors[0]}" if errors else ""


def saving_table(found: dict[str, Rows]) -> str:
    wanted = found["prune"]["bare operations"][0]["tokens"]
    lines = []
    for name in CONTENDERS:
        if trouble(found["prune"], name):
            continue
        saved = found["prune"][name]
        plain = found["plain"][name]
        ours = found["gumlab"][name]
        tokens = saved[0]["tokens"]
        loads = verdict(plain[0], tokens)
        if saved[0]["untold"] and verdict(saved[0]["as saved"], tokens) != "yes":
            loads = f"no; {loads}, the width written into config.json by hand"
        rises = [column(saved, "save", "MB")]
        rises += [column(rows, "MB") for rows in (plain, ours) if "error" not in rows[0]]
        lines.append(
            {
                "saved by": name,
                "neurons a layer": saved[0]["width"],
                "tokens of the limit": "yes" if tokens == wanted else "no",
                "plain transformers loads it, same tokens": loads,
                "gumlab does": verdict(ours[0], tokens),
                "save, s": spread(column(saved, "save", "seconds")),
                "load by transformers, s": timed(plain),
                "load by gumlab, s": timed(ours),
                "MB more, at most (save, load, load by gumlab)": ", ".join(
                    f"{rise.median():.0f}" for rise in rises
                ),
            }
        )
    return markdown(lines)


def verdict(row: Mapping[str, Any], tokens: Sequence[int]) -> str:
    """Whether a model was loaded, and generates these tokens."""
    if "error" in row:
        return f"no: {row['error'][:90]}"
    return "yes" if row["tokens"] == tokens else "loads, other tokens"


def timed(rows: Sequence[Mapping[str, Any]]) -> str:
    return "" if "error" in rows[0] else spread(column(rows, "seconds"))


def training_table(rows: Rows) -> str:
    dense = column(rows["dense"], "seconds")
    lines = []
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
    from gumlab.course.plots.figure import BLUE, GREY, new_figure

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


def report(command: str, found: dict[str, Rows], shapes: Sequence[Shape], rounds: int) -> str:
    """results/peers.md."""
    shape, smaller = shapes
    rows = found["prune"]
    ratio = float("nan")
    if not trouble(rows, "gumlab"):
        ratio = column(rows["gumlab"], "seconds") / column(rows["bare operations"], "seconds")
        ratio = ratio.median()
    peers = ", ".join(f"{n} {version(n)}" for n in PACKAGES if n in rows)
    return f"""# gumlab beside its peers

{harness.made_by(command)} {peers or "No peer is installed"}.
{harness.machine()}. {rounds} rounds, a process per run; medians, quartiles in brackets, ratios
within a round. MB: how far the process's high-water mark rose above what it held (VmHWM).

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
    harness.answer(perform)
    args = harness.parsed(harness.options(__doc__, rounds=5))
    shapes = (TOY, TOY) if args.quick else (WHOLE, TRAINED)
    with tempfile.TemporaryDirectory() as folder:
        found = contest(shapes, args.rounds, Path(folder))
    harness.save_figure(args, "peers.png", draw(found["prune"]))
    harness.write(args, "peers.md", report(args.command, found, shapes, args.rounds))


if __name__ == "__main__":
    main()
