"""Do on a machine with a GPU what only a GPU can show, in ten minutes, and write its tables.

Usage: python tools/on_gpu.py [--minutes 10] [--out results/gpu] [--data-dir FOLDER]
Runs, in this order: the GPU tests; the step and latency benchmarks; a billion parameters; and, with
WikiText's folder and SmolLM2-135M at hand (`gumlab fetch smollm2-135m`), a slice of the real
model's study. Each has a share of the minutes; what takes longer is stopped, and the next one has
what is left. The tables and gpu.md, which says what ended how, are written to --out. It needs
torch, transformers, pandas and pytest, and no notebook.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_GPU = "There is no GPU here that torch can use. Run this on a machine with one."


@dataclass(frozen=True)
class Job:
    """A command, the share of the minutes that it may take, and whether it needs the text."""

    name: str
    command: tuple[str, ...]
    share: float
    needs_text: bool = False


JOBS = (
    Job("tests", ("-m", "pytest", "-q", "tests/integration/test_gpu.py"), 0.2),
    Job("step", ("benchmarks/speed/step.py", "--device", "cuda"), 0.2),
    Job("latency", ("benchmarks/speed/latency.py", "--device", "cuda"), 0.2),
    Job("billion", ("benchmarks/speed/billion.py", "--device", "cuda"), 0.2),
    Job("real model", ("benchmarks/quality/real_model.py", "--jobs", "1"), 0.2, needs_text=True),
)


def command_of(job: Job, out: Path, data_dir: str | None) -> list[str]:
    """The whole command of a job."""
    command = [sys.executable, *job.command]
    if job.command[0].startswith("benchmarks"):
        command += ["--out", str(out)]
    if job.needs_text:
        command += ["--data-dir", str(data_dir)]
    return command


def perform(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """How a command ended within so many seconds, and the last line that it said.

    Whatever it started ends with it.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
        ended = "done" if process.returncode == 0 else f"failed ({process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        ended = f"stopped after {seconds:.0f} s"
    print(said, flush=True)
    lines = said.strip().splitlines()
    return ended, lines[-1] if lines else ""


def run_all(jobs: Sequence[Job], minutes: float, out: Path, data_dir: str | None) -> list[str]:
    """A line of the report's table for each job."""
    rows = []
    seconds = 60 * minutes
    share_left = sum(job.share for job in jobs)
    for job in jobs:
        began = time.monotonic()
        if job.needs_text and data_dir is None:
            ended, said = "left out", "no --data-dir"
        elif seconds < 1:
            ended, said = "left out", "no time left"
        else:
            limit = seconds * job.share / share_left
            ended, said = perform(command_of(job, out, data_dir), limit)
        spent = time.monotonic() - began
        seconds -= spent
        share_left -= job.share
        last = said.replace("|", " ").strip()[:80]
        rows.append(f"| {job.name} | {ended} | {spent:.0f} | {last} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="(default: 10)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--data-dir", help="WikiText's folder, for the real model")
    args = parser.parse_args()
    import torch
    import transformers

    if not torch.cuda.is_available():
        sys.exit(NO_GPU)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = run_all(JOBS, args.minutes, args.out.resolve(), args.data_dir)
    head = (
        f"# What ran on a GPU\n\nMade by `python tools/on_gpu.py --minutes {args.minutes:g}` with "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}, {torch.cuda.get_device_name()}.\n\n"
        "| what | ended | seconds | last line |\n|---|---|---|---|\n"
    )
    (args.out / "gpu.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
