"""Explorers of models: where neurons fire, what is written, what a share of the neurons costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.course import plots
from gumlab.course.explore.base import Explorer, first_examples, keep_slider, labelled
from gumlab.errors import GumlabError, check_text
from gumlab.evaluation import generate, mean_target_loss
from gumlab.feedforward import neurons
from gumlab.measurement import latencies, measure
from gumlab.removal import with_neurons
from gumlab.scoring import random_scores
from gumlab.selection import select
from gumlab.tasks import Task
from gumlab.tasks._tokens import check_tokenizer
from gumlab.tasks.batches import context_length, evaluating

ROWS = 8  # neurons in a picture
TURNS = 40  # of a model with one text at a time: a busy moment must not decide


class Activations(Explorer):
    """Show at which tokens of a text the neurons of a layer fire; `activations` makes one.

    Attributes
    ----------
    tokens : list of str
        The text's T tokens.
    h : list of Tensor
        The activations, (T, N), as they enter proj, by layer.
    """

    alt = "A row for each of eight neurons, a column for each token; the darker, the more it fires."

    def __init__(self, model: nn.Module, tokenizer: Any, text: str) -> None:
        check_text("text", text)
        check_tokenizer(tokenizer)
        layers = neurons(model)
        ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
        count = ids.shape[1]
        context = context_length(model)
        if not 1 <= count <= context:
            raise GumlabError(
                f"The text has {count:,} tokens; expected 1 to {context:,}, which the model reads "
                "at once. Give another text."
            )
        self.tokens = [tokenizer.decode(token) for token in ids[0]]
        self.h: list[Tensor] = []

        def keep_input(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self.h.append(arguments[0].detach().cpu().flatten(0, -2))

        hooks = [layer.proj.register_forward_pre_hook(keep_input) for layer in layers]
        try:
            with evaluating(model), torch.no_grad():
                model(ids)
        finally:
            for hook in hooks:
                hook.remove()
        last_layer = len(layers) - 1
        last_rank = max(0, min(layer.width for layer in layers) - ROWS)
        super().__init__(
            {
                "layer": labelled(widgets.IntSlider, "layer", "Whose neurons", max=last_layer),
                "rank": labelled(
                    widgets.IntSlider, "rank", "0: those that fire most", max=last_rank, step=ROWS
                ),
            }
        )

    def compute(self, layer: int, rank: int) -> list[int]:
        """Eight neurons from this rank on, by their strongest activation in the text."""
        strongest = self.h[layer].max(0).values
        ranking = strongest.argsort(descending=True)
        return ranking[rank : rank + ROWS].tolist()

    def draw(self, answer: list[int], layer: int, rank: int) -> plots.Plot:
        """Draw these neurons' activations."""
        return plots.activations(self.h[layer], self.tokens, answer)


class Texts(Explorer):
    """Show what several models write after the same prompt; `texts` makes one.

    Attributes
    ----------
    written : dict of str to list of str
        What each model wrote after each prompt.
    """

    alt = "A prompt, its reference, and what each model writes; the sentence below repeats it."

    def __init__(
        self, models: Mapping[str, nn.Module], tokenizer: Any, task: Task, examples: int = 16
    ) -> None:
        if not isinstance(models, Mapping) or not models:
            raise GumlabError(f"models must be models by their names; got {models!r:.60}.")
        self.models = dict(models)
        self.tokenizer = tokenizer
        split = "test" if getattr(task, "test", ()) else "validation"
        self.examples = first_examples(task, split, examples)
        self.written = {
            name: generate(model, tokenizer, self.examples) for name, model in models.items()
        }
        last = len(self.examples) - 1
        super().__init__(
            {"example": labelled(widgets.IntSlider, "example", "Another prompt", max=last)}
        )

    def compute(self, example: int) -> dict[str, float]:
        """Each model's loss on the reference."""
        one = self.examples[example : example + 1]
        return {
            name: mean_target_loss(model, self.tokenizer, one)
            for name, model in self.models.items()
        }

    def draw(self, answer: dict[str, float], example: int) -> plots.Plot:
        """Draw the texts below each other."""
        shown = self.examples[example]
        written = {name: after_prompt[example] for name, after_prompt in self.written.items()}
        return plots.texts(shown.prompt, shown.target, written, answer)


class Budget(Explorer):
    """Show what a share of the neurons costs; `budget` makes one.

    Attributes
    ----------
    dense : dict of str to float
        What `gumlab.measure` says of the dense model.
    """

    alt = "Parameters, FLOPs, bytes and measured time of the cut model in percent of the dense one."

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.dense = measure(model, latency=False)
        super().__init__(
            {
                "keep": keep_slider(value=25),
                "batch": labelled(
                    widgets.Dropdown, "batch", "Texts at once, 64 tokens each", options=(1, 4, 16)
                ),
            }
        )

    def compute(self, keep: int, batch: int) -> dict[str, dict[str, float]]:
        """Cut at random (the cost does not depend on who goes), measure both in turns."""
        masks = select(random_scores(neurons(self.model)), keep / 100)
        cut = with_neurons(self.model, [mask.nonzero().flatten() for mask in masks])
        repeats = max(5, TURNS // batch)
        pair = {"dense": self.model, "cut": cut}
        times = latencies(pair, batch=batch, tokens=64, repeats=repeats)
        measured = {"dense": self.dense, "cut": measure(cut, latency=False)}
        return {
            name: {
                "neurons": costs["neurons"],
                "parameters": costs["parameters"],
                "FLOPs per token": costs["flops_per_token"],
                f"time, batch {batch}": times[name],
            }
            for name, costs in measured.items()
        }

    def draw(self, answer: dict[str, dict[str, float]], keep: int, batch: int) -> plots.Plot:
        """Draw the cut model's costs in percent of the dense one's."""
        return plots.relative_costs(answer)


def activations(model: nn.Module, tokenizer: Any, text: str) -> Activations:
    """See how strongly the neurons of a layer fire at each token of a text.

    Parameters
    ----------
    model : Module
        The model, which is left as it is.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    text : str
        What the model reads.

    Returns
    -------
    Activations
        The explorer. Controls: `layer`, whose neurons; `rank`, from which rank on, 0 being the
        neuron that fires most. Picture: a row for each of eight neurons, a column for each token;
        the colour is h, the activation as it enters proj, and a dot marks its peak.
    """
    return Activations(model, tokenizer, text)


def texts(models: Mapping[str, nn.Module], tokenizer: Any, task: Task, examples: int = 16) -> Texts:
    """Read what several models write after the same prompt.

    Parameters
    ----------
    models : mapping of str to Module
        The models by the names to show, the dense one first.
    tokenizer : PreTrainedTokenizerBase
        The tokenizer of all of them.
    task : Task
        The prompts are its first test examples, or validation examples where it has no test split.
    examples : int, default 16
        How many of them.

    Returns
    -------
    Texts
        The explorer. Control: `example`, which prompt. Picture: the prompt, the reference, and what
        each model writes, with its loss per target token; words that the first model does not have
        stand in [brackets].
    """
    return Texts(models, tokenizer, task, examples)


def budget(model: nn.Module) -> Budget:
    """See what keeping a share of the neurons buys: parameters, FLOPs and time.

    Parameters
    ----------
    model : Module
        The dense model, which is left as it is.

    Returns
    -------
    Budget
        The explorer. Controls: `keep`, the share of neurons that stay, in percent; `batch`, how
        many texts of 64 tokens are read at once. Picture: the cut model's neurons, parameters,
        FLOPs per token and time in percent of the dense model's; the times are measured in turns.
    """
    return Budget(model)
