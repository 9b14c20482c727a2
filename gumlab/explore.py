"""Interactive explorers: controls above a picture and a sentence.

An explorer is a `VBox` of core ipywidgets. A moved control gives a new state; the state's answer is
computed once and kept; a pure builder of `plots` draws it; picture and sentence go to the values of
two HTML widgets. Nothing is ever printed.
"""

from __future__ import annotations

import base64
import html
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from torch import Tensor, nn

from gumlab import plots
from gumlab.errors import GumlabError
from gumlab.evaluation import mean_target_loss
from gumlab.feedforward import neurons
from gumlab.gating import gate
from gumlab.scoring import score
from gumlab.selection import SCOPES, select
from gumlab.tasks import Example, Task

SLOW = 0.3  # seconds; above it the other controls wait and the sentence says so


class Explorer(widgets.VBox):
    """Controls, a picture, a sentence. A subclass says what to compute and how to draw it.

    controls: name -> widget; the names are `compute`'s arguments. Read `.sentence`, `.plot` (the
    figure) and `.error` (the exception behind a red sentence, or None); set a control from code by
    `explorer.controls["keep"].value = 25`.
    """

    alt = "A figure; the sentence below it says what it shows."
    _ipython_display_ = None  # with ipywidgets 7 this would hide the picture from GitHub

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls = dict(controls)
        self.sentence, self.plot, self.error = "", None, None
        self._answers: dict[tuple, Any] = {}
        self._last_seconds = 0.0
        self._picture, self._words = widgets.HTML(), widgets.HTML()
        row = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([row, self._picture, self._words])
        for control in controls.values():
            control.observe(lambda change: self._update(change["owner"]), "value")
        self._update()

    def compute(self, **state: Any) -> Any:
        """The answer to a state; called once per state. Raise GumlabError for a wrong one."""
        raise NotImplementedError

    def draw(self, answer: Any, **state: Any) -> plots.Plot:
        """The figure and sentence of an answer."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What the controls say now; a subclass may change units."""
        return {name: control.value for name, control in self.controls.items()}

    def idle(self, **state: Any) -> Sequence[str]:
        """The controls that mean nothing in this state; they are switched off."""
        return ()

    def seconds(self, **state: Any) -> float:
        """How long `compute` will take, about; by default as long as the last time."""
        return self._last_seconds

    def _update(self, moved: widgets.Widget | None = None) -> None:
        self.error = None
        state = self.state()
        key = tuple(state.items())
        try:
            if key not in self._answers:
                if self.seconds(**state) > SLOW:
                    others = [n for n, c in self.controls.items() if c is not moved]
                    self._switch_off(others)  # the moved one would lose the keyboard's focus
                    self._say("computing ...")
                self._answers[key] = self._timed(state)
            answer, notes = self._answers[key]
            self.plot = self.draw(answer, **state)
            image = base64.b64encode(self.plot.png()).decode()
            self._picture.value = (
                f'<img alt="{html.escape(self.alt)}" style="display: block; max-width: 100%" '
                f'src="data:image/png;base64,{image}">'
            )
            self._say(" ".join([self.plot.sentence, *notes]))
        except GumlabError as error:
            self._alert(error, str(error))
        except Exception as error:  # a callback's traceback would vanish in Jupyter's log
            why = f"This failed ({type(error).__name__}: {error})."
            self._alert(error, f"{why} Choose another value; `raise explorer.error` shows where.")
        finally:
            self._switch_off(self.idle(**state))

    def _timed(self, state: dict[str, Any]) -> tuple[Any, list[str]]:
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:  # a warning belongs to the sentence
            warnings.simplefilter("always")
            answer = self.compute(**state)
        self._last_seconds = time.perf_counter() - began
        return answer, [str(w.message) for w in caught if w.category is UserWarning]

    def _switch_off(self, names: Sequence[str]) -> None:
        for name, control in self.controls.items():
            control.disabled = name in names

    def _say(self, sentence: str) -> None:
        self.sentence = sentence
        self._words.value = f'<p role="status" aria-live="polite">{html.escape(sentence)}</p>'

    def _alert(self, error: Exception, sentence: str) -> None:
        self.error, self.plot, self.sentence = error, None, sentence
        self._picture.value = ""
        self._words.value = f'<p role="alert" style="color: #A61C00">{html.escape(sentence)}</p>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/plain": self.sentence, "application/vnd.jupyter.widget-view+json": view}
        if self.plot is not None:  # what GitHub and nbviewer show
            bundle["image/png"] = base64.b64encode(self.plot.png()).decode()
        return bundle

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={control.value!r}" for name, control in self.controls.items())
        return f"{type(self).__name__}({settings}: {self.sentence})"


def labelled(kind: type[widgets.Widget], label: str, tooltip: str, **options: Any) -> Any:
    """A control with a visible label and a tooltip; a slider answers when it is let go."""
    if issubclass(kind, widgets.IntSlider | widgets.FloatSlider):
        options["continuous_update"] = False
    options["layout"] = {"width": "28em", "margin": "2px 1.5em 2px 2px"}
    control = kind(description=label, style={"description_width": "initial"}, **options)
    # ipywidgets 7 names a slider's tooltip otherwise
    setattr(control, "tooltip" if control.has_trait("tooltip") else "description_tooltip", tooltip)
    return control


def one_shot_loss(
    model: nn.Module, masks: Sequence[Tensor], tokenizer: Any, examples: Sequence[Example]
) -> float:
    """Loss per target token with only the masks' neurons; nothing is trained or changed."""
    with gate(model, masks):
        return mean_target_loss(model, tokenizer, examples)


class Removal(Explorer):
    """Remove neurons by a score and see who stays and what it costs; see `removal`."""

    alt = "Left: which neurons of each layer stay. Right: loss against the share of neurons kept."
    grid = (0.05, 0.1, 0.25, 0.5, 0.75)

    def __init__(self, model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> None:
        self.model, self.tokenizer, self.layers = model, tokenizer, neurons(model)
        self.examples = task.split("validation")[:examples]
        self.parameters = sum(p.numel() for p in model.parameters())
        self._curves: dict[tuple, dict[float, float]] = {}
        began = time.perf_counter()
        everyone = [torch.ones(layer.width, dtype=torch.bool) for layer in self.layers]
        self.dense = one_shot_loss(model, everyone, tokenizer, self.examples)
        self._seconds_a_point = time.perf_counter() - began
        reach = "The same share of every layer, or a ranking of all layers' neurons together"
        share = "How many of all feed-forward neurons stay, in percent"
        choice = labelled(widgets.Dropdown, "score", "Who stays", options=["random", "magnitude"])
        scope = labelled(widgets.Dropdown, "scope", reach, options=SCOPES)
        percent = {"value": 50, "min": 5, "max": 100, "step": 5}
        keep = labelled(widgets.IntSlider, "neurons kept (%)", share, **percent)
        seed = labelled(widgets.IntSlider, "seed", "Another random draw", max=9)
        super().__init__({"method": choice, "scope": scope, "keep": keep, "seed": seed})

    def state(self) -> dict[str, Any]:
        now = super().state()
        return {**now, "keep": now["keep"] / 100, "seed": now["seed"] if self._draws(now) else 0}

    def idle(self, **state: Any) -> Sequence[str]:
        return () if self._draws(state) else ("seed",)

    def seconds(self, **state: Any) -> float:
        return len(self._missing(**state)) * self._seconds_a_point

    def compute(self, method: str, scope: str, keep: float, seed: int) -> list[Tensor]:
        """The masks of this state; measures the points of its curve that are still missing."""
        scores = score(self.model, method, seed=seed)
        masks = select(scores, keep, scope)
        curve = self._curves.setdefault((method, scope, seed), {1.0: self.dense})
        with warnings.catch_warnings():  # about other points of the curve
            warnings.simplefilter("ignore")
            for k in self._missing(method, scope, keep, seed):
                chosen = masks if k == keep else select(scores, k, scope)
                curve[k] = one_shot_loss(self.model, chosen, self.tokenizer, self.examples)
        return masks

    def draw(self, answer: list[Tensor], **state: Any) -> plots.Plot:
        now = (state["method"], state["scope"], state["seed"])
        latest = [key for key in self._curves if key != now][:-4:-1]  # three curves seen before
        curves = {self._label(*key): self._curves[key] for key in (now, *latest)}
        plot = plots.removal(answer, curves, state["keep"])
        pairs = zip(self.layers, answer, strict=True)
        gone = sum(layer.parameters_per_neuron() * int((~mask).sum()) for layer, mask in pairs)
        left, share = self.parameters - gone, 1 - gone / self.parameters
        plot.sentence += f" {left:,} of {self.parameters:,} parameters are left ({share:.0%})."
        return plot

    def _missing(self, method: str, scope: str, keep: float, seed: int) -> list[float]:
        known = self._curves.get((method, scope, seed), {1.0: self.dense})
        least = len(self.layers) / sum(layer.width for layer in self.layers)  # one in each layer
        return [k for k in {*self.grid, keep} if k not in known and k >= least]

    @staticmethod
    def _draws(state: Mapping[str, Any]) -> bool:
        return state["method"] == "random"

    @staticmethod
    def _label(method: str, scope: str, seed: int) -> str:
        label = f"{method}, {'by layer' if scope == 'layer' else 'global'}"
        return f"{label}, seed {seed}" if method == "random" else label


def removal(model: nn.Module, tokenizer: Any, task: Task, examples: int = 16) -> Removal:
    """Remove neurons at random or by magnitude, without training: who stays, and the loss.

    The loss is measured live on the task's first `examples` validation examples. Answers are kept,
    so make a new explorer after changing the model.
    """
    return Removal(model, tokenizer, task, examples)
