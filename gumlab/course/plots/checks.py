"""What a figure's data must be, said before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gumlab.course.plots.figure import STYLES
from gumlab.errors import GumlabError, check_list
from gumlab.study.rows import differing_settings

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

A_STUDY = "a study's table"
OF_A_STUDY = "study.run() makes the runs, and study.table() gives their table."
SEEDS = ("seed", "draw")  # what tells apart runs of the same settings


def check_table(
    table: Any, *columns: str, what: str = A_STUDY, source: str = OF_A_STUDY, unit: str = "run"
) -> None:
    """Raise GumlabError unless it is a table with a row in it, and with these columns."""
    there = list(getattr(table, "columns", ()))
    missing = [column for column in columns if column not in there]
    if there and not missing and len(table):
        return
    found = f"a table of {len(table)} rows" if there else f"{type(table).__name__} {table!r:.40}"
    if there and missing:
        found += f", without {', '.join(missing)}"
    if "error" in there and table["error"].notna().any():
        errors = table["error"].dropna()
        found += f", of which {len(errors)} failed, the first with {errors.iloc[0]!s:.80}"
    raise GumlabError(
        f"Expected {what} with the columns {', '.join(columns)}, of one {unit} or more; got "
        f"{found}. {source}"
    )


def check_numbers(table: pd.DataFrame, column: str) -> None:
    """Raise GumlabError unless a column has a number in it, and nothing else."""
    cells = table[column].dropna()
    if len(cells) and cells.dtype.kind in "fiu":
        return
    found = f"holds {cells.iloc[0]!r:.40}" if len(cells) else "is empty"
    raise GumlabError(f"The column {column!r} {found}; expected numbers. Name another column.")


def check_one_run(table: pd.DataFrame, *by: str) -> None:
    """Raise GumlabError where rows that differ in other settings would be drawn as one's seeds."""
    rows = table.reset_index(drop=True)
    told_apart = [column for column in by if column in rows]
    repeated = rows[rows.duplicated(told_apart, keep=False)]
    if repeated.empty:
        return
    differing = differing_settings(repeated, told_apart)
    names = _listed(told_apart)
    if not differing:
        raise GumlabError(
            f"{len(repeated)} rows share their {names} with another, and no setting tells them "
            f"apart. Leave one of each: table.drop_duplicates({told_apart})."
        )
    which = " and ".join(_such_as(repeated[column]) for column in differing)
    raise GumlabError(
        f"The rows differ in {_listed(differing)} besides {names}: take one, such as "
        f"table.query({which!r})."
    )


def _such_as(column: pd.Series) -> str:
    """A query of the first entry of a column; of a share kept the dense runs stay."""
    name = column.name if column.name.isidentifier() else f"`{column.name}`"
    entry = column.dropna().tolist()[0]
    if column.name in ("asked", "keep"):
        return f"{name} in (1, {entry!r})"
    return f"{name} == {entry!r}"


def _listed(names: Sequence[str]) -> str:
    """The names as a sentence lists them: "method, keep and seed"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def check_mapping(name: str, value: Any, of: str, source: str = "") -> None:
    """Raise GumlabError unless it is a mapping with an entry in it."""
    if not isinstance(value, Mapping) or not value:
        hint = f" {source}" if source else ""
        raise GumlabError(f"{name} must be a mapping of {of}; got {_told(value)}.{hint}")


def check_lines(name: str, lines: Any, of: str) -> None:
    """Raise GumlabError unless it is a mapping of one to eight lines: others have no style."""
    check_mapping(name, lines, of)
    check_count(name, lines, len(STYLES))


def check_count(name: str, drawn: Sequence[Any] | Mapping[Any, Any], most: int) -> None:
    """Raise GumlabError unless there are one or more to draw, and no more than have a look."""
    if not 1 <= len(drawn) <= most:
        raise GumlabError(
            f"A figure shows 1 to {most} {name}; got {len(drawn)}. Choose those to be shown."
        )


def check_same_keys(name: str, rows: Mapping[str, Mapping[Any, Any]]) -> None:
    """Raise GumlabError unless every entry is a mapping with the keys of the first."""
    for label, row in rows.items():
        if not isinstance(row, Mapping):
            raise GumlabError(f"{name}[{label!r}] must be a mapping; got {_told(row)}.")
    first = next(iter(rows))
    for label, row in rows.items():
        if set(row) != set(rows[first]):
            raise GumlabError(
                f"{name} must have the same entries for each; {first!r} has "
                f"{', '.join(map(str, rows[first]))}, {label!r} has {', '.join(map(str, row))}."
            )


def check_has(name: str, key: Any, entries: Mapping[Any, Any]) -> None:
    """Raise GumlabError unless a key is one of a mapping's."""
    if key not in entries:
        known = ", ".join(map(str, entries)) or "none"
        raise GumlabError(f"{name} has no entry {key!r}; it has {known}.")


def check_map(masks: Sequence[Tensor], scores: Sequence[Tensor] | None = None) -> None:
    """Raise GumlabError unless there is a bool (N,) mask for each layer, and scores to match."""
    made_by = "gumlab.select makes masks of scores."
    for layer, mask in enumerate(check_list("masks", masks, "bool tensors, one per layer")):
        dtype = str(getattr(mask, "dtype", type(mask).__name__))
        if dtype not in ("bool", "torch.bool") or mask.ndim != 1 or not len(mask):
            found = f"{dtype} of shape {tuple(getattr(mask, 'shape', ()))}"
            raise GumlabError(f"masks[{layer}] must be a bool tensor, (N,); got {found}. {made_by}")
    if scores is None:
        return
    widths = [len(mask) for mask in masks]
    shapes = [
        tuple(getattr(one, "shape", ()))
        for one in check_list("scores", scores, "tensors, one per layer")
    ]
    if shapes != [(width,) for width in widths]:
        raise GumlabError(
            f"scores must be a number for each neuron of the masks, whose layers have widths "
            f"{widths}; got the shapes {shapes}."
        )


def _told(value: Any) -> str:
    """A value that is none of those expected, in a few words."""
    return f"{type(value).__name__} {' '.join(repr(value).split())[:40]}"
