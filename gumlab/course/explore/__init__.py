"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.course.explore.cuts import Removal, Tradeoff, removal, tradeoff
from gumlab.course.explore.models import Activations, Budget, Texts, activations, budget, texts
from gumlab.course.explore.runs import Replay, replay
from gumlab.course.explore.tabs import Page, page
from gumlab.course.explore.touching import Touched, touch
from gumlab.course.explore.uniqueness import Deletion, Twins, Worth, deletion, twins, worth

__all__ = [
    "Activations",
    "Budget",
    "Deletion",
    "Explorer",
    "Page",
    "Removal",
    "Replay",
    "Texts",
    "Touched",
    "Tradeoff",
    "Twins",
    "Worth",
    "activations",
    "budget",
    "deletion",
    "labelled",
    "one_shot_loss",
    "page",
    "removal",
    "replay",
    "texts",
    "touch",
    "tradeoff",
    "twins",
    "worth",
]
