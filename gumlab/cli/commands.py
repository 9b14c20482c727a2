"""The `gumlab` command."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gumlab.cli.printing import counted, show, text
from gumlab.errors import GumlabError


class _Stoppable(typer.core.TyperGroup):
    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            typer.echo("gumlab: stopped before the end.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Stoppable,
    help="Structured pruning of GPT-type language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelName = Annotated[
    str, typer.Argument(help="Built-in name, Hugging Face name, or folder.", metavar="MODEL")
]
TaskName = Annotated[str, typer.Option(help="A task, built-in or real, or a path to your own.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of a real task's files.")]
Split = Annotated[str, typer.Option(help="train, validation, or test.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences at a time.")]
Generated = Annotated[int, typer.Option(min=0, help="Texts generated for the metric; 0: none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@app.callback()
def _root() -> None:
    """Structured pruning of GPT-type language models."""


@app.command()
def demo(
    model: Annotated[
        str, typer.Option(help="Built-in name, Hugging Face name, or folder.")
    ] = "tiny-gpt2",
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    keep: Annotated[float, typer.Option(help="Fraction of feed-forward neurons that stay.")] = 0.25,
    steps: Annotated[int, typer.Option(help="Training steps of each method.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the data order and the random scores.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("gumlab-demo"),
) -> None:
    """Prune a model with every training method of the paper and show what it cost."""
    from gumlab.cli.demonstration import as_text
    from gumlab.cli.demonstration import demo as run_demo
    from gumlab.study import metric_of
    from gumlab.tasks import load_task

    data = load_task(task, data_dir)
    for note in data.notes:
        typer.echo(note)
    table = run_demo(model, data, out, keep=keep, steps=steps, seed=seed, say=typer.echo)
    typer.echo("\n" + as_text(table, metric_of(data)))
    typer.echo(
        f"\nTable, figure and shrunk checkpoints are in {out}/ (gumlab.load opens any of them)."
    )


@app.command()
def prune(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the smaller model.")],
    method: Annotated[
        str,
        typer.Option(help="recommended, a score (obs, wanda, ...), or one that trains (gum, ...)."),
    ] = "recommended",
    keep: Annotated[float, typer.Option(help="Fraction of feed-forward neurons that stay.")] = 0.25,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    steps: Annotated[int, typer.Option(help="Training steps, on the way or after the cut.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of data order, dropout, random scores.")] = 0,
    scope: Annotated[str | None, typer.Option(help="layer or global; default: by method.")] = None,
    refit: Annotated[
        bool | None, typer.Option(help="Least squares after the cut; default: only if one-shot.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Model to distil from.")] = None,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 1e-3,
    batch_size: BatchSize = 16,
    generated: Generated = 200,
    pad: Annotated[bool, typer.Option(help="Zero-pad unequal widths for transformers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller model for a task: prune, train, remove, evaluate, save."""
    from gumlab.io.saving import check_free, save
    from gumlab.study.methods import pruned

    check_free(out)
    if Path(model).exists() and out.exists() and out.samefile(model):
        raise GumlabError(f"{out} is the model itself and would be lost; choose another folder.")
    data = _task(task, data_dir)
    options: dict[str, Any] = {"scope": scope, "refit": refit, "teacher": teacher, "lr": lr}
    options |= {"batch_size": batch_size, "generated": generated}
    try:
        small, tokenizer, row = pruned(
            model, method, data, keep=keep, steps=steps, seed=seed, **options
        )
    except KeyboardInterrupt:
        typer.echo(f"gumlab: stopped, and nothing was written to {out}.", err=True)
        raise typer.Exit(130) from None
    save(small, tokenizer, out, pad=pad, notes={k: text(v) for k, v in row.items()})
    show(row | {"out": str(out)}, as_json)


@app.command()
def evaluate(
    model: ModelName,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    split: Split = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="First examples used.")] = None,
    generated: Generated = 200,
    batch_size: BatchSize = 50,
    beams: Annotated[int, typer.Option(min=1, help="1: greedy; more: beam search.")] = 1,
    stride: Annotated[int | None, typer.Option(min=1, help="Of running text's windows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Loss, perplexity, and the task's metric on texts that the model writes."""
    from gumlab.evaluation import evaluate as run_evaluate
    from gumlab.io.loading import load

    data = _task(task, data_dir)
    if split == "test" and not data.test:
        split = "validation"
    options: dict[str, Any] = {"limit": limit, "generated": generated, "batch_size": batch_size}
    options |= {"beams": beams, "stride": stride}
    loaded, tokenizer = load(model)
    with counted(loaded):
        scores = run_evaluate(loaded, tokenizer, data, split, **options)
    show({"model": model, "task": task, "split": split, **scores}, as_json)


@app.command()
def redundancy(
    model: ModelName,
    task: TaskName = "restaurants",
    data_dir: DataDir = None,
    split: Split = "train",
    limit: Annotated[int, typer.Option(min=1, help="First examples used.")] = 256,
    batch_size: BatchSize = 16,
    as_json: AsJson = False,
) -> None:
    """How sensitive and how unique the neurons are, layer by layer."""
    from gumlab.inspection import redundancy as run_redundancy
    from gumlab.io.loading import load

    options: dict[str, Any] = {"split": split, "limit": limit, "batch_size": batch_size}
    loaded, tokenizer = load(model)
    with counted(loaded):
        report = run_redundancy(loaded, tokenizer, _task(task, data_dir), **options)
    row = {"model": model, "task": task, "split": split, "tokens": report.tokens}
    row |= {"uniqueness": report.uniqueness, "mean_sensitivity": report.mean_sensitivity}
    show(row | {"layers": report.table().to_dict("records")}, as_json)


@app.command()
def measure(
    models: Annotated[list[str], typer.Argument(help="One or more.", metavar="MODEL...")],
    batches: Annotated[
        list[int], typer.Option("--batches", "--batch", help="Batch size; give it again for more.")
    ] = [1, 8],  # noqa: B006
    tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 128,
    decoded: Annotated[int, typer.Option(help="Tokens written after it.")] = 16,
    repeats: Annotated[int, typer.Option(help="Timed turns of each model.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Parameters, FLOPs, bytes, speed and peak memory of models, taking turns, side by side."""
    from gumlab.io.loading import load
    from gumlab.measurement import compare, why_little

    loaded = {name: load(name)[0] for name in models}
    found = compare(loaded, batches=batches, tokens=tokens, decoded=decoded, repeats=repeats)
    whys = {name: why_little(found[models[0]], row) for name, row in found.items()}
    rows = [{"model": name, **row} for name, row in found.items()]
    result: dict[str, Any] = {"models": rows}
    if not as_json:  # a table of sizes, one of speeds
        speeds = [(row["model"], speed) for row in rows for speed in row.pop("speed")]
        result["speed"] = [{"model": name, **speed} for name, speed in speeds]
    show(result | {f"why {name}": why for name, why in whys.items() if why}, as_json)


@app.command()
def doctor(folder: Annotated[Path, typer.Argument()], as_json: AsJson = False) -> None:
    """Say what is in a folder and what can load it; exit code 1 if nothing can."""
    from dataclasses import asdict

    from gumlab.io.diagnosis import doctor as examine

    report = examine(folder)
    show(asdict(report), True) if as_json else typer.echo(str(report))
    if not report.loads_with:
        raise typer.Exit(1)


@app.command()
def release(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks, if not the repository's.")
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            help="Address on GitHub of what will hold gumlab and DIR: the copies get badges "
            "that open them there.",
            metavar="URL",
        ),
    ] = None,
) -> None:
    """Write copies of the notebooks for a class: without solutions, ready for nbgrader."""
    from gumlab.course.releasing import NOTEBOOKS
    from gumlab.course.releasing import release as write

    found = write(directory, notebooks or NOTEBOOKS, repository)
    exercises = [exercise for one in found.values() for exercise in one]
    typer.echo(
        f"{len(found)} notebooks with {len(exercises)} exercises, "
        f"{sum(e.points for e in exercises)} points: {directory / 'students'} to hand out, "
        f"{directory / 'course'} for nbgrader, {directory / 'exercises.md'} for you."
    )


def _task(name: str, data_dir: Path | None) -> Any:
    from gumlab.tasks import load_task

    task = load_task(name, data_dir)
    for note in task.notes:
        typer.echo(note, err=True)
    return task


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"gumlab: {message}", err=True)


def main() -> None:
    """Run the command; a GumlabError becomes one sentence on stderr and exit code 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # one sentence, not a page before it
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            app()
    except GumlabError as error:
        typer.echo(f"gumlab: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
