"""The cells of a grid: every combination of its lists, each one run of a study."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gumlab.errors import GumlabError, unknown
from gumlab.pruner import Pruner
from gumlab.rules import METHODS, options_of, rule_of
from gumlab.selection import check_keep, select
from gumlab.study.methods import Method, named
from gumlab.tasks import BUILT_IN, REAL
from gumlab.training import train

_REQUIRED = {"model", "task", "method"}
_DEFAULTS = {"keep": 0.25, "seed": 0, "steps": 300}
_OF_DISTILLING = ("ce_weight", "kd_weight", "temperature")  # options of `train` with a teacher


def _options(function: Callable[..., Any], *given: str) -> set[str]:
    """The options of a function that a grid may vary: those that `run` does not give it itself."""
    parameters = inspect.signature(function).parameters.values()
    named_ones = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return named_ones - {*given}


_TRAINING_OPTIONS = _options(
    train, "model", "tokenizer", "task", "steps", "pruner", "teacher", "seed", "record", "progress"
)
_SELECT_OPTIONS = _options(select, "scores", "keep")
_PRUNER_OPTIONS = _options(Pruner, "model", "method", "keep", "steps", "seed")
_RULE_OPTIONS = {option for method in METHODS for option in options_of(method)}


@dataclass(frozen=True)
class Cell:
    """One run of a study: a method on a model and a task at one budget, one seed.

    Parameters
    ----------
    model, task : str
        As `gumlab.load` and `gumlab.load_task` take them: a name or a path.
    method : Method
        What is done to the model.
    keep : float
        Fraction in (0, 1] of all feed-forward neurons that stay.
    seed, steps : int
        As in `gumlab.study.run`.
    distilled : bool
        With the dense run of the same cell as teacher.
    widths_of : str, optional
        The label of the method whose run, all else equal, says how many neurons each layer keeps
        (the control "random at its widths").
    split : str, optional
        What is measured on; see `gumlab.study.run`.
    generated : int, optional
        The first examples that are generated for the task's metric; None: all, 0: none.
    training : mapping
        Options of `gumlab.train`.
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
        words = [
            Path(self.model).name,
            Path(self.task).stem,
            self.method.label,
            f"keep{self.keep:g}",
            f"seed{self.seed}",
        ]
        if self.distilled:
            words.append("distilled")
        readable = "".join(c if c.isalnum() or c == "." else "-" for c in " ".join(words))
        settings = json.dumps(dataclasses.asdict(self), sort_keys=True, default=as_text)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        return f"{readable[:120]}-{digest[:10]}"

    @property
    def dense(self) -> Cell:
        """The dense run that teaches this one, and that its figures are compared with."""
        training = {key: value for key, value in self.training.items() if key not in _OF_DISTILLING}
        return replace(
            self,
            method=Method("dense"),
            keep=1.0,
            distilled=False,
            widths_of=None,
            training=training,
        )


_CELL_FIELDS = {f.name for f in dataclasses.fields(Cell)}


def expand(grid: Mapping[str, Any] | Sequence[Mapping[str, Any] | Cell]) -> list[Cell]:
    """The cells of a grid, or of a list of grids and cells: every combination, none twice.

    Parameters
    ----------
    grid : mapping, or sequence of mappings and cells
        A grid has a value or a list of values for each key. It needs model, task (of your own: its
        path) and method (a name or a `Method`); it may have keep (default 0.25), seed (0), steps
        (300), distil (False: `Cell`'s distilled), widths_of, split and generated as in `Cell`, and
        any option of `gumlab.train`, `Method`, `Pruner` or `gumlab.select`.

    Returns
    -------
    list of Cell
        In the order of the grid, its last key fastest. A dense run has no keep, teacher or options,
        so there is one for all of them.

    Raises
    ------
    GumlabError
        For a key or name that is unknown, and for a keep outside (0, 1].
    """
    parts = [grid] if isinstance(grid, Mapping) else grid
    cells: dict[str, Cell] = {}
    for part in parts:
        every = [part] if isinstance(part, Cell) else _combinations(part)
        for cell in every:
            one = cell.dense if cell.method.name is None else cell
            cells.setdefault(one.name, one)
    return list(cells.values())


def _combinations(grid: Mapping[str, Any]) -> list[Cell]:
    """A cell for every combination of a grid's values."""
    lists = [
        value if isinstance(value, list | tuple | range) else [value] for value in grid.values()
    ]
    return [_cell(dict(zip(grid, values, strict=True))) for values in itertools.product(*lists)]


def _cell(given: Mapping[str, Any]) -> Cell:
    """The cell of one combination: each key's value to the field or the options it is for."""
    lacking = _REQUIRED - given.keys()
    if lacking:
        raise GumlabError(f"The grid lacks {', '.join(sorted(lacking))}; give each a list.")
    settings = {**_DEFAULTS, **given}
    settings["model"] = str(settings["model"])
    settings["task"] = str(settings["task"])
    settings["distilled"] = settings.pop("distil", False)
    fields = {}
    training = {}
    options = {}
    for key, value in settings.items():
        if key in _CELL_FIELDS:
            fields[key] = value
        elif key in _TRAINING_OPTIONS:
            training[key] = value
        else:
            options[key] = value
    fields["training"] = training
    fields["method"] = _method(fields["method"], fields["steps"], options)
    task = fields["task"]
    if task not in BUILT_IN + REAL and not Path(task).expanduser().exists():
        raise unknown("task", task, (*BUILT_IN, *REAL, "or the path of your own"))
    check_keep(fields["keep"])
    return Cell(**fields)


def _method(given: str | Method, steps: int, options: Mapping[str, Any]) -> Method:
    """The method of a cell with the grid's options for it, which are known to be its own."""
    if isinstance(given, str):
        method = named(given, steps, **options)
    elif options and given.name is not None:
        label = ", ".join([given.label, *(f"{key} {value}" for key, value in options.items())])
        method = replace(given, label=label, options={**given.options, **options})
    else:
        method = given
    _check_options(method)
    return method


def _check_options(method: Method) -> None:
    """Raise GumlabError for an option that what does the method's work does not take."""
    possible = _SELECT_OPTIONS if method.one_shot else _PRUNER_OPTIONS | _RULE_OPTIONS
    for option in method.options:
        if option not in possible:
            known = possible | _TRAINING_OPTIONS | _REQUIRED | {*_DEFAULTS}
            raise unknown("setting", option, sorted(known))
    if not method.one_shot and method.name is not None:
        own = {key: value for key, value in method.options.items() if key in _RULE_OPTIONS}
        rule_of(str(method.name), own)  # raises for one that belongs to another method


def as_text(value: Any) -> str:
    """A function by its name; all else as it prints."""
    return getattr(value, "__qualname__", str(value))
