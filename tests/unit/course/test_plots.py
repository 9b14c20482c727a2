"""What makes a figure easy to read: no legend on points, one look for one thing, no empty space."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import gumlab as gl
from gumlab.course.plots.figure import STYLES, styles_of
from gumlab.study.claims import CLAIMS
from gumlab.training import Frame, History


def drawn(plot):
    """The figure's axes, after everything has its place."""
    plot.figure.draw_without_rendering()
    return plot.figure.axes


def boxes_of(texts):
    return [text.get_window_extent() for text in texts if text.get_text()]


def overlapping(boxes):
    return [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_a_method_of_the_paper_looks_the_same_in_every_figure():
    alone = styles_of(["GUM", "my own"])
    among = styles_of(["soft movement", "random", "GUM", "my own"])
    assert alone["GUM"] == among["GUM"]
    assert len(set(among.values())) == 4
    assert alone["my own"] not in (alone["GUM"], styles_of(gl.paper.METHODS).values())
    assert set(styles_of("abcdefghijk").values()) == set(STYLES)


def test_the_seeds_of_a_method_have_one_colour_and_markers_of_their_own():
    curves = {name: {0.5: 2.0, 1.0: 1.0} for name in ("random, seed 0", "random, seed 1", "GUM")}
    (ax,) = drawn(gl.plots.keep_curves(curves, 1.0))
    one, other, gum = ax.lines[:3]
    assert one.get_color() == other.get_color() != gum.get_color()
    assert one.get_marker() != other.get_marker()


def test_the_legend_of_used_and_unique_is_on_no_point():
    used, unique = np.geomspace(1, 1e4, 400), np.tile(np.geomspace(1e-4, 1, 20), 20)
    plot = gl.plots.used_and_unique(used, unique, used > 100, title="layer 2")
    (ax,) = drawn(plot)
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 >= ax.get_window_extent().y1
    assert legend.y1 <= plot.figure.bbox.y1
    assert not overlapping([legend, *boxes_of([ax._left_title])])


def test_the_legends_of_a_replay_are_on_no_line():
    torch.manual_seed(0)
    masks = [[torch.ones(16, dtype=torch.bool)] for _ in range(6)]
    frames = [
        Frame(step, mask, [torch.randn(16)]) for step, mask in zip(range(1, 7), masks, strict=True)
    ]
    history = History(losses=[1.0] * 6, kept=[1.0] * 6, frames=frames)
    _, middle, right = drawn(gl.plots.replay(history, 5, 0))
    for ax in (middle, right):
        lowest = ax.get_legend().get_window_extent().y0
        tops = [line.get_window_extent().y1 for line in ax.lines]
        tops += [ax.transData.transform(path.vertices)[:, 1].max()
                 for group in ax.collections for path in group.get_paths()]  # fmt: skip
        assert max(tops) <= lowest


def test_the_labels_of_a_replays_map_are_in_the_picture():
    masks = [torch.ones(512, dtype=torch.bool)]
    frames = [Frame(step, masks, [torch.zeros(512)]) for step in (1, 2)]
    history = History(losses=[1.0, 1.0], kept=[1.0, 1.0], frames=frames)
    left, *_ = drawn(gl.plots.replay(history, 1, 0))
    labels = [label.get_window_extent() for label in left.get_yticklabels() + left.texts]
    assert labels
    assert min(label.x0 for label in labels) >= 0


def effects(settings):
    """As many settings of a claim, on three bases; one interval is far wider than the others."""
    rows = [
        {"effect": -0.01 * (n + 1), "half": 0.005, "says": "as claimed",
         "where": f"tables from base {n % 3}, {n}%"}
        for n in range(settings)
    ]  # fmt: skip
    rows[0] |= {"half": 9.0, "says": "open"}
    return pd.DataFrame(rows)


@pytest.mark.parametrize("settings", [3, 24, 90])
def test_a_claim_in_few_or_many_settings_is_one_readable_figure(settings):
    plot = gl.plots.forest(effects(settings))
    (ax,) = drawn(plot)
    labels = boxes_of(ax.get_yticklabels())
    assert not overlapping(labels)
    assert len(labels) == (settings if settings <= 24 else 3)
    assert plot.figure.get_figheight() < 9
    assert not overlapping(boxes_of(ax.get_xticklabels()))
    markers = [line for container in ax.containers for line in container.lines[:1]]
    assert sum(len(line.get_xdata()) for line in markers) == settings
    assert f"{settings - 1} as claimed, 1 open" in plot.sentence


def test_the_room_below_a_map_of_activations_is_that_of_its_longest_token():
    for tokens in (["a", "b"], ["a", "unbelievably"]):
        plot = gl.plots.activations(np.eye(2), tokens, [0, 1])
        ax = drawn(plot)[0]
        lowest = min(box.y0 for box in boxes_of(ax.get_xticklabels()))
        assert 0 <= lowest < 0.25 * plot.figure.dpi


def test_one_version_beside_the_dense_model_needs_no_legend():
    costs = {"dense": {"flops_per_token": 4.0}, "cut": {"flops_per_token": 1.0}}
    plot = gl.plots.relative_costs(costs)
    assert not plot.figure.legends
    assert "cut" in drawn(plot)[0].get_xlabel()
    assert [text.get_text() for text in drawn(plot)[0].get_yticklabels()] == ["flops per token"]
    assert gl.plots.relative_costs(costs | {"masked": costs["dense"]}).figure.legends


def test_ratios_of_several_studies_stand_side_by_side_with_one_legend():
    printed = gl.paper.table().query("task == 'WikiSQL'")
    plot = gl.plots.ratios({"once": printed, "again": printed[printed["method"] != "random"]})
    left, right = drawn(plot)
    assert (left.get_title(), right.get_title()) == ("once", "again")
    (legend,) = plot.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels))
    assert "random" in labels
    assert plot.sentence.startswith("once: On average ")


@pytest.fixture(scope="module")
def stored():
    return gl.paper.effects(gl.paper.all_runs(), gl.paper.margin())


@pytest.mark.parametrize("claim", range(len(CLAIMS)))
def test_names_legend_and_axis_of_a_claim_are_in_the_picture_in_full(claim, stored):
    mine = stored[stored["number"] == claim]
    for rows in (mine, mine.iloc[:1]):
        plot = gl.plots.forest(rows)
        (ax,) = drawn(plot)
        (legend,) = plot.figure.legends
        low, high = ax.get_xlim()
        below = [tick for tick in ax.get_xticklabels() if low <= tick.get_position()[0] <= high]
        below.append(ax.xaxis.label)
        boxes = [legend.get_window_extent(), *boxes_of([*ax.get_yticklabels(), *below])]
        whole = plot.figure.bbox
        for box in boxes:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1
        assert boxes[0].y0 >= ax.get_window_extent().y1
        assert ax.get_window_extent().width > whole.width / 3


def test_long_names_of_a_claims_settings_leave_room_for_what_they_name():
    plot = gl.plots.forest(effects(3).assign(where="a model in a folder of a long name, " * 4))
    (ax,) = drawn(plot)
    assert ax.get_window_extent().width > 3 * plot.figure.dpi
    assert min(box.x0 for box in boxes_of(ax.get_yticklabels())) >= 0
