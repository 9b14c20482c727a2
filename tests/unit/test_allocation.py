"""Damage curves and the best split of a budget, by brute force."""

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers.models import loss_of
from helpers.texts import one_batch

import gumlab as gl
from gumlab.allocation import DamageCurves
from gumlab.feedforward import neurons


def convex_curves(layers: int, size: int, seed: int) -> DamageCurves:
    """Curves measured at every width, falling ever more slowly."""
    draw = np.random.default_rng(seed)
    damage = []
    for _ in range(layers):
        gains = np.sort(draw.exponential(size=size - 1))  # what the last neurons avoid comes first
        damage.append([*np.cumsum(gains)[::-1].tolist(), 0.0])
    return DamageCurves([list(range(1, size + 1))] * layers, damage, 1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_the_split_is_the_best_of_all(seed, keep):
    curves = convex_curves(3, 6, seed)
    total = round(keep * 18)
    splits = [s for s in itertools.product(range(1, 7), repeat=3) if sum(s) == total]

    def damage_of(split):
        return sum(damages[width - 1] for width, damages in zip(split, curves.damage, strict=True))

    got = curves.split(keep)
    assert sum(got) == total
    assert damage_of(got) == pytest.approx(min(map(damage_of, splits)))


def test_a_dent_in_a_curve_does_not_hide_what_lies_behind_it():
    """One neuron more helps the first layer little, two help it most of all."""
    curves = DamageCurves([[1, 2, 3], [1, 2, 3]], [[9.0, 8.9, 0.0], [3.0, 1.0, 0.0]], 1.0)
    assert curves.split(4 / 6) == [3, 1]


def test_widths_are_multiples_and_near_the_total():
    curves = convex_curves(4, 32, 0)
    widths = curves.split(0.5, multiple_of=8)
    assert all(width % 8 == 0 or width == 1 for width in widths)
    assert abs(sum(widths) - 64) < 8


def test_a_budget_below_what_was_measured_is_refused():
    curves = DamageCurves([[4, 8], [4, 8]], [[1.0, 0.0], [1.0, 0.0]], 1.0)
    with pytest.raises(gl.GumlabError, match="no width below 8 in all was measured"):
        curves.split(0.25)


@pytest.mark.parametrize("refit", [False, True])
def test_damage_is_the_change_of_the_loss_with_one_layer_cut(gpt2, tokenizer, many, refit):
    before = copy.deepcopy(gpt2.state_dict())
    scores = gl.score(gpt2, "wanda", tokenizer, many)
    curves = gl.damage_curves(gpt2, scores, tokenizer, many, keeps=[0.25, 0.5], refit=refit)
    batch = one_batch(gpt2, tokenizer, many)
    dense = loss_of(gpt2, batch).item()
    assert curves.loss == pytest.approx(dense, rel=1e-5)
    for layer, block in enumerate(neurons(gpt2)):
        assert curves.widths[layer] == [6, 12, 24]
        for width, damage in zip(curves.widths[layer], curves.damage[layer], strict=True):
            widths = [24, 24]
            widths[layer] = width
            masks = gl.select(scores, widths=widths)
            small = gl.shrink(gpt2, masks, tokenizer, many, refit=refit, sequential=False)
            assert damage == pytest.approx(loss_of(small, batch).item() - dense, abs=2e-5)
        assert not block.proj._forward_pre_hooks
    for name, value in gpt2.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert list(curves.table().columns) == ["layer", "width", "kept", "damage"]


def test_scores_of_another_model_are_refused(gpt2, tokenizer, examples):
    with pytest.raises(gl.GumlabError, match=r"The scores are of \[3, 3\] neurons"):
        gl.damage_curves(gpt2, [torch.ones(3), torch.ones(3)], tokenizer, examples)
