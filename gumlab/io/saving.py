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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.collecting import block_name
from gumlab.errors import GumlabError, check_flag, first_line, warn_caller
from gumlab.feedforward import (
    BY_CODE,
    FeedForward,
    check_values,
    holds_adapters,
    neurons,
    width_field,
)
from gumlab.gating import kept_by_gates
from gumlab.io.card import Loaders, model_card
from gumlab.io.configuration import BY_LAYER, CODE_FILE, OF_CODE, quietly
from gumlab.io.record import CARD, RECORD, write_record
from gumlab.io.weights import INDEX, WEIGHTS, read_headers
from gumlab.language import head_and_embedding, is_tied, language_config, text_config
from gumlab.offloading import check_resident, disk_folders, held, is_offloaded, offloaded_parts
from gumlab.removal import with_neurons

CODE = Path(__file__).with_name(CODE_FILE)
# What a saved model is made of, by whichever program: a save replaces these and nothing else.
OF_CHECKPOINTS = (
    *("config.json", "generation_config.json", "*.index.json", RECORD, CARD, "*.safetensors"),
    CODE_FILE,
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "*.jinja", "tekken.json"),
    *("*processor_config.json", "chat_template.json", "additional_chat_templates"),
    *("pytorch_model*.bin", ".gitattributes", "LICENSE*", ".DS_Store", ".ipynb_checkpoints"),
)
LIBRARY = "transformers.models."  # where the classes of transformers itself are
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
    with_code: bool = False,
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
    with_code : bool
        Add a small module, `modeling_pruned.py`, by which transformers builds unequal widths as
        they are, for whoever loads the folder with `trust_remote_code=True`.
    notes : mapping of str to anything, optional
        Rows for the card's table.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    GumlabError
        Before anything is written: if gates are on that remove neurons, if an adapter is not
        merged, if the folder cannot be written or holds something else than a checkpoint, if `pad`
        is asked for a model whose config has no entry for the width, or together with `with_code`,
        if that module cannot build the model, if the config has settings by layer of its own where
        unequal widths would be recorded, if model or tokenizer is none of transformers', if an
        offloaded model is to be padded, or to replace the files that it is read from, if the config
        is not what the model is, or if nothing could load the widths (unequal ones under a head
        that is no language model's). If a part cannot be written, it is named.

    Notes
    -----
    Equal widths load with plain transformers, and neither `pad` nor `with_code` adds anything to
    them. Unequal widths are recorded as `per_layer_config` in config.json and load with
    `gumlab.load`, and so are widths for which the config has no entry (BLOOM). With the module they
    are recorded as `pruned_feed_forward`, which it reads; `gumlab.load` never runs it. Generation
    settings that transformers refuses to save are left out, with a warning. A model with another
    head than a language model's is saved whole, for its own class. The files' checksums go to
    gumlab.json; `gumlab.load` verifies them.

    An offloaded model (`gumlab.offloading`) is written a layer at a time, each to a file of its own
    that an index names; its memory need hold no more.

    The write is atomic: a killed save leaves the old folder or the new, and a hidden
    `.NAME-saving-*` beside it, which a save an hour later removes (where the system cannot exchange
    two folders, the old one is in there for a moment).
    """
    from safetensors import SafetensorError

    pad, with_code = check_layout(pad, with_code)
    layers = neurons(model)
    check_savable(model, tokenizer, layers)
    folder, target = _place(folder)
    if target in disk_folders(model):
        raise GumlabError(
            f"{folder} holds weights that this offloaded model is read from, and a save would put "
            "others in their place. Choose another folder."
        )
    widths = [layer.width for layer in layers]
    needs_padding = pad and len(set(widths)) > 1
    if needs_padding:
        check_resident(model, "Padding")
        model = with_neurons(model, [torch.arange(max(widths)) for _ in widths])
    form = form_of(model, with_code)
    if pad and not form.plain:
        raise _unpaddable(model)
    card = model_card(
        folder.name,
        widths,
        padded=needs_padding,
        loaders=form.loaders,
        notes={} if notes is None else notes,
    )
    fresh = new_folder_beside(target)
    try:
        _write(model, tokenizer, form, fresh)
        (fresh / CARD).write_text(card, encoding="utf-8")
        write_record(fresh)
        _make_readable(fresh)
        _put_in_place(fresh, target)
        clear_leftovers(target)
    except (OSError, SafetensorError) as error:
        raise GumlabError(
            f"Could not save to {folder}: {error}. Nothing half-written is left."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def check_layout(pad: bool, with_code: bool) -> tuple[bool, bool]:
    """What is to become of unequal widths, checked before the work.

    Parameters
    ----------
    pad, with_code : bool
        As in `save`.

    Returns
    -------
    tuple of bool
        The two, as Python's own.

    Raises
    ------
    GumlabError
        For both at once, and for what is no truth value.
    """
    pad, with_code = check_flag("pad", pad), check_flag("with_code", with_code)
    if pad and with_code:
        raise GumlabError(
            "pad fills the layers to one width, which transformers builds without code; with_code "
            "is for the widths as they are. Give one of the two."
        )
    return pad, with_code


def check_paddable(model: nn.Module) -> None:
    """Raise GumlabError, before the work, for a model that `save` cannot pad once it is cut."""
    if not hasattr(language_config(model), width_field(model)):
        raise _unpaddable(model)


def _unpaddable(model: nn.Module) -> GumlabError:
    return GumlabError(
        f"The config of {type(model).__name__} has no entry for the feed-forward width, so plain "
        "transformers cannot build a narrower one. Save without pad, for gumlab.load."
    )


def _place(folder: str | Path) -> tuple[Path, Path]:
    """A folder to save to, and what is there behind links; GumlabError where none can be."""
    if not isinstance(folder, str | os.PathLike):
        raise GumlabError(f"The folder must be a path, got {folder!r:.60}.")
    try:
        folder = Path(folder).expanduser()
        str(folder).encode("utf-8")  # as it stands in the card
        target = folder.resolve()  # a link stays a link
        check_free(target)
    except (OSError, ValueError, RuntimeError) as error:  # too long, not text, links in a circle
        raise GumlabError(
            f"Cannot write to {str(folder)!r:.60}: {first_line(error):.120}. Choose another folder."
        ) from error
    return folder, target


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
    if folder.is_dir() and any(folder.iterdir()) and not _is_checkpoint(folder):
        raise GumlabError(
            f"{folder} holds files that are not a checkpoint; choose another folder or empty it."
        )
    others = _others(folder) if folder.is_dir() else []
    if others:
        raise GumlabError(
            f"{folder} holds {', '.join(others[:3])} beside a checkpoint, and a save would put "
            "another folder in its place. Choose another folder, or move what is yours first."
        )
    here = Path.cwd()
    if folder.resolve() in (here, *here.parents):
        raise GumlabError(
            f"{folder.resolve()} is the folder that you are in, and a save would put another in "
            "its place. Name a folder in it: gumlab.save(model, tokenizer, 'small')."
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


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a model's: many another program has a config.json too."""
    try:
        settings = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return (folder / RECORD).exists()
    return isinstance(settings, dict) and not {"model_type", "architectures"}.isdisjoint(settings)


def _others(folder: Path) -> list[str]:
    """What a folder holds beside a checkpoint and what `save` wrote there, by name."""
    try:
        written = set(json.loads((folder / RECORD).read_bytes())["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        written = set()
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in written and not any(path.match(known) for known in OF_CHECKPOINTS)
    )


def check_savable(model: nn.Module, tokenizer: Any, layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError for a model or a tokenizer of which no file could be made, or a wrong one.

    Wrong is one that holds the weights of all neurons where gates remove some.
    """
    check_values(layers)
    if holds_adapters(model):
        raise GumlabError(
            f"{type(model).__name__} holds an adapter of peft. Save the whole as one model, "
            "gumlab.save(peft_model.merge_and_unload(), ...), or the adapter alone, "
            "peft_model.save_pretrained(folder), to load it on the saved base model: "
            "peft.PeftModel.from_pretrained(gumlab.load(base)[0], folder)."
        )
    kept = kept_by_gates(layers)
    removed = sum(int((~mask).sum()) for mask in kept)
    if removed:
        neurons_there = sum(len(mask) for mask in kept)
        raise GumlabError(
            f"Gates are on that keep {neurons_there - removed:,} of {neurons_there:,} neurons; a "
            "file would hold the weights of all of them, without the gates. Save what was asked "
            "for: small = gumlab.shrink(model, pruner.masks), or take the gates off: "
            "pruner.remove()."
        )
    if not hasattr(type(model), "config_class"):
        raise GumlabError(
            f"gumlab.save writes models of transformers; {type(model).__name__} is none (it has no "
            "config_class), so nothing would know how to load it. Save the transformers model in "
            "it, or its weights alone: safetensors.torch.save_model(model, file)."
        )
    if isinstance(tokenizer, nn.Module) or not hasattr(tokenizer, "save_pretrained"):
        raise GumlabError(
            f"Expected the model's tokenizer, got {tokenizer!r:.60}. The order is model, "
            "tokenizer, folder; the tokenizer is saved beside the weights."
        )
    come_back = offloaded_parts(model)
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta" and name.rpartition(".")[0] not in come_back:
            raise GumlabError(
                f"{name} is on the meta device: it has a shape and no numbers. Load the model "
                "whole, without device_map, and save that."
            )
        if "_orig_mod" in name:
            raise GumlabError(
                f"A part of {type(model).__name__} is compiled ({name}), so that its weights have "
                "names that nothing loads. Put the part itself back, its ._orig_mod, and save."
            )


@dataclass(frozen=True)
class _Form:
    """How a model is written: its class and config, what says the widths, and what loads it."""

    kind: type[nn.Module]
    config: Any
    plain: bool  # transformers builds these widths from the config alone
    entries: dict[str, Any]  # of config.json, by which something else builds them
    loaders: Loaders


def form_of(model: nn.Module, with_code: bool = False) -> _Form:
    """How a model is written; tried, without memory: what its config builds is compared with it.

    Raises
    ------
    GumlabError
        Where the config is not what the model is, or nothing could load the model.
    """
    kind = _library_class(model)
    widths = [layer.width for layer in neurons(model)]
    config = copy.deepcopy(model.config)
    if kind.__module__.startswith(LIBRARY):
        for entry in OF_CODE:  # of the folder that it was loaded from
            vars(config).pop(entry, None)
    built = _built(kind, config)
    field = width_field(model)
    if _widths(built) != widths and len(set(widths)) == 1 and hasattr(text_config(config), field):
        setattr(text_config(config), field, widths[0])  # it was edited by hand: the weights tell
        built = _built(kind, config)
    if is_tied(built) != is_tied(model):  # so was this
        config.tie_word_embeddings = text_config(config).tie_word_embeddings = is_tied(model)
        built = _built(kind, config)
    _check_computes_alike(model, built)
    own_parts = _beside_the_config(model, built)
    if own_parts and type(model) is kind:
        raise GumlabError(
            f"{type(model).__name__} holds weights that its class does not build "
            f"({', '.join(own_parts[:3])}), so that loading would lose them. Take that part off, "
            "or give the model a class of your own that makes it."
        )
    written_as = kind if _is_ours(type(model)) else type(model)
    if _widths(built) == widths:
        loaders = Loaders(
            transformers=_plain_loader(model, kind, own_parts),
            gumlab=not own_parts and _is_language_model(model, kind),
        )
        return _Form(written_as, config, True, {}, loaders)
    if own_parts or not _is_language_model(model, kind):
        remedy = 'Save it with pad=True, or make the widths equal (scope="layer").'
        if not hasattr(text_config(config), field):
            remedy = f"Give its config an entry for the width ({field}), from which it is built."
        raise GumlabError(
            f"{type(model).__name__} of these widths ({', '.join(map(str, widths))}) could be "
            "loaded by nothing: transformers builds the width that the config says, gumlab.load "
            f"language models without other heads or parts. {remedy}"
        )
    if with_code:
        entries = _entries_for_code(model, kind, config)
        loaders = Loaders(transformers="transformers.AutoModelForCausalLM", code=CODE_FILE)
    else:
        entries = _entries_by_layer(model, config, field)
        loaders = Loaders(can_be_padded=hasattr(text_config(config), field))
    return _Form(written_as, config, False, entries, loaders)


def _entries_by_layer(model: nn.Module, config: Any, field: str) -> dict[str, Any]:
    """What config.json says of widths for `gumlab.load`."""
    if config.to_dict().get(BY_LAYER):  # Gemma 4 says there which of its heads are larger
        raise GumlabError(
            f"The config of {type(model).__name__} has settings by layer of its own "
            f"({BY_LAYER}), where gumlab records unequal widths. Save it with pad=True or "
            'with_code=True, or make the widths equal (scope="layer").'
        )
    widths = [layer.width for layer in neurons(model)]
    return {BY_LAYER: {str(i): {field: width} for i, width in enumerate(widths)}}


def _entries_for_code(model: nn.Module, kind: type[nn.Module], config: Any) -> dict[str, Any]:
    """What config.json says for `modeling_pruned`; tried, without memory, with that very module.

    Raises
    ------
    GumlabError
        Where the module does not build what the model is.
    """
    from gumlab.io import modeling_pruned

    names = {module: name for name, module in model.named_modules()}
    layers = neurons(model)
    first = layers[0]
    *into, out = (
        names[module].removeprefix(f"{first.name}.") for module in (*first.fc, first.proj)
    )
    record = {
        "blocks": [layer.name for layer in layers],
        "widths": [layer.width for layer in layers],
        "into": into,
        "out": out,
    }
    trial = copy.deepcopy(config)
    setattr(trial, BY_CODE, record)
    try:
        found = _shapes(_built(getattr(modeling_pruned, kind.__name__), trial))
        reason = "it builds other weights than the model's"
    except (AttributeError, GumlabError) as error:
        found, reason = {}, first_line(error)
    if found != _shapes(model):
        raise GumlabError(
            f"transformers could not build {type(model).__name__} with the module that "
            f"with_code=True adds ({reason}). Save it without with_code, for gumlab.load."
        )
    return {
        "auto_map": {"AutoModelForCausalLM": f"{CODE.stem}.{kind.__name__}"},
        BY_CODE: record,
    }


def _is_ours(kind: type) -> bool:
    """Whether a class is one that `modeling_pruned` made, for transformers, of its own."""
    return kind.__module__.rpartition(".")[2] == CODE.stem


def _library_class(model: nn.Module) -> type[nn.Module]:
    """The class of transformers that a model is of, which builds it from its config alone."""
    for kind in type(model).__mro__:
        if kind.__module__.startswith(LIBRARY):
            return kind
    return type(model)


def _built(kind: type[nn.Module], config: Any) -> nn.Module:
    """What a config builds, without memory for its weights."""
    try:
        with torch.device("meta"):
            return kind(copy.deepcopy(config))
    except Exception as error:  # whatever the constructor raises, loading would too
        raise GumlabError(
            f"{kind.__name__} cannot be built from its config ({type(error).__name__}: "
            f"{first_line(error)}), so nothing could load what is saved. Make the config say what "
            "the model is."
        ) from error


def _widths(model: nn.Module) -> list[int]:
    return [layer.width for layer in neurons(model)]


def _check_computes_alike(model: nn.Module, built: nn.Module) -> None:
    """Raise GumlabError where a model computes with its weights what its config does not say.

    That is: an activation is another function, or a layer is of another kind or has another
    constant (by its attributes that are text, truth or a fraction), whatever serves training alone.
    """
    of_built = dict(built.named_modules())
    for name, module in model.named_modules():
        other = of_built.get(name)
        if other is None:
            continue
        said, found = type(other).__name__, type(module).__name__
        differs = not _same_function(module, other)
        for key in [] if differs else _constants(module):
            values = [vars(other).get(key, vars(module)[key]), vars(module)[key]]
            if type(module) is type(other) and values[0] != values[1]:
                differs, (said, found) = True, (f"{key}={value!r:.40}" for value in values)
        if differs:
            raise GumlabError(
                f"The config of {type(model).__name__} says {said} for {name}, the model has "
                f"{found}: what is saved would compute something else. Make the config say what "
                "the model is, or put that part back."
            )


def _constants(module: nn.Module) -> list[str]:
    """The names of a module's attributes that say what it computes in eval mode."""
    of_training = ("training", "gradient_checkpointing", "p", "inplace")
    return [
        key
        for key, value in vars(module).items()
        if isinstance(value, str | bool | float)
        and not (key.startswith("_") or key in of_training or "drop" in key or "name" in key)
    ]


@torch.no_grad()
def _same_function(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules without weights, activations say, do the same; True for any others."""
    for one in (module, other):
        is_leaf = not any(one.children()) and not one.state_dict() and not list(one.buffers())
        if not is_leaf or isinstance(one, nn.modules.dropout._DropoutNd):
            return True
    numbers = torch.linspace(-4, 4, 17)
    try:
        expected = other.forward(numbers)
        return torch.allclose(module.forward(numbers), expected, atol=1e-5)
    except Exception:  # it is no function of one tensor
        return True


def _beside_the_config(model: nn.Module, built: nn.Module) -> list[str]:
    """The names of a model's weights that its config does not build: of a part of one's own.

    Raises
    ------
    GumlabError
        Where the config builds other weights than the model's, whatever the neurons.
    """
    nobody = torch.arange(0)
    of_neurons = {
        id(parameter) for layer in neurons(model) for parameter, _, _ in layer.places(nobody)
    }
    may_differ = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in of_neurons
    }
    held = _shapes(model)
    for name, shape in _shapes(built).items():
        if name not in may_differ and held.get(name) != shape:
            found = held.get(name, "no such weight")
            raise GumlabError(
                f"The config of {type(model).__name__} says {shape} for {name}, the model holds "
                f"{found}: what is saved would not load. Make the config say what the model is "
                "(its vocab_size, hidden_size, number of layers)."
            )
    return sorted(held.keys() - built.state_dict().keys())


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each entry of a model's state; () for what is no tensor (quantised modules')."""
    return {name: tuple(getattr(value, "shape", ())) for name, value in model.state_dict().items()}


def _plain_loader(model: nn.Module, kind: type[nn.Module], own_parts: list[str]) -> str:
    """The class whose `from_pretrained` loads a model whole."""
    if own_parts or not kind.__module__.startswith("transformers."):
        return type(model).__name__
    if _is_registered(model, kind):
        return "transformers.AutoModelForCausalLM"
    return f"transformers.{kind.__name__}"


def _is_language_model(model: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `gumlab.load` loads it: what transformers itself builds of a causal config."""
    return kind.__module__.startswith(LIBRARY) and _is_registered(model, kind)


def _is_registered(model: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a class is what AutoModelForCausalLM makes of a model's config."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return kind is MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), None)


def _write(model: nn.Module, tokenizer: Any, form: _Form, folder: Path) -> None:
    """Write config, generation settings, tokenizer and weights, the small before the large."""
    from transformers import GenerationConfig

    shell = copy.copy(model)  # the same weights; what is set here, the model does not see
    shell.__class__ = form.kind
    shell.config = form.config
    with _named("The config", "It holds what a model is, as numbers, text and lists."):
        form.config.save_pretrained(folder)
    if model.can_generate():
        settings = model.generation_config or GenerationConfig.from_model_config(form.config)
        shell.generation_config = _savable(settings, folder)
    with _named("The tokenizer", "Give the one that belongs to the model, whole."):
        tokenizer.save_pretrained(folder)
    with _named("The model", "Is it whole, in memory, and in one process?"):
        if is_offloaded(model):
            _write_by_layer(shell, folder)
        else:
            shell.save_pretrained(folder, safe_serialization=True)
    if form.entries:
        _record_widths(form.entries, folder)
    if BY_CODE in form.entries:
        shutil.copyfile(CODE, folder / CODE_FILE)


def _write_by_layer(shell: nn.Module, folder: Path) -> None:
    """Write an offloaded model's weights in files that an index names: one for each layer.

    What is in no layer (embeddings, head) comes first, all in one.
    """
    vars(shell).pop("hf_device_map", None)  # by which transformers warns of the memory it takes
    blocks = tuple(f"{block_name(layer)}." for layer in neurons(shell))
    around = [
        module
        for name, module in offloaded_parts(shell).items()
        if not f"{name}.".startswith(blocks)
    ]
    pieces = [around, *([shell.get_submodule(block.removesuffix("."))] for block in blocks)]
    one_weight = is_tied(shell)
    names = {module: name for name, module in shell.named_modules()}
    paths = []
    for number, modules in enumerate(pieces):
        with held(*modules):
            state = shell.state_dict()
            if one_weight:
                head, embedding = (f"{names[part]}.weight" for part in head_and_embedding(shell))
                state[head] = state[embedding]  # of which transformers writes one
            piece = {
                name: value
                for name, value in state.items()
                if (name.startswith(blocks[number - 1]) if number else not name.startswith(blocks))
            }
            paths.append(folder / f"model-{number + 1:05}-of-{len(pieces):05}.safetensors")
            _write_piece(shell, piece, paths[-1])
    weight_map = {name: stored.path.name for name, stored in read_headers(paths).items()}
    size = sum(path.stat().st_size for path in paths)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_piece(shell: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Write some weights to a file, as transformers does all, and beside it what it puts there."""
    part = Path(tempfile.mkdtemp(dir=path.parent))
    with quietly():  # a bar for each piece is noise
        shell.save_pretrained(
            part, state_dict=state, safe_serialization=True, max_shard_size="1000GB"
        )
    (part / WEIGHTS).rename(path)
    for beside in part.iterdir():  # config.json, with the model's class in it
        beside.replace(path.parent / beside.name)
    part.rmdir()


@contextmanager
def _named(what: str, advice: str) -> Iterator[None]:
    """Turns whatever a part's own save raises into one sentence that names the part."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError):  # of the disk: said by `save`
        raise
    except Exception as error:  # tokenizers and configs of many kinds, and as many errors
        raise GumlabError(
            f"{what} cannot be saved ({type(error).__name__}: {first_line(error)}). {advice} "
            "Nothing half-written is left."
        ) from error


def _savable(settings: Any, folder: Path) -> Any:
    """Generation settings as transformers agrees to save them; a warning says what is left out."""
    try:
        settings.save_pretrained(folder)
        return settings
    except (ValueError, TypeError):
        kept = type(settings)()
    left_out = {}
    for name, value in vars(settings).items():
        default = getattr(kept, name, None)
        same = type(value) is type(default) and value == default
        if not name.startswith("_") and not same:
            left_out[name] = value
    added = list(left_out)
    while added:  # until no other fits what is there: one may be allowed by another
        added = [name for name, value in left_out.items() if _takes(kept, name, value)]
        for name in added:
            del left_out[name]
    listed = ", ".join(f"{name}={value!r:.40}" for name, value in left_out.items())
    warn_caller(
        f"generation_config.json is saved without {listed}: transformers refuses to save that "
        "beside the other settings. The model in memory keeps it."
    )
    return kept


def _takes(settings: Any, name: str, value: Any) -> bool:
    """Give generation settings one more, if they can still be saved with it."""
    trial = copy.copy(settings)
    setattr(trial, name, value)
    try:
        trial.validate(strict=True)
        trial.to_json_string()
    except (ValueError, TypeError):
        return False
    setattr(settings, name, value)
    return True


def _record_widths(entries: dict[str, Any], folder: Path) -> None:
    """Add each layer's width to config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def new_folder_beside(target: Path) -> Path:
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


def clear_leftovers(target: Path) -> None:
    """Clear away what killed saves left beside `target`, once it is surely no running save's."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}-saving-*"):
        try:
            age = time.time() - leftover.stat().st_mtime
        except FileNotFoundError:  # of a save that ended just now
            continue
        if age > LEFTOVER_AGE:
            shutil.rmtree(leftover, ignore_errors=True)
