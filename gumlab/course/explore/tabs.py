"""All explorers on one page: a tab each, made when it is opened."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ipywidgets as widgets
from torch import nn

from gumlab.course.explore.cuts import removal, tradeoff
from gumlab.course.explore.models import activations, budget, texts
from gumlab.course.explore.runs import replay
from gumlab.course.explore.uniqueness import deletion, twins, worth
from gumlab.course.explore.writing import real_sentence, sentence
from gumlab.errors import GumlabError, check_whole
from gumlab.io.loading import load
from gumlab.pruner import Pruner
from gumlab.removal import prune
from gumlab.tasks import Task, load_task
from gumlab.training import History, train

STYLE = """<style>
.gumlab-page > .lm-TabBar .lm-TabBar-content { flex-wrap: wrap; }
.gumlab-page > .lm-TabBar .lm-TabBar-tab { flex: 0 0 auto !important; }
</style>"""  # titles in full, in several rows on a narrow screen
ROOM = "44em"  # for picture and sentence, so that the page keeps its height while one is exchanged


class Tab(NamedTuple):
    """A tab of a page.

    Attributes
    ----------
    make : callable
        A function without arguments that returns a widget, an explorer for instance.
    question : str
        What stands above it: something to find out with it.
    look : str
        A sentence on what to look for.
    """

    make: Callable[[], widgets.Widget]
    question: str = ""
    look: str = ""


class Page(widgets.Tab):
    """A tab for each explorer, which is made when the tab is first opened; `page` makes one.

    Parameters
    ----------
    tabs : mapping of str to Tab
        The tabs by their titles. The first is opened at once; where a tab's `make` raises
        GumlabError, the tab holds the message.
    """

    def __init__(self, tabs: Mapping[str, Tab]) -> None:
        self._tabs = dict(tabs)
        self._opened: set[int] = set()
        # a box stays the tab's own: replacing it would close the tab, and the page would jump
        super().__init__([_unopened(tab) for tab in tabs.values()])
        for index, title in enumerate(tabs):
            self.set_title(index, title)
        self.add_class("gumlab-page")
        self.selected_index = 0
        self.observe(lambda change: self._open(change["new"]), "selected_index")
        self._open(0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._tabs)})"

    def _open(self, index: int | None) -> None:
        """Fill a tab, but only once; index: None where no tab is open."""
        if index is None or index in self._opened:
            return
        self._opened.add(index)
        box = self.children[index]
        heading, _ = box.children
        tab = list(self._tabs.values())[index]
        try:
            box.children = (heading, tab.make())
        except GumlabError as error:
            message = widgets.HTML(f'<p role="alert">{html.escape(str(error))}</p>')
            box.children = (heading, message)


def _unopened(tab: Tab) -> widgets.VBox:
    """A tab's question, and below it the place for what it holds."""
    heading = widgets.HTML(
        f'{STYLE}<p style="font-size: 1.25em; font-weight: bold; margin: 0.3em 0">'
        f'{html.escape(tab.question)}</p><p style="line-height: 1.5">{html.escape(tab.look)}</p>'
    )
    waiting = widgets.HTML('<p role="status" aria-live="polite">computing ...</p>')
    return widgets.VBox([heading, waiting], layout={"min_height": ROOM})


def page(model: str = "tiny-gpt2", task: str = "restaurants", steps: int = 40) -> Page:
    """Put every explorer on one page, for one model and task.

    Parameters
    ----------
    model : str, default "tiny-gpt2"
        What `gumlab.load` takes.
    task : str, default "restaurants"
        What `gumlab.load_task` takes.
    steps : int, default 40
        How many steps the run to replay is trained, when its tab is opened.

    Returns
    -------
    Page
        A tab for each explorer, below a question and a sentence on what to look for. The first is
        the sentence explorer; the second shows stored texts of a real language model, whatever
        `model` and `task` are.
    """
    check_whole("steps", steps)
    base, tokenizer = load(model)
    data = load_task(task)
    example = data.test[0]
    text = f"{example.prompt} {example.target}"
    return Page(
        {
            "sentence": Tab(
                lambda: sentence(base, tokenizer, data),
                "How many neurons can go before the sentence falls apart?",
                "Move neurons kept to the left. Which words change first? Then take another score, "
                "and switch the refit on: which words come back?",
            ),
            "a real language model": Tab(
                real_sentence,
                "What does a real language model lose first: its facts, or its grammar?",
                "SmolLM2-135M, with 135 million parameters, wrote these texts beforehand. Move "
                "neurons kept to the left: does it still know Paris, does it still write English? "
                "Then compare the scores, with the refit and without.",
            ),
            "remove": Tab(
                lambda: removal(base, tokenizer, data),
                "Which neurons go, and what does it cost?",
                "Dark neurons stay. Move neurons kept to the left until the loss starts to rise; "
                "does it start later with another score?",
            ),
            "activations": Tab(
                lambda: activations(base, tokenizer, text),
                "When does a neuron fire?",
                "A row is a neuron, a column a token; the dot is where the neuron fires most. Look "
                "for a row that is dark at one kind of word only.",
            ),
            "trade-off": Tab(
                lambda: tradeoff(base, tokenizer, data),
                "Are the neurons that stay sensitive, or different from each other?",
                "The plot in the middle shows both. Which scores keep sensitive neurons, and which "
                "keep unique ones? Whose loss is lowest?",
            ),
            "used x unique": Tab(
                lambda: worth(base, tokenizer, data),
                "What is a neuron worth?",
                "A neuron is worth much if it is used and no others can replace it. Find one that "
                "is used a lot and goes early: who is its twin?",
            ),
            "twins": Tab(
                lambda: twins(base, tokenizer, data),
                "Which neurons do the same work?",
                "On the right, height is what all other neurons together rebuild of a neuron. Find "
                "one that they rebuild well although its twin alone does not.",
            ),
            "delete one": Tab(
                lambda: deletion(base, tokenizer, data),
                "What happens when one neuron is deleted?",
                "Try a few neurons. Does the slope predict the change of the loss? Does the refit "
                "make the error of the layer smaller?",
            ),
            "texts": Tab(
                lambda: texts(_dense_and_cut(base, tokenizer, data), tokenizer, data),
                "Does a model that lost most of its neurons still write the same?",
                "Words in [brackets] are not in the dense model's text. Find a prompt where even "
                "the smallest model writes the same.",
            ),
            "replay": Tab(
                lambda: replay(_recorded(model, tokenizer, data, steps)),
                "Who leaves when, while a model is trained?",
                "Move the frame to the right. Does a neuron that has left ever come back?",
            ),
            "budget": Tab(
                lambda: budget(base),
                "What do fewer neurons save?",
                "Keep half of the neurons. Do the parameters halve too, and the time?",
            ),
        }
    )


def _dense_and_cut(base: nn.Module, tokenizer: Any, task: Task) -> dict[str, nn.Module]:
    """The dense model and two that were cut without training, by few examples: a reader waits."""
    models = {"dense": base}
    for keep in (0.25, 0.1):
        small = prune(base, "recommended", tokenizer, task, keep=keep, limit=64)
        models[f"{keep:.0%} kept"] = small
    return models


def _recorded(model: str, tokenizer: Any, task: Task, steps: int) -> History:
    """A short run of GUM, every step recorded."""
    fresh, _ = load(model)
    pruner = Pruner(fresh, "gum", keep=0.25, steps=steps)
    return train(
        fresh,
        tokenizer,
        task,
        steps=steps,
        pruner=pruner,
        batch_size=8,
        record=1,
        progress=False,
    )
