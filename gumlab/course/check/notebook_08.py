"""Exercises of notebook 08, GUM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gumlab.course import planted
from gumlab.course.check.judging import cosine_matrix, exercise, random_tensors
from gumlab.gram import cosine
from gumlab.scoring import gum_factor, mean_similarity, penalty_gradient

_SCORE, _SIMILARITY = random_tensors((6,), (6,))


def _slope(score: Tensor) -> Tensor:
    """The derivative of the sigmoid."""
    return torch.sigmoid(score) * (1 - torch.sigmoid(score))


@exercise(
    cases=[
        (_SCORE, _SIMILARITY.abs(), 4.0, 2),
        (3 * _SCORE, _SIMILARITY.abs() / 9, 1.0, 5),
    ],
    hints=[
        (
            "q_i = 1 + lambda_gum u_i; without the 1, a neuron that is like nobody is never "
            "pressed.",
            lambda score, u, lambda_gum, layers: (
                lambda_gum * u * _slope(score) / (len(score) * layers)
            ),
        ),
        (
            "That is the penalty itself; its slope is q_i s (1 - s), s = sigmoid(S_i).",
            lambda score, u, lambda_gum, layers: (
                (1 + lambda_gum * u) * torch.sigmoid(score) / (len(score) * layers)
            ),
        ),
        (
            "R is a mean over the N neurons of the layer: divide by N.",
            lambda score, u, lambda_gum, layers: (1 + lambda_gum * u) * _slope(score) / layers,
        ),
        (
            "The loss holds the mean of R over the layers: divide by their number.",
            lambda score, u, lambda_gum, layers: (1 + lambda_gum * u) * _slope(score) / len(score),
        ),
        (
            "q_i is missing: multiply by 1 + lambda_gum u_i.",
            lambda score, u, lambda_gum, layers: _slope(score) / (len(score) * layers),
        ),
        (
            "You forgot the sigmoid: in s (1 - s), s is sigmoid(S_i), not S_i.",
            lambda score, u, lambda_gum, layers: (
                (1 + lambda_gum * u) * score * (1 - score) / (len(score) * layers)
            ),
        ),
        (
            "The sign: this is the slope of the penalty; it is the optimiser that goes down.",
            lambda score, u, lambda_gum, layers: (
                -(1 + lambda_gum * u) * _slope(score) / (len(score) * layers)
            ),
        ),
    ],
)
def gum_gradient(score: Tensor, u: Tensor, lambda_gum: float, layers: int) -> Tensor:
    """Give the slope of GUM's penalty on one layer's scores.

    Parameters
    ----------
    score : Tensor
        The scores S, (N,).
    u : Tensor
        How similar each neuron is to those that are kept, (N,).
    lambda_gum : float
        How much similarity counts: q_i = 1 + lambda_gum u_i.
    layers : int
        The number of layers L.

    Returns
    -------
    Tensor
        d/dS of the mean over the L layers of R = (1/N) sum of q_i sigmoid(S_i), (N,).
    """
    return penalty_gradient(score, gum_factor(u, lambda_gum), layers)


(_H,) = random_tensors((20, 5))
_GRAM = _H.T @ _H
_WITH_DEAD = torch.tensor([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])


def _size(gram: Tensor) -> Tensor:
    """|cosine| with nothing on the diagonal, (N, N)."""
    return cosine(gram).abs().fill_diagonal_(0)


def _of_dead(gram: Tensor, mask: Tensor) -> Tensor:
    """0 / 0 for a dead neuron."""
    length = gram.diagonal().sqrt()
    size = (gram / length / length[:, None]).abs().fill_diagonal_(0)
    return (size * mask).sum(1) / mask.sum()


@exercise(
    cases=[
        (_GRAM, torch.tensor([True, False, True, True, False])),
        (_GRAM, torch.tensor([True, True, True, True, True])),
        (_GRAM[1:, 1:], torch.tensor([True, False, False, True])),
        (_WITH_DEAD, torch.tensor([True, True, True])),
    ],
    hints=[
        (
            "You count a kept neuron as its own neighbour; leave the diagonal out.",
            lambda gram, mask: (cosine(gram).abs() * mask).sum(1) / mask.sum(),
        ),
        (
            "Divide by the number of kept neurons, not by all N.",
            lambda gram, mask: mean_similarity(gram, mask) * mask.float().mean(),
        ),
        (
            "You divide by how many *others* are kept; divide by all that the mask keeps, the "
            "neuron itself among them.",
            lambda gram, mask: mean_similarity(gram, mask) * mask.sum() / (mask.sum() - 1 * mask),
        ),
        (
            "You divide by kept - 1; *kept* is how many the mask keeps, the same for all i.",
            lambda gram, mask: mean_similarity(gram, mask) * mask.sum() / (mask.sum() - 1),
        ),
        (
            "You add up over removed neighbours too; only kept j count.",
            lambda gram, mask: _size(gram).sum(1) / mask.sum(),
        ),
        (
            "You masked the rows. A neuron's neighbours are the columns of its row: mask those.",
            lambda gram, mask: (_size(gram) * mask[:, None]).sum(1) / mask.sum(),
        ),
        (
            "That is the nearest kept neighbour; u is a mean.",
            lambda gram, mask: (_size(gram) * mask).max(1).values,
        ),
        ("A dead neuron gives 0 / 0; clamp_min on the lengths avoids it.", _of_dead),
        (
            "You took the signed cosine; opposite neurons are alike too, so take |cos|.",
            lambda gram, mask: (cosine(gram) * mask).fill_diagonal_(0).sum(1) / mask.sum(),
        ),
        (
            "You mean over all the others; removed neurons do not count.",
            lambda gram, mask: mean_similarity(gram, torch.ones_like(mask)),
        ),
        (
            "Removed neurons get their u as well: it presses on them while they are away.",
            lambda gram, mask: mean_similarity(gram, mask) * mask,
        ),
    ],
)
def similarity_to_kept(gram: Tensor, mask: Tensor) -> Tensor:
    """Give u, how similar each neuron is to those that are kept.

    Parameters
    ----------
    gram : Tensor
        The layer's Gram matrix, (N, N).
    mask : Tensor
        (N,) bool, True for a neuron that is kept.

    Returns
    -------
    Tensor
        u_i = (sum over kept j != i of |cos_ij|) / (number kept), (N,).
    """
    return mean_similarity(gram, mask)


_PULLS = [torch.tensor([0.3, -0.2, 0.0]), torch.tensor([-0.1, 0.4])]
_PUSHES = [torch.tensor([0.02, 0.01, 0.03]), torch.tensor([0.05, 0.02])]


def _total(pulls: Sequence[Tensor], pushes: Sequence[Tensor], strength: float) -> list[Tensor]:
    """pull + strength push, layer by layer."""
    return [pull + strength * push for pull, push in zip(pulls, pushes, strict=True)]


@exercise(
    cases=[
        (_PULLS, _PUSHES, 1.0, 0.25, 0.3),
        (_PULLS, _PUSHES, 0.5, 0.1, 0.2),
        (_PULLS[:1], _PUSHES[:1], 0.25, 0.25, 0.3),
    ],
    hints=[
        (
            "The sign: the penalty is added to the loss, so its slope is added to the pull.",
            lambda pulls, pushes, kept_now, keep, penalty: _total(
                pulls, pushes, -penalty * kept_now / keep
            ),
        ),
        (
            "lambda_t is not the same at every step: lambda v_t / keep.",
            lambda pulls, pushes, kept_now, keep, penalty: _total(pulls, pushes, penalty),
        ),
        (
            "Divide v_t by keep: at the end, when v_t is keep, lambda_t is lambda itself.",
            lambda pulls, pushes, kept_now, keep, penalty: _total(
                pulls, pushes, penalty * kept_now
            ),
        ),
        (
            "The other way round: lambda_t is large while all neurons stay, and falls.",
            lambda pulls, pushes, kept_now, keep, penalty: _total(
                pulls, pushes, penalty * keep / kept_now
            ),
        ),
        (
            "lambda_t weighs the push alone; what the loss says counts as it is.",
            lambda pulls, pushes, kept_now, keep, penalty: [
                penalty * kept_now / keep * total for total in _total(pulls, pushes, 1.0)
            ],
        ),
        (
            "That is the push alone; the pull of the loss belongs to it.",
            lambda pulls, pushes, kept_now, keep, penalty: [
                penalty * kept_now / keep * push for push in pushes
            ],
        ),
    ],
)
def gum_slopes(
    pulls: Sequence[Tensor],
    pushes: Sequence[Tensor],
    kept_now: float,
    keep: float,
    penalty: float,
) -> list[Tensor]:
    """Give the slope that GUM's scores follow, layer by layer.

    Parameters
    ----------
    pulls : sequence of Tensor
        What the loss says, (N,) by layer: movement's slope.
    pushes : sequence of Tensor
        The slope of the penalty, (N,) by layer.
    kept_now : float
        v_t, the fraction of neurons that the schedule keeps at this step.
    keep : float
        The fraction at the end.
    penalty : float
        lambda.

    Returns
    -------
    list of Tensor
        pull + lambda_t push, (N,) by layer, with lambda_t = lambda v_t / keep.
    """
    return _total(pulls, pushes, penalty * kept_now / keep)


_U = [torch.tensor([0.1, 0.3, 0.2, 0.4]), torch.tensor([0.6, 0.1])]


@exercise(
    cases=[(0.3, _U, 4.0), (0.2, _U[:1], 1.0), (0.3, _U, 0.0)],
    hints=[
        (
            "Nothing is given back: multiply lambda by the mean of q.",
            lambda penalty, similarities, lambda_gum: penalty,
        ),
        (
            "q = 1 + lambda_gum u: without the 1 the control presses less than GUM.",
            lambda penalty, similarities, lambda_gum: float(
                penalty * lambda_gum * torch.cat(list(similarities)).mean()
            ),
        ),
        (
            "Take the mean over all neurons of the model, not over the layers' means.",
            lambda penalty, similarities, lambda_gum: float(
                penalty
                * torch.stack([gum_factor(u, lambda_gum).mean() for u in similarities]).mean()
            ),
        ),
        (
            "All layers count, not the first one alone.",
            lambda penalty, similarities, lambda_gum: float(
                penalty * gum_factor(similarities[0], lambda_gum).mean()
            ),
        ),
        (
            "Divide? GUM presses harder than plain L1, so the control's lambda must grow.",
            lambda penalty, similarities, lambda_gum: float(
                penalty / gum_factor(torch.cat(list(similarities)), lambda_gum).mean()
            ),
        ),
        (
            "That is the largest q; the control gives back the mean.",
            lambda penalty, similarities, lambda_gum: float(
                penalty * gum_factor(torch.cat(list(similarities)), lambda_gum).max()
            ),
        ),
    ],
)
def as_hard(penalty: float, similarities: Sequence[Tensor], lambda_gum: float) -> float:
    """Give the lambda with which plain L1 presses as hard as GUM.

    Parameters
    ----------
    penalty : float
        GUM's lambda.
    similarities : sequence of Tensor
        u of every neuron, (N,) by layer.
    lambda_gum : float
        GUM's weight of the uniqueness term.

    Returns
    -------
    float
        lambda times the mean of q = 1 + lambda_gum u over all neurons of the model.
    """
    return float(penalty * gum_factor(torch.cat(list(similarities)), lambda_gum).mean())


_MASKS = [torch.arange(8) < 4, torch.arange(6) < 1]
_PAIRS = [torch.tensor([[0, 4], [1, 5], [2, 6]]), torch.tensor([[0, 3], [1, 4]])]


def _by_chance(masks: Sequence[Tensor], pairs: Sequence[Tensor], draws: int, less: int) -> float:
    """The sum over the layers of P (k / N) to the power of `draws`, or with k and N one less."""
    expected = 0.0
    for mask, planted_here in zip(masks, pairs, strict=True):
        kept, width = int(mask.sum()), len(mask)
        first = kept / width
        second = (kept - less) / (width - less)
        expected += len(planted_here) * first * (second if draws == 2 else 1)
    return expected


def _model_as_one(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> float:
    """The chance of one big layer."""
    return planted.whole_by_chance([torch.cat(list(masks))], [torch.cat(list(pairs))])


@exercise(
    cases=[(_MASKS, _PAIRS), (_MASKS[:1], _PAIRS[:1]), (_MASKS[::-1], _PAIRS[::-1])],
    hints=[
        (
            "The second neuron is drawn from those that are left: (k - 1) / (N - 1), not k / N.",
            lambda masks, pairs: _by_chance(masks, pairs, draws=2, less=0),
        ),
        (
            "That is how many originals stay; a whole pair needs both neurons.",
            lambda masks, pairs: _by_chance(masks, pairs, draws=1, less=0),
        ),
        (
            "Each layer has its own width and its own chance: compute it layer by layer.",
            _model_as_one,
        ),
        (
            "That is what the masks keep; the question is what chance would keep at their widths.",
            lambda masks, pairs: float(planted.fate(masks, pairs)["both"]),
        ),
        (
            "That is each layer on its own; add them up.",
            lambda masks, pairs: [
                planted.whole_by_chance([mask], [two])
                for mask, two in zip(masks, pairs, strict=True)
            ],
        ),
        (
            "You count two for each pair (`numel`); a pair is a row: len(pairs of the layer).",
            lambda masks, pairs: 2 * planted.whole_by_chance(masks, pairs),
        ),
        (
            "An expected number need not be whole: do not round it.",
            lambda masks, pairs: float(round(planted.whole_by_chance(masks, pairs))),
        ),
        (
            "Multiply each layer's probability by its number of pairs.",
            lambda masks, pairs: planted.whole_by_chance(masks, [two[:1] for two in pairs]),
        ),
    ],
)
def whole_by_chance(masks: Sequence[Tensor], pairs: Sequence[Tensor]) -> float:
    """Give the whole pairs that chance would keep at these masks' own widths.

    Parameters
    ----------
    masks : sequence of Tensor
        Who stays, (N,) bool by layer; only how many of each layer counts.
    pairs : sequence of Tensor
        The pairs of each layer, (P, 2).

    Returns
    -------
    float
        The sum over the layers of P k (k - 1) / (N (N - 1)), with k of the N neurons kept.
    """
    return planted.whole_by_chance(masks, pairs)


def _alike(cosines: Tensor) -> Tensor:
    """Which pairs are twins, (N, N) bool."""
    return (cosines.abs() > 0.8).fill_diagonal_(False)


def _behind(scores: Tensor, cosines: Tensor) -> Tensor:
    """Who has a twin before it in the ranking, (N,) bool."""
    rank = scores.argsort(descending=True, stable=True).argsort()
    partner_is_before = rank[None] < rank[:, None]
    return (_alike(cosines) & partner_is_before).any(1)


def _behind_one_that_stays(scores: Tensor, cosines: Tensor) -> Tensor:
    """Who has a twin before it that does not go to the back itself."""
    alike = _alike(cosines)
    goes = torch.zeros(len(scores), dtype=torch.bool)
    for i in scores.argsort(descending=True, stable=True).tolist():
        ahead = (scores > scores[i]) | ((scores == scores[i]) & (torch.arange(len(scores)) < i))
        goes[i] = (alike[i] & ahead & ~goes).any()
    return goes


def _ahead_of_its_twin(scores: Tensor, cosines: Tensor) -> Tensor:
    """Who has a twin after it in the ranking, (N,) bool."""
    rank = scores.argsort(descending=True, stable=True).argsort()
    return (_alike(cosines) & (rank[None] < rank[:, None])).any(0)


def _sorted_once(scores: Tensor, cosines: Tensor) -> Tensor:
    """Takes the order for the places."""
    order = scores.argsort(descending=True, stable=True)
    return (_alike(cosines) & (order[None] < order[:, None])).any(1)


@exercise(
    cases=[
        (torch.tensor([0.1, 0.9, 0.5, 0.4]), cosine_matrix(4, {(0, 1): 0.9, (2, 3): 0.3})),
        (torch.tensor([0.3, 0.1, 0.2]), cosine_matrix(3, {(0, 1): -0.95, (1, 2): 0.85})),
        (torch.tensor([0.5, 0.5, 0.2, 0.5]), cosine_matrix(4, {(0, 1): 0.99, (2, 3): -0.9})),
        # 0.8 itself is not above it, nor is what is nearly as large
        (
            torch.tensor([0.9, 0.5, 0.4, 0.3, 0.2]),
            cosine_matrix(5, {(0, 1): 0.8, (2, 3): 0.78, (3, 4): 0.82}, dtype=torch.float64),
        ),
        (torch.tensor([0.9, 0.5, 0.1]), cosine_matrix(3, {(0, 1): 0.9, (1, 2): 0.9})),  # a chain
    ],
    hints=[
        (
            "Both twins go to the back. Only the lower-scored one should.",
            lambda scores, cosines: _alike(cosines).any(1),
        ),
        (
            "Of two equal scores neither goes back, so both may stay; the first one is the higher.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] > scores[:, None])).any(1),
        ),
        (
            "Of two equal scores both go back; the first one is the higher, and stays in front.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] >= scores[:, None])).any(1),
        ),
        (
            "All go to the back: each neuron has cosine 1 with itself. Leave the diagonal out.",
            lambda scores, cosines: ((cosines.abs() > 0.8) & (scores[None] >= scores[:, None])).any(
                1
            ),
        ),
        (
            "It is the *lower*-scored twin that goes to the back.",
            lambda scores, cosines: (_alike(cosines) & (scores[None] < scores[:, None])).any(1),
        ),
        (
            "Above 0.8 means >: two neurons at exactly 0.8 are no twins.",
            lambda scores, cosines: _behind(scores, cosines.where(cosines.abs() < 0.8, 1.0)),
        ),
        (
            "A partner with a higher score is enough, even if it goes to the back itself.",
            _behind_one_that_stays,
        ),
        (
            "argsort once gives the order; a second argsort gives each neuron's place in it.",
            _sorted_once,
        ),
        (
            "Those are ahead of a twin, and stay. In the table of j ahead of i the rows are i: "
            ".any(1), not .any(0).",
            _ahead_of_its_twin,
        ),
        (
            "|cosine|: an opposite neuron says the same with the other sign.",
            lambda scores, cosines: _behind(scores, cosines.clamp_min(0)),
        ),
    ],
)
def behind_its_twin(scores: Tensor, cosines: Tensor) -> Tensor:
    """Find the neurons that the twin filter sends to the back of the queue.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,).
    cosines : Tensor
        The signed cosine of every pair of neurons, (N, N).

    Returns
    -------
    Tensor
        (N,) bool, True for a neuron with a higher-scored partner at |cosine| above 0.8; of
        equal scores the first is the higher.
    """
    return _behind(scores, cosines)
