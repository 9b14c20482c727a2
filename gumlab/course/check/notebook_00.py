"""Exercises of notebook 00, start here."""

from __future__ import annotations

import math

from gumlab.course.check.judging import exercise


@exercise(
    cases=[(0.25, [512] * 4), (0.3, [4, 4, 4]), (0.4, [4, 4, 4]), (0.1, [6, 6]), (1.0, [7])],
    hints=[
        ("int() cuts the fraction off; round to the nearest whole number.",
         lambda keep, widths: int(keep * sum(widths))),
        ("You always round up; round to the nearest whole number.",
         lambda keep, widths: math.ceil(keep * sum(widths))),
        ("You round in each layer, and the errors add up; sum the widths first, round once.",
         lambda keep, widths: sum(round(keep * w) for w in widths)),
        ("You count the neurons that go, not those that stay.",
         lambda keep, widths: sum(widths) - round(keep * sum(widths))),
    ],
)  # fmt: skip
def kept_count(keep: float, widths: list[int]) -> int:
    """How many neurons stay in a model with these layer widths."""
    return round(keep * sum(widths))


@exercise(
    cases=[(512, 2048, 257, 953_088), (1024, 2048, 384, 1_200_000), (10, 10, 3, 100)],
    hints=[
        ("That is the fraction of neurons; attention and embeddings have parameters too, and stay.",
         lambda kept, total, each, size: kept / total),
        ("You forgot the rest: everything outside the feed-forward neurons stays as well.",
         lambda kept, total, each, size: kept * each / size),
        ("That is the fraction that goes; the question is what is left.",
         lambda kept, total, each, size: (total - kept) * each / size),
        ("That is a percentage; give a fraction between 0 and 1.",
         lambda kept, total, each, size: 100 * (1 - (total - kept) * each / size)),
    ],
)  # fmt: skip
def fraction_of_parameters(
    neurons_kept: int, neurons_total: int, parameters_per_neuron: int, parameters_total: int
) -> float:
    """The fraction of the whole model's parameters that is left."""
    removed = (neurons_total - neurons_kept) * parameters_per_neuron
    return 1 - removed / parameters_total
