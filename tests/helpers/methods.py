"""Every training-time method, with the options that let it show in a handful of steps."""

from __future__ import annotations

from torch import nn

import gumlab as gl
from helpers.models import ARCHITECTURES

# every training-time method as (name, Pruner options); soft movement needs a large score_lr to
# cross its threshold in a handful of steps
METHODS = {
    "random": ("random", {}),
    "magnitude": ("magnitude", {}),
    "movement-layer": ("movement", {"scope": "layer"}),
    "movement-global": ("movement", {"scope": "global"}),
    "soft_movement": ("soft_movement", {"score_lr": 1.0}),
    "gum": ("gum", {"gram_every": 2, "gram_tokens": 0.5}),
}
_LEARNED = {
    f"{label}-{gradient}": (name, options | {"gradient": gradient})
    for label, (name, options) in METHODS.items()
    if name in ("movement", "soft_movement", "gum")
    for gradient in ("gate", "neuron")
}
METHOD_CASES = {"random": METHODS["random"], "magnitude": METHODS["magnitude"], **_LEARNED}

# (method case, architecture): the first seven architectures with every case, the gated ones that
# differ from Llama only around the block with one case of each kind of score, to save time
CASES = [
    (case, name)
    for case in METHOD_CASES
    for name in ARCHITECTURES
    if name in ARCHITECTURES[:7] or case in ("random", "magnitude", "gum-gate")
]


def prune(model: nn.Module, case: str, tokenizer, task, steps: int = 8, **options):
    """Train `model` with a method of METHOD_CASES and its gates on; (pruner, history)."""
    name, extra = METHOD_CASES[case]
    pruner = gl.Pruner(model, name, 0.4, steps, **(extra | options))
    history = gl.train(
        model, tokenizer, task, steps=steps, pruner=pruner, batch_size=4, lr=1e-2, progress=False
    )
    return pruner, history
