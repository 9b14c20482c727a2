"""Fixtures: a tokenizer, a small task, tiny models. Nothing is downloaded or mocked."""

from __future__ import annotations

import functools
import gc

import pytest
from helpers.models import KINDS, tiny
from helpers.texts import make_examples, word_tokenizer
from torch import nn

from gumlab.tasks import Example, Task

gc.disable()  # while ten thousand tests are collected, nearly all that is made stays


def pytest_collection_finish() -> None:
    """The garbage collector goes on, but never again looks through what was collected."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _what_stays_is_set_aside():
    """What a module's tests leave, imports and caches, is not looked through again either."""
    yield
    gc.collect()  # or garbage would stay, too
    gc.freeze()


@functools.cache
def _tokenizer():
    return word_tokenizer()


@pytest.fixture
def tokenizer():
    return _tokenizer()


@pytest.fixture
def examples() -> list[Example]:
    return make_examples(12)


@pytest.fixture
def many() -> list[Example]:
    """Enough tokens for a regular Gram matrix."""
    return make_examples(40, seed=3)


@pytest.fixture
def task() -> Task:
    return Task("tiny", "bleu", make_examples(12), make_examples(5, 1), make_examples(6, 2))


@pytest.fixture
def gpt2() -> nn.Module:
    return tiny("gpt2")


@pytest.fixture(params=KINDS)
def model(request) -> nn.Module:
    """A tiny model of each kind of block; of all fourteen under `every_architecture`."""
    return tiny(request.param)
