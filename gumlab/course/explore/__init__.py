"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.course.explore.base import Explorer, labelled, one_shot_loss
from gumlab.course.explore.cuts import Removal, Tradeoff, removal, tradeoff
from gumlab.course.explore.models import Activations, Budget, Texts, activations, budget, texts
from gumlab.course.explore.runs import Replay, replay
from gumlab.course.explore.studies import Claims, Healing, claims, healing
from gumlab.course.explore.tabs import Page, Tab, page
from gumlab.course.explore.touching import Touched, touch
from gumlab.course.explore.uniqueness import Deletion, Twins, Worth, deletion, twins, worth
from gumlab.course.explore.writing import RealSentence, Sentence, real_sentence, sentence

__all__ = [
    "Activations",
    "Budget",
    "Claims",
    "Deletion",
    "Explorer",
    "Healing",
    "Page",
    "RealSentence",
    "Removal",
    "Replay",
    "Sentence",
    "Tab",
    "Texts",
    "Touched",
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
    "real_sentence",
    "removal",
    "replay",
    "sentence",
    "texts",
    "touch",
    "tradeoff",
    "twins",
    "worth",
]
