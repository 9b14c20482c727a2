"""What README says about the committed results is what their files hold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import update_readme

ROOT = Path(__file__).parents[1]
TASKS = ("restaurants", "e2e")


class Results:
    """The runs of one task; losses by method and seed."""

    def __init__(self, task: str) -> None:
        self.table = pd.read_csv(ROOT / "results" / f"methods_{task}.csv")
        wide = self.table.pivot_table(index="seed", columns=["method", "distilled"], values="loss")
        self.losses = wide

    def loss(self, method: str, distilled: bool = False) -> pd.Series:
        return self.losses[method, distilled]

    def gap(self, worse: str, better: str) -> tuple[float, float]:
        """Mean difference of two methods, paired by seed, and its standard error."""
        difference = self.loss(worse) - self.loss(better)
        return difference.mean(), difference.std() / len(difference) ** 0.5

    def differs(self, worse: str, better: str) -> bool:
        mean, error = self.gap(worse, better)
        return mean > 3 * error


@pytest.fixture(scope="module", params=TASKS)
def results(request) -> Results:
    return Results(request.param)


@pytest.fixture(scope="module")
def restaurants() -> Results:
    return Results("restaurants")


def test_every_method_has_the_same_seeds_and_budget(results):
    table = results.table
    assert (table.groupby(["method", "distilled"])["seed"].apply(sorted).map(len) == 3).all()
    assert set(table["seed"]) == {0, 1, 2}
    pruned = table[~table["method"].isin(["dense", "soft movement"])]
    assert set(pruned["neurons"]) == {205}
    soft = table[table["method"] == "soft movement"]["neurons"]
    assert ((soft >= 205) & (soft <= 1.1 * 205)).all()


def test_readme_shows_the_stored_tables():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert update_readme.filled(text) == text


def test_every_learned_global_method_beats_random(results):
    assert results.differs("random", "GUM")
    assert results.differs("random", "movement, global")
    assert results.differs("movement, local", "movement, global")
    assert results.differs("movement, global", "GUM")


def test_the_uniqueness_term_shows_no_effect(results):
    mean, error = results.gap("GUM, lambda_gum = 0", "GUM")
    assert abs(mean) < 3 * error


def test_widths_carry_most_of_gums_gain(results):
    gain, _ = results.gap("random", "GUM")
    by_widths, _ = results.gap("random", "random at GUM's widths")
    assert 0.5 < by_widths / gain < 1.2


def test_distillation_helps_both_and_narrows_the_gap(results):
    plain, _ = results.gap("random", "GUM")
    distilled = results.loss("random", True) - results.loss("GUM", True)
    for method in ("random", "GUM"):
        assert results.loss(method, True).mean() < results.loss(method).mean()
    assert distilled.mean() < plain


def test_random_ties_magnitude(restaurants):
    mean, error = restaurants.gap("random", "magnitude")
    assert abs(mean) < 3 * error


def test_bleu_does_not_separate_the_methods(restaurants):
    table = restaurants.table
    pruned = table[(table["method"] != "dense") & ~table["distilled"]].groupby("method")["bleu"]
    assert pruned.mean().max() - pruned.mean().min() < 2 * pruned.std().max()


def test_the_whole_neuron_gradient_beats_the_gates(restaurants):
    assert restaurants.differs("movement, global, gate", "movement, global")
    assert restaurants.differs("GUM, gate", "GUM")
