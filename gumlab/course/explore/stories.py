"""Explorers of what was trained: a run step by step, texts side by side, what a budget buys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.course import plots
from gumlab.course.explore.base import Explorer, labelled
from gumlab.errors import GumlabError
from gumlab.evaluation import generate, mean_target_loss
from gumlab.feedforward import neurons
from gumlab.measurement import latencies, measure
from gumlab.removal import with_neurons
from gumlab.scoring import random_scores
from gumlab.selection import select
from gumlab.tasks import Task
from gumlab.tasks.batches import evaluating
from gumlab.training import History


class Replay(Explorer):
    """A pruning run step by step; see `replay`."""

    alt = "Left: who is there. Middle: neurons kept and loss by step. Right: one layer's scores."

    def __init__(self, history: History) -> None:
        if len(history.frames) < 2:
            raise GumlabError(
                "This history has no frames to replay. Ask for them: "
                "gumlab.train(model, tokenizer, task, pruner=pruner, record=1)."
            )
        self.history = history
        last, layers = len(history.frames) - 1, len(history.frames[0].masks)
        frame = labelled(widgets.IntSlider, "frame", "A recorded step", value=last // 3, max=last)
        layer = labelled(widgets.IntSlider, "layer", "Whose scores", max=layers - 1)
        super().__init__({"frame": frame, "layer": layer})

    def compute(self, frame: int, layer: int) -> None:
        """Nothing: the frames are there."""

    def draw(self, answer: None, frame: int, layer: int) -> plots.Plot:
        return plots.replay(self.history, frame, layer)


class Activations(Explorer):
    """At which tokens of a text the neurons of a layer fire; see `activations`."""

    alt = "A row for each of eight neurons, a column for each token; the darker, the more it fires."

    def __init__(self, model: nn.Module, tokenizer: Any, text: str) -> None:
        ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
        self.tokens = [tokenizer.decode(t) for t in ids[0]]
        self.h: list[Tensor] = []
        layers = neurons(model)
        hooks = [
            layer.proj.register_forward_pre_hook(lambda _, x: self.h.append(x[0].detach().cpu()))
            for layer in layers
        ]
        with evaluating(model), torch.no_grad():
            model(ids)
        for hook in hooks:
            hook.remove()
        last = min(layer.width for layer in layers) - 8
        layer = labelled(widgets.IntSlider, "layer", "Whose neurons", max=len(layers) - 1)
        rank = labelled(widgets.IntSlider, "rank", "0: those that fire most", max=last, step=8)
        super().__init__({"layer": layer, "rank": rank})

    def compute(self, layer: int, rank: int) -> list[int]:
        """Eight neurons from this rank on, by their strongest activation in the text."""
        strongest = self.h[layer].flatten(0, -2).max(0).values
        return strongest.argsort(descending=True)[rank : rank + 8].tolist()

    def draw(self, answer: list[int], layer: int, rank: int) -> plots.Plot:
        return plots.activations(self.h[layer].flatten(0, -2), self.tokens, answer)


class Texts(Explorer):
    """What several models write after the same prompt; see `texts`."""

    alt = "A prompt, its reference, and what each model writes; the sentence below repeats it."

    def __init__(
        self, models: Mapping[str, nn.Module], tokenizer: Any, task: Task, examples: int = 16
    ) -> None:
        self.models, self.tokenizer = dict(models), tokenizer
        self.examples = task.split("test" if task.test else "validation")[:examples]
        self.written = {
            name: generate(model, tokenizer, self.examples) for name, model in models.items()
        }
        which = labelled(widgets.IntSlider, "example", "Another prompt", max=len(self.examples) - 1)
        super().__init__({"example": which})

    def compute(self, example: int) -> dict[str, float]:
        """Each model's loss on the reference."""
        one = self.examples[example : example + 1]
        return {n: mean_target_loss(m, self.tokenizer, one) for n, m in self.models.items()}

    def draw(self, answer: dict[str, float], example: int) -> plots.Plot:
        shown = self.examples[example]
        texts = {name: all_of_it[example] for name, all_of_it in self.written.items()}
        return plots.texts(shown.prompt, shown.target, texts, answer)


class Budget(Explorer):
    """What a share of the neurons costs; see `budget`."""

    alt = "Parameters, FLOPs, bytes and measured time of the cut model in percent of the dense one."

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.dense = measure(model, latency=False)
        percent = {"value": 25, "min": 5, "max": 100, "step": 5}
        keep = labelled(widgets.IntSlider, "neurons kept (%)", "The budget", **percent)
        batch = labelled(
            widgets.Dropdown, "batch", "Texts at once, 64 tokens each", options=(1, 4, 16)
        )
        super().__init__({"keep": keep, "batch": batch})

    def compute(self, keep: int, batch: int) -> dict[str, dict[str, float]]:
        """Cut at random (the cost does not depend on who goes), measure both in turns."""
        masks = select(random_scores(neurons(self.model)), keep / 100)
        small = with_neurons(self.model, [m.nonzero().flatten() for m in masks])
        times = latencies({"dense": self.model, "cut": small}, batch=batch, tokens=64, repeats=3)
        costs = {"dense": self.dense, "cut": measure(small, latency=False)}
        return {
            name: {
                "neurons": cost["neurons"],
                "parameters": cost["parameters"],
                "FLOPs per token": cost["flops_per_token"],
                f"time, batch {batch}": times[name],
            }
            for name, cost in costs.items()
        }

    def draw(self, answer: dict[str, dict[str, float]], **_: Any) -> plots.Plot:
        return plots.relative_costs(answer)


def replay(history: History) -> Replay:
    """A run that was recorded (`gumlab.train(..., record=1)`): who is there, and the scores."""
    return Replay(history)


def activations(model: nn.Module, tokenizer: Any, text: str) -> Activations:
    """A text's tokens, and how strongly the neurons of a layer fire at each (h, before proj)."""
    return Activations(model, tokenizer, text)


def texts(models: Mapping[str, nn.Module], tokenizer: Any, task: Task, examples: int = 16) -> Texts:
    """Models side by side: what each writes after the task's first `examples` test prompts.

    models: name -> model, the dense one first.
    """
    return Texts(models, tokenizer, task, examples)


def budget(model: nn.Module) -> Budget:
    """What keeping a share of the neurons buys: parameters, FLOPs, and time, measured in turns."""
    return Budget(model)
