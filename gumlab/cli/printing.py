"""Results of a command as JSON for a machine, or as lines and tables for a person."""

from __future__ import annotations

import json
from typing import Any

import typer


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result.

    Parameters
    ----------
    result : dict
        Values by name; a list of dicts is a table.
    as_json : bool
        As one JSON object, with null in place of NaN and infinity, instead of lines and tables.
    """
    if as_json:
        plain = json.loads(json.dumps(result), parse_constant=lambda constant: None)
        typer.echo(json.dumps(plain, ensure_ascii=False))
        return
    for name, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            _show_table(value)
        else:
            typer.echo(f"{name:<18}{text(value)}")


def _show_table(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, under the names of their columns."""
    import pandas as pd

    cells = [{column: text(value) for column, value in row.items()} for row in rows]
    typer.echo(pd.DataFrame(cells).to_string(index=False))


def text(value: Any) -> str:
    """A value as a person reads it.

    >>> text(1024), text(0.12345), text([7, 11]), text(True)
    ('1,024', '0.1235', '7, 11', 'True')
    """
    if isinstance(value, list):
        return ", ".join(text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
