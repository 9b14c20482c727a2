"""Neurons leave: of a copy, of the model itself, or of one that trains; and the refit.

One engine: `FeedForward.places` says where a layer's neurons sit in its parameters, `cut_layer`
leaves some of them in a live layer, `with_neurons` builds a copy that never holds the others.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from gumlab.collecting import TOKENS, Calibration, Statistics, one_by_one
from gumlab.errors import (
    GumlabError,
    check_flag,
    check_number,
    check_seed,
    first_line,
    is_flag,
)
from gumlab.feedforward import BY_CODE, FeedForward, check_values, neurons, width_field
from gumlab.gating import Gate, check_nobody_held_out, remove_gates
from gumlab.gram import RIDGE, TWINS_ABOVE, at_least_rounding, inverting, lifted
from gumlab.language import check_trainable, language_config, language_part
from gumlab.offloading import check_can_be_cut, check_resident, held, is_offloaded, put_back
from gumlab.progress import shown
from gumlab.scoring import (
    DATA_SCORES,
    NEED_GRADIENTS,
    Criterion,
    check_currency,
    check_method,
    score_layers,
)
from gumlab.selection import Budget, check_masks, check_twin_filter, choose
from gumlab.tasks import Example, Task
from gumlab.tasks.batches import by_itself

RECOMMENDED = {"method": "greedy_obs", "scope": "global", "currency": "loss_scalar"}
CUT_PAYS_AT = 1 / 8  # of the neurons there, before a cut is worth its cost while training


def recommended(scope: str | None = None, widths: Sequence[int] | None = None) -> dict[str, str]:
    """The recipe of `RECOMMENDED`, maybe with another scope: then no layer's error has a price.

    Parameters
    ----------
    scope, widths
        As in `gumlab.select`.

    Returns
    -------
    dict
        method, scope and currency.
    """
    recipe = {**RECOMMENDED, "scope": RECOMMENDED["scope"] if scope is None else scope}
    if recipe["scope"] != "global" or widths is not None:
        recipe["currency"] = "output"
    return recipe


@by_itself()
def shrink(
    model: nn.Module,
    masks: Sequence[Tensor],
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    refit: bool | str = False,
    sequential: bool = True,
    ridge: float = RIDGE,
    in_place: bool = False,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
) -> nn.Module:
    """A smaller copy of a model, with only the neurons that the masks keep.

    Without a refit the copy's logits equal the gated model's within float tolerance. Of an
    offloaded model (`gumlab.offloading`) a layer at a time is in memory; what stays goes where it
    came from, to the CPU or, in new files, to the offload folder.

    Parameters
    ----------
    model : nn.Module
        It stays as it is, unless `in_place`.
    masks : sequence of Tensor
        (N,) bool per layer, over the neurons that the model has.
    tokenizer, task
        What the refit is measured on.
    refit : bool or "bias"
        True: the kept neurons' outgoing weights and the bias take over what the removed ones did,
        by least squares on the data. "bias": only the bias does (FLAP's compensation, the removed
        neurons' mean output).
    sequential : bool
        Measure each layer behind the layers already cut.
    ridge : float
        Of the refit, see `gumlab.gram.lifted`.
    in_place : bool
        Cut `model` itself, layer by layer, and return it: memory need hold it once. Make optimizers
        after it.
    split, limit, tokens, batch_size
        What the refit sees of the task, as in `gumlab.collecting.collect`.

    Returns
    -------
    nn.Module
        Of the same class, without gates.

    Raises
    ------
    GumlabError
        For masks that do not fit, missing data, refit="bias" where the output projection has no
        bias, a model that cannot be copied, or an offloaded one without a folder for what stays.
    """
    layers = neurons(model)
    check_values(layers)
    check_masks(masks, [layer.width for layer in layers])
    check_refit(layers, refit, tokenizer, task, ridge)
    check_flag("sequential", sequential)
    _check_can_shrink(model, layers, check_flag("in_place", in_place))
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    return _shrink(model, layers, masks, calibration, refit, sequential, ridge, in_place)


@by_itself()
def prune(
    model: nn.Module,
    method: str | Criterion = "recommended",
    tokenizer: Any = None,
    task: Task | Sequence[Example] | None = None,
    *,
    keep: float = 0.5,
    scope: str | None = None,
    currency: str | None = None,
    floor: int = 1,
    multiple_of: int = 1,
    widths: Sequence[int] | None = None,
    standardise: bool = False,
    grams: Sequence[Tensor] | None = None,
    twin_filter: float = TWINS_ABOVE,
    refit: bool | str = True,
    sequential: bool = True,
    ridge: float = RIDGE,
    in_place: bool = False,
    seed: int = 0,
    split: str = "train",
    limit: int | None = 256,
    tokens: int | None = TOKENS,
    batch_size: int = 16,
) -> nn.Module:
    """Score, select, refit and shrink in one call, before or without training: a smaller copy.

    Parameters
    ----------
    model, tokenizer, task
        The model, and the data that scores and refit are measured on.
    method : str or callable
        A score of `gumlab.score`, or "recommended", which is the recipe of `RECOMMENDED`: greedy
        OBS, one budget over all layers, each layer's errors priced by what they cost the loss, and
        the refit (results/allocation.md is the evidence, on a real language model and on models of
        a million parameters). It is for a model that already does the task, and followed by
        training; a model that is still to learn the task is better pruned by a `Pruner` on the way.
    keep, floor, multiple_of, widths, standardise, grams, twin_filter
        As in `gumlab.select`.
    scope : {"layer", "global"}, optional
        As in `gumlab.select`; by default the recipe's own, else "layer".
    currency : {"output", "loss", "loss_scalar"}, optional
        As in `gumlab.score`; by default the recipe's own where layers compete for one budget, else
        "output".
    refit, sequential, ridge, in_place
        As in `shrink`.
    seed : int
        Of the random score.
    split, limit, tokens, batch_size
        The calibration, of scores and refit alike: which split, how many examples, how many tokens
        of running text, and how many sequences at a time.

    Returns
    -------
    nn.Module
        The smaller copy, or the model itself with `in_place`.

    Raises
    ------
    GumlabError
        What `score`, `select` and `shrink` raise, and where gates hold neurons out.

    Notes
    -----
    With sequential=False, and shares that do not depend on the other layers' scores, each layer is
    looked at once, for its scores and its refit: the same model in less time.
    """
    if method == "recommended":
        method = RECOMMENDED["method"]
        recipe = recommended(scope, widths)
        scope = recipe["scope"]
        currency = recipe["currency"] if currency is None else currency
    scope = "layer" if scope is None else scope
    currency = "output" if currency is None else currency
    layers = neurons(model)
    sizes = [layer.width for layer in layers]
    budget = Budget(sizes, keep, scope, floor, multiple_of, widths)
    check_twin_filter(twin_filter, grams, sizes)
    check_method(method, tokenizer, task)
    check_currency(currency, method)
    check_refit(layers, refit, tokenizer, task, ridge)
    check_values(layers)
    check_seed(seed)
    check_flag("standardise", standardise)
    check_flag("sequential", sequential)
    _check_can_shrink(model, layers, check_flag("in_place", in_place))
    check_nobody_held_out(layers)
    calibration = Calibration(tokenizer, task, split, limit, tokens, batch_size)
    scoring: dict[str, Any] = {"seed": seed, "currency": currency}
    choice: dict[str, Any] = {
        "standardise": standardise,
        "grams": grams,
        "twin_filter": twin_filter,
    }
    if refit and not sequential and not in_place and _one_look_does(model, method, budget):
        return _shrunk_at_a_look(model, method, calibration, budget, scoring, choice, refit, ridge)
    scores = score_layers(layers, method, model, calibration, **scoring)
    masks = choose(scores, budget, **choice)
    return _shrink(model, layers, masks, calibration, refit, sequential, ridge, in_place)


def _one_look_does(model: nn.Module, method: str | Criterion, budget: Budget) -> bool:
    """Whether a layer's mask needs nothing but that layer's own statistics, without gradients."""
    if not isinstance(method, str) or method not in DATA_SCORES or method in NEED_GRADIENTS:
        return False
    shares_are_fixed = budget.scope == "layer" or budget.widths is not None
    return shares_are_fixed and not is_offloaded(model)


def _shrunk_at_a_look(
    model: nn.Module,
    method: str | Criterion,
    calibration: Calibration,
    budget: Budget,
    scoring: dict[str, Any],
    choice: dict[str, Any],
    refit: bool | str,
    ridge: float,
) -> nn.Module:
    """`prune` where scores and refit see the same: each layer is looked at once, for both."""
    small = _copied(model, {})
    remove_gates(small)
    layers = neurons(small)
    widths = budget.widths_at([])  # fixed shares ask for no scores
    grams = choice["grams"]
    if grams is None:
        grams = [None] * len(layers)
    waiting = iter(zip(layers, widths, grams, strict=True))

    def leave(score: Tensor, statistics: Statistics) -> None:
        """Refit and cut the layer whose score this is."""
        layer, width, gram = next(waiting)
        own = Budget([layer.width], budget.keep, widths=[width])
        (mask,) = choose([score], own, **choice | {"grams": None if gram is None else [gram]})
        mask = mask.to(layer.device)
        refit_layer(layer, mask, statistics, ridge, weights=refit != "bias")
        cut_layer(layer, mask.nonzero().flatten())

    score_layers(layers, method, small, calibration, **scoring, then=leave)
    record_width(small, layers)
    return small


def _shrink(
    model: nn.Module,
    layers: Sequence[FeedForward],
    masks: Sequence[Tensor],
    calibration: Calibration,
    refit: bool | str,
    sequential: bool,
    ridge: float,
    in_place: bool,
) -> nn.Module:
    """`shrink` by arguments that were checked before."""
    if not refit and not in_place and not is_offloaded(model):
        return with_neurons(model, [mask.nonzero().flatten() for mask in masks], layers)
    if not in_place:
        model = _copied(model, {})
        layers = neurons(model)
    remove_gates(model)
    if refit:
        looks = one_by_one(model, **calibration.options(), layers=layers, changing=sequential)
        counted = shown(layers, "refit", "layer")
        with closing(looks) as seen:
            for layer, mask in zip(counted, masks, strict=True):
                mask = mask.to(layer.device)
                statistics = next(seen)  # zip would hold them until the next layer's are made
                refit_layer(layer, mask, statistics, ridge, weights=refit != "bias")
                del statistics
                cut_layer(layer, mask.nonzero().flatten())
    else:
        for layer, mask in zip(layers, masks, strict=True):
            cut_layer(layer, mask.to(layer.device).nonzero().flatten())
    record_width(model, layers)
    return model


@by_itself()
def with_neurons(
    model: nn.Module, indices: Sequence[Tensor], layers: Sequence[FeedForward] | None = None
) -> nn.Module:
    """A copy of a model whose layer l holds the neurons indices[l], without gates.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    indices : sequence of Tensor
        (k,) per layer; an index of N or more gives a zero neuron (padding).
    layers : sequence of FeedForward, optional
        The model's, where they are at hand.

    Returns
    -------
    nn.Module
        The blocks are never copied at full width.

    Raises
    ------
    GumlabError
        For a model that cannot be copied, or whose weights are offloaded.
    """
    check_resident(model, "A padded copy")
    new: dict[nn.Parameter, nn.Parameter] = {}
    if layers is None:
        layers = neurons(model)
    for layer, index in zip(layers, indices, strict=True):
        new.update(layer.replacements(index))
    # deepcopy takes what its memo already holds
    small = _copied(model, {id(old): parameter for old, parameter in new.items()})
    remove_gates(small)
    small_layers = neurons(small)
    for layer in small_layers:
        layer.set_sizes()
    record_width(small, small_layers)
    return small


@torch.no_grad()
def cut_layer(layer: FeedForward, index: Tensor, optimizers: Sequence[Any] = ()) -> None:
    """Leave only some neurons in a live layer: in weights, gradients and optimizer state.

    A parameter stays the same object, so optimizers, schedules and hooks go on holding it. What was
    offloaded is put back.

    Parameters
    ----------
    layer : FeedForward
        Changed in place.
    index : Tensor
        (k,), the neurons that stay, in order.
    optimizers
        Whose state of these parameters is cut with them.
    """
    with held(*layer.linear_maps):
        for parameter, axis, rows in layer.places(index):
            shape = parameter.shape
            weight = parameter.detach()
            gradient = parameter.grad
            parameter.grad = None
            # torch keeps the node that gathers a parameter's gradient, of the old shape, until the
            # parameter's type changes: change it for a moment
            other_type = torch.float if parameter.dtype == torch.half else torch.half
            parameter.data = parameter.new_empty(0, dtype=other_type)
            parameter.data = weight.index_select(axis, rows)
            if gradient is not None:
                parameter.grad = gradient.index_select(axis, rows)
            for optimizer in optimizers:
                if parameter in optimizer.state:
                    _cut_state(optimizer.state[parameter], shape, axis, rows)
        layer.set_sizes()
        put_back(*layer.linear_maps)


def cut_to_gates(
    model: nn.Module, gates: Sequence[Gate], optimizers: Sequence[Any] = ()
) -> list[Tensor]:
    """Leave in a model that trains only the neurons that its gates keep.

    Parameters
    ----------
    model : nn.Module
        Changed in place, its gates with it.
    gates : sequence of Gate
        One per layer.
    optimizers
        Whose state is cut with the weights; see `check_optimizers`.

    Returns
    -------
    list of Tensor
        (k,) per layer: which of the neurons that were there stayed.
    """
    indices = []
    for gate in gates:
        index = gate.mask.nonzero().flatten()
        cut_layer(gate.layer, index, optimizers)
        gate.cut(index)
        indices.append(index)
    record_width(model, [gate.layer for gate in gates])
    return indices


def cut_pays(gates: Sequence[Gate], last_chance: bool) -> bool:
    """Whether enough neurons are out for a cut to be worth its cost; at the last chance, any."""
    out = sum(int((~gate.mask).sum()) for gate in gates)
    there = sum(len(gate.mask) for gate in gates)
    return out > 0 if last_chance else out >= there * CUT_PAYS_AT


def weights_cut(layers: Sequence[FeedForward]) -> list[nn.Parameter]:
    """The parameters that a cut takes rows or columns from."""
    nobody = torch.arange(0)
    return [parameter for layer in layers for parameter, _, _ in layer.places(nobody)]


def check_optimizers(layers: Sequence[FeedForward], optimizers: Sequence[Any]) -> None:
    """Raise GumlabError unless optimizers hold the layers' weights, in state that can be cut too.

    That is: a tensor of their state has its parameter's shape, or is one number.
    """
    held = {
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter in weights_cut(layers):
        if parameter.requires_grad and parameter not in held:
            raise GumlabError(
                "With cut=True the optimizer's state is cut with the weights. Call "
                "pruner.step(optimizer) with the optimizer of the model, or with all of them."
            )
        for optimizer in optimizers:
            _check_state(optimizer.state.get(parameter, {}), parameter)


def record_width(model: nn.Module, layers: Sequence[FeedForward]) -> None:
    """Make the config's width agree with the layers', where they are equal and it has one.

    So too what it says by layer, where the model was loaded by the code that `gumlab.save` added.
    """
    widths = {layer.width for layer in layers}
    field = width_field(model)
    # the language part of a multimodal model may hold a copy of the config of its text
    part = model.get_submodule(language_part(model))
    for config in (language_config(model), getattr(part, "config", None)):
        if len(widths) == 1 and hasattr(config, field):
            setattr(config, field, *widths)
    by_code = getattr(getattr(model, "config", None), BY_CODE, None)
    if by_code is not None:
        setattr(model.config, BY_CODE, by_code | {"widths": [layer.width for layer in layers]})


def _check_can_shrink(model: nn.Module, layers: Sequence[FeedForward], in_place: bool) -> None:
    """Raise GumlabError before the work for a model whose weights, or a copy's, cannot change."""
    if in_place:
        check_trainable(model)
    else:
        check_copyable(model)
    for layer in layers:
        check_can_be_cut(layer.name, *layer.linear_maps)


def check_copyable(model: nn.Module) -> None:
    """Raise GumlabError where a copy of a model would still run the model's own layers.

    So it is where a module's forward was replaced by a plain function, which a copy shares.
    """
    for name, module in model.named_modules():
        forward = vars(module).get("forward")
        if isinstance(forward, types.FunctionType):
            where = f"model.{name}.forward" if name else "model.forward"
            raise GumlabError(
                f"{where} was replaced by a function ({forward.__qualname__}), which a copy would "
                f"share: it would go on running the layers of the original. Take it off (del "
                f"{where}), bind it (types.MethodType(function, module)), or cut the model itself: "
                "in_place=True."
            )


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of a model, but for what the memo holds already."""
    check_copyable(model)
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise GumlabError(
            f"{type(model).__name__} cannot be copied ({first_line(error)}). Take "
            "off what it holds beside its weights, or cut the model itself: in_place=True."
        ) from error


@torch.no_grad()
def refit_layer(
    layer: FeedForward,
    mask: Tensor,
    statistics: Statistics,
    ridge: float = RIDGE,
    weights: bool = True,
) -> None:
    """W_S <- W_S + (G_SS + ridge)^-1 G_SR W_R, in place: S kept, R removed.

    The least squares solution of H_S W_S' = H W with a ridge on the change, so that the error on
    the data is never larger than without the refit. Where `proj` has a bias it is solved for too,
    as a neuron that always fires 1.

    Parameters
    ----------
    layer : FeedForward
        Still whole; its outgoing weights and bias are changed.
    mask : Tensor
        (N,) bool, the kept set.
    statistics : Statistics
        Of this layer, on the data that the refit is for.
    ridge : float
        See `gumlab.gram.lifted`.
    weights : bool
        Without it only the bias changes, b <- b + (mean of h_R) W_R.

    References
    ----------
    The bias alone: FLAP, An et al. 2023.
    """
    dtype = layer.proj.weight.dtype
    total = statistics.total.double()
    removed_weights = layer.outgoing()[~mask].double()  # W_R, (R, D)
    if not weights:
        mean_output = total[~mask] @ removed_weights / statistics.tokens
        layer.proj.bias += mean_output.to(dtype)
        return
    off_diagonal = statistics.gram[mask][:, ~mask].double()  # G_SR has no ridge
    target = off_diagonal @ removed_weights
    has_bias = layer.proj.bias is not None
    if has_bias:
        target = torch.cat([target, total[~mask][None] @ removed_weights])

    def solved(rounding: float) -> Tensor:
        normal = lifted(statistics.gram, ridge, mask, rounding)  # G_SS with the ridge
        if has_bias:
            ones = total[mask][:, None]
            count = total.new_full((1, 1), statistics.tokens)
            normal = torch.cat([torch.cat([normal, ones], 1), torch.cat([ones.T, count], 1)])
        return torch.cholesky_solve(target, torch.linalg.cholesky(normal))

    with inverting(layer.name, ridge):
        change = at_least_rounding(ridge, solved).to(dtype)
    layer.outgoing()[mask] += change[: int(mask.sum())]
    if layer.proj.bias is not None:
        layer.proj.bias += change[-1]


def check_refit(
    layers: Sequence[FeedForward],
    refit: bool | str,
    tokenizer: Any,
    task: Any,
    ridge: float = RIDGE,
) -> None:
    """Raise GumlabError for a refit that cannot be: of no data, or of a bias that is not there."""
    if not is_flag(refit) and refit != "bias":
        raise GumlabError(f'refit must be True, False or "bias", got {refit!r:.60}.')
    check_number("ridge", ridge)
    if not refit:
        return
    if tokenizer is None or task is None:
        raise GumlabError(
            "The refit is measured on data. Give tokenizer and task too, or refit=False."
        )
    check_values(layers)
    if refit == "bias" and any(layer.proj.bias is None for layer in layers):
        names = ", ".join(layer.name for layer in layers if layer.proj.bias is None)
        raise GumlabError(
            f"The output projections of {names} have no bias to refit. "
            "Use refit=True, which refits the outgoing weights."
        )


def _is_cut_with(value: Any) -> bool:
    """Whether an entry of an optimizer's state is a tensor with a number for every weight."""
    return isinstance(value, Tensor) and value.numel() > 1


def _cut_state(state: dict[str, Any], shape: torch.Size, axis: int, rows: Tensor) -> None:
    for key, value in state.items():
        if _is_cut_with(value) and value.shape == shape:
            state[key] = value.index_select(axis, rows)


def _check_state(state: dict[str, Any], parameter: nn.Parameter) -> None:
    for key, value in state.items():
        if _is_cut_with(value) and value.shape != parameter.shape:
            raise GumlabError(
                f"The optimizer's {key!r} of a weight {tuple(parameter.shape)} is "
                f"{tuple(value.shape)} and cannot be cut with it. Use AdamW or SGD, or "
                "final=True, not cut=True."
            )
