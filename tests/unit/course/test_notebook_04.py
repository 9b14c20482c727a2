"""What notebook 04 says in words, and its own cells do not check."""

from __future__ import annotations

import pytest

import gumlab as gl


@pytest.fixture(scope="module")
def bench():
    return gl.workbench("tiny-gpt2", "restaurants", keep=0.25, examples=16)


def test_one_queue_by_magnitude_gives_layer_0_more_than_half_and_lowers_the_loss(bench):
    scores = bench.scores("magnitude")
    widths = [int(mask.sum()) for mask in gl.select(scores, 0.25, "global")]
    assert widths[0] > sum(widths) / 2
    assert bench.loss(bench.cut(scores, scope="global")) < bench.loss(bench.cut(scores))


def test_on_tiny_models_magnitude_is_better_in_about_half_of_the_settings_and_worse_in_none():
    verdicts = gl.paper.side_by_side("magnitude", "random")["verdict"]
    tiny = verdicts.drop("smollm2-135m")
    assert 0.4 < (tiny == "lower").mean() < 0.6
    assert "higher" not in set(tiny)


def test_on_the_real_model_magnitude_is_behind_at_a_half_and_not_at_a_quarter_and_both_are_open():
    table = gl.paper.side_by_side("magnitude", "random").loc["smollm2-135m"].droplevel("task")
    assert (table["verdict"] == "no difference shown").all()
    mean = table["difference of loss"].str.split(" ").str[0].astype(float)
    assert sorted(mean.index) == [0.25, 0.5]
    assert mean[0.25] < 0 < mean[0.5]
    runs = (
        gl.paper.real_study()
        .query("asked == 0.25")
        .pivot(index="seed", columns="method", values="loss")
    )
    ahead = runs["magnitude"] < runs["random"]
    assert ahead.any()
    assert not ahead.all()


def test_what_looks_at_weights_alone_leaves_nothing_of_a_real_model():
    cuts = gl.paper.real_one_shot().query("keep in [0.5, 1] and refit == 'cut'")
    losses = cuts.query("allocation == 'equal'").groupby("score")["loss"].mean()
    weights_alone = losses[["optipfair, static", "Torch-Pruning, magnitude"]]
    assert weights_alone.min() > 2 * losses[["optipfair, data", "greedy_obs"]].max()
