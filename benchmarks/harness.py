"""What the benchmarks share: options, turns, time, memory, child processes, models, reports.

Torch, pandas, transformers and gumlab are imported where they are needed: `--help` answers at once,
and a child process holds nothing that its contender did not ask for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "gumlab" / "assets" / "tiny-llama"
CHILD = "--child"  # the option of a script that is run by itself
MADE_WITH = ["gumlab", "torch", "transformers", "machine", "threads"]  # `made_by` says it once
Name = TypeVar("Name", bound=Hashable)


# --- options --------------------------------------------------------------------------------------


def options(doc: str, rounds: int | None = None, device: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share; `parsed` reads them.

    rounds: how many there are unless --rounds says otherwise. device: it also runs on a GPU.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small trial, into runs/quick")
    parser.add_argument("--out", type=Path, help="the folder of the report (default: results)")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, help=f"(default: {rounds}; with --quick 1)")
        parser.set_defaults(usual_rounds=rounds)
    if device:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def grid_options(doc: str, data: str | None = None) -> argparse.ArgumentParser:
    """`options` of a grid of runs; data: what the folder of --data-dir holds."""
    parser = options(doc)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    if data is not None:
        parser.add_argument("--data-dir", help=data)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, and no warnings from here on; ends with a sentence where a device is missing."""
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.command = f"python {Path(sys.argv[0]).resolve().relative_to(ROOT)}"
    args.runs = ROOT / ("runs/quick" if args.quick else "runs")
    if args.out is None:
        args.out = args.runs if args.quick else ROOT / "results"
    if getattr(args, "rounds", 1) is None:
        args.rounds = 1 if args.quick else args.usual_rounds
    if getattr(args, "device", "cpu") == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit("--device cuda: there is no CUDA device here, so nothing was measured.")
        args.command += " --device cuda"
    args.out.mkdir(parents=True, exist_ok=True)
    return args


# --- turns, time and memory -----------------------------------------------------------------------


def in_turns(
    names: Sequence[Name], rounds: int, run: Callable[[Name, int], Any]
) -> dict[Name, list[Any]]:
    """What `run(name, turn)` gives, a list over the rounds by name.

    Every round begins with the next name, so that a busy moment of the machine falls on all.
    """
    rows: dict[Name, list[Any]] = {name: [] for name in names}
    for turn in range(rounds):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            rows[name].append(run(name, turn))
            print(f"round {turn + 1} of {rounds}: {name}", flush=True)
    return rows


def seconds(work: Callable[[], Any], device: str = "cpu") -> float:
    """How long a call takes; on a GPU until all of its work is done."""
    finish(device)
    began = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - began


def finish(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def high_water() -> float:
    """The most memory this process has held since the last reset, MB; NaN where no one counts."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def forget_high_water() -> None:
    """From now on the high-water mark counts from what the process holds, where Linux lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` gives; its seconds, and the MB that memory rose at most while it ran."""
    forget_high_water()
    before = high_water()
    began = time.perf_counter()
    made = work()
    spent = time.perf_counter() - began
    return made, {"seconds": spent, "MB": high_water() - before}


def child(script: Path | str, order: Any) -> dict[str, Any]:
    """The row that `python SCRIPT --child ORDER` prints as JSON in its last line.

    A child that fails is a row too: its "error" is the last line of what it said. The script calls
    `answer` first.
    """
    command = [sys.executable, str(script), CHILD, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
    return json.loads(lines[-1])


def answer(work: Callable[[Any], Any]) -> None:
    """In a child process: print what `work` gives for its order, and end."""
    if sys.argv[1:2] == [CHILD]:
        warnings.simplefilter("ignore")
        print(json.dumps(work(json.loads(sys.argv[2]))))
        sys.exit()


# --- models and grids -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A GPT-2's shape: D, neurons of a layer, layers, heads, vocabulary."""

    name: str
    d: int = 768
    width: int = 3072
    layers: int = 2
    heads: int = 12
    vocabulary: int = 1024


TOY = Shape("toy", 32, 64, 2, 2, 128)
SMALL = Shape("GPT-2-small", layers=12, vocabulary=50257)
MEDIUM = Shape("GPT-2-medium", 1024, 4096, 24, 16, 50257)


def random_gpt2(shape: Shape, positions: int, seed: int = 0, **settings: Any) -> Any:
    """A GPT-2 of this shape with random weights; settings: more fields of its config."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=positions,
        n_embd=shape.d,
        n_inner=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=0,
        eos_token_id=0,
        **settings,
    )
    torch.manual_seed(seed)
    return GPT2LMHeadModel(config)


def without_dropout() -> dict[str, Any]:
    """Settings of `random_gpt2` for training steps that can be compared."""
    activation = {"activation_function": "gelu_pytorch_tanh"}
    return {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, **activation}


def hear(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Any],
    take: Callable[[int, Any], None],
    batch_size: int = 16,
) -> None:
    """Call take(i, H) with every batch's ungated H of layer i, (tokens, N), without padding."""
    import torch

    import gumlab as gl
    from gumlab.tasks.batches import batches, evaluating

    real = None

    def before_proj(i: int, inputs: tuple) -> None:
        take(i, inputs[0][real])

    handles = [
        layer.proj.register_forward_pre_hook(lambda _, x, i=i: before_proj(i, x), prepend=True)
        for i, layer in enumerate(gl.neurons(model))
    ]
    with evaluating(model), torch.no_grad():
        for batch in batches(model, tokenizer, examples, batch_size):
            real = batch["attention_mask"].bool()
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    for handle in handles:
        handle.remove()


def fine_tuned(base: str, task: Any, folder: Path, steps: int, batch_size: int) -> str:
    """The folder of a built-in model that was fine-tuned on a task, dense; trained once."""
    import gumlab as gl

    if not folder.exists():
        model, tokenizer = gl.load(base, device="cpu")
        gl.train(model, tokenizer, task, steps=steps, batch_size=batch_size, progress=False)
        gl.save(model, tokenizer, folder)
    return str(folder)


def trained_for_e2e(args: argparse.Namespace) -> str:
    """The folder of tiny-gpt-neo after 600 steps of 32 on E2E, dense."""
    import gumlab as gl

    task = gl.load_task("e2e", args.data_dir)
    return fine_tuned("tiny-gpt-neo", task, args.runs / "e2e-base", 4 if args.quick else 600, 32)


def finished(
    args: argparse.Namespace,
    name: str,
    grids: Iterable[Mapping[str, Any]],
    extra: Callable[[Any, Any], dict[str, Any]] | None = None,
) -> pd.DataFrame:
    """The table of the study in runs/NAME, all of whose runs are done; one thread a run.

    A study that was stopped goes on where it was. The options of the methods, which the labels
    tell, are no columns of it, nor is what the runs were made with. A failed run ends the program.
    With --quick each grid has one seed and few steps. extra: as `gumlab.Study` takes it.
    """
    import gumlab as gl

    if args.quick:
        grids = [{**grid, "seed": 0, "steps": min(grid["steps"], 4)} for grid in grids]
        grids = [{**grid, "generated": min(grid.get("generated", 4), 4)} for grid in grids]
    study = gl.Study(
        list(grids), args.runs / name, data_dir=getattr(args, "data_dir", None), extra=extra
    )
    table = study.run(args.jobs, threads=1).table()
    if "error" in table:
        failed = table.dropna(subset="error")[["method", "task", "seed", "error"]]
        sys.exit(f"Some runs failed:\n{failed.to_string()}")
    told = {*MADE_WITH, *(key for cell in study.cells for key in cell.method.options)}
    told.discard("widths")  # which a run measures as well
    return table.drop(columns=[column for column in table if column in told])


# --- reports --------------------------------------------------------------------------------------


def spread(values: pd.Series, digits: str = ".2f") -> str:
    """Median and quartiles as text."""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:{digits}} ({low:{digits}} to {high:{digits}})"


def mean_text(values: pd.Series, digits: str = ".3f") -> str:
    """Mean and standard deviation over the seeds as text."""
    return f"{values.mean():{digits}} +- {values.std():{digits}}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; the head has every key of theirs."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The processor by name, and how many cores this process may use."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "a processor without a name"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads"


def made_by(command: str, table: pd.DataFrame | None = None) -> str:
    """What made a result, in a sentence: command, versions, machine, hours of training."""
    import torch
    import transformers

    import gumlab as gl

    text = (
        f"Made by `{command}` with gumlab {gl.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}"
    )
    if "--device cuda" in command:
        text += f", {torch.cuda.get_device_name()}"
    if table is not None:
        text += f", {table['train_seconds'].sum() / 3600:.2f} hours of training, one thread a run"
    return text + "."


def result(args: argparse.Namespace, name: str) -> Path:
    """Where a file of the result lies: results/step.md, on a GPU results/step_cuda.md."""
    path = args.out / name
    if getattr(args, "device", "cpu") == "cuda":
        path = path.with_stem(f"{path.stem}_cuda")
    return path


def write(args: argparse.Namespace, name: str, text: str) -> None:
    """Store the report, and show it."""
    result(args, name).write_text(text, encoding="utf-8")
    print(text)


def save_figure(args: argparse.Namespace, name: str, figure: Any) -> None:
    """Store a figure; the same figure gives the same bytes."""
    figure.savefig(result(args, name), dpi=100, metadata={"Software": None})
