"""What a run is known by: everything that its row depends on, as text that is the same tomorrow.

A setting is described by its content, never by where it lies in memory: a function by its name and
its source, a tensor by its numbers, a folder by its files.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gumlab.errors import GumlabError
from gumlab.io.loading import BUILT_IN
from gumlab.io.record import checksum, checksums
from gumlab.rules import Rule, options_held
from gumlab.tasks import SPLITS, Task

# Raised whenever gumlab gives other numbers for the same settings: built-in models and generated
# tasks included. 1 is that of gumlab 0.1, whose names do not say it.
BEHAVIOUR = 1


def digest(value: Any) -> str:
    """Ten hex digits that stand for a value, whichever process describes it.

    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    True
    """
    try:
        settings = json.dumps(described(value), sort_keys=True)
    except RecursionError as error:  # it holds itself
        raise _cannot_be_named(value) from error
    return hashlib.sha256(settings.encode()).hexdigest()[:10]


def described(value: Any) -> Any:
    """A value as JSON can hold it, with all that it does and nothing of where it lies in memory.

    Parameters
    ----------
    value : Any
        Numbers, texts, paths, lists, sets and mappings; tensors and arrays; functions, of which the
        source counts and what it captured; objects of classes of your own, of which the class's
        source counts and what the object holds.

    Raises
    ------
    GumlabError
        For what cannot be told apart so: a lambda, a function without source, an open file.

    Examples
    --------
    >>> described({"keep": torch.tensor(3), "names": {"b", "a"}, "at": Path("x")})
    {'keep': 3, 'names': {'set': ['a', 'b']}, 'at': 'x'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and not value.ndim):
        return value.item()
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, list | tuple | range):
        return [described(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((described(item) for item in value), key=json.dumps)}
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else repr(described(key)): described(item)
            for key, item in value.items()
        }
    if isinstance(value, Tensor | np.ndarray):
        return _numbers(value)
    return _behaviour(value)


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


def _behaviour(value: Any) -> dict[str, Any]:
    """A function, a method, a class or an object of one."""
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return {"partial": [described(part) for part in parts]}
    if inspect.ismethod(value):
        return {"of": described(value.__self__), "method": value.__name__}
    if inspect.isbuiltin(value) or isinstance(value, np.ufunc):
        return {"name": f"{getattr(value, '__module__', '')}.{value.__name__}"}
    if inspect.isfunction(value):
        captured = inspect.getclosurevars(value).nonlocals
        defaults = (value.__defaults__, value.__kwdefaults__)
        return {
            **_named_source(value),
            "captured": described(captured),
            "defaults": described(defaults),
        }
    if inspect.isclass(value):
        return _named_source(value)
    if not hasattr(value, "__dict__"):
        raise _cannot_be_named(value)
    holds = options_held(value) if isinstance(value, Rule) else vars(value)
    return {**_named_source(type(value)), "holds": described(holds)}


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
