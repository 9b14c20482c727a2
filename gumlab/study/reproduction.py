"""The paper's grid on one of its tasks, run here, and its table beside the paper's numbers.

`experiments` says what the paper did; a `Reproduction` is a study of it in a folder.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from gumlab.errors import GumlabError, check_text, check_whole
from gumlab.io.loading import load
from gumlab.study import paper
from gumlab.study.claims import HARD
from gumlab.study.estimation import Estimate, estimate
from gumlab.study.experiments import (
    BATCH_SIZE,
    DIFFERS,
    EPOCHS,
    MODEL,
    WHOLE_WIKITEXT,
    Experiment,
    experiment_of,
    grid,
    steps_of,
)
from gumlab.study.runs import Study
from gumlab.tasks import Task, load_task
from gumlab.tasks.batches import BLOCK, context_length, is_running_text
from gumlab.tasks.wikitext import fetch_103

RATIOS = "Sensitivity and uniqueness are ratios to the dense run of the same seed."


@dataclass
class _Base:
    """What the runs start from, which a study loads anew for every run."""

    model: nn.Module
    tokenizer: Any
    data: Task = field(repr=False)


class Reproduction:
    """The paper's grid on a task, from a model, as a study in a folder.

    All that can be wrong is said as it is made, before any work.

    Parameters
    ----------
    task, model : str
        "wikitext", "wikisql" or "samsum"; and what `gumlab.load` loads.
    folder : str or Path, optional
        Where the runs are stored; by default runs/reproduce-TASK-MODEL.
    data_dir : str or Path, optional
        The task's files; without it they come from the Hugging Face hub, of wikitext those of
        Wikitext-103.
    only, keep, seeds, batch_size, generated
        As in `grid`.
    epochs : int, optional
        By default 5.
    steps : int, optional
        Of each run, instead of epochs.
    device : str, optional
        As in `gumlab.load`.

    Attributes
    ----------
    study : Study
        The runs.
    steps, sequences : int
        Of each run; and the training sequences there are.
    notes : tuple of str
        What was not there when the task was read.

    Raises
    ------
    GumlabError
        For whatever cannot be: names, data, a model without weights, a folder that takes no files.
    """

    def __init__(
        self,
        task: str,
        model: str = MODEL,
        folder: str | Path | None = None,
        *,
        data_dir: str | Path | None = None,
        only: Sequence[str] = (),
        keep: Sequence[float] = (),
        seeds: int = 1,
        batch_size: int = BATCH_SIZE,
        generated: int | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        device: str | None = None,
    ) -> None:
        self.task = task
        self.model = check_text("model", model, "a name or a path")
        self.experiment = experiment_of(task)
        if epochs is not None and steps is not None:
            raise GumlabError("epochs and steps both say how long a run is; give one of them.")
        self.epochs = check_whole("epochs", EPOCHS if epochs is None else epochs)
        options: dict[str, Any] = {
            "only": only,
            "keep": keep,
            "seeds": seeds,
            "batch_size": batch_size,
            "generated": generated,
        }
        grid(task, model, 1 if steps is None else steps, **options)  # raises before what takes long
        if folder is None:
            folder = Path("runs") / f"reproduce-{task}-{Path(model).name}"
        _check_takes_files(Path(folder).expanduser().absolute())
        if task == "wikitext" and data_dir is None:
            data_dir = fetch_103()
        data = load_task(task, data_dir)
        data.split("train")
        data.split(self.experiment.split)
        self.notes = data.notes
        loaded, tokenizer = load(model, device=device)
        self._base: _Base | None = _Base(loaded, tokenizer, data)
        stride = None
        if is_running_text(data.train):
            stride = min(context_length(loaded), BLOCK) - 1
        by_epochs, self.sequences = steps_of(loaded, tokenizer, data, self.epochs, batch_size)
        self.by_epochs = steps is None
        self.steps = by_epochs if steps is None else steps
        self.batch_size = batch_size
        self.device = device
        cells = grid(task, model, self.steps, stride=stride, **options)
        self.study = Study(cells, folder, data_dir=data_dir)

    def estimate(self) -> Estimate:
        """Time a few batches here, and multiply.

        Returns
        -------
        Estimate
            Of the runs that are not done yet.

        Raises
        ------
        GumlabError
            After `run`, which lets the model go that would be timed.
        """
        if self._base is None:
            raise GumlabError("The estimate comes before run(); make the Reproduction anew.")
        cells = self.study.cells
        left = [cell for cell in cells if not self.study.path(cell).exists()]
        return estimate(cells, left, self._base.model, self._base.tokenizer, self._base.data)

    def run(self, jobs: int | None = None) -> Reproduction:
        """Do the runs that are not done yet, failed ones again; see `gumlab.Study.run`.

        Parameters
        ----------
        jobs : int, optional
            Processes.

        Returns
        -------
        Reproduction
            Itself.
        """
        self._base = None  # its memory is for the runs
        # `failures` tells which failed: no warning besides
        self.study._run(jobs, retry=True, threads=None, device=self.device)
        return self

    def table(self) -> pd.DataFrame:
        """Ours beside the paper's, as `beside_the_paper` makes it, of the runs that are done.

        Returns
        -------
        pandas.DataFrame
        """
        return beside_the_paper(self.study.table(), self.task)

    def failures(self) -> list[str]:
        """What the runs that failed say.

        Returns
        -------
        list of str
            A sentence a run.
        """
        rows = self.study.table()
        if "error" not in rows:
            return []
        failed = rows[rows["error"].notna()]
        return [
            f"{row.method}, {row.asked:.0%} kept, seed {row.seed}: {row.error}"
            for row in failed.itertuples()
        ]

    def differs(self) -> list[str]:
        """What is not as in the paper: one sentence each.

        Returns
        -------
        list of str
        """
        sentences = []
        if Path(self.model).name.lower() != Path(MODEL).name:
            sentences.append(f"The paper's model is GPT-Neo-125m; this is {self.model}.")
        if not self.by_epochs or self.epochs != EPOCHS:
            sentences.append(f"A run has {self.steps:,} steps, which are not {EPOCHS} epochs.")
        if self.task == "wikitext" and self.sequences < WHOLE_WIKITEXT:
            sentences.append(
                f"The training text has {self.sequences:,} blocks: it is not Wikitext-103, which "
                f"has more than {WHOLE_WIKITEXT:,}."
            )
        return [*sentences, *self.experiment.differs, *DIFFERS]

    def save(self) -> tuple[Path, Path]:
        """Write the table, and what differs, into the study's folder.

        Returns
        -------
        tuple of Path
            table.csv, and table.md, where the paper's claims stand too.
        """
        table = self.table()
        csv = self.study.folder / "table.csv"
        page = self.study.folder / "table.md"
        table.to_csv(csv, index=False)
        parts = [
            f"# The paper's grid on {self.task}, from {self.model}",
            str(self).partition("\n")[2],
            _markdown(printed(table)),
            RATIOS,
            "## Differs from the paper",
            "\n".join(f"- {sentence}" for sentence in self.differs()),
        ]
        rows = self.study.table()
        if len(table) and table["seeds"].max() > 1:  # one seed has no spread to tell by
            parts += ["## The paper's claims", _markdown(paper.ledger(rows))]
        page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return csv, page

    def __str__(self) -> str:
        methods = list(dict.fromkeys(cell.method.label for cell in self.study.cells))
        keeps = sorted({cell.keep for cell in self.study.cells if cell.method.name}, reverse=True)
        seeds = len({cell.seed for cell in self.study.cells})
        length = f"{self.epochs} epoch(s)" if self.by_epochs else "as asked"
        lines = [
            f"The paper's grid on {self.task} from {self.model}, in {self.study.folder}",
            f"{len(self.study.cells):,} runs: {'; '.join(methods)}",
        ]
        if keeps:
            fractions = ", ".join(f"{keep:.0%}" for keep in keeps)
            lines.append(f"{fractions} of the neurons kept, each without and with a teacher")
        lines += [
            f"{seeds} seed(s); measured on {self.experiment.split}",
            f"{self.steps:,} steps a run ({length}) of {self.batch_size} of {self.sequences:,} "
            "training sequences",
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Reproduction({self.task} from {self.model}: {self.study!r})"


def _check_takes_files(folder: Path) -> None:
    """Raise GumlabError for a folder that takes no files, or that cannot be made; makes none."""
    place = folder
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {folder}: {error.strerror or error}. Choose another folder."
        ) from error


def beside_the_paper(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Ours, the paper's, and ours less the paper's.

    Parameters
    ----------
    table : pandas.DataFrame
        A study's, `Study.table()`, of `grid(task, ...)`.
    task : str
        As in `grid`.

    Returns
    -------
    pandas.DataFrame
        A row for each method, fraction and distillation: method, asked, kept (of all neurons),
        distilled, seeds, and the means over the seeds of the task's metrics and of sensitivity and
        uniqueness, as ratios to the dense run of the same seed. Where gumlab holds the paper's
        number of any row, NAME is followed by "NAME, paper" and "NAME, difference".
    """
    experiment = experiment_of(task)
    measures = [*experiment.metrics, "sensitivity", "uniqueness"]
    if "error" in table:
        table = table[table["error"].isna()]
    measures = [name for name in measures if name in table]
    if not len(table) or not measures:
        return pd.DataFrame(columns=["method", "asked", "kept", "distilled", "seeds"])
    dense = table[table["method"] == "dense"].set_index("seed")
    ours = table.copy()
    for name in ("sensitivity", "uniqueness"):
        ours[name] = table[name] / table["seed"].map(dense[name])
    theirs = _of_the_paper(experiment)
    rows = []
    for (method, asked, distilled), runs in ours.groupby(
        ["method", "asked", "distilled"], sort=False
    ):
        row = {
            "method": method,
            "asked": asked,
            "kept": runs["keep"].mean(),
            "distilled": distilled,
            "seeds": len(runs),
        }
        printed_row = theirs.get((_paper_name(method), asked, bool(distilled)), {})
        for name in measures:
            row[name] = runs[name].mean()
            row[f"{name}, paper"] = printed_row.get(name, math.nan)
            row[f"{name}, difference"] = row[name] - row[f"{name}, paper"]
        rows.append(row)
    compared = pd.DataFrame(rows)
    not_held = [name for name in measures if compared[f"{name}, paper"].isna().all()]
    return compared.drop(
        columns=[f"{name}, {what}" for name in not_held for what in ("paper", "difference")]
    )


def _of_the_paper(experiment: Experiment) -> dict[tuple[str, float, bool], dict[str, float]]:
    """The paper's numbers of a task by method, fraction and distillation."""
    rows = paper.table()
    return {
        (row["method"], row["keep"], row["distilled"]): row
        for row in rows[rows["task"] == experiment.held].to_dict("records")
    }


def _paper_name(label: str) -> str:
    """What the paper's table calls one of our methods."""
    return "hard movement" if label in HARD else label


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """`beside_the_paper` as text: fractions in per cent, numbers with three digits.

    Parameters
    ----------
    table : pandas.DataFrame

    Returns
    -------
    pandas.DataFrame
        The same columns; nothing where there is no number.
    """
    columns = {}
    for name in table:
        if name in ("asked", "kept"):
            columns[name] = [f"{value:.1%}" for value in table[name]]
        elif name == "distilled":
            columns[name] = ["yes" if value else "no" for value in table[name]]
        elif name in ("method", "seeds"):
            columns[name] = [str(value) for value in table[name]]
        else:
            form = "{:+.3f}" if name.endswith("difference") else "{:.3f}"
            columns[name] = ["" if math.isnan(v) else form.format(v) for v in table[name]]
    return pd.DataFrame(columns)


def as_text(table: pd.DataFrame) -> str:
    """`beside_the_paper` as a person reads it in a terminal.

    Parameters
    ----------
    table : pandas.DataFrame

    Returns
    -------
    str
        A line a row, and what they mean.
    """
    heads = []
    for name in table:
        _, _, what = str(name).partition(", ")
        heads.append({"paper": "paper", "difference": "diff."}.get(what, str(name)))
    lines = printed(table).to_string(index=False, header=heads)
    return f"{lines}\n{RATIOS} paper: its number of what is on the left; diff.: ours less it."


def _markdown(table: pd.DataFrame) -> str:
    """A table of texts in Markdown."""
    lines = [[*map(str, table.columns)], ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
