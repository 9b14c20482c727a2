"""The paper's findings as differences that a study's table can show, setting by setting."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gumlab.errors import GumlabError
from gumlab.study.intervals import half_interval, shown

if TYPE_CHECKING:
    import pandas as pd

# The methods by every name that the paper's table or a study's gives them. Which of the two
# movements was the paper's "hard movement" is not known: both count.
GUM = ("GUM", "gum")
HARD = ("hard movement", "movement, local", "movement, global", "movement")
SOFT = ("soft movement", "soft_movement")
RANDOM = ("random",)
MAGNITUDE = ("magnitude",)
ESTABLISHED = (*MAGNITUDE, *SOFT, *HARD)
NOT_GUM = (*RANDOM, *ESTABLISHED)
NEITHER_GUM_NOR_HARD = (*RANDOM, *MAGNITUDE, *SOFT)

# A run is known by these; a run's place is all of them but the method: what methods share.
KEYS = ["setting", "keep", "distilled", "method", "seed"]
PLACE = ["setting", "keep", "distilled", "seed"]
MEASURES = ["loss", "sensitivity", "uniqueness"]

AS_CLAIMED = "as claimed"
OPPOSITE = "opposite"
OPEN = "open"
_SAYS = {"lower": AS_CLAIMED, "higher": OPPOSITE, "no difference shown": OPEN}

# of the values that a level of the index has in a setting: which two are compared, one less other
Pairs = Callable[[list[Any]], list[tuple[Any, Any]]]


def _each_against(ones: tuple[str, ...], others: tuple[str, ...]) -> Pairs:
    """Each method of `ones` less each of `others`."""

    def pairs(methods: list[str]) -> list[tuple[str, str]]:
        every = itertools.product(methods, repeat=2)
        return [(one, other) for one, other in every if one in ones and other in others]

    return pairs


def _distilled_less_not(distilled: list[bool]) -> list[tuple[bool, bool]]:
    return [(True, False)] if len(distilled) == 2 else []


def _fewest_less_most_kept(keeps: list[float]) -> list[tuple[float, float]]:
    return [(min(keeps), max(keeps))] if len(keeps) > 1 else []


def _most_less_fewest_kept(keeps: list[float]) -> list[tuple[float, float]]:
    return [(max(keeps), min(keeps))] if len(keeps) > 1 else []


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as an effect that is below 0 where it is as claimed.

    Parameters
    ----------
    finding : str
        The paper's finding that it belongs to, F1 to F6.
    sentence : str
        The claim.
    effect : str
        The effect in words: what is below 0 where it is as claimed.
    value : str
        Which of `values` shows it; or "excess", a method's share less the margin of `effects`.
    compared : str, optional
        The level of the value's index whose entries are compared; None: the value is the effect.
    pairs : callable, optional
        Which of them, of those that a setting has.
    """

    finding: str
    sentence: str
    effect: str
    value: str
    compared: str | None = None
    pairs: Pairs | None = None


CLAIMS = (
    Claim(
        finding="F1",
        sentence="random does little more damage than an established method",
        effect="share of random's damage that the method avoids, less the paper's largest",
        value="excess",
    ),
    Claim(
        finding="F1",
        sentence="and still less with distillation",
        effect="that share, distilled less not",
        value="share",
        compared="distilled",
        pairs=_distilled_less_not,
    ),
    Claim(
        finding="F2",
        sentence="distillation narrows the gaps between methods",
        effect="loss, worst less best, distilled less not",
        value="gap",
        compared="distilled",
        pairs=_distilled_less_not,
    ),
    Claim(
        finding="F3",
        sentence="sensitivity and uniqueness explain more than half of the differences in loss",
        effect="1/2 less adjusted R2 within a setting",
        value="unexplained",
    ),
    Claim(
        finding="F4",
        sentence="GUM has a lower loss than the other methods",
        effect="loss, GUM less the other",
        value="loss",
        compared="method",
        pairs=_each_against(GUM, NOT_GUM),
    ),
    Claim(
        finding="F4",
        sentence="and a higher uniqueness",
        effect="uniqueness, the other less GUM",
        value="uniqueness",
        compared="method",
        pairs=_each_against(NOT_GUM, GUM),
    ),
    Claim(
        finding="F5",
        sentence="hard movement has a higher sensitivity than the others but GUM, not distilled",
        effect="log sensitivity, the other less hard movement",
        value="plain sensitivity",
        compared="method",
        pairs=_each_against(NEITHER_GUM_NOR_HARD, HARD),
    ),
    Claim(
        finding="F5",
        sentence="and a lower loss",
        effect="loss, hard movement less the other",
        value="plain loss",
        compared="method",
        pairs=_each_against(HARD, NEITHER_GUM_NOR_HARD),
    ),
    Claim(
        finding="F5",
        sentence="GUM gains from distillation",
        effect="loss of GUM, distilled less not",
        value="GUM's loss",
        compared="distilled",
        pairs=_distilled_less_not,
    ),
    Claim(
        finding="F6",
        sentence="more pruning lowers sensitivity",
        effect="log sensitivity, fewest kept less most kept",
        value="sensitivity",
        compared="keep",
        pairs=_fewest_less_most_kept,
    ),
    Claim(
        finding="F6",
        sentence="and raises uniqueness",
        effect="uniqueness, most kept less fewest kept",
        value="uniqueness",
        compared="keep",
        pairs=_most_less_fewest_kept,
    ),
)


def values(table: pd.DataFrame) -> dict[str, pd.Series]:
    """What the claims are about, of the runs of the paper's methods in a table.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `effects`.

    Returns
    -------
    dict of pandas.Series
        By setting (the task, and the model where there are several), keep, distilled, method and
        seed: loss; sensitivity (its log); uniqueness; share (of random's damage that an established
        method avoids); plain loss and plain sensitivity (those not distilled); GUM's loss.
        Without the method: gap (the worst loss less the best, over the methods that ran both
        distilled and not); unexplained (1/2 less the adjusted R2 of loss on the other two).

    Raises
    ------
    GumlabError
        For missing columns.
    """
    rows = _of_the_paper(table)
    is_dense = rows["method"] == "dense"
    dense_loss = rows[is_dense].groupby(["setting", "seed"])["loss"].mean()
    pruned = rows[~is_dense].dropna(subset="sensitivity").groupby(KEYS)[MEASURES].mean()
    loss = pruned["loss"].dropna()
    plain = pruned[~_where(pruned, "distilled", [True])]

    random_loss = loss[_where(loss, "method", RANDOM)].droplevel("method")
    random_damage = random_loss - dense_loss
    random_damage = random_damage.where(random_damage > 0)
    avoided = random_loss - loss[_where(loss, "method", ESTABLISHED)]
    share = (avoided / random_damage).reorder_levels(KEYS).dropna()

    ran_both_ways = loss.unstack("distilled").dropna().stack()
    at_a_place = ran_both_ways.groupby(PLACE)
    gap = at_a_place.max() - at_a_place.min()
    gap = gap[at_a_place.count() > 1]

    unexplained = pruned.dropna().groupby(PLACE).apply(_unexplained).dropna()
    return {
        "loss": loss,
        "sensitivity": pruned["sensitivity"],
        "uniqueness": pruned["uniqueness"],
        "share": share,
        "gap": gap,
        "plain loss": plain["loss"].dropna(),
        "plain sensitivity": plain["sensitivity"],
        "GUM's loss": loss[_where(loss, "method", GUM)],
        "unexplained": unexplained,
    }


def _of_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper's methods and the dense runs, with what KEYS name; log sensitivity."""
    keep = "asked" if "asked" in table else "keep"
    needed = {*MEASURES, "task", "method", "distilled", "seed", keep}
    missing = needed - {*table}
    if missing:
        raise GumlabError(
            f"A ledger needs the columns {', '.join(sorted(missing))}, which the table lacks; give "
            "it a study's table, Study(...).table()."
        )
    setting = table["task"]
    if "model" in table and table["model"].nunique() > 1:
        setting = setting + " from " + table["model"]
    rows = table.assign(setting=setting, keep=table[keep], sensitivity=np.log(table["sensitivity"]))
    return rows[rows["method"].isin(("dense", *GUM, *NOT_GUM))]


def _where(indexed: pd.Series | pd.DataFrame, level: str, entries: Any) -> np.ndarray:
    """Which rows have one of some entries in a level of their index."""
    return indexed.index.isin(entries, level)


def _unexplained(rows: pd.DataFrame) -> float:
    """1/2 - adjusted R2 of loss on log sensitivity and uniqueness; NaN below five methods."""
    count = len(rows)
    if count < 5:
        return np.nan
    loss = rows["loss"]
    causes = np.column_stack([np.ones(count), rows["sensitivity"], rows["uniqueness"]])
    coefficients = np.linalg.lstsq(causes, loss, rcond=None)[0]
    residual = loss - causes @ coefficients
    share_left = residual.var() / loss.var() * (count - 1) / (count - 3)  # 1 - adjusted R2
    return share_left - 0.5


def differences(
    value: pd.Series, compared: str | None = None, pairs: Pairs | None = None
) -> Iterator[tuple[str, pd.Series]]:
    """The effect of a claim in every setting.

    Parameters
    ----------
    value : pandas.Series
        One of `values`.
    compared, pairs
        As in `Claim`.

    Yields
    ------
    where : str
        The setting, and what is compared there.
    effect : pandas.Series
        A number per seed.
    """
    import pandas as pd  # here, so that figures come without it

    if compared is None or pairs is None:
        levels = [level for level in value.index.names if level != "seed"]
        for entries, rows in value.groupby(levels):
            yield _described(levels, entries), rows.droplevel(levels)
        return
    wide = value.unstack(compared)
    levels = [level for level in wide.index.names if level != "seed"]
    for entries, rows in wide.groupby(levels):
        by_column = rows.to_numpy(float, na_value=np.nan).T  # whatever kind of missing it has
        numbers = dict(zip(wide, by_column, strict=True))  # (seeds,) of each column
        seeds = rows.index.get_level_values("seed")
        here = _described(levels, entries)
        for one, other in pairs([name for name in wide if not np.isnan(numbers[name]).all()]):
            difference = numbers[one] - numbers[other]
            there = ~np.isnan(difference)
            where = here if compared == "distilled" else f"{here}, {one} - {other}"
            if there.any():
                yield where, pd.Series(difference[there], seeds[there])


def _described(levels: list[str], entries: tuple[Any, ...]) -> str:
    """The entries of a setting's levels as text."""
    entry_of = dict(zip(levels, entries, strict=True))
    words = [entry_of["setting"]]
    if "keep" in entry_of:
        words.append(f"{entry_of['keep']:.0%}")
    if entry_of.get("distilled"):
        words.append("distilled")
    if "method" in entry_of:
        words.append(entry_of["method"])
    return ", ".join(words)


def effects(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """What a study's table says to each claim in each setting.

    Parameters
    ----------
    table : pandas.DataFrame
        A row per run, with the columns task, method, keep (or asked), distilled, seed, loss (the
        log of a perplexity), sensitivity, uniqueness, and model where there are several.
    margin : float
        How large a share of random's damage a method may avoid for random to count as comparable.

    Returns
    -------
    pandas.DataFrame
        A row per claim and setting: number (of the claim, from 0), finding, claim, where, seeds
        (how many), effect (its mean over the seeds, below 0 where it is as claimed), half (half its
        95 % interval), and says: "as claimed" or "opposite" where the interval leaves 0 out, else
        "open".

    Raises
    ------
    GumlabError
        For missing columns.
    """
    import pandas as pd  # here, so that figures come without it

    value_of = values(table)
    value_of["excess"] = value_of["share"] - margin
    rows = []
    for number, claim in enumerate(CLAIMS):
        for where, by_seed in differences(value_of[claim.value], claim.compared, claim.pairs):
            effect = by_seed.mean()
            half = half_interval(by_seed)
            rows.append(
                {
                    "number": number,
                    "finding": claim.finding,
                    "claim": claim.sentence,
                    "where": where,
                    "seeds": len(by_seed),
                    "effect": effect,
                    "half": half,
                    "says": _SAYS[shown(effect, half)],
                }
            )
    columns = ["number", "finding", "claim", "where", "seeds", "effect", "half", "says"]
    return pd.DataFrame(rows, columns=columns)
