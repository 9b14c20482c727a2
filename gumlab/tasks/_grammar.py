"""What the generated tasks share: the hash split, weighted choice, sentence casing, a/an, lists."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def split_of(key: tuple[str, ...]) -> str:
    """Which split a combination of content values belongs to: 80/10/10.

    Python's own hash() is salted per process, so the choice rests on SHA-256.
    """
    digest = hashlib.sha256("\x1f".join(key).encode("utf-8")).digest()
    bucket = int.from_bytes(digest[:8], "big") % 10
    return {8: "validation", 9: "test"}.get(bucket, "train")


def choose(rng: random.Random, options: Sequence[T]) -> T:
    """One option, the earlier ones more often (weights 1, 1/2, 1/3, ...).

    Skewed as in real text: a small model learns the usual wording first and the rare ones later.
    """
    return rng.choices(options, [1 / (i + 1) for i in range(len(options))])[0]


def sentence(text: str) -> str:
    """Capital first letter and a full stop.

    >>> sentence("it is cheap")
    'It is cheap.'
    """
    return text[0].upper() + text[1:] + "."


def article(phrase: str) -> str:
    """The phrase with a or an before it; by spelling, which suffices for the words used here.

    >>> article("Italian pub"), article("5 out of 5 rating")
    ('an Italian pub', 'a 5 out of 5 rating')
    """
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def join_and(parts: Sequence[str]) -> str:
    """A list in words.

    >>> join_and(["is cheap", "serves fast food", "welcomes families"])
    'is cheap, serves fast food and welcomes families'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
