"""What a neuron is worth to its model: sensitivity, uniqueness, reconstructability, twins.

Everything comes from the Gram matrix G and the sensitivity of one pass (`statistics.collect`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, collect
from gumlab.feedforward import FeedForward, neurons
from gumlab.gating import kept_by_gates
from gumlab.gram import RIDGE, TWINS_ABOVE, cosine, effective_rank, lifted, nearest, unrebuilt
from gumlab.scoring import squared_norm
from gumlab.tasks import Example, Task


@dataclass
class Redundancy:
    """One figure per neuron, lists of (N,) tensors by layer, and figures of the whole model.

    energy: G_ii, the sum over tokens of h_i^2. max_cosine: signed cosine with the twin.
    reconstructability: R2, the share of a neuron's energy that the best combination of the other
    neurons of its layer rebuilds; exact_uniqueness is 1 - R2. obs: ||w_i||^2 / [G^-1]_ii, the
    layer's output error after deleting the neuron and refitting the rest. It is how much the neuron
    is used, ||w_i||^2 G_ii, times how unique it is, 1 - R2. effective_rank: one number per layer.
    kept: what a gated model's masks keep; figures of the whole model are over the kept neurons.
    """

    sensitivity: list[Tensor]
    max_cosine: list[Tensor]
    twin: list[Tensor]
    unique: list[Tensor]
    dead: list[Tensor]
    reconstructability: list[Tensor]
    obs: list[Tensor]
    effective_rank: list[float]
    kept: list[Tensor]
    gram: list[Tensor]
    tokens: int

    @property
    def energy(self) -> list[Tensor]:
        """G_ii of every neuron."""
        return [gram.diagonal() for gram in self.gram]

    @property
    def exact_uniqueness(self) -> list[Tensor]:
        """1 - R2 of every neuron."""
        return [1 - r for r in self.reconstructability]

    @property
    def uniqueness(self) -> float:
        """Share of neurons without a later neuron of their layer at cosine 0.8 or more."""
        return self._share(self.unique)

    @property
    def mean_sensitivity(self) -> float:
        """Mean over the kept neurons."""
        return self._share(self.sensitivity)

    def rebuilt(self, above: float = 0.9) -> float:
        """Share of neurons with R2 above a bound."""
        return self._share([r > above for r in self.reconstructability])

    def _share(self, values: list[Tensor]) -> float:
        return float(torch.cat(values)[torch.cat(self.kept)].float().mean())

    def table(self) -> Any:
        """A pandas DataFrame, one row per layer, over the kept neurons."""
        import pandas as pd

        def mean(values: list[Tensor]) -> list[float]:
            return [float(v[k].float().mean()) for v, k in zip(values, self.kept, strict=True)]

        return pd.DataFrame(
            {
                "layer": range(len(self.unique)),
                "neurons": [int(k.sum()) for k in self.kept],
                "uniqueness": mean(self.unique),
                "dead": [int((d & k).sum()) for d, k in zip(self.dead, self.kept, strict=True)],
                "R2 > 0.9": mean([r > 0.9 for r in self.reconstructability]),
                "R2 > 0.99": mean([r > 0.99 for r in self.reconstructability]),
                "effective_rank": self.effective_rank,
                "sensitivity": mean(self.sensitivity),
                "mean_max_cosine": mean([c.abs() for c in self.max_cosine]),
            }
        )

    def __repr__(self) -> str:
        head = f"Redundancy(uniqueness {self.uniqueness:.3f}, {self.tokens:,} tokens)"
        return f"{head}\n{self.table().round(4)}"


def redundancy(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    batch_size: int = 16,
    ridge: float = RIDGE,
) -> Redundancy:
    """Measure every neuron on the first `limit` examples of a split (the paper: the training set).

    Works on dense, gated and shrunk models. The figures do not depend on the batch size. ridge: of
    the mean energy of the neurons that fire, added to G's diagonal before it is inverted, so that
    twins, dead neurons and fewer tokens than neurons give finite figures.
    """
    found = collect(
        model, tokenizer, task, split=split, limit=limit, batch_size=batch_size, gradients=True
    )
    rows = [_figures(layer, f, ridge) for layer, f in zip(neurons(model), found, strict=True)]
    return Redundancy(
        sensitivity=[f.sensitivity for f in found],
        dead=[f.dead for f in found],
        kept=kept_by_gates(model),
        gram=[f.gram for f in found],
        tokens=found[0].tokens,
        **{name: [row[name] for row in rows] for name in rows[0]},
    )


def _figures(layer: FeedForward, found: Statistics, ridge: float) -> dict[str, Any]:
    """What one layer's Gram matrix says; large matrices go before the next layer's are made."""
    cosines, rest = cosine(found.gram), unrebuilt(found.gram, ridge)
    max_cosine, twin = nearest(cosines)
    return {
        "max_cosine": max_cosine,
        "twin": twin,
        "unique": unique(cosines),
        "reconstructability": reconstructability(found, ridge, rest),
        "obs": (squared_norm(layer) * rest).float(),
        "effective_rank": effective_rank(found.gram),
    }


def reconstructability(
    found: Statistics, ridge: float = RIDGE, rest: Tensor | None = None
) -> Tensor:
    """R2_i = 1 - 1 / (G_ii [G^-1]_ii), (N,), G with the ridge; 0 for dead neurons.

    rest: 1 / [G^-1]_ii (`unrebuilt`), where it is at hand.
    """
    rest = unrebuilt(found.gram, ridge) if rest is None else rest
    r2 = 1 - rest / lifted(found.gram, ridge).diagonal()
    return torch.where(found.dead, 0.0, r2).float()


def unique(cosines: Tensor, threshold: float = TWINS_ABOVE) -> Tensor:
    """True for neurons with no later neuron j > i at cosine >= threshold; dead ones are False."""
    has_later = (cosines >= threshold).triu(diagonal=1).any(1)
    return ~has_later & (cosines.diagonal() > 0)
