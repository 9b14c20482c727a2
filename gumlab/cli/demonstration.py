"""The main job: the paper's training methods and the recommended recipe, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gumlab.course.plots import method_bars
from gumlab.errors import GumlabError, check_seed, check_whole
from gumlab.feedforward import neurons
from gumlab.io.loading import load
from gumlab.io.saving import check_free, save
from gumlab.measurement import latencies
from gumlab.selection import Budget, check_keep
from gumlab.study.methods import (
    PAPER_METHODS,
    RECOMMENDED_METHOD,
    Method,
    judged_split,
    metric_of,
    run,
)
from gumlab.tasks import Task

# how the numbers of a column are printed, where it is not as `readable` prints any number
_FORMATS = {
    "keep": "{:.1%}",
    "parameters_kept": "{:.1%}",
    "bleu": "{:.1f}",
    "rougeL": "{:.1f}",
    "execution": "{:.1f}",
    "sensitivity": "{:.2e}",
    "speedup": "{:.2f} x",
    "train_seconds": "{:.0f}",
}


def demo(
    model: str,
    task: Task,
    out: Path,
    *,
    keep: float = 0.25,
    steps: int = 200,
    seed: int = 0,
    generated: int = 100,
    methods: Sequence[Method] = (*PAPER_METHODS, RECOMMENDED_METHOD),
    say: Callable[[str], Any] = print,
) -> pd.DataFrame:
    """Prune a model on a task with each method; write table.csv, figure.png and the checkpoints.

    Parameters
    ----------
    model : str
        What `gumlab.load` loads.
    task : Task
        What it is trained and measured on.
    out : Path
        The folder of the results; it is made where there is none.
    keep, steps, seed, generated
        As in `gumlab.study.run`; steps 1 or more.
    methods : sequence of Method
        The first must be the dense run: the others' latency is given against it.
    say : callable
        Is told of each run as it begins.

    Returns
    -------
    pandas.DataFrame
        A row per method, as `gumlab.study.run` gives it, and speedup: the dense run's time of a
        forward pass over the method's.

    Raises
    ------
    GumlabError
        Before any work where keep cannot be met or `out` not written to.
    """
    check_keep(keep)
    check_whole("steps", steps)
    check_seed(seed)
    check_whole("generated", generated, least=0)
    for method in methods:
        check_free(out / folder_name(method.label))
    judged_split(task, None, generated)
    base, tokenizer = load(model)
    Budget([layer.width for layer in neurons(base)], keep)  # raises for a keep that cannot be met
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {out}: {error.strerror}. Choose another folder."
        ) from error

    rows = []
    models = {}
    for number, method in enumerate(methods, start=1):
        say(f"[{number}/{len(methods)}] {method.label}: {steps} steps")
        done = run(
            base,
            tokenizer,
            task,
            method,
            keep=keep,
            steps=steps,
            seed=seed,
            generated=generated,
        )
        rows.append(done.row)
        models[method.label] = done.model
    milliseconds = latencies(models)
    dense_milliseconds = milliseconds[methods[0].label]
    for row in rows:
        row["speedup"] = dense_milliseconds / milliseconds[row["method"]]

    metric = metric_of(task)
    noted = ("keep", "parameters_kept", "loss", metric, "uniqueness")
    for row in rows:
        notes = {column: readable(column, row[column]) for column in noted}
        label = row["method"]
        save(models[label], tokenizer, out / folder_name(label), notes=notes)
    table = pd.DataFrame(rows)
    table.to_csv(out / "table.csv", index=False)
    method_bars(table, metric).figure.savefig(out / "figure.png", dpi=150)
    return table


def folder_name(label: str) -> str:
    """A method's label as a folder name.

    Examples
    --------
    >>> folder_name("movement, local")
    'movement-local'
    """
    return label.lower().replace(",", "").replace(" ", "-")


def readable(column: str, value: Any) -> str:
    """A table's value as text: fractions in per cent, losses with three digits, 1,024.

    Examples
    --------
    >>> readable("keep", 0.25), readable("loss", 0.51234), readable("neurons", 1024)
    ('25.0%', '0.512', '1,024')
    """
    if column in _FORMATS:
        return _FORMATS[column].format(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def as_text(table: pd.DataFrame, metric: str) -> str:
    """The table of `demo` as a person reads it in a terminal.

    Parameters
    ----------
    table : pandas.DataFrame
        What `demo` returned.
    metric : str
        The column of the task's metric: `gumlab.study.metric_of`.

    Returns
    -------
    str
        A line per method under a head.
    """
    heads = {
        "method": "method",
        "keep": "kept",
        "neurons": "neurons",
        "parameters": "parameters",
        "parameters_kept": "(of all)",
        "loss": "loss",
        metric: metric,
        "sensitivity": "sensitivity",
        "uniqueness": "uniqueness",
        "speedup": "speed",
        "train_seconds": "seconds",
    }
    printed = {
        head: [readable(column, value) for value in table[column]] for column, head in heads.items()
    }
    return pd.DataFrame(printed).to_string(index=False)
