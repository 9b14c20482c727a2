"""The training-time methods: one small class each, what a neuron's score is at this step.

A rule is asked at every step of a run for one score per neuron, and keeps whatever it needs from
step to step. Its options are its own fields, which it checks itself. `Pruner` has the rest: the
schedule, the selection and the gates. A rule of your own is a subclass of `Rule` with a method
`scores`; give it to the pruner in place of a name:

    class Outgoing(Rule):
        def scores(self, now):
            return [layer.outgoing().detach().norm(dim=1) for layer in now.layers]

    pruner = gumlab.Pruner(model, Outgoing(), keep=0.25, steps=600)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gumlab import scoring
from gumlab.errors import GumlabError, check_choice, check_number, nearest, unknown
from gumlab.feedforward import FeedForward
from gumlab.gram import unrebuilt
from gumlab.ranks import averaged
from gumlab.selection import above_threshold

GRADIENTS = ("gate", "neuron")
_runs = itertools.count()
WARM_UP = 0.1  # of the steps, in which the rate of learned scores rises
OF_THE_GRAMS = ("gram_every", "gram_tokens", "gram_memory", "gram_neurons")
# the options of `Pruner` itself, for the name nearest to a misspelt one
OF_THE_PRUNER = (
    *("scope", "widths", "floor", "multiple_of", "seed", "start", "end", "freeze", "twin_filter"),
    *(*OF_THE_GRAMS, "final", "cut"),
)


class SeenGram(NamedTuple):
    """A layer's running Gram sums over the neurons that have a say in them.

    gram: (n, n). kept: (n,) bool, which of the n the mask in force keeps. rows: (n,), where the n
    stand in the layer as it is now; all of it, unless removed neurons are out for good.
    """

    gram: Tensor
    kept: Tensor
    rows: Tensor


@dataclass
class Moment:
    """Where a run stands when a rule is asked for its scores.

    Attributes
    ----------
    step, steps : int
        This step, from 1, and how many the run has.
    kept_now : float
        v_t, the fraction of neurons that the schedule keeps at this step.
    fraction_kept : float
        The fraction that the masks of the step before keep.
    keep : float
        The fraction to be kept at the end.
    layers : list of FeedForward
        The layers as they are now; L of them.
    masks : list of Tensor
        The masks of the step before, (N,) bool each, N the layer's width now.
    origin : list of Tensor
        (N,) each: where the layer's neurons stood when the run began. Neurons that a cutting pruner
        took out of the model are in no layer any more; state that a rule keeps over all the neurons
        it began with is read at these places.
    gram : callable or None
        `gram(i)` is layer i's `SeenGram`; None at the steps that add nothing to the sums, and where
        the rule did not ask for them (`needs_grams`).
    likeness : callable or None
        `likeness(i)` is u of layer i's neurons, (N,), where drawn neurons stand for all
        (`gram_neurons`); then `gram` is None.
    """

    step: int
    steps: int
    kept_now: float
    fraction_kept: float
    keep: float
    layers: Sequence[FeedForward]
    masks: Sequence[Tensor]
    origin: Sequence[Tensor]
    gram: Callable[[int], SeenGram] | None
    likeness: Callable[[int], Tensor] | None = None


@dataclass
class Rule:
    """A training-time method. Subclass it and write `scores`; the rest may stay as it is here."""

    scope = "layer"  # where Top_v ranks the neurons, unless the pruner is told otherwise
    selects = False  # True: the rule says itself which neurons stay (`masks`)

    @property
    def needs_grams(self) -> bool:
        """Whether running Gram sums are to be kept for this rule."""
        return False

    @property
    def likeness_is_enough(self) -> bool:
        """Whether of the Gram sums it reads each neuron's mean |cosine| alone."""
        return False

    @property
    def heard(self) -> list[Tensor] | None:
        """Leaf tensors (N,) that are to receive the gates' straight-through gradient, by layer."""
        return None

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """Set up for a run, and give the scores before its first step: one (N,) per layer.

        Parameters
        ----------
        layers : sequence of FeedForward
            The layers, dense.
        steps : int
            Optimizer steps of the run.
        seed : int
            For whatever the rule draws.
        """
        return [
            torch.zeros(layer.width, dtype=torch.float32, device=layer.device) for layer in layers
        ]

    def scores(self, now: Moment) -> list[Tensor]:
        """The score of every neuron at this step, high = keep: one (N,) per layer of `now.layers`.

        Called once a step, after the backward pass, so the weights have their gradients.
        """
        raise GumlabError(f"{type(self).__name__} needs a method scores(self, now).")

    def masks(self, scores: Sequence[Tensor], kept_now: float, keep: float) -> list[Tensor]:
        """The neurons that stay, (N,) bool per layer, where the rule `selects` itself."""
        raise GumlabError(f"{type(self).__name__} selects, but has no method masks.")

    def state_dict(self) -> dict[str, Any]:
        """What the rule needs to go on from this step: tensors, numbers, lists and dicts of them.

        Its options are not state: whoever resumes makes the rule with the same ones.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; `begin` was called before."""


@dataclass
class Random(Rule):
    """Gradual random: scores drawn once, uniform in (-1, 1); the honest baseline."""

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """Draw the scores."""
        drawn = scoring.random_scores(layers, seed)
        self._scores = [s.to(layer.device) for s, layer in zip(drawn, layers, strict=True)]
        return self._scores

    def scores(self, now: Moment) -> list[Tensor]:
        """The same scores at every step."""
        return _at_origin(self._scores, now)

    def state_dict(self) -> dict[str, Any]:
        """The drawn scores."""
        return {"scores": self._scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the drawn scores back."""
        self._scores = _like(state["scores"], self._scores)


@dataclass
class Magnitude(Rule):
    """L2 magnitude of all of a neuron's weights, as they are at this step."""

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """The magnitudes of the untrained weights."""
        return [scoring.magnitude(layer) for layer in layers]

    def scores(self, now: Moment) -> list[Tensor]:
        """The magnitudes now."""
        return [scoring.magnitude(layer) for layer in now.layers]


@dataclass
class Movement(Rule):
    """Hard movement: a learned score S per neuron that follows the straight-through gradient.

    Parameters
    ----------
    score_lr : float, optional
        Adam's rate for S, warmed up over 10 % of the steps, then falling linearly to 0; by default
        0.01.
    gradient : {"neuron", "gate"}
        "neuron" is the reference code's, over a neuron's weights, which gives a removed neuron
        none; it ends at lower losses (results/tuning_restaurants.csv). "gate" is the sum over
        tokens of h dL/dh', which goes on for removed neurons; it needs the model in training mode.

    References
    ----------
    Sanh, Wolf, Rush 2020; Lagunas et al. 2021; arXiv 2302.03773 (Top_v).
    """

    score_lr: float | None = None
    gradient: str = "neuron"
    learned: list[Tensor] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        check_choice("gradient", self.gradient, GRADIENTS)
        if self.score_lr is not None:
            check_number("score_lr", self.score_lr, above=0)

    @property
    def heard(self) -> list[Tensor] | None:
        """S, where the gates' gradient moves it."""
        return self.learned if self.gradient == "gate" else None

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """S = 0 for every neuron."""
        self.learned = [
            torch.zeros(layer.width, dtype=torch.float32, device=layer.device, requires_grad=True)
            for layer in layers
        ]
        self._lr = self.default_lr(steps) if self.score_lr is None else self.score_lr
        self._optimizer = torch.optim.Adam(self.learned, lr=self._lr)
        return self.learned

    def default_lr(self, steps: int) -> float:
        """Adam's rate for S in a run of so many steps, where none was given."""
        return 0.01

    def scores(self, now: Moment) -> list[Tensor]:
        """S after one step of Adam along its gradient and, where there is one, the penalty's."""
        self._learn(now)
        return _at_origin(self.learned, now)

    def penalty_strength(self, now: Moment) -> float:
        """lambda_t, the weight of the penalty on S at this step."""
        return 0.0

    def penalty_weights(self, layer: int) -> Tensor | float:
        """q of a layer's neurons in the penalty (1/N) sum_i q_i sigmoid(S_i)."""
        return 1.0

    def _learn(self, now: Moment) -> None:
        strength = self.penalty_strength(now)
        averaged([score.grad for score in self.learned])  # the gates'; those of weights are
        for i, (score, layer) in enumerate(zip(self.learned, now.layers, strict=True)):
            if self.gradient == "neuron":
                gradient = scoring.neuron_gradient(layer, now.masks[i])
                score.grad = torch.zeros_like(score).index_copy(0, now.origin[i], gradient)
            elif score.grad is None:
                raise GumlabError(
                    "No gradient reached the gates: model.train() before the loss is computed, "
                    "and loss.backward() before pruner.step()."
                )
            if strength:
                weights = self.penalty_weights(i)
                push = scoring.penalty_gradient(score.detach(), weights, len(now.layers))
                score.grad += strength * push
        self._optimizer.param_groups[0]["lr"] = self._lr * warmed_up(now.step, now.steps)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """S and Adam's moments."""
        return {
            "learned": [score.detach() for score in self.learned],
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put S and Adam's moments back."""
        for score, saved in zip(self.learned, state["learned"], strict=True):
            score.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])


@dataclass
class SoftMovement(Movement):
    """Soft movement: a neuron stays where sigmoid(S) is above a threshold that rises.

    It ends a little above `keep`: a penalty on S steers it there, `Pruner.fraction_kept` says where
    it is.

    Parameters
    ----------
    score_lr : float, optional
        As in `Movement`; by default the larger of 0.01 and 9 / steps.
    gradient : {"neuron", "gate"}
        As in `Movement`.
    penalty : float
        Where the weight of the penalty starts. It rises while more neurons are kept than the
        schedule asks for, and falls while fewer are.
    """

    selects = True
    penalty: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("penalty", self.penalty)

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """S = 0, the penalty at its start."""
        self._strength = self.penalty
        return super().begin(layers, steps, seed)

    def default_lr(self, steps: int) -> float:
        """The scores must reach the threshold within the run; elsewhere ranks alone count."""
        return max(0.01, 9 / steps)

    def penalty_strength(self, now: Moment) -> float:
        """The steered weight of the penalty."""
        direction = math.copysign(1, now.fraction_kept - now.kept_now)
        self._strength *= math.exp(20 / now.steps * direction)
        return self._strength

    def masks(self, scores: Sequence[Tensor], kept_now: float, keep: float) -> list[Tensor]:
        """The neurons above the threshold."""
        return above_threshold(scores, kept_now, keep)

    def state_dict(self) -> dict[str, Any]:
        """S, Adam's moments and the penalty's weight."""
        return {**super().state_dict(), "strength": self._strength}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put S, Adam's moments and the penalty's weight back."""
        super().load_state_dict(state)
        self._strength = state["strength"]


@dataclass
class GUM(Movement):
    """Globally Unique Movement: movement over all layers, pressed hardest where neurons are alike.

    Parameters
    ----------
    score_lr, gradient
        As in `Movement`.
    penalty : float
        lambda: the penalty's weight at a step is lambda v_t / keep.
    lambda_gum : float
        Weight of the uniqueness term in q_i = 1 + lambda_gum u_i; 0 is a plain L1 penalty.
    similarity : callable
        u of a layer's neurons, (n,), from their Gram matrix (n, n) and mask (n,) bool; by default
        the paper's mean |cosine| with the kept neurons.

    References
    ----------
    arXiv 2302.03773, and its reference code (PAPER: "GUM").
    """

    scope = "global"
    penalty: float = 0.3
    lambda_gum: float = 1.0
    similarity: Callable[[Tensor, Tensor], Tensor] = scoring.mean_similarity

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("penalty", self.penalty)
        check_number("lambda_gum", self.lambda_gum, least=-math.inf)
        if not callable(self.similarity):
            raise GumlabError(
                "similarity must be a function (gram, kept) -> (n,), such as "
                f"gumlab.scoring.mean_similarity; got {self.similarity!r:.60}."
            )

    @property
    def needs_grams(self) -> bool:
        """The similarity is read from running Gram sums."""
        return self.lambda_gum != 0

    @property
    def likeness_is_enough(self) -> bool:
        """With the paper's similarity."""
        return self.needs_grams and self.similarity is scoring.mean_similarity

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """S = 0, and every neuron pressed alike."""
        self.factors: list[Tensor | float] = [1.0 for _ in layers]
        return super().begin(layers, steps, seed)

    def scores(self, now: Moment) -> list[Tensor]:
        """S after one step; what the Gram sums say of likeness serves from the next step on."""
        self._learn(now)
        if now.likeness is not None:
            for i, origin in enumerate(now.origin):
                self._press(i, origin, now.likeness(i))
        elif now.gram is not None and self.needs_grams:
            for i, origin in enumerate(now.origin):
                seen = now.gram(i)
                self._press(i, origin[seen.rows], self.similarity(seen.gram, seen.kept))
        return _at_origin(self.learned, now)

    def _press(self, i: int, places: Tensor, u: Tensor) -> None:
        """Let q of layer i's neurons at `places` follow their similarity u."""
        if getattr(u, "shape", None) != places.shape:
            raise GumlabError(
                f"The similarity gave {tuple(getattr(u, 'shape', ()))} for layer {i}; expected one "
                f"number per neuron of the sums, {tuple(places.shape)}."
            )
        factors = scoring.gum_factor(u, self.lambda_gum)
        everywhere = factors.new_ones(len(self.learned[i]))
        self.factors[i] = everywhere.index_copy(0, places, factors)

    def penalty_strength(self, now: Moment) -> float:
        """lambda_t = lambda v_t / keep."""
        return self.penalty * now.kept_now / now.keep

    def penalty_weights(self, layer: int) -> Tensor | float:
        """q_i = 1 + lambda_gum u_i."""
        return self.factors[layer]

    def state_dict(self) -> dict[str, Any]:
        """S, Adam's moments and the factors q."""
        return {**super().state_dict(), "factors": self.factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put S, Adam's moments and the factors q back."""
        super().load_state_dict(state)
        device = self.learned[0].device
        self.factors = [
            q.to(device) if isinstance(q, Tensor) else float(q) for q in state["factors"]
        ]


@dataclass
class OBS(Rule):
    """OBS, renewed as the model trains: ||w_i||^2 times what others cannot rebuild of h_i.

    It has no options. The energy that cannot be rebuilt comes from running Gram sums.
    """

    scope = "global"

    @property
    def needs_grams(self) -> bool:
        """Always."""
        return True

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """Random scores, until the first sums are there: at the first step."""
        drawn = scoring.random_scores(layers, seed)
        self._scores = [s.to(layer.device) for s, layer in zip(drawn, layers, strict=True)]
        return self._scores

    def scores(self, now: Moment) -> list[Tensor]:
        """The scores by the newest sums."""
        if now.gram is not None:
            for i, layer in enumerate(now.layers):
                seen = now.gram(i)
                used = scoring.squared_norm(layer)[seen.rows]
                worth = used * unrebuilt(seen.gram, kept=seen.kept)
                places = now.origin[i][seen.rows]
                self._scores[i] = self._scores[i].to(worth).index_copy(0, places, worth)
        return _at_origin(self._scores, now)

    def state_dict(self) -> dict[str, Any]:
        """The newest scores."""
        return {"scores": self._scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the newest scores back."""
        device = self._scores[0].device
        self._scores = [score.to(device) for score in state["scores"]]


METHODS: dict[str, type[Rule]] = {
    "random": Random,
    "magnitude": Magnitude,
    "movement": Movement,
    "soft_movement": SoftMovement,
    "gum": GUM,
    "obs": OBS,
}


def rule_of(method: str | Rule, options: dict[str, Any]) -> Rule:
    """The rule of a method's name, made with its options; a rule of your own as it is.

    Raises GumlabError for an unknown name, and for an option that the method does not have, naming
    the nearest and those that it has.
    """
    if isinstance(method, Rule):
        if options:
            raise GumlabError(
                f"The options {', '.join(options)} belong to a rule that is given as an object: "
                f"make {type(method).__name__} with them."
            )
        return method
    if not isinstance(method, str):
        raise GumlabError(
            f"method must be a name or a rule of your own, an object of a subclass of "
            f"gumlab.rules.Rule; got {method!r:.60}. The names: {', '.join(METHODS)}."
        )
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    own = options_of(method)
    for name in options:
        if name not in own:
            owners = [other for other in METHODS if name in options_of(other)]
            belongs = f" {name} belongs to {', '.join(owners)}." if owners else ""
            has = f"It has: {', '.join(own)}." if own else "It has none of its own."
            near = "" if owners else nearest(name, (*own, *OF_THE_PRUNER))
            raise GumlabError(f"Method {method!r} has no option {name!r}.{near} {has}{belongs}")
    return METHODS[method](**options)


def begun(rule: Rule) -> int:
    """Note in a rule that a run began with it; the number of that run, in this process."""
    number = next(_runs)
    object.__setattr__(rule, "_gumlab_run", number)  # a rule of your own may be frozen
    return number


def run_of(rule: Rule) -> int | None:
    """The number of the run that a rule was last begun for; None for none."""
    return getattr(rule, "_gumlab_run", None)


def check_grams_used(rule: Rule, options: Mapping[str, Any]) -> None:
    """Raise GumlabError for settings of Gram sums that neither the rule nor a twin filter keeps.

    Parameters
    ----------
    rule : Rule
        With its options.
    options : mapping
        Those given to the `Pruner`.
    """
    if rule.needs_grams or options.get("twin_filter") is not None:
        return
    idle = [name for name in OF_THE_GRAMS if name in options]
    if idle:
        raise GumlabError(
            f"{', '.join(idle)}: the rule {type(rule).__name__} keeps no running Gram sums as it "
            "is set, so nothing would come of it. Leave it out, or take a twin_filter, which keeps "
            "them."
        )


def options_of(method: str) -> tuple[str, ...]:
    """The names of a method's own options.

    >>> options_of("movement")
    ('score_lr', 'gradient')
    """
    return tuple(f.name for f in dataclasses.fields(METHODS[method]) if f.init)


def options_held(rule: Rule) -> dict[str, Any]:
    """What a rule was made with; what it learned in a run is no setting of the next one."""
    if "__dataclass_fields__" in vars(type(rule)):
        return {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule) if f.init}
    return {name: value for name, value in vars(rule).items() if not name.startswith("_")}


def warmed_up(step: int, steps: int) -> float:
    """The factor on the rate of learned scores at `step` (from 1): linear up, then linear to 0."""
    rise = max(1, round(WARM_UP * steps))
    return min(step / rise, max(0.0, (steps - step) / max(1, steps - rise)))


def _at_origin(scores: Sequence[Tensor], now: Moment) -> list[Tensor]:
    """Of scores over all neurons that a run began with, those of the neurons still in the model."""
    pairs = zip(scores, now.origin, strict=True)
    return [s if len(s) == len(origin) else s.detach()[origin] for s, origin in pairs]


def _like(saved: Sequence[Tensor], present: Sequence[Tensor]) -> list[Tensor]:
    """The saved tensors, each on the device of the present one."""
    return [s.to(p.device) for s, p in zip(saved, present, strict=True)]
