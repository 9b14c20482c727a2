"""The model card: the README.md of a saved folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    name: str,
    widths: Sequence[int],
    *,
    padded: bool,
    plain: bool,
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
    plain : bool
        Plain transformers loads the folder.
    notes : mapping of str to anything
        The table's rows; without any there is no table.

    Returns
    -------
    str
        Markdown, with the header that the Hugging Face hub reads.

    Examples
    --------
    >>> card = model_card("small", [7, 11], padded=True, plain=True, notes={"BLEU": 31.5})
    >>> print(*card.splitlines()[4:], sep="\\n")
    # small
    <BLANKLINE>
    Feed-forward neurons by layer: 7, 11 (each layer zero-padded to 11).
    Load it with `transformers.AutoModelForCausalLM.from_pretrained("small")`.
    <BLANKLINE>
    | what | value |
    |---|---|
    | BLEU | 31.5 |
    """
    neurons = ", ".join(str(width) for width in widths)
    if padded:
        neurons += f" (each layer zero-padded to {max(widths)})"
    loader = "transformers.AutoModelForCausalLM.from_pretrained" if plain else "gumlab.load"
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
        lines += [f"| {key} | {value} |" for key, value in notes.items()]
    return "\n".join(lines) + "\n"
