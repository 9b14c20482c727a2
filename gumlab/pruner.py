"""Scores, selection and gates over the steps of a training run: `Pruner`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gumlab import scoring, selection
from gumlab.collecting import RunningGrams, averaged, check_running
from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import neurons
from gumlab.gating import Gate, remove_gates
from gumlab.gram import twin_pairs, unrebuilt
from gumlab.removal import check_optimizers, cut, cut_pays
from gumlab.selection import demote_twins

METHODS = ("random", "magnitude", "movement", "soft_movement", "gum", "obs")
SCOPE = {"gum": "global", "obs": "global"}  # all layers together; the others each layer alone
GRADIENTS = ("gate", "neuron")


class Pruner:
    """Prunes a model's feed-forward neurons while it trains.

    method: one of METHODS. keep: fraction of all neurons left at the end. steps: optimizer steps
    of the run. scope: "layer" or "global" (default: global for GUM, else layer). widths: fixed
    kept neurons by layer (the control "random at the same widths"). floor, multiple_of: see
    `select`. start, end: where the schedule leaves 1 and reaches keep; with `freeze` (default) the
    masks stay as they are from `end` on, without it they go on changing, as in the reference code.
    Soft movement has a threshold, and ends a little above `keep`: `fraction_kept` says where.

    score_lr: Adam's rate for learned scores (default 0.01; soft movement 9 / steps or more), warmed
    up over 10 % of the steps, then falling linearly to 0. gradient: "neuron" (the reference code's,
    over a neuron's weights; none for a removed one; lower losses in results/tuning_restaurants.csv)
    or "gate" (sum over tokens of h dL/dh', for removed neurons too, in training mode).

    penalty: GUM's lambda (lambda_t = lambda v_t / keep), and where soft movement's starts, which
    is then steered towards the asked fraction. lambda_gum: weight of GUM's uniqueness term (0:
    plain L1). similarity: u of GUM's factors from (Gram matrix (N, N), mask (N,)), (N,); by
    default the paper's mean |cosine|. twin_filter: with a threshold (0.8), a neuron that has a
    higher-scored partner with |cosine| above it goes to the back of the queue (`select`).
    GUM's similarity, the twin filter and "obs" (||w_i||^2 times the energy that the kept neurons
    cannot rebuild, renewed as the model trains) come from running Gram sums: see `RunningGrams`.

    final: a removed neuron never returns, nor has a say in the Gram sums. cut: besides, it leaves
    model and optimizer when an eighth of those there is out, and as the masks freeze: `final` in
    less time (on a GPU take multiple_of=8); a refit then has nothing to take over.
    `masks`, `scores`, `fraction_kept`: where the run stands, over all neurons it began with;
    `returned`: how often a removed one came back. Raises GumlabError for what cannot be met.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "gum",
        keep: float = 0.25,
        steps: int = 600,
        *,
        scope: str | None = None,
        widths: list[int] | None = None,
        floor: int = 1,
        multiple_of: int = 1,
        seed: int = 0,
        start: float = 0.1,
        end: float = 0.7,
        freeze: bool = True,
        score_lr: float | None = None,
        gradient: str = "neuron",
        penalty: float = 0.3,
        lambda_gum: float = 1.0,
        similarity: Callable[[Tensor, Tensor], Tensor] = scoring.mean_similarity,
        twin_filter: float | None = None,
        gram_every: int = 8,
        gram_tokens: float = 0.25,
        gram_memory: float = 0.8,
        final: bool = False,
        cut: bool = False,
    ) -> None:
        _check(method, gradient, scope, keep, steps)
        check_running(gram_every, gram_tokens, gram_memory)
        asked = (widths, scope, twin_filter) != (None, None, None) or multiple_of != 1
        if method == "soft_movement" and asked:
            raise GumlabError(
                "Soft movement keeps whatever lies above its threshold: it takes no widths, "
                "multiple_of, scope or twin_filter. Leave them out, or use method='movement'."
            )
        selection.schedule(0, steps, keep, start, end)  # raises for a start or end out of order
        self.model, self.method, self.keep, self.steps = model, method, keep, steps
        self.learned, self.scope = method in scoring.LEARNED, scope or SCOPE.get(method, "layer")
        self.widths, self.floor, self.multiple_of = widths, floor, multiple_of
        self.start, self.end, self.freeze = start, end, freeze
        # soft movement's scores must reach the threshold within the run; elsewhere ranks count
        travel = 9 / steps if method == "soft_movement" else 0.0
        self.score_lr, self.gradient = score_lr or max(0.01, travel), gradient
        self.penalty, self.lambda_gum, self.similarity = penalty, lambda_gum, similarity
        self.twin_filter, self.final, self.cut = twin_filter, final or cut, cut
        self._soft, self.step_count, self.returned, self.frozen = penalty, 0, 0, False
        self.layers = neurons(model)
        device = self.layers[0].proj.weight.device
        self.scores = [s.to(device) for s in scoring.random_scores(self.layers, seed)]
        if self.learned:
            self.scores = [torch.zeros_like(s, requires_grad=True) for s in self.scores]
            self._optimizer = torch.optim.Adam(self.scores, lr=self.score_lr)
        if widths is not None:
            selection.check_widths(widths, [n.width for n in self.layers])
        self._target(self.scores, keep)  # raises now, before a long run, if keep cannot be met
        remove_gates(model)
        heard = self.scores if self.learned and gradient == "gate" else [None] * len(self.scores)
        self.gates = [Gate(n, s) for n, s in zip(self.layers, heard, strict=True)]
        self.grams, self._factors, self._twins = None, [1.0] * len(heard), [None] * len(heard)
        if (method == "gum" and lambda_gum) or method == "obs" or twin_filter is not None:
            self.grams = RunningGrams(model, self.gates, gram_every, gram_tokens, gram_memory, seed)

    @property
    def masks(self) -> list[Tensor]:
        """The masks in force, one (N,) bool tensor per layer."""
        return [gate.kept for gate in self.gates]

    @property
    def fraction_kept(self) -> float:
        """The fraction of neurons that the masks in force keep."""
        return sum(int(g.mask.sum()) for g in self.gates) / sum(g.size for g in self.gates)

    def step(self, *optimizers: Any) -> bool:
        """A step, after loss.backward(); with cut: step(optimizer). True if neurons left."""
        if self.cut and not self.frozen:
            check_optimizers(self.layers, optimizers)
        self.step_count += 1
        if self.frozen:
            return False
        v = selection.schedule(self.step_count, self.steps, self.keep, self.start, self.end)
        if self.method == "magnitude":
            for i, g in enumerate(self.gates):
                self.scores[i] = self.scores[i].index_copy(0, g.left, scoring.magnitude(g.layer))
        if self.learned:
            self._learn(v)
        if self.grams is not None:
            if self.grams.due:
                self._refresh()
            self.grams.step += 1
        for gate, mask in zip(self.gates, self._select(v), strict=True):
            mask = mask[gate.left]
            self.returned += int((mask & ~gate.mask).sum())
            gate.mask = mask
        if self.freeze and self.step_count >= self.end * self.steps:
            self._freeze()
        last = self.frozen or self.step_count == self.steps
        if cuts := self.cut and cut_pays(self.gates, last):
            cut(self.model, self.gates, self.grams.sums if self.grams else [], optimizers)
        if self.method == "soft_movement" and last and self.fraction_kept > self.keep + 0.05:
            warnings.warn(
                f"Soft movement keeps {self.fraction_kept:.1%} of the neurons instead of "
                f"{self.keep:.1%}: its scores did not get far enough. Raise steps or score_lr.",
                stacklevel=2,
            )
        return cuts

    def remove(self) -> None:
        """Take every gate off the model; its weights stay as they are."""
        self._freeze()
        for gate in self.gates:
            gate.remove()

    def _learn(self, v: float) -> None:
        strength = self._strength(v)
        averaged([score.grad for score in self.scores])  # the gates', by rank; weights' are already
        for i, (score, gate) in enumerate(zip(self.scores, self.gates, strict=True)):
            if self.gradient == "neuron":
                gradient = scoring.neuron_gradient(gate.layer, gate.mask)
                score.grad = torch.zeros_like(score).index_copy(0, gate.left, gradient)
            elif score.grad is None:
                raise GumlabError("No gradient reached the gates: model.train() before the loss.")
            if strength:
                term = scoring.penalty_gradient(score.detach(), self._factors[i], len(self.layers))
                score.grad += strength * term
        t, warm_up = self.step_count, max(1, round(0.1 * self.steps))
        rate = min(t / warm_up, max(0.0, (self.steps - t) / max(1, self.steps - warm_up)))
        self._optimizer.param_groups[0]["lr"] = self.score_lr * rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _refresh(self) -> None:
        """What the Gram sums say now; GUM's factors serve from the next step on."""
        for i, (gram, gate) in enumerate(zip(averaged(self.grams.sums), self.gates, strict=True)):
            mask, seen = gate.mask, torch.ones_like(gate.mask)
            if self.final:
                gram, mask, seen = gram[mask][:, mask], mask[mask], mask
            place = gate.left[seen]
            if self.method == "gum":
                factors = scoring.gum_factor(self.similarity(gram, mask), self.lambda_gum)
                self._factors[i] = factors.new_ones(gate.size).index_copy(0, place, factors)
            if self.method == "obs":
                worth = scoring.squared_norm(gate.layer)[seen] * unrebuilt(gram, kept=mask)
                self.scores[i] = self.scores[i].to(worth).index_copy(0, place, worth)
            if self.twin_filter is not None:
                self._twins[i] = place[twin_pairs(gram, self.twin_filter)]

    def _target(self, scores: list[Tensor], v: float) -> list[int]:
        if self.widths is not None:  # fall from the full widths to the fixed ones with v
            share = (v - self.keep) / (1 - self.keep) if self.keep < 1 else 0.0
            pairs = zip(self.widths, scores, strict=True)
            return [w + round(share * (len(s) - w)) for w, s in pairs]
        last = self.step_count == math.ceil((self.end if self.freeze else 1) * self.steps)
        options = {"floor": self.floor, "multiple_of": self.multiple_of, "warn": last}
        widths = selection.layer_widths(scores, v, self.scope, **options)
        there = [int((s > -math.inf).sum()) for s in scores]  # rounding may ask for one back
        return selection.apportion(widths, sum(widths), [1] * len(there), there, self.multiple_of)

    def _select(self, v: float) -> list[Tensor]:
        scores = self._standing([s.detach() for s in self.scores])
        if self.twin_filter is not None:
            scores = self._standing(demote_twins(scores, self._twins))
        if self.method != "soft_movement":
            return selection.select(scores, widths=self._target(scores, v))
        return selection.above_threshold(scores, v, self.keep)

    def _standing(self, scores: list[Tensor]) -> list[Tensor]:
        """The scores, -inf where a removed neuron may not return."""
        pairs = zip(scores, self.gates, strict=True)
        return [s.masked_fill(~g.kept & self.final, -math.inf) for s, g in pairs]

    def _strength(self, v: float) -> float:
        """lambda_t. Soft movement's rises while more is kept than v_t asks, else it falls."""
        if self.method == "soft_movement":
            self._soft *= math.exp(20 / self.steps * math.copysign(1, self.fraction_kept - v))
            return self._soft
        return self.penalty * v / self.keep if self.method == "gum" else 0.0

    def _freeze(self) -> None:
        self.frozen = True
        for gate in self.gates:
            gate.score = gate.watch = None
        if self.grams is not None:
            self.grams.remove()

    def __repr__(self) -> str:
        kept, total = self.fraction_kept, sum(g.size for g in self.gates)
        return (
            f"Pruner({self.method}, {self.scope}, step {self.step_count}/{self.steps}, keeps "
            f"{round(kept * total):,} of {total:,} neurons ({kept:.1%}), target {self.keep:.1%})"
        )


def _check(method: str, gradient: str, scope: str | None, keep: float, steps: int) -> None:
    if method in (*scoring.SCORES, "recommended") and method not in METHODS:
        raise GumlabError(
            f"Method {method!r} cuts once, before the training: small = gumlab.prune(model, "
            f"{method!r}, tokenizer, task, keep={keep}), then gumlab.train(small, ...)."
        )
    known = {"method": METHODS, "gradient": GRADIENTS, "scope": (*selection.SCOPES, None)}
    for (kind, names), name in zip(known.items(), (method, gradient, scope), strict=True):
        if name not in names:
            raise unknown(kind, name, [k for k in names if k])
    selection.check_keep(keep)
    if steps < 1:
        raise GumlabError(f"steps must be 1 or more, got {steps}.")
