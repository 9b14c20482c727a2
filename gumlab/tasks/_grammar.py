"""What the generated tasks share: word lists, the hash split, weighted choice, sentences."""

from __future__ import annotations

import hashlib
import json
import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def words(task: str) -> dict[str, Any]:
    """The words of a generated task, from the JSON file beside its module; lists become tuples.

    >>> words("chats")["days"][:2]
    ('Monday', 'Tuesday')
    """
    path = Path(__file__).with_name(f"{task}.json")
    return _frozen(json.loads(path.read_text(encoding="utf-8")))


def _frozen(value: Any) -> Any:
    """The value with a tuple in place of each list."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def held_out_split(combination: Sequence[str]) -> str:
    """Which split a combination of content values belongs to: 80/10/10.

    Python's own hash() is salted per process, so the choice rests on SHA-256.
    """
    digest = hashlib.sha256("\x1f".join(combination).encode("utf-8")).digest()
    bucket = int.from_bytes(digest[:8], "big") % 10
    return {8: "validation", 9: "test"}.get(bucket, "train")


def choose(rng: random.Random, options: Sequence[T]) -> T:
    """One option, the earlier ones more often (weights 1, 1/2, 1/3, ...).

    Skewed as in real text: a small model learns the usual wording first and the rare ones later.
    """
    return choose_by_sums(rng, options, _sums_of_weights(len(options)))


@cache
def _sums_of_weights(count: int) -> tuple[float, ...]:
    """1, 1 + 1/2, 1 + 1/2 + 1/3, ...: the running sums of the weights."""
    return tuple(accumulate(1 / rank for rank in range(1, count + 1)))


def choose_by_sums(rng: random.Random, options: Sequence[T], sums: Sequence[float]) -> T:
    """One option by the running sums of the weights.

    It draws what `rng.choices(options, cum_weights=sums)` draws, without its checks: a task asks
    hundreds of thousands of times.
    """
    return options[bisect_right(sums, rng.random() * sums[-1], 0, len(sums) - 1)]


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
    """One or more parts as a list in words.

    >>> join_and(["is cheap", "serves fast food", "welcomes families"])
    'is cheap, serves fast food and welcomes families'
    """
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last
