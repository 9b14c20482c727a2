"""Schedule, selection and gates over the steps of a training run: `Pruner`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gumlab import ranks, rules, scoring, selection
from gumlab.collecting import RunningGrams, RunningLikeness, check_running
from gumlab.errors import (
    GumlabError,
    check_choice,
    check_flag,
    check_number,
    check_seed,
    check_whole,
    warn_caller,
)
from gumlab.feedforward import (
    FeedForward,
    check_in_place,
    check_no_layer_dropped,
    check_values,
    neurons,
)
from gumlab.gating import (
    Gate,
    check_device,
    check_no_fixed_gates,
    kept_by_gates,
    remove_gates,
)
from gumlab.gram import twin_pairs
from gumlab.language import check_trainable
from gumlab.offloading import check_resident
from gumlab.removal import (
    check_optimizers,
    cut_layer,
    cut_pays,
    cut_to_gates,
    record_width,
    weights_cut,
)
from gumlab.rules import Moment, Rule, SeenGram
from gumlab.tasks.batches import by_itself

METHODS = tuple(rules.METHODS)
USUAL_GRAMS: dict[str, Any] = {
    "gram_every": 8,
    "gram_tokens": 0.25,
    "gram_memory": 0.8,
    "gram_neurons": None,
}
_STATE = {
    *("settings", "step_count", "returned", "frozen", "weights", "masks", "origin"),
    *("scores", "scores_when_cut", "rule"),
}


class Pruner:
    """Prunes a model's feed-forward neurons while it trains.

    A *rule* scores the neurons at every step (`gumlab.rules`); the pruner has the schedule that
    says how many stay, the selection that says which, and the gates that put the masks in force.

    Parameters
    ----------
    model : nn.Module
        A decoder whose blocks `gumlab.neurons` finds. It is gated in place.
    method : str or Rule
        "random", "magnitude", "movement", "soft_movement", "gum" or "obs", or a rule of your own.
    keep : float
        The fraction of all feed-forward neurons left at the end, in (0, 1].
    steps : int
        Optimizer steps of the run.
    scope : {"layer", "global"}, optional
        Where Top_v ranks neurons; by default global for GUM and OBS, else layer.
    widths : list of int, optional
        How many neurons each layer keeps, instead of `keep` and `scope` (the control "random at the
        same widths"); `keep` becomes the fraction that they are of all neurons.
    floor, multiple_of : int
        As in `gumlab.select`.
    seed : int
        Of the random scores and of the tokens that the Gram sums sample.
    start, end : float
        The shares of the steps at which the schedule leaves 1 and reaches `keep`.
    freeze : bool
        From `end` on the masks stay as they are; without it they go on changing, as in the
        reference code.
    twin_filter : float, optional
        With a threshold (0.8), a neuron that has a higher-scored partner with |cosine| above it
        goes to the back of the queue (`gumlab.select`).
    gram_every, gram_tokens, gram_memory
        How the running Gram sums are kept, which GUM's similarity, OBS and the twin filter need;
        see `gumlab.collecting.RunningGrams`.
    gram_neurons : int, optional
        GUM compares all neurons with so many kept ones, drawn anew at each addition, instead of
        with all (`gumlab.collecting.RunningLikeness`): cheap enough for gram_every=1, and no N x N
        sums are held. Only for the paper's similarity, without a twin filter.
    final : bool
        A removed neuron never returns, nor has a say in the Gram sums.
    cut : bool
        `final`, and removed neurons leave model and optimizer when an eighth of those there is out,
        and as the masks freeze: the same in less time (on a GPU take multiple_of=8). A refit then
        has nothing to take over.
    **options
        The method's own: see its class in `gumlab.rules` (`score_lr`, `gradient`, `penalty`,
        `lambda_gum`, `similarity`).

    Attributes
    ----------
    rule : Rule
        The method, with its options and its state.
    masks : list of Tensor
        (N,) bool per layer, the masks in force, over the neurons that the model has now: they fit
        `gumlab.shrink(model, pruner.masks)` at any time.
    scores : list of Tensor
        (N,) per layer, the scores by which they were chosen.
    original_masks, original_scores : list of Tensor
        The same over the neurons that the run began with. They differ with `cut` only.
    gates : list of Gate
        One per layer.
    grams : RunningGrams, RunningLikeness or None
        The running Gram sums, where something needs them.
    step_count, returned : int
        Steps done; how often a removed neuron came back.
    frozen : bool
        Whether the masks are final.

    Raises
    ------
    GumlabError
        For whatever cannot be met, and for an option that the method does not have.
    """

    @by_itself()
    def __init__(
        self,
        model: nn.Module,
        method: str | Rule = "gum",
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
        twin_filter: float | None = None,
        gram_every: int = USUAL_GRAMS["gram_every"],
        gram_tokens: float = USUAL_GRAMS["gram_tokens"],
        gram_memory: float = USUAL_GRAMS["gram_memory"],
        gram_neurons: int | None = USUAL_GRAMS["gram_neurons"],
        final: bool = False,
        cut: bool = False,
        **options: Any,
    ) -> None:
        _check_is_gradual(method, keep)
        self.rule = rules.rule_of(method, options)
        self.method = method if isinstance(method, str) else type(method).__name__
        if self.rule.selects and (widths, scope, twin_filter, multiple_of) != (None, None, None, 1):
            raise GumlabError(
                f"Method {self.method!r} says itself which neurons stay (soft movement: whatever "
                "lies above its threshold): it takes no widths, multiple_of, scope or twin_filter. "
                "Leave them out, or use method='movement'."
            )
        steps = check_whole("steps", steps)
        seed = check_seed(seed)
        if scope is not None:
            check_choice("scope", scope, selection.SCOPES)
        if twin_filter is not None:
            twin_filter = check_number("twin_filter", twin_filter, most=1)
        gram_every, gram_tokens, gram_memory, gram_neurons = _checked_grams(
            self.rule, twin_filter, (gram_every, gram_tokens, gram_memory, gram_neurons)
        )
        selection.schedule(0, steps, keep, start, end)  # raises for a start or end out of order

        self.model = model
        self.layers = neurons(model)
        _check_can_be_pruned(model, self.layers)
        self.scope = scope or self.rule.scope
        sizes = [layer.width for layer in self.layers]
        self.budget = selection.Budget(sizes, keep, self.scope, floor, multiple_of, widths)
        self.keep = self.budget.keep
        self.steps = steps
        self.widths = None if widths is None else [int(width) for width in widths]
        self.floor = self.budget.floor
        self.multiple_of = self.budget.multiple_of
        self.seed = seed
        self.start = start
        self.end = end
        self.freeze = check_flag("freeze", freeze)
        self.twin_filter = twin_filter
        self.gram_every = gram_every
        self.gram_tokens = gram_tokens
        self.gram_memory = gram_memory
        self.gram_neurons = gram_neurons
        self.cut = check_flag("cut", cut)
        self.final = check_flag("final", final) or self.cut

        self._options = _plain(rules.options_held(self.rule))  # before it learns anything
        self.step_count = 0
        self.returned = 0
        self.frozen = False
        self.removed = False
        self._told_untrained = False
        self.scores: list[Tensor] = self._begun(steps, seed)
        self._scores_when_cut = [score.clone() for score in self.scores]
        self._held_out = sum(int((~mask).sum()) for mask in kept_by_gates(self.layers))
        remove_gates(model)
        heard: Sequence[Tensor | None] = self.rule.heard or [None] * len(self.layers)
        self.gates = [Gate(layer, s) for layer, s in zip(self.layers, heard, strict=True)]
        self._twins = [torch.empty(0, 2, dtype=torch.long).to(x.device) for x in self.layers]
        self.grams = self._running_sums()
        self._by_hand = ranks.GradientsByHand(model, weights_cut(self.layers)) if self.cut else None

    def _begun(self, steps: int, seed: int) -> list[Tensor]:
        """The rule's scores before the first step; from here on it belongs to this pruner."""
        self._told_lost = False
        self._held_at_first = dict(vars(self.rule))
        scores = self.rule.begin(self.layers, steps, seed)
        self._run = rules.begun(self.rule)
        return self._checked_scores(scores)

    def _running_sums(self) -> RunningGrams | None:
        """The sums that rule and twin filter need, if any."""
        if not self.rule.needs_grams and self.twin_filter is None:
            return None
        sampling = self.gram_every, self.gram_tokens, self.gram_memory, self.seed
        if self.gram_neurons is None:
            return RunningGrams(self.model, self.gates, *sampling)
        return RunningLikeness(self.model, self.gates, *sampling, self.gram_neurons)

    @property
    def masks(self) -> list[Tensor]:
        """The masks in force, (N,) bool per layer, over the neurons the model has now."""
        return [gate.mask for gate in self.gates]

    @property
    def original_masks(self) -> list[Tensor]:
        """The masks over the neurons that the run began with, (N,) bool per layer."""
        return [gate.original_mask for gate in self.gates]

    @property
    def original_scores(self) -> list[Tensor]:
        """The scores over the neurons that the run began with; of those cut, their last ones."""
        triples = zip(self.scores, self._scores_when_cut, self.gates, strict=True)
        return [
            score.detach()
            if len(score) == gate.size
            else before.to(score.dtype).index_copy(0, gate.origin, score.detach())
            for score, before, gate in triples
        ]

    @property
    def fraction_kept(self) -> float:
        """The fraction that the masks keep of the neurons that the run began with."""
        kept = sum(int(gate.mask.sum()) for gate in self.gates)
        return kept / sum(gate.size for gate in self.gates)

    def step(self, *optimizers: Any) -> bool:
        """One step, after `loss.backward()` and before `optimizer.step()`.

        Parameters
        ----------
        *optimizers
            The optimizers of the model's weights: with `cut` their state is cut with the weights.

        Returns
        -------
        bool
            True if neurons left the model.

        Raises
        ------
        GumlabError
            Where the gates are no longer on the model, or what it calls goes past them, gradients
            are missing, or an optimizer's state cannot be cut.
        """
        if not self.removed and not all(gate.in_force for gate in self.gates):
            raise GumlabError(
                "This pruner's gates are no longer on the model, so it prunes nothing: another "
                "Pruner was made for the same model since, or its gates were taken off. Make this "
                "one anew, and train with the newest."
            )
        self._check_device()
        self._check_passed()
        self._check_gradients()
        self._check_heard()
        self._check_ranks()
        self._tell_who_came_back()
        self._tell_of_loss_scale()
        if self.cut and not self.frozen:
            check_optimizers(self.layers, optimizers)
        step = self.step_count + 1
        if self.frozen:
            self._count(step)
            return False
        kept_now = selection.schedule(step, self.steps, self.keep, self.start, self.end)
        gram = self._fresh_grams()
        self.scores = self._asked(step, kept_now, gram)
        self._tell_untrained()
        self._count(step)  # behind the rule: its error leaves the pruner where it was
        if gram is not None and self.twin_filter is not None:
            self._find_twins(gram, self.twin_filter)
        if self.grams is not None:
            self.grams.advance()
        self._put_in_force(self._chosen(kept_now))
        if self.freeze and self.step_count >= self.end * self.steps:
            self._freeze()
        last = self.frozen or self.step_count == self.steps
        neurons_leave = self.cut and cut_pays(self.gates, last)
        if neurons_leave:
            self._cut(optimizers)
        if self.rule.selects and last and self.fraction_kept > self.keep + 0.05:
            name = "Soft movement" if self.method == "soft_movement" else self.method
            warn_caller(
                f"{name} keeps {self.fraction_kept:.1%} of the neurons instead of "
                f"{self.keep:.1%}: its scores did not get far enough. Raise steps or score_lr."
            )
        return neurons_leave

    def _count(self, step: int) -> None:
        """This step is done; the next one needs forward passes of its own."""
        if step == self.steps + 1:
            warn_caller(
                f"This is step {step} of a Pruner that was made for {self.steps} steps: its "
                "schedule is over. steps counts optimizer steps: where gradients are accumulated, "
                "call pruner.step() once before each optimizer.step()."
            )
        self.step_count = step
        for gate in self.gates:
            gate.passed = False

    def remove(self) -> None:
        """Take every gate off the model; its weights stay as they are."""
        self.removed = True
        self._freeze()
        for gate in self.gates:
            gate.remove()
        if self._by_hand is not None:
            self._by_hand.remove()

    def settings(self) -> dict[str, Any]:
        """What the pruner was made with.

        Returns
        -------
        dict
            As JSON can hold it; a function stands there by its name, a tensor by a digest.
        """
        names = (
            *("method", "keep", "steps", "scope", "widths", "floor", "multiple_of", "seed"),
            *("start", "end", "freeze", "twin_filter", "gram_every", "gram_tokens", "gram_memory"),
            *("gram_neurons", "final", "cut"),
        )
        return {**{name: getattr(self, name) for name in names}, **self._options}

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands: what `load_state_dict` needs to go on from this step.

        Returns
        -------
        dict
            Tensors, numbers, text, and lists and dicts of them: settings, counts, masks, the rule's
            state, the Gram sums and their random state, and the sum of each layer's outgoing
            weights as a sign of the weights that the state belongs to.
        """
        self._tell_what_a_rule_loses()
        state: dict[str, Any] = {
            "settings": self.settings(),
            "step_count": self.step_count,
            "returned": self.returned,
            "frozen": self.frozen,
            "weights": self._weight_sums(),
            "masks": self.masks,
            "origin": [gate.origin for gate in self.gates],
            "scores": [score.detach() for score in self.scores],
            "scores_when_cut": self._scores_when_cut,
            "rule": self.rule.state_dict(),
        }
        if self.grams is not None:
            state["grams"] = self.grams.state_dict()
        return state

    def _tell_what_a_rule_loses(self) -> None:
        """Warn once of what a rule of one's own learned and has no `state_dict` for."""
        if self._told_lost or type(self.rule).state_dict is not Rule.state_dict:
            return
        self._told_lost = True
        learned = [
            name
            for name, value in vars(self.rule).items()
            if self._held_at_first.get(name) is not value and _holds_tensors(value)
        ]
        if learned:
            warn_caller(
                f"The rule {type(self.rule).__name__} has no state_dict, so its "
                f"{', '.join(learned)} would begin anew where a run goes on from this state. Write "
                "state_dict and load_state_dict, as gumlab.rules.Rule says."
            )

    def cut_to(self, state: dict[str, Any]) -> None:
        """Give a fresh, dense model the widths of a saved state, for its weights to be loaded.

        So a run that cut is gone on with: `pruner.cut_to(state)`, then
        `model.load_state_dict(...)`, then `pruner.load_state_dict(state)`. Parameters stay the same
        objects, so an optimizer may be made before or after it. Where nothing was cut it does
        nothing.

        Parameters
        ----------
        state : dict
            What `state_dict` gave.

        Raises
        ------
        GumlabError
            For a state of other settings, or of other layers.
        """
        self._check_state(state)
        for gate, origin in zip(self.gates, state["origin"], strict=True):
            if len(origin) < gate.layer.width:
                cut_layer(gate.layer, origin.to(gate.layer.device))
        record_width(self.model, self.layers)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring a fresh pruner of the same settings to where the saved one stood.

        Parameters
        ----------
        state : dict
            What `state_dict` gave. The model must hold the weights of that moment; where neurons
            were cut, of those left (see `cut_to`).

        Raises
        ------
        GumlabError
            For a state of other settings or of other weights.
        """
        self._check_state(state)
        sums = torch.tensor([float(total) for total in self._weight_sums()])
        saved = torch.tensor([float(total) for total in state["weights"]])
        if saved.shape != sums.shape or not torch.allclose(saved, sums):
            raise GumlabError(
                "The pruner's state belongs to other weights than the model's. Load the weights "
                "of that moment first; with a Trainer give the folder that the model resumed from: "
                "PruningCallback(pruner, folder)."
            )
        self.step_count = state["step_count"]
        self.returned = state["returned"]
        self.rule.load_state_dict(state["rule"])
        for i, gate in enumerate(self.gates):
            device = gate.mask.device
            if gate.layer.width < gate.size:
                gate.cut(state["origin"][i].to(device))
            gate.mask = state["masks"][i].to(device)
            self._scores_when_cut[i] = state["scores_when_cut"][i].to(device)
        self.scores = [
            score.to(gate.mask.device)
            for score, gate in zip(state["scores"], self.gates, strict=True)
        ]
        if self.cut:
            record_width(self.model, self.layers)
        if state["frozen"]:
            self._freeze()
        if self.grams is not None:
            self.grams.load_state_dict(state["grams"])
            if self.twin_filter is not None and not self.frozen:
                self._find_twins(self._seen_gram, self.twin_filter)

    def _check_state(self, state: Any) -> None:
        """Raise GumlabError for what is no state of a pruner with these settings and layers."""
        if not isinstance(state, dict) or not state.keys() >= _STATE:
            raise GumlabError(
                f"Expected the state of a pruner, what its state_dict() gave; got {state!r:.60}."
            )
        saved_settings = state["settings"]
        differ = [
            f"{name}={saved_settings.get(name)!r} (here {value!r})"
            for name, value in self.settings().items()
            if saved_settings.get(name) != value
        ]
        is_behind = any(
            len(origin) > gate.layer.width
            for origin, gate in zip(state["origin"], self.gates, strict=False)
        )
        if not differ and (is_behind or (self.frozen and not state["frozen"])):
            raise GumlabError(
                f"This pruner is at step {self.step_count}, with "
                f"{'final masks' if self.frozen else 'neurons cut'}, and the state at step "
                f"{state['step_count']}: it cannot go back. Load the model as it was, and the "
                "state into a fresh Pruner of it."
            )
        if differ:
            raise GumlabError(
                f"The saved pruner has {', '.join(differ)}. Make the pruner with the saved "
                "settings, or train from the start."
            )
        sizes = [len(score) for score in state["scores_when_cut"]]
        if sizes != [gate.size for gate in self.gates]:
            raise GumlabError(
                f"The saved pruner began with layers of {sizes} neurons, this one with "
                f"{[gate.size for gate in self.gates]}. Make it of the model that the run began "
                "with."
            )

    def _check_device(self) -> None:
        """Raise GumlabError where the model moved and the scores stayed."""
        for layer, score in zip(self.layers, self.scores, strict=True):
            check_device(score.device, layer.device)

    def _tell_who_came_back(self) -> None:
        """Warn at a run's first step where an earlier pruner's gates held neurons out."""
        if self._held_out and not self.step_count:
            warn_caller(
                f"An earlier Pruner's gates held {self._held_out:,} neurons of this model out, and "
                "this one begins with all of them. To prune what is left, cut first: "
                "small = gumlab.shrink(model, earlier.masks)."
            )

    def _check_passed(self) -> None:
        """Raise GumlabError where gradients came from a forward pass that left the gates out."""
        if self.removed:
            return
        check_in_place(self.model, self.layers)
        # the layers' own weights may be frozen, where an adapter trains
        trained = any(parameter.grad is not None for parameter in self.model.parameters())
        escaped = [gate.layer.name for gate in self.gates if not gate.passed]
        if trained and escaped:
            raise GumlabError(
                f"The forward pass did not go through the gates of {', '.join(escaped[:3])}, so "
                "nothing is pruned. Call pruner.step() once after each loss.backward() that leads "
                "to an optimizer.step(), and train the model itself: no copy of it, no graph that "
                "was captured before the Pruner was made, no module in the place of one of its own."
            )

    def _tell_untrained(self) -> None:
        """Warn once where a rule that reads no gradients prunes a model that does not train."""
        reads_none = not hasattr(self.rule, "gradient") and self.grams is None
        untouched = not any(gate.passed for gate in self.gates)
        has_no_gradients = all(weight.grad is None for weight in self.model.parameters())
        if reads_none and untouched and has_no_gradients and not self._told_untrained:
            self._told_untrained = True
            warn_caller(
                "No forward pass went through this Pruner's model before pruner.step(), and it has "
                "no gradients: it is pruned without being trained. Where a copy of it trains, make "
                "the Pruner of that one."
            )

    def _tell_of_loss_scale(self) -> None:
        """Warn at a run's first step where gradients may be larger than the loss's by a scale."""
        learns = getattr(self.rule, "gradient", None) == "neuron"
        if learns and not self.step_count and any(gate.in_float16 for gate in self.gates):
            warn_caller(
                "Training in float16 needs a loss scale, and the scores learn from the gradients. "
                "Call scaler.unscale_(optimizer) before pruner.step(), or take bfloat16."
            )

    def _check_gradients(self) -> None:
        """Raise GumlabError at the second step for gradients that are all 0: it comes too late.

        Not at the first: a head that begins as zeros gives none there.
        """
        if self.step_count != 1 or getattr(self.rule, "gradient", None) != "neuron":
            return
        gradients = [layer.proj.weight.grad for layer in self.layers]
        if not any(gradient is None or gradient.any() for gradient in gradients):
            raise GumlabError(
                "All gradients of the layers are 0, so the scores learn nothing. Call "
                "pruner.step() after loss.backward() and before optimizer.zero_grad()."
            )

    def _check_heard(self) -> None:
        """Raise GumlabError where the Gram sums of this step lack a layer."""
        if self.frozen or self.grams is None or not self.grams.due:
            return
        missed = [gate.layer.name for i, gate in enumerate(self.gates) if i not in self.grams.heard]
        if missed:
            raise GumlabError(
                f"The running Gram sums have nothing of {', '.join(missed[:3])} at this step: they "
                "follow the forward passes of the whole model, in training mode. Call "
                "model.train(), and model(...) itself for the loss, not a part of it."
            )

    def _check_ranks(self) -> None:
        """Raise GumlabError at the first step where other processes prune other weights."""
        if self.step_count == 0:
            settings = [self.steps, self.keep, self.seed]
            ranks.check_alike([*settings, *self._weight_sums()], "weights and settings of a Pruner")

    def _fresh_grams(self) -> Callable[[int], SeenGram] | None:
        """What gives each layer's Gram sums at the steps that add to them, over all ranks."""
        if self.grams is None or not self.grams.due:
            return None
        ranks.averaged(self.grams.sums)
        return self._seen_gram

    def _seen_gram(self, i: int) -> SeenGram:
        """Layer i's Gram sums over the neurons that have a say; made one layer at a time."""
        assert self.grams is not None
        gram = self.grams.sums[i]
        mask = self.gates[i].mask
        if self.final:
            return SeenGram(gram[mask][:, mask], mask[mask], mask.nonzero().flatten())
        return SeenGram(gram, mask, torch.arange(len(mask), device=mask.device))

    def _asked(
        self, step: int, kept_now: float, gram: Callable[[int], SeenGram] | None
    ) -> list[Tensor]:
        """The rule's scores at this step, one per neuron that the model has now."""
        if rules.run_of(self.rule) != self._run:
            raise GumlabError(
                f"The rule {type(self.rule).__name__} was given to another Pruner since, which "
                "began it anew. Make a rule for each Pruner."
            )
        likeness = self.grams.likeness if isinstance(self.grams, RunningLikeness) else None
        now = Moment(
            step=step,
            steps=self.steps,
            kept_now=kept_now,
            fraction_kept=self.fraction_kept,
            keep=self.keep,
            layers=self.layers,
            masks=self.masks,
            origin=[gate.origin for gate in self.gates],
            gram=gram if self.rule.needs_grams and likeness is None else None,
            likeness=None if gram is None else likeness,
        )
        return self._checked_scores(self.rule.scores(now))

    def _checked_scores(self, scores: Any) -> list[Tensor]:
        """A copy of a rule's scores, which it goes on changing; GumlabError for no such scores."""
        wanted = [(layer.width,) for layer in self.layers]
        if not isinstance(scores, Sequence):
            raise GumlabError(
                f"The rule {type(self.rule).__name__} gave {scores!r:.60}; expected one number per "
                f"neuron, a list of tensors of shapes {wanted}."
            )
        shapes = [tuple(getattr(score, "shape", ())) for score in scores]
        if shapes != wanted:
            raise GumlabError(
                f"The rule {type(self.rule).__name__} gave scores of shapes {shapes}; expected one "
                f"number per neuron, a list of tensors of shapes {wanted}."
            )
        if not all(isinstance(score, Tensor) for score in scores):
            kind = type(scores[0]).__name__
            raise GumlabError(
                f"The rule {type(self.rule).__name__} gave a list of {kind}; expected tensors of "
                f"shapes {wanted}. torch.as_tensor makes one."
            )
        try:
            selection.check_scores(scores)
        except GumlabError as error:
            raise GumlabError(
                f"{error} In training that comes of a loss or gradient that is not finite: where "
                "optimizer.step() is left out for it, leave out pruner.step() too; the scores are "
                "lost, so go on from the last state_dict of model and pruner, with a fresh Pruner."
            ) from error
        return [score.detach().clone() for score in scores]

    def _find_twins(self, gram: Callable[[int], SeenGram], threshold: float) -> None:
        """Note each layer's pairs of alike neurons, by where they stood when the run began."""
        for i, gate in enumerate(self.gates):
            seen = gram(i)
            places = gate.origin[seen.rows]
            self._twins[i] = places[twin_pairs(seen.gram, threshold)]

    def _chosen(self, kept_now: float) -> list[Tensor]:
        """Masks for this step over the neurons that the run began with."""
        scores = self._standing(self._over_all(self.scores))
        if self.twin_filter is not None:
            scores = self._standing(selection.demote_twins(scores, self._twins))
        if self.rule.selects:
            masks = self.rule.masks(scores, kept_now, self.keep)
            selection.check_masks(masks, [gate.size for gate in self.gates])
            return list(masks)
        widths = self._widths_at(scores, kept_now)
        return [selection.top(s, width) for s, width in zip(scores, widths, strict=True)]

    def _over_all(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Scores of the neurons there are as scores of all there were; -inf for those cut."""
        spread = []
        for score, gate in zip(scores, self.gates, strict=True):
            score = score.detach()
            if len(score) < gate.size:
                nobody = score.new_full((gate.size,), -math.inf)
                score = nobody.index_copy(0, gate.origin, score)
            spread.append(score)
        return spread

    def _standing(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """The scores, -inf where a removed neuron may not return."""
        if not self.final:
            return list(scores)
        pairs = zip(scores, self.original_masks, strict=True)
        return [score.masked_fill(~mask, -math.inf) for score, mask in pairs]

    def _widths_at(self, scores: Sequence[Tensor], kept_now: float) -> list[int]:
        """How many neurons each layer keeps while the schedule keeps the fraction `kept_now`."""
        last_step = math.ceil((self.end if self.freeze else 1) * self.steps)
        widths = self.budget.widths_at(scores, kept_now, warn=self.step_count == last_step)
        if not self.final or self.widths is not None:
            return widths
        # rounding may ask for a neuron that is out for good: then another layer keeps one more
        there = [int((score > -math.inf).sum()) for score in scores]
        least = [1] * len(there)
        return selection.apportion(widths, sum(widths), least, there, self.multiple_of)

    def _put_in_force(self, masks: Sequence[Tensor]) -> None:
        for gate, original in zip(self.gates, masks, strict=True):
            mask = original[gate.origin]
            self.returned += int((mask & ~gate.mask).sum())
            gate.mask = mask

    def _cut(self, optimizers: Sequence[Any]) -> None:
        """Take the removed neurons out of the model, its optimizers, and all that has its shape."""
        # copies: those that a rule learns go on changing in their place
        self._scores_when_cut = [score.clone() for score in self.original_scores]
        indices = cut_to_gates(self.model, self.gates, optimizers)
        self.scores = [score.detach()[i] for score, i in zip(self.scores, indices, strict=True)]
        if self.grams is not None and self.grams.sums:
            self.grams.cut(indices)

    def _freeze(self) -> None:
        """No mask changes any more, and nothing is measured for it."""
        self.frozen = True
        for gate in self.gates:
            gate.score = None
            gate.watch = None
        if self.grams is not None:
            self.grams.remove()

    def _weight_sums(self) -> list[Tensor]:
        return [layer.proj.weight.detach().double().sum() for layer in self.layers]

    def __getstate__(self) -> dict[str, Any]:
        raise GumlabError(
            "A Pruner belongs to one model and cannot be copied or pickled. Copy the model, make a "
            "Pruner of the copy with the same settings, and "
            "other.load_state_dict(pruner.state_dict())."
        )

    def __repr__(self) -> str:
        total = sum(gate.size for gate in self.gates)
        kept = round(self.fraction_kept * total)
        return (
            f"Pruner({self.method}, {self.scope}, step {self.step_count}/{self.steps}, keeps "
            f"{kept:,} of {total:,} neurons ({self.fraction_kept:.1%}), target {self.keep:.1%})"
        )


def _checked_grams(
    rule: Rule, twin_filter: float | None, grams: tuple[Any, Any, Any, Any]
) -> tuple[int, float, float, int | None]:
    """The settings of the Gram sums; GumlabError for some that cannot be, or that nothing uses."""
    pairs = zip(USUAL_GRAMS.items(), grams, strict=True)
    chosen = {name: value for (name, usual), value in pairs if value != usual}
    rules.check_grams_used(rule, {**chosen, "twin_filter": twin_filter})
    if "gram_neurons" in chosen and (twin_filter is not None or not rule.likeness_is_enough):
        raise GumlabError(
            "gram_neurons compares neurons with some of the others, which tells their mean "
            "|cosine| and nothing else: it is for method='gum' with its own similarity, without a "
            "twin_filter. Leave gram_neurons out."
        )
    return check_running(*grams)


def _check_can_be_pruned(model: nn.Module, layers: Sequence[FeedForward]) -> None:
    """Raise GumlabError for a model that cannot be pruned while it trains."""
    check_resident(model, "A Pruner")
    check_values(layers)
    check_trainable(model)
    check_no_layer_dropped(model, layers)
    check_no_fixed_gates(layers)


def _check_is_gradual(method: str | Rule, keep: float) -> None:
    """Raise GumlabError for a score that cuts once, which is no training-time method."""
    if method in (*scoring.SCORES, "recommended") and method not in METHODS:
        raise GumlabError(
            f"Method {method!r} cuts once, before the training: small = gumlab.prune(model, "
            f"{method!r}, tokenizer, task, keep={keep}), then gumlab.train(small, ...)."
        )


def _holds_tensors(value: Any) -> bool:
    """Whether an attribute is a tensor, or holds some; an optimizer does."""
    if isinstance(value, list | tuple):
        return any(map(_holds_tensors, value))
    if isinstance(value, dict):
        return any(map(_holds_tensors, value.values()))
    return isinstance(value, Tensor | torch.optim.Optimizer)


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Ten hex digits that stand for the numbers of some tensors, on whatever device."""
    content = hashlib.sha256()
    for tensor in tensors:
        numbers = tensor.detach().cpu().contiguous().flatten()
        content.update(numbers.view(torch.uint8).numpy().data)
    return content.hexdigest()[:10]


def _plain(option: Any) -> Any:
    """An option as JSON can hold it: a function by its name, a tensor by its shape and a digest.

    >>> _plain({"share": (0.5, None), "of": max})
    {'share': [0.5, None], 'of': 'max'}
    """
    if option is None or isinstance(option, bool | int | float | str):
        return option
    if isinstance(option, dict):
        return {str(name): _plain(value) for name, value in option.items()}
    if isinstance(option, list | tuple):
        return [_plain(value) for value in option]
    if isinstance(option, np.ndarray | np.generic):
        option = torch.as_tensor(option)
    if isinstance(option, Tensor):
        if not option.ndim:
            return option.item()
        return f"{tuple(option.shape)} {option.dtype} {digest_of([option])}"
    named = option if callable(option) else type(option)
    return getattr(named, "__qualname__", type(named).__qualname__)
