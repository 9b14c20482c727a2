"""The sentence explorers: what stands on the page is what the cut models write and lose."""

from __future__ import annotations

import base64
import itertools
import re

import pandas as pd
import pytest
import torch
from helpers.models import hooks_of, tiny
from helpers.texts import make_examples, word_tokenizer
from test_explore import VIEW, shown

import gumlab as gl
from gumlab.collecting import collect
from gumlab.course import explore
from gumlab.course.explore import writing
from gumlab.course.explore.writing import MARKS, OWN, STORED, continued, marked
from gumlab.evaluation import mean_target_loss
from gumlab.study.paper import REAL_ONE_SHOT
from gumlab.tasks import Example, Task

TASK = Task("words", "bleu", make_examples(12), make_examples(6, 1), make_examples(5, 2))
CONTEXT = 64  # of `tiny`


def sentence(model=None, task=TASK):
    return explore.sentence(model or tiny("gpt2"), word_tokenizer(), task, examples=4, tokens=12)


@pytest.fixture(scope="module")
def real():
    return explore.real_sentence()


def moved(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value
    return shown(explorer)


@pytest.mark.parametrize(
    ("control", "value"),
    [("prompt", "w9 w5 w4"), ("method", "wanda"), ("scope", "global"), ("keep", 20),
     ("refit", True)],
)  # fmt: skip
def test_every_control_changes_page_or_sentence(control, value, capfd):
    explorer = sentence()
    before = shown(explorer)
    after = moved(explorer, **{control: value})
    assert explorer.error is None
    assert before != after
    assert "<img" not in after[0]  # words, which can be selected
    assert 'role="status" aria-live="polite"' in after[1]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("method", explore.Sentence.methods)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_page_says_what_a_model_writes_that_was_really_cut(method, scope, refit):
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explorer = sentence(model)
    moved(explorer, method=method, scope=scope, keep=40, refit=refit)
    assert explorer.error is None
    expected_scope = "layer" if method == "random" else scope
    small = gl.prune(
        model, method, tokenizer, TASK.train, keep=0.4, scope=expected_scope, refit=refit,
        sequential=False,
    )  # fmt: skip
    prompt = TASK.test[0].prompt
    whole, cut = (continued(m, tokenizer, [prompt], 12)[0] for m in (model, small))
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"].endswith(f"\ndense: {whole}\npruned: {cut}")
    dense_loss, loss = (mean_target_loss(m, tokenizer, TASK.validation[:4]) for m in (model, small))
    assert f"loss on words {dense_loss:.2f} -> {loss:.2f}." in explorer.sentence
    assert hooks_of(model) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_texts_go_on_with_the_likeliest_token_whatever_their_batch():
    model, tokenizer = tiny("gpt2"), word_tokenizer()
    prompts = ["w4 w9 w5 w7 w11", "w8"]
    by_hand = []
    for prompt in prompts:
        ids = tokenizer(prompt).input_ids
        start = len(ids)
        for _ in range(10):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        by_hand.append(tokenizer.decode(ids[start:], skip_special_tokens=True))
    assert continued(model, tokenizer, prompts, 10) == by_hand
    assert all(by_hand)


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("", "The prompt is empty"),
        (" \n ", "The prompt is empty"),
        ("w4 " * CONTEXT, f"The prompt has {CONTEXT} tokens; expected 1 to {CONTEXT - 1}"),
        ("w4 \ud800", "surrogate"),
    ],
)
def test_a_prompt_that_cannot_be_is_a_red_sentence(prompt, complaint, capfd):
    explorer = sentence()
    page, words = moved(explorer, prompt=prompt)
    assert page == ""
    assert 'role="alert"' in words
    assert complaint in words
    assert isinstance(explorer.error, gl.GumlabError)
    assert "image/png" not in explorer._repr_mimebundle_()
    assert 'role="status"' in moved(explorer, prompt="w4 w5")[1]
    assert capfd.readouterr() == ("", "")


def test_a_prompt_that_fills_the_context_leaves_what_room_there_is():
    explorer = sentence()
    moved(explorer, prompt=" ".join(["w4"] * (CONTEXT - 1)))
    assert explorer.error is None
    answer = explorer._repr_mimebundle_()["text/plain"]
    assert len(answer.split("\ndense: ")[1].split("\npruned: ")[0].split()) <= 1


def test_unknown_words_are_counted_and_tags_and_formulas_are_plain_text(recwarn):
    explorer = sentence()
    page, words = moved(explorer, prompt="w4 <b>bold</b> $\\frac{$ \u2603")
    assert explorer.error is None
    assert "The model does not know " in words
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>" not in page
    bundle = explorer._repr_mimebundle_()
    assert "<b>" not in bundle["text/html"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("before", "after", "left", "right", "both"),
    [
        ("a b c", "a b c", "a b c", "a b c", 3),
        ("a b c", "a x c", "a <del>b</del> c", "a <ins>x</ins> c", 2),
        ("a b", "b", "<del>a</del> b", "b", 1),  # what is said is the word, not the space
        ("a", "", "<del>a</del>", "", 0),
        ("", "<a>\n b", "", "<ins>&lt;a&gt;\n b</ins>", 0),
    ],
)
def test_words_of_one_text_alone_are_marked(before, after, left, right, both):
    found_left, found_right, found = marked(before, after)
    assert re.sub(r' style="[^"]*"', "", found_left) == left
    assert re.sub(r' style="[^"]*"', "", found_right) == right
    assert found == both


@pytest.mark.parametrize(("tag", "line"), [("del", "line-through"), ("ins", "underline")])
def test_a_mark_is_colour_and_line(tag, line):
    assert "color: #" in MARKS[tag]
    assert f"text-decoration: {line}" in MARKS[tag]


def test_a_start_fills_the_box_and_words_of_your_own_say_so():
    explorer = sentence()
    second = TASK.test[1].prompt
    explorer.start.value = second
    assert explorer.controls["prompt"].value == second
    assert second in shown(explorer)[0]
    moved(explorer, prompt="w9 w9")
    assert explorer.start.label == OWN
    assert "w9 w9" in shown(explorer)[0]


def test_running_text_starts_from_the_stored_prompts(real):
    text = [Example("", "w5 w6 w7 w8 w9 w5 w6 w7 w8 w9 " * 4)] * 4
    explorer = sentence(task=Task("text", "perplexity", text, text))
    assert explorer.error is None
    assert explorer.controls["prompt"].value == real.stored["prompts"][0]


def test_what_was_written_is_not_written_again(monkeypatch):
    explorer = sentence()
    first = shown(explorer)
    moved(explorer, keep=20)
    monkeypatch.setattr(writing, "continued", lambda *_: 1 / 0)
    assert moved(explorer, keep=50)[1] == first[1]
    assert explorer.error is None
    moved(explorer, keep=55)
    assert isinstance(explorer.error, ZeroDivisionError)


def test_scores_and_refit_share_one_look_at_the_data_and_leave_it_as_it_is(monkeypatch):
    looks = []
    monkeypatch.setattr(writing, "collect", lambda *data: looks.append(1) or collect(*data))
    explorer = sentence()
    cuts = [
        {"method": "recommended", "scope": "global", "refit": True},  # it has prices
        {"method": "recommended", "scope": "layer", "refit": False},
        {"method": "wanda", "scope": "global", "refit": True},
    ]
    for cut in cuts:
        moved(explorer, **cut)
    assert looks == [1]
    fresh = sentence()
    moved(fresh, **cuts[-1])
    assert explorer._repr_mimebundle_()["text/plain"] == fresh._repr_mimebundle_()["text/plain"]


def test_all_neurons_write_what_the_dense_model_writes():
    explorer = sentence()
    page, _ = moved(explorer, keep=100, refit=True)
    assert "<del style" not in page.split("<small>")[0]
    written = explorer._repr_mimebundle_()["text/plain"].split("\ndense: ")[1]
    dense, pruned = written.split("\npruned: ")
    assert dense == pruned
    count = len(dense.split())
    assert f"{count} of the dense model's {count} words are still there" in explorer.sentence


def test_github_gets_a_table_a_picture_and_stable_text():
    explorer = sentence()
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"].startswith("<table>")
    assert explorer.sentence in bundle["text/plain"]
    assert explorer.sentence.replace(">", "&gt;").replace("'", "&#x27;") in bundle["text/html"]
    assert bundle[VIEW]["model_id"] == explorer.model_id
    assert explorer.plot.sentence == explorer.sentence


def test_stored_texts_are_complete_and_small(real):
    rows = real.stored["rows"]
    cuts = {(row["method"], row["scope"]) for row in rows}
    assert {method for method, _ in cuts} == {"random", "magnitude", "recommended"}
    expected = set(
        itertools.product(range(len(real.stored["prompts"])), cuts, (0.25, 0.5, 0.75, 0.9),
                          (False, True))
    )  # fmt: skip
    found = [(r["prompt"], (r["method"], r["scope"]), r["keep"], r["refit"]) for r in rows]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert len(real.stored["prompts"]) == len(real.stored["dense"]) == 8
    assert STORED.stat().st_size < 150_000


def test_stored_losses_agree_with_the_results_and_with_common_sense(real):
    losses, dense = real.losses, real.stored["dense_loss"]
    names = {"greedy_obs": "recommended", "loss_scalar": "global", "equal": "layer"}
    table = pd.read_csv(REAL_ONE_SHOT)
    table = table[(table["draw"] == 0) & table["refit"].isin(["cut", "refit"])]
    measured = 0
    for row in table.itertuples():
        cut = names.get(row.score, row.score), names.get(row.allocation), row.refit == "refit"
        if row.keep in losses.get(cut, {}) and row.keep < 1:
            measured += 1
            assert losses[cut][row.keep] == pytest.approx(row.loss, abs=1e-4)
    assert measured == sum(len(curve) - 1 for curve in losses.values())  # all but the dense one
    for cut, curve in losses.items():  # the fewer neurons, the higher the loss
        rising = [curve[keep] for keep in sorted(curve, reverse=True)]
        assert rising[0] == dense == min(rising)
        if cut != ("magnitude", "layer", False):  # worse at 75% than at 50%
            assert rising == sorted(rising)
    for keep in (0.25, 0.5, 0.75, 0.9):
        best = min(losses, key=lambda cut: losses[cut][keep])
        assert best == ("recommended", "global", True)


def test_stored_texts_change_where_few_neurons_stay(real):
    few = [row for row in real.stored["rows"] if row["keep"] == 0.25]
    same = [row for row in few if row["text"] == real.stored["dense"][row["prompt"]]]
    assert same == []


@pytest.mark.parametrize(
    ("control", "value"),
    [("prompt", 3), ("method", "random"), ("keep", 0.25), ("refit", True)],
)
def test_every_control_of_the_stored_texts_changes_the_page(real, control, value):
    start = moved(real, prompt=0, method="magnitude", keep=0.9, refit=False)
    after = moved(real, **{control: value})
    assert real.error is None
    assert after != start
