"""`Looks` looks at a few texts, and cuts a base with a student's own refit (notebook 10)."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, collect
from gumlab.course.bench import Workbench
from gumlab.feedforward import neurons
from gumlab.gram import RIDGE
from gumlab.removal import shrink
from gumlab.scoring import DATA_SCORES
from gumlab.selection import select
from gumlab.tasks import Example
from gumlab.tasks.batches import batches

Refit = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@dataclass
class Looks:
    """What a base's neurons do on some training texts, drawn once for each seed.

    Parameters
    ----------
    bench : Workbench
        The base and its task.
    seeds : sequence of int
        Each draws texts of its own.
    count : int
        How many texts a seed draws.
    ridge : float
        What a Gram matrix gets on its diagonal, in units of the mean of that diagonal.

    Attributes
    ----------
    texts : dict of int to list of Example
        The texts, by seed.
    seen : dict of int to list of Statistics
        By seed what one pass over its texts found in each layer.
    """

    bench: Workbench
    seeds: Sequence[int] = (0, 1, 2)
    count: int = 64
    ridge: float = RIDGE
    texts: dict[int, list[Example]] = field(init=False, repr=False)
    seen: dict[int, list[Statistics]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lessons = list(self.bench.lessons)
        count = min(self.count, len(lessons))
        self.texts = {seed: random.Random(seed).sample(lessons, count) for seed in self.seeds}
        self.seen = {
            seed: collect(self.bench.model, self.bench.tokenizer, texts, limit=None, gradients=True)
            for seed, texts in self.texts.items()
        }

    @property
    def weights(self) -> list[Tensor]:
        """Each layer's outgoing weights, (N, D) float64."""
        return [layer.outgoing().detach().double() for layer in self.bench.layers]

    def grams(self, seed: int) -> list[Tensor]:
        """Each layer's Gram matrix, (N, N) float64, with the ridge on its diagonal."""
        lifted = []
        for found in self.seen[seed]:
            gram = found.gram.double()
            lifted.append(gram + self._ridge(gram) * torch.eye(len(gram), dtype=gram.dtype))
        return lifted

    def _ridge(self, gram: Tensor) -> float:
        return self.ridge * float(gram.diagonal().mean())

    @torch.no_grad()
    def activations(self, layer: int, seed: int) -> Tensor:
        """What a layer's neurons do at each token of a seed's texts: h, (tokens, N)."""
        heard: list[Tensor] = []
        block = self.bench.layers[layer]
        hook = block.proj.register_forward_pre_hook(lambda _, given: heard.append(given[0][0]))
        try:
            model, tokenizer = self.bench.model, self.bench.tokenizer
            for batch in batches(model, tokenizer, self.texts[seed], 1):  # one by one: no padding
                model(batch["input_ids"])
        finally:
            hook.remove()
        return torch.cat(heard)

    def scores(self, name: str, seed: int) -> list[Tensor]:
        """A score of gumlab's by its name, measured on a seed's texts; (N,) by layer."""
        if name not in DATA_SCORES:
            return self.bench.scores(name, seed)
        return list(map(DATA_SCORES[name], self.bench.layers, self.seen[seed]))

    def masks(
        self, score: Sequence[Tensor], keep: float | None = None, scope: str = "layer"
    ) -> list[Tensor]:
        """Who stays by a score, (N,) bool by layer; silent where a layer sinks to one neuron."""
        keep = self.bench.keep if keep is None else keep
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return select(score, keep, scope)

    def cut(
        self,
        score: Sequence[Tensor],
        seed: int,
        keep: float | None = None,
        scope: str = "layer",
        refit: Refit | None = None,
    ) -> nn.Module:
        """A copy without the neurons of the lowest scores, not trained.

        Parameters
        ----------
        score : sequence of Tensor
            (N,) by layer.
        seed : int
            Whose texts the refit is fitted on.
        keep : float, optional
            The fraction that stays; by default the workbench's.
        scope : {"layer", "global"}
        refit : callable, optional
            `refit(gram, outgoing, mask, ridge)` gives the kept neurons' new outgoing weights,
            (k, D). Without it they stay as they are.
        """
        masks = self.masks(score, keep, scope)
        model = copy.deepcopy(self.bench.model)
        if refit is not None:
            for layer, mask, found in zip(neurons(model), masks, self.seen[seed], strict=True):
                weights = layer.outgoing().data
                gram = found.gram.double()
                new = refit(gram, weights.double(), mask, self._ridge(gram))
                weights[mask] = new.to(weights.dtype)
        return shrink(model, masks)
