"""The one exception class of gumlab, and the helper that names near misses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GumlabError(Exception):
    """A mistake the user can mend: says what was wrong, what was expected, and what to do."""


def unknown(kind: str, name: object, known: Iterable[str]) -> GumlabError:
    """The error for a name that does not exist, with the nearest names first.

    >>> print(unknown("task", "restaurant", ["restaurants", "tables"]))
    Unknown task 'restaurant'. Did you mean 'restaurants'? Known: restaurants, tables.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return GumlabError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
