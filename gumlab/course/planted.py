"""The planted pairs of `tiny-twins`: the one base whose right answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from gumlab.io.loading import ASSETS


def planted_pairs() -> list[Tensor]:
    """The neurons of `tiny-twins` that were given a copy, and the copies.

    Returns
    -------
    list of Tensor
        By layer, (P, 2): an original, and its copy.
    """
    text = (ASSETS / "tiny-twins" / "twins.json").read_text(encoding="utf-8")
    return [torch.tensor(pairs) for pairs in json.loads(text)]


def fate(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Count the pairs of which both neurons stay, one, or none.

    Parameters
    ----------
    masks : sequence of Tensor
        Who stays, (N,) bool by layer.
    pairs : sequence of Tensor
        The pairs of each layer, (P, 2).

    Returns
    -------
    dict of str to int
        "both", "one" and "none".
    """
    stays = torch.cat([mask[two].sum(1) for mask, two in zip(masks, pairs, strict=True)])
    names = {"both": 2, "one": 1, "none": 0}
    return {name: int((stays == count).sum()) for name, count in names.items()}


def whole_by_chance(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> float:
    """How many whole pairs a random choice with as many neurons in each layer would keep.

    A layer that keeps k of its N neurons keeps a given pair with probability
    k (k - 1) / (N (N - 1)).

    Parameters
    ----------
    masks, pairs
        As in `fate`.

    Returns
    -------
    float
        The expected number.
    """
    expected = 0.0
    for mask, two in zip(masks, pairs, strict=True):
        width = len(mask)
        kept = int(mask.sum())
        expected += len(two) * kept * (kept - 1) / (width * (width - 1))
    return expected
