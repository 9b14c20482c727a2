"""Interactive explorers: controls above a picture and a sentence; `base` says how they work."""

from gumlab.explore.base import Explorer, labelled, one_shot_loss
from gumlab.explore.redundancy import Deletion, Worth, deletion, worth
from gumlab.explore.removal import Removal, removal

__all__ = [
    "Deletion",
    "Explorer",
    "Removal",
    "Worth",
    "deletion",
    "labelled",
    "one_shot_loss",
    "removal",
    "worth",
]
