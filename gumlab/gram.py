"""The algebra of a Gram matrix G = H^T H: ridge, inverse, what is unrebuilt, cosine, twins."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4  # of the mean energy of the neurons that fire, added to G's diagonal


def lifted(gram: Tensor, ridge: float = RIDGE, kept: Tensor | None = None) -> Tensor:
    """G + ridge e I in float64, (N, N), e the mean G_ii of the neurons that fire; or G_SS, (S, S).

    With it G has an inverse whatever the data: twins, dead neurons, fewer tokens than neurons.
    """
    energy = gram.diagonal().double()
    gram = (gram if kept is None else gram[kept][:, kept]).to(torch.float64, copy=True)
    gram.diagonal().add_(ridge * (energy.sum() / (energy > 0).sum().clamp_min(1)).clamp_min(1e-30))
    return gram


def inverse(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """G^-1, (N, N), of G with the ridge, in float64; dead neurons' rows are large and finite."""
    whole = lifted(gram, ridge).mT  # in LAPACK's order, so that all of it happens in one place
    return torch.cholesky_inverse(torch.linalg.cholesky(whole, out=whole), out=whole)


def unrebuilt(gram: Tensor, ridge: float = RIDGE, kept: Tensor | None = None) -> Tensor:
    """The energy of each neuron that no combination of the other kept neurons rebuilds, (N,).

    1 / [G^-1]_ii for a kept neuron, G_ii - G_iS (G_SS)^-1 G_Si for a removed one, S the kept set
    (kept, (N,) bool; default all). G carries the ridge; float64.
    """
    if kept is None:
        return 1 / inverse(gram, ridge).diagonal()
    gram = lifted(gram, ridge)
    root = torch.linalg.cholesky(gram[kept][:, kept])
    rows = torch.linalg.solve_triangular(root, gram[kept], upper=False)
    rest = gram.diagonal() - rows.square().sum(0)
    rest[kept] = 1 / torch.cholesky_inverse(root).diagonal()
    return rest


def cosine(gram: Tensor) -> Tensor:
    """G_ij / sqrt(G_ii G_jj), (N, N), signed; 0 in the rows of dead neurons."""
    energy = gram.diagonal()
    inverse_norm = torch.where(energy > 0, energy.clamp_min(1e-30).rsqrt(), 0.0)
    return gram * inverse_norm * inverse_norm[:, None]


def twin_pairs(gram: Tensor, threshold: float = 0.8) -> Tensor:
    """The pairs of neurons with |cosine| above `threshold`, each in both orders, (P, 2)."""
    return (cosine(gram).abs() > threshold).fill_diagonal_(False).nonzero()
