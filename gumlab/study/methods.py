"""A method, and one run of it: a base model, a task, a method -> a smaller model and a row."""

from __future__ import annotations

import copy
import inspect
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import TOKENS
from gumlab.errors import (
    GumlabError,
    check_choice,
    check_flag,
    check_number,
    check_options,
    check_seed,
    check_text,
    check_whole,
    unknown,
)
from gumlab.evaluation import MAIN_METRIC, check_judged, evaluate
from gumlab.feedforward import neurons
from gumlab.inspection import redundancy
from gumlab.io.loading import load
from gumlab.io.saving import check_paddable
from gumlab.pruner import Pruner
from gumlab.removal import recommended, shrink
from gumlab.rules import METHODS, Rule, check_grams_used, options_of, rule_of
from gumlab.scoring import LEARNED, SCORES, Criterion, check_currency, check_method, score
from gumlab.selection import Budget, check_keep, select
from gumlab.study.identity import as_text
from gumlab.tasks import SPLITS, Example, Task
from gumlab.training import History, train

_CALIBRATION_EXAMPLES = 256
OF_BUDGET = ("scope", "floor", "multiple_of", "widths")  # the options that share neurons out
OWN_FIELDS = ("one_shot", "refit", "cut_at")  # options of `named` that are a Method's own fields
OF_DISTILLING = ("ce_weight", "kd_weight", "temperature")  # options of `train` with a teacher


def _options(function: Callable[..., Any], *given: str) -> tuple[str, ...]:
    """The options of a function that `run` does not give it itself."""
    parameters = inspect.signature(function).parameters.values()
    named_ones = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return tuple(name for name in named_ones if name not in given)


TRAINING_OPTIONS = _options(
    train,
    *("model", "tokenizer", "task", "steps", "pruner", "teacher", "seed", "record", "progress"),
    *("state", "state_every"),
)
_SELECT_OPTIONS = _options(select, "scores", "keep")
_PRUNER_OPTIONS = _options(Pruner, "model", "method", "keep", "steps", "seed")
_RULE_OPTIONS = tuple(dict.fromkeys(o for method in METHODS for o in options_of(method)))
_ONE_SHOT_OPTIONS = (*_SELECT_OPTIONS, "currency")
METHOD_OPTIONS = (*_ONE_SHOT_OPTIONS, *_PRUNER_OPTIONS, *_RULE_OPTIONS)


@dataclass(frozen=True)
class Method:
    """A method as it appears in a table: its label, and what it does.

    Parameters
    ----------
    label : str
        What tables and file names call it.
    name : str, Rule or callable, optional
        A `Pruner`'s method or a rule of your own, which every run gets a fresh copy of; where
        `one_shot` a score or a criterion of your own, as `gumlab.score` takes it; None trains
        without pruning (a dense run).
    options : mapping
        Those of `Pruner`, or where `one_shot` those of `gumlab.select` and the score's `currency`.
    one_shot : bool
        Cut the model once, by a score, instead of pruning it on the way.
    refit : bool or "bias", optional
        As in `gumlab.shrink`; None: only if `one_shot`.
    cut_at : float
        When a one-shot method cuts, as a share of the steps: those before it train the whole model,
        the others the smaller one. Both parts have a warm-up and a decay of their own.

    Raises
    ------
    GumlabError
        For a method that there is not, and for an option that it does not have or use.
    """

    label: str
    name: str | Rule | Criterion | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    one_shot: bool = False
    refit: bool | str | None = None
    cut_at: float = 0.0

    def __post_init__(self) -> None:
        check_text("label", self.label)
        check_flag("one_shot", self.one_shot)
        check_number("cut_at", self.cut_at, most=1)
        if not isinstance(self.options, Mapping):
            raise GumlabError(f"options must be a mapping; got {self.options!r:.60}.")
        if self.refit not in (None, True, False, "bias"):
            raise GumlabError(f'refit must be True, False or "bias"; got {self.refit!r:.60}.')
        if self.cut_at and not self.one_shot:
            raise GumlabError(
                f"cut_at is for a method that cuts once; {self.label!r} prunes on the way. Leave "
                "it out, or give one_shot=True."
            )
        if self.name is None:
            if self.options or self.one_shot or self.refit:
                raise GumlabError("A dense run removes nothing: it has no options and no refit.")
        elif self.one_shot:
            _check_one_shot(self)
        else:
            _check_gradual(self)


def _check_one_shot(method: Method) -> None:
    """Raise GumlabError unless `gumlab.score` has the method and `gumlab.select` the options."""
    if method.name is None or isinstance(method.name, Rule):
        raise GumlabError("A rule prunes on the way: leave one_shot out, or give a score.")
    there = object()  # in place of a tokenizer and a task, which come later
    check_method(method.name, there, there)
    what = f"setting of {method.label!r}, which cuts once,"
    check_options(what, method.options, _ONE_SHOT_OPTIONS)
    check_currency(method.options.get("currency", "output"), method.name)


def _check_gradual(method: Method) -> None:
    """Raise GumlabError unless `Pruner` has the method and its options, and uses them."""
    if not isinstance(method.name, str | Rule):
        raise GumlabError(
            f"{as_text(method.name)} is no training-time method; where it is a criterion of your "
            "own, give one_shot=True, or write it as a gumlab.rules.Rule."
        )
    others = {key: item for key, item in method.options.items() if key not in _PRUNER_OPTIONS}
    rule = rule_of(method.name, others)
    check_grams_used(rule, method.options)


PAPER_METHODS = (
    Method("dense"),
    Method("random", "random"),
    Method("magnitude", "magnitude"),
    Method("movement, local", "movement"),
    Method("movement, global", "movement", {"scope": "global"}),
    Method("soft movement", "soft_movement"),
    Method("GUM", "gum"),
)
_RECIPE = recommended()
RECOMMENDED_METHOD = Method("recommended", _RECIPE.pop("method"), _RECIPE, one_shot=True)


def named(name: str, steps: int, **options: Any) -> Method:
    """The method of a name, as `gumlab prune` and a study's grid give it.

    Parameters
    ----------
    name : str
        "dense", "recommended", a learned method, or a score. Random and magnitude prune on the way
        where there are steps to train; every other score cuts before them.
    steps : int
        Training steps of the run.
    **options
        one_shot, refit and cut_at of `Method`, and options of `Pruner` or `gumlab.select`. The
        label shows all of them in the order given.

    Returns
    -------
    Method
        A dense one has no options.

    Raises
    ------
    GumlabError
        For an unknown name.
    """
    check_text("method", name, "a name")
    check_whole("steps", steps, least=0)
    if name == "dense":
        return Method("dense")
    label = ", ".join([name, *(f"{key} {as_text(value)}" for key, value in options.items())])
    own_fields = {key: value for key, value in options.items() if key in OWN_FIELDS}
    its_options = {key: value for key, value in options.items() if key not in OWN_FIELDS}
    if name == "recommended":
        recipe = recommended(its_options.get("scope"), its_options.get("widths"))
        name = recipe.pop("method")
        its_options = {**recipe, **its_options}
    elif name not in SCORES + LEARNED:
        raise unknown("method", name, ("dense", "recommended", *SCORES, *LEARNED))
    gradual = name in LEARNED or (steps > 0 and name in ("random", "magnitude"))
    own_fields.setdefault("one_shot", not gradual)
    return Method(label, name, its_options, **own_fields)


@dataclass
class Run:
    """What one run left.

    Attributes
    ----------
    model : nn.Module
        The shrunk model, in evaluation mode.
    row : dict
        Its figures, as `run` describes them.
    history : History
        Of the training; of a one-shot method with `cut_at`, of the part after the cut, with the
        seconds of both.
    masks : list of Tensor or None
        (N,) bool per layer, the neurons that stayed; None of a dense run.
    pruner : Pruner or None
        The pruner of a method that prunes on the way.
    """

    model: nn.Module
    row: dict[str, Any]
    history: History
    masks: list[Tensor] | None
    pruner: Pruner | None = None


def run(
    base: nn.Module,
    tokenizer: Any,
    task: Task,
    method: Method,
    *,
    keep: float = 0.25,
    steps: int = 300,
    seed: int = 0,
    teacher: nn.Module | None = None,
    split: str | None = None,
    stride: int | None = None,
    generated: int | None = 200,
    calibration: Task | Sequence[Example] | None = None,
    tokens: int | None = TOKENS,
    redundancy_tokens: int | None = TOKENS,
    **training: Any,
) -> Run:
    """Prune a copy of `base` on `task` with one method while it trains, shrink it, and measure it.

    Every method gets the same steps, batches and dropout (by seed) and optimiser.

    Parameters
    ----------
    base : nn.Module
        The model to start from; it stays as it is.
    tokenizer, task
        Its tokenizer and the task that it is trained and measured on.
    method : Method
        What is done to it.
    keep : float
        Fraction in (0, 1] of all feed-forward neurons that stay; a dense run keeps all.
    steps : int
        Training steps, on the way to the cut or around it; 0: none.
    seed : int
        Of the batches, the dropout, random scores and the calibration examples.
    teacher : nn.Module, optional
        A model to distil from, as in `gumlab.train`.
    split : str, optional
        What loss and metrics are measured on; by default test where there is one, else validation.
    stride : int, optional
        Of running text's windows, as in `gumlab.evaluate`.
    generated : int, optional
        The first examples that are generated for the task's metric; None: all, 0: none.
    calibration : Task or sequence of Example, optional
        What scores and refits see; by default 256 training examples drawn by the seed.
    tokens, redundancy_tokens : int, optional
        Of running text, how many tokens scores and refits see, and how many sensitivity and
        uniqueness are measured on; None: all.
    **training
        Further options of `gumlab.train`: batch_size, lr and others.

    Returns
    -------
    Run
        Its row holds method, distilled, seed and split; keep, neurons and parameters left (with the
        fraction); loss, perplexity and the task's metrics on the split; sensitivity and uniqueness
        on training examples; the widths; the seconds of training, of cutting, and of everything.

    Raises
    ------
    GumlabError
        For a keep, steps or options that cannot be.
    """
    keep = check_keep(keep)
    steps = check_whole("steps", steps, least=0)
    seed = check_seed(seed)
    if split is not None:
        check_choice("split", split, SPLITS)
    if generated is not None:
        check_whole("generated", generated, least=0)
    if not isinstance(method, Method) or not isinstance(task, Task):
        raise GumlabError(
            "run(base, tokenizer, task, method) takes a Task and a Method; got "
            f"{type(task).__name__} and {type(method).__name__}. `named` makes a Method of a name."
        )
    check_options("option of gumlab.train", training, (*TRAINING_OPTIONS, "progress"))
    began = time.perf_counter()
    split = judged_split(task, split, generated)
    if calibration is None:
        count = min(_CALIBRATION_EXAMPLES, len(task.train))
        calibration = random.Random(seed).sample(task.train, count)
    device = next(base.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model, history, masks, pruner = _pruned_and_trained(
            copy.deepcopy(base),
            tokenizer,
            task,
            method,
            calibration,
            keep=keep,
            steps=steps,
            seed=seed,
            tokens=tokens,
            training={"teacher": teacher, **training},
        )
    cut_seconds = time.perf_counter() - began - history.seconds

    row = {
        "method": method.label,
        "distilled": teacher is not None,
        "seed": seed,
        "split": split,
        **_sizes(model, base),
        **evaluate(model, tokenizer, task, split, generated=generated, stride=stride),
        **_redundancy(model, tokenizer, task, redundancy_tokens, training.get("batch_size", 16)),
        "widths": [layer.width for layer in neurons(model)],
        "train_seconds": history.seconds,
        "cut_seconds": cut_seconds,
        "seconds": time.perf_counter() - began,
    }
    return Run(model.eval(), row, history, masks, pruner)


def judged_split(task: Task, split: str | None, generated: int | None) -> str:
    """The split that a run is judged on, test or else validation where none is named.

    Raises GumlabError, before the work, where that or train has no examples, or the metric cannot
    judge them.
    """
    task.split("train")
    if split is None:
        split = "test" if task.test else "validation"
    examples = task.split(split)
    if generated != 0:
        check_judged(task, examples[:generated])
    return split


def _pruned_and_trained(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    method: Method,
    calibration: Task | Sequence[Example],
    *,
    keep: float,
    steps: int,
    seed: int,
    tokens: int | None,
    training: Mapping[str, Any],
) -> tuple[nn.Module, History, list[Tensor] | None, Pruner | None]:
    """The smaller model, its history, who stayed, and the pruner: see `Run`."""
    refit = method.one_shot if method.refit is None else method.refit
    criterion = None
    if method.one_shot and not isinstance(method.name, Rule):
        criterion = method.name
        chosen = {name: method.options[name] for name in OF_BUDGET if name in method.options}
        Budget([layer.width for layer in neurons(model)], keep, **chosen)  # raises before the work
    steps_before = 0 if criterion is None else round(method.cut_at * steps)
    steps_after = steps - steps_before
    before = History()
    after = History()
    masks = None
    pruner = None

    if steps_before:
        before = train(model, tokenizer, task, steps=steps_before, seed=seed + 1000, **training)
    if criterion is not None:
        selecting = dict(method.options)
        currency = selecting.pop("currency", "output")
        scores = score(
            model, criterion, tokenizer, calibration, seed=seed, currency=currency, tokens=tokens
        )
        masks = select(scores, keep, **selecting)
        model = shrink(model, masks, tokenizer, calibration, refit=refit, tokens=tokens)
    elif isinstance(method.name, str | Rule):
        rule = copy.deepcopy(method.name)  # another run's begins where this one's did
        pruner = Pruner(model, rule, keep, steps, seed=seed, **method.options)
    if steps_after:
        after = train(
            model, tokenizer, task, steps=steps_after, pruner=pruner, seed=seed, **training
        )
    if pruner is not None:
        masks = pruner.original_masks
        pruner.remove()
        model = shrink(model, pruner.masks, tokenizer, calibration, refit=refit, tokens=tokens)
    after.seconds += before.seconds
    return model, after, masks, pruner


def _sizes(model: nn.Module, base: nn.Module) -> dict[str, Any]:
    """What is left of a model, in neurons and parameters."""
    neurons_left = _neuron_count(model)
    parameters_left = _parameter_count(model)
    return {
        "keep": neurons_left / _neuron_count(base),
        "neurons": neurons_left,
        "parameters": parameters_left,
        "parameters_kept": parameters_left / _parameter_count(base),
    }


def _neuron_count(model: nn.Module) -> int:
    return sum(layer.width for layer in neurons(model))


def _parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _redundancy(
    model: nn.Module, tokenizer: Any, task: Task, tokens: int | None, batch_size: int
) -> dict[str, float]:
    """The paper's two figures of a model, on training examples."""
    report = redundancy(model, tokenizer, task, tokens=tokens, batch_size=batch_size)
    return {"sensitivity": report.mean_sensitivity, "uniqueness": report.uniqueness}


def pruned(
    name: str,
    method: str,
    task: Task,
    *,
    steps: int,
    keep: float = 0.25,
    seed: int = 0,
    teacher: str | None = None,
    scope: str | None = None,
    refit: bool | None = None,
    split: str | None = None,
    generated: int | None = 200,
    pad: bool = False,
    **training: Any,
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """`run` by names, calibrated as `gumlab.prune` is.

    Parameters
    ----------
    name, method, teacher : str
        What `gumlab.load` loads, what `named` names, and a model with the same tokens to distil
        from.
    task, steps, keep, seed, split, generated, **training
        As in `run`.
    scope, refit
        As in `gumlab.select` and `gumlab.shrink`; None for the method's own.
    pad : bool
        Whether it is to be saved padded: a model that cannot be is refused before the work.

    Returns
    -------
    tuple
        The smaller model, its tokenizer, and its row, which also names model, task, steps and
        teacher.

    Raises
    ------
    GumlabError
        What `load`, `named` and `run` raise, and for a teacher with other tokens.
    """
    options: dict[str, Any] = {}
    if scope is not None:
        options["scope"] = scope
    if refit is not None:
        options["refit"] = refit
    one = named(method, steps, **options)  # raises before anything is loaded
    if teacher is not None and steps == 0:
        raise GumlabError("With steps=0 nothing is distilled: leave teacher out, or give steps.")
    base, tokenizer = load(name)
    if pad:
        check_paddable(base)
    teacher_model = None
    if teacher is not None:
        teacher_model, teacher_tokenizer = load(teacher)
        if teacher_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise GumlabError(f"{teacher} has other tokens than {name}; choose another teacher.")
    done = run(
        base,
        tokenizer,
        task,
        one,
        keep=keep,
        steps=steps,
        seed=seed,
        teacher=teacher_model,
        split=split,
        generated=generated,
        calibration=task,
        **training,
    )
    row = {
        "model": name,
        "task": task.name,
        "steps": steps,
        **done.row,
        "method": method,
        "teacher": teacher,
    }
    return done.model, tokenizer, row


def metric_of(task: Task) -> str:
    """The task's main metric, as the tables name it."""
    return MAIN_METRIC[task.metric]
