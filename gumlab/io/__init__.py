"""Models in and out: load, save, the model card, and what is in a folder."""
