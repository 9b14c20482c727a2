"""`PruningCallback`: a pruner's steps inside Hugging Face's Trainer, its checkpoints included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from gumlab.errors import GumlabError
from gumlab.pruner import Pruner
from gumlab.pruner_state import load_state, save_state
from gumlab.removal import cut_layer


class PruningCallback(TrainerCallback):
    """Prunes while a Hugging Face `Trainer` trains: `Trainer(model, ..., callbacks=[this])`.

    The pruner steps after the backward pass and the clipping, before the optimizer. Its state goes
    into each checkpoint as `pruner.safetensors` and comes back with
    `trainer.train(resume_from_checkpoint=True)`, for which model, pruner and Trainer are made
    afresh. resume_from: the checkpoint's folder, where that is not in the Trainer's output_dir.
    Of several processes, one pruner each, all keep the same neurons; a pruner with cut=True takes
    one process. A Trainer that was killed while it saved leaves a checkpoint it cannot resume from:
    the newest that holds `pruner.safetensors`, which comes last, is whole; give it by path.

    Raises GumlabError, when the training begins, for a run that does not fit the pruner.
    """

    def __init__(self, pruner: Pruner, resume_from: str | Path | None = None) -> None:
        self.pruner, self.resume_from = pruner, resume_from
        if pruner.cut:
            self._handle = pruner.model.register_load_state_dict_pre_hook(self._fit)

    def _fit(self, model: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
        """Where a checkpoint of a cut model is about to be loaded, cut the layers to its widths."""
        names = {p: prefix + name for name, p in model.named_parameters()}
        for layer in self.pruner.layers:
            weight = weights.get(names[layer.proj.weight], layer.proj.weight)
            if weight.shape != layer.proj.weight.shape:
                cut_layer(layer, torch.arange(weight.numel() // layer.outgoing().shape[1]))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that this run is the pruner's; where it goes on from a checkpoint, read that."""
        pruner = self.pruner
        if pruner.steps != state.max_steps or pruner.step_count:
            raise GumlabError(
                f"The pruner was made for {pruner.steps} steps and has done {pruner.step_count}; "
                f"the Trainer's max_steps is {state.max_steps}. Make a fresh one: "
                f"Pruner(model, ..., steps={state.max_steps})."
            )
        if pruner.model not in kwargs["model"].modules():
            raise GumlabError(
                "The pruner was made for another model than the Trainer's; give both the same one."
            )
        if args.fp16 or args.load_best_model_at_end:
            raise GumlabError(
                "Pruning needs fp16=False (its loss scale would reach the scores; take bf16) and "
                "load_best_model_at_end=False (the best weights may be those of other masks)."
            )
        if pruner.cut:
            self._handle.remove()
            if args.world_size > 1:
                raise GumlabError(
                    "cut=True works in one process; here are several, whose gradients are gathered "
                    "by shape. Take final=True, and gumlab.shrink after the training."
                )
        if state.global_step:
            load_state(pruner, self.resume_from or _folder(args, state))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step of the pruner."""
        self.pruner.step(kwargs["optimizer"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the pruner's state into the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero:
            save_state(self.pruner, _folder(args, state))

    def __repr__(self) -> str:
        return f"PruningCallback({self.pruner!r})"


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
