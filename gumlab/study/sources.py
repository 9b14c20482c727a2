"""What code of one's own depends on besides its own text: the names that it reads, found in it."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# what a `Pruner` calls while a rule prunes, and what makes a rule
_OF_A_RUN = ("begin", "scores", "masks", "load_state_dict")
_OF_MAKING = ("__new__", "__init__", "__post_init__")
_LIBRARIES = tuple(
    Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib")
)
_PACKAGES = {"site-packages", "dist-packages"}  # of any other environment
_AROUND_A_FUNCTION = (staticmethod, classmethod, property, functools.cached_property)


def is_own(module: str | None) -> bool:
    """Whether a module is neither gumlab's, nor Python's, nor an installed package's.

    >>> is_own("__main__"), is_own("gumlab.rules"), is_own("json"), is_own("torch.nn")
    (True, False, False, False)
    """
    if module is None:
        return False
    package = module.partition(".")[0]
    if package in ("__main__", "gumlab"):
        return package == "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return package not in sys.stdlib_module_names
    where = Path(file).resolve()
    in_a_library = any(where.is_relative_to(folder) for folder in _LIBRARIES)
    return not in_a_library and not _PACKAGES & {*where.parts}


def reads(function: FunctionType) -> dict[str, Any]:
    """The values that a function of one's own reads by name; what it captured is not among them.

    Parameters
    ----------
    function : function
        One of gumlab, of Python or of an installed package reads nothing that counts.

    Returns
    -------
    dict
        Each value by its name, what is read of a module of one's own as "module.name"; of a
        decorator's function also "its own text", which `source_of` does not give. Not what the
        function imports when it is called.
    """
    around = function.__globals__
    if not is_own(around.get("__name__")):
        return {}
    names, attributes = _names(function.__code__)
    found = {name: around[name] for name in sorted(names) if name in around}
    for name, value in [*found.items()]:
        if isinstance(value, ModuleType):
            found.update(_of_module(name, value, sorted(attributes)))
    if hasattr(function, "__wrapped__"):
        found["its own text"] = source_of(function.__code__)
    return found


def source_of(code: Any) -> str | None:
    """The text of a function or a class, without decorators' own; None where none can be read."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None


def captured(function: FunctionType) -> dict[str, Any]:
    """The values that a function took from the functions around it."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # nothing was put there yet
            continue
    return found


def functions_of(kind: type) -> dict[str, FunctionType]:
    """The functions in a class's own body, those behind its properties and class methods too."""
    found = {}
    for name, value in vars(kind).items():
        for i, function in enumerate(_behind(value)):
            if function.__qualname__ == f"{kind.__qualname__}.{name}":
                found[f"{name} {i}"] = function
    return found


def attributes_of(kind: type) -> dict[str, Any]:
    """What else a class's own body holds, and what was put there from outside."""
    written = {key.rpartition(" ")[0] for key in functions_of(kind)}
    attributes = {}
    for name, value in vars(kind).items():
        is_pythons = name.startswith("__") and not inspect.isfunction(value)
        if name not in written and not is_pythons and not name.startswith("_abc_"):
            attributes[name] = value
    return attributes


def put_by_a_run(kind: type) -> set[str]:
    """The attributes of a rule's class that its runs store, and that its making does not."""
    return _stored(kind, _OF_A_RUN) - _stored(kind, _OF_MAKING)


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """The global names that code reads, and the attributes; the functions inside it too."""
    names: set[str] = set()
    attributes: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inner_names, inner_attributes = _names(inner)
            names |= inner_names
            attributes |= inner_attributes
    return names, attributes


def _of_module(name: str, module: ModuleType, attributes: Iterable[str]) -> dict[str, Any]:
    """What is read of a module of one's own, and of those that it holds."""
    found: dict[str, Any] = {}
    waiting = [(name, module)]
    seen = set()
    while waiting:
        path, one = waiting.pop()
        if one.__name__ in seen or not is_own(one.__name__):
            continue
        seen.add(one.__name__)
        for attribute in attributes:
            value = vars(one).get(attribute)
            if isinstance(value, ModuleType):
                waiting.append((f"{path}.{attribute}", value))
            elif attribute in vars(one):
                found[f"{path}.{attribute}"] = value
    return found


def _behind(value: Any) -> list[FunctionType]:
    """The functions that an entry of a class is made of."""
    parts = [value]
    if isinstance(value, _AROUND_A_FUNCTION):
        parts = [
            getattr(value, name, None) for name in ("__func__", "fget", "fset", "fdel", "func")
        ]
    plain = [part if inspect.isfunction(part) else inspect.unwrap(part) for part in parts]
    return [part for part in plain if inspect.isfunction(part)]


def _stored(kind: type, starts: Iterable[str]) -> set[str]:
    """The attributes that some methods of a class store, or those that they call."""
    stored: set[str] = set()
    waiting = [*starts]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for base in kind.__mro__:
            for function in _behind(vars(base).get(name)):
                for step in dis.get_instructions(inspect.unwrap(function)):
                    if step.opname == "STORE_ATTR":
                        stored.add(step.argval)
                    elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                        waiting.append(step.argval)
    return stored
