"""The paper's findings as differences that a study's table can show, setting by setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gumlab.errors import GumlabError
from gumlab.study.intervals import half_interval, verdict

if TYPE_CHECKING:
    import pandas as pd

# which of the two movements was the paper's "hard movement" is not known: both count
HARD = ("hard movement", "movement, local", "movement, global", "movement")
OTHERS = ("random", "magnitude", "soft movement", "soft_movement")
GUM, ESTABLISHED = ("GUM", "gum"), (*OTHERS[1:], *HARD)
KEYS = ["setting", "keep", "distilled", "method", "seed"]
SAYS = {"lower": "as claimed", "higher": "opposite", "no difference shown": "open"}
Pick = Callable[[list[Any]], list[tuple[Any, Any]]]  # of what a setting has: which are compared


def methods(ones: tuple[str, ...], others: tuple[str, ...]) -> Pick:
    """Each of `ones` against each of `others`."""
    return lambda have: [(a, b) for a in have if a in ones for b in have if b in others]


def taught(have: list[bool]) -> list[tuple[bool, bool]]:
    """Distilled against not."""
    return [(True, False)] if len(have) == 2 else []


def fewest(have: list[float]) -> list[tuple[float, float]]:
    """The fewest neurons kept against the most."""
    return [(min(have), max(have))] if len(have) > 1 else []


def most(have: list[float]) -> list[tuple[float, float]]:
    """The most neurons kept against the fewest."""
    return [pair[::-1] for pair in fewest(have)]


# finding, claim, what is below 0 where it is as claimed, its value, and what is compared
CLAIMS: tuple[tuple[str, str, str, str, str | None, Pick | None], ...] = (
    ("F1", "random does little more damage than an established method",
     "share of random's damage that the method avoids, less the paper's largest", "excess", None,
     None),
    ("F1", "and still less with distillation", "that share, distilled less not", "share",
     "distilled", taught),
    ("F2", "distillation narrows the gaps between methods",
     "loss, worst less best, distilled less not", "gap", "distilled", taught),
    ("F3", "sensitivity and uniqueness explain more than half of the differences in loss",
     "1/2 less adjusted R2 within a setting", "unexplained", None, None),
    ("F4", "GUM has a lower loss than the other methods", "loss, GUM less the other", "loss",
     "method", methods(GUM, (*OTHERS, *HARD))),
    ("F4", "and a higher uniqueness", "uniqueness, the other less GUM", "uniqueness", "method",
     methods((*OTHERS, *HARD), GUM)),
    ("F5", "hard movement has a higher sensitivity than the others but GUM, not distilled",
     "log sensitivity, the other less hard movement", "plain sensitivity", "method",
     methods(OTHERS, HARD)),
    ("F5", "and a lower loss", "loss, hard movement less the other", "plain loss", "method",
     methods(HARD, OTHERS)),
    ("F5", "GUM gains from distillation", "loss of GUM, distilled less not", "GUM's loss",
     "distilled", taught),
    ("F6", "more pruning lowers sensitivity", "log sensitivity, fewest kept less most kept",
     "sensitivity", "keep", fewest),
    ("F6", "and raises uniqueness", "uniqueness, most kept less fewest kept", "uniqueness", "keep",
     most),
)  # fmt: skip


def values(table: pd.DataFrame) -> dict[str, pd.Series]:
    """What the claims are about, by KEYS, of the paper's methods in a table (see `effects`)."""
    wanted = {"task", "method", "distilled", "seed", "loss", "sensitivity", "uniqueness"}
    keep = "asked" if "asked" in table else "keep"
    if missing := (wanted | {keep}) - {*table}:
        raise GumlabError(f"A ledger needs the columns {', '.join(sorted(missing))}.")
    several = "model" in table and table["model"].nunique() > 1
    setting = table["task"] + (" from " + table["model"] if several else "")
    rows = table.assign(setting=setting, keep=table[keep], sensitivity=np.log(table["sensitivity"]))
    rows = rows[rows["method"].isin(("dense", *GUM, *OTHERS, *HARD))]
    dense = rows[rows["method"] == "dense"].groupby(["setting", "seed"])["loss"].mean()
    rows = rows[rows["method"] != "dense"].dropna(subset="sensitivity").groupby(KEYS)
    rows = rows[["loss", "sensitivity", "uniqueness"]].mean()
    plain, names = rows[~rows.index.isin([True], "distilled")], rows.index.isin
    loss = rows["loss"].dropna()
    random = loss[loss.index.isin(["random"], "method")].droplevel("method")
    damage = (random - dense).where(lambda d: d > 0)
    share = (random - loss[loss.index.isin(ESTABLISHED, "method")]) / damage
    both = loss.unstack("distilled").dropna().stack().groupby(KEYS[:3] + KEYS[4:])
    gap = (both.max() - both.min())[both.count() > 1]
    return {
        "loss": loss, "sensitivity": rows["sensitivity"], "uniqueness": rows["uniqueness"],
        "share": share.reorder_levels(KEYS).dropna(), "gap": gap,
        "plain loss": plain["loss"].dropna(), "plain sensitivity": plain["sensitivity"],
        "GUM's loss": rows["loss"][names(GUM, "method")].dropna(),
        "unexplained": rows.dropna().groupby(KEYS[:3] + KEYS[4:]).apply(_unexplained).dropna(),
    }  # fmt: skip


def _unexplained(rows: pd.DataFrame) -> float:
    """1/2 - adjusted R2 of loss on log sensitivity and uniqueness; NaN below five methods."""
    y, count = rows["loss"], len(rows)
    if count < 5:
        return np.nan
    x = np.column_stack([np.ones(count), rows["sensitivity"], rows["uniqueness"]])
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return rest.var() / y.var() * (count - 1) / (count - 3) - 0.5


def differences(value: pd.Series, level: str | None, pick: Pick | None) -> Iterator[Any]:
    """(where, the effect by seed) of a value, or of what `pick` compares of a level's values."""
    wide = value.to_frame("") if level is None else value.unstack(level)
    for place, rows in wide.groupby([k for k in wide.index.names if k != "seed"]):
        rows = rows.dropna(axis=1, how="all").droplevel([*range(rows.index.nlevels - 1)])
        text = dict(zip(wide.index.names, place, strict=False))
        where = [text["setting"], *(f"{text[k]:.0%}" for k in ["keep"] if k in text)]
        where += ["distilled"] * text.get("distilled", False) + [text.get("method", "")]
        for one, other in pick([*rows]) if pick else [("", None)]:
            effect = (rows[one] - (rows[other] if pick else 0)).dropna()
            if len(effect):
                pair = f"{one} - {other}" if level in ("method", "keep") else ""
                yield ", ".join(filter(None, [*where, pair])), effect


def effects(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """What a study's table says to each claim in each setting: effect, half its 95 % interval.

    table: columns task, method, keep (or asked), distilled, seed, loss, sensitivity, uniqueness,
    and model where there are several; loss the log of a perplexity. An effect, the mean over the
    seeds, is below 0 where it is as claimed; says: "as claimed" or "opposite" where the interval
    leaves 0 out, else "open". margin: how large a share of random's damage a method may avoid for
    random to count as comparable. Raises GumlabError for missing columns.
    """
    import pandas as pd  # here, so that figures come without it

    found, rows = values(table), []
    found["excess"] = found["share"] - margin
    for i, (finding, claim, _, value, level, pick) in enumerate(CLAIMS):
        for where, by_seed in differences(found[value], level, pick):
            row = {"number": i, "finding": finding, "claim": claim, "where": where}
            row |= {"seeds": len(by_seed), "effect": by_seed.mean(), "half": half_interval(by_seed)}
            rows.append(row | {"says": SAYS[verdict(by_seed)]})
    columns = ["number", "finding", "claim", "where", "seeds", "effect", "half", "says"]
    return pd.DataFrame(rows, columns=columns)
