"""Save what was pruned, so that gumlab or plain transformers loads it."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError
from gumlab.feedforward import neurons, width_field
from gumlab.io.loading import RECORD, checksums
from gumlab.removal import with_neurons


def save(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    pad: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Write model, tokenizer and a model card to `folder`; returns the folder.

    Equal widths load with plain transformers. Unequal widths are recorded as `per_layer_config` in
    config.json and load with `gumlab.load`, and so are widths for which the config has no entry
    (BLOOM); with `pad` every layer is zero-padded to the widest, and plain transformers loads it
    too. notes: rows for the card's table. The files' checksums go to gumlab.json; `gumlab.load`
    verifies them. The write is atomic: a killed save leaves the old folder or the new, and a hidden
    `.NAME-saving-*` beside it, which a save an hour later removes (where the system cannot exchange
    two folders, the old one is in there for a moment). Raises GumlabError where it cannot write.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    target = folder.resolve()  # a link stays a link
    widths = [layer.width for layer in neurons(model)]
    if pad and len(set(widths)) > 1:
        model = with_neurons(model, [torch.arange(max(widths)) for _ in widths])
    plain = _config_builds(model)
    if pad and not plain:
        raise GumlabError(
            f"The config of {type(model).__name__} has no entry for the feed-forward width, so "
            "plain transformers cannot build a narrower one. Save without pad, for gumlab.load."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-saving-", dir=target.parent))
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {target.parent}: {error.strerror}. Choose another folder."
        ) from error
    try:
        fresh.chmod(0o755)
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)
        if not plain:
            _record_widths(model, fresh)
        card = model_card(folder.name, widths, pad, notes or {}, plain)
        (fresh / "README.md").write_text(card, encoding="utf-8")
        record = json.dumps({"sha256": checksums(fresh)}, indent=2)
        (fresh / RECORD).write_text(record + "\n", encoding="utf-8")
        for file in (p for p in fresh.iterdir() if p.is_file()):
            file.chmod(0o644)  # safetensors leaves files that only their owner can read
        _swap(fresh, target)
    except (OSError, SafetensorError) as error:
        raise GumlabError(
            f"Could not save to {folder}: {error}. Nothing half-written is left."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def check_free(folder: Path) -> None:
    """Raise GumlabError where `save` would refuse `folder`, so that it is known before the work."""
    if folder.is_dir() and not (folder / "config.json").exists() and any(folder.iterdir()):
        raise GumlabError(
            f"{folder} holds files that are not a checkpoint; choose another folder or empty it."
        )
    parent = next(p for p in folder.absolute().parents if p.exists())
    if folder.is_file() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise GumlabError(f"Cannot write to {folder}. Choose another folder.")


def model_card(
    name: str, widths: list[int], padded: bool, notes: Mapping[str, Any], plain: bool
) -> str:
    """The README.md of a checkpoint: what was done, how to load it, the table of `notes`."""
    how = (
        f'transformers.AutoModelForCausalLM.from_pretrained("{name}")'
        if plain
        else f'gumlab.load("{name}")'
    )
    rows = [f"| {key} | {value} |" for key, value in notes.items()]
    table = ["", "| what | value |", "|---|---|", *rows] if rows else []
    extra = f" (each layer zero-padded to {max(widths)})" if padded and len(set(widths)) > 1 else ""
    lines = [
        "---",
        "library_name: transformers",
        "tags: [gumlab, pruned]",
        "---",
        f"# {name}",
        "",
        f"Feed-forward neurons by layer: {', '.join(map(str, widths))}{extra}.",
        f"Load it with `{how}`.",
        *table,
    ]
    return "\n".join(lines) + "\n"


def _config_builds(model: nn.Module) -> bool:
    """Whether transformers builds these widths from the config alone; tried, without memory."""
    with torch.device("meta"):
        built = type(model)(copy.deepcopy(model.config))
    return [layer.width for layer in neurons(built)] == [layer.width for layer in neurons(model)]


def _record_widths(model: nn.Module, folder: Path) -> None:
    path, field = folder / "config.json", width_field(model)
    config = json.loads(path.read_text(encoding="utf-8"))
    layers = {str(i): {field: layer.width} for i, layer in enumerate(neurons(model))}
    path.write_text(json.dumps(config | {"per_layer_config": layers}, indent=2) + "\n", "utf-8")


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`, and clear away what killed saves left an hour ago."""
    try:
        fresh.rename(folder)  # tried, not asked: another process may save here too
    except OSError:
        if not folder.exists():
            raise
        check_free(folder)
        if not _exchange(fresh, folder):
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-saving-", dir=folder.parent))
            folder.rename(old / folder.name)
            fresh.rename(folder)
            shutil.rmtree(old)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}-saving-*"):
        with contextlib.suppress(FileNotFoundError):  # of a save that ended just now
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, by Linux's renameat2; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError, OSError):  # not Linux
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
