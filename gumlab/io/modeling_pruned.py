"""Models of transformers in which every layer has a feed-forward width of its own.

gumlab, a toolkit that prunes language models, puts a copy of this file beside a model's weights.
Where `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` asks it for a class, it
gives the class of transformers of the same name, whose feed-forward maps become as wide as
`pruned_feed_forward` in config.json says before the weights are read. Nothing else is different,
and nothing but torch and transformers is needed.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

ENTRY = "pruned_feed_forward"  # in config.json: what `_set_widths` reads


def __getattr__(name: str) -> Any:
    """The class of transformers of this name, with widths by layer; made when it is asked for."""
    library_class = getattr(transformers, name, None)
    is_model = isinstance(library_class, type) and issubclass(
        library_class, transformers.PreTrainedModel
    )
    if not is_model:
        raise AttributeError(f"transformers {transformers.__version__} has no model class {name!r}")
    made = _with_own_widths(library_class)
    globals()[name] = made
    return made


def _with_own_widths(library_class: Any) -> type[nn.Module]:
    """A model class whose layers are as wide as its config says."""

    class OfTheseWidths(library_class):
        _auto_class = "AutoModelForCausalLM"  # save_pretrained writes this file too

        def __init__(self, config: Any, *args: Any, **options: Any) -> None:
            super().__init__(config, *args, **options)
            _set_widths(self, config)

        @classmethod
        def is_custom_code(cls) -> bool:
            """False: transformers treats the names of the weights as those of its own class."""
            return False

    OfTheseWidths.__name__ = OfTheseWidths.__qualname__ = library_class.__name__
    return OfTheseWidths


def _set_widths(model: Any, config: Any) -> None:
    """Resize the feed-forward maps of a new model, layer by layer."""
    try:
        record = getattr(config, ENTRY)
        for block_name, width in zip(record["blocks"], record["widths"], strict=True):
            block = model.get_submodule(block_name)
            proj = block.get_submodule(record["out"])
            old_width = _size(proj, "in")
            for name in record["into"]:
                fc = block.get_submodule(name)
                parts = _size(fc, "out") // old_width  # 2 where gate and up are one matrix
                _resize(model, fc, "out", parts * width)
            _resize(model, proj, "in", width)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _not_fitting(model, error) from error


def _not_fitting(model: nn.Module, error: Exception) -> ValueError:
    """What to say of a record that is not one of this model's widths."""
    return ValueError(
        f"{ENTRY} in config.json is missing, damaged, or not of a {type(model).__name__} "
        f"({type(error).__name__}: {error}). Copy config.json again."
    )


def _size(linear: Any, side: str) -> int:
    """How many numbers go into a linear map, or come out of it."""
    return linear.weight.shape[_axis(linear, side)]


def _axis(linear: nn.Module, side: str) -> int:
    """Where the numbers that come in or go out are in a weight: Conv1D's is (in, out)."""
    return int((side == "in") != isinstance(linear, Conv1D))


def _resize(model: Any, linear: Any, side: str, size: int) -> None:
    """Give a linear map new weights, of another size on one side."""
    shape = list(linear.weight.shape)
    shape[_axis(linear, side)] = size
    linear.weight = nn.Parameter(linear.weight.new_empty(shape))
    if side == "out" and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.new_empty(size))
    if isinstance(linear, Conv1D):
        linear.nx, linear.nf = shape
    else:
        linear.out_features, linear.in_features = shape
    model._init_weights(linear)  # for from_config; from_pretrained reads over it
