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

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gumlab.errors import GumlabError
from gumlab.study.claims import AS_CLAIMED, CLAIMS, OPPOSITE, effects, values
from gumlab.study.intervals import compared

ASSETS = Path(__file__).parents[1] / "assets"
STUDY = ASSETS / "study.csv"
REAL = ASSETS / "real_study.csv"
REAL_ONE_SHOT = ASSETS / "real_one_shot.csv"
CHAT = ASSETS / "real_chat.json"

NO_RUNS = "no runs to tell from"

METHODS = ("random", "magnitude", "movement, local", "movement, global", "soft movement", "GUM")
CUT = "one cut, then training"
ONE_NAME = {  # for what the stored studies call by several
    "greedy OBS + refit, global": CUT,
    "one shot, then healing": CUT,
    "random + refit, at greedy OBS's widths": "random, cut's widths",
    "GUM, lambda_gum = 0": "GUM, lambda_gum 0",
}
WITH_A_TEACHER = ", with a teacher"
PAIRS = (
    ("GUM", "random"),
    ("magnitude", "random"),
    ("movement, global", "random"),
    ("GUM", "movement, global"),
    ("random at GUM's widths", "random"),
    ("GUM", "random at GUM's widths"),
    ("GUM", "GUM, lambda_gum 0"),
    (CUT, "GUM"),
    ("random, cut's widths", "GUM"),
    (f"random{WITH_A_TEACHER}", "random"),
    (f"GUM{WITH_A_TEACHER}", "GUM"),
    (f"{CUT}{WITH_A_TEACHER}", CUT),
)

# The kinds of base models that findings are told apart by. Of the redundant ones one has
# planted copies of half of its neurons, the other is wider than its task needs.
KINDS = {
    "tiny": ("tiny-gpt-neo", "tiny-gpt2", "tiny-llama"),
    "redundant": ("tiny-twins", "tiny-wide"),
    "real": ("smollm2-135m",),
}


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
    return _stored(STUDY)


def real_study() -> pd.DataFrame:
    """Our runs of the paper's methods and their controls on a real language model.

    benchmarks/quality/real_model.py made them: SmolLM2-135M, pruned while it trains on WikiText-2.

    Returns
    -------
    pandas.DataFrame
        A row per run, as `Study.table` gives it.
    """
    return _stored(REAL)


def all_runs() -> pd.DataFrame:
    """`study` and `real_study` in one table, with one name for each method and control.

    Returns
    -------
    pandas.DataFrame
        A row per run. The methods of the paper are METHODS, what it did not try is CUT. The column
        way is the method, with a teacher or without, as PAIRS names it.
    """
    runs = pd.concat([study(), real_study()], ignore_index=True)
    runs = runs.replace({"method": ONE_NAME})
    teacher = runs["distilled"].map({False: "", True: WITH_A_TEACHER})
    return runs.assign(way=runs["method"] + teacher)


def at_one_fraction(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each base and task at the fraction kept where most ran, and its dense ones.

    Parameters
    ----------
    runs : pandas.DataFrame
        As `all_runs` gives them.

    Returns
    -------
    dict of str to pandas.DataFrame
        By base, task and the share that the grid asked for, such as "tiny-gpt2, tables, 10%".
    """
    settings = {}
    for (model, task), rows in runs.groupby(["model", "task"], sort=False):
        most_run = rows.query("asked < 1").groupby("asked").size().idxmax()
        settings[f"{model}, {task}, {most_run:.0%}"] = rows[rows["asked"].isin([most_run, 1])]
    return settings


def real_one_shot() -> pd.DataFrame:
    """Our cuts of a real language model without any training.

    benchmarks/quality/allocation.py made them: SmolLM2-135M, calibrated and measured on WikiText-2.

    Returns
    -------
    pandas.DataFrame
        A row per cut: draw (of the calibration text), score, allocation (of the budget over the
        layers), refit, keep, loss, nats, tokens, words (of the test text), widths (as JSON). The
        dense model's score is "dense".
    """
    return pd.read_csv(REAL_ONE_SHOT)


def side_by_side(one: str, other: str) -> pd.DataFrame:
    """Two methods in all stored runs that were not distilled, of tiny models and of the real one.

    Parameters
    ----------
    one, other : str
        The methods, as `study` and `real_study` call them.

    Returns
    -------
    pandas.DataFrame
        A row per model, task and fraction kept that has both: the mean difference of the loss,
        `one` minus `other`, paired by seed, with half its 95 % interval, and the verdict.
    """
    runs = pd.concat([study(), real_study()]).query("asked < 1 and not distilled")
    rows = {
        setting: compared(table, one, other)
        for setting, table in runs.groupby(["model", "task", "asked"])
        if {one, other} <= set(table["method"])
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["model", "task", "kept"])
    return table.drop(columns=["method", "against"])


def real_chat() -> pd.DataFrame:
    """A real language model in llama.cpp: whole, cut, and healed.

    benchmarks/quality/chat.py made the rows: SmolLM2-135M, files of type q8_0, one thread.

    Returns
    -------
    pandas.DataFrame
        By model: parameters, "file, MB", perplexity (of the whole model's own answers), "read/s"
        and "write/s" (tokens a second), and both as factors of the whole model's.
    """
    rows = []
    for row in _chat()["rows"]:
        speed = row["speed"][0]
        rows.append(
            {
                "model": row["model"],
                "parameters": row["parameters"],
                "file, MB": row["file_bytes"] / 1e6,
                "perplexity": math.exp(row["loss"]),
                "read/s": speed["prefill_tokens_per_s"],
                "write/s": speed["decode_tokens_per_s"],
            }
        )
    table = pd.DataFrame(rows).set_index("model")
    for what in ("read", "write"):
        table[f"{what}, x dense"] = table[f"{what}/s"] / table.loc["dense", f"{what}/s"]
    return table


def real_answers() -> pd.DataFrame:
    """What the models of `real_chat` answered, greedily.

    Returns
    -------
    pandas.DataFrame
        A row for each question, a column for each model.
    """
    stored = _chat()
    return pd.DataFrame(
        {row["model"]: row["answers"] for row in stored["rows"]}, index=stored["questions"]
    )


def _chat() -> dict[str, Any]:
    return json.loads(CHAT.read_text(encoding="utf-8"))


def _stored(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path)
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


def ledger_by_base(measured: pd.DataFrame) -> pd.DataFrame:
    """`ledger`, with a column for each kind of base model: on which does a claim hold?

    Parameters
    ----------
    measured : pandas.DataFrame
        As in `ledger`, with the column model; the models of KINDS count.

    Returns
    -------
    pandas.DataFrame
        A row per claim with the columns finding, claim, "the paper", and each of KINDS that has
        runs: the verdict, and how many settings are as claimed and opposite.

    Raises
    ------
    GumlabError
        For missing columns.
    """
    told = None
    for kind, models in KINDS.items():
        runs = measured[measured["model"].isin(models)]
        if runs.empty:
            continue
        book = ledger(runs)
        if told is None:
            told = book[["finding", "claim", "the paper"]]
        counts = ": " + book["measured"].str.split(";").str[0]
        told = told.assign(**{kind: book["verdict"] + counts.where(counts != f": {NO_RUNS}", "")})
    if told is None:
        raise GumlabError(
            "None of the table's models is of a known kind; expected one or more of "
            f"{', '.join(model for models in KINDS.values() for model in models)}."
        )
    return told


def _summary(settings: pd.DataFrame) -> str:
    """How many settings say what, and the one in the middle."""
    if settings.empty:
        return NO_RUNS
    count = settings["says"].value_counts()
    middle = settings.sort_values("effect").iloc[len(settings) // 2]
    return (
        f"{count.get(AS_CLAIMED, 0)} of {len(settings)} as claimed, "
        f"{count.get(OPPOSITE, 0)} opposite; "
        f"median {middle['effect']:+.3f} +- {middle['half']:.3f} ({middle['where']})"
    )


def _verdict(settings: pd.DataFrame) -> str:
    """By what more than half of the settings say."""
    if settings.empty:
        return NO_RUNS
    half_of_them = len(settings) / 2
    if (settings["says"] == AS_CLAIMED).sum() > half_of_them:
        return "holds"
    if (settings["says"] == OPPOSITE).sum() > half_of_them:
        return "does not hold"
    return "cannot be told at this size"
