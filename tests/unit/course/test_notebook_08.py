"""Notebook 08's class is GUM: with the exercises' references it keeps whom gumlab's keeps."""

from __future__ import annotations

import nbformat
import pytest
import torch
from helpers import ROOT

import gumlab as gl
from gumlab.course import check
from gumlab.course.bench import Learned
from gumlab.scoring import neuron_gradient

EXERCISES = ("similarity_to_kept", "gum_gradient", "gum_slopes")


@pytest.fixture(scope="module")
def notebooks_class():
    cells = nbformat.read(ROOT / "notebooks/08_gum.ipynb", as_version=4).cells
    (part,) = [c.source for c in cells if "class YourGUM" in c.source]
    scope = {name: vars(check)[name].reference for name in EXERCISES}
    scope |= {"gl": gl, "Learned": Learned, "neuron_gradient": neuron_gradient}
    scope |= {"LAMBDA_GUM": 4.0, "PENALTY": 0.3}
    exec(part, scope)
    return scope["YourGUM"]


@pytest.mark.parametrize("keep", [0.5, 0.1])
def test_the_class_of_the_notebook_keeps_the_neurons_that_gum_keeps(keep, notebooks_class):
    bench = gl.workbench("tiny-gpt2", "restaurants", keep=keep, steps=18, batch_size=2, examples=4)
    mine = bench.run(notebooks_class())
    gums = bench.run("gum", lambda_gum=4.0, penalty=0.3)
    without = bench.run("gum", lambda_gum=0.0, penalty=0.3)
    same = (torch.cat(mine.masks) == torch.cat(gums.masks)).double().mean()
    assert same > 0.99
    assert not torch.equal(torch.cat(gums.masks), torch.cat(without.masks))
