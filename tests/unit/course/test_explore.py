"""The explorers, without a browser: controls are set as traits, picture and sentence are read."""

from __future__ import annotations

import base64

import ipywidgets as widgets
import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.texts import make_examples, word_tokenizer

import gumlab as gl
from gumlab.course import explore, plots
from gumlab.evaluation import mean_target_loss
from gumlab.tasks import Task

VIEW = "application/vnd.jupyter.widget-view+json"
TASK = Task("words", "bleu", validation=make_examples(6))


def removal(model=None):
    return explore.removal(model or tiny("gpt2"), word_tokenizer(), TASK, examples=4)


@pytest.fixture
def explorer():
    return removal()


def shown(explorer):
    return explorer._picture.value, explorer._words.value


class Squares(explore.Explorer):
    """The smallest explorer: draws x squared, refuses 3, breaks at 4, takes long at 5."""

    def __init__(self):
        self.computed, self.said, self.drawings = [], [], []
        x = explore.labelled(widgets.IntSlider, "x", "a number", max=9)
        super().__init__({"x": x, "other": explore.labelled(widgets.Text, "other", "not used")})

    def seconds(self, x, other):
        return 1.0 if x == 5 else 0.0

    def compute(self, x, other):
        self.computed.append(x)
        self.said.append((self.sentence, [c.disabled for c in self.controls.values()]))
        if x == 3:
            raise gl.GumlabError("3 is too odd. Choose <another> number.")
        return {4: lambda: 1 / 0}.get(x, lambda: x * x)()

    def draw(self, answer, x, other):
        self.drawings.append(x)
        figure, _ = plots.new_figure()
        return plots.Plot(figure, f"{x} squared is {answer}.")

    def at(self, x):
        self.controls["x"].value = x
        return shown(self)


@pytest.mark.parametrize(
    ("control", "value"), [("method", "magnitude"), ("scope", "global"), ("keep", 75), ("seed", 3)]
)
def test_every_control_changes_picture_and_sentence(explorer, control, value, capfd):
    before = shown(explorer)
    explorer.controls[control].value = value
    after = shown(explorer)
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert 'src="data:image/png;base64,' in after[0]
    assert f'alt="{explorer.alt}"' in after[0]
    assert 'role="status" aria-live="polite"' in after[1]
    assert capfd.readouterr() == ("", "")


def test_the_sentence_agrees_with_a_model_that_was_really_cut():
    model = tiny("gpt2")
    explorer = removal(model)
    explorer.controls["method"].value = "magnitude"
    explorer.controls["scope"].value = "global"
    explorer.controls["keep"].value = 40
    masks = gl.select(gl.score(model, "magnitude"), 0.4, "global")
    cut = gl.shrink(model, masks)
    loss = mean_target_loss(cut, word_tokenizer(), TASK.validation[:4])
    left = sum(p.numel() for p in cut.parameters())
    widths = ", ".join(str(int(m.sum())) for m in masks)
    assert f"19 of 48 neurons stay (40%), by layer {widths}." in explorer.sentence
    assert f"Loss {loss:.2f};" in explorer.sentence
    assert f" {left:,} of " in explorer.sentence


def test_the_model_is_left_as_it_was():
    model = tiny("gpt2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    removal(model).controls["keep"].value = 10
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert hooks_of(model) == 0


def test_what_was_measured_is_not_measured_again(explorer, monkeypatch):
    def measured_again(*_):
        raise RuntimeError("measured again")

    first = shown(explorer)
    explorer.controls["keep"].value = 65
    explorer.controls["method"].value = "magnitude"
    monkeypatch.setattr(explore.base, "mean_target_loss", measured_again)
    explorer.controls["method"].value = "random"
    explorer.controls["keep"].value = 75  # a point of the curve, but a new state
    explorer.controls["keep"].value = 50
    assert explorer.error is None
    assert shown(explorer)[1] == first[1]
    explorer.controls["keep"].value = 60
    assert "measured again" in str(explorer.error)


def test_seen_curves_stay_and_the_present_one_is_first(explorer):
    explorer.controls["method"].value = "magnitude"
    labels = [text.get_text() for text in explorer.plot.figure.axes[1].get_legend().texts]
    assert labels == ["magnitude, by layer", "random, by layer, seed 0"]


def test_the_seed_is_off_where_it_means_nothing(explorer):
    explorer.controls["seed"].value = 2
    explorer.controls["method"].value = "magnitude"
    assert explorer.controls["seed"].disabled
    assert explorer.state()["seed"] == 0
    explorer.controls["method"].value = "random"
    assert not explorer.controls["seed"].disabled


def test_a_wrong_state_becomes_a_red_sentence(capfd):
    explorer = removal(tiny("gpt2", n_inner=8))
    explorer.controls["keep"].value = 5  # one neuron of 16, but two layers
    picture, words = shown(explorer)
    assert picture == ""
    assert 'role="alert"' in words
    assert "color: #" in words
    assert "Raise keep" in words
    assert "image/png" not in explorer._repr_mimebundle_()
    explorer.controls["keep"].value = 50
    assert 'role="status"' in shown(explorer)[1]
    assert explorer.error is None
    assert capfd.readouterr() == ("", "")


def test_a_floor_is_named_in_the_sentence(recwarn):
    model = tiny("gpt2")
    with torch.no_grad():
        for layer in gl.neurons(model)[:1]:
            layer.incoming().mul_(1e-3)
            layer.outgoing().mul_(1e-3)
    explorer = removal(model)
    explorer.controls["method"].value = "magnitude"
    assert "floor" not in explorer.sentence
    explorer.controls["scope"].value = "global"
    assert "by layer 1, 23." in explorer.sentence
    assert "layer(s) 0; they keep 1" in explorer.sentence
    assert not recwarn.list


def test_github_gets_a_picture_and_stable_text(explorer):
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == explorer.sentence
    assert bundle[VIEW]["model_id"] == explorer.model_id
    assert explorer._ipython_display_ is None
    assert "keep=50" in repr(explorer)
    assert " at 0x" not in repr(explorer)


def test_a_state_is_computed_once():
    squares = Squares()
    first = shown(squares)
    assert squares.at(2) != first
    assert squares.at(0) == first
    assert squares.computed == [0, 2]
    assert squares.drawings == [0, 2]


def test_a_picture_shows_what_was_seen_since_it_was_first_drawn(explorer):
    first = shown(explorer)[0]
    explorer.controls["method"].value = "magnitude"
    explorer.controls["method"].value = "random"
    assert shown(explorer)[0] != first  # magnitude's curve is in it now
    labels = [text.get_text() for text in explorer.plot.figure.axes[1].get_legend().texts]
    assert labels == ["random, by layer, seed 0", "magnitude, by layer"]


def test_errors_are_shown_escaped_and_kept():
    squares = Squares()
    assert "3 is too odd. Choose &lt;another&gt; number." in squares.at(3)[1]
    assert isinstance(squares.error, gl.GumlabError)
    words = squares.at(4)[1]
    assert "ZeroDivisionError: division by zero" in words
    assert 'role="alert"' in words
    with pytest.raises(ZeroDivisionError):
        raise squares.error
    assert squares.at(2)[1].endswith("2 squared is 4.</p>")
    squares.at(3)
    assert squares.computed == [0, 3, 4, 2, 3]  # an error is not an answer


def test_a_slow_state_says_so_and_holds_the_other_controls():
    squares = Squares()
    squares.at(2)
    squares.at(5)
    assert squares.said[1:] == [
        ("0 squared is 0.", [False, False]),
        ("computing ...", [False, True]),  # the moved one keeps the keyboard's focus
    ]
    assert not any(control.disabled for control in squares.controls.values())
    assert squares.sentence == "5 squared is 25."


def test_while_a_slow_state_is_computed_the_sentence_keeps_its_room():
    squares = Squares()
    squares.at(2)
    shown = []
    squares._words.observe(lambda change: shown.append(change.new), "value")
    squares.at(5)
    waiting, told = shown
    unseen = '<span style="visibility: hidden"> 2 squared is 4.</span></p>'
    assert waiting.endswith(f">computing ...{unseen}")
    assert told.endswith(">5 squared is 25.</p>")
    squares._say("computing ...", waits=True)
    squares._say("Selected: neuron 3. computing ...", waits=True)  # one wait after the other
    assert shown[-1].endswith('<span style="visibility: hidden"> 5 squared is 25.</span></p>')


def test_controls_are_labelled_and_answer_when_let_go(explorer):
    for control in explorer.controls.values():
        assert control.description
        assert control.tooltip
    assert explorer.controls["keep"].continuous_update is False
    assert explorer.controls["seed"].continuous_update is False
