"""Explorers of redundancy: used x unique with the kept set, and what deleting one neuron does."""

from __future__ import annotations

import copy
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.collecting import collect
from gumlab.course import plots
from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.feedforward import neurons
from gumlab.inspection import redundancy
from gumlab.removal import refit_layer
from gumlab.scoring import obs, random_scores, squared_norm
from gumlab.selection import SCOPES, select
from gumlab.tasks import Task
from gumlab.tasks.batches import IGNORED, batches, evaluating, token_losses


def pickers(layers: list[Any], first: int) -> dict[str, Any]:
    """Two sliders: a layer, and a neuron of it."""
    size = max(layer.width for layer in layers) - 1
    layer = labelled(widgets.IntSlider, "layer", "The layer that is shown", max=len(layers) - 1)
    one = labelled(widgets.IntSlider, "neuron", "The neuron looked at", value=first, max=size)
    return {"layer": layer, "neuron": one}


class Worth(Explorer):
    """How much each neuron is used and how unique it is, who stays, and one neuron's twin."""

    alt = (
        "One layer's neurons: how much each is used against how unique it is, both logarithmic; "
        "kept and removed neurons, and the selected one with its twin."
    )
    scores = ("used x unique (OBS)", "used", "unique", "sensitivity", "random")

    def __init__(
        self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, limit: int = 256
    ) -> None:
        self.model, self.tokenizer, self.layers = model, tokenizer, neurons(model)
        self.report = redundancy(model, tokenizer, task, limit=limit)
        self.examples = task.split("validation")[:examples]
        self.used = [
            (squared_norm(n) * e).cpu()
            for n, e in zip(self.layers, self.report.energy, strict=True)
        ]
        self.unique = [u.cpu() for u in self.report.exact_uniqueness]
        every = [m.cpu() for m in self.report.kept]
        self._cuts: dict[tuple, tuple[list[Tensor], float]] = {}
        self.dense = one_shot_loss(model, every, tokenizer, self.examples)
        percent = {"value": 50, "min": 5, "max": 100, "step": 5}
        by = labelled(widgets.Dropdown, "score", "Who stays", options=self.scores)
        reach = labelled(widgets.Dropdown, "scope", "Layer by layer, or all", options=SCOPES)
        keep = labelled(widgets.IntSlider, "neurons kept (%)", "The budget", **percent)
        twins = labelled(widgets.Checkbox, "twin filter", "A twin goes to the back of the queue")
        super().__init__(
            {"by": by, "scope": reach, "keep": keep, "twin_filter": twins}
            | pickers(self.layers, self._most_rebuilt())
        )

    def compute(
        self, by: str, scope: str, keep: int, twin_filter: bool, layer: int, neuron: int
    ) -> tuple[list[Tensor], float]:
        """The masks, and the loss on a few validation examples with them; nothing is trained."""
        key = (by, scope, keep, twin_filter)
        if key not in self._cuts:  # looking at another neuron changes no mask
            grams = self.report.gram if twin_filter else None
            masks = select(self._scores(by), keep / 100, scope, grams=grams)
            loss = one_shot_loss(self.model, masks, self.tokenizer, self.examples)
            self._cuts[key] = masks, loss
        return self._cuts[key]

    def draw(self, answer: tuple[list[Tensor], float], **state: Any) -> plots.Plot:
        (masks, loss), layer = answer, state["layer"]
        i = min(state["neuron"], len(masks[layer]) - 1)
        twin = int(self.report.twin[layer][i])
        plot = plots.used_and_unique(
            self.used[layer], self.unique[layer], masks[layer], (i, twin), f"layer {layer}"
        )
        cosine = float(self.report.max_cosine[layer][i])
        stay = {0: "neither stays", 1: "one stays", 2: "both stay"}[
            int(masks[layer][i]) + int(masks[layer][twin])
        ]
        plot.sentence += (
            f" Neuron {i}: the others rebuild {1 - self.unique[layer][i]:.1%} of it; its twin is "
            f"neuron {twin}, cosine {cosine:.2f}; {stay}. Loss {loss:.2f}, dense {self.dense:.2f}."
        )
        return plot

    def _scores(self, by: str) -> list[Tensor]:
        return {
            "used x unique (OBS)": [s.cpu() for s in self.report.obs],
            "used": self.used,
            "unique": self.unique,
            "sensitivity": [s.cpu() for s in self.report.sensitivity],
            "random": random_scores(self.layers),
        }[by]

    def _most_rebuilt(self) -> int:
        return int(self.report.reconstructability[0].argmax())


class Deletion(Explorer):
    """Delete one neuron: the change of the loss and of the layer's output, told and measured."""

    alt = (
        "Left: the change of the loss that the slope predicts against the measured one, a dot for "
        "each neuron tried. Right: the layer's output error, predicted and measured."
    )

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 32) -> None:
        self.model, self.tokenizer = copy.deepcopy(model), tokenizer
        self.layers, self.examples = neurons(self.model), task.split("train")[:examples]
        self.found = collect(self.model, tokenizer, self.examples, gradients=True)
        self.obs = [obs(n, f) for n, f in zip(self.layers, self.found, strict=True)]
        self.before, _ = self._run(0)
        self.tried: dict[tuple[int, int, bool], dict[str, float]] = {}
        refit = labelled(widgets.Checkbox, "refit the others", "Let the others take over its work")
        first = int(self.obs[0].argmax())
        super().__init__({**pickers(self.layers, first), "refit": refit})

    def compute(self, layer: int, neuron: int, refit: bool) -> tuple[int, int, bool]:
        """Measure this deletion on the examples that the prediction was made from."""
        block, seen = self.layers[layer], self.found[layer]
        i = min(neuron, block.width - 1)
        mask = torch.arange(block.width, device=block.proj.weight.device) != i
        w = block.outgoing().detach().clone()
        bias = None if block.proj.bias is None else block.proj.bias.detach().clone()
        with torch.no_grad():
            if refit:
                refit_layer(block, mask, seen)
            block.outgoing()[i] = 0
            change = block.outgoing().detach() - w
            shift = 0.0 if bias is None else block.proj.bias.detach() - bias
            after, error = self._run(layer, change, shift)
            block.outgoing().copy_(w)
            if bias is not None:
                block.proj.bias.copy_(bias)
        used = float(squared_norm(block)[i] * seen.energy[i])
        self.tried[layer, i, refit] = {
            "told": -float(seen.slope[i]),
            "measured": after - self.before,
            "error_told": float(self.obs[layer][i]) if refit else used,
            "error_measured": error,
        }
        return layer, i, refit

    def draw(self, answer: tuple[int, int, bool], **state: Any) -> plots.Plot:
        return plots.deletions(self.tried, answer)

    @torch.no_grad()
    def _run(self, layer: int, change: Any = 0.0, shift: Any = 0.0) -> tuple[float, float]:
        """Mean over the sequences of their loss; squared error of the layer's output."""
        error, total, h = 0.0, 0.0, []
        hook = self.layers[layer].proj.register_forward_pre_hook(
            lambda _, inputs: h.append(inputs[0])
        )
        with evaluating(self.model):
            for batch in batches(self.model, self.tokenizer, self.examples, 16):
                labels, real = batch.pop("labels"), batch["attention_mask"].bool()
                losses = token_losses(self.model(**batch).logits, labels).sum(1)
                total += float((losses / (labels[:, 1:] != IGNORED).sum(1)).sum())
                rows = h.pop().flatten(0, -2)[real.flatten()]
                if isinstance(change, Tensor):
                    error += float((rows @ change + shift).square().sum())
        hook.remove()
        return total / len(self.examples), error


def worth(
    model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, limit: int = 256
) -> Worth:
    """Used x unique: the map of a layer's neurons, who stays as the budget falls, and twins.

    used: ||w_i||^2 G_ii; unique: 1 - R2; their product is the OBS score, from the first `limit`
    training examples. The loss is measured live on the first `examples` validation examples,
    without training.
    """
    return Worth(model, tokenizer, task, examples, limit)


def deletion(model: nn.Module, tokenizer: Any, task: Task, examples: int = 32) -> Deletion:
    """Delete one neuron of a copy, with or without refitting the others.

    Left: the loss change that the slope -dL/dm tells, and the measured one. Right: the squared
    error of the layer's output; deleting alone makes ||w_i||^2 G_ii, deleting and refitting at most
    the OBS score (which knows no bias and counts the ridge). All on the first `examples` training
    examples.
    """
    return Deletion(model, tokenizer, task, examples)
