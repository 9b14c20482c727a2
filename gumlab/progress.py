"""A bar for what takes long, and nothing for what does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 10.0  # seconds that pass before a bar is shown

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str, unit: str) -> Iterator[Item]:
    """The items, counted by a bar once they take longer than DELAY.

    The bar holds an item until the next one is there: let nothing large be one.

    Parameters
    ----------
    items : sequence
        What is worked through.
    what, unit : str
        What is done, and what one item is called.

    Yields
    ------
    object
        Each item.
    """
    yield from tqdm(items, desc=what, unit=unit, delay=DELAY, leave=False)
