"""The `gumlab` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gumlab.errors import GumlabError

app = typer.Typer(
    help="Structured pruning of GPT-type language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Structured pruning of GPT-type language models."""


@app.command()
def demo(
    model: Annotated[
        str, typer.Option(help="Built-in name, Hugging Face name, or folder.")
    ] = "tiny-gpt2",
    task: Annotated[str, typer.Option(help="restaurants, tables, chats, or e2e.")] = "restaurants",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of a real task's files.")] = None,
    keep: Annotated[float, typer.Option(help="Fraction of feed-forward neurons that stay.")] = 0.25,
    steps: Annotated[int, typer.Option(help="Training steps of each method.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the data order and the random scores.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("gumlab-demo"),
) -> None:
    """Prune a model with every training method of the paper and show what it cost."""
    from gumlab.demo import as_text
    from gumlab.demo import demo as run_demo
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
def release(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks, if not the repository's.")
    ] = None,
) -> None:
    """Write copies of the notebooks for a class: without solutions, ready for nbgrader."""
    from gumlab.release import NOTEBOOKS
    from gumlab.release import release as write

    found = write(directory, notebooks or NOTEBOOKS)
    exercises = [exercise for one in found.values() for exercise in one]
    typer.echo(
        f"{len(found)} notebooks with {len(exercises)} exercises, "
        f"{sum(e.points for e in exercises)} points: {directory / 'students'} to hand out, "
        f"{directory / 'course'} for nbgrader, {directory / 'exercises.md'} for you."
    )


def main() -> None:
    """Run the command; a GumlabError becomes one sentence on stderr and exit code 1."""
    try:
        app()
    except GumlabError as error:
        typer.echo(f"gumlab: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
