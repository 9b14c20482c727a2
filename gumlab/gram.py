"""The algebra of a Gram matrix G = H^T H: ridge, inverse, what is unrebuilt, cosine, twins.

H is tokens x N, the activations of one layer; everything here takes G, (N, N), alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4  # of the mean energy of the neurons that fire, added to G's diagonal
TWINS_ABOVE = 0.8  # the paper's threshold on the cosine


def lifted(gram: Tensor, ridge: float = RIDGE, kept: Tensor | None = None) -> Tensor:
    """G + ridge e I, which has an inverse whatever the data.

    Twins, dead neurons, and fewer tokens than neurons all leave G itself without one.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    ridge : float
        In units of e, the mean G_ii of the neurons that fire.
    kept : Tensor, optional
        (N,) bool: give G_SS of the kept set S alone, with the ridge of the whole of G.

    Returns
    -------
    Tensor
        (N, N), or (S, S), float64.
    """
    energy = gram.diagonal().double()
    firing = (energy > 0).sum().clamp_min(1)
    mean_energy = (energy.sum() / firing).clamp_min(1e-30)
    part = gram if kept is None else gram[kept][:, kept]
    raised = part.to(torch.float64, copy=True)
    raised.diagonal().add_(ridge * mean_energy)
    return raised


def inverse(gram: Tensor, ridge: float = RIDGE) -> Tensor:
    """G^-1 of G with the ridge; dead neurons' rows are large and finite.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    ridge : float
        See `lifted`.

    Returns
    -------
    Tensor
        (N, N), float64.
    """
    whole = lifted(gram, ridge).mT  # in LAPACK's order, so that all of it happens in one place
    return torch.cholesky_inverse(torch.linalg.cholesky(whole, out=whole), out=whole)


def unrebuilt(gram: Tensor, ridge: float = RIDGE, kept: Tensor | None = None) -> Tensor:
    """The energy of each neuron that no combination of the other kept neurons rebuilds.

    1 / [G^-1]_ii for a kept neuron, G_ii - G_iS (G_SS)^-1 G_Si for a removed one, S the kept set.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    ridge : float
        See `lifted`.
    kept : Tensor, optional
        (N,) bool; by default all.

    Returns
    -------
    Tensor
        (N,), float64, in units of G.
    """
    if kept is None:
        return 1 / inverse(gram, ridge).diagonal()
    raised = lifted(gram, ridge)
    root = torch.linalg.cholesky(raised[kept][:, kept])
    rows = torch.linalg.solve_triangular(root, raised[kept], upper=False)
    rest = raised.diagonal() - rows.square().sum(0)
    rest[kept] = 1 / torch.cholesky_inverse(root).diagonal()
    return rest


def cosine(gram: Tensor) -> Tensor:
    """G_ij / sqrt(G_ii G_jj), (N, N), signed and uncentred; 0 in the rows of dead neurons.

    >>> cosine(torch.tensor([[4.0, -2.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    energy = gram.diagonal()
    inverse_norm = torch.where(energy > 0, energy.clamp_min(1e-30).rsqrt(), 0.0)
    return gram * inverse_norm * inverse_norm[:, None]


def twin_pairs(gram: Tensor, threshold: float = TWINS_ABOVE) -> Tensor:
    """The pairs of neurons with |cosine| above a threshold.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    threshold : float
        In [0, 1].

    Returns
    -------
    Tensor
        (P, 2) indices; every pair stands in both orders.
    """
    alike = cosine(gram).abs() > threshold
    return alike.fill_diagonal_(False).nonzero()


def nearest(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Each neuron's twin: the other neuron of its layer with the largest |cosine|.

    Parameters
    ----------
    cosines : Tensor
        (N, N), as `cosine` gives it.

    Returns
    -------
    tuple of Tensor
        The signed cosine with the twin, and the twin's index, (N,) each; both 0 where N is 1.
    """
    if len(cosines) == 1:
        return cosines.new_zeros(1), cosines.new_zeros(1, dtype=torch.long)
    others = cosines - torch.diag(cosines.diagonal())
    index = others.abs().argmax(1)
    return others.gather(1, index[:, None]).squeeze(1), index


def effective_rank(gram: Tensor) -> float:
    """exp of the entropy of G's normalised eigenvalues; 0 where every neuron is dead.

    References
    ----------
    Roy, Vetterli 2007, "The effective rank".
    """
    values = torch.linalg.eigvalsh(gram.double()).clamp_min(0)
    total = values.sum()
    if not total:
        return 0.0
    share = values / total.clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return float(torch.exp(entropy))
