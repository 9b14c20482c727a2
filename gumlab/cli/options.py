"""Arguments and options that several commands share, with what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "Built-in name, Hugging Face name, or folder."

ModelName = Annotated[str, typer.Argument(help=MODEL_HELP, metavar="MODEL")]
TaskName = Annotated[str, typer.Option(help="A task, built-in or real, or a path to your own.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of a real task's files.")]
Keep = Annotated[float, typer.Option(help="Fraction of feed-forward neurons that stay.")]
Split = Annotated[str, typer.Option(help="train, validation, or test.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences at a time.")]
Generated = Annotated[int, typer.Option(min=0, help="Texts generated for the metric; 0: none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
