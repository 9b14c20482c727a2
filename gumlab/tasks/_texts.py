"""What becomes text: the one rule for every cell of a file or a table, and for every example.

A text is one as it stands, a finite number is written as Python writes it, and a chat stays a list
of messages until a tokenizer's own template writes it. Everything else is refused, and the sentence
names its row and column.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from gumlab.errors import GumlabError


class Message(NamedTuple):
    """What one speaker says in a chat."""

    role: str
    content: str


class Chat(str):
    """A chat as people read it; for a model a tokenizer's template writes it from the messages.

    >>> Chat([Message("user", "hello"), Message("assistant", "hi")])
    'user: hello\\nassistant: hi'
    """

    messages: tuple[Message, ...]

    def __new__(cls, messages: Iterable[Message]) -> Chat:
        messages = tuple(messages)
        chat = super().__new__(cls, "\n".join(f"{m.role}: {m.content}" for m in messages))
        chat.messages = messages
        return chat

    def __getnewargs__(self) -> Any:  # for copy and pickle
        return (self.messages,)


class Place(NamedTuple):
    """Where a cell stands, as a sentence names it."""

    source: str  # a file's path, or what its rows were given as
    row: str  # "row 3", "line 3"
    column: str

    def __str__(self) -> str:
        return f"{self.source}, {self.row}, column {self.column}"


def check_text(text: Any, what: object) -> None:
    """Raise GumlabError unless `text` is one that a tokenizer takes; `what` names it.

    >>> check_text("a text", "The prompt")
    """
    if not isinstance(text, str):
        raise GumlabError(f"{what} must be a text; got {type(text).__name__} {text!r:.60}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GumlabError(
            f"{what} has half a character at {error.start} ({text[error.start]!r}, a lone "
            "surrogate), which no tokenizer takes. Write the whole character, or take it out."
        ) from error


def text_of(value: Any, place: Place) -> str:
    """A cell's text.

    Raises
    ------
    GumlabError
        Where nothing is there (None, NaN), and for what is neither text nor a finite number: a
        truth value, a list, bytes, a date. They have no one way to be written.
    """
    if value is None:
        raise GumlabError(f"{place}: nothing is there (null or missing). Fill or remove the row.")
    if isinstance(value, str):
        check_text(value, place)
        if "\0" in value:
            raise GumlabError(
                f"{place}: a NUL character at {value.index(chr(0))}, which no text has. Take it "
                "out, or make the file again from its source."
            )
        return str(value)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and math.isfinite(value):
        # numpy's float32 among them: its own str is the shortest text of that number
        return str(int(value)) if isinstance(value, Integral) else str(value)
    if is_number:
        raise GumlabError(
            f"{place}: {value} is no text. It often stands for a missing value: fill or remove the "
            "row."
        )
    raise GumlabError(
        f"{place}: {type(value).__name__} {value!r:.80} is no text; expected a text or a number."
        f"{_way_out(value)}"
    )


def text_or_nothing(value: Any, place: Place) -> str:
    """As `text_of`, but "" for None: a gap that the reader of a data set counts."""
    return "" if value is None else text_of(value, place)


def _way_out(value: Any) -> str:
    """What to do about a value that is no text."""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return ' Write what the model should read, as "yes" or "true".'
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " Several good answers belong into the column references, the first into target."
    if isinstance(value, bytes):
        return ' Decode it first: value.decode("utf-8").'
    return " Write it as text first."


def messages_of(value: Any, what: object) -> list[Message]:
    """The messages of a chat: each a dict with role and content, one or more.

    Raises
    ------
    GumlabError
        If a message has something else, which a template might leave out.
    """
    messages = []
    for number, item in enumerate(value):
        where = f"{what}, message {number}"
        item = item._asdict() if isinstance(item, Message) else item
        if not isinstance(item, Mapping):
            raise GumlabError(f"{where} is {item!r:.60}; expected a dict with role and content.")
        given = {name: cell for name, cell in item.items() if cell is not None}
        if given.keys() != {"role", "content"}:
            raise GumlabError(
                f"{where} has {', '.join(map(str, given)) or 'nothing'}; expected role and content "
                "alone. Rename what is called otherwise (from, value), and take out the rest."
            )
        for name, text in given.items():
            check_text(text, f"{where}, {name},")
        messages.append(Message(given["role"], given["content"]))
    if not messages:
        raise GumlabError(f"{what} has no messages; expected one or more.")
    return messages


def is_chat(value: Any) -> bool:
    """True for what can only be meant as a chat: a list that begins with a message, or is one."""
    return (
        isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping | Message)
    )


def check_no_list(text: str, place: Place, of: type) -> None:
    """Raise GumlabError for a list in Python's form in CSV, which has no lists and wrote it so.

    A list of `of`, of dict or of str: "[a remark]" is a text, and so is all of JSON's.
    """
    stripped = text.strip()
    is_csv = place.source.lower().endswith((".csv", ".tsv"))
    if not (is_csv and stripped.startswith("[") and stripped.endswith("]")):
        return
    try:
        items = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return
    if items and all(isinstance(item, of) for item in items):
        raise GumlabError(
            f"{place}: a list written as text ({stripped:.60}). Save the rows as JSON lines or "
            "parquet, which have lists."
        )
