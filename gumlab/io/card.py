"""The model card: the README.md of a saved folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gumlab.errors import GumlabError, first_line
from gumlab.io.bases import BASES
from gumlab.io.loading import BUILT_IN


@dataclass(frozen=True)
class Loaders:
    """What loads a folder.

    Attributes
    ----------
    gumlab : bool
        `gumlab.load` does.
    transformers : str, optional
        The class whose `from_pretrained` does, such as "transformers.AutoModelForCausalLM" or one
        of the user's own.
    code : str, optional
        The name of the module in the folder that this class needs, `trust_remote_code=True`.
    can_be_padded : bool
        Where transformers does not: it would, if the folder were saved with `pad=True`.
    """

    gumlab: bool = True
    transformers: str | None = None
    code: str | None = None
    can_be_padded: bool = False


def model_card(
    name: str,
    widths: Sequence[int],
    *,
    padded: bool,
    loaders: Loaders,
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
    loaders : Loaders
        Every way that loads the folder; each becomes a block of code to run beside it.
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
    >>> loaders = Loaders(can_be_padded=True)
    >>> card = model_card("small", [7, 11], padded=False, loaders=loaders, notes={"BLEU": 31.5})
    >>> print(*card.splitlines()[4:], sep="\\n")
    # small
    <BLANKLINE>
    Feed-forward neurons by layer: 7, 11.
    <BLANKLINE>
    With gumlab:
    <BLANKLINE>
    ```python
    import gumlab
    <BLANKLINE>
    model, tokenizer = gumlab.load("small")
    ```
    <BLANKLINE>
    Plain transformers does not load it, for its config cannot say these widths. Saved
    with `with_code=True` it would with `trust_remote_code=True`, with `pad=True` as it is.
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
        *_ways(name, loaders),
    ]
    if notes:
        lines += ["", "| what | value |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in notes.items()]
    return "\n".join(lines) + "\n"


def _ways(name: str, loaders: Loaders) -> Iterator[str]:
    """The lines on how to load a folder: a block of code for each way, a sentence for the rest."""
    if loaders.gumlab:
        is_taken = name in (*BUILT_IN, *BASES)  # which gumlab.load would take for what it has
        path = _quoted(f"./{name}" if is_taken else name)
        yield from ("", "With gumlab:", "")
        yield from _block("import gumlab", "", f"model, tokenizer = gumlab.load({path})")
    else:
        yield ""
        yield "`gumlab.load` takes language models without other heads or parts, and not this one."
    yield ""
    kind = loaders.transformers
    if kind is None:
        yield "Plain transformers does not load it, for its config cannot say these widths. Saved"
        yield "with `with_code=True` it would with `trust_remote_code=True`" + (
            ", with `pad=True` as it is." if loaders.can_be_padded else "."
        )
    elif kind.startswith("transformers."):
        yield from _with_transformers(_quoted(name), kind, loaders.code)
    else:
        yield f"With its own class: `{kind}.from_pretrained({_quoted(name)})`."


def _with_transformers(path: str, kind: str, code: str | None) -> Iterator[str]:
    """The lines on how transformers loads a folder."""
    if code is None:
        yield "With transformers:"
    else:
        yield "With transformers, which does not load it without `trust_remote_code=True`: then it"
        yield f"runs `{code}` of this folder, which builds these widths:"
    yield ""
    trust = "" if code is None else ", trust_remote_code=True"
    yield from _block(
        "import transformers",
        "",
        f"model = {kind}.from_pretrained({path}{trust})",
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({path})",
    )


def _quoted(path: str) -> str:
    """A path as Python's text."""
    return json.dumps(path, ensure_ascii=False)


def _block(*lines: str) -> Iterator[str]:
    """Lines as a block of Python in Markdown."""
    yield from ("```python", *lines, "```")


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
