"""`gl.workbench`: the runs that the notebooks compare."""

from __future__ import annotations

import copy

import pytest
import torch

import gumlab as gl
from gumlab.course.bench import CutFirst, Own, OwnGate
from gumlab.gating import Gate


@pytest.fixture(scope="module")
def bench():
    return gl.workbench("tiny-gpt2", "restaurants", keep=0.25, steps=4, examples=8)


def outgoing(layer):
    return layer.outgoing().norm(dim=1)


def mask_of(scores, keep):
    return scores >= scores.sort().values[-round(keep * len(scores))]


def test_a_run_cuts_a_copy_and_is_made_once(bench):
    before = [layer.width for layer in bench.layers]
    run = bench.run("magnitude", seed=1)
    assert [layer.width for layer in bench.layers] == before
    assert run.widths == [round(0.25 * width) for width in before]
    assert [int(mask.sum()) for mask in run.masks] == run.widths
    assert bench.run("magnitude", seed=1) is run
    assert bench.run("magnitude", seed=2) is not run


def test_a_rule_of_your_own_is_asked_and_your_mask_and_schedule_count(bench):
    plain = bench.run(Own(outgoing))
    with_mask = bench.run(Own(outgoing, mask=mask_of))
    assert all(torch.equal(a, b) for a, b in zip(plain.masks, with_mask.masks, strict=True))
    asked = []

    def nothing_goes(step, steps, keep):
        asked.append((step, steps, keep))
        return 1.0

    with pytest.warns(UserWarning, match="keeps 100.0%"):
        kept = bench.run(Own(outgoing, schedule=nothing_goes))
    assert all(mask.all() for mask in kept.masks)
    assert asked[0] == (1, 4, 0.25)


def test_a_race_has_a_table_a_figure_and_verdicts(bench):
    race = bench.race({"dense": None, "short": ("random", {"steps": 2})}, seeds=(0, 1))
    assert list(race.losses) == ["dense", "short"]
    assert list(race.table().columns) == ["seed 0", "seed 1", "mean"]
    mean, half, said = race.compare("short", "dense")
    assert mean == pytest.approx(race.mean("short") - race.mean("dense"))
    assert half > 0
    assert said in ("lower", "higher", "no difference shown")
    assert race.always_lower("dense", "short") == (
        max(race.losses["dense"]) < min(race.losses["short"])
    )
    assert "dense" in race.plot().sentence


def test_cuts_and_curves_take_a_name_or_scores(bench):
    by_name = bench.cut("random", 0.5, seed=3)
    by_scores = bench.cut(gl.score(bench.model, "random", seed=3), 0.5)
    assert bench.loss(by_name) == bench.loss(by_scores)
    curve = bench.curve("magnitude", keeps=(0.5,))
    assert list(curve) == [1.0, 0.5]
    assert curve[1.0] == bench.loss()
    assert bench.loss(bench.cut("magnitude", 0.25, refit=True)) < bench.loss(
        bench.cut("magnitude", 0.25)
    )


def test_a_run_that_prunes_nothing_takes_no_option_of_a_pruner(bench):
    with pytest.raises(gl.GumlabError, match="takes no floor"):
        bench.run(None, floor=2)


def test_what_is_heard_is_what_the_block_computes_text_by_text(bench):
    layer = bench.layers[1]
    heard = bench.listen(["A place.", "The mill is near."], layer=1)
    z = heard.x @ layer.incoming().T + layer.incoming_bias()[:, 0]
    h = torch.nn.functional.gelu(z, approximate="tanh")
    assert torch.allclose(h, heard.h, atol=1e-5)
    assert torch.allclose(h @ layer.outgoing() + layer.proj.bias, heard.out, atol=1e-4)
    assert "".join(heard.tokens) == "A place.The mill is near."
    alone = bench.listen("The mill is near.", layer=1)
    assert torch.allclose(heard.h[-len(alone.tokens) :], alone.h, atol=1e-5)
    assert alone.ids.tolist() == heard.ids[-len(alone.tokens) :].tolist()
    assert not any(map(len, (layer.proj._forward_pre_hooks, layer.proj._forward_hooks)))


def test_a_gated_model_is_heard_behind_its_gates(bench):
    masks = [torch.arange(layer.width) % 2 == 0 for layer in bench.layers]
    with gl.gate(bench.model, masks):
        gated = bench.listen("A place.")
    assert not gated.h[:, ~masks[0]].any()
    other = bench.listen("A place.", model=bench.cut(masks_as_scores(masks), keep=0.5))
    assert torch.allclose(other.out, gated.out, atol=1e-5)


def masks_as_scores(masks):
    return [mask.float() for mask in masks]


def test_a_gate_with_your_own_way_back_hears_what_gumlabs_gate_hears(bench):
    def straight_through(h, mask, grad):
        return grad * mask, (h * grad).sum((0, 1))

    heard = []
    for yours in (True, False):
        model = copy.deepcopy(bench.model).train()
        layer = gl.neurons(model)[1]
        score = torch.zeros(layer.width, requires_grad=True)
        gate = OwnGate(layer, straight_through) if yours else Gate(layer, score)
        gate.mask = torch.arange(layer.width) % 2 == 0
        model(**next(bench.batches())).loss.backward()
        heard.append((gate.score.grad, layer.incoming(grad=True)))
    for mine, gumlabs in zip(*heard, strict=True):
        torch.testing.assert_close(mine, gumlabs)
    assert heard[0][0].abs().min() > 0


def test_a_cut_comes_first_and_sees_the_seeds_texts(bench):
    seen = []

    def loud(layer, found):
        seen.append(found.tokens)
        return found.energy

    run = bench.run(CutFirst(loud), seed=1)
    assert sum(run.widths) == round(0.25 * sum(layer.width for layer in bench.layers))
    assert seen == [bench.look(1)[0].tokens] * len(bench.layers)
    assert bench.look(1)[0].tokens != bench.look(2)[0].tokens
    assert bench.run(CutFirst(loud), seed=1) is run
    assert bench.run(CutFirst(loud), seed=1, steps=4, keep=0.25) is run  # the workbench's own


@pytest.mark.parametrize("name", ["random", "magnitude", "obs"])
def test_a_name_is_a_score_of_a_cut_too_and_a_refit_lowers_its_loss(name, bench):
    cut = bench.cut_first(CutFirst(name, refit=False), seed=1)
    refitted = bench.cut_first(CutFirst(name), seed=1)
    widths = [[layer.width for layer in gl.neurons(model)] for model in (cut, refitted)]
    assert widths[0] == widths[1]
    assert bench.loss(refitted) < bench.loss(cut)
