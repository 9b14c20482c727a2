"""Importing large modules, without the garbage collector looking through what they make."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def imported(name: str) -> ModuleType:
    """A module by its full name, imported with the garbage collector at rest if it is not yet."""
    if name in sys.modules:
        return importlib.import_module(name)
    with uncollected():
        return importlib.import_module(name)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector while libraries are imported.

    An import makes hundreds of thousands of objects, and nearly all of them stay. The collector
    would look through them again and again, which one waits for at every start. So it rests
    meanwhile, and then counts them among the old objects, which it looks through seldom. Where it
    was off, or objects are frozen, all of that is somebody else's choice.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # every object becomes one that is never looked at,
        gc.unfreeze()  # and then an old one
        gc.enable()
