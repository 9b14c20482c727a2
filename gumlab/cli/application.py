"""The `gumlab` command: its subcommands put together, and how a mistake or Ctrl-C ends it."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer

from gumlab import progress
from gumlab.cli import commands
from gumlab.errors import GumlabError, nearest


class _Stoppable(typer.core.TyperGroup):
    """Subcommands that Ctrl-C ends with a sentence, and with the exit code that shells expect."""

    def resolve_command(self, context: Any, given: list[str]) -> Any:
        if given and not given[0].startswith("-") and given[0] not in self.commands:
            names = ", ".join(self.commands)
            hint = nearest(given[0], self.commands)
            context.fail(f"There is no command {given[0]!r}.{hint} Known: {names}.")
        return super().resolve_command(context, given)

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            typer.echo("gumlab: stopped before the end.", err=True)
            raise typer.Exit(commands.STOPPED) from None


app = typer.Typer(
    cls=_Stoppable,
    help="Structured pruning of GPT-type language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(commands.demo)
app.command()(commands.prune)
app.command()(commands.evaluate)
app.command()(commands.redundancy)
app.command()(commands.measure)
app.command()(commands.export)
app.command()(commands.reproduce)
app.command()(commands.doctor)
app.command()(commands.fetch)
app.command()(commands.release)


def main() -> None:
    """Run the command; a GumlabError becomes one sentence on stderr and exit code 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # one sentence, not a page before it
    progress.DELAY = 1  # who waits at a prompt wants to see that something moves
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app()
    except GumlabError as error:
        typer.echo(f"gumlab: {error}", err=True)
        sys.exit(1)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one sentence on stderr, without the line of code that gave it."""
    typer.echo(f"gumlab: {message}", err=True)
