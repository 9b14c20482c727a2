"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.course.explore.page import Page, page
from gumlab.course.explore.redundancy import Deletion, Worth, deletion, worth
from gumlab.course.explore.removal import Removal, Tradeoff, removal, tradeoff
from gumlab.course.explore.stories import (
    Activations,
    Budget,
    Replay,
    Texts,
    activations,
    budget,
    replay,
    texts,
)
from gumlab.course.explore.twins import Twins, twins

__all__ = [
    "Activations",
    "Budget",
    "Deletion",
    "Explorer",
    "Page",
    "Removal",
    "Replay",
    "Texts",
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
    "tradeoff",
    "twins",
    "worth",
]
