"""A run of `train` in one file, from which it goes on where it was stopped, whatever stopped it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gumlab import ranks
from gumlab.errors import GumlabError, check_whole, first_line
from gumlab.io.states import load_state, save_state
from gumlab.pruner import Pruner, digest_of
from gumlab.tasks.batches import Row

EVERY = 20  # the part of a run after which its state is written, where nothing else is said
PARTS = {"settings", "done", "model", "optimizer", "rate", "pruner", "random", "history"}


@dataclass
class Run:
    """A run of `train`: what changes from step to step, and what it learns from.

    history: whatever has `state_dict` and `load_state_dict`. rows: as `encode` gives them.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    pruner: Pruner | None
    history: Any
    teacher: nn.Module | None
    rows: Sequence[Row]


class RunFile:
    """Where a run's state is written every so many steps, and read again.

    The state is all that the steps to come depend on: weights, the optimizer's moments, the rate,
    the pruner, the random state. So a run that went on from it ends bit for bit as one that was
    never stopped. The file appears whole or not at all; of several processes the first writes it.

    Parameters
    ----------
    path : str or Path, optional
        The file. Its folder is made where there is none. Without a path nothing is kept.
    every : int, optional
        Steps from one writing to the next; by default a twentieth of the run. The last step is
        always written.
    steps : int
        Of the run.

    Raises
    ------
    GumlabError
        For a path that is none, a folder that cannot be made, or steps without a path.
    """

    def __init__(self, path: str | Path | None, every: int | None, steps: int) -> None:
        self.path = None if path is None else _checked_path(path)
        if path is None and every is not None:
            raise GumlabError(
                "state_every says how often the run's state is written, and no file is given. "
                "Leave it out, or give state=."
            )
        self.every = max(1, steps // EVERY) if every is None else check_whole("state_every", every)
        self.steps = steps
        self.settings: dict[str, Any] = {}
        self._random: list[Tensor] = []  # as it was when the file was written

    def go_on(self, run: Run, settings: dict[str, Any]) -> None:
        """Bring a fresh run to where the one in the file stood, if there is one.

        Parameters
        ----------
        run : Run
            Its model with the weights that it begins with: dense, where its pruner cuts.
        settings : dict
            What the run is made with, as JSON can hold it.

        Raises
        ------
        GumlabError
            For a damaged file, one of something else, and one of a run with other settings, other
            weights at its start or other tokens; and where other processes train another model, or
            by other settings.
        """
        if self.path is not None:
            self.settings = settings | {
                "pruned": run.pruner is not None,
                "tokens": _digest(map(repr, run.rows)),
                "weights at the start": _digest_of_weights(run.model),
                "weights of the teacher": _digest_of_weights(run.teacher),
                "processes": ranks.count(),
            }
            there = self.path.exists()
            ranks.check_alike([there], f"file {self.path}")
            if there:
                state = self._read(self.path)
                self._put_back(state, run)
                self._random = state["random"]
        if ranks.count() > 1:
            given = [settings["steps"], settings["batch_size"], settings["seed"]]
            ranks.check_alike([*given, _sum_of(run.model)], "model and settings")

    def draw_on(self, model: nn.Module) -> None:
        """Let what is drawn from now on follow what the run in the file had drawn."""
        if self._random:
            on_cpu, *on_gpus = self._random
            torch.set_rng_state(on_cpu)
            for device, saved in zip(_devices(model), on_gpus, strict=False):
                torch.cuda.set_rng_state(saved, device)

    def keep(self, run: Run, done: int) -> None:
        """Put where the run stands after `done` steps into the file, if it is time."""
        due = done % self.every == 0 or done == self.steps
        if self.path is None or not due or ranks.own() > 0:
            return
        state = {
            "settings": self.settings,
            "done": done,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "rate": run.rate.state_dict(),
            "pruner": None if run.pruner is None else run.pruner.state_dict(),
            "random": [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _devices(run.model))],
            "history": run.history.state_dict(),
        }
        save_state(state, self.path)

    def _read(self, path: Path) -> dict[str, Any]:
        """The state in the file, which is of a run with these settings."""
        state = load_state(path, "Give state= another path, or move the file away.")
        if not isinstance(state, dict) or not state.keys() >= PARTS:
            raise GumlabError(
                f"{path} holds no run of gumlab.train. Give state= another path, or move the file "
                "away."
            )
        ranks.check_alike([state["done"]], f"file {path}")
        saved = state["settings"]
        differ = [
            f"{name}={saved.get(name)!r} (here {value!r})"
            for name, value in self.settings.items()
            if saved.get(name) != value
        ]
        if differ:
            raise GumlabError(
                f"The run in {path} has {', '.join(differ)}. Call with its settings to go on with "
                "it, on the model as it was when that run began, or give state= another path to "
                "begin anew."
            )
        return state

    def _put_back(self, state: dict[str, Any], run: Run) -> None:
        if run.pruner is not None:
            run.pruner.cut_to(state["pruner"])
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.rate.load_state_dict(state["rate"])
        if run.pruner is not None:
            run.pruner.load_state_dict(state["pruner"])
        run.history.load_state_dict(state["history"])


@torch.no_grad()
def _sum_of(model: nn.Module) -> float:
    """The sum of a model's weights, as a sign of them."""
    return sum(float(parameter.double().sum()) for parameter in model.parameters())


def _digest_of_weights(model: nn.Module | None) -> str | None:
    """A digest of a model's weights; None for no model."""
    return None if model is None else digest_of(model.parameters())


def _checked_path(path: Any) -> Path:
    """The path of the file, whose folder there is."""
    if not isinstance(path, str | Path):
        raise GumlabError(f"state must be the path of a file; got {path!r:.60}.")
    file = Path(path).expanduser()
    if file.is_dir():
        raise GumlabError(f"state={str(path)!r} is a folder. Name a file: {file / 'run.state'}.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GumlabError(
            f"The folder of state={str(path)!r} cannot be made: {first_line(error)}. Choose "
            "another."
        ) from error
    return file


def _digest(texts: Iterable[str]) -> str:
    """Ten hex digits that stand for some texts, in their order."""
    content = hashlib.sha256()
    for text in texts:
        content.update(text.encode())
    return content.hexdigest()[:10]


def _devices(model: nn.Module) -> list[torch.device]:
    """The GPUs that hold a part of a model, in order."""
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    return sorted(devices, key=str)
