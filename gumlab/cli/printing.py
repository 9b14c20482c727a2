"""Results of a command as JSON for a machine, or as lines and tables for a person."""

from __future__ import annotations

import json
from typing import Any

import typer


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as JSON (NaN and infinity as null), or as lines and tables for a person."""
    if as_json:
        strict = json.loads(json.dumps(result), parse_constant=lambda _: None)
        typer.echo(json.dumps(strict, ensure_ascii=False))
        return
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            import pandas as pd

            shown = pd.DataFrame([{k: text(v) for k, v in row.items()} for row in value])
            typer.echo(shown.to_string(index=False))
        else:
            typer.echo(f"{key:<18}{text(value)}")


def text(value: Any) -> str:
    """A value as a person reads it: 1,024, 0.1235, a list with commas."""
    if isinstance(value, list):
        return ", ".join(map(text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def counted(model: Any) -> Any:
    """A bar that counts the model's passes, if they take more than a second."""
    from tqdm import tqdm

    bar = tqdm(unit=" passes", delay=1, leave=False)
    model.register_forward_hook(lambda *_: bar.update() and None)  # the output stays as it is
    return bar
