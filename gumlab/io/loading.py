"""Load a model and its tokenizer: built-in, a Hugging Face name, or a local folder."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, first_line, unknown, warn_caller
from gumlab.feedforward import BY_CODE, neurons
from gumlab.importing import imported
from gumlab.io.bases import BASES, base_folder
from gumlab.io.configuration import (
    BY_LAYER,
    build_config,
    check_config,
    has_vocabulary,
    quietly,
    read_config,
    recorded_widths,
)
from gumlab.io.gguf_loading import is_gguf, load_gguf
from gumlab.io.hub import fetch
from gumlab.io.record import verify
from gumlab.io.states import NOTE_FILE, STATE_FILE
from gumlab.io.weights import (
    FOREIGN,
    PICKLES,
    Stored,
    check_plain,
    read_headers,
    stored_dtype,
    weight_files,
)
from gumlab.removal import record_width

ASSETS = Path(__file__).parents[1] / "assets"
BUILT_IN = ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama", "tiny-twins", "tiny-wide")
LOADABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NOT_APPLIED = (
    "is a checkpoint of a run that prunes: its weights are of before the masks, which are not "
    f"applied. {NOTE_FILE} in it says how to get the pruned model."
)
NEAR = 0.75  # how alike a name is to a built-in one where that is meant
# What tokenizer_config.json says where tokenizer.json is all of the tokenizer.
WHOLE_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = torch.float32,
) -> tuple[nn.Module, Any]:
    """Load a model and its tokenizer by name.

    Parameters
    ----------
    name : str or Path
        A built-in model ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama", "tiny-twins", "tiny-wide"), the
        base "smollm2-135m" (once `gumlab fetch smollm2-135m` has been run), a Hugging Face name
        ("gpt2"), a folder that `save` or transformers wrote, or a GGUF file. Layers of unequal
        widths load too: the widths are those of the weights, whether or not config.json says them.
    device : str or torch.device, optional
        By default a GPU if there is one.
    dtype : torch.dtype or str
        Of the weights: float32, bfloat16, float16 or float64; "auto" for the file's.

    Returns
    -------
    model : nn.Module
        In eval mode.
    tokenizer : transformers.PreTrainedTokenizerBase
        With a padding token.

    Raises
    ------
    GumlabError
        If there is no such model, its files are missing or damaged, it cannot be fetched, or it is
        none that gumlab loads: quantised, an adapter, of another kind, in need of remote code.

    Notes
    -----
    Only safetensors are read, and of them those that transformers would read; nothing is unpickled,
    no remote code runs, and what `save` wrote is checked by its checksums.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every load is noise in a notebook
    device = checked_device(device)
    dtype = checked_dtype(dtype)
    path = _find(name)
    if path.is_file():
        model, tokenizer = load_gguf(path, dtype)
        return model.to(device), tokenizer
    model, _ = load_folder(path, dtype)  # first, for it says more exactly what is wrong
    if name not in BASES:  # of a base they were compared when it was found
        verify(path)
    if is_of_a_pruning_run(path):
        warn_caller(f"{path} {NOT_APPLIED}")
    return model.to(device), load_tokenizer(path)


def is_of_a_pruning_run(folder: Path) -> bool:
    """Whether a folder is a Trainer's checkpoint that a `gumlab.PruningCallback` wrote to."""
    return (folder / STATE_FILE).exists() or (folder / NOTE_FILE).exists()


def checked_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    """A dtype that a model can be loaded in.

    Parameters
    ----------
    dtype : torch.dtype or str
        Also by torch's name of it: "float16", "half", "torch.float16".

    Returns
    -------
    torch.dtype or str
        Or "auto".

    Raises
    ------
    GumlabError
        For another one, with the nearest name.

    Examples
    --------
    >>> checked_dtype("half")
    torch.float16
    """
    known = {str(kind).removeprefix("torch."): kind for kind in LOADABLE}
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
        if name == "auto":
            return name
        named = getattr(torch, name, None)  # torch has other names for some: half, float, double
        dtype = named if isinstance(named, torch.dtype) else name
    if dtype in LOADABLE:
        return dtype
    if isinstance(dtype, torch.dtype):
        raise GumlabError(
            f"dtype={dtype} is none that a model computes in; gumlab loads {', '.join(known)}, or "
            '"auto" for that of the file.'
        )
    raise unknown("dtype", dtype, [*known, "auto"])


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or by default a GPU if there is one; GumlabError where it is not."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise GumlabError(
            f"device={device!r} is none that torch knows ({first_line(error)}). Leave device out, "
            'or take "cpu" or "cuda".'
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise GumlabError(
            f"device={str(device)!r} was asked for, but torch finds no CUDA device here. Leave "
            'device out, or take device="cpu".'
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GumlabError(
            f"device={str(device)!r} was asked for, but torch finds {torch.cuda.device_count()} "
            'CUDA device(s) here, counted from 0. Leave device out, or take device="cuda:0".'
        )
    if device.type == "meta":
        raise GumlabError(
            'device="meta" holds no numbers, so there is nothing to prune. Take device="cpu".'
        )
    return device


def _find(name: str | Path) -> Path:
    """The folder, or the GGUF file, that a name stands for."""
    if not isinstance(name, str | Path) or not str(name).strip():
        raise GumlabError(
            f"Expected the name of a model or the path of its folder, got {name!r}. Built-in "
            f"models: {', '.join(BUILT_IN)}."
        )
    if str(name) in BUILT_IN:
        if os.path.isdir(name):
            warn_caller(
                f"{str(name)!r} is the name of a built-in model, so the folder ./{name} was not "
                f'loaded. To load that, give its path: gumlab.load("./{name}").'
            )
        return ASSETS / str(name)
    base = base_folder(name)
    if base is not None:
        return base
    path = Path(name).expanduser()
    if os.path.exists(path) and is_gguf(path):
        return path
    if os.path.isdir(path):  # which says no where Path.is_dir raises, for a name that is too long
        return path
    if os.path.isfile(path):
        raise _file_error(path)
    if path.suffix in (*FOREIGN, ".safetensors"):
        raise GumlabError(f"There is no file {path}. Correct the path, or give a model's folder.")
    text = str(name)
    if "/" not in text and _is_near_a_built_in(text):
        raise unknown("model", text, [*BUILT_IN, *BASES])
    return fetch(text, BUILT_IN)


def _is_near_a_built_in(name: str) -> bool:
    """Whether a name without an owner is meant for a built-in model, not for the hub."""
    return (
        name.startswith(("tiny", "smollm"))
        or "." in name
        or bool(difflib.get_close_matches(name.lower(), [*BUILT_IN, *BASES], cutoff=NEAR))
    )


def _file_error(path: Path) -> GumlabError:
    """Why a path to a file is no model; where a kind of file is read, it is told apart here."""
    program = FOREIGN.get(path.suffix)
    if program is not None:
        return GumlabError(
            f"{path} is a file of {program}, which gumlab does not read. Take the folder with the "
            "model's original weights (config.json, model.safetensors, tokenizer.json)."
        )
    if path.suffix in PICKLES:
        return GumlabError(
            f"{path} is pickled, and gumlab never unpickles, for that could run code. Save the "
            "model as a folder with safetensors (transformers: model.save_pretrained)."
        )
    return GumlabError(
        f"{path} is a file; a model is a folder of them (config.json, model.safetensors, "
        f"tokenizer.json). Give the folder's path: {str(path.parent)!r}."
    )


def load_folder(folder: Path, dtype: torch.dtype | str) -> tuple[nn.Module, str]:
    """The model of a local folder, of equal or unequal widths.

    The widths are those of the weights, whether or not config.json says them.

    Parameters
    ----------
    folder : Path
        With config.json and safetensors weights.
    dtype : torch.dtype or "auto"
        Of the weights; "auto" for the file's.

    Returns
    -------
    model : nn.Module
        On the CPU, in eval mode.
    source : {"config.json", "per_layer_config", "pruned_feed_forward", "weights"}
        Where the widths stand.

    Raises
    ------
    GumlabError
        If files are missing, damaged, or do not fit one another, or the model is none that gumlab
        loads.
    """
    settings = read_config(folder)
    check_config(settings, str(folder))
    tensors = read_headers(weight_files(folder, settings))
    check_plain(tensors, str(folder))
    if dtype == "auto":
        dtype = stored_dtype(tensors)
    recorded = recorded_widths(settings, str(folder))
    config = build_config(settings, str(folder))
    model, report = _build(folder, config, dtype, recorded)
    entry = BY_CODE if BY_CODE in settings else BY_LAYER
    source = entry if recorded else "config.json"
    found = _other_widths(model, report, tensors)
    if found and recorded:
        raise _disagreement(folder, entry, recorded, found)
    if found:
        model, report = _build(folder, config, dtype, found)
        record_width(model, neurons(model))
        source = "weights"
    _check_complete(model, report, settings, folder)
    return model.eval(), source


def _build(
    folder: Path, config: Any, dtype: torch.dtype | str, widths: dict[int, int]
) -> tuple[nn.Module, dict[str, Any]]:
    """The model as transformers builds and fills it, some layers of other widths; and its report.

    The widths are set before transformers fills the model, so that everything about weights (their
    names, shards, ties, dtypes) is as transformers does it.
    """
    imported("transformers.modeling_utils")  # of every model, and large
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    class OfTheseWidths(made):
        __module__ = made.__module__  # transformers goes by the name and where the class is from

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _set_widths(self, widths, folder)

    OfTheseWidths.__name__ = made.__name__
    kind = OfTheseWidths if widths else made
    try:
        with quietly():  # what transformers reports of weights is checked and said below
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except GumlabError:
        raise
    except ImportError as error:
        raise GumlabError(
            f"{folder}: transformers needs another package for {made.__name__} "
            f"({first_line(error)}). Install it, and load again."
        ) from error
    except Exception as error:  # transformers raises many kinds where files do not fit
        raise GumlabError(
            f"{folder} cannot be loaded: transformers could not build {made.__name__} from its "
            f"config.json and weights ({type(error).__name__}: {first_line(error)}). If "
            "transformers alone loads the folder (from_pretrained), this is a fault of gumlab; "
            "else save the model again."
        ) from error
    model.__class__ = made
    return model, report


def _set_widths(model: nn.Module, widths: dict[int, int], folder: Path) -> None:
    """Make room in a new model for layers of these widths; what is in it then is of no account."""
    layers = neurons(model)
    beyond = [number for number in widths if number >= len(layers)]
    if beyond:
        raise GumlabError(
            f"{folder}: among its widths config.json names layer {beyond[0]}, but the model has "
            f"{len(layers)} layers, counted from 0. Copy config.json again, or take "
            f"{BY_LAYER} or {BY_CODE} out: the widths are read from the weights."
        )
    for number, width in widths.items():
        layer = layers[number]
        wanted = {}
        for old, axis, rows in layer.places(torch.arange(width)):
            shape = list(old.shape)
            shape[axis] = len(rows)
            wanted[old] = nn.Parameter(old.detach().new_empty(shape))
        for module in layer.linear_maps:
            for name, old in list(module.named_parameters(recurse=False)):
                if old in wanted:
                    setattr(module, name, wanted[old])
        layer.set_sizes()


def _other_widths(
    model: nn.Module, report: dict[str, Any], tensors: dict[str, Stored]
) -> dict[int, int]:
    """The widths of layers whose weights in the files are not as wide as the model, by layer."""
    shapes = _mismatched(report, tensors)
    if not shapes:
        return {}
    try:
        layers = neurons(model)
    except GumlabError:  # of no structure that we know: nothing about it is a width
        return {}
    widths = {}
    names = {module: name for name, module in model.named_modules()}
    for number, layer in enumerate(layers):
        shape = shapes.get(f"{names[layer.proj]}.weight")
        ((_, axis, _),) = layer.places(torch.arange(1))[-1:]
        if shape is not None and len(shape) == 2 and shape[axis] >= 1:
            widths[number] = shape[axis]
    return widths


def _mismatched(report: dict[str, Any], tensors: dict[str, Stored]) -> dict[str, tuple[int, ...]]:
    """The shapes in the files of weights that are of another shape in the model, by name."""
    shapes = {}
    for entry in report["mismatched_keys"]:
        if isinstance(entry, str):  # transformers 4 gives the name alone
            shapes[entry] = _stored_shape(entry, tensors)
        else:
            shapes[entry[0]] = tuple(entry[1])
    return shapes


def _stored_shape(name: str, tensors: dict[str, Stored]) -> tuple[int, ...]:
    """The shape in the files of a model's weight; () where it is not clear which one it is.

    Before the number of the layer a file's names may differ from the model's.
    """
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), 1)
    within = ".".join(parts[number - 1 :])
    found = [key for key in tensors if key == within or key.endswith(f".{within}")]
    return tensors[found[0]].shape if len(found) == 1 else ()


def _disagreement(
    folder: Path, entry: str, recorded: dict[int, int], found: dict[int, int]
) -> GumlabError:
    """What to say of widths in config.json that are not those of the weights."""
    number, width = next(iter(found.items()))
    said = recorded.get(number, "that of all layers")
    return GumlabError(
        f"{folder}: layer {number} has {width} neurons in the weights, but {entry} in "
        f"config.json says {said}. The files belong to two models; save it again, or take "
        f"{entry} out: the widths are read from the weights."
    )


def _check_complete(
    model: nn.Module, report: dict[str, Any], settings: dict[str, Any], folder: Path
) -> None:
    """Raise GumlabError unless every weight of the model was read, and every weight there used."""
    saved_as = ", ".join(map(str, settings.get("architectures") or ())) or "another kind of model"
    wrong = sorted({*_mismatched(report, {}), *report["missing_keys"]})
    unexpected = sorted(report["unexpected_keys"])
    if unexpected and (not wrong or saved_as != type(model).__name__):
        raise GumlabError(
            f"{folder} holds weights that a language model has no place for "
            f"({', '.join(unexpected[:3])}); it was saved as {saved_as}. gumlab loads language "
            "models (ForCausalLM, LMHeadModel); a head of another kind would be lost."
        )
    if wrong:
        raise GumlabError(
            f"{folder} lacks weights that its config.json asks for, or has others in their place "
            f"({', '.join(wrong[:3])}); it was saved as {saved_as}. The files belong to another "
            "model; save it again."
        )


def load_tokenizer(source: Path | str) -> Any:
    """The tokenizer of a local folder or a Hugging Face name.

    Parameters
    ----------
    source : Path or str
        A Path is a folder, text is a name.

    Returns
    -------
    transformers.PreTrainedTokenizerBase
        With a padding token.

    Raises
    ------
    GumlabError
        If there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    advice = "Put tokenizer.json and tokenizer_config.json beside the weights."
    if isinstance(source, Path) and not has_vocabulary(source):
        # transformers would make up an empty one
        raise GumlabError(f"No tokenizer is in {source}. {advice}")
    try:
        kind: Any = AutoTokenizer
        if isinstance(source, Path) and _is_whole(source / "tokenizer_config.json"):
            kind = PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers of many kinds, and as many errors
        raise GumlabError(
            f"No tokenizer could be read from {source} ({type(error).__name__}: "
            f"{first_line(error)}). {advice}"
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-2's has none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_whole(path: Path) -> bool:
    """True where tokenizer.json is all of the tokenizer; transformers would force Qwen2's on it."""
    if not path.exists():
        return False
    return json.loads(path.read_bytes()).get("tokenizer_class") in WHOLE_TOKENIZERS
