"""Explorers: remove neurons by a score, see who stays, what is left, and what it costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.collecting import collect
from gumlab.course import plots
from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.evaluation import MAIN_METRIC, METRICS, generate
from gumlab.feedforward import neurons
from gumlab.gating import gate
from gumlab.gram import cosine
from gumlab.inspection import unique
from gumlab.scoring import score
from gumlab.selection import SCOPES, select
from gumlab.tasks import Task


class Removal(Explorer):
    """Remove neurons by a score and see who stays and what it costs; see `removal`."""

    figure: Any = staticmethod(plots.removal)
    alt = "Left: which neurons of each layer stay. Right: loss against the share of neurons kept."
    grid: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75)
    methods: tuple[str, ...] = ("random", "magnitude")

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> None:
        self.model, self.tokenizer, self.layers = model, tokenizer, neurons(model)
        self.examples = task.split("validation")[:examples]
        self.parameters = sum(p.numel() for p in model.parameters())
        self._curves: dict[tuple, dict[float, Any]] = {}
        self._scores: dict[tuple[str, int], list[Tensor]] = {}
        began = time.perf_counter()
        self.dense = self._point([torch.ones(n.width, dtype=torch.bool) for n in self.layers])
        self._seconds_a_point = time.perf_counter() - began
        reach = "The same share of every layer, or a ranking of all layers' neurons together"
        share = "How many of all feed-forward neurons stay, in percent"
        choice = labelled(widgets.Dropdown, "score", "Who stays", options=self.methods)
        scope = labelled(widgets.Dropdown, "scope", reach, options=SCOPES)
        percent = {"value": 50, "min": 5, "max": 100, "step": 5}
        keep = labelled(widgets.IntSlider, "neurons kept (%)", share, **percent)
        seed = labelled(widgets.IntSlider, "seed", "Another random draw", max=9)
        super().__init__({"method": choice, "scope": scope, "keep": keep, "seed": seed})

    def state(self) -> dict[str, Any]:
        now = super().state()
        return {**now, "keep": now["keep"] / 100, "seed": now["seed"] if self._draws(now) else 0}

    def drawn_with(self) -> tuple:
        """The curves so far: the latest are drawn with the present one."""
        return tuple((key, len(curve)) for key, curve in self._curves.items())

    def idle(self, **state: Any) -> Sequence[str]:
        return () if self._draws(state) else ("seed",)

    def seconds(self, **state: Any) -> float:
        return len(self._missing(**state)) * self._seconds_a_point

    def compute(self, method: str, scope: str, keep: float, seed: int) -> list[Tensor]:
        """The masks of this state; measures the points of its curve that are still missing."""
        scores = self._scored(method, seed)
        masks = select(scores, keep, scope)
        curve = self._curves.setdefault((method, scope, seed), {1.0: self.dense})
        with warnings.catch_warnings():  # about other points of the curve
            warnings.simplefilter("ignore")
            for k in self._missing(method, scope, keep, seed):
                chosen = masks if k == keep else select(scores, k, scope)
                curve[k] = self._point(chosen)
        return masks

    def draw(self, answer: list[Tensor], **state: Any) -> plots.Plot:
        now = (state["method"], state["scope"], state["seed"])
        latest = [key for key in self._curves if key != now][:-4:-1]  # three curves seen before
        curves = {self._label(*key): self._curves[key] for key in (now, *latest)}
        plot = self.figure(answer, curves, state["keep"])
        pairs = zip(self.layers, answer, strict=True)
        gone = sum(layer.parameters_per_neuron() * int((~mask).sum()) for layer, mask in pairs)
        left, share = self.parameters - gone, 1 - gone / self.parameters
        plot.sentence += f" {left:,} of {self.parameters:,} parameters are left ({share:.0%})."
        return plot

    def _scored(self, method: str, seed: int) -> list[Tensor]:
        if (method, seed) not in self._scores:
            self._scores[method, seed] = score(self.model, method, seed=seed)
        return self._scores[method, seed]

    def _point(self, masks: list[Tensor]) -> Any:
        """A point of a curve: the loss with these masks."""
        return one_shot_loss(self.model, masks, self.tokenizer, self.examples)

    def _missing(self, method: str, scope: str, keep: float, seed: int) -> list[float]:
        known = self._curves.get((method, scope, seed), {1.0: self.dense})
        least = len(self.layers) / sum(layer.width for layer in self.layers)  # one in each layer
        return [k for k in {*self.grid, keep} if k not in known and k >= least]

    @staticmethod
    def _draws(state: Mapping[str, Any]) -> bool:
        return state["method"] == "random"

    @staticmethod
    def _label(method: str, scope: str, seed: int) -> str:
        label = f"{method}, {'by layer' if scope == 'layer' else 'global'}"
        return f"{label}, seed {seed}" if method == "random" else label


class Tradeoff(Removal):
    """Remove neurons by a score: how sensitive and unique those are that stay; see `tradeoff`."""

    alt = (
        "Left: which neurons stay. Middle: mean sensitivity against uniqueness of those that stay, "
        "divided by those of all neurons. Right: loss against the share of neurons kept."
    )
    grid = (0.1, 0.25, 0.5)
    methods = ("random", "magnitude", "activation_norm", "wanda", "taylor", "obs", "greedy_obs")
    figure = staticmethod(plots.tradeoff)

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> None:
        self.seen, self.metric = task.split("train")[:64], task.metric
        texts = min(8, examples, len(task.split("validation")))
        self.generated = texts if self.metric in METRICS else 0  # perplexity judges no texts
        found = collect(model, tokenizer, self.seen, gradients=True)
        self.sensitivity = torch.cat([f.sensitivity.cpu() for f in found])
        self.cosines = [cosine(f.gram).cpu() for f in found]
        super().__init__(model, tokenizer, task, examples)
        for method in self.methods:  # now, so that no move has to wait for its scores
            self._scored(method, 0)

    def compute(self, **state: Any) -> Any:
        """The masks, and the task's metric on what the cut model writes for a few examples."""
        masks = super().compute(**state)
        if not self.generated:
            return masks, {}
        with gate(self.model, masks):
            written = generate(self.model, self.tokenizer, self.examples[: self.generated])
        return masks, METRICS[self.metric](written, self.examples[: self.generated])

    def draw(self, answer: Any, **state: Any) -> plots.Plot:
        masks, metrics = answer
        plot = super().draw(masks, **state)
        if metrics:
            name = MAIN_METRIC[self.metric]
            plot.sentence += f" {name} of {self.generated} texts: {metrics[name]:.0f}."
        return plot

    def _scored(self, method: str, seed: int) -> list[Tensor]:
        if (method, seed) not in self._scores:
            found = score(self.model, method, self.tokenizer, self.seen, seed=seed)
            self._scores[method, seed] = [s.cpu() for s in found]
        return self._scores[method, seed]

    def _point(self, masks: list[Tensor]) -> dict[str, float]:
        """Sensitivity and uniqueness of the kept neurons, divided by those of all; the loss."""
        alone = [unique(c[m][:, m]).float() for c, m in zip(self.cosines, masks, strict=True)]
        everyone = torch.cat([unique(c).float() for c in self.cosines])
        sensitive = self.sensitivity[torch.cat(masks)].mean() / self.sensitivity.mean()
        return {
            "sensitivity": float(sensitive),
            "uniqueness": float(torch.cat(alone).mean() / everyone.mean()),
            "loss": super()._point(masks),
        }


def removal(model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> Removal:
    """Remove neurons at random or by magnitude, without training: who stays, and the loss.

    The loss is measured live on the task's first `examples` validation examples. Answers are kept,
    so make a new explorer after changing the model.
    """
    return Removal(model, tokenizer, task, examples)


def tradeoff(model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> Tradeoff:
    """The trade-off of the paper's Figure 1, without training, for any score.

    How sensitive those neurons are that stay (mean) and how unique among themselves, both divided
    by what all neurons have, and measured on the dense model with 64 training examples; the loss of
    what is left on the first `examples` validation examples, the task's metric on eight of them.
    """
    return Tradeoff(model, tokenizer, task, examples)
