"""Load a model and its tokenizer: built-in, a Hugging Face name, or a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import neurons

ASSETS = Path(__file__).parent / "assets"
BUILT_IN = ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama", "tiny-twins", "tiny-wide")


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Module, Any]:
    """(model, tokenizer) by name, in eval mode.

    name: a built-in model (tiny-gpt-neo, tiny-gpt2, tiny-llama, tiny-twins, tiny-wide), a Hugging
    Face name ("gpt2"), or a folder that `save` or transformers wrote; layers of unequal widths
    load too. device: default a GPU if there is one. dtype: of the weights. Only safetensors are
    read, nothing is unpickled, and no remote code runs. Raises GumlabError where that cannot be.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every load is noise in a notebook
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if str(name) in BUILT_IN:
        folder = ASSETS / str(name)
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        return _load_from_hub(str(name), device, dtype)
    return load_folder(folder, dtype).to(device), _tokenizer(folder)


def load_folder(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The model of a local folder, equal or unequal widths (`per_layer_config`), on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = read_config(folder)
    layers = config.pop("per_layer_config", None)
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.*"))) or "nothing"
        raise GumlabError(
            f"{folder} holds no safetensors weights (found: {found}). gumlab never unpickles; save "
            "the model again with safetensors (transformers: model.save_pretrained)."
        )
    try:
        if layers is None:
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
            ).eval()
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).to(dtype)
        set_widths(
            model,
            {
                int(i): v
                for i, over in layers.items()
                for k, v in over.items()
                if k == width_field(model)
            },
        )
        _load_weights(model, folder)
    except GumlabError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise GumlabError(
            f"{folder} cannot be loaded ({type(error).__name__}: {_first_line(error)}). "
            "The files are damaged or made for another model; copy or save them again."
        ) from error
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json; GumlabError where there is none or it is damaged."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GumlabError(
            f"{folder} has no config.json, so it is not a model folder. Expected config.json, "
            "model.safetensors and the tokenizer's files."
        ) from None
    except ValueError as error:
        raise GumlabError(
            f"{folder / 'config.json'} is not JSON ({error}). Copy or save it again."
        ) from error


def width_field(model: nn.Module) -> str:
    """The name of the config's entry for the feed-forward width."""
    for field in ("n_inner", "ffn_dim", "intermediate_size"):
        if hasattr(model.config, field):
            return field
    raise GumlabError(
        f"The config of {type(model).__name__} has no known entry for the feed-forward width."
    )


def set_widths(model: nn.Module, widths: dict[int, int]) -> None:
    """Give layers other widths, with zero weights, ready to receive a checkpoint's."""
    for i, layer in enumerate(neurons(model)):
        if i in widths:
            empty = torch.full((widths[i],), layer.width)
            replace_parameters(layer, layer.replacements(empty))


def replace_parameters(layer: Any, new: dict[nn.Parameter, nn.Parameter]) -> None:
    """Put new parameters in a block's modules, old -> new, and set the modules' sizes."""
    for module in (*layer.fc, layer.proj):
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter in new:
                setattr(module, key, new[parameter])
    layer.set_sizes()


def _load_weights(model: nn.Module, folder: Path) -> None:
    from safetensors.torch import load_file

    state = {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }
    missing, surplus = model.load_state_dict(state, strict=False)
    tied = set(
        getattr(model, "all_tied_weights_keys", None)
        or getattr(model, "_tied_weights_keys", None)
        or ()
    )
    if surplus or set(missing) - tied:
        raise GumlabError(
            f"{folder} does not fit its config.json: missing {sorted(set(missing) - tied)[:3]}, "
            f"unexpected {surplus[:3]}. The files belong to another model; save it again."
        )
    model.tie_weights()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")


def _tokenizer(source: Path | str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise GumlabError(
            f"No tokenizer could be read from {source} ({type(error).__name__}). "
            "Put tokenizer.json and tokenizer_config.json beside the weights."
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-2's has none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_from_hub(
    name: str, device: str | torch.device, dtype: torch.dtype
) -> tuple[nn.Module, Any]:
    from transformers import AutoModelForCausalLM

    if "/" not in name and (name.startswith("tiny") or "." in name):
        raise unknown("model", name, BUILT_IN)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise GumlabError(
            f"{name!r} is not a built-in model ({', '.join(BUILT_IN)}), not a folder here, and "
            "could not be fetched from the Hugging Face hub. Without a network, put config.json, "
            "model.safetensors, tokenizer.json and tokenizer_config.json in a folder and give its "
            "path."
        ) from error
    return model.to(device).eval(), _tokenizer(name)
