"""Save what was pruned, so that gumlab or plain transformers loads it."""

from __future__ import annotations

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
from gumlab.feedforward import holds_adapters, neurons, width_field
from gumlab.gating import kept_by_gates
from gumlab.io.card import model_card
from gumlab.io.record import CARD, write_record
from gumlab.removal import with_neurons

LEFTOVER_AGE = 3600  # seconds after which what a killed save left is cleared away
# Of Linux's renameat2: paths are relative to the working folder; exchange the two.
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def save(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    pad: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model, its tokenizer and a model card to a folder.

    Parameters
    ----------
    model : nn.Module
        Of equal or unequal widths. It stays as it is.
    tokenizer : transformers.PreTrainedTokenizerBase
    folder : str or Path
        A new or empty folder, or one with a checkpoint, which is replaced.
    pad : bool
        Zero-pad every layer to the widest, so that plain transformers loads unequal widths too.
    notes : mapping of str to anything, optional
        Rows for the card's table.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    GumlabError
        If gates are on that remove neurons, if an adapter is not merged, if the folder cannot be
        written or holds something else than a checkpoint, or if `pad` is asked for a model whose
        config has no entry for the width.

    Notes
    -----
    Equal widths load with plain transformers. Unequal widths are recorded as `per_layer_config` in
    config.json and load with `gumlab.load`, and so are widths for which the config has no entry
    (BLOOM). The files' checksums go to gumlab.json; `gumlab.load` verifies them.

    The write is atomic: a killed save leaves the old folder or the new, and a hidden
    `.NAME-saving-*` beside it, which a save an hour later removes (where the system cannot exchange
    two folders, the old one is in there for a moment).
    """
    from safetensors import SafetensorError

    folder = Path(folder).expanduser()
    layers = neurons(model)
    if holds_adapters(model):
        raise GumlabError(
            f"{type(model).__name__} holds an adapter of peft. Save the whole as one model, "
            "gumlab.save(peft_model.merge_and_unload(), ...), or the adapter alone, "
            "peft_model.save_pretrained(folder), to load it on the saved base model: "
            "peft.PeftModel.from_pretrained(gumlab.load(base)[0], folder)."
        )
    widths = [layer.width for layer in layers]
    removed = sum(int((~mask).sum()) for mask in kept_by_gates(layers))
    if removed:
        raise GumlabError(
            f"Gates are on that keep {sum(widths) - removed:,} of {sum(widths):,} neurons; a file "
            "would hold the weights of all of them, without the gates. Save what was asked for: "
            "small = gumlab.shrink(model, pruner.masks), or take the gates off: pruner.remove()."
        )
    needs_padding = pad and len(set(widths)) > 1
    if needs_padding:
        model = with_neurons(model, [torch.arange(max(widths)) for _ in widths])
    plain = _config_builds(model)
    if pad and not plain:
        raise GumlabError(
            f"The config of {type(model).__name__} has no entry for the feed-forward width, so "
            "plain transformers cannot build a narrower one. Save without pad, for gumlab.load."
        )
    card = model_card(folder.name, widths, padded=needs_padding, plain=plain, notes=notes or {})

    target = folder.resolve()  # a link stays a link
    fresh = _new_folder_beside(target)
    try:
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)
        if not plain:
            _record_widths(model, fresh)
        (fresh / CARD).write_text(card, encoding="utf-8")
        write_record(fresh)
        _make_readable(fresh)
        _put_in_place(fresh, target)
        _clear_leftovers(target)
    except (OSError, SafetensorError) as error:
        raise GumlabError(
            f"Could not save to {folder}: {error}. Nothing half-written is left."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def check_free(folder: Path) -> None:
    """Make sure before the work that `save` will not refuse a folder after it.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    GumlabError
        If the folder holds something else than a checkpoint, or cannot be written.
    """
    if folder.is_dir() and not (folder / "config.json").exists() and any(folder.iterdir()):
        raise GumlabError(
            f"{folder} holds files that are not a checkpoint; choose another folder or empty it."
        )
    parent = next(path for path in folder.absolute().parents if path.exists())
    if folder.is_file():
        obstacle = "it is a file"
    elif not parent.is_dir():
        obstacle = f"{parent} is a file"
    elif not os.access(parent, os.W_OK):
        obstacle = f"{parent} is read-only for you"
    else:
        return
    raise GumlabError(f"Cannot write to {folder}: {obstacle}. Choose another folder.")


def _config_builds(model: nn.Module) -> bool:
    """Whether transformers builds these widths from the config alone; tried, without memory."""
    with torch.device("meta"):
        built = type(model)(copy.deepcopy(model.config))
    return [layer.width for layer in neurons(built)] == [layer.width for layer in neurons(model)]


def _record_widths(model: nn.Module, folder: Path) -> None:
    """Add each layer's width to the config, by transformers' schema of settings by layer."""
    path = folder / "config.json"
    field = width_field(model)
    config = json.loads(path.read_text(encoding="utf-8"))
    config["per_layer_config"] = {
        str(number): {field: layer.width} for number, layer in enumerate(neurons(model))
    }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _new_folder_beside(target: Path) -> Path:
    """An empty hidden folder on the same disk as the target, for what will be put in its place."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-saving-", dir=target.parent))
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {target.parent}: {error.strerror}. Choose another folder."
        ) from error


def _make_readable(folder: Path) -> None:
    """Let everyone read: a temporary folder and what safetensors writes are their owner's alone."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644)


def _put_in_place(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`, in one step where the system can."""
    try:
        fresh.rename(target)  # tried, not asked: another process may save here too
        return
    except OSError:
        if not target.exists():
            raise
    check_free(target)
    if not _exchange(fresh, target):
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-saving-", dir=target.parent))
        target.rename(old / target.name)
        fresh.rename(target)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, by Linux's renameat2; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError, OSError):  # not Linux
        return False
    failed = renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return not failed


def _clear_leftovers(target: Path) -> None:
    """Clear away what killed saves left beside `target`, once it is surely no running save's."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}-saving-*"):
        try:
            age = time.time() - leftover.stat().st_mtime
        except FileNotFoundError:  # of a save that ended just now
            continue
        if age > LEFTOVER_AGE:
            shutil.rmtree(leftover, ignore_errors=True)
