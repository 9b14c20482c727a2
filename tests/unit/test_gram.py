"""The algebra of a Gram matrix: its ridge, and what the other neurons cannot rebuild."""

import numpy as np
import pytest
import torch
from helpers.statistics import TINY_RIDGE, correlated

from gumlab import gram
from gumlab.gram import lifted, unrebuilt


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_unrebuilt_is_the_residual_of_least_squares_on_the_other_kept(seed):
    """For kept neurons and removed ones alike; without a mask all are kept."""
    h, kept = correlated(80, 12), torch.ones(12, dtype=torch.bool)
    if seed is not None:
        kept = torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.5
    got = unrebuilt(h.T @ h, TINY_RIDGE, None if seed is None else kept)
    assert got.dtype == torch.float64
    for i in range(12):
        others = kept.clone()
        others[i] = False
        left, right = h[:, others].numpy(), h[:, i].numpy()
        fit, *_ = np.linalg.lstsq(left, right, rcond=None)
        assert got[i].item() == pytest.approx(((right - left @ fit) ** 2).sum(), rel=1e-8)


@pytest.mark.parametrize("ridge", [1e-4, 1e-8])
@pytest.mark.parametrize("tokens", [200, 5, 1])
def test_unrebuilt_of_a_singular_gram_is_finite_and_never_negative(tokens, ridge):
    h = correlated(tokens, 10)
    h[:, 7], h[:, 2] = -3 * h[:, 3], 0.0  # a twin and a dead neuron
    gram, masks = h.T @ h, [None, *(torch.zeros(10, dtype=torch.bool) for _ in range(3))]
    masks[1][[0, 1, 7]] = masks[2][[2, 3, 7, 9]] = masks[3][[2]] = True
    for kept in masks:
        rest = unrebuilt(gram, ridge, kept)
        assert torch.isfinite(rest).all()
        assert (rest >= 0).all()
        if kept is None or kept[7]:  # a twin is rebuilt by its twin, all but the ridge
            assert rest[3] < 20 * ridge * gram.diagonal().mean()
        if kept is None or kept[2]:
            assert rest[2] < 20 * ridge * gram.diagonal().mean().clamp_min(1e-20)


def test_the_ridge_is_of_the_neurons_that_fire():
    """Dead neurons leave it where it was; where all are dead the matrix is still regular."""
    h = correlated(50, 6)
    wide = torch.cat([h, torch.zeros(50, 9, dtype=h.dtype)], 1)
    small, large = (lifted(x.T @ x, 0.1) for x in (h, wide))
    torch.testing.assert_close(large[:6, :6], small)
    by_hand = h.T @ h + 0.1 * h.square().sum(0).mean() * torch.eye(6, dtype=h.dtype)
    torch.testing.assert_close(small, by_hand)
    assert torch.linalg.cholesky(lifted(torch.zeros(4, 4))).isfinite().all()


def test_neurons_with_nearly_all_of_the_energy_that_fire_together_do_not_stop_it():
    """As at a language model's first token: there float32 sums are off by more than a ridge."""
    torch.manual_seed(0)
    h = 0.05 * torch.randn(4000, 768).relu()
    h[::4, :6] = 2000 * torch.rand(6)
    summed = torch.zeros(768, 768)
    for part in h.split(100):
        summed += part.T @ part
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(gram.lifted(summed))
    exact = h.double().T @ h.double()
    others = slice(6, None)
    for kept in (None, torch.arange(768) % 3 != 2):
        found = gram.unrebuilt(summed, kept=kept)
        assert found.isfinite().all()
        assert torch.allclose(found[others], gram.unrebuilt(exact, kept=kept)[others], rtol=1e-3)
    with pytest.raises(torch.linalg.LinAlgError):
        gram.inverse(summed.fill_(torch.nan))


def test_without_a_ridge_nothing_is_added_for_rounding():
    h = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    h = torch.cat([h, h[:, :1]], 1)
    with pytest.raises(torch.linalg.LinAlgError):
        gram.inverse(h.T @ h, ridge=0.0)
