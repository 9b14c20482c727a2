"""Run the notebooks in place and write them back in one normal form.

Usage: python tools/run_notebooks.py [--check] [NOTEBOOK ...]
Without names, every notebook of notebooks/. With --check nothing runs: each notebook must be in
normal form, run, fresh (no code edited since), free of errors and machine paths, and small.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300  # seconds a cell
MAX_BYTES = 600_000
TIMES = ROOT / "results" / "notebooks.json"
PLACES = ("*.ipynb", "app/*.ipynb")
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
KERNEL_ENVIRONMENT = {  # the same as in notebooks/conftest.py
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
VOLATILE_METADATA = ("execution", "ExecuteTime", "collapsed", "scrolled")
PROGRESS = ("\r", "%|", "it/s", "s/it")  # what tqdm writes
NOT_IN_OUTPUT = ("/home/", "/tmp/", "/Users/", "site-packages/", " at 0x")


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags."""
    return cell.metadata.get("tags", [])


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def runs(cell: NotebookNode) -> bool:
    """Whether nbclient executes this code cell."""
    return "skip-execution" not in tags(cell) and bool(cell.source.strip())


def source_sha(nb: NotebookNode) -> str:
    """A hash of the sources that are run; stored at execution, it tells a stale notebook."""
    sources = "\0".join(cell.source for cell in code_cells(nb) if runs(cell))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def text_of(out: NotebookNode) -> str:
    """All text a reader sees in an output, without images."""
    values = [out.get("text", ""), *out.get("traceback", [])]
    values += [v for k, v in out.get("data", {}).items() if not k.startswith("image/p")]
    return "\n".join(map(str, values))


def normal_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with streams joined, and without progress bars and live widget references."""
    kept = [out for out in _joined(outputs) if not _is_volatile(out)]
    return _joined(kept)  # a bar that is gone may have stood between two parts of a stream


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with neighbours of the same stream as one."""
    kept: list[NotebookNode] = []
    for out in outputs:
        before = kept[-1] if kept else None
        if out.output_type == "stream" and before and before.get("name") == out.name:
            before.text += out.text
        else:
            kept.append(NotebookNode(out))
    return kept


def _is_volatile(out: NotebookNode) -> bool:
    if out.output_type == "stream":
        return out.name == "stderr" and any(mark in out.text for mark in PROGRESS)
    if "data" not in out:
        return False
    was_widget = out.data.pop(WIDGET_VIEW, None) is not None
    bar = set(out.data) <= {"text/plain"} and "%|" in out.data.get("text/plain", "")
    return was_widget and (bar or not out.data)


def normalise(nb: NotebookNode) -> NotebookNode:
    """The notebook in normal form, changed in place: running it again leaves no other diff."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata.pop("widgets", None)
    nb.metadata.kernelspec = NotebookNode(KERNELSPEC)
    nb.metadata.language_info = NotebookNode(name="python")
    count = 0
    for number, cell in enumerate(nb.cells):
        cell.id = f"cell-{number:02d}"
        for key in VOLATILE_METADATA:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        cell.outputs = normal_outputs(cell.outputs)
        if runs(cell) and cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        elif not runs(cell):
            cell.execution_count = None
        for out in cell.outputs:
            if out.output_type == "execute_result":
                out.execution_count = cell.execution_count
    return nb


def serialise(nb: NotebookNode) -> str:
    """The notebook as text: JSON with one space of indent and a newline at the end."""
    return nbformat.writes(nb, version=4).rstrip("\n") + "\n"


def cell_problems(cell: NotebookNode) -> Iterator[str]:
    """What is wrong with one code cell and its stored outputs."""
    if runs(cell) and cell.execution_count is None:
        yield "has not been run"
    if ("skip-execution" in tags(cell)) != ("nbval-skip" in tags(cell)):
        yield "must be tagged both skip-execution and nbval-skip, or neither"
    for out in cell.outputs:
        if out.output_type == "error" and "raises-exception" not in tags(cell):
            yield f"stores an error ({out.ename})"
        paths = [f"{path}" for path in (ROOT, Path.home()) if len(path.parts) > 1]
        shown = text_of(out)
        for found in (word for word in (*paths, *NOT_IN_OUTPUT) if word in shown):
            yield f"shows a path or address of one machine ({found.strip()!r})"


def problems(path: Path) -> list[str]:
    """What keeps a stored notebook from being fresh and in normal form; empty if nothing does."""
    text = path.read_text(encoding="utf-8")
    try:
        nb = nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        return [f"is not a notebook: {error}"]
    found = [
        f"code cell {number} {problem}"
        for number, cell in enumerate(code_cells(nb))
        for problem in cell_problems(cell)
    ]
    if nb.metadata.get("gumlab", {}).get("source_sha") != source_sha(nb):
        found.append("is stale: its code was edited after its outputs were made")
    if len(text.encode()) >= MAX_BYTES:
        found.append(f"has {len(text.encode()):,} bytes, the limit is {MAX_BYTES:,}")
    if serialise(normalise(nb)) != text:
        found.append("is not in normal form")
    return found


def execute(path: Path) -> float:
    """Run a notebook from top to bottom and write it back normalised; the seconds it took.

    A notebook whose cell fails is left as it was.
    """
    nb = nbformat.read(path, as_version=4)
    settings = {"kernel_name": "python3", "timeout": TIMEOUT, "store_widget_state": False}
    resources = {"metadata": {"path": str(path.parent)}}
    started = time.perf_counter()
    NotebookClient(nb, resources=resources, record_timing=False, **settings).execute()
    seconds = time.perf_counter() - started
    nb.metadata["gumlab"] = NotebookNode(source_sha=source_sha(nb))
    path.write_text(serialise(normalise(nb)), encoding="utf-8", newline="\n")
    return seconds


def execute_all(paths: list[Path]) -> dict[Path, float]:
    """Run the notebooks one by one, printing each error; notebook -> seconds, nan if it failed."""
    os.environ.update(KERNEL_ENVIRONMENT)
    seconds = {}
    for path in paths:
        try:
            seconds[path] = execute(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            seconds[path] = float("nan")
    return seconds


def keep_times(seconds: dict[str, float]) -> None:
    """Note how long each notebook took, for README's list of the course."""
    known = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    TIMES.write_text(json.dumps(known | seconds, indent=1, sort_keys=True) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run or check; 1 if any notebook failed or has a problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    parser.add_argument("--check", action="store_true", help="verify the stored form, run nothing")
    arguments = parser.parse_args(argv)
    found = [p for pattern in PLACES for p in sorted((ROOT / "notebooks").glob(pattern))]
    paths = arguments.notebooks or found
    if not paths:
        print("No notebook in notebooks/.", file=sys.stderr)
        return 1
    failed = set()
    if not arguments.check:
        seconds = execute_all([path.resolve() for path in paths])
        keep_times({path.name: round(took, 1) for path, took in seconds.items() if took == took})
        for path, took in seconds.items():
            print(f"{path.name:<40} {'failed' if took != took else f'{took:6.1f} s'}")
        failed = {path.name for path, took in seconds.items() if took != took}
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # ru_maxrss: kB
        print(f"{sum(t for t in seconds.values() if t == t):.0f} s; largest kernel {peak:.1f} GB")
    for path in paths:
        for problem in [] if path.name in failed else problems(path):
            print(f"{path.name} {problem}; run `make notebooks`.", file=sys.stderr)
            failed.add(path.name)
    if arguments.check and not failed:
        print(f"{len(paths)} notebooks are fresh and in normal form.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
