"""config.json: what a folder or a name on the hub says it is, and whether gumlab loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from gumlab.errors import GumlabError, first_line
from gumlab.feedforward import BY_CODE, WIDTHS

ADAPTER = "adapter_config.json"  # PEFT's
VOCABULARIES = ("tokenizer.json", "*vocab*", "*.model", "tekken.json")  # one is there, or none is
BY_LAYER = "per_layer_config"  # transformers' schema of settings by layer
TEXT = "text_config"  # the language model's own settings in those of a model that also sees
# What a config says of how to call a model, not of what it is: gumlab calls it in its own way.
OF_THE_CALL = ("return_dict", "output_attentions", "output_hidden_states")
OF_CODE = ("auto_map", BY_CODE)  # what it says for code in the folder, which gumlab never runs
CODE_FILE = "modeling_pruned.py"  # the code that `save` adds: a copy of the module beside this one
DECODERS = "gumlab loads decoder-only language models, such as GPT-2, OPT or Llama."
# What a model that is no causal language model is, by transformers' lists of what it builds.
OTHER_KINDS = {
    "an encoder-decoder model": ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ"),
    "a model of images": ("IMAGE_CLASSIFICATION", "IMAGE", "ZERO_SHOT_IMAGE_CLASSIFICATION"),
    "a model of sound": ("CTC", "AUDIO_CLASSIFICATION", "TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM"),
    "a model of images and text": ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"),
    "an encoder, which sees the whole text at once": ("MASKED_LM", "TEXT_ENCODING"),
}


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
        If there is no config.json, it is damaged, or the folder holds an adapter.
    """
    if (folder / ADAPTER).is_file():
        refuse_adapter(read_object(folder / ADAPTER), str(folder))
    try:
        return read_object(folder / "config.json")
    except FileNotFoundError:
        raise GumlabError(
            f"{folder} has no config.json, so it is not a model folder. Expected config.json, "
            "model.safetensors and the tokenizer's files."
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    GumlabError
        If it is damaged.
    FileNotFoundError
        If there is none.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"), object_hook=_number_or_object)
    except ValueError as error:
        raise GumlabError(f"{path} is not JSON ({error}). Copy or save it again.") from error
    if not isinstance(settings, dict):
        raise GumlabError(
            f"{path} holds no JSON object but a {type(settings).__name__}. Copy or save it again."
        )
    return settings


def _number_or_object(found: dict[str, Any]) -> Any:
    """What an object in JSON stands for: transformers writes infinity as {"__float__": ..}.

    >>> _number_or_object({"__float__": "Infinity"})
    inf
    """
    return float(found["__float__"]) if list(found) == ["__float__"] else found


def refuse_adapter(settings: dict[str, Any], source: str) -> NoReturn:
    """Raise GumlabError for what PEFT saved.

    Parameters
    ----------
    settings : dict
        Those in adapter_config.json.
    source : str
        The folder or the name, for the sentence.

    Raises
    ------
    GumlabError
        Naming the adapter and the model that it belongs to.
    """
    kind, base = settings.get("peft_type", "PEFT"), settings.get("base_model_name_or_path")
    raise GumlabError(
        f"{source} holds an adapter ({kind}) of the model {base!r}, not a model of its own. Merge "
        "them first: peft.AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload(), and "
        "save_pretrained to a new folder."
    )


def check_config(settings: dict[str, Any], source: str) -> None:
    """Raise GumlabError unless config.json is that of a language model that gumlab loads.

    Parameters
    ----------
    settings : dict
        Those in config.json.
    source : str
        The folder or the name, for the sentence.

    Raises
    ------
    GumlabError
        For a quantised model, one that needs remote code, and one that is no causal language model.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    _check_plain_weights(settings, source)
    kind = settings.get("model_type")
    if str(kind) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise _not_a_language_model(settings, source)
    config = build_config(settings, source)
    if getattr(config, "is_encoder_decoder", False):
        raise GumlabError(f"{source} is an encoder-decoder model ({kind}). {DECODERS}")
    is_causal = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if str(kind) in _built_for("MASKED_LM") and not is_causal:
        raise GumlabError(
            f"{source} is an encoder, which sees the whole text at once ({kind}). {DECODERS}"
        )


def build_config(settings: dict[str, Any], source: str) -> Any:
    """The settings as transformers' object.

    Parameters
    ----------
    settings : dict
        Those in config.json.
    source : str
        The folder or the name, for the sentence.

    Returns
    -------
    transformers.PreTrainedConfig

    Raises
    ------
    GumlabError
        If transformers does not take them.
    """
    from transformers import AutoConfig

    left_out = (*OF_THE_CALL, *OF_CODE)
    settings = {key: value for key, value in settings.items() if key not in left_out}
    if recorded_widths(settings, source):  # ours to read, no layout that transformers builds
        settings = {key: value for key, value in settings.items() if key != BY_LAYER}
    try:
        return AutoConfig.for_model(**settings)
    except Exception as error:  # each kind of model checks its settings in its own way
        raise GumlabError(
            f"{source}: transformers does not take the settings of config.json for the model type "
            f"{settings.get('model_type')!r} ({type(error).__name__}: {first_line(error)}). "
            "Copy config.json again, or correct that setting."
        ) from error


def recorded_widths(settings: dict[str, Any], source: str) -> dict[int, int]:
    """The widths that `save` recorded, by layer: as per_layer_config, or for the code beside it.

    Parameters
    ----------
    settings : dict
        Those in config.json.
    source : str
        The folder or the name, for the sentence.

    Returns
    -------
    dict of int to int
        Empty where there is no record, or one with other fields, which is for transformers to
        understand.

    Raises
    ------
    GumlabError
        If it is damaged.
    """
    if BY_CODE in settings:
        return _widths_for_code(settings[BY_CODE], source)
    by_layer = settings.get(BY_LAYER)
    if by_layer is None:
        return {}
    if not isinstance(by_layer, dict) or not all(isinstance(v, dict) for v in by_layer.values()):
        raise _damaged_record(source)
    fields = {field for entry in by_layer.values() for field in entry}
    if not fields <= set(WIDTHS):
        return {}
    widths = {}
    for number, entry in by_layer.items():
        for width in entry.values():
            if not str(number).isdecimal() or not _is_width(width):
                raise _damaged_record(source)
            widths[int(number)] = width
    return widths


def _widths_for_code(record: Any, source: str) -> dict[int, int]:
    """The widths in the record that the code beside the weights reads, by layer."""
    widths = record.get("widths") if isinstance(record, dict) else None
    if not isinstance(widths, list) or not widths or not all(map(_is_width, widths)):
        raise _damaged_record(source, BY_CODE, 'the width of each layer, {"widths": [7, 11]}')
    return dict(enumerate(widths))


def _is_width(value: Any) -> bool:
    return type(value) is int and value >= 1


def _damaged_record(
    source: str,
    entry: str = BY_LAYER,
    expected: str = 'the number of each layer and its width, such as {"0": {"n_inner": 7}}',
) -> GumlabError:
    """What to say of widths in config.json that cannot be read."""
    return GumlabError(
        f"{source}: {entry} in config.json is damaged; expected {expected}. Copy config.json "
        f"again, or take {entry} out: the widths are read from the weights."
    )


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds the file of a tokenizer, of whichever kind.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool
    """
    return any(any(folder.glob(pattern)) for pattern in VOCABULARIES)


def _check_plain_weights(settings: dict[str, Any], source: str) -> None:
    """Raise GumlabError if config.json says that the weights are quantised."""
    places = [settings, settings.get(TEXT)]
    for place in places:
        if not isinstance(place, dict):
            continue
        quantisation = place.get("quantization_config") or place.get("compression_config")
        if quantisation:
            raise GumlabError(
                f"{source} is quantised ({_method(quantisation)}), and gumlab loads and prunes "
                "floating-point weights. Load the model that it was made from, prune it, and "
                "quantise the smaller one."
            )


def _method(quantisation: Any) -> str:
    """The name of a quantisation in config.json."""
    if not isinstance(quantisation, dict):
        return "of an unknown kind"
    bits = quantisation.get("bits")
    if quantisation.get("load_in_4bit") or quantisation.get("load_in_8bit"):
        bits = 4 if quantisation.get("load_in_4bit") else 8
        method = quantisation.get("quant_method", "bitsandbytes")
    else:
        method = quantisation.get("quant_method", "of an unknown kind")
    return f"{method}, {bits} bits" if bits else str(method)


def _built_for(task: str) -> Any:
    """The model types that transformers builds for a task, by its own list."""
    from transformers.models.auto import modeling_auto

    return getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {})


def _not_a_language_model(settings: dict[str, Any], source: str) -> GumlabError:
    """Why a model type is none that gumlab loads."""
    import transformers

    kind = settings.get("model_type")
    remote = settings.get("auto_map")
    if remote:
        return GumlabError(
            f"{source} needs Python code that comes with the model (auto_map in config.json, model "
            f"type {kind!r}), and gumlab never runs remote code. Take a model that transformers "
            "builds by itself."
        )
    for description, tasks in OTHER_KINDS.items():
        if any(str(kind) in _built_for(task) for task in tasks):
            return GumlabError(f"{source} is {description} ({kind}). {DECODERS}")
    return GumlabError(
        f"{source}: config.json names the model type {kind!r}, which is no causal language model "
        f"that transformers {transformers.__version__} knows. If it is a new one, upgrade "
        f"transformers; {DECODERS}"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """transformers says nothing but errors, and draws no bar; its level is restored."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
