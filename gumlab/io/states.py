"""A state of tensors and plain values to one file and back: never half of it, never unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gumlab.errors import GumlabError, first_line

# what a pruner's state, and the note beside it, are called in a Trainer's checkpoint
STATE_FILE = "pruner.safetensors"
NOTE_FILE = "PRUNING.md"
RESUME = (
    "Resume from a checkpoint that was saved with PruningCallback; for one outside output_dir: "
    "PruningCallback(pruner, folder)."
)
TENSOR = "tensor"  # {"tensor": key} stands in the JSON for the tensor stored under that key


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Write a state: its tensors as safetensors, all else as JSON in the same file's header.

    Parameters
    ----------
    state : dict
        Tensors, numbers, text, None, and lists, tuples and dicts of them.
    path : str or Path
        The file; it appears whole or not at all.

    Raises
    ------
    GumlabError
        Where the state holds something else, or the file cannot be written.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    plain = _without_tensors(state, tensors)
    half = path.with_name(f"{path.name}.half")
    try:
        save_file(tensors, half, {"state": json.dumps(plain)})
        half.replace(path)
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise GumlabError(
            f"Could not save a state to {path}: {first_line(error)}. Expected tensors, numbers, "
            "text and lists of them, and a folder that can be written. Nothing half-written is "
            "left."
        ) from error
    finally:
        half.unlink(missing_ok=True)


def load_state(path: str | Path, advice: str = RESUME) -> dict[str, Any]:
    """The state that `save_state` wrote, its tensors on the CPU.

    Parameters
    ----------
    path : str or Path
        The file.
    advice : str
        What to do where it is not there or not whole.

    Returns
    -------
    dict
        Tuples come back as lists.

    Raises
    ------
    GumlabError
        Where there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            plain = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _with_tensors(plain, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise GumlabError(f"There is no whole state in {path}. {advice}") from error


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value with each tensor replaced by its key, and moved to `tensors`."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {TENSOR: key}
    if isinstance(value, dict):
        # a list of pairs, since JSON would turn the keys of an optimizer's state into text
        return {"items": [[k, _without_tensors(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, tensors) for item in value]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of `_without_tensors`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
