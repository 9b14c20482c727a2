"""Processes that a test starts: they find gumlab, these helpers and the test modules."""

from __future__ import annotations

import os

from helpers import ROOT

PLACES = (ROOT, ROOT / "tests", ROOT / "tests" / "integration")


def environment(**more: str) -> dict[str, str]:
    """This process's environment with those places to import from, and `more` on top."""
    given = os.environ.get("PYTHONPATH")
    paths = [*map(str, PLACES), *([given] if given else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more
