"""Save what was pruned, so that gumlab or plain transformers loads it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError
from gumlab.feedforward import neurons
from gumlab.models import width_field
from gumlab.shrinking import with_neurons


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
    config.json and load with `gumlab.load`; with `pad` every layer is zero-padded to the widest,
    and plain transformers loads it too. notes: rows for the card's table. The write is atomic: a
    killed save leaves the old folder or none. Raises GumlabError where it cannot write.
    """
    folder = Path(folder)
    widths = [layer.width for layer in neurons(model)]
    if pad and len(set(widths)) > 1:
        model = with_neurons(model, [torch.arange(max(widths)) for _ in widths])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise GumlabError(
            f"Cannot write to {folder.parent}: {error.strerror}. Choose another folder."
        ) from error
    try:
        fresh.chmod(0o755)
        model.save_pretrained(fresh, safe_serialization=True)
        tokenizer.save_pretrained(fresh)
        _record_widths(model, fresh)
        card = model_card(folder.name, widths, pad, notes or {})
        (fresh / "README.md").write_text(card, encoding="utf-8")
        for file in fresh.iterdir():
            file.chmod(0o644)  # safetensors leaves files that only their owner can read
        _swap(fresh, folder)
    except OSError as error:
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


def model_card(name: str, widths: list[int], padded: bool, notes: Mapping[str, Any]) -> str:
    """The README.md of a checkpoint: what was done, how to load it, the table of `notes`."""
    equal = padded or len(set(widths)) == 1
    how = (
        f'transformers.AutoModelForCausalLM.from_pretrained("{name}")'
        if equal
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


def _record_widths(model: nn.Module, folder: Path) -> None:
    widths = [layer.width for layer in neurons(model)]
    if len(set(widths)) == 1:
        return
    path, field = folder / "config.json", width_field(model)
    config = json.loads(path.read_text(encoding="utf-8"))
    config["per_layer_config"] = {str(i): {field: w} for i, w in enumerate(widths)}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    check_free(folder)
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    fresh.rename(folder)
    shutil.rmtree(old)
