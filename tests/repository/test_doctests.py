"""The examples in the package's docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import gumlab

ALL = [module.name for module in pkgutil.walk_packages(gumlab.__path__, "gumlab.")]
MODULES = [name for name in ALL if not name.endswith("__main__")]  # that one runs the command


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [
        finder.find(importlib.import_module(f"gumlab.{name}")) for name in ("gram", "selection")
    ]
    assert sum(len(test.examples) for tests in found for test in tests) > 3
