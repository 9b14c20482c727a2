"""Scores, selection and gates over the steps of a training run: `Pruner`.

`pruner.step()`, after each backward pass, moves the scores and sets the gates along the schedule.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gumlab import scoring, selection
from gumlab.errors import GumlabError, unknown
from gumlab.feedforward import neurons
from gumlab.gating import Gate, RunningGrams, averaged, check_running, remove_gates
from gumlab.statistics import unrebuilt
from gumlab.twins import demote_twins, twin_pairs

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
    Soft movement keeps every neuron with sigmoid(S) above a threshold, but at least int(keep N) + 1
    in a layer, so it ends a little above `keep`: `fraction_kept` says where.

    score_lr: Adam's rate for learned scores (default 0.01; soft movement 9 / steps or more), warmed
    up over 10 % of the steps, then falling linearly to 0. gradient: "neuron" (the reference
    code's, over all of a neuron's weights; none for a removed neuron) or "gate" (sum over tokens of
    h dL/dh', for removed neurons too); "neuron" is the default because it gave the lower loss
    (results/tuning_restaurants.csv, results/methods_restaurants.md).

    penalty: GUM's lambda (lambda_t = lambda v_t / keep), and where soft movement's starts, which
    is then steered towards the asked fraction. lambda_gum: weight of GUM's uniqueness term (0:
    plain L1). similarity: u of GUM's factors from (Gram matrix (N, N), mask (N,)), (N,); by
    default the paper's mean |cosine|. twin_filter: with a threshold (0.8), a neuron that has a
    higher-scored partner with |cosine| above it goes to the back of the queue (`select`).

    GUM's similarity, the twin filter and "obs" (||w_i||^2 times the energy that the kept neurons
    cannot rebuild, renewed as the model trains) come from running Gram sums: see `RunningGrams`.

    Raises GumlabError for a value that cannot be met. `masks`, `scores` and `fraction_kept` say
    where the run stands, `returned` how often a removed neuron came back.
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
        self.scope = scope or SCOPE.get(method, "layer")
        self.widths, self.floor, self.multiple_of = widths, floor, multiple_of
        self.start, self.end, self.freeze = start, end, freeze
        # soft movement's scores must reach the threshold within the run; elsewhere ranks count
        travel = 9 / steps if method == "soft_movement" else 0.0
        self.score_lr, self.gradient = score_lr or max(0.01, travel), gradient
        self.penalty, self.lambda_gum, self.similarity = penalty, lambda_gum, similarity
        self.twin_filter = twin_filter
        self._soft, self.step_count, self.returned, self.frozen = penalty, 0, 0, False

        self.layers = neurons(model)
        device = self.layers[0].proj.weight.device
        if self.learned:
            self.scores = [
                torch.zeros(n.width, device=device, requires_grad=True) for n in self.layers
            ]
            self._optimizer = torch.optim.Adam(self.scores, lr=self.score_lr)
        else:
            self.scores = [s.to(device) for s in scoring.random_scores(self.layers, seed)]
        if widths is not None:
            selection.check_widths(widths, [n.width for n in self.layers])
        self._target(self.scores, keep)  # raises now, before a long run, if keep cannot be met
        remove_gates(model)
        to_score = self.learned and gradient == "gate"
        self.gates = [
            Gate(n, s if to_score else None) for n, s in zip(self.layers, self.scores, strict=True)
        ]
        self.grams, self._factors, self._twins = None, [1.0] * len(self.gates), None
        if (method == "gum" and lambda_gum) or method == "obs" or twin_filter is not None:
            self.grams = RunningGrams(model, self.gates, gram_every, gram_tokens, gram_memory, seed)

    @property
    def learned(self) -> bool:
        """True where the scores follow a gradient."""
        return self.method in ("movement", "soft_movement", "gum")

    @property
    def masks(self) -> list[Tensor]:
        """The masks in force, one (N,) bool tensor per layer."""
        return [gate.mask.clone() for gate in self.gates]

    @property
    def fraction_kept(self) -> float:
        """The fraction of neurons that the masks in force keep."""
        return sum(int(g.mask.sum()) for g in self.gates) / sum(n.width for n in self.layers)

    def step(self) -> None:
        """One step: after loss.backward(), before optimizer.step()."""
        self.step_count += 1
        if self.frozen:
            return
        v = selection.schedule(self.step_count, self.steps, self.keep, self.start, self.end)
        if self.method == "magnitude":
            self.scores = [scoring.magnitude(layer) for layer in self.layers]
        if self.learned:
            self._learn(v)
        if self.grams is not None:
            if self.grams.due:
                self._refresh()
            self.grams.step += 1
        for gate, mask in zip(self.gates, self._select(v), strict=True):
            self.returned += int((mask & ~gate.mask).sum())
            gate.mask = mask
        if self.freeze and self.step_count >= self.end * self.steps:
            self._freeze()
        if self.method == "soft_movement" and (self.frozen or self.step_count == self.steps):
            self._say_what_was_reached()

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
                score.grad = scoring.neuron_gradient(self.layers[i], gate.mask)
            if strength and score.grad is not None:
                score.grad += strength * scoring.penalty_gradient(
                    score.detach(), self._factors[i], len(self.layers)
                )
        t, warm_up = self.step_count, max(1, round(0.1 * self.steps))
        rate = min(t / warm_up, max(0.0, (self.steps - t) / max(1, self.steps - warm_up)))
        self._optimizer.param_groups[0]["lr"] = self.score_lr * rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _refresh(self) -> None:
        """What the Gram sums say now; GUM's factors serve from the next step on."""
        pairs = list(zip(averaged(self.grams.sums), (g.mask for g in self.gates), strict=True))
        if self.method == "gum":
            self._factors = [
                scoring.gum_factor(self.similarity(g, m), self.lambda_gum) for g, m in pairs
            ]
        if self.method == "obs":
            self.scores = [
                scoring.squared_norm(layer) * unrebuilt(gram, kept=mask)
                for layer, (gram, mask) in zip(self.layers, pairs, strict=True)
            ]
        if self.twin_filter is not None:
            self._twins = [twin_pairs(gram, self.twin_filter) for gram, _ in pairs]

    def _target(self, scores: list[Tensor], v: float) -> list[int]:
        if self.widths is not None:  # fall from the full widths to the fixed ones with v
            share = (v - self.keep) / (1 - self.keep) if self.keep < 1 else 0.0
            pairs = zip(self.widths, self.layers, strict=True)
            return [w + round(share * (n.width - w)) for w, n in pairs]
        last = self.step_count == math.ceil((self.end if self.freeze else 1) * self.steps)
        return selection.layer_widths(
            scores, v, self.scope, floor=self.floor, multiple_of=self.multiple_of, warn=last
        )

    def _select(self, v: float) -> list[Tensor]:
        scores = [s.detach() for s in self.scores]
        if self._twins is not None:
            scores = demote_twins(scores, self._twins)
        if self.method != "soft_movement":
            return selection.select(scores, widths=self._target(scores, v))
        return selection.above_threshold(scores, v, self.keep)

    def _strength(self, v: float) -> float:
        """lambda_t. Soft movement's rises while more is kept than v_t asks, else it falls."""
        if self.method == "soft_movement":
            self._soft *= math.exp(20 / self.steps * math.copysign(1, self.fraction_kept - v))
            return self._soft
        return self.penalty * v / self.keep if self.method == "gum" else 0.0

    def _say_what_was_reached(self) -> None:
        if self.fraction_kept > self.keep + 0.05:
            warnings.warn(
                f"Soft movement keeps {self.fraction_kept:.1%} of the neurons instead of "
                f"{self.keep:.1%}: its scores did not get far enough. Raise steps or score_lr.",
                stacklevel=3,
            )

    def _freeze(self) -> None:
        self.frozen = True
        for gate in self.gates:
            gate.score = gate.watch = None
        if self.grams is not None:
            self.grams.remove()

    def __repr__(self) -> str:
        kept, total = sum(int(g.mask.sum()) for g in self.gates), sum(n.width for n in self.layers)
        return (
            f"Pruner({self.method}, {self.scope}, step {self.step_count}/{self.steps}, keeps "
            f"{kept:,} of {total:,} neurons ({kept / total:.1%}), target {self.keep:.1%})"
        )


def _check(method: str, gradient: str, scope: str | None, keep: float, steps: int) -> None:
    if method in (*scoring.SCORES, "recommended") and method not in METHODS:
        raise GumlabError(
            f"Method {method!r} cuts once, before the training: small = gumlab.prune(model, "
            f"{method!r}, tokenizer, task, keep={keep}), then gumlab.train(small, ...)."
        )
    for kind, name, known in (
        ("method", method, METHODS),
        ("gradient", gradient, GRADIENTS),
        ("scope", scope, (*selection.SCOPES, None)),
    ):
        if name not in known:
            raise unknown(kind, name, [k for k in known if k])
    selection.check_keep(keep)
    if steps < 1:
        raise GumlabError(f"steps must be 1 or more, got {steps}.")
