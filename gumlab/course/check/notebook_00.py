"""Exercises of notebook 00, start here."""

from __future__ import annotations

import math

from gumlab.course.check.judging import exercise


@exercise(
    cases=[(0.25, [512] * 4), (0.3, [4, 4, 4]), (0.4, [4, 4, 4]), (0.1, [6, 6]), (1.0, [7])],
    hints=[
        (
            "int() cuts the fraction off; round to the nearest whole number.",
            lambda keep, widths: int(keep * sum(widths)),
        ),
        (
            "You always round up; round to the nearest whole number.",
            lambda keep, widths: math.ceil(keep * sum(widths)),
        ),
        (
            "You round in each layer, and the errors add up; sum the widths first, round once.",
            lambda keep, widths: sum(round(keep * width) for width in widths),
        ),
        (
            "You count the neurons that go, not those that stay.",
            lambda keep, widths: sum(widths) - round(keep * sum(widths)),
        ),
    ],
)
def kept_count(keep: float, widths: list[int]) -> int:
    """Count the neurons that stay in a whole model.

    Parameters
    ----------
    keep : float
        The fraction of all feed-forward neurons that stays.
    widths : list of int
        How many neurons each layer has.

    Returns
    -------
    int
        How many neurons stay.
    """
    return round(keep * sum(widths))


@exercise(
    cases=[(512, 2048, 257, 953_088), (1024, 2048, 384, 1_200_000), (10, 10, 3, 100)],
    hints=[
        (
            "That is the fraction of neurons; attention and embeddings have parameters too, and "
            "stay.",
            lambda neurons_kept, neurons_total, parameters_per_neuron, parameters_total: (
                neurons_kept / neurons_total
            ),
        ),
        (
            "You forgot the rest: everything outside the feed-forward neurons stays as well.",
            lambda neurons_kept, neurons_total, parameters_per_neuron, parameters_total: (
                neurons_kept * parameters_per_neuron / parameters_total
            ),
        ),
        (
            "That is the fraction that goes; the question is what is left.",
            lambda neurons_kept, neurons_total, parameters_per_neuron, parameters_total: (
                (neurons_total - neurons_kept) * parameters_per_neuron / parameters_total
            ),
        ),
        (
            "That is a percentage; give a fraction between 0 and 1.",
            lambda neurons_kept, neurons_total, parameters_per_neuron, parameters_total: (
                100
                * (1 - (neurons_total - neurons_kept) * parameters_per_neuron / parameters_total)
            ),
        ),
    ],
)
def fraction_of_parameters(
    neurons_kept: int, neurons_total: int, parameters_per_neuron: int, parameters_total: int
) -> float:
    """Give the fraction of a whole model's parameters that is left.

    Parameters
    ----------
    neurons_kept, neurons_total : int
        How many feed-forward neurons stay, and how many there were.
    parameters_per_neuron : int
        How many parameters go with a neuron.
    parameters_total : int
        How many parameters the whole model had.

    Returns
    -------
    float
        The fraction, between 0 and 1.
    """
    removed = (neurons_total - neurons_kept) * parameters_per_neuron
    return 1 - removed / parameters_total
