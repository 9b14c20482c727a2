"""Interactive explorers: controls above a picture and a sentence.

An explorer is a `VBox` of core ipywidgets. A moved control gives a new state; the state's answer is
computed once, a pure builder of `plots` draws it once, and both are kept; picture and sentence go
to the values of two HTML widgets. Nothing is ever printed.
"""

from __future__ import annotations

import base64
import gc
import html
import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
from torch import Tensor, nn

from gumlab.course import plots
from gumlab.errors import GumlabError
from gumlab.evaluation import mean_target_loss
from gumlab.gating import gate
from gumlab.tasks import Example

SLOW = 0.3  # seconds; above it the other controls wait and the sentence says so


class Explorer(widgets.VBox):
    """Controls, a picture, a sentence. A subclass says what to compute and how to draw it.

    controls: name -> widget; the names are `compute`'s arguments. Read `.sentence`, `.plot` (the
    figure, drawn anew) and `.error` (the exception behind a red sentence, or None); set a control
    from code by `explorer.controls["keep"].value = 25`.
    """

    alt = "A figure; the sentence below it says what it shows."
    _ipython_display_ = None  # with ipywidgets 7 this would hide the picture from GitHub

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls = dict(controls)
        self.sentence = self._image = ""
        self.error: Exception | None = None
        self._answers: dict[tuple, Any] = {}
        self._drawn: dict[Hashable, tuple[str, str]] = {}  # picture (base64) and sentence
        self._last_seconds = 0.0
        self._picture, self._words = widgets.HTML(), widgets.HTML()
        row = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([row, self._picture, self._words])
        for control in controls.values():
            control.observe(lambda change: self._update(change["owner"]), "value")
        self._update()
        gc.freeze()  # else every few pictures the collector walks all of torch, half a second

    def compute(self, **state: Any) -> Any:
        """The answer to a state; called once per state. Raise GumlabError for a wrong one."""
        raise NotImplementedError

    def draw(self, answer: Any, **state: Any) -> plots.Plot:
        """The figure and sentence of an answer."""
        raise NotImplementedError

    @property
    def plot(self) -> plots.Plot | None:
        """What is shown, as a figure; None where a red sentence stands."""
        state = self.state()
        answered = self._answers.get(tuple(state.items()))
        return self.draw(answered[0], **state) if answered and not self.error else None

    def state(self) -> dict[str, Any]:
        """What the controls say now; a subclass may change units."""
        return {name: control.value for name, control in self.controls.items()}

    def drawn_with(self) -> Hashable:
        """What the picture depends on besides state and answer, such as states seen before."""
        return ()

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
        collects = gc.isenabled()
        gc.disable()  # a collection is slow, and can wait for the answer
        try:
            if key not in self._answers:
                if self.seconds(**state) > SLOW:
                    others = [n for n, c in self.controls.items() if c is not moved]
                    self._switch_off(others)  # the moved one would lose the keyboard's focus
                    self._say("computing ...")
                self._answers[key] = self._timed(state)
            answer, notes = self._answers[key]
            picture = (key, self.drawn_with())
            if picture not in self._drawn:
                plot = self.draw(answer, **state)
                self._drawn[picture] = base64.b64encode(plot.png(1)).decode(), plot.sentence
            self._image, sentence = self._drawn[picture]
            self._picture.value = (
                f'<img alt="{html.escape(self.alt)}" style="display: block; max-width: 100%" '
                f'src="data:image/png;base64,{self._image}">'
            )
            self._say(" ".join([sentence, *notes]))
        except GumlabError as error:
            self._alert(error, str(error))
        except Exception as error:  # a callback's traceback would vanish in Jupyter's log
            why = f"This failed ({type(error).__name__}: {error})."
            self._alert(error, f"{why} Choose another value; `raise explorer.error` shows where.")
        finally:
            self._switch_off(self.idle(**state))
            if collects:
                gc.enable()
                gc.collect()

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
        self.error, self._image, self.sentence = error, "", sentence
        self._picture.value = ""
        self._words.value = f'<p role="alert" style="color: #A61C00">{html.escape(sentence)}</p>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/plain": self.sentence, "application/vnd.jupyter.widget-view+json": view}
        if self._image:  # what GitHub and nbviewer show
            bundle["image/png"] = self._image
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
