"""Explorers of many runs: what they say is what the runs say."""

from __future__ import annotations

import pandas as pd
import pytest
from test_explore import VIEW, shown

import gumlab as gl
from gumlab.course import explore


def halved(start: str, lesson: str, steps: int) -> float:
    """What stands for a training: a loss that falls with the steps."""
    return 0.4 + {"cut": 4.0, "refitted": 1.0}[start] / (1 + steps)


@pytest.fixture
def healing():
    known = {("cut", "labels", 0): 4.4, ("refitted", "labels", 0): 1.4}
    return explore.healing(halved, ["cut", "refitted"], ["labels", "teacher"], 10, 0.4, known)


@pytest.fixture
def claims():
    return explore.claims(pd.concat([gl.paper.study(), gl.paper.real_study()]))


@pytest.mark.parametrize(
    ("name", "control", "value"),
    [
        ("healing", "start", "refitted"), ("healing", "lesson", "teacher"), ("healing", "steps", 6),
        ("claims", "claim", 4), ("claims", "base", "real"), ("claims", "left_out", 1),
    ],
)  # fmt: skip
def test_every_control_changes_picture_and_sentence(name, control, value, request, capfd):
    explorer = request.getfixturevalue(name)
    before = shown(explorer)
    explorer.controls[control].value = value
    after = shown(explorer)
    assert explorer.error is None
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert {"image/png", VIEW} <= set(explorer._repr_mimebundle_())
    assert capfd.readouterr() == ("", "")


def test_healing_says_the_loss_and_the_share_of_the_damage(healing):
    assert healing.sentence == ("cut, labels, 2 steps: loss 1.733; 67% of the damage is healed.")
    healing.controls["lesson"].value = "teacher"  # whose loss after 0 steps is not known
    assert healing.sentence == "cut, teacher, 2 steps: loss 1.733."


def test_what_was_tried_is_not_trained_again(healing):
    healing.controls["steps"].value = 4
    healing.train = None
    healing.controls["steps"].value = 2
    assert healing.error is None
    assert [steps for *_, steps in healing.tried] == [0, 0, 2, 4]


def test_claims_counts_what_the_package_counts(claims):
    book = gl.paper.ledger_by_base(claims.table)
    for base in ("tiny", "redundant", "real"):
        claims.controls["base"].value = base
        told = book[base][claims.controls["claim"].value - 1].partition(": ")[2]
        count, of = (int(word) for word in told.split(" as claimed")[0].split(" of "))
        assert f"Of {of} settings: {count} as claimed" in claims.sentence


def test_a_claim_that_no_runs_can_tell_is_a_red_sentence(claims):
    claims.controls["base"].value = "real"
    claims.controls["claim"].value = 2  # it needs more than one method with a teacher
    assert isinstance(claims.error, gl.GumlabError)
    assert "Choose other bases" in claims.sentence
