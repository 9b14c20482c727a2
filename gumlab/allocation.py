"""How a budget is best shared out over the layers, measured: each layer's damage curve.

One layer at a time keeps only some of its neurons, and the rise of the loss is measured. The best
split follows from the curves, where the damage of several layers is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gumlab.collecting import (
    TOKENS,
    Calibration,
    blocks_of,
    logits_behind,
    one_by_one,
    through,
)
from gumlab.errors import GumlabError, check_list, check_whole
from gumlab.feedforward import FeedForward, neurons
from gumlab.gating import Gate, check_nobody_held_out
from gumlab.gram import RIDGE
from gumlab.progress import shown
from gumlab.removal import check_refit, refit_layer
from gumlab.selection import apportion, check_keep, check_scores, top
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import by_itself, check_loss, memory_guard, token_losses

if TYPE_CHECKING:
    import pandas as pd

KEEPS = (0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class DamageCurves:
    """What the loss rises by when one layer alone keeps some of its neurons.

    Attributes
    ----------
    widths : list of list of int
        The widths of each layer that were measured, rising; the last is the layer's own.
    damage : list of list of float
        The rise of the loss at each of them, nats per target token; 0 at the last.
    loss : float
        Of the whole model.
    """

    widths: list[list[int]]
    damage: list[list[float]]
    loss: float

    def split(self, keep: float, *, multiple_of: int = 1) -> list[int]:
        """The widths of least damage that keep round(keep * N) neurons in all.

        Between two measured widths the damage is taken to be a line, and of a curve that is not
        convex its convex hull from below, so that the neurons go where one more avoids most. No
        layer gets fewer than its smallest measured width.

        Parameters
        ----------
        keep : float
            Fraction in (0, 1] of all neurons.
        multiple_of : int
            Every width is a multiple of it, or a bound; the sum is then within one multiple.

        Returns
        -------
        list of int
            One per layer, for `gumlab.select(..., widths=...)` and `gumlab.prune`.

        Raises
        ------
        GumlabError
            Where `keep` is below the smallest widths.
        """
        keep = check_keep(keep)
        multiple_of = check_whole("multiple_of", multiple_of)
        low = [widths[0] for widths in self.widths]
        high = [widths[-1] for widths in self.widths]
        total = round(keep * sum(high))
        if total < sum(low):
            raise GumlabError(
                f"keep={keep} leaves {total} neurons, but no width below {sum(low)} in all was "
                "measured. Measure smaller ones: damage_curves(..., keeps=[0.05, ...])."
            )
        segments = []  # (damage that one more neuron avoids, layer, neurons)
        for layer, curve in enumerate(zip(self.widths, self.damage, strict=True)):
            for (left, before), (right, after) in pairwise(_hull(*curve)):
                segments.append(((before - after) / (right - left), layer, right - left))
        segments.sort(key=lambda segment: -segment[0])
        wanted = [float(width) for width in low]
        left_over = total - sum(low)
        for _, layer, count in segments:
            taken = min(count, left_over)
            wanted[layer] += taken
            left_over -= taken
        return apportion(wanted, total, low, high, multiple_of)

    def table(self) -> pd.DataFrame:
        """A row per layer and width: layer, width, kept (the fraction), damage."""
        import pandas as pd

        rows = [
            {"layer": layer, "width": width, "kept": width / widths[-1], "damage": damage}
            for layer, (widths, damages) in enumerate(zip(self.widths, self.damage, strict=True))
            for width, damage in zip(widths, damages, strict=True)
        ]
        return pd.DataFrame(rows)


@by_itself()
def damage_curves(
    model: nn.Module,
    scores: Sequence[Tensor],
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    keeps: Sequence[float] = KEEPS,
    refit: bool | str = True,
    ridge: float = RIDGE,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
) -> DamageCurves:
    """Measure each layer's damage curve: cut it alone, refit it, and see what the loss rises by.

    Takes a pass over the data for every layer and fraction, through that layer and those behind it.

    Parameters
    ----------
    model : nn.Module
        Left as it was.
    scores : sequence of Tensor
        (N,) per layer, which say who stays.
    tokenizer, task, split, limit, tokens, batch_size
        What refit and loss are measured on, as in `gumlab.collecting.collect`.
    keeps : sequence of float
        The fractions of a layer's neurons to measure.
    refit, ridge
        As in `gumlab.shrink`.

    Returns
    -------
    DamageCurves
        Its `split` gives the widths.

    Raises
    ------
    GumlabError
        For scores or fractions that do not fit, or missing data.
    """
    layers = neurons(model)
    check_nobody_held_out(layers)
    check_scores(scores)
    if [len(s) for s in scores] != [layer.width for layer in layers]:
        raise GumlabError(
            f"The scores are of {[len(s) for s in scores]} neurons, the model's layers have "
            f"{[layer.width for layer in layers]}. Give this model's scores: gumlab.score(model, "
            "...)."
        )
    keeps = [check_keep(keep) for keep in check_list("keeps", keeps, "fractions")]
    check_refit(layers, refit, tokenizer, task, ridge)
    if tokenizer is None or task is None:
        raise GumlabError(
            "Damage is measured on data: gumlab.damage_curves(model, scores, tokenizer, task)."
        )
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    batches = calibration.batches(model)
    blocks = blocks_of(model, layers)
    given: list[Any] = [None] * len(batches)  # by the block before, dense
    dense = _mean_loss(model, [], batches, given)
    widths, damages = [], []
    counted = shown(layers, "damage", "layer")
    with closing(one_by_one(model, **calibration.options(), layers=layers)) as statistics:
        for i, (layer, score, seen) in enumerate(zip(counted, scores, statistics, strict=True)):
            tried = sorted({max(1, round(keep * layer.width)) for keep in keeps} - {layer.width})
            damage = []
            for width in tried:
                mask = top(score.to(layer.device), width)
                with _alone(layer, mask):
                    if refit:
                        refit_layer(layer, mask, seen, ridge, weights=refit != "bias")
                    damage.append(_mean_loss(model, blocks[:i], batches, given) - dense)
            with torch.no_grad():
                given = [
                    through(model, blocks, i, batch, state)
                    for batch, state in zip(batches, given, strict=True)
                ]
            widths.append([*tried, layer.width])
            damages.append([*damage, 0.0])
    return DamageCurves(widths, damages, dense)


@contextmanager
def _alone(layer: FeedForward, mask: Tensor) -> Iterator[None]:
    """One layer keeps some neurons for a while; then it is as it was, weights included."""
    parameters = [p for p in (layer.proj.weight, layer.proj.bias) if p is not None]
    before = [parameter.detach().clone() for parameter in parameters]
    gate = Gate(layer)
    gate.mask = mask
    try:
        yield
    finally:
        gate.remove()
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


@torch.no_grad()
def _mean_loss(
    model: nn.Module,
    done: Sequence[nn.Module],
    batches: Sequence[dict[str, Tensor]],
    given: Sequence[Any],
) -> float:
    """Nats per target token, where the last of the blocks that are done gave `given`, by batch."""
    total = 0.0
    count = 0
    with memory_guard(len(batches[0]["labels"])):
        for batch, state in zip(batches, given, strict=True):
            logits = logits_behind(model, done, batch, state)
            total += float(token_losses(logits, batch["labels"]).sum())
            count += int((batch["labels"][:, 1:] >= 0).sum())
    return check_loss(total) / count


def _hull(widths: Sequence[int], damage: Sequence[float]) -> list[tuple[int, float]]:
    """The corners of a curve's convex hull from below, left to right.

    >>> _hull([1, 2, 3], [4.0, 3.0, 0.0])
    [(1, 4.0), (3, 0.0)]
    """
    corners: list[tuple[int, float]] = []
    for point in zip(widths, damage, strict=True):
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) >= _slope(corners[-1], point):
            corners.pop()
        corners.append(point)
    return corners


def _slope(left: tuple[int, float], right: tuple[int, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])
