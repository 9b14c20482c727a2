"""Activations of a model, collected by hand, and least squares on them by numpy."""

import numpy as np
import torch

from gumlab.collecting import Statistics
from helpers.models import activations
from helpers.texts import one_batch

TINY_RIDGE = 1e-12


def stacked(model, tokenizer, examples):
    """h of every layer, unpadded: one list of (T, N) per layer."""
    runs = [activations(model, one_batch(model, tokenizer, [e])) for e in examples]
    return [[h.flatten(0, -2) for h in layer] for layer in zip(*runs, strict=True)]


def from_rows(h: torch.Tensor) -> Statistics:
    zero = torch.zeros(h.shape[1])
    return Statistics(h.T @ h, h.sum(0), h.amin(0), h.amax(0), zero, zero, zero, zero, len(h))


def deletion_error(h: np.ndarray, w: np.ndarray, kept: np.ndarray) -> float:
    """Squared output error of the best outgoing weights for the kept columns of h."""
    best, *_ = np.linalg.lstsq(h[:, kept], h @ w, rcond=None)
    return float(((h @ w - h[:, kept] @ best) ** 2).sum())


def correlated(tokens, n, seed=0):
    """Rows of n correlated activations in float64, a positive mean like that of a GELU's."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(tokens, n, generator=generator, dtype=torch.float64)
    mixing = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return h + 0.3 * h @ mixing + 0.2
