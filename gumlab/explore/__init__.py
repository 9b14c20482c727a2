"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.explore.base import Explorer, labelled, one_shot_loss
from gumlab.explore.page import Page, page
from gumlab.explore.redundancy import Deletion, Worth, deletion, worth
from gumlab.explore.removal import Removal, Tradeoff, removal, tradeoff
from gumlab.explore.stories import (
    Activations,
    Budget,
    Replay,
    Texts,
    activations,
    budget,
    replay,
    texts,
)
from gumlab.explore.twins import Twins, twins

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
