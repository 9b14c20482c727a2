"""What a neuron is worth to its model: sensitivity, uniqueness, reconstructability, twins.

Everything comes from the Gram matrix G and the sensitivity of one pass (`collecting.collect`).
Where a handful of neurons or tokens has most of G's energy, the report says so, and a robust form
of the sums tells of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gumlab.collecting import TOKENS, Calibration, Statistics, check_robust, collect
from gumlab.errors import GumlabError, check_number
from gumlab.feedforward import FeedForward, neurons
from gumlab.gating import kept_by_gates
from gumlab.gram import (
    RIDGE,
    TWINS_ABOVE,
    cosine,
    effective_rank,
    inverting,
    lifted,
    nearest,
    unrebuilt,
)
from gumlab.scoring import squared_norm
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import by_itself

if TYPE_CHECKING:
    import pandas as pd

HANDFUL = 0.5  # of a layer's energy: what has more is said to carry it
TOP_TOKENS = 100  # one in so many tokens counts as a handful
CONCENTRATION = ("top_neuron", "first_tokens", "top_tokens", "max_activation")  # in `table`


@dataclass
class Redundancy:
    """What every neuron is worth: lists by layer of one number per neuron, and sums of the model.

    Attributes
    ----------
    sensitivity : list of Tensor
        (N,): mean over sequences of |sum over the neuron's weights of w dL/dw|.
    max_cosine : list of Tensor
        (N,): signed cosine with the twin.
    twin : list of Tensor
        (N,): the neuron of the layer with the largest |cosine|.
    unique : list of Tensor
        (N,) bool: no later neuron of the layer at cosine 0.8 or more; dead ones are not unique.
    dead : list of Tensor
        (N,) bool: never fired; of centred sums, never changed.
    reconstructability : list of Tensor
        (N,): R2, the share of a neuron's energy that the best combination of the other neurons of
        its layer rebuilds.
    obs : list of Tensor
        (N,): ||w_i||^2 / [G^-1]_ii, the layer's output error after deleting the neuron and
        refitting the rest. It is how much the neuron is used, ||w_i||^2 G_ii, times how unique it
        is, 1 - R2.
    effective_rank : list of float
        One number per layer.
    kept : list of Tensor
        (N,) bool: what a gated model's masks keep. Numbers of the whole model are over these.
    gram : list of Tensor
        G, (N, N).
    tokens : int
        How many tokens were seen.
    max_activation : list of Tensor
        (N,): the largest |h| over the tokens.
    first_tokens : list of float
        For each layer the share of its energy, the sum of h^2 over neurons and tokens, at the first
        tokens of the sequences.
    top_tokens : list of float
        For each layer the share of its energy at the one in a hundred tokens (rounded up) that have
        most of it.
    robust : str or None
        The form of the sums; everything here is of h' in the place of h, see `redundancy`.
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
    max_activation: list[Tensor]
    first_tokens: list[float]
    top_tokens: list[float]
    robust: str | None = None

    @property
    def energy(self) -> list[Tensor]:
        """G_ii of every neuron, the sum over tokens of h_i^2."""
        return [gram.diagonal() for gram in self.gram]

    @property
    def top_neuron(self) -> list[float]:
        """For each layer the share of its energy that the neuron with most of it has."""
        return [_share(energy.max(), energy.sum()) for energy in self.energy]

    @property
    def concentrated(self) -> list[int]:
        """The layers of which more than half of the energy rests on a handful.

        On one neuron, on the first tokens of the sequences, or on one in a hundred tokens. Cosines,
        R2, OBS and the effective rank then tell of that handful, and little of the other neurons.
        """
        shares = zip(self.top_neuron, self.first_tokens, self.top_tokens, strict=True)
        return [layer for layer, of in enumerate(shares) if max(of) > HANDFUL]

    @property
    def exact_uniqueness(self) -> list[Tensor]:
        """1 - R2 of every neuron."""
        return [1 - r2 for r2 in self.reconstructability]

    @property
    def uniqueness(self) -> float:
        """Share of neurons without a later neuron of their layer at cosine 0.8 or more."""
        return self._mean_over_kept(self.unique)

    @property
    def mean_sensitivity(self) -> float:
        """Mean over the kept neurons."""
        return self._mean_over_kept(self.sensitivity)

    def rebuilt(self, above: float = 0.9) -> float:
        """Share of neurons with R2 above a bound."""
        check_number("above", above, least=-math.inf)
        return self._mean_over_kept([r2 > above for r2 in self.reconstructability])

    def _mean_over_kept(self, values: list[Tensor]) -> float:
        kept = torch.cat(self.kept)
        return float(torch.cat(values)[kept].float().mean())

    def table(self) -> pd.DataFrame:
        """A row per layer, over the kept neurons."""
        import pandas as pd

        def by_layer(values: list[Tensor]) -> list[float]:
            pairs = zip(values, self.kept, strict=True)
            return [float(value[kept].float().mean()) for value, kept in pairs]

        dead_and_kept = [dead & kept for dead, kept in zip(self.dead, self.kept, strict=True)]
        return pd.DataFrame(
            {
                "layer": range(len(self.unique)),
                "neurons": [int(kept.sum()) for kept in self.kept],
                "uniqueness": by_layer(self.unique),
                "dead": [int(dead.sum()) for dead in dead_and_kept],
                "R2 > 0.9": by_layer([r2 > 0.9 for r2 in self.reconstructability]),
                "R2 > 0.99": by_layer([r2 > 0.99 for r2 in self.reconstructability]),
                "effective_rank": self.effective_rank,
                "sensitivity": by_layer(self.sensitivity),
                "mean_max_cosine": by_layer([c.abs() for c in self.max_cosine]),
                "top_neuron": self.top_neuron,
                "first_tokens": self.first_tokens,
                "top_tokens": self.top_tokens,
                "max_activation": [float(largest.max()) for largest in self.max_activation],
            }
        )

    def __repr__(self) -> str:
        form = f", {self.robust}" if self.robust else ""
        head = f"Redundancy(uniqueness {self.uniqueness:.3f}, {self.tokens:,} tokens{form})"
        narrow = self.table().drop(columns=list(CONCENTRATION))
        text = f"{head}\n{narrow.round(4)}"
        if self.concentrated:
            layers = ", ".join(map(str, self.concentrated))
            text += (
                f"\nMore than half of the energy rests on one neuron, on first tokens or on one in "
                f"{TOP_TOKENS} tokens in layer {layers}: see redundancy(..., robust=...)."
            )
        return text


def _share(part: Tensor, whole: Tensor) -> float:
    """Part of a whole; 0 where there is none."""
    return float(part / whole) if whole else 0.0


@by_itself()
def redundancy(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    ridge: float = RIDGE,
    robust: str | None = None,
) -> Redundancy:
    """Measure every neuron of a dense, gated or shrunk model on examples of a task.

    What comes back does not depend on the batch size. In pretrained models a few neurons and tokens
    (mostly the first of a text) can have nearly all of a layer's energy: `Redundancy.concentrated`
    names such layers. A robust form takes h' in the place of h in G = sum over tokens of h h^T, and
    so in everything that follows from G; the sensitivity takes z' and h' in the place of a neuron's
    inputs z and of h, as the mean over sequences of |sum over tokens of z' dL/dz + h' dL/dh|.

    Parameters
    ----------
    model, tokenizer
        The model stays as it is.
    task : Task or sequence of Example
        The paper measures on the training set.
    split, limit, tokens, batch_size
        Which split, how many of its first examples (None: all), how many tokens of running text,
        how many sequences at a time.
    ridge : float
        Of the mean energy of the neurons that fire, added to G's diagonal before it is inverted, so
        that twins, dead neurons and fewer tokens than neurons give finite numbers.
    robust : {"centred", "without_first", "winsorised"}, optional
        "centred": h' = h - its mean over all tokens, so G is tokens x covariance. "without_first":
        the first token of every sequence is left out. "winsorised": h' = h clipped to [-c, c], c of
        each neuron the largest |h| but for one in a hundred of the tokens at which it fires. By
        default h' = h.

    Returns
    -------
    Redundancy
        Lists by layer, and `table()`.

    Raises
    ------
    GumlabError
        Where there are no examples, or the memory runs out, for a ridge that leaves G without an
        inverse, and for an unknown robust form.
    """
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    ridge = check_number("ridge", ridge)
    check_robust(robust)
    if tokenizer is None or task is None:
        raise GumlabError(
            "redundancy is measured on data: gumlab.redundancy(model, tokenizer, task)."
        )
    blocks = neurons(model)
    statistics = collect(
        model, **calibration.options(), gradients=True, robust=robust, layers=blocks
    )
    return of_statistics(blocks, statistics, ridge, robust)


def of_statistics(
    blocks: Sequence[FeedForward],
    statistics: Sequence[Statistics],
    ridge: float = RIDGE,
    robust: str | None = None,
) -> Redundancy:
    """`redundancy` of statistics that are at hand.

    Parameters
    ----------
    blocks : sequence of FeedForward
        As `gumlab.neurons` gives them.
    statistics : sequence of Statistics
        One per layer, of `gumlab.collecting.collect` with gradients.
    ridge : float
        See `redundancy`.
    robust : str, optional
        The form in which they were collected.

    Returns
    -------
    Redundancy

    Raises
    ------
    GumlabError
        For a ridge that leaves G without an inverse.
    """
    report = Redundancy(
        sensitivity=[layer.sensitivity for layer in statistics],
        max_cosine=[],
        twin=[],
        unique=[],
        dead=[layer.dead for layer in statistics],
        reconstructability=[],
        obs=[],
        effective_rank=[],
        kept=kept_by_gates(blocks),
        gram=[layer.gram for layer in statistics],
        tokens=statistics[0].tokens,
        max_activation=[torch.maximum(layer.high, -layer.low) for layer in statistics],
        first_tokens=[_share(s.first_energy, s.token_energy.sum()) for s in statistics],
        top_tokens=[top_share(layer.token_energy) for layer in statistics],
        robust=robust,
    )
    for block, layer in zip(blocks, statistics, strict=True):
        cosines = cosine(layer.gram)
        max_cosine, twin = nearest(cosines)
        report.max_cosine.append(max_cosine)
        report.twin.append(twin)
        report.unique.append(unique(cosines))
        del cosines  # a large matrix goes before the next one is made
        with inverting(block.name, ridge):
            rest = unrebuilt(layer.gram, ridge)
        report.reconstructability.append(reconstructability(layer, ridge, rest))
        report.obs.append((squared_norm(block) * rest).float())
        report.effective_rank.append(effective_rank(layer.gram))
    return report


def top_share(token_energy: Tensor) -> float:
    """The share that the largest one in TOP_TOKENS of some energies, rounded up, has of their sum.

    Parameters
    ----------
    token_energy : Tensor
        (tokens,), one or more.

    >>> top_share(torch.tensor([1.0, 3.0]))
    0.75
    """
    count = math.ceil(len(token_energy) / TOP_TOKENS)
    return _share(token_energy.topk(count).values.sum(), token_energy.sum())


def reconstructability(
    statistics: Statistics, ridge: float = RIDGE, rest: Tensor | None = None
) -> Tensor:
    """R2_i = 1 - 1 / (G_ii [G^-1]_ii), G with the ridge; 0 for dead neurons.

    Parameters
    ----------
    statistics : Statistics
        Of one layer.
    ridge : float
        See `gumlab.gram.lifted`.
    rest : Tensor, optional
        1 / [G^-1]_ii, (N,), as `gumlab.gram.unrebuilt` gives it, where it is at hand.

    Returns
    -------
    Tensor
        (N,) float32.
    """
    if rest is None:
        rest = unrebuilt(statistics.gram, ridge)
    r2 = 1 - rest / lifted(statistics.gram, ridge).diagonal()
    return torch.where(statistics.dead, 0.0, r2).float()


def unique(cosines: Tensor, threshold: float = TWINS_ABOVE) -> Tensor:
    """True for neurons with no later neuron j > i at cosine >= threshold; dead ones are False.

    Parameters
    ----------
    cosines : Tensor
        (N, N), as `gumlab.gram.cosine` gives it.
    threshold : float
        The paper's is 0.8.

    Returns
    -------
    Tensor
        (N,) bool.
    """
    has_later = (cosines >= threshold).triu(diagonal=1).any(1)
    return ~has_later & (cosines.diagonal() > 0)
