"""Exact Top_v against a brute-force choice, the schedule by hand, and every bad input."""

import random
import warnings

import pytest
import torch
from helpers.models import random_masks, tiny

import gumlab as gl
from gumlab.selection import layer_widths, schedule, select


def best_first(scores, layers=None):
    """All (layer, neuron), highest score first, ties by layer and position."""
    every = [(layer, i) for layer, s in enumerate(scores) for i in range(len(s))]
    return sorted(every, key=lambda p: (-float(scores[p[0]][p[1]]), *p))


def global_by_hand(scores, total, floor):
    """The floors' neurons first, then the best of all the others."""
    order = best_first(scores)
    kept = [p for layer in range(len(scores)) for p in [q for q in order if q[0] == layer][:floor]]
    kept += [p for p in order if p not in kept][: total - len(kept)]
    return [{i for layer, i in kept if layer == want} for want in range(len(scores))]


def draw_case(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    sizes = [draw.randint(3, 40) for _ in range(draw.randint(1, 5))]
    kind = draw.choice(["different", "some ties", "all equal"])
    scores = [torch.randn(n) for n in sizes]
    if kind != "different":
        scores = [(s * 2).round() if kind == "some ties" else torch.zeros_like(s) for s in scores]
    floor = draw.randint(1, 3)
    keep = draw.uniform(floor * len(sizes) / sum(sizes), 1)
    total = round(keep * sum(sizes))
    return scores, keep, total, floor


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("seed", range(40))
def test_exactly_round_keep_n_neurons_stay(seed, scope):
    scores, keep, total, floor = draw_case(seed)
    if total < floor * len(scores):
        total, keep = floor * len(scores), floor * len(scores) / sum(map(len, scores))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the floor's; see the test of its words
        masks = select(scores, keep, scope, floor=floor)
    sizes, widths = [len(s) for s in scores], [int(m.sum()) for m in masks]
    assert sum(widths) == total
    assert all(
        m.dtype == torch.bool and m.shape == s.shape for m, s in zip(masks, scores, strict=True)
    )
    for s, m, w in zip(
        scores, masks, widths, strict=True
    ):  # each layer keeps its own best, ties by position
        assert set(m.nonzero().flatten().tolist()) == {i for _, i in best_first([s])[:w]}
        assert w >= floor
    if scope == "global":
        chosen = [set(m.nonzero().flatten().tolist()) for m in masks]
        assert chosen == global_by_hand(scores, total, floor)
    else:  # the same fraction everywhere, to within rounding, unless the floors ask for more
        wanted = [n * total / sum(sizes) for n in sizes]
        if all(w >= floor for w in wanted):
            assert all(abs(w - want) < 1 for w, want in zip(widths, wanted, strict=True))


def test_ties_go_to_the_first_position():
    equal = [torch.zeros(4), torch.zeros(4)]
    assert [m.tolist() for m in select(equal, 0.5)] == [[True, True, False, False]] * 2
    with pytest.warns(UserWarning, match="layer"):
        masks = select(equal, 0.5, "global")
    assert [m.tolist() for m in masks] == [[True, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize("keep", [1, 1.0])
def test_keep_one_keeps_all(keep):
    assert all(
        m.all()
        for s in ("layer", "global")
        for m in select([torch.randn(5), torch.randn(7)], keep, s)
    )


def test_the_floor_comes_from_the_same_total_and_is_named():
    scores = [torch.arange(10.0) + 100, torch.arange(10.0), torch.arange(10.0) + 100]
    with pytest.warns(
        UserWarning, match=r"fewer than floor=2 neurons in layer\(s\) 1; they keep 2"
    ) as said:
        masks = select(scores, 0.4, "global", floor=2)
    assert [int(m.sum()) for m in masks][1] == 2
    assert sum(int(m.sum()) for m in masks) == 12
    assert said[0].filename == __file__


def test_a_floor_that_is_not_hit_is_not_mentioned():
    select(
        [torch.arange(10.0), torch.arange(10.0) + 0.5], 0.5, "global", floor=3
    )  # a warning is an error


def test_a_floor_hit_in_layer_scope_is_named_too():
    with pytest.warns(UserWarning, match=r"layer\(s\) 0"):
        masks = select([torch.randn(4), torch.randn(96)], 0.1, floor=3)
    assert [int(m.sum()) for m in masks] == [3, 7]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("sizes", "unit"),
    [([24, 24], 8), ([16, 32, 48], 8), ([12, 12, 12], 4), ([10, 24], 8), ([9, 13, 30], 4)],
)
@pytest.mark.filterwarnings("ignore:Top_v:UserWarning")
def test_multiples_come_within_one_multiple_of_the_total(sizes, unit, scope):
    torch.manual_seed(len(sizes))
    scores = [torch.randn(n) for n in sizes]
    least = sum(min(n, unit) for n in sizes)
    for total in range(least, sum(sizes) + 1):
        widths = layer_widths(scores, total / sum(sizes), scope, multiple_of=unit)
        assert all(w % unit == 0 or w == n for w, n in zip(widths, sizes, strict=True)), widths
        assert abs(sum(widths) - total) < unit, (total, widths)


def test_fixed_widths_take_the_best_of_each_layer():
    scores = [torch.tensor([1.0, 3, 2]), torch.tensor([5.0, 4, 6, 7])]
    masks = select(scores, widths=[1, 3])
    assert [m.tolist() for m in masks] == [[False, True, False], [True, False, True, True]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"keep": 0}, r"fraction in \(0, 1\], got 0\. It is the share"),
        ({"keep": -0.1}, "got -0.1"),
        ({"keep": 1.5}, "got 1.5"),
        ({"keep": True}, "got True"),
        ({"keep": "a"}, "got 'a'"),
        ({"keep": None}, "got None"),
        ({"keep": float("nan")}, "got nan"),
        ({"keep": 0.01}, r"leaves 0 neurons, but 2 layers need 2 \(floor=1.*Raise keep"),
        ({"floor": 5}, r"floor=5 is larger than the smallest layer \(4 neurons\)"),
        ({"keep": 0.3, "floor": 3}, "2 layers need 6"),
        ({"multiple_of": 0}, "multiple_of must be a whole number, 1 or more; got 0"),
        ({"scope": "globl"}, "Unknown scope 'globl'. Did you mean 'global'"),
        ({"widths": [1]}, r"widths \[1\] do not fit layers of \[4, 6\]"),
        ({"widths": [0, 2]}, r"widths \[0, 2\] do not fit"),
        ({"widths": [4, 7]}, "each between 1 and the layer's size"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        select([torch.randn(4), torch.randn(6)], **arguments)


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ([torch.randn(4), torch.tensor([1.0, float("nan")])], "Layer 1's scores have NaN"),
        ([torch.randn(4, 2)], r"Layer 0's scores have shape \(4, 2\)"),
        (torch.randn(4), r"Layer 0's scores have shape \(\)"),
        ([], "score"),
    ],
)
def test_bad_scores_get_a_sentence(scores, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        select(scores, 0.5)


@pytest.mark.parametrize("use", [gl.shrink, gl.gate])
def test_masks_that_do_not_fit_get_a_sentence(gpt2, use):
    good = random_masks(gpt2)
    for masks, sentence in [
        (good[:1], r"shapes \[\(24,\)\], the model's layers have widths \[24, 24\]"),
        ([good[0], good[1][:-1]], r"\(23,\)"),
        ([good[0], torch.zeros(24, dtype=torch.bool)], "mask of layer 1 keeps no neuron"),
        ([good[0].float(), good[1]], "mask of layer 0 has dtype torch.float32; expected bool"),
    ]:
        with pytest.raises(gl.GumlabError, match=sentence):
            use(gpt2, masks)


def test_the_schedule_by_hand():
    """T = 100, keep 0.2: 1 until 10, then 0.2 + 0.8 (1 - (t - 10) / 60)^3, 0.2 from 70."""
    expected = {
        1: 1,
        5: 1,
        10: 1,
        25: 0.2 + 0.8 * 0.75**3,
        40: 0.3,
        55: 0.2125,
        70: 0.2,
        99: 0.2,
        100: 0.2,
    }
    assert {t: schedule(t, 100, 0.2) for t in expected} == pytest.approx(expected)
    assert schedule(30, 60, 0.5, start=0, end=1) == pytest.approx(0.5 + 0.5 / 8)
    assert all(schedule(t, 50, 1.0) == 1 for t in range(51))
    values = [schedule(t, 600, 0.25) for t in range(601)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("start", "end"), [(0.7, 0.1), (0.5, 0.5), (-0.1, 0.7), (0.1, 1.2)])
def test_a_schedule_out_of_order_is_refused(start, end):
    with pytest.raises(gl.GumlabError, match="0 <= start < end <= 1"):
        schedule(1, 10, 0.5, start, end)


@pytest.mark.parametrize(
    "cut",
    [
        lambda model: gl.select(gl.score(model, "magnitude"), 0.5, "global", floor=5),
        lambda model: gl.prune(model, "magnitude", keep=0.5, scope="global", floor=5, refit=False),
    ],
)
def test_a_warning_points_to_the_line_that_called(cut):
    model = tiny("gpt2")
    for weights in gl.neurons(model)[1].maps():
        weights.detach().mul_(1e-3)  # so that none of its neurons would stay
    with pytest.warns(UserWarning, match="fewer than floor=5") as caught:
        cut(model)
    assert [warning.filename for warning in caught] == [__file__]
