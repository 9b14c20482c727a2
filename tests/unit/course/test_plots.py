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


def a_study(seeds=3, methods=("GUM", "random"), **setting):
    """A study's table: dense runs, and those of some methods at two shares."""
    rows = []
    for seed in range(seeds):
        runs = [("dense", 1.0, 1.0), *((name, keep, 1 / keep) for keep in (0.5, 0.25)
                                       for name in methods)]  # fmt: skip
        rows += [
            {"task": "tables", "method": method, "asked": keep, "keep": keep, "distilled": False,
             "seed": seed, "lr": 0.001, "loss": loss + 0.01 * seed, "bleu": 10.0,
             "sensitivity": 1.0, "uniqueness": 1.0, "error": None,
             "widths": [8, 8] if method == "dense" else [2, 4], **setting}
            for method, keep, loss in runs
        ]  # fmt: skip
    return pd.DataFrame(rows)


TWO_RATES = pd.concat([a_study(), a_study(lr=0.01)])
AT_HALF = TWO_RATES[TWO_RATES["asked"] != 0.25]
HEAT = pd.DataFrame(
    [(task, score, "cut", 0, 1.0) for task in ("tables", "e2e") for score in "xy"],
    columns=["task", "score", "refit", "seed", "loss"],
)
MAP = [torch.tensor([True, False, True]), torch.tensor([True, True, False])]
SCORES = [torch.tensor([3.0, 1.0, 2.0]), torch.tensor([9.0, 5.0, 0.1])]
NINE = {str(n): {0.5: 2.0, 1.0: 1.0} for n in range(9)}


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: gl.plots.bands(TWO_RATES), "differ in lr besides method, keep and seed"),
        (lambda: gl.plots.bands(TWO_RATES), r"table.query\('lr == 0.001'\)"),
        (
            lambda: gl.plots.bands(pd.concat([a_study(), a_study(distilled=True, task="e2e")])),
            r"differ in task and distilled besides .*\"task == 'tables' and distilled == False\"",
        ),
        (lambda: gl.plots.bands(pd.concat([a_study()] * 2)), r"table.drop_duplicates"),
        (lambda: gl.plots.bands(a_study(methods="abcdefghi")), "1 to 8 methods; got 9"),
        (lambda: gl.plots.bands(a_study(bleu=None), "bleu"), "'bleu' is empty; expected numbers"),
        (lambda: gl.plots.ratios(TWO_RATES), "differ in lr besides"),
        (lambda: gl.plots.ratios(a_study().query("method != 'dense'")), "needs dense runs"),
        (lambda: gl.plots.gaps(TWO_RATES), "differ in lr besides"),
        (lambda: gl.plots.layer_widths(AT_HALF), "differ in lr besides method and seed"),
        (lambda: gl.plots.layer_widths(a_study()), r"table.query\('asked in \(1, 0.5\)'\)"),
        (lambda: gl.plots.refit_heat(HEAT), "differ in task besides score, refit and seed"),
        (lambda: gl.plots.forest(a_study()), "without where, effect, half, says. gumlab.paper.eff"),
        (lambda: gl.plots.forest(effects(3).assign(number=[0, 1, 1])), "of one claim; .* are of 2"),
    ],
)  # fmt: skip
def test_runs_of_several_settings_are_no_seeds(draw, words):
    with pytest.raises(gl.GumlabError, match=words):
        draw()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: gl.plots.method_bars(a_study()[::-1], "bleu"), "first row must be the dense run"),
        (lambda: gl.plots.method_bars(a_study(), "bleu"), "one row a method; 'GUM' has several"),
        (lambda: gl.plots.method_bars(a_study(), "rouge"), "got a table of 15 rows, without rouge"),
        (lambda: gl.plots.quality_against_keep(a_study(seeds=1), "bleu", "BLEU"), "plots.bands"),
        (lambda: gl.plots.quality_against_keep(a_study(), "rouge", "R"), "without rouge"),
        (lambda: gl.plots.seed_dots(a_study()), "one a seed; got DataFrame .* it is table.groupby"),
        (lambda: gl.plots.seed_dots({"GUM": 1.0}), "must be a list of numbers, one a seed"),
        (lambda: gl.plots.keep_curves(NINE, 1.0), "1 to 8 curves; got 9"),
        (lambda: gl.plots.keep_curves({"a": {0.5: 1.0}, "b": {1.0: 1.0}}, 1.0), "'b' has no entry"),
        (lambda: gl.plots.training_runs({"one": History()}), "'one' must be a History with steps"),
        (lambda: gl.plots.replay(History(losses=[1.0], kept=[1.0]), 0, 0), "History with frames"),
    ],
)
def test_a_table_or_a_mapping_of_another_kind_is_refused(draw, words):
    with pytest.raises(gl.GumlabError, match=words):
        draw()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: gl.plots.neuron_map(SCORES, MAP), r"masks\[0\] must be a bool tensor.*float32"),
        (lambda: gl.plots.neuron_map(MAP, SCORES), r"title must be a text.*scores=scores"),
        (lambda: gl.plots.neuron_map(MAP, scores=SCORES[:1]), r"widths \[3, 3\]; got the shapes"),
        (lambda: gl.plots.removal(SCORES, {"a": NINE["0"]}, 0.5), r"masks\[0\] must be"),
        (lambda: gl.plots.removal(MAP, NINE, 0.5), "1 to 8 curves; got 9"),
        (lambda: gl.plots.removal(MAP, {"a": NINE["0"]}, 0.25), "'a', has no entry 0.25"),
        (lambda: gl.plots.used_and_unique([1, 2], [0.5, 1], [3.0, 4.0]), "mask must be bool"),
        (lambda: gl.plots.used_and_unique([1, 2], [0.5], [True, False]), "used and unique must be"),
        (lambda: gl.plots.against([1, 2], [1, 2, 3], ("a", "b")), "x and y must be"),
        (lambda: gl.plots.against([1, 2], [1, 2], ("a", "b"), {2: "it"}), "marked: .* 0 to 1"),
        (lambda: gl.plots.twins(np.eye(3), np.ones(2), 0, [1], "it"), r"got \(3, 3\) and \(2,\)"),
        (lambda: gl.plots.activations(np.ones((3, 9)), list("ab"), [0]), "each of the 2 tokens"),
        (lambda: gl.plots.deletions({}, (0, 0, True)), "tried must be a mapping"),
        (lambda: gl.plots.healing({("a", "b", 0): 1.0}, ("a", "b", 9), 1.0), "tried has no entry"),
        (lambda: gl.plots.refit_gain({"x": {"cut": 1.0}, "y": {"bias": 1.0}}, 1.0), "same entries"),
        (lambda: gl.plots.parameter_shares({"m": dict.fromkeys("abcd", 1)}), "3 parts; got 4"),
        (lambda: gl.plots.relative_costs({"dense": {"bytes": 1.0}}), "beside the first; got 0"),
        (lambda: gl.plots.texts("p", "r", {"a": "w"}, {}), "loss has no entry 'a'"),
    ],
)
def test_neurons_and_lines_that_would_not_be_drawn_are_refused(draw, words):
    with pytest.raises(gl.GumlabError, match=words):
        draw()


def test_bands_count_the_seeds_that_are_drawn():
    assert "(3 seeds, 95 % intervals)." in gl.plots.bands(a_study()).sentence
    one = gl.plots.bands(a_study(seeds=1)).sentence
    assert one.endswith("that of GUM 4.000 (1 seed, which has no interval).")
    assert "nan" not in one
    failed = a_study()
    gone = (failed["seed"] == 2) & (failed["method"] == "GUM")
    failed.loc[gone, ["loss", "sensitivity"]] = np.nan
    failed.loc[gone, "error"] = "GumlabError: no"
    told = gl.plots.bands(failed).sentence
    assert "(2 to 3 seeds, 95 % intervals). Runs without a loss, which are left out: 2." in told
    with pytest.raises(gl.GumlabError, match="of which 2 failed, the first with GumlabError: no"):
        gl.plots.bands(failed[gone].drop(columns="loss"))


def test_a_method_without_a_loss_is_not_the_best():
    table = a_study(seeds=1).query("asked in (1, 0.25)")
    table.loc[table["method"] == "GUM", "loss"] = np.nan
    plot = gl.plots.method_bars(table, "bleu")
    assert "random has the lowest loss" in plot.sentence
    assert [text.get_text() for text in drawn(plot)[0].get_yticklabels()] == ["random"]


def test_the_reference_of_a_line_is_called_what_it_is():
    table = a_study(seeds=1, methods=["GUM"])
    for rows, name in ((table, "dashed: all kept"), (table[1:], "dashed: 50% kept")):
        for ax in drawn(gl.plots.quality_against_keep(rows, "bleu", "BLEU")):
            assert name in ax.get_xlabel()


def test_tables_put_together_keep_each_row_once():
    rows = effects(15)
    plot = gl.plots.forest(pd.concat([rows, rows]))
    (ax,) = drawn(plot)
    assert sum(len(box.lines[0].get_xdata()) for box in ax.containers) == 30
    one = a_study(methods=["GUM"]).query("asked != 0.25")
    other = a_study(methods=["random"]).query("asked == 0.5")
    other["widths"] = [[8, 8]] * len(other)
    lines = drawn(gl.plots.layer_widths(pd.concat([one, other])))[0].lines
    shares = {line.get_label(): list(line.get_ydata()) for line in lines}
    assert shares == {"GUM": pytest.approx([25, 50]), "random": pytest.approx([100, 100])}
