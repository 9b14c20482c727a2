"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.course.explore.cuts import Removal, Tradeoff, removal, tradeoff
from gumlab.course.explore.models import Activations, Budget, Texts, activations, budget, texts
from gumlab.course.explore.runs import Replay, replay
from gumlab.course.explore.studies import Claims, Healing, claims, healing
from gumlab.course.explore.tabs import Page, page
from gumlab.course.explore.uniqueness import Deletion, Twins, Worth, deletion, twins, worth

__all__ = [
    "Activations",
    "Budget",
    "Claims",
    "Deletion",
    "Explorer",
    "Healing",
    "Page",
    "Removal",
    "Replay",
    "Texts",
    "Tradeoff",
    "Twins",
    "Worth",
    "activations",
    "budget",
    "claims",
    "deletion",
    "healing",
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
