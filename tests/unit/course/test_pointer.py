"""Neurons can be touched: where a picture has them, what a selection tells, without a browser."""

from __future__ import annotations

import gc
import io
import sys

import ipywidgets as widgets
import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.texts import make_examples, word_tokenizer
from matplotlib.figure import Figure
from matplotlib.image import imread
from test_explore import shown
from traitlets import TraitError

import gumlab as gl
from gumlab.collecting import collect
from gumlab.course import explore, plots
from gumlab.course.explore.portraits import AROUND, Portraits
from gumlab.gram import cosine
from gumlab.tasks import Task
from gumlab.tasks.batches import encode

TASK = Task("words", "bleu", train=make_examples(10), validation=make_examples(6, 1))
MASKS = [torch.tensor([True, False, True]), torch.tensor([False] * 5)]
SCORES = [torch.tensor([3.0, 1.0, 2.0]), torch.arange(5.0)]


def explorer_of(name):
    return getattr(explore, name)(tiny("gpt2"), word_tokenizer(), TASK)


def spots(placed):
    """(layer, neuron) -> where its places are, in fractions of the picture, as pointer.js does."""
    found = {}
    for group in placed:
        if "box" not in group:
            for x, y, *name in zip(
                group["x"], group["y"], group["layers"], group["neurons"], strict=True
            ):
                found.setdefault(tuple(name), []).append((x, y))
            continue
        left, top, right, bottom = group["box"]
        for block in group["blocks"]:
            for i, neuron in enumerate(block["neurons"]):
                row, column = divmod(i, group["columns"])
                x = left + (column + 0.5) * (right - left) / group["columns"]
                y = top + (block["row"] + row + 0.5) * (bottom - top) / group["rows"]
                found.setdefault((block["layer"], neuron), []).append((x, y))
    return found


def colour_at(picture, spot):
    """Red, green and blue at a place of the picture, 0 to 1."""
    height, width, _ = picture.shape
    return picture[int(spot[1] * height), int(spot[0] * width), :3]


def test_a_cell_is_where_the_picture_has_its_colour():
    plot = plots.neuron_map(MASKS, scores=SCORES)
    picture = imread(io.BytesIO(plot.png()))
    found = spots(plot.placed())
    assert len(found) == 8
    for layer, mask in enumerate(MASKS):
        for neuron, stays in enumerate(mask.tolist()):
            (spot,) = found[layer, neuron]
            dark = colour_at(picture, spot)[0] < 0.5  # blue has no red in it
            assert dark == stays, (layer, neuron)


@pytest.mark.parametrize("margins", [None, (0.8, 0.2, 0.5, 0.3)])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_dot_is_where_the_picture_has_it(margins, scale):
    figure, (ax,) = plots.new_figure(margins=margins)
    x, y = [1.0, 3.0, 100.0, 5000.0], [2.0, 40.0, 7.0, 7.0]
    ax.plot(x, y, "s", color="black", markersize=6)
    ax.set(xscale=scale, yscale=scale, xlim=(0.5, 200), ylim=(1, 60))  # the last is beyond it
    plot = plots.Plot(figure, "", [plots.Dots(ax, x, y, range(4), ["text"] * 4, [0] * 4)])
    placed = plot.placed()  # before the picture: it must not depend on it
    picture = imread(io.BytesIO(plot.png()))
    found = spots(placed)
    assert set(found) == {(0, 0), (0, 1), (0, 2)}
    assert all(colour_at(picture, spot).max() < 0.1 for (spot,) in found.values())


@pytest.mark.parametrize("name", ["removal", "tradeoff", "worth", "twins", "deletion"])
def test_every_explorer_of_neurons_can_be_touched(name, capfd):
    explorer = explorer_of(name)
    assert "Selected" not in explorer.sentence  # what a notebook stores is what it was
    hooks = hooks_of(explorer.portraits.model)
    explorer._pointer.selected = [1, 5]  # what the browser does
    assert explorer.error is None
    assert explorer.selected == (1, 5)
    if "neuron" in explorer.controls:
        assert explorer.controls["layer"].value == 1
        assert explorer.controls["neuron"].value == 5
    named = {place for place in spots(explorer._pointer.places) if place[0] == 1}
    assert (1, 5) in named
    line, *texts = explorer.sentence.split("\n")[1:]
    assert line.startswith("Selected: layer 1, neuron 5: ")
    twin, its_cosine = explorer.portraits.twin(1, 5)
    assert f" Its twin is neuron {twin}, cosine {its_cosine:+.2f}. " in line
    assert explorer._pointer.twin == [1, twin]
    assert len(texts) == 3
    assert all("«" in text for text in texts)
    assert "white-space: pre-line" in shown(explorer)[1]
    assert hooks_of(explorer.portraits.model) == hooks == 0
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["worth", "twins", "deletion"])
def test_a_number_typed_selects_like_a_click(name):
    typed, clicked = explorer_of(name), explorer_of(name)
    typed.controls["layer"].value = 1
    typed.controls["neuron"].value = 7
    clicked.select(1, 7)
    assert typed.selected == clicked.selected == (1, 7)
    assert typed._pointer.selected == [1, 7]
    assert typed.sentence == clicked.sentence


def test_a_click_is_one_answer_though_two_controls_move():
    explorer = explorer_of("deletion")
    before = len(explorer.tried)
    explorer.select(1, 5)
    assert len(explorer.tried) == before + 1


def test_a_selection_stays_and_tells_the_news_when_a_control_moves():
    explorer = explorer_of("removal")
    explorer.controls["method"].value = "magnitude"
    least = min(range(24), key=lambda i: float(gl.score(explorer.model, "magnitude")[0][i]))
    explorer.select(0, least)
    assert f"Selected: layer 0, neuron {least}: goes, score" in explorer.sentence
    explorer.controls["keep"].value = 100
    assert f"Selected: layer 0, neuron {least}: stays, score" in explorer.sentence
    assert explorer._pointer.selected == [0, least]


def test_a_neuron_that_is_not_there_is_a_red_sentence_and_selects_nothing():
    explorer = explorer_of("removal")
    explorer.select(0, 999)
    assert "neuron must be a whole number, 0 to 23" in explorer.sentence
    assert 'role="alert"' in shown(explorer)[1]
    assert explorer.selected is None
    assert explorer._pointer.places == []
    explorer.controls["keep"].value = 75
    assert explorer.error is None
    assert "Selected" not in explorer.sentence


def test_in_a_narrow_layer_the_last_neuron_is_selected():
    model = gl.shrink(tiny("gpt2"), [torch.arange(24) < width for width in (24, 6)])
    explorer = explore.worth(model, word_tokenizer(), TASK)
    explorer.controls["neuron"].value = 20
    explorer.controls["layer"].value = 1
    assert explorer.error is None
    assert explorer.selected == (1, 5)


def test_twin_and_texts_are_those_of_the_model():
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    layer = gl.neurons(model)[1]
    taken = []
    hook = layer.proj.register_forward_pre_hook(lambda _, x: taken.append(x[0][0, :, 3]))
    with torch.no_grad():
        for ids, _ in encode(tokenizer, TASK.train, 64):
            model(torch.tensor([ids]))
    hook.remove()
    strongest = sorted((float(h[h.abs().argmax()]) for h in taken), key=abs, reverse=True)
    portraits = Portraits(model, tokenizer, TASK.train)
    told = [h for h, _ in portraits.texts(1, 3)]
    assert told == pytest.approx(strongest[:3], abs=1e-5)
    (statistics,) = collect(model, tokenizer, TASK.train, layers=[layer])
    row = cosine(statistics.gram)[3]
    row[3] = 0
    twin, its_cosine = portraits.twin(1, 3)
    assert twin == int(row.abs().argmax())
    assert its_cosine == pytest.approx(float(row[twin]), abs=1e-4)


def test_an_excerpt_marks_the_token_and_what_is_left_out():
    portraits = Portraits(tiny("gpt2"), word_tokenizer(), TASK.train)
    tokenizer = portraits.tokenizer
    words = [f"w{i}" for i in range(4, 40)]
    ids = tokenizer(" ".join(words)).input_ids
    told = portraits._excerpt(ids, 20)
    assert f"«{words[20]}»" in told
    assert told.split()[1:-1] == [
        *words[20 - AROUND : 20], f"«{words[20]}»", *words[21 : 21 + AROUND]
    ]  # fmt: skip
    assert told.startswith("... ")
    assert told.endswith(" ...")
    assert portraits._excerpt(ids[:3], 0) == "«w4» w5 w6"


def test_a_neuron_that_never_fires_says_so():
    model = tiny("gpt2")
    layer = gl.neurons(model)[0]
    layer.incoming().data[2] = 0
    layer.fc[0].bias.data[2] = 0
    explorer = explore.removal(model, word_tokenizer(), TASK)
    explorer.select(0, 2)
    assert explorer.sentence.endswith("It fires on none of 6 texts.")


def test_without_anywidget_an_explorer_answers_as_before(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    explorer = explorer_of("removal")
    assert explorer._pointer is None
    assert shown(explorer)[0].startswith("<img ")
    explorer.select(1, 2)
    assert "Selected: layer 1, neuron 2: " in explorer.sentence
    assert "image/png" in explorer._repr_mimebundle_()


def test_a_figure_is_gone_when_its_picture_is_there():
    explorer = explorer_of("removal")
    gc.collect()
    before = sum(type(one) is Figure for one in gc.get_objects())
    for keep in (25, 75):
        explorer.controls["keep"].value = keep
    assert sum(type(one) is Figure for one in gc.get_objects()) == before


def test_an_explorer_without_neurons_has_no_places():
    budget = explore.budget(tiny("gpt2"))
    assert budget._pointer.places == []


def test_a_learners_own_explorer_does_not_select_by_its_sliders():
    class Own(explore.Explorer):
        def compute(self, layer, neuron):
            return None

        def draw(self, answer, layer, neuron):
            return plots.Plot(plots.new_figure()[0], f"{layer} {neuron}")

    kinds = {name: widgets.IntSlider(max=5, description=name) for name in ("layer", "neuron")}
    own = Own(kinds)
    own.controls["layer"].value = 3
    assert own.sentence == "3 0"


@pytest.mark.parametrize("known", [True, False])
def test_a_plot_can_be_touched(known):
    layer = 1 if known else None
    plot = plots.against(range(24), range(24), ("size", "worth"), layer=layer)
    of = (tiny("gpt2"), word_tokenizer(), TASK) if known else ()
    touched = explore.touch(plot, *of)
    assert touched.sentence == plot.sentence
    touched._pointer.selected = [layer, 3]
    name = "layer 1, neuron 3" if known else "neuron 3"
    assert f"\nSelected: {name}: size 3, worth 3." in touched.sentence
    assert ("Its twin" in touched.sentence) == known


@pytest.mark.parametrize("what", ["no plot", plots.Plot(plots.new_figure()[0], "no neurons")])
def test_only_a_plot_of_neurons_can_be_touched(what):
    with pytest.raises(gl.GumlabError, match="takes a plot of single neurons"):
        explore.touch(what)


def test_a_selection_that_a_control_refuses_leaves_the_controls_working():
    explorer = explorer_of("deletion")
    before = len(explorer.tried)
    with pytest.raises(TraitError):
        explorer.select(0, "three")
    explorer.controls["neuron"].value = 4
    assert len(explorer.tried) == before + 1
