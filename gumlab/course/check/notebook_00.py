"""Exercises of notebook 00, start here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
        (
            "You did not round; neurons are counted in whole numbers.",
            lambda keep, widths: keep * sum(widths),
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


def _ranked(scores: Tensor) -> Tensor:
    """The scores, the highest first."""
    return scores.sort(descending=True).values


@exercise(
    cases=[
        (torch.tensor([0.1, 0.9, 0.3, 0.7]), 2),
        (torch.tensor([-0.5, -0.9, 0.2, -0.1, -0.7]), 3),
        (torch.tensor([0.4, 0.2, 0.8]), 1),
        (torch.tensor([0.3, -0.6]), 2),
    ],
    hints=[
        (
            "You keep the lowest scores; a high score means stay.",
            lambda scores, count: scores <= scores.sort().values[count - 1],
        ),
        (
            "With > the lowest score that should stay goes too; you keep one neuron too few.",
            lambda scores, count: scores > _ranked(scores)[count - 1],
        ),
        (
            "Positions begin at 0: the lowest score that stays is number count - 1 of the sorted "
            "ones.",
            lambda scores, count: scores >= _ranked(scores)[count],
        ),
        (
            "Your sort begins with the lowest score; sort with descending=True.",
            lambda scores, count: scores >= scores.sort().values[count - 1],
        ),
        (
            "Those are the positions of the neurons that stay; a mask has True or False for each "
            "neuron.",
            lambda scores, count: scores.argsort(descending=True)[:count],
        ),
        (
            "Those are the scores of the neurons that stay; a mask has True or False for each "
            "neuron.",
            lambda scores, count: _ranked(scores)[:count],
        ),
        (
            "You keep the first neurons, whatever their scores are.",
            lambda scores, count: torch.arange(len(scores)) < count,
        ),
        (
            "You keep every score above the mean; how many stay is `count`.",
            lambda scores, count: scores > scores.mean(),
        ),
    ],
)
def mask_from(scores: Tensor, count: int) -> Tensor:
    """Say who stays in a layer: the neurons with the highest scores.

    Parameters
    ----------
    scores : Tensor
        A score for each neuron, (N,); no two are equal.
    count : int
        How many neurons stay, 1 to N.

    Returns
    -------
    Tensor
        The mask, (N,) bool: True for a neuron that stays.
    """
    return scores >= _ranked(scores)[count - 1]


@exercise(
    cases=[
        ("SELECT name FROM cars WHERE speed > 78", "cars"),
        ("SELECT name FROM boats", "boats"),
        ("SELECT name FROM carsharing WHERE price > 3", "cars"),
        ("SELECT cars FROM boats", "cars"),
        ("name FROM cars WHERE speed > 78", "cars"),
        ("SELECT speed speed speed speed", "cars"),
        ("SELECT name FROM", "cars"),
        ("", "cars"),
    ],
    hints=[
        (
            "You look at the beginning alone; the query must name the table after FROM as well.",
            lambda query, table: query.startswith("SELECT "),
        ),
        (
            "You look for the table alone; the query must begin with SELECT as well.",
            lambda query, table: f" FROM {table} " in f"{query} ",
        ),
        (
            "Both must be true, not one of them: `and`, not `or`.",
            lambda query, table: query.startswith("SELECT ") or f" FROM {table} " in f"{query} ",
        ),
        (
            '"FROM carsharing" begins with "FROM cars", but names another table; compare whole '
            "words.",
            lambda query, table: query.startswith("SELECT ") and f" FROM {table}" in query,
        ),
        (
            "The table must be the word after FROM; yours may stand anywhere in the query.",
            lambda query, table: query.startswith("SELECT ") and table in query.split(),
        ),
        (
            "The table's name may be a part of another word; compare it with the word after FROM.",
            lambda query, table: query.startswith("SELECT ") and table in query,
        ),
        (
            "A table at the end of the query has no space behind it.",
            lambda query, table: query.startswith("SELECT ") and f" FROM {table} " in query,
        ),
        (
            "A model may write nothing at all: then there is no first word.",
            lambda query, table: query.split()[0] == "SELECT" and f" FROM {table} " in query + " ",
        ),
    ],
)
def looks_right(query: str, table: str) -> bool:
    """Tell whether a query has the right form.

    Parameters
    ----------
    query : str
        What a model wrote; it may be empty.
    table : str
        The name of the table that was asked about.

    Returns
    -------
    bool
        Whether the first word is SELECT, and the word after FROM is the table.
    """
    return query.startswith("SELECT ") and f" FROM {table} " in f"{query} "


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
