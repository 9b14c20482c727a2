"""What becomes of the planted pairs of `tiny-twins`."""

from __future__ import annotations

import pytest
import torch

import gumlab as gl
from gumlab.course.planted import fate, planted_pairs, whole_by_chance

PAIRS = [torch.tensor([[0, 2], [1, 3]]), torch.tensor([[0, 3]])]
MASKS = [torch.tensor([True, True, True, False]), torch.tensor([False, True, True, False])]


def test_an_original_has_one_copy_behind_all_originals():
    pairs = planted_pairs()
    assert [len(two) for two in pairs] == [256] * 4
    for two in pairs:
        assert two[:, 0].max() < 512 <= two[:, 1].min()
        assert len(two.unique()) == two.numel()


def test_pairs_are_counted_over_all_layers():
    assert fate(MASKS, PAIRS) == {"both": 1, "one": 1, "none": 1}


def test_the_expected_number_is_the_mean_over_random_choices():
    masks = [torch.arange(6) < 3, torch.arange(5) < 4]
    pairs = [torch.tensor([[0, 3], [1, 4]]), torch.tensor([[2, 4]])]
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(2000):
        drawn = [mask[torch.randperm(len(mask), generator=generator)] for mask in masks]
        counts.append(fate(drawn, pairs)["both"])
    assert sum(counts) / len(counts) == pytest.approx(whole_by_chance(masks, pairs), abs=0.05)


def test_greedy_obs_keeps_one_of_nearly_every_pair_where_obs_loses_both():
    base, tokenizer = gl.load("tiny-twins", device="cpu")
    texts = gl.load_task("restaurants").train[:32]
    greedy = gl.score(base, "greedy_obs", tokenizer, texts)
    obs = gl.score(base, "obs", tokenizer, texts)
    assert fate(gl.select(greedy, 2 / 3), planted_pairs())["one"] > 900
    assert fate(gl.select(obs, 0.25), planted_pairs())["none"] > 1000
