"""A bar for what takes long, and nothing for what does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 10.0  # seconds that pass before a bar is shown

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, counted by a bar once they take longer than DELAY.

    The bar holds an item until the next one is there: let nothing large be one.

    Parameters
    ----------
    items : iterable
        What is worked through.
    what, unit : str
        What is done, and what one item is called.
    total : int, optional
        How many items there are, where they do not say it themselves.

    Yields
    ------
    object
        Each item.
    """
    yield from tqdm(items, desc=what, unit=unit, total=total, delay=DELAY, leave=False)
