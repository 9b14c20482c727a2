"""The paper's numbers are PAPER.md's, and the ledger says what a made-up study was made to say."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT

import gumlab as gl
from gumlab.study import paper
from gumlab.study.claims import CLAIMS
from gumlab.study.intervals import compared, half_interval, paired, t_95, verdict

NOTES = ROOT.parent / "shared" / "PAPER.md"
NAMES = {
    "Soft movement": "soft movement", "L2 magnitude": "magnitude", "Gradual random": "random",
    "Hard movement (Top_v)": "hard movement", "Magnitude": "magnitude", "Random": "random",
    "Soft": "soft movement", "Hard (Top_v)": "hard movement", "Hard": "hard movement", "GUM": "GUM",
}  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.fixture(scope="module")
def notes() -> str:
    if not NOTES.exists():
        pytest.skip("PAPER.md, the notes on the paper, is not beside this copy")
    return NOTES.read_text(encoding="utf-8")


def test_table_4_is_that_of_the_notes(notes):
    lines = notes.split("### Table 4")[1].split("\n\n")[0].splitlines()[3:]
    table = gl.paper.table4()
    assert len(lines) == len(table) == 5
    for line in lines:
        name, *values = cells(line)
        assert list(table.loc[NAMES[name]]) == [float(v.rstrip("*")) for v in values]
    assert list(table.columns[:2]) == ["75%", "75% + distil"]


def test_figure_1_is_that_of_the_notes(notes):
    part = notes.split("### Figure 1")[1].split("## The reference")[0]
    wanted = {}
    tasks = {"WikiSQL": (0.5, 0.25, 0.1), "Wikitext-103": (0.75, 0.5, 0.25)}
    for line in [x for x in part.splitlines() if x.startswith("|")][2:]:
        row = cells(line)
        for start, (task, keeps) in zip((0, 8), tasks.items(), strict=True):
            values = [float(x) for x in row[start + 1 : start + 7]]
            for i, keep in enumerate(keeps):
                wanted[task, NAMES[row[start]], keep, False] = (values[i], values[i + 3])
    order = ("magnitude", "GUM", "random", "soft movement", "hard movement")
    triple = r"[\d.]+/[\d.]+/[\d.]+"
    groups = re.findall(triple, part.split("With distillation:")[1].split("50/25/10:", 1)[1])
    groups = [g for g in groups if g != "75/50/25"]
    assert len(groups) == 20
    for t, (task, keeps) in enumerate(tasks.items()):
        for m, method in enumerate(order):
            pair = [groups[10 * t + 5 * value + m].split("/") for value in (0, 1)]
            for i, keep in enumerate(keeps):
                wanted[task, method, keep, True] = tuple(float(x[i].rstrip(".")) for x in pair)
    found = paper.table().query("method != 'dense'")
    keys = found[["task", "method", "keep", "distilled"]].itertuples(index=False, name=None)
    values = found[["sensitivity", "uniqueness"]].itertuples(index=False, name=None)
    assert dict(zip(keys, values, strict=True)) == wanted


def test_the_notes_reading_of_table_4_follows_from_it():
    table = paper.table4()
    spread = table.max() - table.min()
    assert [round(x, 2) for x in spread] == [1.70, 0.91, 2.95, 1.73, 3.63, 2.77]
    claims = paper.effects(paper.table(), paper.margin())
    told = dict(zip(paper.ledger(paper.table())["claim"], claims.groupby("number"), strict=True))
    narrower = told["distillation narrows the gaps between methods"][1]
    assert (narrower["effect"] < 0).all()
    gains = told["GUM gains from distillation"][1].set_index("where")["effect"]
    assert [gains[f"Wikitext-103, {k}, GUM"] < 0 for k in ("75%", "50%", "25%")] == [
        False, False, True,
    ]  # fmt: skip
    assert gains["Wikitext-103, 25%, GUM"] == pytest.approx(math.log(19.833 / 20.059))


def test_comparable_is_what_the_paper_shows_for_hard_movement():
    random, hard, dense = 17.307, 16.974, 16.138
    assert paper.margin() == pytest.approx(math.log(random / hard) / math.log(random / dense))


def made_up(sign: float = 1.0, noise: float = 0.01, seeds: int = 3) -> pd.DataFrame:
    """A study in which every claim is true (or false, with sign -1) by construction."""
    draw, rows = np.random.default_rng(0), []
    loss = {"GUM": -0.2, "movement, global": -0.1, "random": 0.0, "magnitude": 0.2,
            "soft movement": 0.3}  # fmt: skip
    sensitivity = {"GUM": 1.5, "movement, global": 1.4, "random": 0.6, "magnitude": 0.4,
                   "soft movement": 0.2}  # fmt: skip
    for seed in range(seeds):
        rows.append(("t", "dense", 1.0, False, seed, 0.0, 1.0, 1.0))
        for keep in (0.5, 0.25):
            for distilled in (False, True):
                for name, part in loss.items():
                    gap = 0.9 * sign * part * (1 - sign * 0.5 * distilled)
                    mean = 3 + gap - 0.4 * sign * distilled + noise * draw.normal()
                    s = sensitivity[name] ** sign * keep**sign
                    u = 1 - sign * (part + keep) / 10
                    rows.append(("t", name, keep, distilled, seed, mean, s, u))
    names = ["task", "method", "keep", "distilled", "seed", "loss", "sensitivity", "uniqueness"]
    return pd.DataFrame(rows, columns=names)


def test_the_ledger_finds_what_was_put_in():
    true, false = (paper.ledger(made_up(sign)).set_index("claim") for sign in (1.0, -1.0))
    assert len(true) == len(CLAIMS)
    assert set(true["finding"]) == {f"F{i}" for i in range(1, 7)}
    always = {  # the loss is explained in both; an avoided share is a ratio, small on either side
        "sensitivity and uniqueness explain more than half of the differences in loss",
        "random does little more damage than an established method",
        "and still less with distillation",
    }
    assert set(true.drop(always)["verdict"]) == {"holds"}
    assert set(false.drop(always)["verdict"]) == {"does not hold"}
    (explained,) = [c for c in always if c.startswith("sensitivity")]
    assert true.loc[explained, "verdict"] == "holds"


def test_the_ledger_tells_kinds_of_bases_apart():
    """What is put into one kind of base is said of that kind, and of no other."""
    kinds = [("tiny-gpt2", 1.0), ("tiny-twins", -1.0)]
    tables = [made_up(sign).assign(model=model) for model, sign in kinds]
    book = paper.ledger_by_base(pd.concat(tables)).set_index("claim")
    assert list(book) == ["finding", "the paper", "tiny", "redundant"]
    told = book.loc["GUM has a lower loss than the other methods"]
    assert told["tiny"].startswith("holds: ")
    assert told["redundant"].startswith("does not hold: 0 of ")
    alone = tables[0][tables[0]["method"].isin(["dense", "magnitude"])]
    told = paper.ledger_by_base(alone).set_index("claim")
    assert told.loc["GUM gains from distillation", "tiny"] == paper.NO_RUNS
    with pytest.raises(gl.GumlabError, match="expected one or more of tiny-gpt-neo"):
        paper.ledger_by_base(tables[0].assign(model="another"))


def test_columns_of_pandas_own_types_tell_the_same():
    table = made_up()
    table.loc[3, "sensitivity"] = None  # pd.NA there
    told = paper.effects(table, paper.margin())
    theirs = paper.effects(table.convert_dtypes(), paper.margin())
    pd.testing.assert_frame_equal(told, theirs, check_dtype=False)


def test_noise_alone_tells_nothing():
    """Labels shuffled between methods: no claim about who is better may hold."""
    table = made_up()
    draw = np.random.default_rng(1)
    pruned = table["method"] != "dense"
    for value in ("loss", "sensitivity", "uniqueness"):
        table.loc[pruned, value] = np.exp(draw.normal(0, 0.1, pruned.sum()))
    told = paper.ledger(table)
    by_name = told[told["claim"].str.contains("lower loss|higher|GUM gains|narrows")]
    assert set(by_name["verdict"]) == {"cannot be told at this size"}


def test_one_seed_and_missing_methods_tell_nothing():
    assert set(paper.ledger(made_up(seeds=1))["verdict"]) == {"cannot be told at this size"}
    table = made_up()
    told = paper.ledger(table[table["method"].isin(["dense", "magnitude"])])
    assert (told.loc[told["finding"] == "F4", "measured"] == "no runs to tell from").all()
    with pytest.raises(gl.GumlabError, match="uniqueness"):
        paper.ledger(table.drop(columns="uniqueness"))


def test_random_is_comparable_up_to_the_margin():
    """Shares of random's damage set by hand: just below and just above what the paper allows."""
    for side, told in ((-0.05, "holds"), (0.05, "does not hold")):
        share = paper.margin() + side
        rows = [
            ("t", m, k, False, s, loss + 0.001 * s, 1.0, 1.0)
            for s in range(3)
            for m, k, loss in (
                ("dense", 1.0, 1.0), ("random", 0.1, 2.0), ("magnitude", 0.1, 2 - share),
            )
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=list(made_up().columns))
        assert paper.ledger(table).iloc[0]["verdict"] == told


def test_t_is_students():
    """Against the distribution itself: the density's integral over (-t, t) is 0.95."""
    for count in (2, 3, 5, 10, 30):
        v, t = count - 1, t_95(count)
        x = np.linspace(-t, t, 200_001)
        constant = math.gamma((v + 1) / 2) / math.gamma(v / 2) / math.sqrt(v * math.pi)
        area = np.trapezoid(constant * (1 + x**2 / v) ** (-(v + 1) / 2), x)
        assert area == pytest.approx(0.95, abs=2e-4)
    assert math.isnan(t_95(1))
    assert math.isnan(t_95(0))


def test_intervals_cover_the_truth_19_times_in_20():
    draw = np.random.default_rng(0)
    samples = [pd.Series(draw.normal(1.0, 2.0, 4)) for _ in range(1500)]
    half = t_95(4)
    held = [abs(s.mean() - 1) <= half * s.std() / 2 for s in samples]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
    assert half_interval(samples[0]) == pytest.approx(half * samples[0].std() / 2)


def test_differences_are_paired_by_seed():
    seeds = range(3)
    table = pd.DataFrame(
        [{"seed": s, "method": m, "loss": 10.0 * s + add + 0.01 * s}
         for s in seeds for m, add in (("a", 0.0), ("b", 1.0))]
    ).sample(frac=1, random_state=0)  # fmt: skip
    assert list(paired(table, "b", "a")) == pytest.approx([1.0] * 3)
    assert compared(table, "a", "b")["verdict"] == "lower"
    assert compared(table, "b", "a")["verdict"] == "higher"
    assert verdict(pd.Series([0.1, -0.1, 0.05])) == "no difference shown"
    assert verdict(pd.Series([1.0])) == "no difference shown"


def test_bands_show_means_and_intervals():
    table = made_up().query("not distilled")
    plot = gl.plots.bands(table, "uniqueness")
    left, right = plot.figure.axes
    assert right.get_ylabel() == "uniqueness"
    drawn = {container.get_label(): container.lines for container in left.containers}
    beside = []
    for method in ("GUM", "random"):
        runs = table[(table["method"] == method) & (table["keep"] == 0.25)]["loss"]
        line, _, (bars,) = drawn[method]
        assert line.get_ydata()[0] == pytest.approx(runs.mean())
        lowest = bars.get_segments()[0][:, 1].min()
        assert lowest == pytest.approx(runs.mean() - half_interval(runs))
        beside.append(line.get_xdata()[0])
        assert beside[-1] == pytest.approx(25, abs=5)
    assert beside[0] != beside[1]  # no bar hides another
    assert "25%" in plot.sentence
    assert plot.sentence.index("GUM") < plot.sentence.index("soft movement")


def test_ratios_draw_the_papers_figure_and_take_them_at_equal_seeds():
    figure_1 = paper.table().query("task == 'WikiSQL'")
    plot = gl.plots.ratios(figure_1)
    drawn = np.vstack([c.get_offsets() for c in plot.figure.axes[0].collections])
    printed = figure_1.query("method != 'dense'")[["sensitivity", "uniqueness"]].to_numpy()
    assert sorted(map(tuple, drawn.round(6))) == sorted(map(tuple, printed))
    assert "hard movement keeps the highest sensitivity" in plot.sentence
    assert "GUM the highest uniqueness" in plot.sentence
    scaled = made_up().assign(factor=lambda t: 10.0 ** t["seed"])
    scaled["sensitivity"] *= scaled["factor"]  # as if each seed's model were another
    scaled = scaled[(scaled["method"] != "GUM") | (scaled["seed"] < 2)]
    same = [gl.plots.ratios(t).sentence for t in (made_up(), scaled)]
    assert same[0] == same[1]


def test_gaps_are_worst_less_best_of_each_seed():
    plot = gl.plots.gaps(made_up())
    lines = {line.get_label(): line.get_xydata() for line in plot.figure.axes[0].lines}
    for label, taught in (("labels only", False), ("distilled", True)):
        table = made_up().query("keep == 0.25")
        runs = table[table["distilled"] == taught]
        by_seed = runs.groupby("seed")["loss"].agg(lambda loss: loss.max() - loss.min())
        assert tuple(lines[label][0]) == pytest.approx((25.0, by_seed.mean()))
    assert "Distillation takes the gap" in plot.sentence
    printed = gl.plots.gaps(paper.table().query("task == 'Wikitext-103'")).sentence
    spread = [math.log(hi / lo) for hi, lo in ((23.692, 20.059), (22.604, 19.833))]
    assert "{:.3f} to {:.3f} with 25%".format(*spread) in printed


def test_layer_widths_are_shares_of_the_dense_layers():
    rows = [("dense", "[10, 20]"), ("a", "[1, 2]"), ("a", [3, 2]), ("b", [5, 5])]
    plot = gl.plots.layer_widths(pd.DataFrame(rows, columns=["method", "widths"]))
    lines = {line.get_label(): list(line.get_ydata()) for line in plot.figure.axes[0].lines}
    assert lines == {"a": pytest.approx([20, 10]), "b": pytest.approx([50, 25])}
    assert plot.sentence == (
        "b divides its neurons most unevenly: 25% of one layer stay, 50% of another."
    )


def test_a_heat_map_shows_every_score_with_every_refit_that_all_have():
    losses = {("x", "none"): 3.0, ("x", "all"): 1.0, ("y", "none"): 2.0, ("y", "all"): 1.5}
    rows = [(*key, loss + noise) for key, loss in losses.items() for noise in (-0.1, 0.1)]
    rows.append(("y", "late", 0.5))
    plot = gl.plots.refit_heat(pd.DataFrame(rows, columns=["score", "refit", "loss"]))
    (ax,) = plot.figure.axes
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "3.00", (1, 0): "1.00", (0, 1): "2.00", (1, 1): "1.50"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y"]
    assert "2.00 (y) to 3.00 with none, 1.00 (x) to 1.50 with all" in plot.sentence


def test_a_forest_shows_each_setting_of_a_claim_as_it_was_told():
    effects = paper.effects(made_up(), paper.margin())
    mine = effects[effects["claim"] == "GUM has a lower loss than the other methods"]
    plot = gl.plots.forest(mine)
    (ax,) = plot.figure.axes
    assert sorted(t.get_text() for t in ax.get_yticklabels()) == sorted(mine["where"])
    drawn = [x for line in ax.lines[1:] for x in np.atleast_1d(line.get_xdata())]
    assert sorted(drawn) == pytest.approx(sorted(mine["effect"]))
    count = (mine["says"] == "as claimed").sum()
    assert f"Of {len(mine)} settings: {count} as claimed" in plot.sentence


def test_side_by_side_has_the_tiny_models_and_the_real_one():
    table = gl.paper.side_by_side("magnitude", "random")
    assert set(table["verdict"]) <= {"lower", "higher", "no difference shown"}
    real = gl.paper.real_study().query("asked == 0.5 and not distilled")
    differences = paired(real, "magnitude", "random")
    row = table.loc["smollm2-135m", "wikitext", 0.5]
    assert row["verdict"] == verdict(differences)
    assert row["difference of loss"].startswith(f"{differences.mean():+.4f} +- ")
    assert len(table) > len(gl.paper.side_by_side("GUM", "random at GUM's widths"))


def test_all_runs_have_one_name_for_each_method_and_say_which_had_a_teacher():
    runs = paper.all_runs()
    assert not set(runs["method"]) & set(paper.ONE_NAME)
    taught = runs["distilled"]
    assert (runs["way"][taught] == runs["method"][taught] + ", with a teacher").all()
    assert (runs["way"][~taught] == runs["method"][~taught]).all()
    ways = set(runs["way"])
    assert all({one, other} <= ways for one, other in paper.PAIRS)
    assert set(paper.METHODS) <= set(runs["method"])


def test_each_base_and_task_at_the_fraction_where_most_ran_beside_its_dense_runs():
    runs = paper.all_runs()
    settings = paper.at_one_fraction(runs)
    assert len(settings) == len(runs.groupby(["model", "task"]))
    for name, rows in settings.items():
        model, task, share = name.split(", ")
        own = runs[(runs["model"] == model) & (runs["task"] == task)]
        counts = own[own["asked"] < 1]["asked"].value_counts()
        assert set(rows["asked"]) == {counts.index[0], 1.0}
        assert counts.iloc[0] > counts.iloc[1:].max() or len(counts) == 1
        assert share == f"{counts.index[0]:.0%}"
        assert "dense" in set(rows["method"])
