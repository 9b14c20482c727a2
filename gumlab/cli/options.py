"""Arguments and options that several commands share, with what `--help` says of them.

What an option may be is checked as Python checks its argument, by the same function and so in the
same sentence, before the command begins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gumlab.errors import check_choice, check_number, check_seed, check_whole

MODEL_HELP = "Built-in name, Hugging Face name, or folder."


def whole(least: int = 1) -> Callable[..., Any]:
    """The check of an option that is a whole number, or several."""

    def check(option: typer.CallbackParam, value: Any) -> Any:
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None:
                check_whole(_name(option), number, least)
        return value

    return check


def number(option: typer.CallbackParam, value: Any) -> Any:
    """The check of an option that is a number, 0 or more."""
    if value is not None:
        check_number(_name(option), value)
    return value


def seed(option: typer.CallbackParam, value: Any) -> Any:
    """The check of a seed."""
    return check_seed(value, _name(option))


def choice(*choices: str) -> Callable[..., Any]:
    """The check of an option that is one of some names."""

    def check(option: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            check_choice(_name(option), value, choices)
        return value

    return check


def fraction(value: Any) -> Any:
    """The check of --keep."""
    from gumlab.selection import check_keep  # here: it brings torch

    return check_keep(value)


def fractions(values: Any) -> Any:
    """The check of --keep that may be given again."""
    return [fraction(value) for value in values or ()]


def processes(value: Any) -> Any:
    """The check of --jobs."""
    from gumlab.study.workers import check_jobs  # here: it brings joblib

    check_jobs(value)
    return value


def _name(option: typer.CallbackParam) -> str:
    return option.name or "the option"


ModelName = Annotated[str, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
TaskName = Annotated[str, typer.Option(help="A task, built-in or real, or a path to your own.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of a real task's files.")]
Keep = Annotated[
    float, typer.Option(help="Fraction of feed-forward neurons that stay.", callback=fraction)
]
Split = Annotated[
    str,
    typer.Option(
        help="train, validation, or test.", callback=choice("train", "validation", "test")
    ),
]
BatchSize = Annotated[int, typer.Option(help="Sequences at a time.", callback=whole())]
Generated = Annotated[
    int, typer.Option(help="Texts generated for the metric; 0: none.", callback=whole(0))
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
