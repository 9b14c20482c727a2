"""The model card: the README.md of a saved folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gumlab.errors import GumlabError, first_line


def model_card(
    name: str,
    widths: Sequence[int],
    *,
    padded: bool,
    loader: str,
    notes: Mapping[str, Any],
) -> str:
    """What was done to a model, how to load it, and the table of its notes.

    Parameters
    ----------
    name : str
        The folder's, without its path.
    widths : sequence of int
        The neurons in use by layer, before padding.
    padded : bool
        Each layer was zero-padded to the widest.
    loader : str
        What loads the folder, a function of its name.
    notes : mapping of str to anything
        The table's rows; without any there is no table. A bar or a line's end in them is written so
        that it stays in its cell.

    Returns
    -------
    str
        Markdown, with the header that the Hugging Face hub reads.

    Raises
    ------
    GumlabError
        For notes that are no rows of a table, or cannot be written as text.

    Examples
    --------
    >>> card = model_card(
    ...     "small", [7, 11], padded=True, loader="gumlab.load", notes={"BLEU": 31.5}
    ... )
    >>> print(*card.splitlines()[4:], sep="\\n")
    # small
    <BLANKLINE>
    Feed-forward neurons by layer: 7, 11 (each layer zero-padded to 11).
    Load it with `gumlab.load("small")`.
    <BLANKLINE>
    | what | value |
    |---|---|
    | BLEU | 31.5 |
    """
    neurons = ", ".join(str(width) for width in widths)
    if padded:
        neurons += f" (each layer zero-padded to {max(widths)})"
    if not isinstance(notes, Mapping):
        raise GumlabError(
            f"notes are the rows of the card's table, a dict of what to its value; got "
            f'{type(notes).__name__}. For instance notes={{"BLEU": 31.5}}.'
        )
    lines = [
        "---",
        "library_name: transformers",
        "tags: [gumlab, pruned]",
        "---",
        f"# {name}",
        "",
        f"Feed-forward neurons by layer: {neurons}.",
        f'Load it with `{loader}("{name}")`.',
    ]
    if notes:
        lines += ["", "| what | value |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in notes.items()]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """A value as text of one cell of a Markdown table."""
    try:
        text = str(value)
        text.encode("utf-8")
    except Exception as error:  # whatever a value's own text raises
        raise GumlabError(
            f"A note cannot be written, a {type(value).__name__} ({first_line(error)}). Give notes "
            "as numbers or text."
        ) from error
    return " ".join(text.replace("|", "\\|").split())
