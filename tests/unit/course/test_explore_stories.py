"""Explorers of trade-offs, twins, runs, texts, budgets: they say what the package measures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.texts import make_examples, word_tokenizer
from test_explore import VIEW, shown

import gumlab as gl
from gumlab.collecting import collect
from gumlab.course import explore
from gumlab.evaluation import bleu, generate, mean_target_loss
from gumlab.gram import cosine
from gumlab.inspection import unique
from gumlab.tasks import Example, Task

TASK = Task("words", "bleu", train=make_examples(12), validation=make_examples(6, 1))


def recorded(record=2, method="movement"):
    model = tiny("gpt2")
    pruner = gl.Pruner(model, method, keep=0.5, steps=8)
    history = gl.train(
        model, word_tokenizer(), TASK, steps=8, batch_size=4, pruner=pruner, record=record,
        progress=False,
    )  # fmt: skip
    return history, pruner


MAKE = {
    "tradeoff": lambda: explore.tradeoff(tiny("gpt2"), word_tokenizer(), TASK, examples=4),
    "twins": lambda: explore.twins(tiny("gpt2"), word_tokenizer(), TASK),
    "replay": lambda: explore.replay(recorded()[0]),
    "texts": lambda: explore.texts(
        {"dense": tiny("gpt2"), "other": tiny("gpt2", seed=1)}, word_tokenizer(), TASK
    ),
    "activations": lambda: explore.activations(tiny("gpt2"), word_tokenizer(), "w4 w9 w5 w7 w4"),
    "budget": lambda: explore.budget(tiny("gpt2")),
}


@pytest.mark.parametrize(
    ("name", "control", "value"),
    [
        ("tradeoff", "method", "obs"), ("tradeoff", "scope", "global"), ("tradeoff", "keep", 25),
        ("tradeoff", "seed", 4), ("twins", "layer", 1), ("twins", "neuron", 7),
        ("replay", "frame", 3), ("replay", "layer", 1), ("texts", "example", 2),
        ("activations", "layer", 1), ("activations", "rank", 8),
        ("budget", "keep", 60), ("budget", "batch", 4),
    ],
)  # fmt: skip
def test_every_control_changes_picture_or_sentence(name, control, value, capfd):
    explorer = MAKE[name]()
    before = shown(explorer)
    assert explorer.controls[control].value != value
    explorer.controls[control].value = value
    after = shown(explorer)
    assert explorer.error is None
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert {"image/png", VIEW} <= set(explorer._repr_mimebundle_())
    assert capfd.readouterr() == ("", "")


def test_tradeoff_of_a_task_that_is_judged_by_perplexity_alone():
    text = [Example("", "w5 w6 w7 w8 w9 w5 w6 w7 w8 w9 " * 4)] * 4
    for task in (Task("t", "perplexity", text, text), replace(TASK, metric="perplexity")):
        explorer = explore.tradeoff(tiny("gpt2"), word_tokenizer(), task, examples=4)
        assert explorer.error is None
        assert "texts:" not in explorer.sentence


@pytest.mark.parametrize("method", explore.Tradeoff.methods)
def test_tradeoff_says_what_is_measured_on_the_dense_model(method):
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    explorer = explore.tradeoff(model, tokenizer, TASK, examples=4)
    explorer.controls["keep"].value = 25
    explorer.controls["method"].value = method
    masks = gl.select(gl.score(model, method, tokenizer, TASK.train, seed=0), 0.25)
    found = collect(model, tokenizer, TASK.train, gradients=True)
    sensitivity = torch.cat([f.sensitivity for f in found])
    alone = [unique(cosine(f.gram[m][:, m])) for f, m in zip(found, masks, strict=True)]
    every = [unique(cosine(f.gram)) for f in found]
    s = float(sensitivity[torch.cat(masks)].mean() / sensitivity.mean())
    u = float(torch.cat(alone).float().mean() / torch.cat(every).float().mean())
    assert f"They are {s:.2f} times as sensitive and {u:.2f} times as unique" in explorer.sentence
    with gl.gate(model, masks):
        loss = mean_target_loss(model, tokenizer, TASK.validation[:4])
        score = bleu(generate(model, tokenizer, TASK.validation[:4]), TASK.validation[:4])["bleu"]
    assert f"Loss {loss:.2f};" in explorer.sentence
    assert f"bleu of 4 texts: {score:.0f}." in explorer.sentence
    assert hooks_of(model) == 0


def test_twins_names_the_nearest_and_what_is_rebuilt():
    explorer = MAKE["twins"]()
    explorer.controls["neuron"].value = 3
    report = gl.redundancy(tiny("gpt2"), word_tokenizer(), TASK)
    twin, r2 = int(report.twin[0][3]), float(report.reconstructability[0][3])
    assert f"its nearest are {twin} ({float(report.max_cosine[0][3]):+.2f})" in explorer.sentence
    assert f"all others together {r2:.1%}." in explorer.sentence
    explorer.controls["neuron"].value = explorer.controls["neuron"].max
    assert explorer.error is None


def test_a_recorded_run_shows_each_steps_masks_and_scores():
    history, pruner = recorded(record=2)
    assert [f.step for f in history.frames] == [2, 4, 6, 8]
    last = history.frames[-1]
    assert all(torch.equal(a, b) for a, b in zip(last.masks, pruner.masks, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(last.scores, pruner.scores, strict=True))
    assert not torch.equal(history.frames[0].scores[0], last.scores[0])
    explorer = explore.replay(history)
    explorer.controls["frame"].value = 3
    widths = ", ".join(str(int(m.sum())) for m in pruner.masks)
    assert f"Step 8: 24 of 48 neurons are there, by layer {widths}." in explorer.sentence


def test_a_run_without_frames_says_how_to_get_them():
    with pytest.raises(gl.GumlabError, match=r"no frames to replay.*record=1"):
        explore.replay(recorded(record=None)[0])


def test_a_page_makes_a_tab_when_it_is_opened_and_once():
    made = []

    def maker(name):
        made.append(name)
        if name == "broken":
            raise gl.GumlabError("No <such> model.")
        return explore.budget(tiny("gpt2"))

    page = explore.Page(
        {name: explore.Tab(partial(maker, name), f"{name}?", "Look <here>.")
         for name in ("first", "second", "broken")}
    )  # fmt: skip
    boxes = page.children
    assert made == ["first"]
    page.selected_index = 1
    page.selected_index = 0
    page.selected_index = 1
    assert made == ["first", "second"]
    heading, content = boxes[1].children
    assert "second?" in heading.value
    assert "Look &lt;here&gt;." in heading.value
    assert isinstance(content, explore.Budget)
    page.selected_index = 2
    assert "No &lt;such&gt; model." in boxes[2].children[1].value
    assert page.children == boxes  # else the tab would close for a moment, and the page jump
    assert "first, second, broken" in repr(page)


def test_texts_are_those_that_the_models_write():
    explorer, models = MAKE["texts"](), {"dense": tiny("gpt2"), "other": tiny("gpt2", seed=1)}
    explorer.controls["example"].value = 1
    for name, model in models.items():
        (text,) = generate(model, word_tokenizer(), TASK.validation)[1:2]
        assert f"{name} writes: {text}" in explorer.sentence


def test_activations_are_the_hidden_layers():
    explorer = MAKE["activations"]()
    model, seen = tiny("gpt2"), []
    hook = gl.neurons(model)[0].proj.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model(word_tokenizer()("w4 w9 w5 w7 w4", return_tensors="pt").input_ids)
    hook.remove()
    strongest = int(seen[0][0].max(0).values.argmax())
    place = int(seen[0][0][:, strongest].argmax())
    assert (
        f"(the dot): {strongest} at '{['w4', 'w9', 'w5', 'w7', 'w4'][place]}'" in explorer.sentence
    )


@pytest.mark.parametrize("keep", [25, 100])
def test_budget_counts_what_a_cut_model_has(keep):
    model = tiny("gpt2")
    explorer = explore.budget(model)
    explorer.controls["keep"].value = keep
    small = gl.shrink(model, gl.select(gl.score(model, "random"), keep / 100))
    for name, what in (("parameters", "parameters"), ("flops_per_token", "FLOPs per token")):
        share = gl.measure(small, latency=False)[name] / gl.measure(model, latency=False)[name]
        assert f"{share:.0%} of the {what}" in explorer.sentence
