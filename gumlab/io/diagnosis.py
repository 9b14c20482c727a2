"""What a folder holds and what can load it: `doctor`. It changes nothing and unpickles nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.errors import GumlabError, first_line
from gumlab.feedforward import BY_CODE, FeedForward, neurons
from gumlab.io.configuration import BY_LAYER, check_config, quietly, read_config
from gumlab.io.gguf_header import describe
from gumlab.io.gguf_loading import is_gguf
from gumlab.io.loading import (
    NOT_APPLIED,
    is_of_a_pruning_run,
    load_folder,
    load_tokenizer,
)
from gumlab.io.record import RECORD, verify
from gumlab.io.saving import CODE
from gumlab.io.weights import DTYPES, FOREIGN, INDEX, PICKLES, WEIGHTS, weight_files, why_unreadable

WIDTHS_STAND_IN = {
    BY_LAYER: BY_LAYER,
    BY_CODE: BY_CODE,
    "weights": "read from the weights, config.json says others",
}
WITH_CODE = "transformers with trust_remote_code"
LARGEST_PLAUSIBLE = 1e6  # no training leads to a larger number, a flipped bit does
VERDICTS = {
    ("gumlab", "transformers"): "Plain transformers and gumlab.load load it.",
    ("gumlab", WITH_CODE): "gumlab.load loads it, and transformers with trust_remote_code=True; "
    "plain transformers does not build these widths.",
    (WITH_CODE,): "Only transformers with trust_remote_code=True loads it: gumlab.load wants the "
    "files above mended.",
    ("gumlab",): "Only gumlab.load loads it: transformers does not build these widths.",
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
    """What `doctor` found.

    Attributes
    ----------
    folder : str
    architecture : str, optional
        The model's class.
    dtype : str, optional
        That of most of the numbers.
    widths : list of int
        Neurons by layer.
    in_use : list of int
        Neurons by layer that are not all zero.
    layout : {"equal", "unequal", "zero-padded"}, optional
        Of the widths.
    loads_with : list of {"gumlab", "transformers", "transformers with trust_remote_code"}
        Those that load the folder, without unpickling.
    findings : list of Finding
        In the order of the checks, the verdict last.
    """

    folder: str
    architecture: str | None = None
    dtype: str | None = None
    widths: list[int] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)
    layout: str | None = None
    loads_with: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, good: bool, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(good, text))

    def __repr__(self) -> str:
        lines = []
        for finding in self.findings:
            mark = "[OK]  " if finding.good else "[FAIL]"
            lines.append(f"{mark} {finding.text}")
        return "\n".join(lines)


def doctor(folder: str | Path) -> Report:
    """Say what is in any folder and what can load it, one sentence per finding.

    Parameters
    ----------
    folder : str or Path
        Or a GGUF file, of which the header is read. Nothing in it is changed. The whole model of a
        folder is loaded once on the CPU, to be sure.

    Returns
    -------
    Report
        It prints as a list of findings.

    Raises
    ------
    GumlabError
        If `folder` is not a folder that can be read, or a damaged GGUF file.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(folder).expanduser()
    report = Report(str(folder))
    if folder.is_file() and is_gguf(folder):
        _describe_gguf(folder, report)
        return report
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise GumlabError(
            f"{folder} cannot be looked into ({error.strerror}). Give the path of a folder, such "
            "as the one that holds config.json and model.safetensors."
        ) from error
    if not names:
        report.add(False, "The folder is empty.")
        return report
    _check_foreign_files(names, report)
    if is_of_a_pruning_run(folder):
        report.add(True, f"This {NOT_APPLIED}")
    is_as_saved = _check_record(folder, report)
    settings = _check_config(folder, report)
    are_whole = _check_weights(folder, settings or {}, report)
    tokenizer = _check_tokenizer(folder, report)
    if settings is not None and are_whole:
        loaded = _load(folder, report)
        if loaded is not None:
            model, source = loaded
            if is_as_saved and tokenizer is not None:
                report.loads_with.append("gumlab")
            if source == "config.json" or (source == BY_LAYER and _loads_plainly(folder)):
                report.loads_with.append("transformers")
            elif _is_built_by_its_code(folder, settings, report):
                report.loads_with.append(WITH_CODE)
            _describe(model, tokenizer if is_as_saved else None, source, report)
    report.add(bool(report.loads_with), VERDICTS[tuple(report.loads_with)])
    return report


def _describe_gguf(path: Path, report: Report) -> None:
    """What a GGUF file holds, by its header."""
    found = describe(path)
    report.architecture = found.architecture
    report.dtype = next(iter(found.kinds))
    report.widths = report.in_use = found.widths
    report.layout = "equal" if len(set(found.widths)) == 1 else "unequal"
    for sentence in found.sentences():
        report.add(True, sentence)
    if found.problem is None:
        report.loads_with.append("gumlab")
        report.add(True, "gumlab.load loads it.")
    else:
        report.add(False, found.problem)


def _check_foreign_files(names: list[str], report: Report) -> None:
    """Files that gumlab does not read."""
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        are_harmless = any(name.endswith(".safetensors") for name in names)  # nobody needs them
        report.add(
            are_harmless,
            f"Pickled, so opening could run code: {', '.join(pickles)}; gumlab never opens these.",
        )
    for name in names:
        program = FOREIGN.get(Path(name).suffix)
        if program is not None:
            report.add(False, f"{name} is a file of {program}, which gumlab does not read.")


def _check_record(folder: Path, report: Report) -> bool:
    """False if files are not as gumlab saved them, so that gumlab.load refuses the folder."""
    try:
        has_record = verify(folder)
    except GumlabError as error:
        report.add(False, str(error))
        return False
    if has_record:
        report.add(True, f"Every file has its checksum ({RECORD}).")
    else:
        report.add(True, f"There is no checksum ({RECORD}).")
    return True


def _check_config(folder: Path, report: Report) -> dict[str, Any] | None:
    """The settings of config.json, if it names a language model that gumlab loads."""
    try:
        settings = read_config(folder)
    except (GumlabError, OSError) as error:
        inside = sorted(path for path in folder.iterdir() if (path / "config.json").is_file())
        hint = f" Did you mean {' or '.join(str(path) for path in inside)}?" if inside else ""
        report.add(False, f"{error}{hint}")
        return None
    try:
        check_config(settings, str(folder))
    except GumlabError as error:
        report.add(False, str(error))
        return None
    return settings


class _Census:
    """What the tensors of a folder hold."""

    def __init__(self) -> None:
        self.count_by_kind = Counter[str]()  # numbers, by safetensors' name of their dtype
        self.not_finite: list[str] = []  # names of tensors with NaN or infinity
        self.largest = (0.0, "")  # absolute value, and the name of its tensor

    def add(self, name: str, kind: str, tensor: Tensor) -> None:
        """Count one tensor."""
        self.count_by_kind[kind] += tensor.numel()
        if kind in DTYPES and tensor.numel():
            largest_here = float(tensor.abs().max().nan_to_num(0))
            self.largest = max(self.largest, (largest_here, name))
            if not tensor.isfinite().all():
                self.not_finite.append(name)


def _check_weights(folder: Path, settings: dict[str, Any], report: Report) -> bool:
    """Read the safetensors files that hold the weights, every number; True if all are whole."""
    try:
        paths = weight_files(folder, settings)
    except GumlabError as error:
        report.add(False, str(error))
        return False
    read = {path.name for path in paths}
    strays = sorted({path.name for path in folder.glob("*.safetensors")} - read)
    if WEIGHTS in read and (folder / INDEX).exists():
        strays.append(INDEX)
    if strays:
        report.add(True, f"Nobody reads {', '.join(strays)}: the weights are in other files.")
    problems = []
    census = _Census()
    for path in paths:
        try:
            for name, kind, tensor in _tensors(path):
                census.add(name, kind, tensor)
        except Exception as error:  # a flipped bit can turn a header into anything
            problems.append(f"{path.name} {why_unreadable(path, error)}.")
    for problem in problems:
        report.add(False, problem)
    if problems or not census.count_by_kind:
        return False
    most_common_kind, _ = census.count_by_kind.most_common(1)[0]
    report.dtype = DTYPES.get(most_common_kind, most_common_kind)
    report.add(
        True,
        f"{census.count_by_kind.total():,} numbers ({report.dtype}) in {len(paths)} safetensors "
        "file(s): headers and the bounds of every tensor are right.",
    )
    if census.not_finite:
        report.add(
            False,
            f"NaN or infinity in {len(census.not_finite)} tensor(s), such as "
            f"{census.not_finite[0]}: of no use.",
        )
    else:
        value, name = census.largest
        report.add(
            value < LARGEST_PLAUSIBLE, f"No NaN or infinity; the largest is {value:.3g}, in {name}."
        )
    return True


def _tensors(path: Path) -> Iterator[tuple[str, str, Tensor]]:
    """(name, safetensors' name of the dtype, tensor) one after the other."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:  # checks the header, and all bounds against the file's size
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_slice(name).get_dtype(), file.get_tensor(name)


def _check_tokenizer(folder: Path, report: Report) -> Any:
    """The tokenizer, if there is one that can be read."""
    try:
        tokenizer = load_tokenizer(folder)
    except GumlabError as error:
        report.add(False, str(error))
        return None
    report.add(True, f"The tokenizer has {len(tokenizer):,} tokens.")
    return tokenizer


def _load(folder: Path, report: Report) -> tuple[nn.Module, str] | None:
    """The model and where its widths stand, if it loads."""
    dtype = getattr(torch, report.dtype or "", torch.float32)
    try:
        return load_folder(folder, dtype)
    except GumlabError as error:
        report.add(False, str(error))
        return None


def _loads_plainly(folder: Path) -> bool:
    """Whether transformers loads the folder by itself; tried."""
    from transformers import AutoModelForCausalLM

    try:
        AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    except Exception:  # whatever it is, it does not load
        return False
    return True


def _is_built_by_its_code(folder: Path, settings: dict[str, Any], report: Report) -> bool:
    """Whether transformers loads the folder by the module that `gumlab.save` put into it.

    Tried with gumlab's own module, to which the folder's is compared: what is in it is not run.
    """
    from gumlab.io import modeling_pruned

    auto_map = settings.get("auto_map")
    named = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, dict) else None
    if not isinstance(named, str) or "--" in named:  # a module of another folder
        return False
    module, _, class_name = named.partition(".")
    path = folder / f"{module}.py"
    if not path.is_file():
        report.add(False, f"config.json names {named}, but there is no {path.name}. Copy it too.")
        return False
    if path.read_bytes() != CODE.read_bytes():
        report.add(
            False,
            f"{path.name} is not the module that gumlab adds, and nothing here ran it; with "
            "trust_remote_code=True transformers would. Read it first.",
        )
        return False
    try:
        with quietly():
            getattr(modeling_pruned, class_name).from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # whatever it is, it does not load
        report.add(False, f"{path.name} does not build the model ({first_line(error)}).")
        return False
    report.add(True, f"{path.name} is the module that gumlab adds, and builds these widths.")
    return True


def _describe(model: nn.Module, tokenizer: Any, source: str, report: Report) -> None:
    """What the model is, layer by layer, and whether the tokenizer fits it."""
    report.architecture = type(model).__name__
    try:
        layers = neurons(model)
    except GumlabError as error:
        report.add(False, str(error))
        return
    report.widths = [layer.width for layer in layers]
    report.in_use = [layer.width - _zero_neurons(layer) for layer in layers]
    if report.widths != report.in_use:
        report.layout = "zero-padded"
        layout = f"zero-padded, {_listed(report.in_use)} in use"
    else:
        report.layout = "equal" if len(set(report.widths)) == 1 else "unequal"
        layout = f"{report.layout} widths"
    where = "" if source == "config.json" else f" ({WIDTHS_STAND_IN[source]})"
    report.add(
        True,
        f"{report.architecture} with {_listed(report.widths)} feed-forward neurons by layer: "
        f"{layout}{where}.",
    )
    vocabulary = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > vocabulary:
        report.add(
            False,
            f"The tokenizer has more tokens ({len(tokenizer):,}) than the model's embedding "
            f"({vocabulary:,}): they do not belong together.",
        )


def _zero_neurons(layer: FeedForward) -> int:
    """How many of a layer's neurons are zero in every weight and bias, as padding is."""
    numbers = [layer.incoming(), layer.outgoing()]  # (N, D) or wider
    bias = layer.incoming_bias()
    if bias is not None:
        numbers.append(bias)
    is_zero = ~torch.cat(numbers, dim=1).any(dim=1)  # (N,)
    return int(is_zero.sum())


def _listed(widths: list[int]) -> str:
    return ", ".join(str(width) for width in widths)
