"""Passes over data, and everything that scores, metrics and the refit need from them.

For each layer: the Gram matrix G = H^T H of the activations (tokens x neurons H, padding never
counts), sums and extremes of h, and with `gradients` the sensitivity. Sums are float32 or better.
Three ways: `collect` looks at all layers in one pass, `one_by_one` at one layer after the other in
the memory of one, and `RunningGrams` follows a model that trains. Of an offloaded model
(`gumlab.offloading`) only the block that runs is in memory, forward and backward.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gumlab import ranks
from gumlab.errors import GumlabError, check_choice, check_number, check_whole
from gumlab.feedforward import FeedForward, check_values, neurons
from gumlab.language import check_head, check_trainable, language_config
from gumlab.offloading import check_resident, held, is_offloaded
from gumlab.progress import shown
from gumlab.ranks import ServesNobody
from gumlab.tasks import SPLITS, Example, Task
from gumlab.tasks.batches import (
    IGNORED,
    as_examples,
    by_itself,
    collated,
    context_length,
    encode,
    evaluating,
    is_running_text,
    memory_guard,
    token_losses,
)

TOKENS = 32_768  # of running text, where nothing else is said: 32 blocks of 1,024
CURRENCIES = ("output", "loss", "loss_scalar")
ROBUST = ("centred", "without_first", "winsorised")
CLIPPED = 100  # winsorised: one in so many of the tokens at which a neuron fires
STILL = 1e-10  # of a neuron's energy: a smaller variance is the rounding of a constant


@dataclass(frozen=True)
class Calibration:
    """The data that something is measured on, as it goes down from call to call.

    Parameters
    ----------
    tokenizer, task, split, limit, tokens, batch_size
        As in `collect`.

    Raises
    ------
    GumlabError
        For a split that cannot be, or a number that is none.
    """

    tokenizer: Any
    task: Task | Sequence[Example] | None
    split: str
    limit: int | None
    tokens: int | None
    batch_size: int

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        for name in ("limit", "tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, check_whole(name, value))

    def options(self) -> dict[str, Any]:
        """These as arguments of `collect` and `one_by_one`."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    def batches(self, model: nn.Module) -> list[dict[str, Tensor]]:
        """What a model is measured on, as `gumlab.tasks.batches.collate` makes it."""
        examples = self.task.split(self.split) if isinstance(self.task, Task) else self.task
        examples = as_examples(examples)[: self.limit]
        rows = encode(self.tokenizer, examples, context_length(model))
        if self.tokens is not None and is_running_text(examples):
            block, _ = rows[0]
            rows = rows[: max(1, self.tokens // len(block))]
        return list(collated(model, rows, self.batch_size))


@dataclass
class Statistics:
    """What one pass saw of one layer of N neurons; a tensor is (N,) where nothing else is said.

    Attributes
    ----------
    gram : Tensor
        G, (N, N): sum over tokens of h h^T.
    total : Tensor
        Sum over tokens of h.
    low, high : Tensor
        The smallest and the largest h.
    squared_means : Tensor
        Sum over sequences of (mean over tokens of |h|)^2.
    sensitivity : Tensor
        Mean over sequences of |sum over the neuron's weights of w dL/dw|.
    fisher : Tensor
        Mean over sequences of (dL/dm)^2, m the neuron's gate.
    slope : Tensor
        Mean over sequences of dL/dm. These three are zero where no gradients were asked for.
    tokens : int
        How many tokens were seen.
    currency : Tensor or None
        What an output w is measured by: ||w C||, C (D, D) or one number, as `currencies` gives it.
        None where an output is measured as it is. `collect` leaves it so; `gumlab.score` sets it.
    token_energy : Tensor
        (tokens,): ||h||^2 of every token, in the order in which they were seen.
    first_energy : Tensor
        (): the sum of it over the first tokens of the sequences.
    """

    gram: Tensor
    total: Tensor
    low: Tensor
    high: Tensor
    squared_means: Tensor
    sensitivity: Tensor
    fisher: Tensor
    slope: Tensor
    tokens: int = 0
    currency: Tensor | None = None
    token_energy: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float32))
    first_energy: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float32))

    @classmethod
    def empty(cls, layer: FeedForward, with_gram: bool = True) -> Statistics:
        """The statistics of no tokens yet, float32, on the layer's device."""
        n, device = layer.width, layer.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        return cls(
            gram=zeros(n, n) if with_gram else zeros(0, 0),
            total=zeros(n),
            low=zeros(n) + torch.inf,
            high=zeros(n) - torch.inf,
            squared_means=zeros(n),
            sensitivity=zeros(n),
            fisher=zeros(n),
            slope=zeros(n),
            token_energy=zeros(0),
            first_energy=zeros(),
        )

    @property
    def energy(self) -> Tensor:
        """G_ii, the sum over tokens of h_i^2."""
        return self.gram.diagonal()

    @property
    def dead(self) -> Tensor:
        """True where a neuron never fired: G_ii = 0."""
        return self.energy == 0

    @property
    def mean(self) -> Tensor:
        """The mean of h over the tokens."""
        return self.total / self.tokens

    def check_finite(self, name: str) -> None:
        """Raise GumlabError where an activation of the layer was infinite or no number."""
        _check_finite(self.gram, name)

    def check_gradients(self, name: str) -> None:
        """Raise GumlabError where a gradient was infinite or no number."""
        for gradients in (self.sensitivity, self.fisher, self.slope):
            if not gradients.isfinite().all():
                raise _not_finite(name)

    def forget(self, which: Tensor) -> None:
        """Take some neurons, (N,) bool, for dead: nothing is left of them in G."""
        self.gram[which] = 0
        self.gram[:, which] = 0

    def add_activations(self, h: Tensor, real: Tensor) -> None:
        """Add a batch: h (B, T, N) or (B T, N), and which of its tokens are real, (B, T) bool."""
        rows = h.flatten(0, -2)[real.flatten()].float()  # (real tokens, N)
        self.gram.addmm_(rows.T, rows)
        self.total += rows.sum(0)
        self.low = torch.minimum(self.low, rows.min(0).values)
        self.high = torch.maximum(self.high, rows.max(0).values)
        size = h.float().view(*real.shape, -1).abs() * real[..., None]  # (B, T, N)
        mean_size = size.sum(1) / real.sum(1, keepdim=True)
        self.squared_means += mean_size.square().sum(0)
        self.token_energy = torch.cat([self.token_energy, torch.linalg.vecdot(rows, rows)])
        self.first_energy += size[:, 0].square().sum()
        self.tokens += len(rows)

    def add_gradients(
        self,
        activations: Sequence[Tensor],
        gradients: Sequence[Tensor],
        real: Tensor,
        sequences: int,
    ) -> None:
        """Add a batch's gradients to the means over `sequences`.

        activations, gradients: the z's and h as `sequence_sensitivity` takes them.
        """
        batch = len(real)
        self.sensitivity += sequence_sensitivity(activations, gradients, batch).sum(0) / sequences
        product = (activations[-1].detach() * gradients[-1]).float()
        to_gate = product.view(*real.shape, -1).sum(1)  # dL/dm, (B, N)
        self.fisher += to_gate.square().sum(0) / sequences
        self.slope += to_gate.sum(0) / sequences


@by_itself()
def collect(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    gradients: bool = False,
    robust: str | None = None,
    layers: Sequence[FeedForward] | None = None,
) -> list[Statistics]:
    """Statistics of the layers from the first examples of a split, in eval mode.

    What comes back does not depend on the batch size. On a gated model h is what the gate lets
    through, so removed neurons are dead.

    With `robust`, every sum is over h' in the place of h (and of z' in the sensitivity, which also
    weights a neuron's inputs z), so that a handful of neurons or tokens does not make it::

        centred        h' = h - mean of h over all tokens: G is tokens x covariance
        without_first  h' = h, over all tokens but the first of each sequence
        winsorised     h' = h clipped to [-c, c], c of each neuron the largest |h| but for one in a
                       hundred of the tokens at which it fires (|h| > 0), rounded down

    Mean and c come from a first pass over the same data. The gradients are those of the model as it
    is. Centred, a neuron that is the same at every token counts as dead.

    Parameters
    ----------
    model, tokenizer
        The model, left in the mode it was in, and its tokenizer.
    task : Task or sequence of Example
        Examples given by themselves have no splits.
    split : str
        "train", "validation" or "test".
    limit : int, optional
        How many examples, or passages of running text; None for all.
    tokens : int, optional
        How much of running text, in whole blocks, one at least; None for all. Examples with a
        prompt are counted by `limit` alone.
    batch_size : int
        Sequences at a time.
    gradients : bool
        Also sensitivity, fisher and slope, which takes a backward pass.
    robust : {"centred", "without_first", "winsorised"}, optional
        By default the activations are taken as they are.
    layers : sequence of FeedForward, optional
        The layers of `model` to look at, as `gumlab.neurons` gives them; by default all.

    Returns
    -------
    list of Statistics
        One per layer that is looked at.

    Raises
    ------
    GumlabError
        Where there are no examples, the memory runs out, or `robust` is none of these, and for an
        offloaded model.
    """
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    check_robust(robust)
    check_resident(model, "A look at all layers at once")
    if layers is None:
        layers = neurons(model)
    check_values(layers)
    if gradients:
        check_head(model)
        check_trainable(model)
    statistics = [Statistics.empty(layer) for layer in layers]
    taps = [_Tap(layer) for layer in layers]
    try:
        with evaluating(model), memory_guard(batch_size), torch.set_grad_enabled(gradients):
            rows = calibration.batches(model)
            sequences = sum(len(batch["labels"]) for batch in rows)  # of running text: its blocks
            views = _views(model, rows, taps, robust)
            for batch in shown(rows, "statistics", "batch"):
                labels = batch.pop("labels")
                real = _counted(batch["attention_mask"], robust)
                outputs = model(**batch)
                for tap, layer, view in zip(taps, statistics, views, strict=True):
                    _check_run(tap.activations, tap.layer)
                    layer.add_activations(view(tap.activations, real)[-1], real)
                if gradients:
                    slopes = _gradients(_sequence_losses(outputs.logits, labels).sum(), taps)
                    for tap, layer, slope, view in zip(
                        taps, statistics, slopes, views, strict=True
                    ):
                        layer.add_gradients(view(tap.activations, real), slope, real, sequences)
    finally:
        for tap in taps:
            tap.remove()
    for layer, view, block in zip(statistics, views, layers, strict=True):
        layer.check_finite(block.name)
        view.settle(layer)
    for layer, block in zip(statistics, layers, strict=True):
        layer.check_gradients(block.name)  # after all activations, which spoil those of any layer
    return statistics


def one_by_one(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    changing: bool = False,
    gradients: bool = False,
    layers: Sequence[FeedForward] | None = None,
) -> Generator[Statistics, None, None]:
    """`collect` layer by layer: one Gram matrix in memory at a time.

    Only the layer at hand runs, on what the one before gave, which is kept, (tokens, D). Of an
    offloaded model its weights are in memory up to the next one's turn. Close the iterator when an
    error cuts it short (contextlib.closing), so that they leave.

    Parameters
    ----------
    model, tokenizer, task, split, limit, tokens, batch_size
        As in `collect`.
    changing : bool
        Whether the caller changes (refits, cuts) each layer in its turn: then the layer runs again
        behind its turn, so that the next one sees what it now gives.
    gradients : bool
        Also sensitivity, fisher and slope, measured before the first layer's turn: batch by batch
        through all layers and back, one of them at a time.
    layers : sequence of FeedForward, optional
        All layers of `model`, in order, where they are at hand.

    Yields
    ------
    Statistics
        One per layer, in order.
    """
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    if layers is None:
        layers = neurons(model)
    rows = calibration.batches(model)
    blocks = blocks_of(model, layers)
    by_gradient = _gradient_statistics(model, layers, rows) if gradients else []
    outputs: list[Any] = [None] * len(rows)  # what the block before gave, by batch
    for i, layer in enumerate(layers):
        inputs = outputs
        with held(blocks[i]):
            # no_grad as a decorator would hold what was yielded until the next layer's is there
            with torch.no_grad():
                statistics, outputs = _look(model, blocks, i, layer, rows, inputs)
            if gradients:
                found = by_gradient[i]
                statistics = replace(
                    statistics,
                    sensitivity=found.sensitivity,
                    fisher=found.fisher,
                    slope=found.slope,
                )
            yield statistics
            del statistics  # before the next one is made
            if changing:
                with torch.no_grad():
                    outputs = [
                        through(model, blocks, i, batch, state)
                        for batch, state in zip(rows, inputs, strict=True)
                    ]


def _look(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    i: int,
    layer: FeedForward,
    rows: Sequence[dict[str, Tensor]],
    inputs: Sequence[Any],
) -> tuple[Statistics, list[Any]]:
    """The statistics of the layer in block i, and what the block gives, by batch."""
    statistics = Statistics.empty(layer)
    outputs = []
    seen: list[Tensor] = []
    with layer.proj.register_forward_pre_hook(lambda _, x: seen.append(x[0])):
        for batch, state in zip(rows, inputs, strict=True):
            outputs.append(through(model, blocks, i, batch, state))
            _check_run(seen, layer)
            statistics.add_activations(seen.pop(), batch["attention_mask"].bool())
    statistics.check_finite(layer.name)
    return statistics, outputs


def currencies(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    currency: str,
    *,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    layers: Sequence[FeedForward] | None = None,
) -> list[Tensor | None]:
    """What an error of each layer's output costs, so that layers can be compared.

    A layer that errs by e (D numbers, at one token) raises the loss by about e F e^T / 2, with F
    the mean over tokens of g g^T, g the gradient of the summed loss at the layer's output. So an
    output w is worth ||w C|| with C C^T = F.

    Parameters
    ----------
    model, tokenizer, task, split, limit, tokens, batch_size
        As in `collect`.
    currency : {"output", "loss", "loss_scalar"}
        "output": an error costs what it is, ||e||, in every layer. "loss": C = F^(1/2), the
        symmetric root. "loss_scalar": the cheap form, one number a layer, the root of F's mean
        diagonal: the layers' prices without the directions'.
    layers : sequence of FeedForward, optional
        As in `collect`.

    Returns
    -------
    list of Tensor or None
        C of each layer: (D, D), or (), float64; None where the currency is the output.

    Raises
    ------
    GumlabError
        For an unknown currency, where there are no examples, or the memory runs out.

    References
    ----------
    The empirical Fisher information with a Kronecker-factored inverse: Martens, Grosse 2015; of a
    layer's output, for pruning: Wang et al. 2019 (EigenDamage).
    """
    check_choice("currency", currency, CURRENCIES)
    if layers is None:
        layers = neurons(model)
    if currency == "output":
        return [None] * len(layers)
    is_scalar = currency == "loss_scalar"
    fisher = output_fisher(
        model,
        tokenizer,
        task,
        split=split,
        limit=limit,
        tokens=tokens,
        batch_size=batch_size,
        layers=layers,
        mean_only=is_scalar,
    )
    if is_scalar:
        return [f.double().sqrt() for f in fisher]
    return [symmetric_root(f) for f in fisher]


@by_itself()
def output_fisher(
    model: nn.Module,
    tokenizer: Any,
    task: Task | Sequence[Example],
    *,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
    layers: Sequence[FeedForward] | None = None,
    mean_only: bool = False,
) -> list[Tensor]:
    """F of each layer: mean over tokens of g g^T, g = d(summed loss) / d(layer's output).

    One forward and one backward pass, without gradients of weights. Gates that are on stay on.

    Parameters
    ----------
    model, tokenizer, task, split, limit, tokens, batch_size, layers
        As in `collect`.
    mean_only : bool
        Give the mean of F's diagonal alone, in the memory of a number.

    Returns
    -------
    list of Tensor
        (D, D) float32 per layer, on the layer's device; with `mean_only` () each.

    Raises
    ------
    GumlabError
        Where there are no examples, a gradient is not finite, or the memory runs out.
    """
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    if layers is None:
        layers = neurons(model)
    check_head(model)
    check_trainable(model)
    sums = []
    for layer in layers:
        size = layer.outgoing().shape[1]
        shape = () if mean_only else (size, size)
        sums.append(torch.zeros(shape, dtype=torch.float32, device=layer.device))
    count = 0
    with evaluating(model), memory_guard(batch_size), torch.enable_grad():
        for batch in shown(calibration.batches(model), "currency", "batch"):
            real = batch["attention_mask"].bool().flatten()

            def add(i: int, gradient: Tensor, real: Tensor = real) -> None:
                rows = gradient.flatten(0, -2)[real].float()  # (real tokens, D)
                if mean_only:
                    sums[i] += rows.square().sum() / rows.shape[1]
                else:
                    sums[i].addmm_(rows.T, rows)

            _output_gradients(model, layers, batch, add)
            count += int(real.sum())
    for layer, total in zip(layers, sums, strict=True):
        if not total.isfinite().all():
            raise _not_finite(layer.name)
    return [total / count for total in sums]


def _output_gradients(
    model: nn.Module,
    layers: Sequence[FeedForward],
    batch: dict[str, Tensor],
    take: Callable[[int, Tensor], None],
) -> None:
    """Call take(i, d(summed loss) / d(output)), in the output's shape, of each layer i."""

    def loss(logits: Tensor) -> Tensor:
        return token_losses(logits, batch["labels"]).sum()

    if is_offloaded(model):
        _back_by_block(model, layers, batch, loss, _OutputTap, lambda i, _, g: take(i, g[-1]))
        return
    taps = [_OutputTap(layer) for layer in layers]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    try:
        summed = loss(model(**inputs).logits)
    finally:
        for tap in taps:
            tap.remove()
    for tap in taps:
        _check_run(tap.activations, tap.layer)
    slopes = torch.autograd.grad(summed, [tap.activations[-1] for tap in taps])
    for i, slope in enumerate(slopes):
        take(i, slope)


def _gradient_statistics(
    model: nn.Module, layers: Sequence[FeedForward], rows: Sequence[dict[str, Tensor]]
) -> list[Statistics]:
    """The part of each layer's statistics that needs gradients, one block in memory at a time."""
    check_head(model)
    check_trainable(model)
    found = [Statistics.empty(layer, with_gram=False) for layer in layers]
    sequences = sum(len(batch["labels"]) for batch in rows)
    for batch in shown(rows, "gradients", "batch"):
        real = batch["attention_mask"].bool()
        labels = batch["labels"]

        def loss(logits: Tensor, labels: Tensor = labels) -> Tensor:
            return _sequence_losses(logits, labels).sum()

        def add(
            i: int, seen: Sequence[Tensor], slopes: Sequence[Tensor], real: Tensor = real
        ) -> None:
            found[i].add_gradients(seen, slopes, real, sequences)

        _back_by_block(model, layers, batch, loss, _Tap, add)
    for layer, statistics in zip(layers, found, strict=True):
        statistics.check_gradients(layer.name)
    return found


@torch.enable_grad()
def _back_by_block(
    model: nn.Module,
    layers: Sequence[FeedForward],
    batch: dict[str, Tensor],
    loss: Callable[[Tensor], Tensor],
    tap_kind: type[_Tap] | type[_OutputTap],
    take: Callable[[int, Sequence[Tensor], Sequence[Tensor]], None],
) -> None:
    """A pass forward and back, with the weights and the graph of one block in memory at a time.

    What the blocks give is kept, (B, T, D) each. Behind the last one `loss` of the logits is taken,
    (); then each block in turn, the last one first, runs again on what the one before gave.

    Calls take(i, tensors, gradients) with what a layer's tap keeps, and the loss's gradients.
    """
    blocks = blocks_of(model, layers)
    given: list[Any] = [None]  # what goes into block i, and at the end what comes out of the last
    with torch.no_grad():
        for i in range(len(layers)):
            given.append(through(model, blocks, i, batch, given[-1]))
    state, leaf = _with_leaf(given.pop())
    (slope,) = torch.autograd.grad(loss(logits_behind(model, blocks, batch, state)), leaf)
    for i, layer in reversed(list(enumerate(layers))):
        ends = []
        state = given.pop()
        if i > 0:
            state, leaf = _with_leaf(state)
            ends = [leaf]
        tap = tap_kind(layer)
        try:
            with held(blocks[i]):
                output = _hidden(through(model, blocks, i, batch, state))
                _check_run(tap.activations, layer)
                count = len(tap.activations)
                slopes = torch.autograd.grad(output, [*tap.activations, *ends], slope)
        finally:
            tap.remove()
        take(i, tap.activations, slopes[:count])
        slope = slopes[-1]


def _hidden(state: Any) -> Tensor:
    """The hidden state (B, T, D) in what a block gives, alone or before other things."""
    return state[0] if isinstance(state, tuple | list) else state


def _with_leaf(state: Any) -> tuple[Any, Tensor]:
    """What a block gave, with a hidden state at which a gradient ends; and that."""
    leaf = _hidden(state).detach().requires_grad_()
    return ((leaf, *state[1:]) if isinstance(state, tuple | list) else leaf), leaf


def symmetric_root(matrix: Tensor) -> Tensor:
    """R with R R = M of a positive semidefinite M, (D, D) float64; rounding below 0 counts as 0.

    >>> symmetric_root(torch.tensor([[4.0, 0.0], [0.0, 9.0]])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def sequence_sensitivity(
    activations: Sequence[Tensor], gradients: Sequence[Tensor], sequences: int
) -> Tensor:
    """|sum over a neuron's weights of w dL/dw| for each sequence, from activations alone.

    The sum over tokens of z dL/dz (each incoming row with its bias) plus h dL/dh.

    Parameters
    ----------
    activations : sequence of Tensor
        The z's and h, (B, T, N) or flat (B T, N) each.
    gradients : sequence of Tensor
        dL/d of them, in the same shapes.
    sequences : int
        B.

    Returns
    -------
    Tensor
        (B, N), float32.
    """
    total = torch.tensor(0.0, dtype=torch.float32)
    for x, gradient in zip(activations, gradients, strict=True):
        product = (x.detach() * gradient).float()
        total = total + product.view(sequences, -1, product.shape[-1]).sum(1)
    return total.abs()


class RunningGrams:
    """Running Gram sums G <- memory G + (1 - memory) h^T h / tokens of a model that trains.

    Takes a random share of a batch's real tokens (padding never counts) at every so many training
    steps; only a step's first forward pass fades what was there, so accumulated micro-batches count
    together. h is ungated. The reference code's settings are every=1, tokens=1, memory=0.001; the
    `Pruner`'s cost a thirty-second of that.

    Parameters
    ----------
    model : nn.Module
        Whose forward passes in training are followed.
    gates : sequence of Gate
        One per layer; they hand over the ungated h.
    every : int
        Steps from one addition to the next, 1 or more.
    tokens : float
        The share of a batch's real tokens, in (0, 1].
    memory : float
        What an addition leaves of the sums before, in [0, 1).
    seed : int
        Of the tokens that are drawn, of several processes by each for itself.

    Attributes
    ----------
    sums : list of Tensor
        G of each layer, (N, N) float32.
    step : int
        The step at hand, from 0; the owner advances it.
    heard : set of int
        The layers that were added to at this step.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Sequence[Any],
        every: int,
        tokens: float,
        memory: float,
        seed: int = 0,
    ) -> None:
        self.every = every
        self.tokens = tokens
        self.memory = memory
        self.step = 0
        self.sums = [self.nothing(len(gate.mask), gate.mask.device) for gate in gates]
        self.seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self.heard: set[int] = set()
        self._rows: Tensor | None = None  # the drawn tokens of the batch that runs
        self._added: set[int] = set()  # the layers that this forward pass was added of
        self._added_at = -1
        self._fade = memory
        for i, gate in enumerate(gates):
            gate.watch = partial(self._add, i)
        self._handle = model.register_forward_pre_hook(self, with_kwargs=True)

    @staticmethod
    def nothing(width: int, device: torch.device) -> Tensor:
        """The sums of a layer before anything was added."""
        return torch.zeros(width, width, dtype=torch.float32, device=device)

    @property
    def due(self) -> bool:
        """True at the steps that add to the sums."""
        return self.step % self.every == 0

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Draw this forward pass's tokens; called by the model before it."""
        self._rows = None
        self._added = set()
        if not (self.due and model.training and torch.is_grad_enabled()):
            return
        real = _attention(model, args, kwargs).flatten().nonzero().flatten()
        if ranks.count() > 1:  # their batches differ in tokens, so one generator would part them
            self._generator.manual_seed(ranks.own_seed(self.seed, self.step))
        count = math.ceil(self.tokens * len(real))
        chosen = torch.randperm(len(real), generator=self._generator, device="cpu")[:count]
        self._rows = real[chosen.to(real.device)]
        self._fade = 1.0 if self._added_at == self.step else self.memory
        self._added_at = self.step

    def _add(self, i: int, h: Tensor) -> None:
        # gradient checkpointing runs a layer again in the backward pass: it counts once
        if self._rows is not None and i not in self._added:
            self._added.add(i)
            self.heard.add(i)
            self.add(i, h.flatten(0, -2)[self._rows].float())

    def add(self, i: int, rows: Tensor) -> None:
        """Add the drawn tokens' h of layer i, (tokens, N) float32."""
        self.sums[i].addmm_(rows.T, rows, beta=self._fade, alpha=(1 - self.memory) / len(rows))

    def advance(self) -> None:
        """The step at hand is done."""
        self.step += 1
        self.heard = set()

    def cut(self, indices: Sequence[Tensor]) -> None:
        """Follow layers that now hold only their neurons `indices`, (k,) each."""
        self.sums = [g[index][:, index] for g, index in zip(self.sums, indices, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The sums, the step, and where the drawing of tokens stands."""
        return {"step": self.step, "sums": self.sums, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        self.step = state["step"]
        self._generator.set_state(state["generator"])
        self.sums = [
            saved.to(present.device)
            for saved, present in zip(state["sums"], self.sums, strict=True)
        ]

    def __reduce__(self) -> tuple[type[ServesNobody], tuple]:
        """In a copy or a pickle of the model nothing stands in the sums' place."""
        return ServesNobody, ()

    def remove(self) -> None:
        """Follow the model no longer, and let the sums go."""
        self._handle.remove()
        self.sums = []


class RunningLikeness(RunningGrams):
    """A running mean of u, each neuron's mean |cosine| with kept ones, of a model that trains.

    Instead of all pairs of neurons, at every addition some kept neurons are drawn anew, and all
    neurons compared with those::

        u_i ~ mean over drawn j != i of |h_i . h_j| / (||h_i|| ||h_j||)

    over the drawn tokens of the batch, scaled as `gumlab.scoring.mean_similarity` is. That costs N
    `neurons` products a token instead of N^2 and holds 2 N numbers instead of N^2, so it can be
    renewed at every step.

    Parameters
    ----------
    model, gates, every, tokens, memory, seed
        As in `RunningGrams`.
    neurons : int
        How many kept neurons are drawn, 2 or more.

    Attributes
    ----------
    sums : list of Tensor
        (2, N) float32 of each layer: the faded sum of the means, and that of the additions.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Sequence[Any],
        every: int,
        tokens: float,
        memory: float,
        seed: int,
        neurons: int,
    ) -> None:
        super().__init__(model, gates, every, tokens, memory, seed)
        self.neurons = neurons
        self._gates = gates

    @staticmethod
    def nothing(width: int, device: torch.device) -> Tensor:
        """The sums of a layer before anything was added."""
        return torch.zeros(2, width, dtype=torch.float32, device=device)

    def add(self, i: int, rows: Tensor) -> None:
        """Add the drawn tokens' h of layer i, (tokens, N) float32."""
        mask = self._gates[i].mask
        kept = mask.nonzero().flatten()
        order = torch.randperm(len(kept), generator=self._generator, device="cpu")
        drawn = kept[order[: self.neurons].to(kept.device)]
        norm = rows.square().sum(0).sqrt()
        inverse_norm = torch.where(norm > 0, norm.clamp_min(1e-15).reciprocal(), 0.0)
        products = rows.T @ (rows[:, drawn] * inverse_norm[drawn])
        sums = products.abs_().sum(1).mul_(inverse_norm)
        others = torch.full_like(norm, len(drawn))  # of those drawn, how many are not neuron i
        others[drawn] -= 1
        sums[drawn] -= (norm[drawn] > 0).float()  # its cosine with itself
        means = sums / others.clamp_min(1)
        u = means * (1 - mask.float() / len(kept))  # a kept neuron counts itself as 0
        added = torch.stack([u, torch.ones_like(u)])
        self.sums[i].mul_(self._fade).add_(added, alpha=1 - self.memory)

    def likeness(self, i: int) -> Tensor:
        """u of layer i's neurons, (N,) float32."""
        total, additions = self.sums[i]
        return total / additions

    def cut(self, indices: Sequence[Tensor]) -> None:
        """Follow layers that now hold only their neurons `indices`, (k,) each."""
        self.sums = [sums[:, index] for sums, index in zip(self.sums, indices, strict=True)]


def _attention(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """The attention mask (B, T) that a forward pass is called with, all ones where it has none."""
    given = kwargs
    if args:
        given = inspect.signature(model.forward).bind(*args, **kwargs).arguments | kwargs
    tokens = given.get("input_ids")
    if tokens is None:
        tokens = given.get("inputs_embeds")
    if tokens is None:
        raise GumlabError(
            "The running Gram sums need to know the tokens of a forward pass: call the model with "
            "input_ids or inputs_embeds, and attention_mask where there is padding."
        )
    mask = given.get("attention_mask")
    if mask is None:
        return tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    count = tokens.shape[1]
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] < count:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise GumlabError(
            f"The running Gram sums tell padding from tokens by an attention_mask (B, T), here "
            f"{tuple(tokens.shape[:2])}, got {found}. Give the one by token, or take a method "
            "without Gram sums."
        )
    return mask[:, -count:]  # what stands before belongs to a cache


def check_running(
    every: int, tokens: float, memory: float, drawn: int | None = None
) -> tuple[int, float, float, int | None]:
    """The settings of `RunningGrams`; GumlabError for some that make no sense."""
    every = check_whole("gram_every", every)
    tokens = check_number("gram_tokens", tokens, above=0, most=1)
    memory = check_number("gram_memory", memory)
    if memory >= 1:
        raise GumlabError(f"gram_memory must be below 1, or nothing is ever added; got {memory:g}.")
    if drawn is not None:
        drawn = check_whole("gram_neurons", drawn, least=2)
    return every, tokens, memory, drawn


class _Tap:
    """Keeps a layer's z (one or two) and h of the last forward pass, with their graph."""

    def __init__(self, layer: FeedForward) -> None:
        self.layer = layer
        self.activations: list[Tensor] = []
        self._z: dict[nn.Module, list[Tensor]] = {}  # by the map it comes from
        hooks = [module.register_forward_hook(self._after_fc) for module in layer.fc]
        self._handles = [*hooks, layer.proj.register_forward_pre_hook(self._before_proj)]

    def _after_fc(self, module: nn.Module, inputs: tuple, z: Tensor) -> Tensor | None:
        if torch.is_grad_enabled() and not z.requires_grad:
            z.requires_grad_(True)
        if z.shape[-1] == self.layer.width:
            self._z[module] = [z]
            return None
        self._z[module] = list(z.chunk(2, dim=-1))  # fused: the two halves are differentiated
        return torch.cat(self._z[module], dim=-1)

    def _before_proj(self, module: nn.Module, inputs: tuple) -> None:
        # a model may call up before gate
        z = [part for fc in self.layer.fc for part in self._z.pop(fc, ())]
        self.activations = [*z, inputs[0]]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class _OutputTap:
    """Keeps what a layer writes, the output of its `proj`, at the last forward pass."""

    def __init__(self, layer: FeedForward) -> None:
        self.layer = layer
        self.activations: list[Tensor] = []
        self._handle = layer.proj.register_forward_hook(self._after_proj)

    def _after_proj(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not output.requires_grad:
            output.requires_grad_(True)
        self.activations = [output]

    def remove(self) -> None:
        self._handle.remove()


def check_robust(robust: str | None) -> None:
    """Raise GumlabError for a robust form of the sums that does not exist."""
    if robust is not None:
        check_choice("robust", robust, ROBUST)


def _counted(attention_mask: Tensor, robust: str | None) -> Tensor:
    """Which tokens of a batch count in the sums, (B, T) bool."""
    real = attention_mask.to(torch.bool, copy=True)
    if robust == "without_first":
        real[:, 0] = False
    return real


class _Marks:
    """What a first pass tells of x, a layer's z or h: each neuron's mean, energy and limit."""

    def __init__(self, width: int, tokens: int, device: torch.device) -> None:
        self.total = torch.zeros(width, dtype=torch.float64, device=device)
        self.energy = torch.zeros_like(self.total)
        self.fired = torch.zeros(width, dtype=torch.long, device=device)
        self.largest = torch.zeros(0, width, dtype=torch.float32, device=device)  # |x|, falling
        self.tokens = tokens

    def add(self, x: Tensor, real: Tensor) -> None:
        """Add a batch: x (B, T, N) or (B T, N), and which of its tokens are real, (B, T) bool."""
        rows = x.flatten(0, -2)[real.flatten()].float()  # (real tokens, N)
        self.total += rows.sum(0, dtype=torch.float64)
        self.energy += rows.square().sum(0, dtype=torch.float64)
        self.fired += (rows != 0).sum(0)
        sizes = torch.cat([self.largest, rows.abs()])
        self.largest = sizes.topk(min(len(sizes), self.tokens // CLIPPED + 1), dim=0).values

    @property
    def mean(self) -> Tensor:
        """The mean of x over the tokens, (N,)."""
        return (self.total / self.tokens).float()

    @property
    def limit(self) -> Tensor:
        """The largest |x| but for one in CLIPPED of the tokens at which x is not 0, (N,)."""
        clipped = self.fired // CLIPPED
        return self.largest.gather(0, clipped[None])[0]


class _View:
    """How the sums take a layer's z and h: as they are, or in a robust form (see `collect`)."""

    def __init__(self, robust: str | None, marks: Sequence[_Marks] = ()) -> None:
        self.robust = robust
        self.marks = marks  # of each z, and of h

    def __call__(self, activations: Sequence[Tensor], real: Tensor) -> list[Tensor]:
        """z' and h' of a batch in which the tokens `real`, (B, T) bool, count."""
        plain = [x.detach() for x in activations]
        if self.robust == "centred":
            return [x.float() - mark.mean for x, mark in zip(plain, self.marks, strict=True)]
        if self.robust == "winsorised":
            pairs = [(x.float(), mark.limit) for x, mark in zip(plain, self.marks, strict=True)]
            return [x.clamp(-limit, limit) for x, limit in pairs]
        if self.robust == "without_first":
            return [x * real.view(*x.shape[:-1], 1) for x in plain]
        return plain

    def settle(self, statistics: Statistics) -> None:
        """What is left to do once all tokens are seen: a neuron that never changes is dead."""
        if self.robust == "centred":
            statistics.forget(statistics.energy <= STILL * self.marks[-1].energy)


@torch.no_grad()
def _views(
    model: nn.Module, rows: Sequence[dict[str, Tensor]], taps: Sequence[_Tap], robust: str | None
) -> list[_View]:
    """How each layer is taken, after a first pass over the data where the form needs one."""
    views = [_View(robust) for _ in taps]
    if robust not in ("centred", "winsorised"):
        return views
    tokens = sum(int(batch["attention_mask"].sum()) for batch in rows)
    for batch in rows:
        real = batch["attention_mask"].bool()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for tap, view in zip(taps, views, strict=True):
            _check_run(tap.activations, tap.layer)
            if not view.marks:
                view.marks = [_Marks(tap.layer.width, tokens, x.device) for x in tap.activations]
            for x, mark in zip(tap.activations, view.marks, strict=True):
                mark.add(x, real)
    for tap, view in zip(taps, views, strict=True):
        _check_finite(view.marks[-1].energy, tap.layer.name)
    return views


def _check_finite(sums: Tensor, name: str) -> None:
    """Raise GumlabError where sums of a layer's activations are infinite or no numbers."""
    if not sums.isfinite().all():
        raise GumlabError(
            f"The activations of {name} are not finite, or their squares are not: nothing can "
            "be told of its neurons. float16 overflows easily; take model.float() or "
            "model.bfloat16(), or check the model's weights."
        )


def _not_finite(name: str) -> GumlabError:
    return GumlabError(
        f"The loss's gradient in {name} is not finite. float16 overflows easily; take "
        "model.float() or model.bfloat16(), or check the model's weights, the head's too."
    )


def _sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """L of each sequence, the mean loss of its target tokens, (B,)."""
    losses = token_losses(logits, labels)
    return losses.sum(1) / (labels[:, 1:] != IGNORED).sum(1)


def _gradients(loss: Tensor, taps: Sequence[_Tap]) -> list[tuple[Tensor, ...]]:
    """dL/d of what each tap keeps."""
    flat = iter(torch.autograd.grad(loss, [x for tap in taps for x in tap.activations]))
    return [tuple(islice(flat, len(tap.activations))) for tap in taps]


def blocks_of(model: nn.Module, layers: Sequence[FeedForward]) -> list[nn.Module]:
    """The numbered layers that feed-forward blocks are part of, attention and all.

    Raises GumlabError where a layer does not run on what the one before gave alone.
    """
    shared = getattr(language_config(model), "num_kv_shared_layers", None)
    if shared:
        raise GumlabError(
            f"The last {shared} layers of {type(model).__name__} read the keys and values of "
            "earlier ones (num_kv_shared_layers), so they cannot be measured layer by layer. Take "
            'a score of all layers at once ("taylor", "fisher") or without data ("magnitude"), '
            "and no refit; or train with a Pruner."
        )
    return [model.get_submodule(block_name(layer)) for layer in layers]


def block_name(layer: FeedForward) -> str:
    """The name of the numbered layer that a feed-forward block is part of.

    >>> import re
    >>> re.match(r"^(?:.*?\\.)?\\d+\\b", "transformer.h.11.mlp")[0]
    'transformer.h.11'
    """
    match = re.match(r"^(?:.*?\.)?\d+\b", layer.name)
    assert match is not None  # `neurons` finds blocks inside numbered layers only
    return match[0]


def _check_run(seen: Sequence[Tensor], layer: FeedForward) -> None:
    """Raise GumlabError for a layer that the forward pass of a text leaves out."""
    if not seen:
        raise GumlabError(
            f"{layer.name} does not run on text alone (it looks at images, say), so nothing can be "
            'measured of it. Take a score that needs no data ("magnitude"), and no refit.'
        )


@contextmanager
def _passing(blocks: Sequence[nn.Module], passed: list[Any]) -> Iterator[None]:
    """Within, each of some blocks gives the last of `passed`, whatever it is called with."""
    own_forwards = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *_, **__: passed[-1]
        yield
    finally:
        for block, forward in zip(blocks, own_forwards, strict=True):
            if forward:
                vars(block).update(forward=forward)
            else:
                vars(block).pop("forward", None)


def through(model: nn.Module, blocks: Sequence[nn.Module], i: int, batch: dict, state: Any) -> Any:
    """What block i makes of `state`, what block i - 1 gave; the other blocks pass it on."""
    passed = [state]
    others = [block for block in blocks if block is not blocks[i]]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    hook = blocks[i].register_forward_hook(lambda module, x, y: passed.append(y))
    with hook, _passing(others, passed), evaluating(model), memory_guard(len(batch["labels"])):
        getattr(model, "base_model", model)(**inputs)
    return passed[-1]


def logits_behind(model: nn.Module, blocks: Sequence[nn.Module], batch: dict, state: Any) -> Tensor:
    """What the model says, (B, T, V), where the last of these blocks gave `state`; they do not run.

    blocks: all of the model's, or the first so many.
    """
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with _passing(blocks, [state]), evaluating(model), memory_guard(len(batch["labels"])):
        return model(**inputs).logits
