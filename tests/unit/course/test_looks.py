"""`Looks`: the cuts of notebook 10, with a student's own refit."""

from __future__ import annotations

import pytest
import torch

import gumlab as gl
from gumlab.course import check
from gumlab.course.looks import Looks


@pytest.fixture(scope="module")
def looks():
    bench = gl.workbench("tiny-gpt2", "restaurants", keep=0.25, examples=4)
    return Looks(bench, seeds=(0, 3), count=6, ridge=1e-3)


def test_the_activations_make_the_gram_matrix(looks):
    h = looks.activations(1, 3).double()
    gram = h.T @ h
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    torch.testing.assert_close(looks.grams(3)[1], gram, rtol=1e-3, atol=1e-3)
    assert [len(texts) for texts in looks.texts.values()] == [6, 6]
    assert looks.texts[0] != looks.texts[3]


def test_a_refit_of_your_own_writes_the_kept_weights(looks):
    scores = looks.scores("wanda", 0)

    def ten(gram, outgoing, mask, ridge):
        assert ridge == pytest.approx(1e-3 * gram.diagonal().mean().item())
        return 10 * outgoing[mask]

    plain, tenfold = looks.cut(scores, 0), looks.cut(scores, 0, refit=ten)
    for one, other in zip(gl.neurons(plain), gl.neurons(tenfold), strict=True):
        assert one.width == other.width == 128
        torch.testing.assert_close(10 * one.outgoing(), other.outgoing())


def test_the_reference_refit_heals_most_of_a_random_cut(looks):
    scores = looks.scores("random", 0)
    bench = looks.bench
    cut = bench.loss(looks.cut(scores, 0))
    refitted = bench.loss(looks.cut(scores, 0, refit=check.refit_weights.reference))
    assert refitted - bench.loss() < 0.5 * (cut - bench.loss())


def test_one_budget_may_empty_a_layer_without_a_word(looks, recwarn):
    score = [torch.full((512,), 1.0 if i else -1.0) for i in range(4)]
    masks = looks.masks(score, 0.25, "global")
    assert int(masks[0].sum()) == 1
    assert not recwarn.list
