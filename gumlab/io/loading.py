"""Load a model and its tokenizer: built-in, a Hugging Face name, or a local folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import neurons, width_field

ASSETS = Path(__file__).parents[1] / "assets"
VOCABULARIES = ("tokenizer.json", "*vocab*", "*.model", "tekken.json")  # one is there, or none is
RECORD = "gumlab.json"  # the checksums of a folder's files, as `save` wrote them
BUILT_IN = ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama", "tiny-twins", "tiny-wide")


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = torch.float32,
) -> tuple[nn.Module, Any]:
    """(model, tokenizer) by name, in eval mode.

    name: a built-in model (tiny-gpt-neo, tiny-gpt2, tiny-llama, tiny-twins, tiny-wide), a Hugging
    Face name ("gpt2"), or a folder that `save` or transformers wrote; layers of unequal widths
    load too. device: default a GPU if there is one. dtype: of the weights, "auto" for the file's.
    Only safetensors are read, nothing is unpickled, no remote code runs, and what `save` wrote is
    checked by its checksums. Raises GumlabError where that cannot be.
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
    return _load_whole(folder, device, dtype)


def _load_whole(
    folder: Path, device: str | torch.device, dtype: torch.dtype | str
) -> tuple[nn.Module, Any]:
    model = load_folder(folder, dtype)  # first, for it says more exactly what is wrong
    verify(folder)
    return model.to(device), load_tokenizer(folder)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 in hex by file name, of every file but the record itself and the card."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name not in (RECORD, "README.md"):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


def verify(folder: Path) -> bool:
    """True if every file is as `save` wrote it; False for a folder without a record, as of others.

    Raises GumlabError naming the files that were changed, lost or damaged since.
    """
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))["sha256"].items()
        changed = dict(recorded - checksums(folder).items())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise GumlabError(f"{folder} cannot be read: {error}. Make its files readable.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise GumlabError(f"{folder / RECORD} is damaged. Copy the folder again.") from error
    if changed:
        raise GumlabError(
            f"{folder} is not as gumlab.save wrote it: the checksums in {RECORD} do not fit "
            f"{', '.join(sorted(changed))}. Copy the folder again; or, if the change was meant "
            f"(another tool saved here, a setting was edited), delete {RECORD}."
        )
    return True


def load_folder(folder: Path, dtype: torch.dtype | str) -> nn.Module:
    """The model of a local folder, equal or unequal widths (`per_layer_config`), on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    config = read_config(folder)
    layers = config.pop("per_layer_config", None)
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.*"))) or "nothing"
        raise GumlabError(
            f"{folder} holds no safetensors weights (found: {found}). gumlab never unpickles; save "
            "the model again with safetensors (transformers: model.save_pretrained)."
        )
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what its report says of weights is checked and said below
    try:
        built = AutoConfig.for_model(**config)
        # transformers does not build unequal layers: it loads all the rest, we load the blocks
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=built,
            output_loading_info=True,
            ignore_mismatched_sizes=bool(layers),
            **options,
        )
        refitted = _load_blocks(model, folder, layers) if layers else set()
    except GumlabError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        raise GumlabError(
            f"{folder} cannot be loaded ({type(error).__name__}: {_first_line(error)}). "
            "The files are damaged or made for another model; copy or save them again."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    wrong = {k if isinstance(k, str) else k[0] for k in report["mismatched_keys"]} - refitted
    wrong |= set(report["missing_keys"])
    if wrong:
        raise GumlabError(
            f"{folder} lacks weights that its config.json asks for, or has others in their place "
            f"({', '.join(sorted(wrong)[:3])}). The files belong to another model; save it again."
        )
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json; GumlabError where there is none or it is damaged."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GumlabError(
            f"{folder} has no config.json, so it is not a model folder. Expected config.json, "
            "model.safetensors and the tokenizer's files."
        ) from None
    except ValueError as error:
        raise GumlabError(f"{path} is not JSON ({error}). Copy or save it again.") from error
    if not isinstance(config, dict):
        raise GumlabError(f"{path} holds no JSON object. Copy or save it again.")
    return config


def _load_blocks(model: nn.Module, folder: Path, layers: dict[str, dict[str, Any]]) -> set[str]:
    """Give the layers of `per_layer_config` their own widths and weights; the loaded keys."""
    from safetensors.torch import load_file

    state = {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }
    field, dtype, loaded = width_field(model), next(model.parameters()).dtype, set()
    for i, layer in enumerate(neurons(model)):
        width = layers.get(str(i), {}).get(field, layer.width)
        if width == layer.width:
            continue
        zeros = layer.replacements(torch.full((width,), layer.width))
        for name, module in model.get_submodule(layer.name).named_modules():
            for key, old in list(module.named_parameters(recurse=False)):
                if old in zeros:
                    full = ".".join(filter(None, (layer.name, name, key)))
                    if full not in state or state[full].shape != zeros[old].shape:
                        raise GumlabError(f"{folder}: {full} is missing or not of width {width}.")
                    setattr(module, key, nn.Parameter(state[full].to(dtype)))
                    loaded.add(full)
        layer.set_sizes()
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")


def load_tokenizer(source: Path | str) -> Any:
    """The tokenizer of a local folder or a Hugging Face name, with a padding token."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if isinstance(source, Path) and not any(any(source.glob(name)) for name in VOCABULARIES):
        raise GumlabError(  # transformers would make up an empty one
            f"No tokenizer is in {source}. Put tokenizer.json and tokenizer_config.json beside the "
            "weights."
        )
    kind: Any = AutoTokenizer
    try:
        if isinstance(source, Path) and _says_all(source / "tokenizer_config.json"):
            kind = PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise GumlabError(
            f"No tokenizer could be read from {source} ({type(error).__name__}). "
            "Put tokenizer.json and tokenizer_config.json beside the weights."
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-2's has none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _says_all(path: Path) -> bool:
    """True where tokenizer.json is all of the tokenizer; transformers would force Qwen2's on it."""
    generic = ("TokenizersBackend", "PreTrainedTokenizerFast")
    return path.exists() and json.loads(path.read_bytes()).get("tokenizer_class") in generic


def _load_from_hub(
    name: str, device: str | torch.device, dtype: torch.dtype | str
) -> tuple[nn.Module, Any]:
    import huggingface_hub as hub
    from transformers import AutoModelForCausalLM

    if "/" not in name and (name.startswith("tiny") or "." in name):
        raise unknown("model", name, BUILT_IN)
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    build = AutoModelForCausalLM.from_pretrained
    offline = hub.constants.HF_HUB_OFFLINE
    try:
        saved = isinstance(hub.try_to_load_from_cache(name, RECORD), str)  # `save` wrote it
        try:
            model: Any = None if saved else build(name, local_files_only=True, **options)
        except OSError:
            if not offline:  # fail in seconds, not after retries
                files = hub.HfApi().model_info(name, timeout=5).siblings or ()
                saved = RECORD in [file.rfilename for file in files]
            model = None if saved else build(name, **options)
        if saved:
            folder = Path(hub.snapshot_download(name, local_files_only=offline))
            return _load_whole(folder, device, dtype)
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
