"""What the students write in notebook 11 is what the ledger is made by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from gumlab.course import check
from gumlab.study import paper
from gumlab.study.claims import values
from gumlab.study.intervals import half_interval, paired


@pytest.fixture(scope="module")
def runs():
    return pd.concat([paper.study(), paper.real_study()], ignore_index=True)


@pytest.fixture(scope="module")
def effects(runs):
    return paper.effects(runs, paper.margin())


def test_a_difference_is_the_packages(runs):
    rows = runs.query("model == 'tiny-wide' and asked == 0.1 and not distilled")
    by_seed = rows.pivot(index="seed", columns="method", values="loss")
    mean, half = check.paired_difference.reference(*by_seed[["GUM", "random"]].to_dict().values())
    wanted = paired(rows, "GUM", "random")
    assert mean == pytest.approx(wanted.mean())
    assert half == pytest.approx(half_interval(wanted))


def test_every_setting_says_what_the_package_says(effects):
    said = [check.says.reference(row.effect, row.half) for row in effects.itertuples()]
    assert said == list(effects["says"])


@pytest.mark.parametrize("kind", paper.KINDS)
def test_the_rulings_are_the_ledgers(runs, kind):
    rows = runs[runs["model"].isin(paper.KINDS[kind])]
    said = paper.effects(rows, paper.margin()).groupby("claim")["says"].apply(list)
    verdicts = paper.ledger(rows).set_index("claim")["verdict"]
    assert {claim: check.ruling.reference(words) for claim, words in said.items()} == {
        claim: verdicts[claim].removesuffix(" at this size") for claim in said.index
    }


def test_the_adjusted_share_is_what_the_third_finding_goes_by(runs):
    rows = runs.query("model == 'tiny-gpt2' and asked in (0.1, 1) and not distilled and seed == 0")
    models = rows[rows["method"].isin(["random", "magnitude", "soft movement", "GUM"])]
    models = pd.concat([models, rows[rows["method"].str.startswith("movement, ")]])
    columns = models[["loss", "sensitivity", "uniqueness"]].to_numpy().T
    r2 = check.explained.reference(*torch.tensor(columns))
    unexplained = values(rows)["unexplained"]
    assert np.isclose(0.5 - check.adjusted.reference(r2, len(models), 2), unexplained.item())
