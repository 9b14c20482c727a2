"""The paper's numbers as data, and its findings beside what a study measured.

assets/paper.csv holds Table 4 as printed (Wikitext-103, validation perplexity; soft movement's last
figure has 1-3 % more neurons left) and Figure 1 read off the picture to about 0.01, uniqueness on
Wikitext-103 to 0.001 (ratios to the dense fine-tuned model, on the training set). The model is
GPT-Neo-125m.

References
----------
Santacroce, Wen, Shen and Li, "What Matters In The Structured Pruning of Generative Language
Models?", arXiv 2302.03773 (2023).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gumlab.study.claims import AS_CLAIMED, CLAIMS, OPPOSITE, effects, values

ASSETS = Path(__file__).parents[1] / "assets"
STUDY = ASSETS / "study.csv"


def table() -> pd.DataFrame:
    """All the paper's numbers in the form of a study's table.

    Returns
    -------
    pandas.DataFrame
        A row per task, method, keep and distillation: sensitivity and uniqueness, and for
        Wikitext-103 perplexity and loss, its log; seed is 0.
    """
    rows = pd.read_csv(ASSETS / "paper.csv")
    return rows.assign(
        distilled=rows["distilled"].astype(bool), loss=np.log(rows["perplexity"]), seed=0
    )


def study() -> pd.DataFrame:
    """Our runs of the paper's grid and of methods it never tried.

    benchmarks/quality/study.py made them on a CPU, with the built-in models.

    Returns
    -------
    pandas.DataFrame
        A row per run, as `Study.table` gives it.
    """
    rows = pd.read_csv(STUDY)
    return rows.assign(distilled=rows["distilled"].astype(bool))


def table4() -> pd.DataFrame:
    """The paper's Table 4: perplexity.

    Returns
    -------
    pandas.DataFrame
        A row per method, a column per keep and distillation: "75%", "75% + distil", and so on.
    """
    rows = table().dropna().query("method != 'dense'")
    rows = rows.sort_values(["keep", "distilled"], ascending=[False, True])
    teacher = rows["distilled"].map({False: "", True: " + distil"})
    rows = rows.assign(column=rows["keep"].map("{:.0%}".format) + teacher)
    by_method = rows.pivot(index="method", columns="column", values="perplexity")
    return by_method[rows["column"].unique()]


def margin() -> float:
    """What the paper calls comparable to random.

    Returns
    -------
    float
        The largest share of random's damage that an established method avoids in Table 4, not
        distilled (hard movement, 75 % kept).
    """
    share = values(table().query("not distilled"))["share"]
    return float(share.max())


def ledger(measured: pd.DataFrame) -> pd.DataFrame:
    """What the paper shows, what a study's table shows, and the verdict, claim by claim.

    A claim holds where more than half of its settings say "as claimed" (see
    `gumlab.study.claims.effects`), it does not hold where more than half say "opposite"; else it
    cannot be told at this size. The paper's own figures have no spread, so of them only the signs
    are counted.

    Parameters
    ----------
    measured : pandas.DataFrame
        A study's table, with the columns that `gumlab.study.claims.effects` needs.

    Returns
    -------
    pandas.DataFrame
        A row per claim with the columns finding, claim, "below 0 as claimed", "the paper",
        measured and verdict; all text.

    Raises
    ------
    GumlabError
        For missing columns.
    """
    comparable = margin()
    ours = effects(measured, comparable)
    theirs = effects(table(), comparable)
    rows = []
    for number, claim in enumerate(CLAIMS):
        printed = theirs[theirs["number"] == number]
        settings = ours[ours["number"] == number]
        rows.append(
            {
                "finding": claim.finding,
                "claim": claim.sentence,
                "below 0 as claimed": claim.effect,
                "the paper": f"{(printed['effect'] < 0).sum()} of {len(printed)} as claimed",
                "measured": _summary(settings),
                "verdict": _verdict(settings),
            }
        )
    return pd.DataFrame(rows)


def _summary(settings: pd.DataFrame) -> str:
    """How many settings say what, and the one in the middle."""
    if settings.empty:
        return "no runs to tell from"
    count = settings["says"].value_counts()
    middle = settings.sort_values("effect").iloc[len(settings) // 2]
    return (
        f"{count.get(AS_CLAIMED, 0)} of {len(settings)} as claimed, "
        f"{count.get(OPPOSITE, 0)} opposite; "
        f"median {middle['effect']:+.3f} +- {middle['half']:.3f} ({middle['where']})"
    )


def _verdict(settings: pd.DataFrame) -> str:
    """By what more than half of the settings say."""
    half_of_them = len(settings) / 2
    if (settings["says"] == AS_CLAIMED).sum() > half_of_them:
        return "holds"
    if (settings["says"] == OPPOSITE).sum() > half_of_them:
        return "does not hold"
    return "cannot be told at this size"
