"""Pure figure builders: data in, a `Plot` out, which is a figure and the sentence it shows."""

from gumlab.course.plots.figure import Plot, new_figure
from gumlab.course.plots.models import (
    activations,
    folded_map,
    neuron_map,
    parameter_shares,
    relative_costs,
    removal,
)
from gumlab.course.plots.redundancy import against, deletions, refit_gain, used_and_unique
from gumlab.course.plots.runs import (
    keep_curves,
    method_bars,
    quality_against_keep,
    seed_dots,
    training_runs,
)
from gumlab.course.plots.stories import replay, texts, tradeoff, twins
from gumlab.course.plots.study import bands, forest, gaps, layer_widths, ratios, refit_heat

__all__ = [
    "Plot",
    "activations",
    "against",
    "bands",
    "deletions",
    "folded_map",
    "forest",
    "gaps",
    "keep_curves",
    "layer_widths",
    "method_bars",
    "neuron_map",
    "new_figure",
    "parameter_shares",
    "quality_against_keep",
    "ratios",
    "refit_gain",
    "refit_heat",
    "relative_costs",
    "removal",
    "replay",
    "seed_dots",
    "texts",
    "tradeoff",
    "training_runs",
    "twins",
    "used_and_unique",
]
