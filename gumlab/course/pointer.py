"""The pointer over a picture of neurons: it names them, and a click or a key selects one.

Needs anywidget. `pointer.js` is what runs in the browser; the picture itself is another widget, so
it stays where the browser cannot show this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
from traitlets import List

HERE = Path(__file__).parent


class Pointer(anywidget.AnyWidget):
    """An invisible layer over the picture that stands before it in the same box.

    Attributes
    ----------
    places : list of dict
        Where the neurons are, as `Plot.placed` gives it.
    selected : list
        Layer and number of the selected neuron; empty where none is. The browser sets it too.
    twin : list
        Layer and number of the selected neuron's twin, or empty.
    """

    _esm = HERE / "pointer.js"
    _css = HERE / "pointer.css"
    places: Any = List().tag(sync=True)
    selected: Any = List().tag(sync=True)
    twin: Any = List().tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.add_class("gumlab-pointer")
