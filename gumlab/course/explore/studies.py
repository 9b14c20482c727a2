"""Explorers of many runs: a longer training of a cut model, and a claim in every setting."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from gumlab.course import plots
from gumlab.course.explore.base import Explorer, labelled
from gumlab.errors import GumlabError, check_whole
from gumlab.study.claims import CLAIMS, effects

if TYPE_CHECKING:
    import pandas as pd

Trial = tuple[str, str, int]  # a start, a lesson, steps
EVERY_BASE = "all"


class Healing(Explorer):
    """Train a cut model for more or fewer steps, by one lesson or another; `healing` makes one.

    Attributes
    ----------
    tried : dict of (str, str, int) to float
        For each start, lesson and number of steps that was asked for, the test loss.
    """

    alt = "Test loss against training steps, a line for each start and lesson; one point is marked."

    def __init__(
        self,
        train: Callable[[str, str, int], float],
        starts: Sequence[str],
        lessons: Sequence[str],
        steps: int,
        dense: float,
        known: Mapping[Trial, float] | None = None,
    ) -> None:
        self.train = train
        self.dense = dense
        self.tried = dict(known or {})
        steps = check_whole("steps", steps)
        every = max(1, steps // 5)
        slider = widgets.IntSlider
        super().__init__(
            {
                "start": labelled(widgets.Dropdown, "start", "What is trained", options=starts),
                "lesson": labelled(widgets.Dropdown, "lesson", "By what", options=lessons),
                "steps": labelled(
                    slider, "steps", "Of the training", value=every, max=steps, step=every
                ),
            }
        )

    def drawn_with(self) -> Hashable:
        """The trials so far: their points are drawn too."""
        return len(self.tried)

    def compute(self, start: str, lesson: str, steps: int) -> float:
        """Train, if that was not done before, and give the test loss."""
        if (start, lesson, steps) not in self.tried:
            self.tried[start, lesson, steps] = self.train(start, lesson, steps)
        return self.tried[start, lesson, steps]

    def draw(self, answer: float, start: str, lesson: str, steps: int) -> plots.Plot:
        """Draw all that was tried, and mark this trial."""
        return plots.healing(self.tried, (start, lesson, steps), self.dense)


class Claims(Explorer):
    """One of the paper's claims in every setting of a study's table; `claims` makes one.

    Attributes
    ----------
    table : pandas.DataFrame
        The runs.
    """

    alt = "Each setting of a claim: its mean effect and interval, left of a line where as claimed."

    def __init__(self, table: pd.DataFrame) -> None:
        from gumlab.study.paper import KINDS, margin  # here, so that other explorers come sooner

        self.table = table
        self.margin = margin()
        self.kinds = {
            kind: models for kind, models in KINDS.items() if table["model"].isin(models).any()
        }
        dropdown = widgets.Dropdown
        super().__init__(
            {
                "claim": labelled(
                    widgets.IntSlider, "claim", "As in the ledger", min=1, max=len(CLAIMS), value=3
                ),
                "base": labelled(dropdown, "bases", "Which", options=(EVERY_BASE, *self.kinds)),
                "left_out": labelled(dropdown, "seeds left out", "The last ones", options=(0, 1)),
            }
        )

    def compute(self, claim: int, base: str, left_out: int) -> pd.DataFrame:
        """The claim's effects, setting by setting."""
        rows = self.table
        if base != EVERY_BASE:
            rows = rows[rows["model"].isin(self.kinds[base])]
        rows = rows[rows["seed"] <= rows["seed"].max() - left_out]
        found = effects(rows, self.margin)
        found = found[found["number"] == claim - 1]
        if found.empty:
            raise GumlabError(f"No runs on these bases can tell claim {claim}. Choose other bases.")
        return found

    def draw(self, answer: pd.DataFrame, claim: int, base: str, left_out: int) -> plots.Plot:
        """Draw the effects."""
        plot = plots.forest(answer)
        plot.sentence = f"Claim {claim}, {CLAIMS[claim - 1].sentence}. {plot.sentence}"
        return plot


def healing(
    train: Callable[[str, str, int], float],
    starts: Sequence[str],
    lessons: Sequence[str],
    steps: int,
    dense: float,
    known: Mapping[Trial, float] | None = None,
) -> Healing:
    """Heal a cut model by more or fewer steps, live, and see what is left of the damage.

    Parameters
    ----------
    train : callable
        train(start, lesson, steps) trains a copy and gives its test loss.
    starts, lessons : sequence of str
        What can be chosen.
    steps : int
        The most steps; the slider has five stops up to it, and 0.
    dense : float
        The whole model's test loss.
    known : mapping of (str, str, int) to float, optional
        Trials that were made before.

    Returns
    -------
    Healing
        The explorer. Controls: `start`, `lesson` and `steps`. Picture: the test loss of all trials
        so far against their steps. The sentence gives the loss, and the share of the damage that
        is healed, where the loss after 0 steps is known.
    """
    return Healing(train, starts, lessons, steps, dense, known)


def claims(table: pd.DataFrame) -> Claims:
    """See one of the paper's claims in every setting of a study.

    Parameters
    ----------
    table : pandas.DataFrame
        A study's table, such as `gumlab.paper.study()`.

    Returns
    -------
    Claims
        The explorer. Controls: `claim`, by its number in `gumlab.paper.ledger`; `base`, which kind
        of base models count; `left_out`, how many seeds are left out. Picture: for each setting the
        mean effect and its 95 % t interval. The sentence counts what the settings say.
    """
    return Claims(table)
