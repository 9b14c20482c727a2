"""The algebra of a Gram matrix G = H^T H: ridge, inverse, what is unrebuilt, cosine, twins.

H is tokens x N, the activations of one layer; everything here takes G, (N, N), alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from gumlab.errors import GumlabError

RIDGE = 1e-4  # of the mean energy of the neurons that fire, added to G's diagonal
# What sums in float32 may be off by, in parts of a neuron's own energy, tried one after another.
# A real language model has neurons with nearly all of a layer's energy that fire together at one
# token: there the sums' rounding is larger than the ridge, and the matrix has no inverse as it is.
ROUNDINGS = (0.0, 1e-6, 1e-5, 1e-4)
BLOCK = 64  # removals between two updates of the large matrices
TWINS_ABOVE = 0.8  # the paper's threshold on the cosine


def lifted(
    gram: Tensor, ridge: float = RIDGE, kept: Tensor | None = None, rounding: float = 0.0
) -> Tensor:
    """G + ridge e I, which has an inverse whatever the data, up to the rounding of its sums.

    Twins, dead neurons, and fewer tokens than neurons all leave G itself without one.

    Parameters
    ----------
    gram : Tensor
        G, (N, N).
    ridge : float
        In units of e, the mean G_ii of the neurons that fire.
    kept : Tensor, optional
        (N,) bool: give G_SS of the kept set S alone, with the ridge of the whole of G.
    rounding : float
        More for each neuron, in units of its own G_ii; see `at_least_rounding`.

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
    own = energy if kept is None else energy[kept]
    raised.diagonal().add_(ridge * mean_energy + rounding * own)
    return raised


def at_least_rounding(ridge: float, attempt: Callable[[float], Tensor]) -> Tensor:
    """What `attempt(rounding)` gives at the first of `ROUNDINGS` at which its matrix has a factor.

    Parameters
    ----------
    ridge : float
        Without a ridge nothing more is added either.
    attempt : callable
        Makes and factors `lifted(..., rounding=rounding)`.

    Raises
    ------
    torch.linalg.LinAlgError
        Of the last attempt.
    """
    for rounding in ROUNDINGS[:-1] if ridge else ():
        with suppress(torch.linalg.LinAlgError):
            return attempt(rounding)
    return attempt(ROUNDINGS[-1] if ridge else 0.0)


@contextmanager
def inverting(name: str, ridge: float) -> Iterator[None]:
    """Turns a layer's Gram matrix that a ridge leaves without an inverse into a GumlabError."""
    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise GumlabError(
            f"The Gram matrix of {name} has no inverse with ridge={ridge:g}: some of its neurons "
            f"are alike, or dead. Take a larger one (the usual one is {RIDGE:g})."
        ) from error


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

    def attempt(rounding: float) -> Tensor:
        # in LAPACK's order, so that all of it happens in one place
        whole = lifted(gram, ridge, rounding=rounding).mT
        return torch.cholesky_inverse(torch.linalg.cholesky(whole, out=whole), out=whole)

    return at_least_rounding(ridge, attempt)


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
    root = at_least_rounding(
        ridge, lambda rounding: torch.linalg.cholesky(lifted(gram, ridge, kept, rounding))
    )
    rows = torch.linalg.solve_triangular(root, raised[kept], upper=False)
    rest = raised.diagonal() - rows.square().sum(0)
    rest[kept] = 1 / torch.cholesky_inverse(root).diagonal()
    return rest


def removal_costs(inverse_gram: Tensor, products: Tensor) -> Tensor:
    """What each neuron costs when the cheapest of those left is removed, one after the other.

    With A the inverse Gram matrix, the cost of neuron i is its squared norm over A[i, i]. After it
    goes, the others take over what it did, and A becomes the inverse of the neurons left::

        W <- W - u v^T,  A <- A - u u^T,  with u = A[:, i] / sqrt(A[i, i]), v = W[i] / sqrt(A[i, i])

    W is needed only in its products M = W W^T. The u and v of BLOCK removals are kept as thin
    factors, so that one removal costs N BLOCK operations, and A and M follow once a block::

        A <- A - U U^T,  M <- M - U P^T - P U^T + U K U^T,  with P = W V, K = V^T V

    Parameters
    ----------
    inverse_gram : Tensor
        A, (N, N) float64. Overwritten.
    products : Tensor
        M, (N, N) float64, the products of the outgoing weights. Overwritten.

    Returns
    -------
    Tensor
        (N,) float64: the largest cost of a single removal up to a neuron's own, so that the order
        of removal is kept.

    References
    ----------
    Thin factors for many removals: Frantar, Alistarh 2023 (SparseGPT); the order, one neuron at a
    time: Frantar, Alistarh 2022 (Optimal Brain Compression).
    """
    n = len(inverse_gram)
    remaining = torch.arange(n, device=inverse_gram.device)  # the neuron of each row
    score = inverse_gram.new_zeros(n)
    worst = 0.0
    while len(remaining):
        block = _RemovalBlock(inverse_gram, products, min(BLOCK, len(remaining)))
        for _ in range(block.size):
            i, cost = block.cheapest()
            worst = max(worst * (1 + 1e-9), cost)  # later removals rank above earlier
            score[remaining[i]] = worst
            block.remove(i)
        block.apply()
        left = block.left.nonzero().flatten()
        remaining = remaining[left]
        inverse_gram = _compacted(inverse_gram, left)
        products = _compacted(products, left)
    return score


class _RemovalBlock:
    """Some removals of `removal_costs`, with A and M as they were before the first of them."""

    def __init__(self, inverse_gram: Tensor, products: Tensor, size: int) -> None:
        n = len(inverse_gram)
        self.inverse_gram = inverse_gram
        self.products = products
        self.size = size
        self.done = 0
        self.u = inverse_gram.new_zeros(n, size)
        self.p = inverse_gram.new_zeros(n, size)
        self.k = inverse_gram.new_zeros(size, size)
        self.diagonal = inverse_gram.diagonal().clone()  # of A, followed
        self.squares = products.diagonal().clone()  # ||w_i||^2, followed
        self.left = torch.ones(n, dtype=torch.bool, device=inverse_gram.device)

    def cheapest(self) -> tuple[int, float]:
        """The neuron to remove next, and its cost."""
        costs = torch.where(self.left, self.squares / self.diagonal, torch.inf)
        cost, i = costs.min(0)
        return int(i), max(float(cost), 0.0)  # squares may be rounded below 0

    def remove(self, i: int) -> None:
        """Remove neuron i: a column to U, P and K, and the followed diagonals."""
        k = self.done
        u_before, p_before, k_before = self.u[:, :k], self.p[:, :k], self.k[:k, :k]
        row = u_before[i]
        pivot = self.diagonal[i].sqrt()
        u = (self.inverse_gram[i] - u_before @ row) / pivot
        p = (self.products[i] - p_before @ row) / pivot  # W v, W as before the block
        k_new = (p_before[i] - k_before @ row) / pivot  # V^T v
        v_square = self.squares[i] / self.diagonal[i]
        products_now = p - u_before @ k_new  # W v, W as now
        self.squares += u * (u * v_square - 2 * products_now)
        self.diagonal -= u.square()
        self.u[:, k], self.p[:, k] = u, p
        self.k[:k, k], self.k[k, :k], self.k[k, k] = k_new, k_new, v_square
        self.left[i] = False
        self.done += 1

    def apply(self) -> None:
        """Let A and M follow all removals of the block."""
        self.inverse_gram.addmm_(self.u, self.u.T, alpha=-1)
        self.products.addmm_(self.u, (self.p - self.u @ self.k / 2).T, alpha=-1)
        self.products.addmm_(self.p - self.u @ self.k / 2, self.u.T, alpha=-1)


def _compacted(matrix: Tensor, left: Tensor) -> Tensor:
    """matrix[left][:, left] in the memory of `matrix`, `left` in rising order."""
    for start in range(0, len(left), BLOCK):
        rows = left[start : start + BLOCK]
        matrix[start : start + len(rows), : len(left)] = matrix[rows][:, left]
    return matrix[: len(left), : len(left)]


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
        The signed cosine with the twin, and the twin's index, (N,) each; both 0 where N is 1, and
        for a neuron with a cosine of 0 to all others (a dead one).
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
