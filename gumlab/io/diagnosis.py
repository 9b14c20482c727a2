"""What a folder holds and what can load it: `doctor`. It changes nothing and unpickles nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gumlab.errors import GumlabError
from gumlab.feedforward import FeedForward, neurons
from gumlab.io.loading import RECORD, load_folder, load_tokenizer, read_config, verify

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FOREIGN = {".gguf": "llama.cpp", ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
INDEX = "model.safetensors.index.json"
VERDICTS = {
    ("gumlab", "transformers"): "Plain transformers and gumlab.load load it.",
    ("gumlab",): "Only gumlab.load loads it: transformers does not build unequal widths.",
    ("transformers",): "Only transformers loads it: gumlab.load wants the files above mended.",
    (): "Neither gumlab.load nor transformers (without unpickling) loads it.",
}


@dataclass
class Finding:
    """One sentence about the folder; good: nothing to mend."""

    good: bool
    text: str


@dataclass
class Report:
    """What `doctor` found. layout: widths are "equal", "unequal" or "zero-padded".

    in_use: neurons by layer that are not all zero. loads_with: those of "gumlab" and
    "transformers" that load the folder without unpickling.
    """

    folder: str
    architecture: str | None = None
    dtype: str | None = None
    widths: list[int] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)
    layout: str | None = None
    loads_with: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def say(self, good: bool, text: str) -> None:
        self.findings.append(Finding(good, text))

    def __repr__(self) -> str:
        return "\n".join(f"{'[OK]  ' if f.good else '[FAIL]'} {f.text}" for f in self.findings)


def doctor(folder: str | Path) -> Report:
    """Say what is in any folder and what can load it, one sentence per finding.

    The whole model is loaded once on the CPU, to be sure. Raises GumlabError where `folder` is not
    a folder that can be read.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(folder)
    report = Report(str(folder))
    try:
        names = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise GumlabError(
            f"{folder} cannot be looked into ({error.strerror}). Give the path of a folder, such "
            "as the one that holds config.json and model.safetensors."
        ) from error
    if not names:
        report.say(False, "The folder is empty.")
        return report
    _strangers(names, report)
    sound = _checksums(folder, report)
    config, whole = _config(folder, report), _weights(folder, report)
    tokenizer = _tokenizer(folder, report)
    if config and whole:
        _model(folder, config, tokenizer if sound else None, report)
    report.say(bool(report.loads_with), VERDICTS[tuple(report.loads_with)])
    return report


def _strangers(names: list[str], report: Report) -> None:
    """Files that gumlab does not read."""
    if pickles := [n for n in names if Path(n).suffix in PICKLES]:
        report.say(
            any(n.endswith(".safetensors") for n in names),  # beside safetensors they do no harm
            f"Pickled, so opening could run code: {', '.join(pickles)}; gumlab never opens these.",
        )
    for name in names:
        if kind := FOREIGN.get(Path(name).suffix):
            report.say(False, f"{name} is a file of {kind}, which gumlab does not read.")


def _checksums(folder: Path, report: Report) -> bool:
    """False if files are not as gumlab saved them, so that gumlab.load refuses the folder."""
    try:
        known = verify(folder)
        report.say(True, f"{'Every file has its' if known else 'There is no'} checksum ({RECORD}).")
        return True
    except GumlabError as error:
        report.say(False, str(error))
        return False


def _config(folder: Path, report: Report) -> dict[str, Any] | None:
    """config.json, if it names a language model that transformers builds."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = read_config(folder)
    except (GumlabError, OSError) as error:
        inside = sorted(p.name for p in folder.iterdir() if (p / "config.json").is_file())
        hint = f" Did you mean {' or '.join(str(folder / n) for n in inside)}?" if inside else ""
        report.say(False, f"{error}{hint}")
        return None
    kind = config.get("model_type")
    if str(kind) in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return config
    report.say(
        False,
        f"config.json names the model type {kind!r}, which is no causal language model that this "
        "transformers knows; code that comes with a model is never run.",
    )
    return None


def _weights(folder: Path, report: Report) -> bool:
    """Read every safetensors file: shards, headers, bounds, numbers; True if all are whole."""
    files = sorted(folder.glob("*.safetensors"))
    problems = [] if files else ["No safetensors weights are here, the only kind gumlab reads."]
    kinds, bad, largest = Counter[str](), [], (0.0, "")
    for path in files:
        try:
            for name, kind, tensor in _tensors(path):
                kinds[kind] += tensor.numel()
                if kind in DTYPES and tensor.numel():
                    largest = max(largest, (float(tensor.abs().max().nan_to_num(0)), name))
                    bad += [] if tensor.isfinite().all() else [name]
        except Exception as error:  # a flipped bit can turn a header into anything
            problems.append(f"{path.name} {_reason(path, error)}.")
    problems += _missing_shards(folder)
    for problem in problems:
        report.say(False, problem)
    if problems or not kinds:
        return False
    kind = kinds.most_common(1)[0][0]
    report.dtype = DTYPES.get(kind, kind)
    text = f"{kinds.total():,} numbers ({report.dtype}) in {len(files)} safetensors file(s)"
    report.say(True, f"{text}: headers and the bounds of every tensor are right.")
    if bad:
        report.say(False, f"NaN or infinity in {len(bad)} tensor(s), such as {bad[0]}: of no use.")
    else:
        text = f"No NaN or infinity; the largest is {largest[0]:.3g}, in {largest[1]}."
        report.say(largest[0] < 1e6, text)  # no training leads there, a flipped bit does
    return True


def _tensors(path: Path) -> Any:
    """(name, safetensors' name of the dtype, tensor) one after the other."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:  # checks the header, and all bounds against the file's size
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_slice(name).get_dtype(), file.get_tensor(name)


def _reason(path: Path, error: Exception) -> str:
    """Why a safetensors file does not open, from its first bytes: a little-endian header length."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as refused:
        return f"cannot be read ({refused.strerror})"
    size, header = path.stat().st_size, int.from_bytes(start, "little")
    if start == b"version ":
        return "is a pointer of Git LFS, not the weights: run `git lfs pull`"
    if size < 8 or header > size - 8:
        return "has no readable header: it was cut off early, or is no safetensors file"
    if "incomplete metadata" in str(error).lower():
        return f"was cut off or changed: its {size:,} bytes are not the size that its header gives"
    return f"has a damaged header ({str(error).splitlines()[0]})"


def _missing_shards(folder: Path) -> list[str]:
    """A sentence about the shards that the index asks for and the folder lacks."""
    if not (folder / INDEX).exists():
        return []
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        gone = [name for name in shards if not (folder / name).is_file()]
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return [f"{INDEX} is damaged: it has no readable weight_map."]
    text = f"{len(gone)} of the {len(shards)} shards that {INDEX} names are missing"
    return [f"{text}: {', '.join(gone)}."] if gone else []


def _tokenizer(folder: Path, report: Report) -> Any:
    try:
        tokenizer = load_tokenizer(folder)
    except GumlabError as error:
        report.say(False, str(error))
        return None
    report.say(True, f"The tokenizer has {len(tokenizer):,} tokens.")
    return tokenizer


def _model(folder: Path, config: dict[str, Any], tokenizer: Any, report: Report) -> None:
    """Load it, look at its widths, and try plain transformers where that may differ."""
    try:
        model = load_folder(folder, getattr(torch, report.dtype or "", torch.float32))
        if tokenizer is not None:
            report.loads_with.append("gumlab")
        if "per_layer_config" not in config or _loads_plainly(folder):
            report.loads_with.append("transformers")
        report.architecture = type(model).__name__
        layers = neurons(model)
    except GumlabError as error:
        report.say(False, str(error))
        return
    report.widths = [layer.width for layer in layers]
    report.in_use = [layer.width - _zero_neurons(layer) for layer in layers]
    widths, in_use = (", ".join(map(str, w)) for w in (report.widths, report.in_use))
    text = f"{report.architecture} with {widths} feed-forward neurons by layer"
    if report.widths != report.in_use:
        report.layout = "zero-padded"
        text += f": zero-padded, {in_use} in use"
    else:
        report.layout = "equal" if len(set(report.widths)) == 1 else "unequal"
        text += f": {report.layout} widths"
    report.say(True, text + (" (per_layer_config)." if "per_layer_config" in config else "."))
    vocabulary = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > vocabulary:
        text = f"The tokenizer has more tokens than the model's embedding ({vocabulary:,}): "
        report.say(False, text + "they do not belong together.")


def _zero_neurons(layer: FeedForward) -> int:
    """How many of a layer's neurons are zero in every weight and bias, as padding is."""
    parts = [layer.incoming(), layer.outgoing(), layer.incoming_bias()]
    return int((~torch.cat([p for p in parts if p is not None], 1).any(1)).sum())


def _loads_plainly(folder: Path) -> bool:
    from transformers import AutoModelForCausalLM

    try:
        return bool(AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True))
    except Exception:  # whatever it is, it does not load
        return False
