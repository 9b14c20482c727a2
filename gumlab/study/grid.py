"""The cells of a grid: every combination of its lists, each one run of a study."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gumlab.collecting import TOKENS
from gumlab.errors import (
    GumlabError,
    check_choice,
    check_flag,
    check_options,
    check_seed,
    check_text,
    check_whole,
    unknown,
)
from gumlab.selection import check_keep
from gumlab.study.identity import as_text, digest
from gumlab.study.methods import (
    METHOD_OPTIONS,
    OF_DISTILLING,
    OWN_FIELDS,
    TRAINING_OPTIONS,
    Method,
    named,
)
from gumlab.tasks import BUILT_IN, METRICS, REAL, SPLITS
from gumlab.training import check_settings

_REQUIRED = ("model", "task", "method")
_DEFAULTS = {"keep": 0.25, "seed": 0, "steps": 300}


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
    stride, tokens, redundancy_tokens : int, optional
        Of running text's windows, and of what is measured on it; see `gumlab.study.run`.
    metric : str, optional
        That a task of your own is judged by, as in `gumlab.load_task`.
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
    stride: int | None = None
    tokens: int | None = TOKENS
    redundancy_tokens: int | None = TOKENS
    metric: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            raise GumlabError(
                f"method must be a name or a gumlab.study.Method; got {self.method!r:.60}. A rule "
                'or a criterion of your own goes into one: Method("mine", MyRule()).'
            )
        check_text("model", self.model, "a name or a path")
        check_text("task", self.task, "a name or a path")
        check_keep(self.keep)
        check_seed(self.seed)
        check_whole("steps", self.steps, least=0)
        check_flag("distilled", self.distilled)
        if self.widths_of is not None:
            check_text("widths_of", self.widths_of, "the label of a method")
        if self.split is not None:
            check_choice("split", self.split, SPLITS)
        if self.generated is not None:
            check_whole("generated", self.generated, least=0)
        if self.stride is not None:
            check_whole("stride", self.stride)
        for name in ("tokens", "redundancy_tokens"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        if self.metric is not None:
            check_choice("metric", self.metric, METRICS)
            if self.task in BUILT_IN + REAL:
                raise GumlabError(
                    f"metric is for a task of your own, given by its path; {self.task} has its own "
                    "metric. Leave it out."
                )
        check_options("setting", self.training, TRAINING_OPTIONS)
        check_settings(self.training)
        self._check_used()

    def _check_used(self) -> None:
        """Raise GumlabError for a setting that would change nothing of this run."""
        if self.distilled and self.steps == 0:
            raise GumlabError("With steps=0 nothing is distilled; leave distil out, or give steps.")
        idle = _idle(self.training, self.steps, self.distilled)
        if idle:
            raise _changes_nothing(idle)
        if self.widths_of is not None and "widths" in self.method.options:
            raise GumlabError("widths and widths_of both say the widths; give one of them.")

    @cached_property
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
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for added in ("stride", "tokens", "redundancy_tokens", "metric"):
            if settings[added] == getattr(Cell, added):  # which a cell of gumlab 0.1 did not have
                del settings[added]
        method = {f.name: getattr(self.method, f.name) for f in dataclasses.fields(self.method)}
        return f"{readable[:120]}-{digest({**settings, 'method': method})}"

    @cached_property
    def dense(self) -> Cell:
        """The dense run that teaches this one, and that its figures are compared with."""
        training = {key: value for key, value in self.training.items() if key not in OF_DISTILLING}
        return replace(
            self,
            method=Method("dense"),
            keep=1.0,
            distilled=False,
            widths_of=None,
            training=training,
        )


# "training" is no key of a grid: each of its options is
_CELL_FIELDS = {f.name for f in dataclasses.fields(Cell)} - {"training"}
_KEYS = sorted({"distil", *_CELL_FIELDS, *TRAINING_OPTIONS, *METHOD_OPTIONS, *OWN_FIELDS})


def expand(grid: Mapping[str, Any] | Sequence[Mapping[str, Any] | Cell]) -> list[Cell]:
    """The cells of a grid, or of a list of grids and cells: every combination, none twice.

    Parameters
    ----------
    grid : mapping, or sequence of mappings and cells
        A grid has a value or a list of values for each key. It needs model, task (of your own: its
        path) and method (a name or a `Method`); it may have keep (default 0.25), seed (0), steps
        (300), distil (False: `Cell`'s distilled), widths_of, split, stride, tokens,
        redundancy_tokens, metric and generated as in `Cell`, and any option of `gumlab.train`,
        `Method`, `Pruner` or `gumlab.select`.

    Returns
    -------
    list of Cell
        In the order of the grid, its last key fastest. A dense run has no keep, teacher or options,
        so there is one for all of them.

    Raises
    ------
    GumlabError
        For a key or name that is unknown, a key that would change nothing of a run, an empty list,
        and for values that cannot be.
    """
    parts = [grid] if isinstance(grid, Mapping | Cell) else grid
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        raise GumlabError(f"A grid is a mapping, or a list of them and of cells; got {grid!r:.60}.")
    cells: dict[str, Cell] = {}
    for part in parts:
        if not isinstance(part, Mapping | Cell):
            raise GumlabError(f"A part of a grid is a mapping or a Cell; got {part!r:.60}.")
        every = [part] if isinstance(part, Cell) else _combinations(part)
        for cell in every:
            one = cell.dense if cell.method.name is None else cell
            cells.setdefault(one.name, one)
    if not cells:
        raise GumlabError("The grid has no runs; expected a mapping with model, task and method.")
    return list(cells.values())


def _combinations(grid: Mapping[str, Any]) -> list[Cell]:
    """A cell for every combination of a grid's values."""
    lists = [_values(key, value) for key, value in grid.items()]
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*lists)]
    idle = [_idle_keys(one) for one in every]
    idle_everywhere = [key for key in idle[0] if all(key in keys for keys in idle)]
    if idle_everywhere:
        raise _changes_nothing(idle_everywhere)
    return [
        _cell({key: value for key, value in one.items() if key not in keys})
        for one, keys in zip(every, idle, strict=True)
    ]


def _idle_keys(given: Mapping[str, Any]) -> list[str]:
    """The keys of a combination that would change nothing of its run."""
    method = given.get("method")
    if method == "dense" or (isinstance(method, Method) and method.name is None):
        return [key for key in given if key in {*METHOD_OPTIONS, *OWN_FIELDS, *OF_DISTILLING}]
    training = [key for key in given if key in TRAINING_OPTIONS]
    distilled = given.get("distil", given.get("distilled", False))
    return _idle(training, given.get("steps", _DEFAULTS["steps"]), distilled)


def _idle(training: Iterable[str], steps: Any, distilled: Any) -> list[str]:
    """The options of `gumlab.train` that nothing comes of."""
    if steps == 0:
        return [name for name in training if name != "batch_size"]  # which serves to measure, too
    return [name for name in training if name in OF_DISTILLING and not distilled]


def _changes_nothing(names: Sequence[str]) -> GumlabError:
    return GumlabError(
        f"{', '.join(names)} would change nothing here: with steps=0 nothing is trained, without "
        "distil nobody teaches, and a dense run has no method's options. Leave it out."
    )


def _values(key: str, value: Any) -> Sequence[Any]:
    """The values of a key: a list's, those of numbers in a row, or one alone."""
    if getattr(value, "ndim", 0):  # of numpy or torch
        value = value.tolist()
    if isinstance(value, set | frozenset):
        raise GumlabError(f"{key} is a set, which has no order; give a list.")
    values = value if isinstance(value, list | tuple | range) else [value]
    if not values:
        raise GumlabError(f"{key} is an empty list, so there would be no run; give a value.")
    return values


def _cell(given: Mapping[str, Any]) -> Cell:
    """The cell of one combination: each key's value to the field or the options it is for."""
    fields: dict[str, Any] = {}
    training = {}
    options = {}
    for key, value in _settings(given).items():
        if key in _CELL_FIELDS:
            fields[key] = value
        elif key in TRAINING_OPTIONS:
            training[key] = value
        else:
            options[key] = value
    fields["training"] = training
    check_whole("steps", fields["steps"], least=0)
    fields["method"] = _method(fields["method"], fields["steps"], options)
    if "distilled" in fields and fields["method"].name is None:
        del fields["distilled"]  # a dense run teaches, and is not taught
    cell = Cell(**fields)
    task = cell.task
    if task not in BUILT_IN + REAL and not Path(task).expanduser().exists():
        raise unknown("task", task, (*BUILT_IN, *REAL, "or the path of your own"))
    return cell


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """A combination by the names of a cell's fields, with what is usual for what is not given."""
    lacking = [key for key in _REQUIRED if key not in given]
    if lacking:
        raise GumlabError(f"The grid lacks {', '.join(sorted(lacking))}; give each a list.")
    if "teacher" in given:
        raise GumlabError(
            "Unknown setting 'teacher'. A teacher is asked for by distil: True, which takes the "
            "dense run of the same cell."
        )
    check_options("setting", given, _KEYS)
    if "distil" in given and "distilled" in given:
        raise GumlabError("distil and distilled are two names of one setting; give one of them.")
    settings = {**_DEFAULTS, **given}
    if "distil" in settings:
        settings["distilled"] = settings.pop("distil")
    for key in ("model", "task"):
        if isinstance(settings[key], Path):
            settings[key] = str(settings[key])
    return settings


def _method(given: str | Method, steps: int, options: Mapping[str, Any]) -> Method:
    """The method of a cell with the grid's options for it."""
    if isinstance(given, str):
        return named(given, steps, **options)
    if not isinstance(given, Method) or not options or given.name is None:
        return given  # a dense one has no options; `Cell` refuses what is no method
    label = ", ".join([given.label, *(f"{key} {as_text(item)}" for key, item in options.items())])
    fields = {key: value for key, value in options.items() if key in OWN_FIELDS}
    others = {key: value for key, value in options.items() if key not in OWN_FIELDS}
    return replace(given, label=label, options={**given.options, **others}, **fields)
