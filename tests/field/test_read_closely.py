"""What a close reader and a researcher found: a rule, a loop and a model of one's own.

A pruner that goes back, widths beside keep, a rule in two pruners, another model that trains, a
loss scale, steps past the last, a block that calls up before gate, and numbers that are none.
"""

from __future__ import annotations

import copy
import types

import pytest
import torch
from helpers.models import N, random_masks, tiny
from helpers.texts import make_examples, one_batch, word_tokenizer

import gumlab as gl
from gumlab import scoring
from gumlab.evaluation import generate, mean_target_loss, text_loss
from gumlab.rules import Movement, Rule

TOKENIZER = word_tokenizer()
EXAMPLES = make_examples(12)
RUN = {"batch_size": 4, "progress": False}


def trained(model, pruner, steps):
    return gl.train(model, TOKENIZER, EXAMPLES, steps=steps, pruner=pruner, **RUN)


def stepped(model, pruner, count):
    """Steps of a loop of one's own."""
    for _ in range(count):
        loss = model.train()(**one_batch(model, TOKENIZER, EXAMPLES)).loss
        model.zero_grad()
        loss.backward()
        pruner.step()


class TestBack:
    @pytest.mark.parametrize(("done", "what"), [(8, "with final masks"), (3, None)])
    def test_a_frozen_pruner_cannot_go_back(self, done, what):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "movement", 0.5, 10)
        stepped(model, pruner, 2)
        state = pruner.state_dict()
        stepped(model, pruner, done - 2)
        if what is None:  # not frozen yet
            pruner.load_state_dict(state)
            stepped(model, pruner, 8)
            assert pruner.fraction_kept == 0.5
            return
        with pytest.raises(gl.GumlabError, match=rf"is at step 8, {what}, .* step 2: it cannot go"):
            pruner.load_state_dict(state)

    def test_nor_one_that_cut(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "random", 0.25, 10, cut=True, freeze=False)
        state = pruner.state_dict()
        trained(model, pruner, 10)
        with pytest.raises(gl.GumlabError, match=r"with neurons cut, .* it cannot go back"):
            pruner.load_state_dict(state)


class TestWidths:
    def test_keep_is_the_fraction_that_they_are(self):
        pruner = gl.Pruner(tiny("gpt2"), "gum", widths=[N // 2, N // 4], steps=6)
        assert pruner.keep == 0.375
        assert "target 37.5%" in repr(pruner)

    def test_the_schedule_leads_to_them_whatever_keep_says(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "random", 1.0, 10, widths=[N // 2] * 2)
        kept = trained(model, pruner, 10).kept
        assert kept[0] == 1
        assert kept[-1] == 0.5
        assert len(set(kept)) > 2

    @pytest.mark.parametrize("options", [{"floor": "abc"}, {"multiple_of": -3}])
    def test_what_they_override_is_still_checked(self, options):
        with pytest.raises(gl.GumlabError, match=next(iter(options))):
            gl.select([torch.rand(4)], widths=[2], **options)


class TestARuleOfOnesOwn:
    def test_in_two_pruners_is_refused_at_the_first_ones_next_step(self):
        rule = Movement()
        first, second = tiny("gpt2"), tiny("gpt2")
        pruners = [gl.Pruner(model, rule, 0.5, 4) for model in (first, second)]
        with pytest.raises(gl.GumlabError, match="Movement was given to another Pruner since"):
            trained(first, pruners[0], 4)
        trained(second, pruners[1], 4)
        alone = tiny("gpt2")
        pruner = gl.Pruner(alone, Movement(), 0.5, 4)
        trained(alone, pruner, 4)
        assert all(map(torch.equal, pruner.masks, pruners[1].masks))

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            (lambda layers: None, "gave None; expected one number per neuron"),
            (
                lambda layers: [layer.outgoing().detach().numpy()[:, 0] for layer in layers],
                "gave a list of ndarray; expected tensors",
            ),
            (lambda layers: [torch.ones(3) for _ in layers], "gave scores of shapes"),
        ],
    )
    def test_says_what_its_scores_are_and_stays_where_it_was(self, given, sentence):
        class Odd(Rule):
            def scores(self, now):
                return given(now.layers)

        model = tiny("gpt2")
        pruner = gl.Pruner(model, Odd(), 0.5, 4)
        with pytest.raises(gl.GumlabError, match=sentence) as raised:
            trained(model, pruner, 4)
        assert "not finite" not in str(raised.value)
        assert pruner.step_count == 0

    @pytest.mark.parametrize(
        ("masks", "sentence"),
        [
            (lambda scores: [torch.zeros(len(s), dtype=torch.bool) for s in scores], "keeps no"),
            (lambda scores: [torch.ones(len(s)) for s in scores], "has dtype torch.float32"),
            (lambda scores: [torch.ones(2, dtype=torch.bool) for _ in scores], "have shapes"),
        ],
    )
    def test_selects_by_masks_that_fit(self, masks, sentence):
        class Selects(Rule):
            selects = True

            def scores(self, now):
                return [torch.ones(layer.width) for layer in now.layers]

            def masks(self, scores, kept_now, keep):
                return masks(scores)

        model = tiny("gpt2")
        with pytest.raises(gl.GumlabError, match=sentence):
            trained(model, gl.Pruner(model, Selects(), 0.5, 4), 4)

    def test_a_similarity_has_one_number_per_neuron(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "gum", 0.5, 4, similarity=lambda gram, kept: gram)
        with pytest.raises(gl.GumlabError, match=rf"similarity gave \({N}, {N}\) for layer 0"):
            trained(model, pruner, 4)

    def test_what_it_learned_and_would_lose_is_named(self):
        class Running(Rule):
            def begin(self, layers, steps, seed):
                self.norms = super().begin(layers, steps, seed)
                return self.norms

            def scores(self, now):
                for norm, layer in zip(self.norms, now.layers, strict=True):
                    norm.mul_(0.9).add_(layer.outgoing().detach().norm(dim=1))
                return self.norms

        pruner = gl.Pruner(tiny("gpt2"), Running(), 0.5, 4)
        with pytest.warns(UserWarning, match="Running has no state_dict, so its norms would begin"):
            pruner.state_dict()
        pruner.state_dict()  # once is enough

    def test_scores_are_a_copy_of_what_it_goes_on_learning(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "movement", 0.5, 4)
        stepped(model, pruner, 1)
        before = pruner.scores
        kept = [score.clone() for score in before]
        stepped(model, pruner, 1)
        assert not before[0].requires_grad
        assert all(map(torch.equal, before, kept))
        assert not torch.equal(before[0], pruner.scores[0])


class TestALoopOfOnesOwn:
    @pytest.mark.parametrize("method", ["random", "magnitude"])
    def test_that_trains_another_model_is_told(self, method):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, method, 0.5, 4)
        other = copy.deepcopy(model)
        other(**one_batch(other, TOKENIZER, EXAMPLES)).loss.backward()
        with pytest.warns(UserWarning, match="it is pruned without being trained"):
            pruner.step()
        pruner.step()  # once is enough

    def test_that_steps_past_the_last_is_told(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "random", 0.5, 2)
        stepped(model, pruner, 2)
        with pytest.warns(UserWarning, match="step 3 of a Pruner that was made for 2 steps"):
            stepped(model, pruner, 1)
        stepped(model, pruner, 1)  # once is enough

    @pytest.mark.parametrize(
        ("method", "options"),
        [("gum", {}), ("gum", {"gram_every": 1, "gram_neurons": 4}), ("random", {"cut": True})],
    )
    def test_gives_the_same_by_another_default_device(self, method, options):
        def masks(device):
            model = tiny("gpt2")
            batch = one_batch(model, TOKENIZER, EXAMPLES)
            pruner = gl.Pruner(model, method, 0.5, 3, **options)
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            with torch.device(device):
                for _ in range(3):
                    loss = model.train()(**batch).loss
                    optimizer.zero_grad()
                    loss.backward()
                    pruner.step(optimizer)
                    optimizer.step()
            return pruner.original_masks

        assert all(map(torch.equal, masks("meta"), masks("cpu")))  # meta stands for a GPU

    def test_in_float16_is_told_of_the_loss_scale(self):
        model = tiny("gpt2")
        pruner = gl.Pruner(model, "gum", 0.5, 4)
        with torch.autocast("cpu", torch.float16):
            loss = model.train()(**one_batch(model, TOKENIZER, EXAMPLES)).loss
        (loss * 1024).backward()
        with pytest.warns(UserWarning, match=r"scaler.unscale_\(optimizer\) before pruner.step"):
            pruner.step()


class TestModels:
    def test_up_may_be_called_before_gate(self):
        model = tiny("llama")
        expected = gl.redundancy(model, TOKENIZER, EXAMPLES).sensitivity
        taylor = gl.score(model, "taylor", TOKENIZER, EXAMPLES)

        def up_first(mlp, x):
            return mlp.down_proj(mlp.up_proj(x) * mlp.act_fn(mlp.gate_proj(x)))

        for layer in model.model.layers:
            layer.mlp.forward = types.MethodType(up_first, layer.mlp)
        found = gl.redundancy(model, TOKENIZER, EXAMPLES).sensitivity
        assert all(map(torch.equal, found, expected))
        again = gl.score(model, "taylor", TOKENIZER, EXAMPLES)
        assert all(map(torch.equal, again, taylor))

    def test_layers_that_read_each_others_keys_are_named(self):
        model = tiny("llama")
        model.config.num_kv_shared_layers = 1
        for call in (
            lambda: gl.score(model, "wanda", TOKENIZER, EXAMPLES),
            lambda: gl.prune(model, "magnitude", TOKENIZER, EXAMPLES),
        ):
            with pytest.raises(gl.GumlabError, match="read the keys and values of earlier ones"):
                call()
        assert gl.score(model, "taylor", TOKENIZER, EXAMPLES)

    @pytest.mark.parametrize(
        "call",
        [
            lambda m: gl.shrink(m, random_masks(tiny("gpt2"))),
            lambda m: gl.Pruner(m),
            lambda m: trained(m, None, 1),
            lambda m: gl.train(tiny("gpt2"), TOKENIZER, EXAMPLES, steps=1, teacher=m, **RUN),
            lambda m: mean_target_loss(m, TOKENIZER, EXAMPLES),
            lambda m: gl.measure(m),
        ],
    )
    def test_shapes_without_numbers_are_named(self, call):
        with pytest.raises(gl.GumlabError, match=r"on the meta device: .* Load the model"):
            call(tiny("gpt2").to("meta"))

    @pytest.mark.parametrize(
        "numbers",
        [
            lambda m: gl.score(m, "random"),
            lambda m: list(gl.prune(m, "recommended", TOKENIZER, EXAMPLES).parameters()),
            lambda m: gl.redundancy(m, TOKENIZER, EXAMPLES).sensitivity,
            lambda m: trained(m, gl.Pruner(m, "gum", 0.5, 2), 2).losses,
            lambda m: [mean_target_loss(m, TOKENIZER, EXAMPLES)],
        ],
    )
    def test_another_default_device_changes_nothing(self, numbers):
        expected = numbers(tiny("gpt2"))
        model = tiny("gpt2")
        with torch.device("meta"):  # stands for a GPU
            found = numbers(model)
        pairs = zip(found, expected, strict=True)
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)

    def test_damage_curves_are_not_measured_through_gates(self):
        model = tiny("gpt2")
        scores = gl.score(model, "magnitude")
        with gl.gate(model, random_masks(model)), pytest.raises(gl.GumlabError, match="Cut them f"):
            gl.damage_curves(model, scores, TOKENIZER, EXAMPLES)


class TestScores:
    def test_gradients_is_no_option_of_a_score_by_name(self):
        with pytest.raises(gl.GumlabError, match="gradients is for a criterion of your own"):
            gl.score(tiny("gpt2"), "taylor", TOKENIZER, EXAMPLES, gradients=False)

    def test_a_criterion_is_called_with_two(self):
        with pytest.raises(gl.GumlabError, match="magnitude cannot be"):
            gl.score(tiny("gpt2"), scoring.magnitude, TOKENIZER, EXAMPLES)

    def test_nan_in_one_is_called_so(self):
        with pytest.raises(gl.GumlabError, match="yours gave NaN"):
            gl.score(tiny("gpt2"), lambda x, s: s.energy / 0 * 0, TOKENIZER, EXAMPLES)

    def test_infinite_ones_have_no_mean(self):
        scores = [torch.tensor([1.0, 2.0, float("inf"), 0.0])]
        assert gl.select(scores, 0.5)[0].tolist() == [False, True, True, False]
        with pytest.raises(gl.GumlabError, match="Infinite scores have no mean"):
            gl.select(scores, 0.5, standardise=True)

    def test_complex_ones_have_no_order(self):
        with pytest.raises(gl.GumlabError, match=r"scores have dtype torch\.complex64"):
            gl.select([torch.ones(4, dtype=torch.complex64)], 0.5)


class TestTexts:
    def test_rows_and_examples_are_read_alike(self):
        model = tiny("gpt2")
        rows = [{"prompt": e.prompt, "target": e.target} for e in EXAMPLES]
        assert generate(model, TOKENIZER, rows) == generate(model, TOKENIZER, EXAMPLES)
        texts = ["w4 w5 w6 w7", "w8 w9"]
        assert text_loss(model, TOKENIZER, texts)["loss"] > 0
        with pytest.raises(gl.GumlabError, match="Running text has no prompts"):
            generate(model, TOKENIZER, texts)
