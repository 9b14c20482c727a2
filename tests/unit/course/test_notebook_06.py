"""What notebook 06 says in words, and its own cells do not check."""

from __future__ import annotations

import gumlab as gl


def test_without_training_one_queue_helps_magnitude_and_hardly_moves_random():
    bench = gl.workbench("tiny-gpt2", "restaurants", keep=0.1, examples=16)
    changes = {}
    for name in ("magnitude", "random"):
        scores = bench.scores(name)
        one, four = bench.cut(scores, scope="global"), bench.cut(scores)
        changes[name] = bench.loss(one) - bench.loss(four)
        first = int(gl.select(scores, 0.1, "global")[0].sum())
        assert (first > 2 * 52) == (name == "magnitude")
    assert changes["magnitude"] < -1
    assert abs(changes["random"]) < 0.5


def test_global_movement_is_nowhere_worse_than_local_and_better_in_about_half():
    verdicts = gl.paper.side_by_side("movement, global", "movement, local")["verdict"]
    assert "higher" not in set(verdicts)
    assert 0.4 < (verdicts == "lower").mean() < 0.6
    assert verdicts["smollm2-135m", "wikitext", 0.5] == "lower"
