"""What people wait for: the first lines, the demo, the tests: results/startup.md.

    PYTEST_ADDOPTS=--junitxml=build/tests.xml make test
    python benchmarks/speed/startup.py [--rounds 5] [--junit build/tests.xml]

Each start is a process of its own on one thread; the starts take turns. Seconds are of processor
time (user and system): what one waits on a core of one's own with the files in memory, whatever
else the machine does. A ratio is taken within a turn. The demo takes minutes, so it runs once. How
long the tests took is read from the file that they wrote, and set beside the demo: give it the file
of this machine and of this hour. Seconds are the machine's; ratios carry over, though not exactly,
since machines differ in what they are slow at.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness


def up_to_the_first_picture(notebook: str) -> str:
    """The code of a notebook's cells, up to the first one with a picture."""
    path = harness.ROOT / "notebooks" / notebook
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = []
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        code.append("".join(cell["source"]))
        if any("image/png" in output.get("data", ()) for output in cell["outputs"]):
            return "\n".join(code)
    sys.exit(f"{path} has no picture.")


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
    "notebook 00, to its first picture": ["-c", up_to_the_first_picture("00_start_here.ipynb")],
}
DEMO = ["-m", "gumlab.cli", "demo"]


def processor_seconds(arguments: list[str]) -> float:
    """The processor time of `python ARGUMENTS`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(
        [sys.executable, *arguments],
        cwd=harness.ROOT,
        env=os.environ | settings,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def demo_row(quick: bool) -> dict[str, str]:
    """The demo's row of the table: it runs once, beside one `import torch`."""
    few = ["--steps", "2"] if quick else []  # a trial
    torch_seconds = processor_seconds(STARTS["`import torch`"])
    with tempfile.TemporaryDirectory() as folder:
        demo_seconds = processor_seconds([*DEMO, *few, "--out", folder])
    return {
        "start": f"`{' '.join(['gumlab', 'demo', *few])}`, to its end",
        "seconds": f"{demo_seconds:.2f}",
        "/ `import torch`": f"{demo_seconds / torch_seconds:.2f}",
    }


def tests_told(junit: Path, demo_seconds: float) -> str:
    """A sentence on how long the tests took, from the JUnit file that pytest wrote."""
    suites = list(ElementTree.parse(junit).iter("testsuite"))
    count = sum(int(suite.get("tests", 0)) for suite in suites)
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    return (
        f" `make test` took {seconds / 60:.1f} minutes by the clock for {count:,} tests, "
        f"{seconds / demo_seconds:.2f} times the demo."
    )


def main() -> None:
    parser = harness.options(__doc__, rounds=5)
    parser.add_argument("--junit", type=Path, help="the file that the tests' --junitxml wrote")
    args = harness.parsed(parser)
    if args.junit and not args.junit.is_file():
        sys.exit(f"--junit: there is no file {args.junit}. Run the tests first, as above.")
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
    of_demo = demo_row(args.quick)
    rows.append(of_demo)
    told = tests_told(args.junit, float(of_demo["seconds"])) if args.junit else ""
    text = (
        "# How long a start takes\n\n"
        f"{harness.made_by(args.command)} {args.rounds} turns, medians; seconds of processor "
        f"time on one thread: compare ratios, seconds are the machine's.{told}\n\n"
        f"{harness.markdown(rows)}"
    )
    harness.write(args, "startup.md", text)


if __name__ == "__main__":
    main()
