"""gumlab: structured pruning of GPT-type language models, to teach, explore and reproduce."""

from __future__ import annotations

from typing import Any

from gumlab.errors import GumlabError
from gumlab.importing import imported

__version__ = "0.1.0"

# public name -> the module that holds it; imported at first use, so `import gumlab` stays fast
_HOMES = {
    "load": "io.loading",
    "load_task": "tasks",
    "neurons": "feedforward",
    "score": "scoring",
    "select": "selection",
    "gate": "gating",
    "Pruner": "pruner",
    "train": "training",
    "PruningCallback": "trainer",
    "redundancy": "inspection",
    "shrink": "removal",
    "prune": "removal",
    "damage_curves": "allocation",
    "save": "io.saving",
    "export": "io.gguf_export",
    "evaluate": "evaluation",
    "measure": "measurement",
    "Study": "study.runs",
    "start": "course.session",
    "environment": "course.session",
    "workbench": "course.bench",
}
_MODULES = {
    "check": "course.check",
    "explore": "course.explore",
    "paper": "study.paper",
    "plots": "course.plots",
}
__all__ = ["GumlabError", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return imported(f"gumlab.{_MODULES[name]}")
    if name in _HOMES:
        value = getattr(imported(f"gumlab.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gumlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
