"""Exercises of notebook 07, sensitivity and uniqueness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gumlab.course import planted
from gumlab.course.check.judging import cosine_matrix, exercise, random_tensors
from gumlab.gram import RIDGE, cosine
from gumlab.inspection import unique

Parts = Sequence[Tensor]

_IN, _BIAS, _OUT = random_tensors((4, 3), (4, 1), (4, 5))
_IN_GRAD, _BIAS_GRAD, _OUT_GRAD = (part.flip(0) for part in (_IN, _BIAS, _OUT))


def _products(weights: Parts, gradients: Parts) -> list[Tensor]:
    """The sum of w dL/dw of each part, (N,) each."""
    return [(w * g).sum(1) for w, g in zip(weights, gradients, strict=True)]


def _all_values(weights: Parts, gradients: Parts) -> Tensor:
    """w dL/dw of each neuron's weights in a row."""
    return torch.cat([w * g for w, g in zip(weights, gradients, strict=True)], 1)


@exercise(
    cases=[
        ([_IN, _BIAS, _OUT], [_IN_GRAD, _BIAS_GRAD, _OUT_GRAD]),
        ([_OUT, _BIAS, _IN], [_OUT_GRAD, _BIAS_GRAD, _IN_GRAD]),
    ],
    hints=[
        (
            "The size comes last: add up w dL/dw of all the neuron's weights, then take |sum|.",
            lambda weights, gradients: _all_values(weights, gradients).abs().sum(1),
        ),
        (
            "You take the size of each part. Two parts can cancel: add them first, then |sum|.",
            lambda weights, gradients: sum(p.abs() for p in _products(weights, gradients)),
        ),
        (
            "Take the size of the sum: a neuron whose sum is negative is used as well.",
            lambda weights, gradients: sum(_products(weights, gradients)),
        ),
        (
            "That is the first part alone; the bias and the outgoing weights are the neuron's too.",
            lambda weights, gradients: _products(weights, gradients)[0].abs(),
        ),
        (
            "The bias is missing, the part in the middle; it is one of the neuron's weights.",
            lambda weights, gradients: _all_values(weights[::2], gradients[::2]).sum(1).abs(),
        ),
        (
            "Each gradient is multiplied by its own weight before you add up.",
            lambda weights, gradients: torch.cat(list(gradients), 1).sum(1).abs(),
        ),
        (
            "Add the weights' shares up; a mean makes a neuron with more weights look less used.",
            lambda weights, gradients: _all_values(weights, gradients).mean(1).abs(),
        ),
    ],
)
def sensitivity_of(weights: Parts, gradients: Parts) -> Tensor:
    """Give each neuron's sensitivity for one sequence.

    Parameters
    ----------
    weights : sequence of Tensor
        The parts of the neurons, a row for each neuron: (N, D), (N, 1), (N, D).
    gradients : sequence of Tensor
        The gradients of the loss, in the same shapes.

    Returns
    -------
    Tensor
        |sum over all of a neuron's weights of w dL/dw|, (N,).
    """
    return _all_values(weights, gradients).sum(1).abs()


(_NOISE,) = random_tensors((30, 4))
_SUM = _NOISE[:, :1] + _NOISE[:, 1:2]
_H = torch.cat([_NOISE + 0.5, _SUM], 1)  # not centred; the last neuron is near a sum of two
_GRAM = _H.T @ _H
_FAINT = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.005])  # its length is small, and no zero
_WITH_DEAD = torch.tensor([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])


def _by_energy(gram: Tensor, both: bool) -> Tensor:
    """G over G_ii, or over G_ii G_jj: 0 where a neuron is dead."""
    energy = gram.diagonal().clamp_min(1e-12)
    return gram / energy[:, None] / (energy if both else 1)


def _by_one_length(gram: Tensor) -> Tensor:
    """G over the length of one of the two neurons."""
    return gram / gram.diagonal().sqrt().clamp_min(1e-12)


def _by_no_length(gram: Tensor) -> Tensor:
    """The formula as it stands: 0 / 0 for a dead neuron."""
    length = gram.diagonal().sqrt()
    return gram / length / length[:, None]


def _of_rows(gram: Tensor) -> Tensor:
    """The cosines of the rows of G, which are no activations."""
    return torch.nn.functional.cosine_similarity(gram[:, None], gram[None], dim=-1)


@exercise(
    cases=[  # the third: quiet, but not dead; the last: one neuron of them
        (_GRAM,),
        (_WITH_DEAD,),
        (1e-6 * _WITH_DEAD,),
        (_GRAM * _FAINT * _FAINT[:, None],),
    ],
    hints=[
        (
            "You forgot the root: the length of h_i is sqrt(G_ii).",
            lambda gram: _by_energy(gram, both=True),
        ),
        (
            "You divide by G_ii alone; both lengths belong below the line.",
            lambda gram: _by_energy(gram, both=False),
        ),
        ("You divide by one length; divide by those of both neurons.", _by_one_length),
        ("A dead neuron gives 0 / 0; clamp_min on the lengths avoids it.", _by_no_length),
        (
            "Those are the cosines of the rows of G. G holds the products already: divide each by "
            "two lengths.",
            _of_rows,
        ),
        ("A cosine has a sign; leave it there.", lambda gram: cosine(gram).abs()),
        (
            "A neuron that never fires is like nobody: its cosine with itself is 0 as well.",
            lambda gram: cosine(gram).fill_diagonal_(1),
        ),
        (
            "Leave the diagonal: a neuron that fires has cosine 1 with itself.",
            lambda gram: cosine(gram).fill_diagonal_(0),
        ),
    ],
)
def cosine_table(gram: Tensor) -> Tensor:
    """Give the cosine of every pair of a layer's neurons.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix G, (N, N).

    Returns
    -------
    Tensor
        G_ij / sqrt(G_ii G_jj), (N, N), with its sign; 0 for a neuron that never fires.
    """
    return cosine(gram)


def _cosines(neurons: int, pairs: dict[tuple[int, int], float]) -> Tensor:
    """Cosines in double precision, in which 0.8 is the threshold to the last digit."""
    return cosine_matrix(neurons, pairs, dtype=torch.float64)


def _share(alike: Tensor) -> float:
    """The share of neurons whose row of `alike`, (N, N) bool, has no True."""
    return float((~alike.any(1)).double().mean())


@exercise(
    cases=[
        (_cosines(4, {(0, 1): 0.9, (2, 3): 0.5}), 0.8),
        (_cosines(4, {(0, 3): 0.8}), 0.8),
        (_cosines(5, {(0, 1): -0.95, (2, 4): 0.85}), 0.8),
        (_cosines(5, {(0, 1): 0.9, (0, 2): 0.9, (0, 3): 0.9}), 0.8),
        (_cosines(5, {(0, 3): 0.9, (1, 3): 0.9}), 0.8),
        (_cosines(3, {(0, 1): 0.9, (1, 2): 0.6}), 0.5),
    ],
    hints=[
        (
            "You count both neurons of a pair; only the one with a *later* partner is not unique.",
            lambda cosines, above: _share(
                (cosines >= above) & ~torch.eye(len(cosines), dtype=torch.bool)
            ),
        ),
        (
            "The rule is signed: opposite neurons, at -0.95, are no pair.",
            lambda cosines, above: _share((cosines.abs() >= above).triu(1)),
        ),
        (
            "A cosine that is exactly the threshold counts as alike: >=, not >.",
            lambda cosines, above: _share((cosines > above).triu(1)),
        ),
        (
            "Everybody is like itself: leave the diagonal out.",
            lambda cosines, above: _share((cosines >= above).triu(0)),
        ),
        (
            "You look at earlier partners; the rule looks at later ones, j > i.",
            lambda cosines, above: _share((cosines >= above).tril(-1)),
        ),
        (
            "Count neurons, not pairs: one with three later partners counts once.",
            lambda cosines, above: 1 - float((cosines >= above).triu(1).sum()) / len(cosines),
        ),
        (
            "That is how many are unique; divide by the number of neurons.",
            lambda cosines, above: _share((cosines >= above).triu(1)) * len(cosines),
        ),
        (
            "That is the share that is *not* unique.",
            lambda cosines, above: 1 - _share((cosines >= above).triu(1)),
        ),
        (
            "The threshold is an argument; do not write 0.8 into the function.",
            lambda cosines, above: _share((cosines >= 0.8).triu(1)),
        ),
    ],
)
def share_unique(cosines: Tensor, above: float) -> float:
    """Give the share of a layer's neurons that are unique, as the paper counts.

    Parameters
    ----------
    cosines : Tensor
        The signed cosine of every pair of neurons, (N, N).
    above : float
        From which cosine on two neurons are alike; the paper's is 0.8.

    Returns
    -------
    float
        The share of neurons i with no later neuron j > i at this cosine or more.
    """
    return float(unique(cosines, above).double().mean())


def _by_inverse(gram: Tensor, ridge: float, times_energy: bool = True) -> Tensor:
    """R2 with a ridge, in units of the mean energy."""
    lifted = gram.double() + ridge * gram.diagonal().mean() * torch.eye(len(gram))
    rest = 1 / torch.linalg.inv(lifted).diagonal()
    return 1 - rest / lifted.diagonal() if times_energy else 1 - rest


def _share_rebuilt(gram: Tensor) -> Tensor:
    """R2 from a matrix as it is, (N,)."""
    return 1 - 1 / (gram.diagonal() * torch.linalg.inv(gram).diagonal())


def _energy_without_ridge(gram: Tensor) -> Tensor:
    """The inverse has the ridge, the energy that it is compared with has not."""
    lifted = gram.double() + RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    return 1 - 1 / (gram.diagonal() * torch.linalg.inv(lifted).diagonal())


_TWO = torch.tensor([[2.0, 2.0], [2.0, 2.0]])  # a neuron and its exact copy


@exercise(
    cases=[(_GRAM,), (_GRAM[1:, 1:],), (_TWO,)],
    hints=[
        (
            "That is 1 - R2, the share that the others cannot rebuild.",
            lambda gram: 1 - _by_inverse(gram, RIDGE),
        ),
        (
            "R2 is a share: what is left, 1 / [G^-1]_ii, is divided by the energy G_ii.",
            lambda gram: _by_inverse(gram, RIDGE, times_energy=False),
        ),
        (
            "Without the ridge a neuron and its copy leave G no inverse. Add it to the diagonal "
            "first.",
            _share_rebuilt,
        ),
        (
            "The ridge is one ten-thousandth *of the mean of the diagonal*, not of 1.",
            lambda gram: _by_inverse(gram, float(RIDGE / gram.diagonal().mean())),
        ),
        (
            "That is the mean of the whole matrix; the ridge goes by the mean of its diagonal.",
            lambda gram: _by_inverse(gram, float(RIDGE * gram.mean() / gram.diagonal().mean())),
        ),
        (
            "That is the sum of the diagonal; the ridge goes by its mean.",
            lambda gram: _by_inverse(gram, RIDGE * len(gram)),
        ),
        (
            "G has the ridge in the whole formula: G_ii is an entry of the matrix with the ridge.",
            _energy_without_ridge,
        ),
        (
            "The ridge goes on the diagonal alone (times torch.eye(N)), not on every entry.",
            lambda gram: _share_rebuilt(gram.double() + RIDGE * gram.diagonal().mean()),
        ),
        (
            "You took 1 over the diagonal of G; it is the diagonal of the *inverse* that counts.",
            lambda gram: 1 - 1 / gram.diagonal().square(),
        ),
        (
            "That is the square of the largest cosine, what one neuron rebuilds; here all may "
            "help.",
            lambda gram: cosine(gram).fill_diagonal_(0).square().max(1).values,
        ),
    ],
)
def rebuilt_by_all(gram: Tensor) -> Tensor:
    """Give R2, how much of each neuron all the others together rebuild.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N); no neuron is dead.

    Returns
    -------
    Tensor
        R2_i = 1 - 1 / (G_ii [G^-1]_ii), (N,), after one ten-thousandth of its mean was added to
        the diagonal of G.
    """
    return _by_inverse(gram, RIDGE)


_STAY = [
    torch.tensor([True, True, False, False, True, False]),
    torch.tensor([False, True, True, True, False, False]),
]
_PAIRS = [torch.tensor([[0, 1], [2, 4], [3, 5]]), torch.tensor([[0, 2], [1, 3]])]


def _first_layer(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    return planted.fate(masks[:1], pairs[:1])


def _last_layer(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Begins to count anew in every layer."""
    return planted.fate(masks[-1:], pairs[-1:])


def _numbered_through(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Looks up the pairs of every layer in one long mask, so in that of the first layer."""
    return planted.fate([torch.cat(list(masks))], [torch.cat(list(pairs))])


def _neurons(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Counts neurons where it should count pairs."""
    counts = planted.fate(masks, pairs)
    return {name: 2 * count for name, count in counts.items()}


def _at_least_one(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    counts = planted.fate(masks, pairs)
    return {**counts, "one": counts["one"] + counts["both"]}


def _as_shares(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, float]:
    counts = planted.fate(masks, pairs)
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def _of_removed(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    return planted.fate([~mask for mask in masks], pairs)


def _not_only_pairs(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Takes neighbours for pairs."""
    neighbours = [torch.arange(len(mask)).view(-1, 2) for mask in masks]
    return planted.fate(masks, neighbours)


@exercise(
    cases=[
        (_STAY, _PAIRS),
        (_STAY[1:], _PAIRS[1:]),
        (_STAY[:1], _PAIRS[:1]),
        ([torch.arange(8) < 5], [torch.tensor([[0, 1], [2, 3], [4, 5]])]),  # 2, 1 and 0
    ],
    hints=[
        ("Count the pairs of all layers, not of the first one alone.", _first_layer),
        ("That is the last layer alone: do not begin at 0 again in every layer.", _last_layer),
        (
            "The numbers in `pairs` begin at 0 in each layer: look each layer's pairs up in its "
            "own mask.",
            _numbered_through,
        ),
        ("Count pairs, not neurons.", _neurons),
        (
            '"one" means exactly one; a pair of which both stay counts under "both" alone.',
            _at_least_one,
        ),
        ("A mask is True for a neuron that stays; you counted the removed ones.", _of_removed),
        (
            "A pair is a row of `pairs`: its two numbers say which neurons of the mask to look at.",
            _not_only_pairs,
        ),
        ("Return the counts, whole numbers, not shares of all pairs.", _as_shares),
    ],
)
def fate(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> dict[str, int]:
    """Count the planted pairs of which both neurons stay, one, or none.

    Parameters
    ----------
    masks : sequence of Tensor
        Who stays, (N,) bool by layer.
    pairs : sequence of Tensor
        The pairs of each layer, (P, 2): the numbers of two neurons.

    Returns
    -------
    dict of str to int
        "both", "one" and "none", over all layers.
    """
    return planted.fate(masks, pairs)


def _moved(
    outgoing: Tensor, pairs: Tensor, into: int = 0, weight: float = 1.0, keep: float = 1.0
) -> Tensor:
    """Outgoing weights after one of each pair got the other's, times a weight."""
    merged = outgoing.clone()
    merged[pairs[:, into]] = keep * outgoing[pairs[:, into]] + weight * outgoing[pairs[:, 1 - into]]
    return merged


def _cleared(outgoing: Tensor, pairs: Tensor) -> Tensor:
    """Gives the copies' weights away, and the copies keep nothing."""
    merged = _moved(outgoing, pairs)
    merged[pairs[:, 1]] = 0
    return merged


def _into_both(outgoing: Tensor, pairs: Tensor) -> Tensor:
    """Gives the sum to both neurons of a pair."""
    merged = _moved(outgoing, pairs)
    merged[pairs[:, 1]] = merged[pairs[:, 0]]
    return merged


def _without_copies(outgoing: Tensor, pairs: Tensor) -> Tensor:
    """Removes the copies' rows."""
    stays = ~torch.isin(torch.arange(len(outgoing)), pairs[:, 1])
    return _moved(outgoing, pairs)[stays]


@exercise(
    cases=[
        (_OUT, torch.tensor([[0, 2], [1, 3]])),
        (_OUT, torch.tensor([[3, 1]])),
        (torch.cat([_OUT, _OUT.flip(0)]), torch.tensor([[0, 4], [5, 2]])),
    ],
    hints=[
        (
            "You gave the originals' weights to the copies; it is the copies that go.",
            lambda outgoing, pairs: _moved(outgoing, pairs, into=1),
        ),
        (
            "The original keeps its own share as well: add, do not replace.",
            lambda outgoing, pairs: _moved(outgoing, pairs, keep=0.0),
        ),
        (
            "No mean: the two wrote the *sum* of their shares into the stream.",
            lambda outgoing, pairs: _moved(outgoing, pairs, weight=0.5, keep=0.5),
        ),
        (
            "Nothing has changed. Mind that `outgoing[i]` of a copy is not the copy's row itself.",
            lambda outgoing, pairs: outgoing,
        ),
        (
            "Leave the copies' rows as they are: they are removed below.",
            _cleared,
        ),
        ("You gave the sum to both; the copy's row stays as it was.", _into_both),
        ("Return all N rows, the copies' too: they are removed below.", _without_copies),
    ],
)
def take_over(outgoing: Tensor, pairs: Tensor) -> Tensor:
    """Give each copy's outgoing weights to its original.

    Parameters
    ----------
    outgoing : Tensor
        The outgoing weights, a row for each neuron, (N, D).
    pairs : Tensor
        (P, 2): an original, and its copy.

    Returns
    -------
    Tensor
        (N, D): w_original + w_copy in the rows of the originals, else as before.
    """
    return _moved(outgoing, pairs)
