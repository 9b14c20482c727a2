"""What all explorers share: controls above a picture and a sentence.

An explorer is a `VBox` of core ipywidgets. A moved control gives a new state; the state's answer is
computed once, a pure builder of `plots` draws it once, and both are kept; picture and sentence go
to the values of two HTML widgets. Nothing is ever printed.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import html
import time
import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
from torch import Tensor, nn

from gumlab.course import plots
from gumlab.errors import GumlabError, check_whole
from gumlab.evaluation import mean_target_loss
from gumlab.gating import gate
from gumlab.tasks import Example, Task

SLOW = 0.3  # seconds; above it the other controls wait and the sentence says so


class Answer(NamedTuple):
    """What `compute` returned, and the warnings it gave."""

    value: Any
    notes: list[str]


class Drawing(NamedTuple):
    """A drawn answer: a PNG file in base64, and its sentence."""

    image: str
    sentence: str


class Explorer(widgets.VBox):
    """Controls, a picture and a sentence that answers them.

    A subclass says what to compute and how to draw it: `compute` takes the controls' values by
    their names, and `draw` makes a `Plot` of what it returns.

    Parameters
    ----------
    controls : mapping of str to Widget
        The controls by name, such as `labelled` makes; their names are `compute`'s arguments.

    Attributes
    ----------
    controls : dict of str to Widget
        The controls; from code, one is moved by `explorer.controls["keep"].value = 25`.
    sentence : str
        What stands below the picture.
    plot : Plot or None
        What is shown, as a figure, drawn anew; None where a red sentence stands.
    error : Exception or None
        What is behind a red sentence.
    alt : str
        What the picture shows, for those who do not see it; a subclass gives its own.

    Examples
    --------
    >>> import ipywidgets
    >>> from gumlab.course import explore, plots
    >>> class Squares(explore.Explorer):
    ...     def compute(self, x):
    ...         return x * x
    ...
    ...     def draw(self, answer, x):
    ...         figure, (ax,) = plots.new_figure()
    ...         ax.plot(x, answer, "o")
    ...         return plots.Plot(figure, f"{x} squared is {answer}.")
    >>> x = explore.labelled(ipywidgets.IntSlider, "x", "a number", value=3, max=9)
    >>> Squares({"x": x}).sentence
    '3 squared is 9.'
    """

    alt = "A figure; the sentence below it says what it shows."
    _ipython_display_ = None  # with ipywidgets 7 this would hide the picture from GitHub

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls = dict(controls)
        self.sentence = ""
        self.error: Exception | None = None
        self._image = ""
        self._answers: dict[Hashable, Answer] = {}  # by state
        self._drawn: dict[Hashable, Drawing] = {}  # by state and `drawn_with`
        self._last_seconds = 0.0
        self._picture = widgets.HTML()
        self._words = widgets.HTML()
        row = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([row, self._picture, self._words])
        for control in controls.values():
            control.observe(lambda change: self._update(change["owner"]), "value")
        self._update()
        gc.freeze()  # else every few pictures the collector walks all of torch, half a second

    # `*args` below is never passed: with it mypy lets a subclass name its controls as arguments

    def compute(self, *args: Any, **state: Any) -> Any:
        """Answer a state; a subclass must.

        Parameters
        ----------
        **state
            The controls' values by name, as `state` returns them.

        Returns
        -------
        Any
            What `draw` needs; it is kept, so a state is computed once.

        Raises
        ------
        GumlabError
            If the state is a wrong one; the message becomes a red sentence.
        """
        raise NotImplementedError

    def draw(self, answer: Any, *args: Any, **state: Any) -> plots.Plot:
        """Draw an answer; a subclass must.

        Parameters
        ----------
        answer : Any
            What `compute` returned.
        **state
            The controls' values by name.

        Returns
        -------
        Plot
            The figure and its sentence.
        """
        raise NotImplementedError

    @property
    def plot(self) -> plots.Plot | None:
        """What is shown, as a figure; None where a red sentence stands."""
        state = self.state()
        answer = self._answers.get(tuple(state.items()))
        if answer is None or self.error is not None:
            return None
        return self.draw(answer.value, **state)

    def state(self) -> dict[str, Any]:
        """What the controls say now, by name; a subclass may change units."""
        return {name: control.value for name, control in self.controls.items()}

    def drawn_with(self) -> Hashable:
        """What the picture depends on besides state and answer, such as states seen before."""
        return ()

    def idle(self, *args: Any, **state: Any) -> Collection[str]:
        """The names of the controls that mean nothing in a state; they are switched off."""
        return ()

    def seconds(self, *args: Any, **state: Any) -> float:
        """How long `compute` will take, about; by default as long as the last time."""
        return self._last_seconds

    def _update(self, moved: widgets.Widget | None = None) -> None:
        """Answer what the controls say now; moved: the control that was moved, if one was."""
        self.error = None
        state = self.state()
        with _collecting_afterwards():
            try:
                answer = self._answer(state, moved)
                drawing = self._draw(state, answer)
                self._show(drawing, answer.notes)
            except GumlabError as error:
                self._alert(error, str(error))
            except Exception as error:  # a callback's traceback would vanish in Jupyter's log
                self._alert(
                    error,
                    f"This failed ({type(error).__name__}: {error}). Choose another value; "
                    "`raise explorer.error` shows where.",
                )
            finally:
                self._switch_off(self.idle(**state))

    def _answer(self, state: dict[str, Any], moved: widgets.Widget | None) -> Answer:
        """The answer to a state, computed if it is not kept."""
        key = tuple(state.items())
        if key not in self._answers:
            if self.seconds(**state) > SLOW:
                # the moved one would lose the keyboard's focus
                others = [name for name, control in self.controls.items() if control is not moved]
                self._switch_off(others)
                self._say("computing ...")
            self._answers[key] = self._compute(state)
        return self._answers[key]

    def _compute(self, state: dict[str, Any]) -> Answer:
        """Compute a state's answer, time it, and keep its warnings: they belong to the sentence."""
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = self.compute(**state)
        self._last_seconds = time.perf_counter() - began
        notes = [str(warning.message) for warning in caught if warning.category is UserWarning]
        return Answer(value, notes)

    def _draw(self, state: dict[str, Any], answer: Answer) -> Drawing:
        """The drawing of an answer, made if it is not kept."""
        key = (tuple(state.items()), self.drawn_with())
        if key not in self._drawn:
            plot = self.draw(answer.value, **state)
            image = base64.b64encode(plot.png(compress=1)).decode()
            self._drawn[key] = Drawing(image, plot.sentence)
        return self._drawn[key]

    def _show(self, drawing: Drawing, notes: Sequence[str]) -> None:
        self._image = drawing.image
        self._picture.value = (
            f'<img alt="{html.escape(self.alt)}" style="display: block; max-width: 100%" '
            f'src="data:image/png;base64,{drawing.image}">'
        )
        self._say(" ".join([drawing.sentence, *notes]))

    def _say(self, sentence: str) -> None:
        self.sentence = sentence
        self._words.value = f'<p role="status" aria-live="polite">{html.escape(sentence)}</p>'

    def _alert(self, error: Exception, sentence: str) -> None:
        """Show a red sentence and no picture."""
        self.error = error
        self.sentence = sentence
        self._image = ""
        self._picture.value = ""
        self._words.value = f'<p role="alert" style="color: #A61C00">{html.escape(sentence)}</p>'

    def _switch_off(self, names: Collection[str]) -> None:
        """Switch off the controls of these names, and all others on."""
        for name, control in self.controls.items():
            control.disabled = name in names

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/plain": self.sentence, "application/vnd.jupyter.widget-view+json": view}
        if self._image:  # what GitHub and nbviewer show
            bundle["image/png"] = self._image
        return bundle

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={control.value!r}" for name, control in self.controls.items())
        return f"{type(self).__name__}({settings}: {self.sentence})"


@contextlib.contextmanager
def _collecting_afterwards() -> Iterator[None]:
    """Put the garbage collector off: a collection is slow, and can wait for the answer."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            gc.collect()


def labelled(kind: type[widgets.Widget], label: str, tooltip: str, **options: Any) -> Any:
    """Make a control with a visible label and a tooltip; a slider answers when it is let go.

    Parameters
    ----------
    kind : type of Widget
        A class of ipywidgets, such as `IntSlider` or `Dropdown`.
    label : str
        What stands beside the control.
    tooltip : str
        What it says when the mouse rests on it.
    **options
        What the class takes besides, such as `value`, `min`, `max` and `step`, or `options`.

    Returns
    -------
    Widget
        The control.
    """
    if issubclass(kind, widgets.IntSlider | widgets.FloatSlider):
        options["continuous_update"] = False
    options["layout"] = {"width": "28em", "margin": "2px 1.5em 2px 2px"}
    control = kind(description=label, style={"description_width": "initial"}, **options)
    # ipywidgets 7 names a slider's tooltip otherwise
    trait = "tooltip" if control.has_trait("tooltip") else "description_tooltip"
    setattr(control, trait, tooltip)
    return control


def keep_slider(value: int = 50, tooltip: str = "The budget") -> widgets.IntSlider:
    """A slider for the share of neurons kept, 5 to 100 percent in steps of 5."""
    label = "neurons kept (%)"
    return labelled(widgets.IntSlider, label, tooltip, value=value, min=5, max=100, step=5)


def first_examples(task: Task, split: str, count: int) -> list[Example]:
    """The first examples of a split.

    Parameters
    ----------
    task : Task
        Whose examples.
    split : str
        "train", "validation" or "test".
    count : int
        How many, 1 or more.

    Raises
    ------
    GumlabError
        For something else than a task, a count that cannot be, or an empty split.
    """
    if not isinstance(task, Task):
        raise GumlabError(f"task must be a Task, as gumlab.load_task gives it; got {task!r:.60}.")
    check_whole("examples", count)
    return task.split(split)[:count]


def one_shot_loss(
    model: nn.Module, masks: Sequence[Tensor], tokenizer: Any, examples: Sequence[Example]
) -> float:
    """Measure the loss with only the masks' neurons; nothing is trained or changed.

    Parameters
    ----------
    model : Module
        The dense model.
    masks : sequence of Tensor
        A (N,) bool tensor per layer, True for a neuron that stays.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    examples : sequence of Example
        What the loss is measured on.

    Returns
    -------
    float
        The mean loss in nats per target token.
    """
    with gate(model, masks):
        return mean_target_loss(model, tokenizer, examples)
