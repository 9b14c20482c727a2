"""Models in and out: load, save, the model card, the state of a run, what is in a folder."""
