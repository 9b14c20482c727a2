"""`workbench` holds a base model and its task, and makes the runs that the notebooks compare."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, collect
from gumlab.course.plots.figure import Plot
from gumlab.course.plots.runs import keep_curves, seed_dots
from gumlab.errors import GumlabError
from gumlab.evaluation import evaluate
from gumlab.feedforward import FeedForward, neurons
from gumlab.io.loading import load
from gumlab.pruner import Pruner
from gumlab.removal import shrink
from gumlab.rules import Moment, Rule, warmed_up
from gumlab.scoring import DATA_SCORES, Criterion
from gumlab.scoring import score as scores_by_name
from gumlab.selection import schedule, select
from gumlab.study.intervals import half_interval, verdict
from gumlab.tasks import Example, Task, load_task
from gumlab.tasks.batches import shuffled
from gumlab.training import History, train

if TYPE_CHECKING:
    import pandas as pd

KEEPS = (0.75, 0.5, 0.25, 0.1)
# what a run passes on to `gumlab.train`; all else is the pruner's
TRAINING = (
    *("lr", "teacher", "ce_weight", "kd_weight", "temperature", "batch_size", "record"),
    "progress",
)


@dataclass
class Own(Rule):
    """A training-time method made of your own functions; what you leave out is gumlab's.

    Parameters
    ----------
    score : callable
        `score(layer)` gives the score of each of a layer's neurons, (N,), high = keep. It is asked
        after every backward pass, so the weights have their gradients.
    mask : callable, optional
        `mask(scores, keep)` gives the neurons that stay, (N,) bool, from one layer's scores.
    schedule : callable, optional
        `schedule(step, steps, keep)` gives the fraction that is left at a step.
    """

    score: Callable[[FeedForward], Tensor]
    mask: Callable[[Tensor, float], Tensor] | None = None
    schedule: Callable[[int, int, float], float] | None = None

    def __post_init__(self) -> None:
        self.selects = self.mask is not None or self.schedule is not None
        self._left = 1.0

    def scores(self, now: Moment) -> list[Tensor]:
        """Your scores, layer by layer."""
        fraction = self.schedule or schedule
        self._left = fraction(now.step, now.steps, now.keep)
        return [self.score(layer).detach().float() for layer in now.layers]

    def masks(self, scores: Sequence[Tensor], kept_now: float, keep: float) -> list[Tensor]:
        """Your masks, at the fraction of your schedule."""
        if self.mask is None:
            return select(scores, self._left)
        return [self.mask(one, self._left) for one in scores]


class _OwnWayBack(torch.autograd.Function):
    """h' = m h, and on the way back a function of the gate's own."""

    @staticmethod
    def forward(ctx, h: Tensor, score: Tensor, gate: OwnGate) -> Tensor:
        ctx.save_for_backward(h, gate.mask)
        ctx.way_back = gate.way_back
        return h * gate.mask

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        h, mask = ctx.saved_tensors
        to_h, to_score = ctx.way_back(h, mask, grad)
        return to_h, to_score, None


class OwnGate:
    """A gate on a layer's neurons, h' = m h, whose way back is your own function.

    Parameters
    ----------
    layer : FeedForward
        The layer; the gate stays on it.
    way_back : callable
        `way_back(h, mask, grad)` gives two gradients from dL/dh': to h, (B, T, N), and to the
        score, (N,).

    Attributes
    ----------
    score : Tensor
        S, (N,), 0 at first; after a backward pass its `grad` is what the gate heard.
    mask : Tensor
        m, (N,) bool, all True at first.
    """

    def __init__(self, layer: FeedForward, way_back: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.score = torch.zeros(layer.width, requires_grad=True)
        self.mask = torch.ones(layer.width, dtype=torch.bool)
        self.way_back = way_back
        layer.proj.register_forward_pre_hook(self)

    def __call__(self, proj: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_OwnWayBack.apply(inputs[0], self.score, self),)


class Learned(Rule):
    """A score that is learned: write `scores`, and let `follow` take a step along your slopes.

    Attributes
    ----------
    learned : list of Tensor
        S by layer, (N,), 0 at first.
    u : list of Tensor
        Room for what you note of each neuron, (N,) by layer, 0 at first.
    """

    scope = "global"
    needs_grams = True

    def begin(self, layers: Sequence[FeedForward], steps: int, seed: int) -> list[Tensor]:
        """S = 0 for every neuron."""
        self.learned = [torch.zeros(layer.width, requires_grad=True) for layer in layers]
        self.u = [torch.zeros(layer.width) for layer in layers]
        self._adam = torch.optim.Adam(self.learned)
        return self.learned

    def follow(self, slopes: Sequence[Tensor], now: Moment) -> list[Tensor]:
        """S after one step of Adam down these slopes, at gumlab's rate for learned scores.

        Parameters
        ----------
        slopes : sequence of Tensor
            (N,) by layer.
        now : gumlab.rules.Moment
            Where the run stands.
        """
        for score, slope in zip(self.learned, slopes, strict=True):
            score.grad = slope
        self._adam.param_groups[0]["lr"] = 0.01 * warmed_up(now.step, now.steps)
        self._adam.step()
        return self.learned


@dataclass(frozen=True)
class CutFirst:
    """A cut before the training, by a score; what is left is refitted, then trained.

    Parameters
    ----------
    score : str or callable
        A score's name, or your own: `score(layer, found)` gives (N,), high = keep, from a layer
        and what a look at the training texts found (`gumlab.collecting.Statistics`).
    scope : {"layer", "global"}
        Equal shares, or one queue for all layers.
    refit : bool
        Whether those that stay take over what they can of the removed ones' work.
    """

    score: str | Criterion
    scope: str = "global"
    refit: bool = True


@dataclass
class Run:
    """A finished run: the smaller model, its test loss, and how it came there.

    Attributes
    ----------
    loss : float
        Mean nats per target token of the test split.
    model : torch.nn.Module
        The model after the cut.
    masks, scores : list of Tensor
        Who stayed, (N,) bool by layer, and the last scores; empty for a run that pruned nothing.
    history : History
        What `gumlab.train` wrote down.
    """

    loss: float
    model: nn.Module
    masks: list[Tensor]
    scores: list[Tensor]
    history: History

    @property
    def widths(self) -> list[int]:
        """The neurons left in each layer."""
        return [layer.width for layer in neurons(self.model)]


@dataclass
class Race:
    """The runs of several ways, seed by seed; a table and a figure of them, and who is ahead.

    Attributes
    ----------
    runs : dict
        For each way its runs, in the order of the seeds.
    seeds : tuple of int
    """

    runs: dict[str, list[Run]]
    seeds: tuple[int, ...]

    @property
    def losses(self) -> dict[str, list[float]]:
        """The test losses of each way, by seed."""
        return {way: [run.loss for run in runs] for way, runs in self.runs.items()}

    def mean(self, way: str) -> float:
        """The mean test loss of a way."""
        losses = self.losses[way]
        return sum(losses) / len(losses)

    def table(self) -> pd.DataFrame:
        """A row for each way: the loss by seed, the mean, and the widths of the first seed."""
        import pandas as pd

        rows = {
            way: {f"seed {seed}": loss for seed, loss in zip(self.seeds, losses, strict=False)}
            for way, losses in self.losses.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        table["mean"] = table.mean(axis=1)
        return table.round(3)

    def plot(self, label: str = "test loss") -> Plot:
        """A dot for each run."""
        return seed_dots(self.losses, label)

    def compare(self, way: str, other: str) -> tuple[float, float, str]:
        """The mean of loss(way) - loss(other) by seed, half its 95 % t interval, and a verdict.

        The verdict is "lower", "higher" or "no difference shown".
        """
        import pandas as pd

        pairs = zip(self.losses[way], self.losses[other], strict=True)
        differences = pd.Series([a - b for a, b in pairs])
        return float(differences.mean()), half_interval(differences), verdict(differences)

    def always_lower(self, way: str, other: str) -> bool:
        """Whether every run of a way ends below every run of the other."""
        return max(self.losses[way]) < min(self.losses[other])


@dataclass
class Heard:
    """What the feed-forward block of one layer did with some texts, token by token.

    Attributes
    ----------
    tokens : list of str
        The T tokens of all texts.
    ids : Tensor
        Their numbers, (T,).
    x : Tensor
        What enters the block, (T, D).
    h : Tensor
        How strongly each neuron fires, (T, N), as it enters the block's last map.
    out : Tensor
        What the block adds to the residual stream, (T, D).
    """

    tokens: list[str]
    ids: Tensor
    x: Tensor
    h: Tensor
    out: Tensor


@dataclass
class Workbench:
    """A base model, its task, and the settings that all runs share; `workbench` makes one.

    Attributes
    ----------
    model, tokenizer, task
        The base, which no run changes, and the data.
    keep : float
    steps : int
    batch_size : int
    examples : int
        How many test examples a loss is the mean of.
    look_at : int
        How many training examples a `look` sees.
    """

    model: nn.Module
    tokenizer: Any
    task: Task
    keep: float
    steps: int
    batch_size: int
    examples: int
    look_at: int = 64
    _runs: dict[Any, Run] = field(default_factory=dict, repr=False)
    _looks: dict[int, list[Statistics]] = field(default_factory=dict, repr=False)

    @property
    def layers(self) -> list[FeedForward]:
        """The base's feed-forward layers."""
        return neurons(self.model)

    @property
    def lessons(self) -> Sequence[Example]:
        """The training examples: no more than a thousand, so that a short run begins at once."""
        return self.task.train[:1000]

    def loss(self, model: nn.Module | None = None, split: str = "test") -> float:
        """The mean nats per target token of a model, by default of the base."""
        found = evaluate(
            self.model if model is None else model,
            self.tokenizer,
            self.task,
            split,
            limit=self.examples,
            generated=0,
            batch_size=16,  # sooner than in large ones, where the model is small
        )
        return float(found["loss"])

    def batches(self, steps: int | None = None, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches that a run of this seed is trained on, in their order."""
        steps = self.steps if steps is None else steps
        return shuffled(self.model, self.tokenizer, self.lessons, self.batch_size, steps, seed=seed)

    def scores(self, score: str | Sequence[Tensor], seed: int = 0) -> list[Tensor]:
        """The base's scores by a score's name; tensors come back as they are."""
        if not isinstance(score, str):
            return list(score)
        if score in ("random", "magnitude"):
            return scores_by_name(self.model, score, seed=seed)
        return scores_by_name(self.model, score, self.tokenizer, self.task)

    def texts(self, seed: int = 0) -> list[Example]:
        """`look_at` training examples (or all, where there are fewer), drawn by a seed."""
        lessons = list(self.lessons)
        return random.Random(seed).sample(lessons, min(self.look_at, len(lessons)))

    def look(self, seed: int = 0) -> list[Statistics]:
        """What one pass over `texts` finds in each layer of the base, gradients included."""
        if seed not in self._looks:
            self._looks[seed] = collect(
                self.model, self.tokenizer, self.texts(seed), gradients=True
            )
        return self._looks[seed]

    def cut_first(self, way: CutFirst, seed: int = 0, keep: float | None = None) -> nn.Module:
        """A copy cut as a `CutFirst` says, not trained; score and refit see the same texts.

        Parameters
        ----------
        way : CutFirst
        seed : int
            Of the texts, and of a random score.
        keep : float, optional
            The fraction that stays; by default the workbench's.
        """
        score = DATA_SCORES.get(way.score, way.score) if isinstance(way.score, str) else way.score
        if isinstance(score, str):
            scores = self.scores(score, seed)
        else:
            pairs = zip(self.layers, self.look(seed), strict=True)
            scores = [score(layer, found).detach().float() for layer, found in pairs]
        masks = select(scores, self.keep if keep is None else keep, way.scope)
        if not way.refit:
            return shrink(self.model, masks)
        return shrink(self.model, masks, self.tokenizer, self.texts(seed), refit=True)

    def cut(
        self,
        score: str | Sequence[Tensor],
        keep: float | None = None,
        scope: str = "layer",
        seed: int = 0,
        refit: bool = False,
    ) -> nn.Module:
        """A copy without the neurons of the lowest scores, not trained.

        Parameters
        ----------
        score : str or sequence of Tensor
            A score's name, or the scores themselves, (N,) by layer.
        keep : float, optional
            The fraction that stays; by default the workbench's.
        scope : {"layer", "global"}
            Equal shares, or one queue for all layers.
        seed : int
            Of a random score.
        refit : bool
            Whether those that stay take over what they can of the removed ones' work.
        """
        keep = self.keep if keep is None else keep
        masks = select(self.scores(score, seed), keep, scope)
        if refit:
            return shrink(self.model, masks, self.tokenizer, self.task, refit=True)
        return shrink(self.model, masks)

    def curve(
        self,
        score: str | Sequence[Tensor],
        keeps: Sequence[float] = KEEPS,
        scope: str = "layer",
        seed: int = 0,
        refit: bool = False,
    ) -> dict[float, float]:
        """The loss by the fraction kept, without training; 1.0 is the whole base."""
        scores = self.scores(score, seed)
        losses = {keep: self.loss(self.cut(scores, keep, scope, seed, refit)) for keep in keeps}
        return {1.0: self.loss(), **losses}

    def plot_curves(self, curves: Mapping[str, Mapping[float, float]]) -> Plot:
        """Loss against the fraction kept, a line for each curve; the whole base is dashed."""
        return keep_curves(curves, self.loss())

    def run(
        self,
        method: str | Rule | CutFirst | None,
        seed: int = 0,
        start: nn.Module | None = None,
        **options: Any,
    ) -> Run:
        """Train a copy of the base while it is pruned, cut it, and measure it.

        A run that was made before, with the same settings, is not made again.

        Parameters
        ----------
        method : str, Rule, CutFirst or None
            A training-time method or a rule of your own; a cut before the training; None trains
            without pruning.
        seed : int
            Of the order of the data and of whatever the method draws.
        start : torch.nn.Module, optional
            Another model to start from, such as one that was cut.
        **options
            `keep`, `steps`, and whatever `gumlab.Pruner` takes; of `gumlab.train` what `TRAINING`
            lists, `teacher` and `record` among them.
        """
        of_training = {name: options.pop(name) for name in TRAINING if name in options}
        key = None
        may_be_kept = method is None or isinstance(method, str | CutFirst)
        if start is None and may_be_kept and not of_training:
            settings = {"keep": self.keep, "steps": self.steps, **options}
            key = (method, seed, repr(sorted(settings.items())))
            if key in self._runs:
                return self._runs[key]
        if isinstance(method, CutFirst):
            start = self.cut_first(method, seed, options.pop("keep", None))
            method = None
        run = self._made(method, seed, start, options, of_training)
        if key is not None:
            self._runs[key] = run
        return run

    def _made(
        self,
        method: str | Rule | None,
        seed: int,
        start: nn.Module | None,
        options: dict[str, Any],
        of_training: dict[str, Any],
    ) -> Run:
        steps = options.pop("steps", self.steps)
        keep = options.pop("keep", self.keep)
        model = copy.deepcopy(self.model if start is None else start)
        pruner = None
        if method is not None:
            pruner = Pruner(model, copy.deepcopy(method), keep, steps, seed=seed, **options)
        elif options:
            raise GumlabError(
                f"A run that prunes nothing takes no {', '.join(options)}. Name a method."
            )
        history = train(
            model,
            self.tokenizer,
            self.lessons,
            pruner=pruner,
            **{
                "steps": steps,
                "batch_size": self.batch_size,
                "seed": seed,
                "progress": False,
                **of_training,
            },
        )
        masks: list[Tensor] = []
        scores: list[Tensor] = []
        if pruner is not None:
            masks = [mask.clone() for mask in pruner.original_masks]
            scores = [score.clone() for score in pruner.original_scores]
            in_force = pruner.masks
            pruner.remove()
            model = shrink(model, in_force)
        return Run(self.loss(model), model, masks, scores, history)

    def race(
        self,
        ways: Sequence[str] | Mapping[str, str | Rule | CutFirst | tuple | None],
        seeds: Sequence[int] = (0, 1, 2),
    ) -> Race:
        """Run several ways with the same seeds, steps, batches and optimiser.

        Parameters
        ----------
        ways : sequence of str, or mapping
            Names of methods; or for each label a method, or a method with its options,
            `("gum", {"lambda_gum": 0})`. None, or the name "dense", prunes nothing.
        seeds : sequence of int
        """
        if not isinstance(ways, Mapping):
            ways = {way: way for way in ways}
        runs = {}
        for label, way in ways.items():
            method, options = way if isinstance(way, tuple) else (way, {})
            if method == "dense":
                method = None
            runs[label] = [self.run(method, seed, **options) for seed in seeds]
        return Race(runs, tuple(seeds))

    @torch.no_grad()
    def listen(
        self, texts: str | Sequence[str], layer: int = 0, model: nn.Module | None = None
    ) -> Heard:
        """Let a model read, and hear what goes into and out of one layer's neurons.

        Parameters
        ----------
        texts : str or sequence of str
            Read one by one; what is heard stands in one row after the other.
        layer : int
        model : torch.nn.Module, optional
            Another model with the same tokenizer; by default the base.
        """
        texts = [texts] if isinstance(texts, str) else texts
        model = self.model if model is None else model
        block = neurons(model)[layer]
        x: list[Tensor] = []
        h: list[Tensor] = []
        out: list[Tensor] = []
        hooks = [
            block.fc[0].register_forward_pre_hook(lambda _, given: x.append(given[0][0])),
            block.proj.register_forward_pre_hook(lambda _, given: h.append(given[0][0])),
            block.proj.register_forward_hook(lambda _, given, made: out.append(made[0])),
        ]
        try:
            ids = [self.tokenizer(text, return_tensors="pt").input_ids for text in texts]
            for one in ids:
                model(one)
        finally:
            for hook in hooks:
                hook.remove()
        all_ids = torch.cat(ids, dim=1)[0]
        tokens = [self.tokenizer.decode(token) for token in all_ids]
        return Heard(tokens, all_ids, torch.cat(x), torch.cat(h), torch.cat(out))

    @torch.no_grad()
    def writes(self, model: nn.Module, example: Any, tokens: int = 40) -> str:
        """What a model writes after an example's prompt, greedily."""
        ids = self.tokenizer(example.prompt, return_tensors="pt").input_ids
        ended = self.tokenizer.eos_token_id
        written = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=ended)
        return self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def workbench(
    model: str = "tiny-gpt2",
    task: str = "restaurants",
    *,
    keep: float = 0.25,
    steps: int = 60,
    batch_size: int = 8,
    examples: int = 100,
    look_at: int = 64,
) -> Workbench:
    """Load a base and a task, and fix what all runs of a notebook have in common.

    Parameters
    ----------
    model, task : str
        What `gumlab.load` and `gumlab.load_task` take.
    keep : float, default 0.25
        The fraction of neurons that runs and cuts keep.
    steps, batch_size : int
        Of the training.
    examples : int, default 100
        Test examples of a loss.
    look_at : int, default 64
        Training examples that a score with a look at data sees (`CutFirst`).

    Returns
    -------
    Workbench
    """
    base, tokenizer = load(model, device="cpu")
    data = load_task(task)
    return Workbench(base, tokenizer, data, keep, steps, batch_size, examples, look_at)
