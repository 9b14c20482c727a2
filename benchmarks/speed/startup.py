"""What people wait for before the first line of work: results/startup.md.

    python benchmarks/speed/startup.py [--rounds 5]

Each start is a process of its own on one thread; the starts take turns. Seconds are of processor
time (user and system): what one waits on a core of one's own with the files in memory, whatever
else the machine does. A ratio is taken within a turn.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

BEGIN = "import gumlab as gl; gl.start(seed=0)"
PICTURE = (
    f"{BEGIN}; model, tokenizer = gl.load('tiny-gpt2', device='cpu')\n"
    "gl.explore.removal(model, tokenizer, gl.load_task('restaurants'))"
)
STARTS = {
    "`python -c pass`": ["-c", "pass"],
    "`import torch`": ["-c", "import torch"],
    "`import gumlab`": ["-c", "import gumlab"],
    "`import torch, then gumlab`": ["-c", "import torch, gumlab"],
    "`gumlab --help`": ["-m", "gumlab.cli", "--help"],
    f"`{BEGIN}`": ["-c", BEGIN],
    "the same, to an explorer's first picture": ["-c", PICTURE],
}


def processor_seconds(arguments: list[str]) -> float:
    """The processor time of `python ARGUMENTS`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, *arguments],
        cwd=harness.ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    args = harness.parsed(harness.options(__doc__, rounds=5))
    import pandas as pd

    for arguments in STARTS.values():  # once unseen: bytecode is written, files are read
        processor_seconds(arguments)
    starts = list(STARTS)
    seen = pd.DataFrame(
        harness.in_turns(starts, args.rounds, lambda n, _: processor_seconds(STARTS[n]))
    )
    rows = [
        {
            "start": name,
            "seconds": f"{seen[name].median():.2f}",
            "/ `python -c pass`": f"{(seen[name] / seen['`python -c pass`']).median():.1f}",
            "/ `import torch`": f"{(seen[name] / seen['`import torch`']).median():.2f}",
        }
        for name in STARTS
    ]
    beyond = (seen["`import torch, then gumlab`"] - seen["`import torch`"]).median()
    text = (
        "# How long a start takes\n\n"
        f"{harness.made_by(args.command)} {args.rounds} turns, medians; seconds of processor "
        f"time on one thread. `import gumlab` takes {beyond:.2f} s beyond "
        f"`import torch`.\n\n{harness.markdown(rows)}"
    )
    harness.write(args, "startup.md", text)


if __name__ == "__main__":
    main()
