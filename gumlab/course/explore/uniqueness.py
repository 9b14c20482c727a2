"""Explorers of redundancy: how used and unique each neuron is, its twin, what deleting it does."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.collecting import collect
from gumlab.course import plots
from gumlab.course.explore.base import (
    Explorer,
    first_examples,
    keep_slider,
    labelled,
    one_shot_loss,
)
from gumlab.course.explore.portraits import Portraits
from gumlab.feedforward import FeedForward, neurons
from gumlab.gram import cosine
from gumlab.inspection import redundancy
from gumlab.removal import refit_layer
from gumlab.scoring import obs, random_scores, squared_norm
from gumlab.selection import SCOPES, select
from gumlab.tasks import Task
from gumlab.tasks.batches import IGNORED, batches, evaluating, token_losses

READ = 64  # texts in which is looked up what a neuron fires on


def neuron_sliders(layers: Sequence[FeedForward], first: int) -> dict[str, widgets.IntSlider]:
    """Two sliders: a layer, and a neuron of it, at first neuron `first` of layer 0."""
    last_layer = len(layers) - 1
    last_neuron = max(layer.width for layer in layers) - 1
    return {
        "layer": labelled(widgets.IntSlider, "layer", "The layer that is shown", max=last_layer),
        "neuron": labelled(
            widgets.IntSlider, "neuron", "The neuron looked at", value=first, max=last_neuron
        ),
    }


class Worth(Explorer):
    """Show how much each neuron is used and how unique it is, who stays, and one neuron's twin.

    `worth` makes one.

    Attributes
    ----------
    scores : tuple of str
        The scores to choose from.
    report : Redundancy
        What was measured of every neuron.
    """

    alt = (
        "One layer's neurons: how much each is used against how unique it is, both logarithmic; "
        "kept and removed neurons, and the selected one with its twin."
    )
    scores = ("used x unique (OBS)", "used", "unique", "sensitivity", "random")

    def __init__(
        self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, limit: int = 256
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layers = neurons(model)
        self.examples = first_examples(task, "validation", examples)
        self.report = redundancy(model, tokenizer, task, limit=limit)
        self.used = [
            (squared_norm(layer) * energy).cpu()
            for layer, energy in zip(self.layers, self.report.energy, strict=True)
        ]
        self.unique = [layer.cpu() for layer in self.report.exact_uniqueness]
        self._cuts: dict[tuple[str, str, int, bool], tuple[list[Tensor], float]] = {}
        everyone = [mask.cpu() for mask in self.report.kept]
        self.dense = one_shot_loss(model, everyone, tokenizer, self.examples)
        self.portraits = Portraits(
            model,
            tokenizer,
            task.split("train")[:READ],
            lambda layer: cosine(self.report.gram[layer]),
        )
        most_rebuilt = int(self.report.reconstructability[0].argmax())
        super().__init__(
            {
                "by": labelled(widgets.Dropdown, "score", "Who stays", options=self.scores),
                "scope": labelled(
                    widgets.Dropdown, "scope", "Layer by layer, or all", options=SCOPES
                ),
                "keep": keep_slider(),
                "twin_filter": labelled(
                    widgets.Checkbox, "twin filter", "A twin goes to the back of the queue"
                ),
                **neuron_sliders(self.layers, most_rebuilt),
            }
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
            self._cuts[key] = (masks, loss)
        return self._cuts[key]

    def draw(
        self,
        answer: tuple[list[Tensor], float],
        by: str,
        scope: str,
        keep: int,
        twin_filter: bool,
        layer: int,
        neuron: int,
    ) -> plots.Plot:
        """Draw the layer's neurons, and tell of the one looked at (the last, in a narrow layer)."""
        masks, loss = answer
        mask = masks[layer]
        neuron = min(neuron, len(mask) - 1)
        twin = int(self.report.twin[layer][neuron])
        cosine_with_twin = float(self.report.max_cosine[layer][neuron])
        how_many_stay = int(mask[neuron]) + int(mask[twin])
        who_stays = ("neither stays", "one stays", "both stay")[how_many_stay]
        plot = plots.used_and_unique(
            self.used[layer],
            self.unique[layer],
            mask,
            selected=(neuron, twin),
            title=f"layer {layer}",
            layer=layer,
        )
        plot.sentence += (
            f" Neuron {neuron}: the others rebuild {1 - self.unique[layer][neuron]:.1%} of it; its "
            f"twin is neuron {twin}, cosine {cosine_with_twin:.2f}; {who_stays}. Loss {loss:.2f}, "
            f"dense {self.dense:.2f}."
        )
        return plot

    def _scores(self, by: str) -> list[Tensor]:
        if by == "used":
            return self.used
        if by == "unique":
            return self.unique
        if by == "sensitivity":
            return [layer.cpu() for layer in self.report.sensitivity]
        if by == "random":
            return random_scores(self.layers)
        return [layer.cpu() for layer in self.report.obs]


class Deletion(Explorer):
    """Delete one neuron: the change of the loss and of the layer's output, told and measured.

    `deletion` makes one.

    Attributes
    ----------
    tried : dict of (int, int, bool) to dict of str to float
        What was told and measured of each deletion so far; see `gumlab.plots.deletions`.
    """

    alt = (
        "Left: the change of the loss that the slope predicts against the measured one, a dot for "
        "each neuron tried. Right: the layer's output error, predicted and measured."
    )

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 32) -> None:
        self.model = copy.deepcopy(model)
        self.tokenizer = tokenizer
        self.layers = neurons(self.model)
        self.examples = first_examples(task, "train", examples)
        self.statistics = collect(self.model, tokenizer, self.examples, gradients=True)
        self.obs = [
            obs(layer, statistics)
            for layer, statistics in zip(self.layers, self.statistics, strict=True)
        ]
        no_change = torch.zeros_like(self.layers[0].outgoing())
        self.loss_before, _ = self._loss_and_error(0, no_change, 0.0)
        self.tried: dict[tuple[int, int, bool], dict[str, float]] = {}
        self.portraits = Portraits(
            self.model,
            tokenizer,
            self.examples,
            lambda layer: cosine(self.statistics[layer].gram),
        )
        largest = int(self.obs[0].argmax())
        super().__init__(
            {
                **neuron_sliders(self.layers, largest),
                "refit": labelled(
                    widgets.Checkbox, "refit the others", "Let the others take over its work"
                ),
            }
        )

    def compute(self, layer: int, neuron: int, refit: bool) -> tuple[int, int, bool]:
        """Measure this deletion on the examples that the prediction was made from."""
        block = self.layers[layer]
        statistics = self.statistics[layer]
        neuron = min(neuron, block.width - 1)
        with self._deleted(layer, neuron, refit) as (change, shift):
            loss_after, output_error = self._loss_and_error(layer, change, shift)
        if refit:
            predicted_error = float(self.obs[layer][neuron])
        else:
            predicted_error = float(squared_norm(block)[neuron] * statistics.energy[neuron])
        self.tried[layer, neuron, refit] = {
            "told": -float(statistics.slope[neuron]),
            "measured": loss_after - self.loss_before,
            "error_told": predicted_error,
            "error_measured": output_error,
        }
        return layer, neuron, refit

    def draw(
        self, answer: tuple[int, int, bool], layer: int, neuron: int, refit: bool
    ) -> plots.Plot:
        """Draw this deletion among those tried before."""
        return plots.deletions(self.tried, answer)

    @contextlib.contextmanager
    def _deleted(
        self, layer: int, neuron: int, refit: bool
    ) -> Iterator[tuple[Tensor, Tensor | float]]:
        """Delete a neuron for a while; gives the change of outgoing weights (N, D), bias (D,)."""
        block = self.layers[layer]
        weights_before = block.outgoing().detach().clone()
        bias_before = None if block.proj.bias is None else block.proj.bias.detach().clone()
        with torch.no_grad():
            try:
                if refit:
                    others = torch.arange(block.width, device=weights_before.device) != neuron
                    refit_layer(block, others, self.statistics[layer])
                block.outgoing()[neuron] = 0
                change = block.outgoing().detach() - weights_before
                shift = 0.0 if bias_before is None else block.proj.bias.detach() - bias_before
                yield change, shift
            finally:
                block.outgoing().copy_(weights_before)
                if bias_before is not None:
                    block.proj.bias.copy_(bias_before)

    @torch.no_grad()
    def _loss_and_error(
        self, layer: int, change: Tensor, shift: Tensor | float
    ) -> tuple[float, float]:
        """The mean over the examples of their loss, and the squared error of a layer's output.

        The error is what a change of outgoing weights (N, D) and bias (D,) makes.
        """
        inputs: list[Tensor] = []
        hook = self.layers[layer].proj.register_forward_pre_hook(
            lambda _, arguments: inputs.append(arguments[0])
        )
        total_loss = 0.0
        squared_error = 0.0
        try:
            with evaluating(self.model):
                for batch in batches(self.model, self.tokenizer, self.examples, 16):
                    labels = batch.pop("labels")
                    losses = token_losses(self.model(**batch).logits, labels).sum(1)
                    targets = (labels[:, 1:] != IGNORED).sum(1)
                    total_loss += float((losses / targets).sum())
                    is_text = batch["attention_mask"].bool().flatten()
                    h = inputs.pop().flatten(0, -2)[is_text]
                    squared_error += float((h @ change + shift).square().sum())
        finally:
            hook.remove()
        return total_loss / len(self.examples), squared_error


class Twins(Explorer):
    """Show who looks like whom in a layer; `twins` makes one.

    Attributes
    ----------
    report : Redundancy
        What was measured of every neuron.
    cosines : list of Tensor
        The signed cosine of every pair of a layer's neurons, (N, N), by layer.
    """

    alt = (
        "Left: |cosine| of every pair of a layer's neurons, neighbours together. Right: what the "
        "twin alone rebuilds of each neuron against what all others rebuild."
    )

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, limit: int = 256) -> None:
        self.report = redundancy(model, tokenizer, task, limit=limit)
        self.cosines = [cosine(gram).cpu() for gram in self.report.gram]
        self.portraits = Portraits(
            model, tokenizer, task.split("train")[:READ], lambda layer: self.cosines[layer]
        )
        closest = int(self.report.max_cosine[0].abs().argmax())
        super().__init__(neuron_sliders(neurons(model), closest))

    def compute(self, layer: int, neuron: int) -> tuple[int, list[int]]:
        """The neuron (the last one where the layer is too narrow) and its five nearest."""
        sizes = self.cosines[layer].abs()
        neuron = min(neuron, len(sizes) - 1)
        ranking = sizes[neuron].argsort(descending=True).tolist()
        nearest = [other for other in ranking if other != neuron][:5]
        return neuron, nearest

    def draw(self, answer: tuple[int, list[int]], layer: int, neuron: int) -> plots.Plot:
        """Draw the layer's pairs, and what is rebuilt of each neuron."""
        neuron, nearest = answer
        r2 = self.report.reconstructability[layer].cpu()
        return plots.twins(self.cosines[layer], r2, neuron, nearest, f"layer {layer}", layer)


def worth(
    model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, limit: int = 256
) -> Worth:
    """See what a neuron is worth: used x unique, who stays as the budget falls, and its twin.

    Parameters
    ----------
    model : Module
        The dense model, which is left as it is.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        Use and uniqueness are measured on its first training examples, the loss live on its first
        validation examples.
    examples : int, default 16
        How many validation examples.
    limit : int, default 256
        How many training examples.

    Returns
    -------
    Worth
        The explorer. Controls: `by`, the score; `scope`, layer by layer or all together; `keep`,
        the share of neurons that stay, in percent; `twin_filter`, whether a twin goes to the back
        of the queue; `layer` and `neuron`, the one looked at. Picture: how much each of the layer's
        neurons is used, ||w_i||^2 G_ii, against how unique it is, 1 - R2; their product is the OBS
        score. The sentence tells of the neuron and its twin, and the loss without training.
    """
    return Worth(model, tokenizer, task, examples, limit)


def deletion(model: nn.Module, tokenizer: Any, task: Task, examples: int = 32) -> Deletion:
    """Delete one neuron of a copy, with or without refitting the others.

    Parameters
    ----------
    model : Module
        The dense model; a copy of it is changed.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        All is predicted and measured on its first training examples.
    examples : int, default 32
        How many of them.

    Returns
    -------
    Deletion
        The explorer. Controls: `layer` and `neuron`, the one to delete; `refit`, whether the others
        take over its work. Picture: left the change of the loss that the slope -dL/dm tells, and
        the measured one; right the squared error of the layer's output. Deleting alone makes an
        error of ||w_i||^2 G_ii, deleting and refitting at most the OBS score (which knows no bias
        and counts the ridge). Every neuron tried so far is a point.
    """
    return Deletion(model, tokenizer, task, examples)


def twins(model: nn.Module, tokenizer: Any, task: Task, limit: int = 256) -> Twins:
    """See pairwise and exact uniqueness side by side.

    Parameters
    ----------
    model : Module
        The model, which is left as it is.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        All is measured on its first training examples.
    limit : int, default 256
        How many of them.

    Returns
    -------
    Twins
        The explorer. Controls: `layer` and `neuron`, the one looked at. Picture: left |cosine| of
        every pair of neurons; right a neuron's best pair (cosine squared: the share of its energy
        that the twin rebuilds) against R2 (what the best mixture of all others rebuilds), which is
        never below it. The sentence names the five nearest.
    """
    return Twins(model, tokenizer, task, limit)
