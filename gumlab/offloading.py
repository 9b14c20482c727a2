"""Weights that accelerate keeps elsewhere: here a layer at a time, and put back where they were.

A model that does not fit into memory is loaded with a `device_map`: the weights that found no room
are shapes on the meta device, and a hook (`module._hf_hook`) brings those of one module from the
CPU or from disk for its forward pass. `held` keeps some modules' weights for longer than that, and
`put_back` stores what has changed. On disk it goes to new files: those that the model was loaded
from stay as they are. Accelerate is never imported here; where it is missing, so are its hooks.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, first_line


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks of accelerate that bring a module's weights back; none where they are here."""
    hook = getattr(module, "_hf_hook", None)
    several = getattr(hook, "hooks", (hook,))  # a SequentialHook holds some
    return [one for one in several if getattr(one, "weights_map", None) is not None]


def offloaded_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose own weights are elsewhere, by name.

    Parameters
    ----------
    model : nn.Module
        Any; of one that is here whole there are none.
    """
    return {name: module for name, module in model.named_modules() if _hooks(module)}


def is_offloaded(model: nn.Module) -> bool:
    """Whether some of a model's weights are on the CPU or on disk until they are needed."""
    return any(_hooks(module) for module in model.modules())


def device_of(module: nn.Module) -> torch.device:
    """Where a module runs: the device of its first weight, once that is there.

    Parameters
    ----------
    module : nn.Module
        With weights, of its own or of modules in it.
    """
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                hooks = _hooks(part) if parameter.device.type == "meta" else []
                return torch.device(hooks[0].execution_device) if hooks else parameter.device
    return torch.device("cpu")


@contextmanager
def held(*modules: nn.Module) -> Iterator[None]:
    """The weights of some modules, and of all in them, are here; afterwards they are away again.

    Their forward passes neither fetch nor drop them meanwhile. What changes is lost afterwards,
    unless it is `put_back`. Nothing happens to weights that are here already.

    Parameters
    ----------
    *modules : nn.Module

    Raises
    ------
    GumlabError
        If a file of theirs is gone.
    """
    fetched = []
    try:
        for module in modules:
            for part in module.modules():
                for hook in _hooks(part):
                    if hook.offload:
                        fetched.append((part, hook))
                        hook.pre_forward(part)
                        hook.offload = False  # until it is told to again
        yield
    except FileNotFoundError as error:
        raise GumlabError(
            f"Offloaded weights are gone: {first_line(error)}. Leave the folders of an offloaded "
            "model where they are; load it again."
        ) from error
    finally:
        for part, hook in fetched:
            hook.offload = True
            hook.post_forward(part, None)


def put_back(*modules: nn.Module) -> None:
    """Store the weights of modules that are `held`, so that these come the next time.

    On the CPU in the place of the old ones; on disk in a new file of the offload folder, which goes
    when the model does. Nothing happens to modules whose weights are here anyway.

    Parameters
    ----------
    *modules : nn.Module
        Whose own weights, not those of modules in them, are stored.

    Raises
    ------
    GumlabError
        If a file cannot be written.
    """
    for module in modules:
        for hook in _hooks(module):
            for name, parameter in module.named_parameters(recurse=False):
                store, key = _stored_in(hook.weights_map, name)
                on_cpu = _on_cpu(store)
                if key in on_cpu:
                    on_cpu[key] = parameter.detach().cpu()
                else:
                    store.index[key] = _written(store.save_folder, key, parameter.detach())


def _stored_in(weights: Any, name: str) -> tuple[Any, str]:
    """The store behind a hook's view of it (accelerate's PrefixedDataset), and the name there."""
    while hasattr(weights, "prefix"):
        name = f"{weights.prefix}{name}"
        weights = weights.dataset
    return weights, name


def _on_cpu(store: Any) -> Any:
    """The weights of a store that are in memory: of an OffloadedWeightsLoader, or a mapping."""
    return getattr(store, "state_dict", store)


class _OwnFile:
    """A file that goes with the last model that reads it; copies of a model share it."""

    def __init__(self, path: str) -> None:
        weakref.finalize(self, _remove, path, os.getpid())

    def __deepcopy__(self, memo: dict[int, Any]) -> _OwnFile:
        return self


def _remove(path: str, owner: int) -> None:
    """Remove a file, in the process that wrote it; where it is still in use, let it be."""
    if os.getpid() == owner:
        with suppress(OSError):
            os.unlink(path)


def _written(folder: str | Path, key: str, value: Tensor) -> dict[str, Any]:
    """Write a weight to a new file; its entry in the index of accelerate's loader."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        handle, path = tempfile.mkstemp(prefix=f"{key}.", suffix=".safetensors", dir=folder)
        os.close(handle)
        own = _OwnFile(path)
        save_file({key: value.contiguous().cpu()}, path)
    except (OSError, SafetensorError) as error:
        raise GumlabError(
            f"Could not write {key} to the offload folder {folder} ({first_line(error)}), so the "
            "model is cut in part. Make room there, and load and prune it again."
        ) from error
    kind = str(value.dtype).removeprefix("torch.")
    return {"safetensors_file": path, "weight_name": key, "dtype": kind, "own": own}


def disk_folders(model: nn.Module) -> set[Path]:
    """The folders that a model's offloaded weights are read from."""
    folders = set()
    for module in offloaded_parts(model).values():
        for hook in _hooks(module):
            for name, _ in module.named_parameters(recurse=False):
                store, key = _stored_in(hook.weights_map, name)
                if key in _on_cpu(store):
                    continue
                file = store.index[key].get("safetensors_file")
                folders.add(Path(file).parent if file else Path(store.save_folder))
    return {folder.resolve() for folder in folders}


def check_resident(model: nn.Module, what: str) -> None:
    """Raise GumlabError for an offloaded model, of which no more than a layer is to be here.

    Parameters
    ----------
    model : nn.Module
        What is no module passes: whoever finds its layers says so.
    what : str
        What needs the whole of it, as the beginning of a sentence: "Training".
    """
    parts = offloaded_parts(model) if isinstance(model, nn.Module) else {}
    if parts:
        raise GumlabError(
            f"{what} needs the whole model in memory, and the weights of {next(iter(parts))} are "
            "offloaded (accelerate, device_map: to the CPU or to disk). As it is, this model can "
            "be scored, pruned, evaluated and saved; for the rest load it, or the smaller one, "
            "without device_map, on a device that holds it whole."
        )


def check_can_be_cut(name: str, *modules: nn.Module) -> None:
    """Raise GumlabError where other weights could not be put back in the place of modules' own.

    Parameters
    ----------
    name : str
        What the modules are in, for the sentence.
    *modules : nn.Module
    """
    for hook in [hook for module in modules for hook in _hooks(module)]:
        store, key = _stored_in(hook.weights_map, "weight")
        on_cpu = _on_cpu(store)
        if key in on_cpu and isinstance(on_cpu, MutableMapping):
            continue
        if not hasattr(store, "index"):
            raise GumlabError(
                f"The weights of {name} come from a {type(store).__name__}, which takes no others "
                "in their place. Offload the model by accelerate's own dispatch_model, "
                "cpu_offload or disk_offload."
            )
        if store.save_folder is None:
            raise GumlabError(
                f"The weights of {name} are read from the model's own files, which stay as they "
                "are, so a cut needs a folder for the weights that it leaves. Load the model with "
                "one: from_pretrained(..., offload_folder='offloaded')."
            )


def check_separate(name: str, module: nn.Module) -> None:
    """Raise GumlabError for a module whose weights come back only together with others'.

    Parameters
    ----------
    name : str
        The module's, for the sentence.
    module : nn.Module
    """
    if any(hook.place_submodules for hook in _hooks(module)):
        raise GumlabError(
            f"The weights of {name} are offloaded all as one (accelerate: preload_module_classes), "
            "so that no layer comes back by itself. Offload the model without "
            "preload_module_classes."
        )
