"""What notebook 05 says in words, and its own cells do not check."""

from __future__ import annotations

import gumlab as gl
from gumlab.study.intervals import paired


def test_in_the_paper_hard_movement_beats_random_everywhere_and_soft_movement_twice():
    table = gl.paper.table4()
    better = table.lt(table.loc["random"], axis="columns").sum(axis=1)
    assert better["hard movement"] == len(table.columns)
    assert better["soft movement"] == 2
    assert better["magnitude"] == 0


def test_on_tiny_models_movement_is_nowhere_better_than_magnitude_and_on_the_wide_one_worse():
    verdicts = gl.paper.side_by_side("movement, local", "magnitude")["verdict"]
    tiny = verdicts.drop("smollm2-135m")
    worse = tiny[tiny == "higher"]
    assert "lower" not in set(tiny)
    assert set(worse.index.get_level_values("model")) == {"tiny-wide"}


def test_on_the_real_model_movement_is_about_a_nat_below_magnitude():
    runs = gl.paper.real_study().query("asked < 1 and not distilled")
    for _, at_one in runs.groupby("asked"):
        assert (paired(at_one, "movement, local", "magnitude") < 0).all()
    verdicts = gl.paper.side_by_side("movement, local", "magnitude")["verdict"]
    assert set(verdicts["smollm2-135m"]) == {"no difference shown"}
    real = runs[runs["asked"] == 0.5]
    differences = paired(real, "movement, local", "magnitude")
    assert 0.8 < -differences.mean() < 1.2
    perplexity = real.groupby("method")["perplexity"].mean()
    assert perplexity.nsmallest(2).index.tolist() == ["one shot, then healing", "movement, global"]
