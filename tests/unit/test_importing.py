"""Importing libraries without the garbage collector: it is as before, afterwards."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref

import pytest

from gumlab import importing
from gumlab.importing import uncollected


@pytest.fixture(autouse=True)
def _collector_as_it_was():
    gc.unfreeze()  # see tests/conftest.py
    yield
    gc.freeze()
    gc.enable()


class Thing:
    """What can refer to itself."""


def is_young(thing) -> bool:
    """Whether the collector will look at a thing again soon."""
    return any(thing is other for age in (0, 1) for other in gc.get_objects(generation=age))


def test_the_collector_rests_and_goes_on():
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_a_failed_import():
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_is_made_meanwhile_counts_as_old_and_is_collected_all_the_same():
    with uncollected():
        made = Thing()
        made.itself = made  # so that nothing but the collector frees it
        assert is_young(made)
    assert not is_young(made)
    seen = weakref.ref(made)
    del made
    assert seen() is not None
    gc.collect()
    assert seen() is None


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen():
    gc.freeze()
    with uncollected():
        assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_module_is_imported_at_rest_the_first_time_alone(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def noted():
        entered.append(0)
        yield

    monkeypatch.setattr(importing, "uncollected", noted)
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    first, again = importing.imported("wave"), importing.imported("wave")
    assert first is again is sys.modules["wave"]
    assert len(entered) == 1
