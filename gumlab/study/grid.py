"""The cells of a grid: every combination of its lists, each one run of a study."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError, unknown
from gumlab.pruner import Pruner
from gumlab.selection import check_keep, select
from gumlab.study.methods import Method, named
from gumlab.tasks import BUILT_IN, REAL
from gumlab.training import train

_WITH_TEACHER = ("ce_weight", "kd_weight", "temperature")
_TRAINING = {*inspect.signature(train).parameters} - {
    *("model", "tokenizer", "task", "steps", "pruner", "teacher", "seed", "record", "progress")
}


@dataclass(frozen=True)
class Cell:
    """One run of a study: a method on a model and a task at one budget, one seed.

    distilled: with the dense run of the same cell as teacher. widths_of: the label of the method
    whose run, all else equal, says how many neurons each layer keeps ("random at its widths").
    training: options of `train`.
    """

    model: str
    task: str
    method: Method
    keep: float
    seed: int
    steps: int
    distilled: bool = False
    widths_of: str | None = None
    split: str | None = None
    generated: int | None = 200
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its files are called: what a person looks for, and a hash of all of its settings."""
        settings = json.dumps(dataclasses.asdict(self), sort_keys=True, default=as_text)
        words = f"{Path(self.model).name} {Path(self.task).stem} {self.method.label}"
        words += f" keep{self.keep:g}"
        words += f" seed{self.seed}" + " distilled" * self.distilled
        readable = "".join(c if c.isalnum() or c == "." else "-" for c in words)
        return f"{readable[:120]}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}"

    @property
    def dense(self) -> Cell:
        """The dense run that teaches this one, and that its figures are compared with."""
        training = {k: v for k, v in self.training.items() if k not in _WITH_TEACHER}
        alone: dict[str, Any] = {"distilled": False, "widths_of": None, "training": training}
        return replace(self, method=Method("dense"), keep=1.0, **alone)


def expand(grid: Mapping[str, Any] | Sequence[Mapping[str, Any] | Cell]) -> list[Cell]:
    """The cells of a grid, or of a list of grids and cells: every combination, none twice.

    A grid's keys are those of `Cell` (`distil` for distilled; a method by its name or a `Method`; a
    task of your own by its path), and any option of `train`, `Method`, `Pruner` or `select`; a
    value is one or a list. A dense run has no keep, teacher or options, so there is one for all of
    them. Raises GumlabError for a key or name that is unknown.
    """
    cells: dict[str, Cell] = {}
    for one in [grid] if isinstance(grid, Mapping) else grid:
        if isinstance(one, Cell):
            one = one.dense if one.method.name is None else one
            cells.setdefault(one.name, one)
            continue
        lists = {k: v if isinstance(v, list | tuple | range) else [v] for k, v in one.items()}
        for values in itertools.product(*lists.values()):
            cell = _cell(dict(zip(lists, values, strict=True)))
            cells.setdefault(cell.name, cell)
    return list(cells.values())


def _cell(given: dict[str, Any]) -> Cell:
    if lacking := {"model", "task", "method"} - given.keys():
        raise GumlabError(f"The grid lacks {', '.join(sorted(lacking))}; give each a list.")
    given = {"keep": 0.25, "seed": 0, "steps": 300, **given}
    given |= {"distilled": given.pop("distil", False)} | {
        k: str(given[k]) for k in ("model", "task")
    }
    own = {f.name: given.pop(f.name) for f in dataclasses.fields(Cell) if f.name in given}
    own["training"] = {k: given.pop(k) for k in list(given) if k in _TRAINING}
    method = own["method"]
    if isinstance(method, str):
        method = named(method, own["steps"], **given)
    elif given and method.name is not None:
        label = ", ".join([method.label, *(f"{k} {v}" for k, v in given.items())])
        method = replace(method, label=label, options={**method.options, **given})
    known = {*inspect.signature(select if method.one_shot else Pruner).parameters}
    for key in method.options:
        if key not in known - {"model", "method", "keep", "steps", "seed", "scores"}:
            raise unknown("setting", key, sorted(known | _TRAINING))
    if own["task"] not in BUILT_IN + REAL and not Path(own["task"]).expanduser().exists():
        raise unknown("task", own["task"], (*BUILT_IN, *REAL, "or the path of your own"))
    check_keep(own["keep"])
    cell = Cell(**own | {"method": method})
    return cell.dense if method.name is None else cell


def as_text(value: Any) -> str:
    """A function by its name; all else as it prints."""
    return getattr(value, "__qualname__", str(value))
