"""Explorers of a cut without training: who stays by a score, what is left, and what it costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
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
from gumlab.evaluation import MAIN_METRIC, METRICS, generate
from gumlab.feedforward import neurons
from gumlab.gating import gate
from gumlab.gram import cosine
from gumlab.inspection import unique
from gumlab.scoring import score
from gumlab.selection import SCOPES, select
from gumlab.tasks import Task


class Removal(Explorer):
    """Remove neurons by a score and see who stays and what it costs; `removal` makes one.

    Attributes
    ----------
    grid : tuple of float
        The fractions of neurons kept at which every curve is measured.
    methods : tuple of str
        The scores to choose from.
    """

    alt = "Left: which neurons of each layer stay. Right: loss against the share of neurons kept."
    grid: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75)
    methods: tuple[str, ...] = ("random", "magnitude")

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layers = neurons(model)
        self.examples = first_examples(task, "validation", examples)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._scores: dict[tuple[str, int], list[Tensor]] = {}  # by method and seed
        self._curves: dict[tuple[str, str, int], dict[float, Any]] = {}  # by method, scope and seed
        everyone = [torch.ones(layer.width, dtype=torch.bool) for layer in self.layers]
        began = time.perf_counter()
        self.dense = self._measure(everyone)
        self._seconds_a_point = time.perf_counter() - began
        self.portraits = self._new_portraits()
        super().__init__(
            {
                "method": labelled(widgets.Dropdown, "score", "Who stays", options=self.methods),
                "scope": labelled(
                    widgets.Dropdown,
                    "scope",
                    "The same share of every layer, or a ranking of all layers' neurons together",
                    options=SCOPES,
                ),
                "keep": keep_slider(
                    tooltip="How many of all feed-forward neurons stay, in percent"
                ),
                "seed": labelled(widgets.IntSlider, "seed", "Another random draw", max=9),
            }
        )

    def state(self) -> dict[str, Any]:
        """What the controls say, `keep` as a fraction, and no seed where nothing is drawn."""
        state = super().state()
        state["keep"] /= 100
        if state["method"] != "random":
            state["seed"] = 0
        return state

    def drawn_with(self) -> tuple:
        """The curves so far: the latest are drawn with the present one."""
        return tuple((key, len(curve)) for key, curve in self._curves.items())

    def idle(self, method: str, scope: str, keep: float, seed: int) -> Sequence[str]:
        """The seed, but for a random score."""
        return () if method == "random" else ("seed",)

    def seconds(self, method: str, scope: str, keep: float, seed: int) -> float:
        """What the missing points of the curve will take."""
        return len(self._missing(method, scope, keep, seed)) * self._seconds_a_point

    def compute(self, method: str, scope: str, keep: float, seed: int) -> tuple[list[Tensor], str]:
        """Select who stays, measure what is missing of the curve, and remark on the cut model."""
        scores = self._kept_scores(method, seed)
        masks = select(scores, keep, scope)
        curve = self._curves.setdefault((method, scope, seed), {1.0: self.dense})
        with warnings.catch_warnings():  # about other points of the curve
            warnings.simplefilter("ignore")
            for share in self._missing(method, scope, keep, seed):
                chosen = masks if share == keep else select(scores, share, scope)
                curve[share] = self._measure(chosen)
        return masks, self._remark(masks)

    def draw(
        self, answer: tuple[list[Tensor], str], method: str, scope: str, keep: float, seed: int
    ) -> plots.Plot:
        """Draw who stays, and this curve with the three newest of the others."""
        masks, remark = answer
        present = (method, scope, seed)
        others = [key for key in self._curves if key != present]
        newest_first = others[::-1]
        shown = [present, *newest_first[:3]]
        curves = {_label(*key): self._curves[key] for key in shown}
        plot = self._figure(masks, curves, keep, self._kept_scores(method, seed))
        gone = sum(
            layer.parameters_per_neuron() * int((~mask).sum())
            for layer, mask in zip(self.layers, masks, strict=True)
        )
        left = self.parameters - gone
        share_left = 1 - gone / self.parameters
        plot.sentence += f" {left:,} of {self.parameters:,} parameters are left ({share_left:.0%})."
        if remark:
            plot.sentence += f" {remark}"
        return plot

    def _figure(
        self, masks: list[Tensor], curves: dict[str, Any], keep: float, scores: list[Tensor]
    ) -> plots.Plot:
        return plots.removal(masks, curves, keep, scores)

    def _new_portraits(self) -> Portraits:
        return Portraits(self.model, self.tokenizer, self.examples)

    def _kept_scores(self, method: str, seed: int) -> list[Tensor]:
        """The scores, measured if they are not kept."""
        if (method, seed) not in self._scores:
            self._scores[method, seed] = self._measure_scores(method, seed)
        return self._scores[method, seed]

    def _measure_scores(self, method: str, seed: int) -> list[Tensor]:
        return score(self.model, method, seed=seed)

    def _measure(self, masks: list[Tensor]) -> Any:
        """A point of a curve: the loss with these masks."""
        return one_shot_loss(self.model, masks, self.tokenizer, self.examples)

    def _remark(self, masks: list[Tensor]) -> str:
        """A last sentence on the cut model, or nothing."""
        return ""

    def _missing(self, method: str, scope: str, keep: float, seed: int) -> list[float]:
        """At which fractions of neurons kept the curve of a state is still to be measured."""
        known = self._curves.get((method, scope, seed), {1.0: self.dense})
        one_a_layer = len(self.layers) / sum(layer.width for layer in self.layers)
        wanted = sorted({*self.grid, keep})
        return [share for share in wanted if share not in known and share >= one_a_layer]


def _label(method: str, scope: str, seed: int) -> str:
    """What a curve is called."""
    label = f"{method}, {'by layer' if scope == 'layer' else 'global'}"
    return f"{label}, seed {seed}" if method == "random" else label


class Tradeoff(Removal):
    """Remove neurons by a score: how sensitive and unique those are that stay.

    `tradeoff` makes one; see `Removal` for its attributes.
    """

    alt = (
        "Left: which neurons stay. Middle: mean sensitivity against uniqueness of those that stay, "
        "divided by those of all neurons. Right: loss against the share of neurons kept."
    )
    grid = (0.1, 0.25, 0.5)
    methods = ("random", "magnitude", "activation_norm", "wanda", "taylor", "obs", "greedy_obs")

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> None:
        available = len(first_examples(task, "validation", examples))
        self.metric = task.metric
        self.calibration = task.split("train")[:64]
        statistics = collect(model, tokenizer, self.calibration, gradients=True)
        self.sensitivity = torch.cat([layer.sensitivity.cpu() for layer in statistics])
        self.cosines = [cosine(layer.gram).cpu() for layer in statistics]
        self.unique = torch.cat([unique(cosines).float() for cosines in self.cosines])
        judges_texts = self.metric in METRICS  # perplexity does not
        self.generated = min(8, available) if judges_texts else 0
        super().__init__(model, tokenizer, task, examples)
        for method in self.methods:  # now, so that no move has to wait for its scores
            self._kept_scores(method, seed=0)

    def _figure(
        self, masks: list[Tensor], curves: dict[str, Any], keep: float, scores: list[Tensor]
    ) -> plots.Plot:
        return plots.tradeoff(masks, curves, keep, scores)

    def _new_portraits(self) -> Portraits:
        return Portraits(
            self.model, self.tokenizer, self.calibration, lambda layer: self.cosines[layer]
        )

    def _measure_scores(self, method: str, seed: int) -> list[Tensor]:
        scores = score(self.model, method, self.tokenizer, self.calibration, seed=seed)
        return [layer.cpu() for layer in scores]

    def _measure(self, masks: list[Tensor]) -> dict[str, float]:
        """Sensitivity and uniqueness of the kept neurons, divided by those of all; the loss."""
        among_themselves = [
            unique(cosines[mask][:, mask]).float()
            for cosines, mask in zip(self.cosines, masks, strict=True)
        ]
        sensitivity = self.sensitivity[torch.cat(masks)].mean() / self.sensitivity.mean()
        uniqueness = torch.cat(among_themselves).mean() / self.unique.mean()
        return {
            "sensitivity": float(sensitivity),
            "uniqueness": float(uniqueness),
            "loss": super()._measure(masks),
        }

    def _remark(self, masks: list[Tensor]) -> str:
        """The task's metric on what the cut model writes for a few examples."""
        if not self.generated:
            return ""
        examples = self.examples[: self.generated]
        with gate(self.model, masks):
            written = generate(self.model, self.tokenizer, examples)
        name = MAIN_METRIC[self.metric]
        value = METRICS[self.metric](written, examples)[name]
        return f"{name} of {self.generated} texts: {value:.0f}."


def removal(model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> Removal:
    """Remove neurons at random or by magnitude, without training: who stays, and the loss.

    Parameters
    ----------
    model : Module
        The dense model, which is left as it is. Answers are kept, so make a new explorer after
        changing it.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        The loss is measured live on its first validation examples.
    examples : int, default 16
        How many of them.

    Returns
    -------
    Removal
        The explorer. Controls: `method`, the score; `scope`, the same share of every layer or one
        ranking of all neurons; `keep`, the share of neurons that stay, in percent; `seed`, another
        random draw. Picture: left every neuron, dark if it stays; right the loss in nats per target
        token against the share kept, with the three newest of the curves seen before. The sentence
        gives widths, loss, and the parameters that are left.
    """
    return Removal(model, tokenizer, task, examples)


def tradeoff(model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> Tradeoff:
    """Weigh sensitivity against uniqueness of those who stay, without training, for any score.

    Parameters
    ----------
    model : Module
        The dense model, which is left as it is. Answers are kept, so make a new explorer after
        changing it.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        Sensitivity and uniqueness are measured on the dense model with its first 64 training
        examples, the loss on its first validation examples, and its metric on eight of those.
    examples : int, default 16
        How many validation examples.

    Returns
    -------
    Tradeoff
        The explorer. Controls: those of `removal`, with more scores. Picture: left every neuron,
        dark if it stays; in the middle how sensitive those neurons are that stay (mean) against how
        unique among themselves, both divided by what all neurons have; right the loss in nats per
        target token against the share kept. The sentence gives these numbers, the parameters that
        are left, and the task's metric.

    References
    ----------
    arXiv 2302.03773, Figure 1.
    """
    return Tradeoff(model, tokenizer, task, examples)
