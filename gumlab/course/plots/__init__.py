"""Pure figure builders: data in, a `Plot` out, which is a figure and the sentence it shows.

`neuron` needs no data: it draws what a neuron is, as a `Drawing`.
"""

from gumlab.course.plots.cuts import folded_map, neuron_map, refit_gain, removal, tradeoff
from gumlab.course.plots.drawings import Drawing, neuron
from gumlab.course.plots.figure import Plot, new_figure
from gumlab.course.plots.healing import healing
from gumlab.course.plots.models import activations, parameter_shares, relative_costs, texts
from gumlab.course.plots.places import Block, Cells, Dots
from gumlab.course.plots.runs import (
    keep_curves,
    method_bars,
    quality_against_keep,
    replay,
    seed_dots,
    training_runs,
)
from gumlab.course.plots.studies import bands, forest, gaps, layer_widths, ratios, refit_heat
from gumlab.course.plots.uniqueness import against, deletions, twins, used_and_unique

__all__ = [
    "Block",
    "Cells",
    "Dots",
    "Drawing",
    "Plot",
    "activations",
    "against",
    "bands",
    "deletions",
    "folded_map",
    "forest",
    "gaps",
    "healing",
    "keep_curves",
    "layer_widths",
    "method_bars",
    "neuron",
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
