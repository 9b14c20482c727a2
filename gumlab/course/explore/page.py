"""All explorers on one page: a tab each, made when it is opened."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets
from torch import nn

from gumlab.course.explore.redundancy import deletion, worth
from gumlab.course.explore.removal import removal, tradeoff
from gumlab.course.explore.stories import activations, budget, replay, texts
from gumlab.course.explore.twins import twins
from gumlab.errors import GumlabError
from gumlab.io.loading import load
from gumlab.pruner import Pruner
from gumlab.removal import prune
from gumlab.tasks import load_task
from gumlab.training import train


class Page(widgets.Tab):
    """A tab for each explorer; see `page`."""

    def __init__(self, makers: dict[str, Callable[[], widgets.Widget]]) -> None:
        self._titles = list(makers)
        self._makers: list[Callable[[], widgets.Widget] | None] = list(makers.values())
        super().__init__([widgets.HTML("<p>computing ...</p>") for _ in makers])
        for i, title in enumerate(makers):
            self.set_title(i, title)
        self.selected_index = 0
        self.observe(lambda change: self._open(change["new"]), "selected_index")
        self._open(0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._titles)})"

    def _open(self, index: int | None) -> None:
        maker = None if index is None else self._makers[index]
        if index is None or maker is None:
            return
        self._makers[index] = None
        try:
            made = maker()
        except GumlabError as error:
            made = widgets.HTML(f'<p role="alert">{html.escape(str(error))}</p>')
        self.children: Any = [*self.children[:index], made, *self.children[index + 1 :]]


def page(model: str = "tiny-gpt2", task: str = "restaurants", steps: int = 60) -> Page:
    """Every explorer, on one model and task; what needs training trains `steps` steps first."""
    base, tokenizer = load(model)
    data = load_task(task)
    given = (base, tokenizer, data)
    example = data.test[0]
    text = f"{example.prompt} {example.target}"
    return Page(
        {
            "remove": partial(removal, *given),
            "activations": partial(activations, base, tokenizer, text),
            "trade-off": partial(tradeoff, *given),
            "used x unique": partial(worth, *given),
            "twins": partial(twins, *given),
            "delete one": partial(deletion, *given),
            "texts": lambda: texts(_pruned(*given), tokenizer, data),
            "replay": lambda: replay(_recorded(model, tokenizer, data, steps)),
            "budget": partial(budget, base),
        }
    )


def _pruned(base: nn.Module, tokenizer: Any, task: Any) -> dict[str, nn.Module]:
    """The dense model and two that were cut without training."""
    cut = {f"{keep:.0%} kept": prune(base, "recommended", tokenizer, task, keep=keep)
           for keep in (0.25, 0.1)}  # fmt: skip
    return {"dense": base, **cut}


def _recorded(model: str, tokenizer: Any, task: Any, steps: int) -> Any:
    """A short run of GUM, every step recorded."""
    mine, _ = load(model)
    pruner = Pruner(mine, "gum", keep=0.25, steps=steps)
    options: dict[str, Any] = {"steps": steps, "batch_size": 8, "record": 1, "progress": False}
    return train(mine, tokenizer, task, pruner=pruner, **options)
