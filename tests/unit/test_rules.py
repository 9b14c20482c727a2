"""The methods as rules: their options, a rule of one's own, and where a run stands as a state."""

import inspect

import pytest
import torch
from helpers.methods import METHOD_CASES, prune
from helpers.models import N, hooks_of, loss_of, tiny
from helpers.runs import same
from helpers.texts import make_examples

import gumlab as gl
from gumlab import rules
from gumlab.io.states import load_state, save_state
from gumlab.rules import Rule
from gumlab.tasks.batches import shuffled


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        (
            "random",
            {"score_lr": 0.1},
            r"'random' has no option 'score_lr'\. It has none of its own",
        ),
        ("magnitude", {"penalty": 0.1}, r"'magnitude' has no option 'penalty'.*soft_movement, gum"),
        ("movement", {"lambda_gum": 1.0}, r"'movement' has no option 'lambda_gum'\. It has: score"),
        ("soft_movement", {"similarity": len}, r"no option 'similarity'.* belongs to gum\."),
        ("obs", {"gradient": "gate"}, r"'obs' has no option 'gradient'.* belongs to movement"),
        ("gum", {"lamda_gum": 1.0}, r"no option 'lamda_gum'\. Did you mean 'lambda_gum'\? It"),
        ("gum", {"penalty": -1}, r"penalty must be a finite number, 0 or more; got -1"),
        ("movement", {"score_lr": 0}, r"score_lr must be a finite number, above 0; got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_a_method_does_not_have_is_refused_by_name(gpt2, method, options, sentence):
    with pytest.raises(gl.GumlabError, match=sentence):
        gl.Pruner(gpt2, method, 0.5, 10, **options)
    assert hooks_of(gpt2) == 0


@pytest.mark.parametrize("method", rules.METHODS)
def test_every_option_of_a_method_is_taken_and_told(gpt2, method):
    own = {name: getattr(rules.METHODS[method](), name) for name in rules.options_of(method)}
    pruner = gl.Pruner(gpt2, method, 0.5, 10, **own)
    assert {name: getattr(pruner.rule, name) for name in own} == own
    assert own.keys() <= pruner.settings().keys()


class Outgoing(Rule):
    """A rule of one's own: the norm of what a neuron writes."""

    def scores(self, now):
        return [layer.outgoing().detach().norm(dim=1) for layer in now.layers]


@pytest.mark.parametrize("cut", [False, True])
def test_a_rule_of_ones_own_prunes_like_a_method(cut, tokenizer, task):
    model = tiny("gpt2")
    pruner = gl.Pruner(model, Outgoing(), 0.5, 8, scope="global", freeze=False, cut=cut)
    gl.train(model, tokenizer, task, steps=8, pruner=pruner, batch_size=4, progress=False)
    assert sum(int(m.sum()) for m in pruner.original_masks) == N
    assert "Pruner(Outgoing" in repr(pruner)
    for score, mask, layer in zip(pruner.scores, pruner.masks, gl.neurons(model), strict=True):
        assert len(score) == len(mask) == layer.width
    if not cut:
        assert same(pruner.masks, gl.select(pruner.scores, 0.5, "global"))
    gl.shrink(model, pruner.masks)


class Short(Rule):
    def scores(self, now):
        return [torch.zeros(3) for _ in now.layers]


def test_scores_of_another_shape_are_refused(gpt2):
    pruner = gl.Pruner(gpt2, Short(), 0.5, 8)
    with pytest.raises(gl.GumlabError, match=r"Short gave scores of shapes \[\(3,\), \(3,\)\]"):
        pruner.step()


def step_on(model, pruner, optimizer, batches):
    for batch in batches:
        loss_of(model.train(), batch).backward()
        pruner.step(optimizer)
        optimizer.step()
        optimizer.zero_grad()


DRAWN = {"gum, drawn": ("gum", {"gram_every": 1, "gram_neurons": 6})}


@pytest.mark.parametrize("case", [*METHOD_CASES, *DRAWN])
def test_a_state_goes_through_a_file_and_the_run_goes_on_as_it_was(case, tokenizer, tmp_path):
    method, options = (METHOD_CASES | DRAWN)[case]
    model = tiny("gpt2")
    batches = list(shuffled(model, tokenizer, make_examples(12), 4, 8, seed=0))

    def made(model):
        return gl.Pruner(model, method, 0.4, 8, **options)

    pruner, optimizer = made(model), torch.optim.SGD(model.parameters(), lr=0.05)
    step_on(model, pruner, optimizer, batches[:4])
    save_state(pruner.state_dict(), tmp_path / "state")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    step_on(model, pruner, optimizer, batches[4:])
    other = tiny("gpt2", seed=1)
    fresh, its_optimizer = made(other), torch.optim.SGD(other.parameters(), lr=0.05)
    other.load_state_dict(weights)
    fresh.load_state_dict(load_state(tmp_path / "state"))
    step_on(other, fresh, its_optimizer, batches[4:])
    assert fresh.step_count == 8
    assert same(pruner.masks, fresh.masks)
    assert same(pruner.scores, fresh.scores)
    assert pruner.returned == fresh.returned


def test_a_state_that_is_damaged_or_missing_says_so(tmp_path):
    save_state({"a": torch.ones(3), "b": [1, None, {2: "two"}]}, tmp_path / "whole")
    state = load_state(tmp_path / "whole")
    assert torch.equal(state["a"], torch.ones(3))
    assert state["b"] == [1, None, {2: "two"}]
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:-5])
    for name in ("half", "nowhere"):
        with pytest.raises(gl.GumlabError, match=f"no whole state in .*{name}"):
            load_state(tmp_path / name)


def test_prune_spells_out_what_it_takes():
    kinds = {p.kind for p in inspect.signature(gl.prune).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    wanted = {"scope", "floor", "multiple_of", "widths", "refit", "split", "limit", "batch_size"}
    assert wanted <= inspect.signature(gl.prune).parameters.keys()


def test_the_calibration_of_prune_is_that_of_scores_and_refit(gpt2, tokenizer, task):
    calibration = {"split": "validation", "limit": 3, "batch_size": 2}
    masks = gl.select(gl.score(gpt2, "wanda", tokenizer, task, **calibration), 0.5)
    want = gl.shrink(gpt2, masks, tokenizer, task, refit=True, **calibration)
    got = gl.prune(gpt2, "wanda", tokenizer, task, keep=0.5, **calibration)
    assert same(list(want.parameters()), list(got.parameters()))
    other = gl.prune(gpt2, "wanda", tokenizer, task, keep=0.5)
    assert not same(list(want.parameters()), list(other.parameters()))


def test_fixed_masks_are_those_in_force(gpt2, tokenizer, task):
    pruner, _ = prune(gpt2, "gum-gate", tokenizer, task)
    assert same(pruner.masks, [gate.mask for gate in pruner.gates])
    assert same(pruner.masks, pruner.original_masks)
