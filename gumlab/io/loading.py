"""Load a model and its tokenizer: built-in, a Hugging Face name, or a local folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import FeedForward, neurons, width_field
from gumlab.io.bases import BASES, base_folder
from gumlab.io.gguf_loading import is_gguf, load_gguf
from gumlab.io.record import RECORD, verify

ASSETS = Path(__file__).parents[1] / "assets"
BUILT_IN = ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama", "tiny-twins", "tiny-wide")
VOCABULARIES = ("tokenizer.json", "*vocab*", "*.model", "tekken.json")  # one is there, or none is
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
        ("gpt2"), a folder that `save` or transformers wrote, or a GGUF file; layers of unequal
        widths load too.
    device : str or torch.device, optional
        By default a GPU if there is one.
    dtype : torch.dtype or "auto"
        Of the weights; "auto" for the file's.

    Returns
    -------
    model : nn.Module
        In eval mode.
    tokenizer : transformers.PreTrainedTokenizerBase
        With a padding token.

    Raises
    ------
    GumlabError
        If there is no such model, its files are missing or damaged, or it cannot be fetched.

    Notes
    -----
    Only safetensors are read, nothing is unpickled, no remote code runs, and what `save` wrote is
    checked by its checksums.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every load is noise in a notebook
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise GumlabError(
            f"device={str(device)!r} was asked for, but torch finds no CUDA device here. Leave "
            'device out, or take device="cpu".'
        )
    if str(name) in BUILT_IN:
        return _load_checked(ASSETS / str(name), device, dtype)
    base = base_folder(name)
    if base is not None:
        return load_folder(base, dtype).to(device), load_tokenizer(base)
    folder = Path(name).expanduser()
    if is_gguf(folder):
        model, tokenizer = load_gguf(folder, dtype)
        return model.to(device), tokenizer
    if folder.is_dir():
        return _load_checked(folder, device, dtype)
    return _load_from_hub(str(name), device, dtype)


def _load_checked(
    folder: Path, device: str | torch.device, dtype: torch.dtype | str
) -> tuple[nn.Module, Any]:
    """The model and tokenizer of a folder whose files are as its record says."""
    model = load_folder(folder, dtype)  # first, for it says more exactly what is wrong
    verify(folder)
    return model.to(device), load_tokenizer(folder)


def load_folder(folder: Path, dtype: torch.dtype | str) -> nn.Module:
    """The model of a local folder, of equal or unequal widths (`per_layer_config`).

    Parameters
    ----------
    folder : Path
        With config.json and safetensors weights.
    dtype : torch.dtype or "auto"
        Of the weights; "auto" for the file's.

    Returns
    -------
    nn.Module
        On the CPU, in eval mode.

    Raises
    ------
    GumlabError
        If files are missing, damaged, or do not fit one another.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = read_config(folder)
    settings_by_layer = settings.pop("per_layer_config", None)
    if not any(folder.glob("*.safetensors")):
        present = ", ".join(sorted(path.name for path in folder.glob("*.*"))) or "nothing"
        raise GumlabError(
            f"{folder} holds no safetensors weights (found: {present}). gumlab never unpickles; "
            "save the model again with safetensors (transformers: model.save_pretrained)."
        )
    try:
        with _errors_only():  # what transformers reports of weights is checked and said below
            # transformers does not build unequal layers: it loads all the rest, we load the blocks
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=AutoConfig.for_model(**settings),
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(settings_by_layer),
                use_safetensors=True,
                trust_remote_code=False,
            )
            loaded_here = _load_blocks(model, folder, settings_by_layer or {})
    except GumlabError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise GumlabError(
            f"{folder} cannot be loaded ({type(error).__name__}: {_first_line(error)}). "
            "The files are damaged or made for another model; copy or save them again."
        ) from error
    mismatched = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    wrong = (mismatched - loaded_here) | set(report["missing_keys"])
    if wrong:
        raise GumlabError(
            f"{folder} lacks weights that its config.json asks for, or has others in their place "
            f"({', '.join(sorted(wrong)[:3])}). The files belong to another model; save it again."
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        made_for = ", ".join(settings.get("architectures") or ()) or "another kind of model"
        raise GumlabError(
            f"{folder} holds weights that a language model has no place for "
            f"({', '.join(unexpected[:3])}); it was saved as {made_for}. gumlab loads language "
            "models (ForCausalLM, LMHeadModel); a head of another kind would be lost."
        )
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in a folder's config.json.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict

    Raises
    ------
    GumlabError
        If there is no config.json, or it is damaged.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GumlabError(
            f"{folder} has no config.json, so it is not a model folder. Expected config.json, "
            "model.safetensors and the tokenizer's files."
        ) from None
    except ValueError as error:
        raise GumlabError(f"{path} is not JSON ({error}). Copy or save it again.") from error
    if not isinstance(settings, dict):
        raise GumlabError(
            f"{path} holds no JSON object but a {type(settings).__name__}. Copy or save it again."
        )
    return settings


@contextmanager
def _errors_only() -> Iterator[None]:
    """transformers says nothing but errors; its level is as before afterwards."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _load_blocks(
    model: nn.Module, folder: Path, settings_by_layer: dict[str, dict[str, Any]]
) -> set[str]:
    """Give the layers of `per_layer_config` their own widths and weights; the names loaded."""
    from safetensors.torch import load_file

    if not settings_by_layer:
        return set()
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(path))
    field = width_field(model)
    loaded: set[str] = set()
    for number, layer in enumerate(neurons(model)):
        width = settings_by_layer.get(str(number), {}).get(field, layer.width)
        if width != layer.width:
            loaded |= _load_block(model, layer, width, weights, folder)
    return loaded


def _load_block(
    model: nn.Module,
    layer: FeedForward,
    width: int,
    weights: dict[str, torch.Tensor],
    folder: Path,
) -> set[str]:
    """Give one layer its own width and weights; the names loaded."""
    dtype = next(model.parameters()).dtype
    # a block of padding neurons alone has the shapes that the weights must have
    padding = layer.replacements(torch.full((width,), layer.width))
    loaded = set()
    for module_name, module in model.get_submodule(layer.name).named_modules():
        for parameter_name, old in list(module.named_parameters(recurse=False)):
            if old not in padding:
                continue
            parts = (layer.name, module_name, parameter_name)
            key = ".".join(part for part in parts if part)
            expected = tuple(padding[old].shape)
            stored = weights.get(key)
            if stored is None or tuple(stored.shape) != expected:
                found = "missing" if stored is None else f"of shape {tuple(stored.shape)}"
                raise GumlabError(
                    f"{folder}: {key} is {found}; expected {expected}, for the width {width} in "
                    "config.json. The files belong to another model; save it again."
                )
            setattr(module, parameter_name, nn.Parameter(stored.to(dtype)))
            loaded.add(key)
    layer.set_sizes()
    return loaded


def _first_line(error: Exception) -> str:
    """The first line of what an error says, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason given"


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
    if isinstance(source, Path) and not any(any(source.glob(name)) for name in VOCABULARIES):
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
            f"{_first_line(error)}). {advice}"
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-2's has none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_whole(path: Path) -> bool:
    """True where tokenizer.json is all of the tokenizer; transformers would force Qwen2's on it."""
    if not path.exists():
        return False
    return json.loads(path.read_bytes()).get("tokenizer_class") in WHOLE_TOKENIZERS


def _load_from_hub(
    name: str, device: str | torch.device, dtype: torch.dtype | str
) -> tuple[nn.Module, Any]:
    """The model and tokenizer of a Hugging Face name, from the cache or the hub."""
    import huggingface_hub as hub

    if "/" not in name and (name.startswith(("tiny", "smollm")) or "." in name):
        raise unknown("model", name, [*BUILT_IN, *BASES])
    try:
        model = _build_from_hub(name, dtype)
        if model is None:
            offline = hub.constants.HF_HUB_OFFLINE
            folder = hub.snapshot_download(name, local_files_only=offline)
            return _load_checked(Path(folder), device, dtype)
    except GumlabError:
        raise
    except Exception as error:  # of the hub, the network, the disk: all end in the same advice
        raise GumlabError(
            f"{name!r} is not a built-in model ({', '.join(BUILT_IN)}), not a folder here, and "
            "could not be fetched from the Hugging Face hub. Without a network, put config.json, "
            "model.safetensors, tokenizer.json and tokenizer_config.json in a folder and give its "
            "path."
        ) from error
    return model.to(device).eval(), load_tokenizer(name)


def _build_from_hub(name: str, dtype: torch.dtype | str) -> nn.Module | None:
    """The model as transformers builds it; None for one that `save` wrote, for us to load."""
    import huggingface_hub as hub
    from transformers import AutoModelForCausalLM

    if isinstance(hub.try_to_load_from_cache(name, RECORD), str):
        return None
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    try:
        return AutoModelForCausalLM.from_pretrained(name, local_files_only=True, **options)
    except OSError:  # it is not in the cache
        if not hub.constants.HF_HUB_OFFLINE:  # asked first, to fail in seconds, not after retries
            files = hub.HfApi().model_info(name, timeout=5).siblings or ()
            if RECORD in [file.rfilename for file in files]:
                return None
    return AutoModelForCausalLM.from_pretrained(name, **options)
