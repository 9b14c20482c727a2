"""What people wait for before the first line of work: results/startup.md.

    python benchmarks/startup.py [--turns 5]

Each start is a process of its own on one thread; the starts take turns, in an order drawn anew each
time. Seconds are of processor time (user and system): what one waits on a core of one's own with
the files in memory, whatever else the machine does. A ratio is taken within a turn.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
from grid import made_by, markdown

ROOT = Path(__file__).parents[1]
BEGIN = "import gumlab as gl; gl.start(seed=0)"
PICTURE = (
    f"{BEGIN}; model, tokenizer = gl.load('tiny-gpt2', device='cpu')\n"
    "gl.explore.removal(model, tokenizer, gl.load_task('restaurants'))"
)
STARTS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import gumlab": ["-c", "import gumlab"],
    "import torch, then gumlab": ["-c", "import torch, gumlab"],
    "gumlab --help": ["-m", "gumlab.cli", "--help"],
    "import gumlab as gl; gl.start(seed=0)": ["-c", BEGIN],
    "the same, to an explorer's first picture": ["-c", PICTURE],
}


def seconds(arguments: list[str]) -> float:
    """The processor time of `python ARGUMENTS`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    for arguments in STARTS.values():  # once unseen: bytecode is written, files are read
        seconds(arguments)
    rows = []
    for turn in range(turns):
        names = random.Random(turn).sample(list(STARTS), len(STARTS))
        rows.append({name: seconds(STARTS[name]) for name in names})
    seen = pd.DataFrame(rows)
    table = [
        {
            "start": f"`{name}`" if arguments[-1] != PICTURE else name,
            "seconds": f"{seen[name].median():.2f}",
            "/ `python -c pass`": f"{(seen[name] / seen['python -c pass']).median():.1f}",
            "/ `import torch`": f"{(seen[name] / seen['import torch']).median():.2f}",
        }
        for name, arguments in STARTS.items()
    ]
    beyond = (seen["import torch, then gumlab"] - seen["import torch"]).median()
    text = (
        "# How long a start takes\n\n"
        f"{made_by('python benchmarks/startup.py')} {turns} turns, medians; seconds of processor "
        "time on one thread. "
        f"`import gumlab` takes {beyond:.2f} s beyond `import torch`.\n\n"
    )
    (ROOT / "results" / "startup.md").write_text(text + markdown(table), encoding="utf-8")
    print(text + markdown(table))


if __name__ == "__main__":
    main()
