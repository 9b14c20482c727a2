"""Many runs: methods, grids, studies, intervals, the paper's numbers and claims."""

from __future__ import annotations

import importlib
from typing import Any

# public name -> the module of this folder that holds it; imported at first use, so that figures,
# which need the intervals alone, do not wait for transformers and joblib
_HOMES = {
    "Study": "runs",
    "Cell": "grid",
    "Method": "methods",
    "PAPER_METHODS": "methods",
    "RECOMMENDED_METHOD": "methods",
    "Reproduction": "reproduction",
    "Run": "methods",
    "metric_of": "methods",
    "named": "methods",
    "run": "methods",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gumlab.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gumlab.study.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
