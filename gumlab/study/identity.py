"""What a run is known by: everything that its row depends on, as text that is the same tomorrow.

A setting is described by its content, never by where it lies in memory: a function by its name and
its source, a tensor by its numbers, a folder by its files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError
from gumlab.io.loading import BUILT_IN
from gumlab.io.record import checksum, checksums
from gumlab.rules import Rule, options_held
from gumlab.study.sources import (
    attributes_of,
    captured,
    functions_of,
    is_own,
    put_by_a_run,
    reads,
    source_of,
)
from gumlab.tasks import SPLITS, Task

# Raised whenever gumlab gives other numbers for the same settings: built-in models and generated
# tasks included. 1 is that of gumlab 0.1, whose names do not say it.
BEHAVIOUR = 1
_COLLECTIONS = (list, tuple, range, set, frozenset, Mapping)
_CACHED = type(functools.cache(len))
_PLAIN = (bool, int, float, str, np.generic, np.ndarray, Tensor, Path, torch.dtype, torch.device)


def digest(value: Any) -> str:
    """Ten hex digits that stand for a value, whichever process describes it.

    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    True
    """
    try:
        return _hashed(described(value))[:10]
    except RecursionError as error:  # it holds itself
        raise _cannot_be_named(value) from error


def described(value: Any) -> Any:
    """A value as JSON can hold it, with all that it does and nothing of where it lies in memory.

    Parameters
    ----------
    value : Any
        Numbers, texts, paths, lists, sets and mappings; tensors and arrays; functions, of which the
        source counts, what it captured and what it reads of its module; objects of classes of your
        own, of which the class's source counts, its bases, and what the object holds. Code of
        gumlab, of Python and of installed packages is not followed.

    Raises
    ------
    GumlabError
        For what cannot be told apart so: a lambda, a function without source, an open file.

    Examples
    --------
    >>> described({"keep": torch.tensor(3), "names": {"b", "a"}, "at": Path("x")})
    {'keep': 3, 'names': {'set': ['a', 'b']}, 'at': 'x'}
    """
    return _Description().of(value)


def as_text(value: Any) -> Any:
    """A setting as a label or a table shows it: a number as it is, a function by its name.

    >>> as_text(torch.relu), as_text(functools.partial(round, ndigits=2)), as_text(np.float32(0.5))
    ('relu', 'round(ndigits=2)', 0.5)
    """
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim):
        return value.item()
    if isinstance(value, functools.partial):
        given = [*map(str, map(as_text, value.args))]
        given += [f"{name}={as_text(item)}" for name, item in value.keywords.items()]
        return f"{as_text(value.func)}({', '.join(given)})"
    if isinstance(value, set | frozenset):
        return sorted(map(as_text, value), key=str)
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    if inspect.isbuiltin(value):
        return value.__name__
    if callable(value) or isinstance(value, Rule):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return name.rpartition("<locals>.")[2]
    return str(value)


def of_model(name: str) -> dict[str, str]:
    """What a model's folder or file holds: the checksums of files, weights and tokenizer alike.

    Parameters
    ----------
    name : str
        As `gumlab.load` takes it. A built-in model belongs to BEHAVIOUR, one of the hub is known
        by its name: gumlab 0.1 trained those with dropout otherwise, so their runs are done anew.
    """
    folder = Path(name).expanduser()
    try:
        if name in BUILT_IN:
            return {}
        if folder.is_file():
            return {"file": checksum(folder)}
        return checksums(folder) if folder.is_dir() else {"name": name}
    except OSError as error:
        raise GumlabError(f"{folder} cannot be read: {error}. Make its files readable.") from error


def of_task(task: Task) -> str:
    """The digest of what was read: metric and examples, split by split."""
    content = hashlib.sha256(task.metric.encode())
    for split in SPLITS:
        content.update(split.encode())
        for one in getattr(task, split):
            whole = (one.prompt, one.target, one.references, one.databases)
            content.update(repr(whole).encode(errors="surrogatepass"))
    return content.hexdigest()


def _numbers(value: Tensor | np.ndarray) -> dict[str, Any]:
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    elif value.dtype.hasobject:
        raise _cannot_be_named(value)
    else:
        content = value.tobytes()
    return {
        "type": str(value.dtype),
        "shape": list(value.shape),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


class _Description:
    """Describes a value, and once each the code of one's own that it goes through."""

    def __init__(self) -> None:
        self._begun: set[int] = set()  # functions and classes that lead back to themselves
        self._done: dict[int, tuple[Any, str]] = {}  # with the value, so that its id stays its own

    def of(self, value: Any) -> Any:
        """A setting; see `described`."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim):
            return value.item()
        if isinstance(value, Path | torch.dtype | torch.device):
            return str(value)
        if isinstance(value, Tensor | np.ndarray):
            return _numbers(value)
        if isinstance(value, _COLLECTIONS):
            return _collection(value, self.of)
        return self._behaviour(value)

    def _behaviour(self, value: Any) -> dict[str, Any]:
        """A function, a method, a class or an object of one."""
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return {"partial": [self.of(part) for part in parts]}
        if inspect.ismethod(value):
            return {"of": self.of(value.__self__), "method": value.__name__}
        if inspect.isbuiltin(value) or isinstance(value, np.ufunc):
            return {"name": f"{getattr(value, '__module__', '')}.{value.__name__}"}
        if inspect.isfunction(value):
            defaults = (value.__defaults__, value.__kwdefaults__)
            return {
                **_named_source(value),
                **self._code(value),
                "captured": self.of(captured(value)),
                "defaults": self.of(defaults),
            }
        if inspect.isclass(value):
            return {**_named_source(value), **self._code(value)}
        if not hasattr(value, "__dict__"):
            raise _cannot_be_named(value)
        kind = type(value)
        public, private = _held(value)
        return {
            **_named_source(kind),
            **self._code(kind),
            "holds": self.of(public),
            **({"private": self._read(private)} if private else {}),
        }

    def _code(self, value: Any) -> dict[str, Any]:
        """What a function or a class of one's own goes through besides its own text."""
        if id(value) in self._begun:
            return {"again": value.__qualname__}
        self._begun.add(id(value))
        parts: dict[str, Any] = {}
        if inspect.isfunction(value):
            parts = {"reads": reads(value)}
        elif is_own(value.__module__):
            parts = {
                "bases": [base for base in value.__mro__[1:] if is_own(base.__module__)],
                "attributes": attributes_of(value),
                "methods": {name: _around(one) for name, one in functions_of(value).items()},
            }
        code = {name: self._read(part) for name, part in parts.items() if part}
        self._begun.remove(id(value))
        return code

    def _read(self, value: Any) -> Any:
        """What code reads. Nothing is refused here; what is not one's own counts by its name."""
        if isinstance(value, _COLLECTIONS):
            return _collection(value, self._read)
        if value is None or isinstance(value, _PLAIN):
            return self.of(value)
        if isinstance(value, bytes | complex | re.Pattern):
            return repr(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, Task):
            return of_task(value)
        return self._read_code(value)

    def _read_code(self, value: Any) -> Any:
        """What code that is read leads to: the function in a partial one, an object of a class."""
        if isinstance(value, functools.partial):
            return {"partial": self._read([value.func, value.args, value.keywords])}
        if inspect.ismethod(value):
            return {"of": self._read(value.__self__), "method": value.__name__}
        if isinstance(value, _CACHED):
            return self._read(value.__wrapped__)
        if isinstance(value, nn.Module):
            return [self._once(type(value)), self.of(value.state_dict())]
        return self._once(value)

    def _once(self, value: Any) -> str:
        """The digest of a function, a class or an object of one's own; the name of another."""
        is_code = inspect.isfunction(value) or inspect.isclass(value)
        kind = value if is_code else type(value)
        named = value if hasattr(value, "__qualname__") else kind
        name = f"{named.__module__}.{named.__qualname__}"
        if not is_own(named.__module__) or id(value) in self._begun:
            return name
        if id(value) not in self._done:
            parts = [name, source_of(kind), self._code(kind)]
            if inspect.isfunction(value):
                parts.append(self._read(_around(value)))
            elif not is_code:
                self._begun.add(id(value))
                parts.append(self._read(_held(value)))
                self._begun.remove(id(value))
            self._done[id(value)] = (value, _hashed(parts))
        return self._done[id(value)][1]


def _collection(value: Any, describe: Callable[[Any], Any]) -> Any:
    """A list, a set or a mapping, with each item described."""
    if isinstance(value, set | frozenset):
        return {"set": sorted((describe(item) for item in value), key=json.dumps)}
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else repr(describe(key)): describe(item)
            for key, item in value.items()
        }
    return [describe(item) for item in value]


def _around(function: FunctionType) -> dict[str, Any]:
    """What a function whose text is known depends on besides: what it reads, captured, defaults."""
    found = {
        "reads": reads(function),
        "captured": {n: one for n, one in captured(function).items() if n != "__class__"},
        "defaults": [one for one in (function.__defaults__, function.__kwdefaults__) if one],
    }
    return {name: part for name, part in found.items() if part}


def _held(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an object holds; of a rule what it was made with, its private attributes apart."""
    if not isinstance(value, Rule):
        return dict(getattr(value, "__dict__", {})), {}
    if not is_own(type(value).__module__):
        return options_held(value), {}
    of_a_run = put_by_a_run(type(value)) | {"_gumlab_run"}  # which a Pruner leaves
    of_a_run |= {field.name for field in dataclasses.fields(value) if not field.init}
    made = {name: item for name, item in vars(value).items() if name not in of_a_run}
    private = {name: item for name, item in made.items() if name.startswith("_")}
    return {name: made[name] for name in made if name not in private}, private


def _hashed(description: Any) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _named_source(value: Any) -> dict[str, str]:
    """The qualified name of a function or class, and the digest of its source."""
    if value.__name__ == "<lambda>":  # two on one line would be the same
        raise _cannot_be_named(value)
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError) as error:
        raise _cannot_be_named(value) from error
    return {
        "name": f"{value.__module__}.{value.__qualname__}",
        "sha256": hashlib.sha256(source.encode()).hexdigest(),
    }


def _cannot_be_named(value: Any) -> GumlabError:
    what = "a lambda" if getattr(value, "__name__", "") == "<lambda>" else f"{value!r:.60}"
    return GumlabError(
        f"A run is stored by its settings, and {what} would not be known again tomorrow. Give a "
        "function or a class that a file or a notebook's cell defines by `def` or `class`, which "
        "holds nothing but numbers, texts, tensors and the like."
    )
