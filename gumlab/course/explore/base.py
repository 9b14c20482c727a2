"""What all explorers share: controls above a picture and a sentence.

An explorer is a `VBox` of core ipywidgets. A moved control gives a new state; the state's answer is
computed once, a pure builder of `plots` draws it once, and both are kept; picture and sentence go
to the values of two HTML widgets. Nothing is ever printed. Over the picture lies a `Pointer`, where
anywidget is there: a click selects a neuron, and the sentence then tells of it.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import html
import time
import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import ipywidgets as widgets
from torch import Tensor, nn

from gumlab.course import plots
from gumlab.course.explore.portraits import Portraits
from gumlab.course.plots.places import text_of
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
    """A drawn answer: a PNG file in base64, its sentence, and where its neurons are."""

    image: str
    sentence: str
    placed: list[dict[str, Any]]


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
    selected : (int or None, int) or None
        Layer and number of the selected neuron, if one is.
    portraits : Portraits or None
        What tells twin and texts of a selected neuron; a subclass that has a model makes it.
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
    portraits: Portraits | None = None
    _ipython_display_ = None  # with ipywidgets 7 this would hide the picture from GitHub

    def __init__(self, controls: Mapping[str, widgets.Widget]) -> None:
        self.controls = dict(controls)
        self.sentence = ""
        self._last_answer = ""
        self.selected: tuple[int | None, int] | None = None
        self.error: Exception | None = None
        self._selecting = False
        self._image = ""
        self._answers: dict[Hashable, Answer] = {}  # by state
        self._drawn: dict[Hashable, Drawing] = {}  # by state and `drawn_with`
        self._last_seconds = 0.0
        self._picture = widgets.HTML()
        self._words = widgets.HTML()
        self._pointer = _new_pointer()
        row = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        touched = widgets.VBox([self._picture], layout={"overflow": "hidden"})
        touched.add_class("gumlab-picture")
        if self._pointer is not None:
            touched.children = [self._picture, self._pointer]
            self._pointer.observe(lambda change: self._clicked(change["new"]), "selected")
        super().__init__([row, touched, self._words])
        for control in controls.values():
            control.observe(lambda change: self._moved(change["owner"]), "value")
        self._update()

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

    def select(self, layer: int | None, neuron: int) -> None:
        """Select a neuron, as a click on it does: the sentence tells of it, its twin and texts.

        Parameters
        ----------
        layer : int or None
            Its layer; None in a picture that does not know it.
        neuron : int
            Its number. Controls named layer and neuron, where there are any, go there.
        """
        self.selected = (layer, neuron)
        self._selecting = True  # the controls move together: one answer for both
        try:
            for name, value in (("layer", layer), ("neuron", neuron)):
                if name in self.controls:
                    self.controls[name].value = value
        finally:
            self._selecting = False
        self._update()

    def _clicked(self, place: Sequence[int]) -> None:
        """Select what the browser says, if it is news."""
        if place and tuple(place) != self.selected:
            self.select(*place)

    def _moved(self, control: widgets.Widget) -> None:
        """Answer a moved control; where one names a neuron, it is selected."""
        if self._selecting:
            return
        layer: Any = self.controls.get("layer")
        neuron: Any = self.controls.get("neuron")
        names_a_neuron = layer is not None and neuron is not None and control in (layer, neuron)
        if self.portraits is not None and names_a_neuron:
            last = self.portraits.width(layer.value) - 1
            self.selected = (layer.value, min(neuron.value, last))
        self._update(control)

    def _update(self, moved: widgets.Widget | None = None) -> None:
        """Answer what the controls say now; moved: the control that was moved, if one was."""
        self.error = None
        state = self.state()
        try:
            answer = self._answer(state, moved)
            self._show(self._draw(state, answer), answer.notes)
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
                self._say("computing ...", waits=True)
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
            with _collecting_young():
                self._drawn[key] = self._drawing(state, answer)
        return self._drawn[key]

    def _drawing(self, state: dict[str, Any], answer: Answer) -> Drawing:
        plot = self.draw(answer.value, **state)
        image = base64.b64encode(plot.png(compress=1)).decode()
        return Drawing(image, plot.sentence, plot.placed())

    def _show(self, drawing: Drawing, notes: Sequence[str]) -> None:
        self._image = drawing.image
        width, height = _size(drawing.image)  # keeps its room free while the picture changes
        self._picture.value = (
            f'<img alt="{html.escape(self.alt)}" width="{width}" height="{height}" '
            f'style="display: block; max-width: 100%; height: auto" '
            f'src="data:image/png;base64,{drawing.image}">'
        )
        self._point(drawing.placed)
        sentence = " ".join([drawing.sentence, *notes])
        if self.selected is not None:
            sentence += f"\n{self._told(drawing, *self.selected)}"
        self._say(sentence)

    def _point(self, placed: list[dict[str, Any]]) -> None:
        """Tell the pointer where the neurons are, and which one is selected."""
        if self._pointer is not None:
            self._pointer.places = placed
            self._pointer.selected = list(self.selected or ())
            if self.selected is None:
                self._pointer.twin = []

    def _told(self, drawing: Drawing, layer: int | None, neuron: int) -> str:
        """What is to be said of the selected neuron."""
        name = f"neuron {neuron}" if layer is None else f"layer {layer}, neuron {neuron}"
        text = text_of(drawing.placed, layer, neuron)
        selected = f"Selected: {name}: {text}." if text else f"Selected: {name}."
        if self.portraits is None or layer is None:
            return selected
        if not self.portraits.known(layer):
            self._say(f"{selected} computing ...", waits=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that long texts are cut, say
            told = self.portraits.tell(layer, neuron)
        if self._pointer is not None:
            twin, _ = self.portraits.twin(layer, neuron)
            self._pointer.twin = [layer, twin]
        return f"{selected} {told}"

    def _say(self, sentence: str, waits: bool = False) -> None:
        """Show a sentence; one that waits leaves the last answer its room: nothing jumps."""
        self.sentence = sentence
        unseen = ""
        if waits:
            unseen = f'<span style="visibility: hidden"> {html.escape(self._last_answer)}</span>'
        else:
            self._last_answer = sentence
        self._words.value = (
            '<p role="status" aria-live="polite" style="white-space: pre-line; line-height: 1.5">'
            f"{html.escape(sentence)}{unseen}</p>"
        )

    def _alert(self, error: Exception, sentence: str) -> None:
        """Show a red sentence and no picture."""
        self.error = error
        self.selected = None
        self._point([])
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
def _collecting_young() -> Iterator[None]:
    """Keep the garbage collector off while a figure is drawn, and let it take that figure then.

    All of the figure is young then, so this takes a moment. Figures that grow old would make the
    collector walk all of torch every few pictures, which takes half a second.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            gc.collect(0)


def _new_pointer() -> Any:
    """A pointer, or None: without anywidget a picture cannot be touched."""
    if find_spec("anywidget") is None:
        return None
    from gumlab.course.pointer import Pointer

    return Pointer()


def _size(image: str) -> tuple[int, int]:
    """Width and height of a PNG file in base64, in pixels: its header has them."""
    header = base64.b64decode(image[:32])
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


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
    options["layout"] = {"width": "28em", "max_width": "97%", "margin": "2px 1.5em 2px 2px"}
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
