"""`PruningCallback`: a pruner's steps inside Hugging Face's Trainer, its checkpoints included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from gumlab.errors import GumlabError
from gumlab.io.states import NOTE_FILE, STATE_FILE, load_state, save_state
from gumlab.pruner import Pruner
from gumlab.removal import cut_layer

NOTE = """# A checkpoint of a run that prunes

At step {step} of {steps} the masks keep {kept} of {total} neurons. The weights here are of before
the masks: all the neurons, or with cut=True those left, so by itself this is **not the pruned
model**. The masks are in `{state}`, over the neurons here. To go on with the run, resume from this
folder. For the pruned model at this step:

    import gumlab
    from gumlab.io.states import load_state

    masks = load_state("FOLDER/{state}")["masks"]
    small = gumlab.shrink(model, masks)  # model: loaded from here
"""


class PruningCallback(TrainerCallback):
    """Prunes while a Hugging Face `Trainer` trains: `Trainer(model, ..., callbacks=[this])`.

    The pruner steps after the backward pass and the clipping, before the optimizer. Its state goes
    into each checkpoint as `pruner.safetensors` and comes back with
    `trainer.train(resume_from_checkpoint=True)`, for which model, pruner and Trainer are made
    afresh.

    Parameters
    ----------
    pruner : Pruner
        Made for the Trainer's model and its `max_steps`.
    resume_from : str or Path, optional
        The folder of the checkpoint to go on from, where that is not in the Trainer's output_dir.

    Raises
    ------
    GumlabError
        When the training begins, for a run that does not fit the pruner.

    Notes
    -----
    Of several processes, one pruner each, all keep the same neurons. Weights that a Trainer writes
    on the way, and with `save_model` behind it, are the dense ones: a checkpoint says so in its
    `PRUNING.md`; the pruned model is `gumlab.shrink(model, pruner.masks)`.

    A Trainer that was killed while it saved leaves a checkpoint it cannot resume from: the newest
    that holds `pruner.safetensors`, which comes last, is whole; give it by path.
    """

    def __init__(self, pruner: Pruner, resume_from: str | Path | None = None) -> None:
        if not isinstance(pruner, Pruner):
            raise GumlabError(
                f"PruningCallback takes the Pruner of the Trainer's model, got a "
                f"{type(pruner).__name__}: PruningCallback(gumlab.Pruner(model, ...))."
            )
        self.pruner = pruner
        self.resume_from = resume_from
        if pruner.cut:
            self._handle = pruner.model.register_load_state_dict_pre_hook(self._fit_widths)

    def _fit_widths(
        self, model: nn.Module, weights: dict[str, Tensor], prefix: str, *_: Any
    ) -> None:
        """Where a checkpoint of a cut model is about to be loaded, cut the layers to its widths."""
        names = {parameter: prefix + name for name, parameter in model.named_parameters()}
        for layer in self.pruner.layers:
            present = layer.proj.weight
            saved = weights.get(names[present], present)
            if saved.shape != present.shape:
                model_width = layer.outgoing().shape[1]
                cut_layer(layer, torch.arange(saved.numel() // model_width))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that this run is the pruner's; where it goes on from a checkpoint, read that."""
        pruner = self.pruner
        if pruner.steps != state.max_steps or pruner.step_count:
            raise GumlabError(
                f"The pruner was made for {pruner.steps} steps and has done {pruner.step_count}; "
                f"the Trainer's max_steps is {state.max_steps}. Make a fresh one: "
                f"Pruner(model, ..., steps={state.max_steps})."
            )
        if pruner.removed:
            raise GumlabError(
                "The pruner's gates were taken off (pruner.remove()), so it prunes nothing any "
                f"more. Make a fresh one: Pruner(model, ..., steps={state.max_steps})."
            )
        if pruner.model not in kwargs["model"].modules():
            raise GumlabError(
                "The pruner was made for another model than the Trainer's; give both the same one."
            )
        if args.fp16 or args.load_best_model_at_end:
            raise GumlabError(
                "Pruning needs fp16=False (its loss scale would reach the scores; take bf16) and "
                "load_best_model_at_end=False (the best weights may be those of other masks); got "
                f"fp16={args.fp16} and load_best_model_at_end={args.load_best_model_at_end}."
            )
        if pruner.cut:
            self._handle.remove()
        if state.global_step:
            folder = Path(self.resume_from or _checkpoint(args, state))
            pruner.load_state_dict(load_state(folder / STATE_FILE))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step of the pruner."""
        self.pruner.step(kwargs["optimizer"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the pruner's state into the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero:
            pruner = self.pruner
            folder = _checkpoint(args, state)
            note = NOTE.format(
                step=pruner.step_count,
                steps=pruner.steps,
                kept=sum(int(mask.sum()) for mask in pruner.masks),
                total=sum(gate.size for gate in pruner.gates),
                state=STATE_FILE,
            )
            (folder / NOTE_FILE).write_text(note, encoding="utf-8")
            save_state(pruner.state_dict(), folder / STATE_FILE)

    def __repr__(self) -> str:
        return f"PruningCallback({self.pruner!r})"


def _checkpoint(args: Any, state: Any) -> Path:
    """The folder of the Trainer's checkpoint at this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
