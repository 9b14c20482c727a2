"""Several processes that train one model together: who is here, and what all of them share.

They are a group of `torch.distributed`, as `torchrun` and `accelerate launch` make it. Where there
is none, every function here answers for one process alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gumlab.errors import GumlabError

LEFT_OUT = "_ddp_params_and_buffers_to_ignore"  # of a model: what DDP reads when it wraps it


def count() -> int:
    """How many processes train together.

    >>> count()
    1
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def own() -> int:
    """This process's number among them, from 0.

    >>> own()
    0
    """
    return torch.distributed.get_rank() if count() > 1 else 0


def averaged(tensors: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The same tensors, each averaged in place over the processes."""
    if count() > 1:
        for tensor in tensors:
            if tensor is not None:
                torch.distributed.all_reduce(tensor)
                tensor /= count()
    return tensors


def own_seed(seed: int, step: int) -> int:
    """A seed for what this process draws at a step, which no other process or step has.

    It makes what is drawn depend on nothing that was drawn before, so that a run which goes on
    from a file needs no generator's state of every process.

    >>> own_seed(3, 0) == own_seed(3, 1)
    False
    """
    return (((seed << 24) + step) * count() + own()) % 2**63


def draw_apart(seed: int, step: int) -> None:
    """Where several processes train, let torch draw at this step what no other process draws."""
    if count() > 1:
        torch.manual_seed(own_seed(seed, step))


def check_alike(numbers: Sequence[float | Tensor], what: str) -> None:
    """Raise GumlabError unless every process has the same numbers, but for their rounding.

    Parameters
    ----------
    numbers : sequence of float or Tensor
        As many in every process.
    what : str
        What they are the sign of, for the sentence.
    """
    if count() == 1:
        return
    mine = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
    everybody: list[Any] = [None] * count()
    torch.distributed.all_gather_object(everybody, mine)
    if not all(torch.allclose(mine, theirs, rtol=1e-9, atol=0) for theirs in everybody):
        raise GumlabError(
            f"The {count()} processes do not have the same {what}. Each must load the same model "
            "and call with the same settings; files that one of them writes must be where all of "
            "them see them."
        )


class GradientsByHand:
    """Averages the gradients of weights that lose neurons, in the place of torch's DDP.

    DistributedDataParallel gathers gradients by the shapes that it saw at first, so it is told to
    leave these weights out. At the first forward pass inside of it each weight gets a hook that
    averages its gradient as soon as the backward pass has it, whatever its shape is by then.

    Parameters
    ----------
    model : nn.Module
        The one that is to be wrapped, before it is.
    weights : iterable of Parameter
        Of this model.
    """

    def __init__(self, model: nn.Module, weights: Iterable[nn.Parameter]) -> None:
        self.model = model
        self.weights = [weight for weight in weights if weight.requires_grad]
        self.in_force = False
        wanted = set(self.weights)
        names = _Names(name for name, weight in model.named_parameters() if weight in wanted)
        setattr(model, LEFT_OUT, names)
        self._handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Called before a forward pass; takes over from a wrapper that it finds around it."""
        wrapper = DistributedDataParallel._get_active_ddp_module()
        if wrapper is None or self.in_force:
            return
        wanted = set(self.weights)
        for name, weight in wrapper.module.named_parameters():
            if weight in wanted and name not in wrapper.parameters_to_ignore:
                raise GumlabError(
                    "The Pruner cuts, and DistributedDataParallel was there before it: it gathers "
                    "gradients by shapes that will be gone. Make the Pruner first, of the model "
                    "that is then wrapped (accelerator.prepare), or take final=True."
                )
        for weight in self.weights:
            weight.register_post_accumulate_grad_hook(_average_gradient)
        self.in_force = True

    def remove(self) -> None:
        """Leave the weights to DDP again, unless it has left them out already."""
        self._handle.remove()
        if not self.in_force and hasattr(self.model, LEFT_OUT):
            delattr(self.model, LEFT_OUT)

    def __reduce__(self) -> tuple[type[ServesNobody], tuple]:
        """In a copy or a pickle of the model nothing stands in its place."""
        return ServesNobody, ()


class ServesNobody:
    """The hook that a copy of a model has where the original's serves a run."""

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Do nothing."""


class _Names(set[str]):
    """What DDP is to leave out of one model; of a copy of it, nothing."""

    def __reduce__(self) -> tuple[type[_Names], tuple]:
        return _Names, ()


def _average_gradient(weight: Tensor) -> None:
    averaged([weight.grad])
