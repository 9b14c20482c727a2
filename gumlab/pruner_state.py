"""Where a pruner stands in its run, to a file and back, so that a stopped run can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gumlab.errors import GumlabError
from gumlab.gram import twin_pairs
from gumlab.pruner import Pruner

FILE = "pruner.safetensors"  # the tensors, and all else as JSON in its header: never half of both
SETTINGS = (
    *("method", "keep", "steps", "scope", "widths", "floor", "multiple_of", "start", "end"),
    *("freeze", "score_lr", "gradient", "penalty", "lambda_gum", "twin_filter", "final", "cut"),
)
COUNTS = ("step_count", "returned", "frozen", "_soft")
ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_state(pruner: Pruner, folder: str | Path) -> None:
    """Write scores, masks, Adam's moments, Gram sums and random state to `pruner.safetensors`."""
    path = Path(folder) / FILE
    about = _settings(pruner) | {name: getattr(pruner, name) for name in COUNTS}
    if pruner.grams is not None:
        about["gram_step"] = pruner.grams.step
    half = path.with_suffix(".half")
    tensors = {name: value.detach().cpu().clone() for name, value in _tensors(pruner)}
    save_file(tensors, half, {"pruner": json.dumps(about)})
    half.replace(path)


def load_state(pruner: Pruner, folder: str | Path) -> None:
    """Bring a fresh pruner, of the same settings, to where the saved one stood.

    The model must hold the weights of that moment; where neurons were cut, of those left. Raises
    GumlabError where the state is missing, damaged, of other settings or of other weights.
    """
    path = Path(folder) / FILE
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["pruner"])
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise GumlabError(
            f"There is no whole pruner state in {path}. Resume from a checkpoint that was saved "
            "with PruningCallback; for one outside output_dir: PruningCallback(pruner, folder)."
        ) from error
    about = {"final": False, "cut": False} | about  # a state of before there were these two
    differ = [f"{k}={about.get(k)!r}" for k, v in _settings(pruner).items() if about.get(k) != v]
    if differ:
        raise GumlabError(
            f"The pruner saved in {path} has {', '.join(differ)}, unlike {pruner!r}. Make the "
            "pruner with the saved settings, or train from the start."
        )
    for name, total in _weights(pruner):
        if name not in saved or not torch.allclose(saved[name], total.cpu()):
            raise GumlabError(
                f"The pruner state in {path} belongs to other weights than the model's. Give the "
                "folder that the model resumed from: PruningCallback(pruner, folder)."
            )
    _restore(pruner, about, saved)


def _settings(pruner: Pruner) -> dict[str, Any]:
    return json.loads(json.dumps({name: getattr(pruner, name) for name in SETTINGS}))


def _weights(pruner: Pruner) -> Iterator[tuple[str, Tensor]]:
    """Not state, but a sign of the weights that the state belongs to: the sum of each proj's."""
    for i, layer in enumerate(pruner.layers):
        yield f"weight.{i}", layer.proj.weight.detach().double().sum()


def _tensors(pruner: Pruner) -> Iterator[tuple[str, Tensor]]:
    yield from _weights(pruner)
    for i, (score, gate) in enumerate(zip(pruner.scores, pruner.gates, strict=True)):
        yield f"score.{i}", score
        yield f"mask.{i}", gate.mask
        yield f"left.{i}", gate.left
        if isinstance(pruner._factors[i], Tensor):
            yield f"factor.{i}", pruner._factors[i]
        if pruner.learned and pruner.step_count:
            yield from ((f"{key}.{i}", pruner._optimizer.state[score][key]) for key in ADAM)
    if pruner.grams is not None:
        yield "generator", pruner.grams._generator.get_state()
        yield from ((f"gram.{i}", total) for i, total in enumerate(pruner.grams.sums))


def _restore(pruner: Pruner, about: dict[str, Any], saved: dict[str, Tensor]) -> None:
    for name in COUNTS:
        setattr(pruner, name, about[name])
    for i, (score, gate) in enumerate(zip(pruner.scores, pruner.gates, strict=True)):
        device = gate.mask.device
        if gate.layer.width < gate.size:
            gate.cut(saved[f"left.{i}"].to(device))
        score.data, gate.mask = saved[f"score.{i}"].to(device), saved[f"mask.{i}"].to(device)
        if f"factor.{i}" in saved:
            pruner._factors[i] = saved[f"factor.{i}"].to(device)
        if pruner.learned and pruner.step_count:
            state = {key: saved[f"{key}.{i}"] for key in ADAM}
            pruner._optimizer.state[score] = state | {k: state[k].to(device) for k in ADAM[1:]}
    if pruner.frozen:
        pruner._freeze()
    elif pruner.grams is not None:
        pruner.grams.step = about["gram_step"]
        pruner.grams._generator.set_state(saved["generator"])
        for i, gate in enumerate(pruner.gates):
            pruner.grams.sums[i] = saved[f"gram.{i}"].to(gate.mask.device)
            if pruner.twin_filter is not None:
                pairs = twin_pairs(pruner.grams.sums[i], pruner.twin_filter)
                pruner._twins[i] = gate.left[pairs]
