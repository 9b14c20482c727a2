"""The paper's findings as differences that a study's table can show, setting by setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gumlab.errors import GumlabError

if TYPE_CHECKING:
    import pandas as pd

SOFT, L2, RANDOM, HARD, GUM = "soft movement", "magnitude", "random", "hard movement", "GUM"
ESTABLISHED = (L2, SOFT, HARD, "movement, local", "movement, global", "movement", "soft_movement")
HARDS = ESTABLISHED[2:-1]  # which of the two ranked Table 4's hard movement is not known
NAMES = {"gum": GUM}
Wide = dict[str, Any]  # value -> one row per (setting, keep, distilled, seed), by method
Effects = Iterator[tuple[str, "pd.Series"]]  # where, and the effect by seed; below 0: as claimed


def _pairs(wide: pd.DataFrame, ones: Any, others: Any, where: str = "{0}, {1:.0%}{2}") -> Effects:
    """One method's value minus another's, in every setting that has both."""
    for (setting, keep, distilled), rows in wide.groupby(level=[0, 1, 2]):
        place = where.format(setting, keep, ", distilled" * distilled)
        for one in wide.columns.intersection(ones):
            for other in wide.columns.intersection(others).difference([one]):
                difference = (rows[one] - rows[other]).droplevel([0, 1, 2]).dropna()
                if len(difference):
                    yield f"{place}: {one} - {other}", difference


def _taught(wide: pd.DataFrame) -> Effects:
    """The distilled runs' value minus the others', in every setting and for every column."""
    for (setting, keep), rows in wide.groupby(level=[0, 1]):
        sides = [rows[rows.index.get_level_values(2) == d].droplevel([0, 1, 2]) for d in (1, 0)]
        for column in wide.columns:
            difference = (sides[0][column] - sides[1][column]).dropna()
            if len(difference):
                yield f"{setting}, {keep:.0%}: {column}", difference


def _undistilled(wide: pd.DataFrame) -> pd.DataFrame:
    return wide[~wide.index.get_level_values(2).astype(bool)]


def shares(wide: Wide) -> pd.DataFrame:
    """(random - established) / (random - dense): the share of random's damage that is avoided."""
    loss = wide["loss"]
    if RANDOM not in loss:
        return loss[[]]
    damage = (loss[RANDOM] - wide["dense"]["loss"]).where(lambda d: d > 0)
    methods = loss.columns.intersection(ESTABLISHED)
    return loss[methods].rsub(loss[RANDOM], axis=0).div(damage, axis=0)


def _comparable(wide: Wide) -> Effects:
    """That share, less `margin`, which is what the paper calls comparable."""
    return _pairs(shares(wide).assign(margin=wide["margin"]), ESTABLISHED, ["margin"])


def _narrower(wide: Wide) -> Effects:
    """The gap from best to worst among the methods that a setting has in both ways."""
    import pandas as pd

    gaps = []
    for _, rows in wide["loss"].groupby(level=[0, 1]):
        sides = [rows[rows.index.get_level_values(2) == d] for d in (0, 1)]
        both = [c for c in rows if all(side[c].notna().any() for side in sides)]
        if len(both) > 1:
            gaps.append(rows[both].max(axis=1) - rows[both].min(axis=1))
    return _taught(pd.concat(gaps).to_frame("best to worst")) if gaps else iter(())


def _explained(wide: Wide) -> Effects:
    """1/2 - adjusted R2 of loss on log sensitivity and uniqueness, over five methods or more."""
    import numpy as np
    import pandas as pd

    for (setting, keep, distilled), rows in wide["loss"].groupby(level=[0, 1, 2]):
        found = {}
        for index, losses in rows.iterrows():
            sensitivity, uniqueness = (wide[v].loc[index] for v in ("sensitivity", "uniqueness"))
            both = pd.DataFrame({"y": losses, "s": np.log(sensitivity), "u": uniqueness}).dropna()
            if len(both) >= 5:
                x = np.column_stack([np.ones(len(both)), both["s"], both["u"]])
                rest = both["y"] - x @ np.linalg.lstsq(x, both["y"], rcond=None)[0]
                found[index[-1]] = 0.5 - (
                    1 - rest.var() / both["y"].var() * (len(x) - 1) / (len(x) - 3)
                )
        if found:
            yield f"{setting}, {keep:.0%}{', distilled' * distilled}", pd.Series(found)


def _ends(wide: pd.DataFrame, sign: int) -> Effects:
    """The value with the fewest neurons kept minus that with the most, for each method."""
    for (setting, distilled), rows in wide.groupby(level=[0, 2]):
        for method in rows:
            by_keep = rows[method].droplevel([0, 2]).dropna().unstack(0)
            if by_keep.shape[1] > 1:
                low, high = by_keep.columns.min(), by_keep.columns.max()
                place = f"{setting}, {low:.0%} - {high:.0%}{', distilled' * distilled}: {method}"
                yield place, (sign * (by_keep[low] - by_keep[high])).dropna()


def _log(wide: Wide) -> pd.DataFrame:
    import numpy as np

    return np.log(wide["sensitivity"])


RIVALS = (RANDOM, *ESTABLISHED)
CLAIMS: tuple[tuple[str, str, str, Callable[[Wide], Effects]], ...] = (
    ("F1", "random does little more damage than an established method",
     "share of random's damage that the method avoids, less the paper's largest", _comparable),
    ("F1", "and still less with distillation", "that share, distilled less not",
     lambda w: _taught(shares(w))),
    ("F2", "distillation narrows the gaps between methods",
     "loss, worst less best, distilled less not", _narrower),
    ("F3", "sensitivity and uniqueness explain more than half of the differences in loss",
     "1/2 less adjusted R2 within a setting", _explained),
    ("F4", "GUM has a lower loss than the other methods", "loss, GUM less the other",
     lambda w: _pairs(w["loss"], [GUM], RIVALS)),
    ("F4", "and a higher uniqueness", "uniqueness, the other less GUM",
     lambda w: _pairs(w["uniqueness"], RIVALS, [GUM])),
    ("F5", "hard movement has a higher sensitivity than the others but GUM, not distilled",
     "log sensitivity, the other less hard movement",
     lambda w: _pairs(_undistilled(_log(w)), (RANDOM, L2, SOFT, "soft_movement"), HARDS)),
    ("F5", "and a lower loss", "loss, hard movement less the other",
     lambda w: _pairs(_undistilled(w["loss"]), HARDS, (RANDOM, L2, SOFT, "soft_movement"))),
    ("F5", "GUM gains from distillation", "loss of GUM, distilled less not",
     lambda w: _taught(w["loss"][w["loss"].columns.intersection([GUM])])),
    ("F6", "more pruning lowers sensitivity", "log sensitivity, fewest kept less most kept",
     lambda w: _ends(_log(w), 1)),
    ("F6", "and raises uniqueness", "uniqueness, most kept less fewest kept",
     lambda w: _ends(w["uniqueness"], -1)),
)  # fmt: skip


def effects(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """What a study's table says to each claim in each setting: effect, half its 95 % interval.

    table: columns task, method, keep (or asked), distilled, seed, loss, sensitivity, uniqueness,
    and model where there are several; loss the log of a perplexity. A row of the result has an
    effect below 0 where it is as claimed, the mean over the seeds; says: "as claimed" or "opposite"
    where the interval leaves 0 out, else "open". margin: how large a share of random's damage a
    method may avoid for random to count as comparable. Raises GumlabError for missing columns.
    """
    import pandas as pd

    from gumlab.intervals import half_interval, verdict

    words = {"lower": "as claimed", "higher": "opposite", "no difference shown": "open"}
    wide, rows = {**wide_of(table), "margin": margin}, []
    for i, (finding, claim, measure, of) in enumerate(CLAIMS):
        for where, by_seed in of(wide):
            row = {"number": i, "finding": finding, "claim": claim, "measure": measure}
            row |= {"where": where, "seeds": len(by_seed), "effect": by_seed.mean()}
            rows.append(row | {"half": half_interval(by_seed), "says": words[verdict(by_seed)]})
    return pd.DataFrame(rows, columns=["number", "finding", "claim", "measure", "where", "seeds",
                                       "effect", "half", "says"])  # fmt: skip


def wide_of(table: pd.DataFrame) -> Wide:
    """Each value with a column per method; "dense" holds the dense runs, row by row."""
    table = table.copy()
    table["keep"] = table.get("asked", table["keep"])
    wanted = ["task", "method", "keep", "distilled", "seed", "loss", "sensitivity", "uniqueness"]
    if missing := [name for name in wanted if name not in table]:
        raise GumlabError(f"A ledger needs the columns {', '.join(missing)}; run a study for them.")
    table["method"] = table["method"].replace(NAMES)
    several = "model" in table and table["model"].nunique() > 1
    table["setting"] = table["task"] + (" from " + table["model"] if several else "")
    keys = ["setting", "keep", "distilled", "seed"]
    pruned = table[(table["method"] != "dense") & table["sensitivity"].notna()]
    wide = {v: pruned.pivot_table(index=keys, columns="method", values=v) for v in wanted[-3:]}
    dense = table[table["method"] == "dense"].groupby(["setting", "seed"])["loss"].mean()
    at = pruned.drop_duplicates(keys).set_index(keys).index
    wide["dense"] = at.to_frame()[[]].assign(loss=[dense.get((i[0], i[3]), math.nan) for i in at])
    return wide
