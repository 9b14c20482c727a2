"""The safetensors files of a model's folder: which of them are read, and what their headers say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gumlab.errors import GumlabError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FOREIGN = {".gguf": "llama.cpp", ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DISTRIBUTED = "shard-*-model-*-of-*.safetensors"  # of ranks, each a part of every tensor
OF_ADAPTERS = (".lora_A.", ".lora_B.", ".base_layer.", ".lora_embedding_")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: safetensors' name of its dtype ("F32"), and its shape."""

    path: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(torch.Size(self.shape).numel())


def entry_file(names: Collection[str], settings: dict[str, Any], source: str) -> str:
    """The file that leads to the weights, as transformers chooses it.

    Parameters
    ----------
    names : collection of str
        Of the files that there are.
    settings : dict
        Those in config.json, which may name the file (`transformers_weights`).
    source : str
        The folder or the name, for the sentence.

    Returns
    -------
    str
        The one file with the weights, or the index of several.

    Raises
    ------
    GumlabError
        If there are no weights that gumlab reads, saying which there are.
    """
    named = settings.get("transformers_weights")
    for name in (named,) if named else (WEIGHTS, INDEX):
        if name in names:
            return str(name)
    present = ", ".join(sorted(name for name in names if "." in name)) or "nothing"
    raise GumlabError(
        f"{source} holds no safetensors weights (found: {present}). {_way_out(names, named)}"
    )


def _way_out(names: Collection[str], named: Any) -> str:
    """What to do about weights that are missing or of another kind."""
    suffixes = {Path(name).suffix for name in names}
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if named:
        return f"config.json asks for {named}; copy it there, or take transformers_weights out."
    if others:
        return (
            f"Of {others[0]} gumlab cannot tell what it is: transformers reads {WEIGHTS}, or the "
            f"files that {INDEX} names. Copy the index too, or save the model again."
        )
    if suffixes & set(PICKLES):
        return (
            "gumlab never unpickles, for that could run code. If you trust the file, save the "
            "model again with safetensors (transformers: from_pretrained, then save_pretrained)."
        )
    for suffix, program in FOREIGN.items():
        if suffix in suffixes:
            return (
                f"The {suffix} file is for {program}. Take the model's original weights "
                f"({WEIGHTS})."
            )
    return "gumlab never unpickles; save the model again (transformers: model.save_pretrained)."


def weight_files(folder: Path, settings: dict[str, Any]) -> list[Path]:
    """The files of a folder that hold its weights: those that transformers would read, no others.

    Parameters
    ----------
    folder : Path
    settings : dict
        Those in config.json.

    Returns
    -------
    list of Path
        In order; a safetensors file that is not among them is of no account.

    Raises
    ------
    GumlabError
        If there are none, or some of several are missing.
    """
    if any(folder.glob(DISTRIBUTED)):
        raise GumlabError(
            f"{folder} holds a checkpoint in the shards of many processes ({DISTRIBUTED}). Gather "
            f"it first: load it with transformers, and save_pretrained to {WEIGHTS}."
        )
    name = entry_file({path.name for path in folder.iterdir()}, settings, str(folder))
    if not name.endswith(".index.json"):
        return [folder / name]
    shards = shard_names(folder / name)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise GumlabError(
            f"{folder}: {len(missing)} of the {len(shards)} shards that {name} names are missing: "
            f"{', '.join(missing)}. Copy them too, or save the model again."
        )
    return [folder / shard for shard in shards]


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index of weights names, in order.

    Parameters
    ----------
    index : Path

    Returns
    -------
    list of str

    Raises
    ------
    GumlabError
        If the index is damaged.
    """
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        are_names = bool(shards) and all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        are_names = False
    if not are_names:
        raise GumlabError(
            f"{index} is damaged: it has no readable weight_map of files beside it. "
            "Copy or save it again."
        )
    return shards


def read_headers(paths: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of some safetensors files, by name; the numbers themselves are not read.

    Parameters
    ----------
    paths : iterable of Path

    Returns
    -------
    dict of str to Stored

    Raises
    ------
    GumlabError
        If a file is damaged, or two hold a tensor of the same name.
    """
    from safetensors import safe_open

    tensors: dict[str, Stored] = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:  # checks header and bounds against the file's size
                found = {}
                for name in list(file.keys()):
                    part = file.get_slice(name)
                    found[name] = Stored(path, part.get_dtype(), tuple(part.get_shape()))
        except Exception as error:  # a flipped bit can turn a header into anything
            raise GumlabError(
                f"{path.parent} cannot be loaded: {path.name} {why_unreadable(path, error)}. "
                "The file is damaged; copy or save it again."
            ) from error
        doubled = sorted(tensors.keys() & found.keys())
        if doubled:
            raise GumlabError(
                f"{path.parent}: {doubled[0]} stands in two files, {tensors[doubled[0]].path.name} "
                f"and {path.name}, so one would override the other. Save the model again, to an "
                "empty folder."
            )
        tensors |= found
    return tensors


def why_unreadable(path: Path, error: Exception) -> str:
    """Why a safetensors file does not open, as the end of a sentence.

    Parameters
    ----------
    path : Path
    error : Exception
        What opening it raised.

    Returns
    -------
    str
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)  # a little-endian header length
    except OSError as refused:
        return f"cannot be read ({refused.strerror})"
    if start == b"version ":
        return "is a pointer of Git LFS, not the weights: run `git lfs pull`"
    file_size = path.stat().st_size
    header_size = int.from_bytes(start, "little")
    if file_size < 8 or header_size > file_size - 8:
        return "has no readable header: it was cut off early, or is no safetensors file"
    if "incomplete metadata" in str(error).lower():
        return (
            f"was cut off or changed: its {file_size:,} bytes are not the size that its header "
            "gives"
        )
    return f"has a damaged header ({str(error).splitlines()[0]})"


def check_plain(tensors: dict[str, Stored], source: str) -> None:
    """Raise GumlabError for weights that are no plain floats, or an adapter's.

    Parameters
    ----------
    tensors : dict of str to Stored
    source : str
        The folder, for the sentence.

    Raises
    ------
    GumlabError
        Naming the first of them.
    """
    for name, stored in tensors.items():
        if name.endswith(".weight") and stored.dtype not in DTYPES:
            raise GumlabError(
                f"{source} holds quantised weights ({name} is {stored.dtype}), and gumlab loads "
                "and prunes floating-point weights. Load the model that it was made from, prune "
                "it, and quantise the smaller one."
            )
        if any(part in name for part in OF_ADAPTERS):
            raise GumlabError(
                f"{source} holds an adapter's weights among the model's ({name}). Merge them into "
                "the model first (peft: model.merge_and_unload()), and save it again."
            )


def stored_dtype(tensors: dict[str, Stored]) -> torch.dtype:
    """The dtype of most of the numbers in the files; float32 where none is a float."""
    sizes = Counter[str]()
    for stored in tensors.values():
        if stored.dtype in DTYPES:
            sizes[stored.dtype] += stored.size
    if not sizes:
        return torch.float32
    (kind, _), *_ = sizes.most_common(1)
    return getattr(torch, DTYPES[kind])
