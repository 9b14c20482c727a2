"""benchmarks/quality/few_neurons.py at toy size: its shortcuts, its ranks, and that it goes on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import gumlab as gl

SIZES = {"base": "tiny-llama", "data_dir": None, "tokens": 48, "calibration": 128, "neurons": 2}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks" / "quality")
    return importlib.import_module("few_neurons")


@pytest.fixture
def lab(few, tmp_path):
    return few.Lab(SimpleNamespace(**SIZES, runs=tmp_path))


@torch.no_grad()
def logits_without(model, layer, neuron, batch):
    """The logits of a model whose outgoing weights of one neuron are zero for a moment."""
    outgoing = gl.neurons(model)[layer].outgoing()
    kept = outgoing[neuron].clone()
    outgoing[neuron] = 0
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    outgoing[neuron] = kept
    return logits.double()


def test_damage_is_what_zeroed_weights_do_to_the_loss_and_to_the_predictions(few, lab):
    (batch,) = lab.few
    labels, counts = batch["labels"][:, 1:], (batch["labels"][:, 1:] >= 0).sum()
    restart = few.Restart(lab)
    for layer in range(len(lab.layers)):  # each starts at another block
        bar = SimpleNamespace(update=lambda: None)
        (row,) = few.damage(lab, restart, layer, [7], bar).to_dict("records")
        losses, log_p = [], []
        for logits in (
            lab.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits.double(),
            logits_without(lab.model, layer, 7, batch),
        ):
            log_p.append(logits[:, :-1].log_softmax(-1).detach())
            losses.append(
                torch.nn.functional.cross_entropy(
                    log_p[-1].flatten(0, 1), labels.flatten(), ignore_index=-100
                )
            )
        change = float(losses[1] - losses[0])
        assert row["change"] == pytest.approx(change, rel=0.02, abs=1e-6)
        of_token = (log_p[0].exp() * (log_p[0] - log_p[1])).sum(-1) * (labels >= 0)
        divergence = float(of_token.sum() / counts)
        assert divergence > 0
        assert row["divergence"] == pytest.approx(divergence, rel=0.02, abs=1e-9)
        of_halves = [row["divergence, one half"], row["divergence, other half"]]
        assert min(of_halves) < row["divergence"] < max(of_halves)
    assert not any("forward" in vars(block) for block in lab.blocks)


@pytest.mark.parametrize(("place", "changed"), [("first", [0]), ("others", [1, 2, 3, 4])])
def test_held_neurons_are_held_at_their_place_only(few, lab, place, changed):
    layer, seen = lab.layers[1], []
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]])}
    values = {1: torch.full((layer.width,), 3.0)}

    def h(**options):
        with (
            torch.no_grad(),
            few.held(lab.layers, {1: [2, 4]}, **options),
            layer.proj.register_forward_pre_hook(lambda _, x: seen.append(x[0])),
        ):
            lab.model(**batch)
        return seen.pop()[0]  # (T, N)

    with torch.no_grad(), layer.proj.register_forward_pre_hook(lambda _, x: seen.append(x[0])):
        lab.model(**batch)
    want = seen.pop()[0].clone()
    want[torch.tensor(changed)[:, None], torch.tensor([2, 4])] = 3.0
    torch.testing.assert_close(h(place=place, values=values), want)
    everywhere = h()
    assert not everywhere[:, [2, 4]].any()
    assert everywhere[:, [1, 3]].all()


def test_rank_agreement_is_scipys_with_ties(few):
    stats = pytest.importorskip("scipy.stats", reason="scipy is there with the extra eval")
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 9, (2, 3, 30)).astype(float)
    assert few.spearman(one, other) == pytest.approx(
        [stats.spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    )
    assert few.kendall(one, other) == pytest.approx(
        [stats.kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)], abs=1e-6
    )


def test_rank_agreement_of_equal_values_is_none(few):
    one = np.random.default_rng(0).integers(0, 9, (1, 4)).astype(float)
    assert few.spearman(np.ones((1, 4)), one) == [0]
    assert few.kendall(np.ones((1, 4)), one) == [0]


def made_up(few) -> pd.DataFrame:
    """Neurons of four layers whose change one score tells, another within layers only."""
    generator = np.random.default_rng(0)
    layers = np.repeat(np.arange(4), 12)
    change = generator.random(48)
    table = pd.DataFrame({"layer": layers, "drawn": "uniform", "change": change})
    table["divergence"] = -change
    table[f"inside{few.SEPARATOR}{few.PLAIN}"] = change - 10 * layers
    table[f"inside{few.SEPARATOR}centred"] = change
    table[f"noise{few.SEPARATOR}{few.PLAIN}"] = generator.random(48)
    return table


def test_agreement_tells_over_all_and_within_layers_and_what_a_form_gains(few):
    ranks = few.agreement(made_up(few), 100).set_index(["score", "form"])
    inside, centred = ranks.loc["inside", few.PLAIN], ranks.loc["inside", "centred"]
    assert centred["Spearman"] == centred["Kendall"] == pytest.approx(1)
    assert centred["Spearman, divergence"] == pytest.approx(-1)
    assert inside["Spearman within layers"] == inside["Kendall within layers"] == pytest.approx(1)
    assert inside["Spearman"] < 0.6
    assert centred["gain"] == pytest.approx(1 - inside["Spearman"])
    assert centred["gain, low"] > 0
    assert inside["behind"] == pytest.approx(1 - inside["Spearman"])
    assert inside["Spearman, low"] < inside["Spearman"] < inside["Spearman, high"]
    assert abs(ranks.loc["noise", few.PLAIN]["Spearman within layers"]) < 0.5


def test_resamples_stay_within_layers(few):
    layers = np.array([0, 1, 0, 2, 1])
    rows = few.resamples(layers, 20)
    assert rows[0].tolist() == [0, 1, 2, 3, 4]
    assert (layers[rows] == layers).all()
    assert len(np.unique(rows, axis=0)) > 4


def test_a_whole_run_is_stopped_goes_on_and_says_the_same(few, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(few.harness, "ROOT", tmp_path)
    monkeypatch.setattr(few, "RESAMPLES", 10)
    monkeypatch.setattr(few.agreement, "__defaults__", (10,))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "few.py"), "--quick"])
    few.main()
    out = tmp_path / "runs" / "quick"
    (report,) = out.glob("*.md")
    first = report.read_text(encoding="utf-8")
    assert "nan" not in first
    assert first.count("](few_neurons_tiny-llama.png)") == 1
    assert (out / "few_neurons_tiny-llama.png").stat().st_size > 10_000
    for table in first.split("\n\n"):  # every line of a table has as many cells
        if table.startswith("| "):
            assert len({line.count("|") for line in table.strip().splitlines()}) == 1
    carriers = pd.read_csv(out / "few_neurons_tiny-llama_carriers.csv")
    where = carriers[["at first tokens", "at delimiters", "elsewhere"]]
    assert where.sum(axis=1).tolist() == pytest.approx([1] * len(carriers), abs=1e-4)
    layers = pd.read_csv(out / "few_neurons_tiny-llama_layers.csv")
    plain = layers[layers["form"] == few.PLAIN]["top_neuron"]
    top = carriers[carriers["rank"] == 1]["share"]
    assert top.tolist() == pytest.approx(plain.tolist(), rel=1e-3)
    (folder,) = (out / "few_neurons").iterdir()
    (folder / "damage-02.csv").unlink()
    report.unlink()
    monkeypatch.setattr(few, "worth", None)  # what is stored is not measured again
    monkeypatch.setattr(few, "cuts", None)
    few.main()
    assert report.read_text(encoding="utf-8") == first
    assert "D: " in capsys.readouterr().out
