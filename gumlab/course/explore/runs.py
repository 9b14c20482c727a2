"""Explorer of a recorded run: who is there step by step, and by which scores."""

from __future__ import annotations

import ipywidgets as widgets

from gumlab.course import plots
from gumlab.course.explore.base import Explorer, labelled
from gumlab.errors import GumlabError
from gumlab.training import History


class Replay(Explorer):
    """Show a pruning run step by step; `replay` makes one.

    Attributes
    ----------
    history : History
        The run.
    """

    alt = "Left: who is there. Middle: neurons kept and loss by step. Right: one layer's scores."

    def __init__(self, history: History) -> None:
        if not isinstance(history, History):
            raise GumlabError(
                f"Expected the History that gumlab.train returned, got {history!r:.60}."
            )
        frames = history.frames
        if len(frames) < 2:
            recorded = "one frame" if frames else "no frames"
            raise GumlabError(
                f"This history has {recorded} to replay; it takes two. Ask for them: "
                "gumlab.train(model, tokenizer, task, pruner=pruner, record=1)."
            )
        self.history = history
        last_frame = len(frames) - 1
        last_layer = len(frames[0].masks) - 1
        super().__init__(
            {
                "frame": labelled(
                    widgets.IntSlider,
                    "frame",
                    "A recorded step",
                    value=last_frame // 3,
                    max=last_frame,
                ),
                "layer": labelled(widgets.IntSlider, "layer", "Whose scores", max=last_layer),
            }
        )

    def compute(self, frame: int, layer: int) -> None:
        """Nothing: the frames are there."""

    def draw(self, answer: None, frame: int, layer: int) -> plots.Plot:
        """Draw this frame, and the layer's scores up to it."""
        return plots.replay(self.history, frame, layer)


def replay(history: History) -> Replay:
    """Replay a recorded run: who is there at each step, and the scores.

    Parameters
    ----------
    history : History
        What `gumlab.train(..., pruner=pruner, record=1)` returned.

    Returns
    -------
    Replay
        The explorer. Controls: `frame`, which recorded step; `layer`, whose scores. Picture: left
        every neuron, dark if it is there; in the middle the share of neurons kept and the loss by
        step; right the layer's scores so far, and the lowest that is there.

    Raises
    ------
    GumlabError
        If fewer than two steps were recorded.
    """
    return Replay(history)
