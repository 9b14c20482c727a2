"""The examples in the package's docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import gumlab

MODULES = [module.name for module in pkgutil.walk_packages(gumlab.__path__, "gumlab.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_of_a_module(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    found = [doctest.DocTestFinder().find(importlib.import_module(name)) for name in MODULES[:30]]
    assert sum(bool(test.examples) for tests in found for test in tests) > 5
