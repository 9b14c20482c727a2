"""Explorers of a sentence: what a model writes, whole and with neurons removed, side by side.

The texts are words on the page, not a picture: they can be selected, and stand below each other on
a narrow screen. A picture with the same words is drawn for what shows no page (`plot`).
"""

from __future__ import annotations

import base64
import copy
import html
import json
import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any, NamedTuple

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab.collecting import Statistics, collect, currencies
from gumlab.course import plots
from gumlab.course.explore.base import (
    Answer,
    Explorer,
    first_examples,
    keep_slider,
    labelled,
)
from gumlab.course.plots.figure import BLUE, GREY
from gumlab.errors import GumlabError, check_whole
from gumlab.evaluation import mean_target_loss
from gumlab.feedforward import neurons
from gumlab.io.loading import ASSETS
from gumlab.removal import recommended, refit_layer, shrink
from gumlab.scoring import DATA_SCORES, MEASURE_OUTPUT, score
from gumlab.selection import SCOPES, select
from gumlab.tasks import Example, Task
from gumlab.tasks._tokens import check_tokenizer, tokens_of
from gumlab.tasks.batches import context_length, evaluating

STORED = ASSETS / "real_sentences.json"
STARTS = 8  # prompts of a task to choose from
CALIBRATION = 64  # examples that scores and refit are measured on
OWN = "a prompt of your own"
CHOSEN = {
    "random": "drawn at random",
    "recommended": "chosen by the recommended score (greedy OBS)",
}
SHARED = {
    "layer": "the same share of every layer",
    "global": "in one ranking of all layers",
}
MARKS = {  # colour and line: a word that only one model writes is never shown by colour alone
    "del": "background: #FBE3D6; color: #7A2E00; text-decoration: line-through",
    "ins": "background: #D6E8F5; color: #00416B; text-decoration: underline",
}
TEXT = "white-space: pre-wrap; overflow-wrap: anywhere; text-align: left; vertical-align: top"
COLUMN = "flex: 1 1 22em; min-width: min(22em, 100%)"  # below each other where two do not fit


class Written(NamedTuple):
    """What the dense and the pruned model wrote after a prompt, and their losses in nats."""

    prompt: str
    dense: str
    pruned: str
    dense_loss: float
    loss: float


class Sentences(Explorer):
    """Show what a model writes after a prompt, whole and pruned; a subclass says what that is.

    Attributes
    ----------
    judged_on : str
        What the loss is measured on.
    losses : dict
        For each (method, scope, refit) the losses known so far by the fraction of neurons kept.
    """

    judged_on: str
    losses: dict[tuple[str, str, bool], dict[float, float]]

    def draw(self, answer: Written, **state: Any) -> plots.Plot:
        """Draw the two texts below each other, for what shows a picture and no page."""
        pruned = f"{state['keep']:.0%} kept"
        written = {"dense": _plain(answer.dense), pruned: _plain(answer.pruned)}
        loss = {"dense": answer.dense_loss, pruned: answer.loss}
        reference = _plain(self.reference(answer.prompt))
        plot = plots.texts(_plain(answer.prompt), reference, written, loss)
        return plots.Plot(plot.figure, self.told(answer, **state))

    def reference(self, prompt: str) -> str:
        """What should stand after a prompt, or that nobody says."""
        return "(none)"

    def told(self, answer: Written, *args: Any, **state: Any) -> str:
        """The sentence: who stays, how many of the words do, and the loss."""
        method = state["method"]
        _, _, both = marked(answer.dense, answer.pruned)
        words = len(answer.dense.split())
        return (
            f"{state['keep']:.0%} of the neurons stay, "
            f"{CHOSEN.get(method, f'chosen by {method}')}, {SHARED[state['scope']]}, "
            f"{'with' if state['refit'] else 'without'} a refit. "
            f"{both} of the dense model's {words} words are still there; "
            f"loss on {self.judged_on} {answer.dense_loss:.2f} -> {answer.loss:.2f}."
        )

    def _draw(self, state: dict[str, Any], answer: Answer) -> Any:
        """Nothing: what is shown are the words themselves."""
        return answer.value

    def _show(self, drawing: Any, notes: Sequence[str]) -> None:
        written: Written = drawing
        state = self.state()
        present = (state["method"], state["scope"], state["refit"])
        others = [curve for key, curve in self.losses.items() if key != present]
        curves = [self.losses[present] | {1.0: written.dense_loss}, *others]
        self._picture.value = _side_by_side(written, state["keep"]) + _tiny_curve(
            curves, state["keep"]
        )
        self._say(" ".join([self.told(written, **state), *notes]))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**options)
        state = self.state()
        answer = self._answers.get(tuple(state.items()))
        if answer is None or self.error is not None:
            return bundle
        with warnings.catch_warnings():  # a letter that the picture's font does not have
            warnings.simplefilter("ignore")
            picture = self.draw(answer.value, **state).png()
        written = answer.value
        return bundle | {
            "text/plain": f"{self.sentence}\ndense: {written.dense}\npruned: {written.pruned}",
            "text/html": _as_table(written, state["keep"], self.sentence),
            "image/png": base64.b64encode(picture).decode(),
        }


class Sentence(Sentences):
    """Type a prompt, remove neurons, read what the model writes; `sentence` makes one.

    Attributes
    ----------
    start : Dropdown
        Prompts of the task to start from.
    methods : tuple of str
        The scores to choose from.
    """

    methods: tuple[str, ...] = ("random", "magnitude", "wanda", "recommended")

    def __init__(
        self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, tokens: int = 40
    ) -> None:
        check_tokenizer(tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.tokens = check_whole("tokens", tokens)
        self.examples = first_examples(task, "validation", examples)
        self.judged_on = task.name
        self.losses = {}
        neurons(model)  # raises where there are none
        self._starts = _starts(task)
        self._dense_loss = mean_target_loss(model, tokenizer, self.examples)
        self._dense: dict[str, str] = {}  # what the dense model writes, by prompt
        self._scores: dict[tuple[str, str], list[Tensor]] = {}  # by method and currency
        self._latest: tuple[Any, nn.Module] = ((), model)  # the latest cut, and what it left
        first, *_ = self._starts
        prompt = labelled(
            widgets.Text,
            "prompt",
            "What the model goes on from; press Enter",
            value=first,
            continuous_update=False,
        )
        prompt.layout.width = "59em"
        prompt.layout.max_width = "98%"
        self.start = labelled(
            widgets.Dropdown,
            "start from",
            "A prompt of the task",
            options=[(OWN, ""), *((_short(text), text) for text in self._starts)],
            value=first,
        )
        self.start.layout.max_width = "98%"
        self.start.observe(self._take_start, "value")
        prompt.observe(self._name_start, "value")
        super().__init__(
            {
                "prompt": prompt,
                "method": labelled(
                    widgets.Dropdown, "score", "Who stays", options=self.methods, value="magnitude"
                ),
                "scope": _scopes(),
                "keep": keep_slider(tooltip="How many of all feed-forward neurons stay"),
                "refit": _refit(),
            }
        )
        row = self.children[0]
        row.children = (self.start, *row.children)

    def state(self) -> dict[str, Any]:
        """What the controls say, `keep` as a fraction; a random draw has one scope."""
        state = super().state()
        state["keep"] /= 100
        if state["method"] == "random":
            state["scope"] = "layer"
        return state

    def idle(self, *args: Any, **state: Any) -> Collection[str]:
        """The scope, where neurons are drawn at random."""
        return ("scope",) if state["method"] == "random" else ()

    def seconds(self, *args: Any, **state: Any) -> float:
        """As long as the last time, but for what has to be measured first."""
        method, scope = state["method"], state["scope"]
        name, currency = _recipe(method, scope)
        to_score = name in DATA_SCORES and (name, currency) not in self._scores
        to_collect = state["refit"] and "_statistics" not in vars(self)
        return 1.0 if to_score or to_collect else self._last_seconds

    def compute(self, prompt: str, method: str, scope: str, keep: float, refit: bool) -> Written:
        """Cut, measure the loss, and let both models write."""
        room = self._room(prompt)
        question = self._starts[prompt].prompt if prompt in self._starts else prompt
        small = self._cut(method, scope, keep, refit)
        curve = self.losses.setdefault((method, scope, refit), {})
        if keep not in curve:
            curve[keep] = mean_target_loss(small, self.tokenizer, self.examples)
        if prompt not in self._dense:
            (self._dense[prompt],) = continued(self.model, self.tokenizer, [question], room)
        (pruned,) = continued(small, self.tokenizer, [question], room)
        return Written(prompt, self._dense[prompt], pruned, self._dense_loss, curve[keep])

    def reference(self, prompt: str) -> str:
        """What the task's target is, if the prompt is one of the task's."""
        known = self._starts.get(prompt)
        return known.target if known and known.target else "(none)"

    def _room(self, prompt: str) -> int:
        """How many tokens may be written after a prompt; GumlabError for one that cannot be."""
        if not prompt.strip():
            raise GumlabError("The prompt is empty. Type a few words and press Enter.")
        Example(prompt, "")  # raises for what no tokenizer takes
        (ids,) = tokens_of(self.tokenizer, [prompt], special=True)
        context = context_length(self.model)
        if not 1 <= len(ids) < context:
            raise GumlabError(
                f"The prompt has {len(ids):,} tokens; expected 1 to {context - 1:,}, so that the "
                "model can read it and write. Type another one."
            )
        unknown = ids.count(self.tokenizer.unk_token_id)
        if unknown:
            warnings.warn(
                f"The model does not know {unknown} of the prompt's {len(ids)} tokens.",
                stacklevel=2,
            )
        return min(self.tokens, context - len(ids))

    def _cut(self, method: str, scope: str, keep: float, refit: bool) -> nn.Module:
        """The model without the others; the latest one is kept."""
        cut = (method, scope, keep, refit)
        if self._latest[0] != cut:
            name, currency = _recipe(method, scope)
            if (name, currency) not in self._scores:
                self._scores[name, currency] = self._scored(name, currency)
            masks = select(self._scores[name, currency], keep, scope)
            self._latest = (cut, self._with(masks, refit))
        return self._latest[1]

    def _scored(self, name: str, currency: str) -> list[Tensor]:
        """`gumlab.score`; where it can, by the statistics that the refit reads too."""
        if name not in MEASURE_OUTPUT:
            return score(self.model, name, self.tokenizer, self._calibration)
        prices = currencies(self.model, self.tokenizer, self._calibration, currency)
        return [
            DATA_SCORES[name](layer, replace(seen, currency=price))
            for layer, seen, price in zip(
                neurons(self.model), self._statistics, prices, strict=True
            )
        ]

    def _with(self, masks: Sequence[Tensor], refit: bool) -> nn.Module:
        """A smaller copy of the model; refitted by the dense model's statistics."""
        if not refit:
            return shrink(self.model, masks)
        whole = copy.deepcopy(self.model)
        for layer, mask, seen in zip(neurons(whole), masks, self._statistics, strict=True):
            refit_layer(layer, mask.to(layer.device), seen)
        return shrink(whole, masks, in_place=True)

    @property
    def _calibration(self) -> list[Example]:
        return self.task.split("train")[:CALIBRATION]

    @cached_property
    def _statistics(self) -> list[Statistics]:
        return collect(self.model, self.tokenizer, self._calibration)

    def _take_start(self, change: Mapping[str, Any]) -> None:
        """Put a chosen prompt into the box."""
        if change["new"]:
            self.controls["prompt"].value = change["new"]

    def _name_start(self, change: Mapping[str, Any]) -> None:
        """Say that the prompt in the box is the user's own, if it is."""
        self.start.value = change["new"] if change["new"] in self._starts else ""


class RealSentence(Sentences):
    """Read what a real language model wrote, from stored texts; `real_sentence` makes one.

    Attributes
    ----------
    stored : dict
        The texts, and how they were made (`tools/make_sentences.py`).
    """

    judged_on = "WikiText-2"

    def __init__(self) -> None:
        self.stored = json.loads(STORED.read_text(encoding="utf-8"))
        rows = self.stored["rows"]
        self.losses = {}
        self._rows = {}
        self._scope: dict[str, str] = {}  # of each method
        for row in rows:
            cut = (row["method"], row["scope"], row["refit"])
            self._rows[row["prompt"], *cut, row["keep"]] = row["text"]
            self.losses.setdefault(cut, {1.0: self.stored["dense_loss"]})[row["keep"]] = row["loss"]
            self._scope[row["method"]] = row["scope"]
        keeps = sorted({row["keep"] for row in rows})
        prompt = labelled(
            widgets.Dropdown,
            "prompt",
            "What the model went on from",
            options=[(text, number) for number, text in enumerate(self.stored["prompts"])],
        )
        prompt.layout.width = "40em"
        prompt.layout.max_width = "98%"
        super().__init__(
            {
                "prompt": prompt,
                "method": labelled(
                    widgets.Dropdown,
                    "score",
                    "Who stays",
                    options=[
                        (f"{method}, {SHARED[self._scope[method]]}", method)
                        for method in ("random", "magnitude", "recommended")
                    ],
                    value="recommended",
                ),
                "keep": labelled(
                    widgets.SelectionSlider,
                    "neurons kept",
                    "How many of all feed-forward neurons stay",
                    options=[(f"{keep:.0%}", keep) for keep in keeps],
                    value=keeps[-1],
                    continuous_update=False,
                ),
                "refit": _refit(),
            }
        )

    def state(self) -> dict[str, Any]:
        """What the controls say, and the scope that is stored of the method."""
        state = super().state()
        return state | {"scope": self._scope[state["method"]]}

    def compute(self, prompt: int, method: str, scope: str, keep: float, refit: bool) -> Written:
        """Look the texts up."""
        return Written(
            self.stored["prompts"][prompt],
            self.stored["dense"][prompt],
            self._rows[prompt, method, scope, refit, keep],
            self.stored["dense_loss"],
            self.losses[method, scope, refit][keep],
        )


def sentence(
    model: nn.Module, tokenizer: Any, task: Task, examples: int = 16, tokens: int = 40
) -> Sentence:
    """Type a prompt, remove neurons without training, and read what the model still writes.

    Parameters
    ----------
    model : Module
        The dense model, which is left as it is. Answers are kept, so make a new explorer after
        changing it.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    task : Task
        Gives the prompts to start from (running text has none: then those of `real_sentence`); the
        loss is measured on its first validation examples, scores and refit on 64 training examples.
    examples : int, default 16
        How many validation examples; of a large model on running text, two are enough.
    tokens : int, default 40
        How many tokens are written at most, always the likeliest.

    Returns
    -------
    Sentence
        The explorer. Controls: `prompt`, yours or one of the task's (`start`); `method`, the score;
        `scope`, the same share of every layer or one ranking of all neurons; `keep`, the share of
        neurons that stay, in percent; `refit`, by the dense model's statistics. On the page: what
        the dense and the pruned model write, words that only the dense one has struck out, words
        that only the pruned one has underlined; a tiny curve of the loss by the neurons kept.
    """
    return Sentence(model, tokenizer, task, examples, tokens)


def real_sentence() -> RealSentence:
    """Read what SmolLM2-135M, a real language model, writes when neurons are removed; stored texts.

    Returns
    -------
    RealSentence
        The explorer. Controls: `prompt`, one of eight; `method`, the score; `keep`, one of four
        shares of neurons; `refit`. The recommended score ranks all layers together, the others cut
        every layer alike. The loss is in nats per token of WikiText-2, on which scores and refit
        were measured too. It shows at once, without the model; with it at hand, `sentence` is the
        same, live: `model, tokenizer = gumlab.load("smollm2-135m")`, then
        `gumlab.explore.sentence(model, tokenizer, task, examples=2)`.
    """
    return RealSentence()


@torch.no_grad()
def continued(model: nn.Module, tokenizer: Any, prompts: Sequence[str], tokens: int) -> list[str]:
    """What a model writes after each prompt: always the likeliest token, `tokens` at most.

    Unlike those of `gumlab.evaluation.generate` the texts keep the space they begin with, and
    their length does not depend on a reference.
    """
    from transformers import GenerationConfig

    rows = tokens_of(tokenizer, prompts, special=True)
    longest = max(len(row) for row in rows)
    end = tokenizer.eos_token_id
    padded = [[end] * (longest - len(row)) + row for row in rows]
    seen = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    greedy = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, pad_token_id=end, eos_token_id=end
    )
    with evaluating(model):
        written = model.generate(
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(seen, device=model.device),
            generation_config=greedy,
        )
    return [
        tokenizer.decode(row, skip_special_tokens=True).rstrip() for row in written[:, longest:]
    ]


def marked(before: str, after: str) -> tuple[str, str, int]:
    """Mark the words that only one of two texts has.

    Parameters
    ----------
    before, after : str
        The texts.

    Returns
    -------
    before, after : str
        Both as HTML: words that are gone in <del>, words that are new in <ins>.
    both : int
        How many words stand in both, in the same order.

    Examples
    --------
    >>> marked("a b", "a b")
    ('a b', 'a b', 2)
    """
    old = re.findall(r"\s*\S+", before)  # a word with the space before it
    new = re.findall(r"\s*\S+", after)
    matcher = SequenceMatcher(
        None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False
    )
    left, right = [], []
    both = 0
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        gone, come = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        if kind == "equal":
            both += old_to - old_from
            left.append(html.escape(gone))
            right.append(html.escape(come))
        else:
            left.append(_mark("del", gone))
            right.append(_mark("ins", come))
    return "".join(left), "".join(right), both


def _mark(tag: str, text: str) -> str:
    """Words in a tag, the space before them outside it; nothing for none."""
    words = text.lstrip()
    space = text[: len(text) - len(words)]
    return f'{space}<{tag} style="{MARKS[tag]}">{html.escape(words)}</{tag}>' if words else ""


def _columns(written: Written, keep: float) -> list[tuple[str, str]]:
    """Heading and text of the two columns, as HTML."""
    texts = [re.sub(r"\n\s*\n", "\n", text) for text in (written.dense, written.pruned)]
    dense, pruned, _ = marked(*texts)
    prompt = f'<span style="opacity: 0.7">{html.escape(written.prompt)}</span>'
    nothing = " <em>(nothing)</em>"
    return [
        ("dense: all neurons", prompt + (dense or nothing)),
        (f"pruned: {keep:.0%} of the neurons stay", prompt + (pruned or nothing)),
    ]


def _side_by_side(written: Written, keep: float) -> str:
    """The two texts beside each other, or below each other on a narrow screen."""
    columns = "".join(
        f'<div style="{COLUMN}"><strong>{heading}</strong><div style="{TEXT}">{text}</div></div>'
        for heading, text in _columns(written, keep)
    )
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 0.8em 2em; line-height: 1.6; '
        f'max-width: 75em; min-height: 11em">{columns}</div>{_legend()}'
    )


def _as_table(written: Written, keep: float, told: str) -> str:
    """The same without a kernel, in tags that GitHub leaves in."""
    columns = _columns(written, keep)
    headings = "".join(f'<th style="text-align: left">{heading}</th>' for heading, _ in columns)
    texts = "".join(f'<td style="{TEXT}">{text}</td>' for _, text in columns)
    return (
        f"<table><tr>{headings}</tr><tr>{texts}</tr></table>{_legend()}<p>{html.escape(told)}</p>"
    )


def _legend() -> str:
    return (
        f"<p><small>{_mark('del', 'Struck out')}: only the dense model writes it. "
        f"{_mark('ins', 'Underlined')}: only the pruned model writes it.</small></p>"
    )


def _tiny_curve(curves: Sequence[Mapping[float, float]], keep: float) -> str:
    """A small drawing of losses by the fraction kept: the first curve blue, the others grey."""
    width, height, edge = 170, 46, 6
    losses = [loss for curve in curves for loss in curve.values() if math.isfinite(loss)]
    low, high = min(losses, default=0.0), max(losses, default=1.0)
    scale = (height - 2 * edge) / ((high - low) or 1.0)

    def place(share: float, loss: float) -> tuple[float, float]:
        y = min(loss, high) if loss == loss else high  # not a number: as high as it goes
        return edge + share * (width - 2 * edge), height - edge - (y - low) * scale

    lines = []
    for curve in reversed(curves):  # the first on top
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in sorted(curve.items()))
        colour = BLUE if curve is curves[0] else GREY
        weight = 2 if curve is curves[0] else 0.7
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{weight}"/>'
        )
    x, y = place(keep, curves[0][keep])
    return (
        '<div style="display: flex; flex-wrap: wrap; align-items: center; gap: 0 1em; '
        'line-height: 1.5">'
        f'<svg role="img" aria-label="loss by the neurons kept" width="{width}" height="{height}">'
        f'{"".join(lines)}<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{BLUE}"/></svg>'
        "<small>the loss by the neurons kept: all of them on the right;<br>the dot is this cut, "
        "grey lines are other scores</small></div>"
    )


def _recipe(method: str, scope: str) -> tuple[str, str]:
    """The score's name in `gumlab.score`, and its currency."""
    if method != "recommended":
        return method, "output"
    recipe = recommended(scope)
    return recipe["method"], recipe["currency"]


def _starts(task: Task) -> dict[str, Example]:
    """Examples to start from by their prompts; those of the stored texts if there are none."""
    asked = [example for example in task.test or task.validation if example.prompt][:STARTS]
    if not asked:
        stored = json.loads(STORED.read_text(encoding="utf-8"))
        asked = [Example(prompt, "") for prompt in stored["prompts"]]
    return {str(example.prompt): example for example in asked}


def _short(text: str) -> str:
    """A text as a line of a menu."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _plain(text: str) -> str:
    """A text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _scopes() -> widgets.Dropdown:
    return labelled(
        widgets.Dropdown,
        "scope",
        "The same share of every layer, or a ranking of all layers' neurons together",
        options=SCOPES,
    )


def _refit() -> widgets.Checkbox:
    return labelled(
        widgets.Checkbox,
        "refit: those that stay take over what they can",
        "By least squares, without training",
        value=False,
    )
