"""All explorers on one page: a tab each, made when it is opened."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
from torch import nn

from gumlab.course.explore.cuts import removal, tradeoff
from gumlab.course.explore.models import activations, budget, texts
from gumlab.course.explore.runs import replay
from gumlab.course.explore.uniqueness import deletion, twins, worth
from gumlab.errors import GumlabError, check_whole
from gumlab.io.loading import load
from gumlab.pruner import Pruner
from gumlab.removal import prune
from gumlab.tasks import Task, load_task
from gumlab.training import History, train


class Page(widgets.Tab):
    """A tab for each explorer, which is made when the tab is first opened; `page` makes one.

    Parameters
    ----------
    makers : mapping of str to callable
        For each tab's title a function without arguments that returns a widget. The first is called
        at once; where one raises GumlabError, the tab holds its message.
    """

    def __init__(self, makers: Mapping[str, Callable[[], widgets.Widget]]) -> None:
        self._titles = list(makers)
        self._makers = list(makers.values())
        self._opened: set[int] = set()
        super().__init__([widgets.HTML("<p>computing ...</p>") for _ in makers])
        for index, title in enumerate(makers):
            self.set_title(index, title)
        self.selected_index = 0
        self.observe(lambda change: self._open(change["new"]), "selected_index")
        self._open(0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._titles)})"

    def _open(self, index: int | None) -> None:
        """Fill a tab, but only once; index: None where no tab is open."""
        if index is None or index in self._opened:
            return
        self._opened.add(index)
        try:
            content = self._makers[index]()
        except GumlabError as error:
            content = widgets.HTML(f'<p role="alert">{html.escape(str(error))}</p>')
        tabs = list(self.children)
        tabs[index] = content
        self.children: Any = tabs


def page(model: str = "tiny-gpt2", task: str = "restaurants", steps: int = 60) -> Page:
    """Put every explorer on one page, for one model and task.

    Parameters
    ----------
    model : str, default "tiny-gpt2"
        What `gumlab.load` takes.
    task : str, default "restaurants"
        What `gumlab.load_task` takes.
    steps : int, default 60
        How many steps the run to replay is trained, when its tab is opened.

    Returns
    -------
    Page
        A tab for each explorer.
    """
    check_whole("steps", steps)
    base, tokenizer = load(model)
    data = load_task(task)
    example = data.test[0]
    text = f"{example.prompt} {example.target}"
    return Page(
        {
            "remove": lambda: removal(base, tokenizer, data),
            "activations": lambda: activations(base, tokenizer, text),
            "trade-off": lambda: tradeoff(base, tokenizer, data),
            "used x unique": lambda: worth(base, tokenizer, data),
            "twins": lambda: twins(base, tokenizer, data),
            "delete one": lambda: deletion(base, tokenizer, data),
            "texts": lambda: texts(_dense_and_cut(base, tokenizer, data), tokenizer, data),
            "replay": lambda: replay(_recorded(model, tokenizer, data, steps)),
            "budget": lambda: budget(base),
        }
    )


def _dense_and_cut(base: nn.Module, tokenizer: Any, task: Task) -> dict[str, nn.Module]:
    """The dense model and two that were cut without training."""
    models = {"dense": base}
    for keep in (0.25, 0.1):
        models[f"{keep:.0%} kept"] = prune(base, "recommended", tokenizer, task, keep=keep)
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
