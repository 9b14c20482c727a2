"""The paper's numbers as data, and its findings beside what a study measured.

Santacroce, Wen, Shen and Li, "What Matters In The Structured Pruning of Generative Language
Models?", arXiv 2302.03773 (2023): GPT-Neo-125m. assets/paper.csv holds Table 4 as printed
(Wikitext-103, validation perplexity; soft movement's last figure has 1-3 % more neurons left) and
Figure 1 read off the picture to about 0.01, uniqueness on Wikitext-103 to 0.001 (ratios to the
dense fine-tuned model, on the training set).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gumlab.study.claims import CLAIMS, effects, values

ASSETS = Path(__file__).parents[1] / "assets"
STUDY = ASSETS / "study.csv"


def table() -> pd.DataFrame:
    """All of it in the form of a study's table: a row per task, method, keep and distillation.

    perplexity, and loss, its log, are printed for Wikitext-103 alone; seed is 0.
    """
    found = pd.read_csv(ASSETS / "paper.csv")
    found["distilled"] = found["distilled"].astype(bool)
    return found.assign(loss=np.log(found["perplexity"]), seed=0)


def study() -> pd.DataFrame:
    """Our runs of the paper's grid and of methods it never tried, a row each, as `Study.table`
    gives them: benchmarks/study.py made them on a CPU, with the built-in models."""
    return pd.read_csv(STUDY).assign(distilled=lambda rows: rows["distilled"].astype(bool))


def table4() -> pd.DataFrame:
    """Table 4: perplexity, a row per method, a column per keep and distillation."""
    rows = table().dropna().query("method != 'dense'")
    names = [f"{k:.0%}" + " + distil" * d for k, d in zip(rows.keep, rows.distilled, strict=True)]
    rows = rows.assign(column=names).sort_values(["keep", "distilled"], ascending=[False, True])
    return rows.pivot(index="method", columns="column", values="perplexity")[rows.column.unique()]


def margin() -> float:
    """What the paper calls comparable: the largest share of random's damage that an established
    method avoids in Table 4, not distilled (hard movement, 75 % kept)."""
    return float(values(table().query("not distilled"))["share"].max())


def ledger(measured: pd.DataFrame) -> pd.DataFrame:
    """One row per claim of the paper: what it shows, what a study's table shows, the verdict.

    A claim holds where more than half of its settings say "as claimed" (see `effects`), it does not
    hold where more than half say "opposite"; else it cannot be told at this size. The paper's own
    figures have no spread, so of them only the signs are counted.
    """
    rows, limit = [], margin()
    mine, theirs = effects(measured, limit), effects(table(), limit)
    for i, (finding, claim, measure, *_) in enumerate(CLAIMS):
        here = mine[mine["number"] == i].sort_values("effect")
        printed = theirs.loc[theirs["number"] == i, "effect"]
        count = {word: int((here["says"] == word).sum()) for word in ("as claimed", "opposite")}
        found, told = "no runs to tell from", "cannot be told at this size"
        if count["as claimed"] * 2 > len(here):
            told = "holds"
        elif count["opposite"] * 2 > len(here):
            told = "does not hold"
        if len(here):
            middle = here.iloc[len(here) // 2]
            found = (
                f"{count['as claimed']} of {len(here)} as claimed, {count['opposite']} opposite; "
                f"median {middle['effect']:+.3f} +- {middle['half']:.3f} ({middle['where']})"
            )
        row = {"finding": finding, "claim": claim, "below 0 as claimed": measure}
        row["the paper"] = f"{(printed < 0).sum()} of {len(printed)} as claimed"
        rows.append(row | {"measured": found, "verdict": told})
    return pd.DataFrame(rows)
