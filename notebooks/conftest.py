"""Guards for notebooks under nbval: a check that compares nothing fails, and so does the rest.

nbval alone passes a checked cell that has no stored output, and runs on after a failed cell. A
notebook whose last word on a subject is an explorer gets one more cell, which moves its slider.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator
from unittest import mock

import pytest
from nbformat.v4 import new_code_cell
from nbval.plugin import IPyNbCell, find_comment_markers, find_metadata_tags

KERNEL_ENVIRONMENT = {  # the same as in tools/run_notebooks.py
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# It prints the same on every run, so all that it prints is compared, not its last cell alone.
WHOLLY_CHECKED = "01_a_gpt_you_can_look_inside.ipynb"
# At the end of a notebook, in its kernel: the first slider goes one step, then far to the right.
MOVE = """
def places(slider):
    if not hasattr(slider, "step"):  # a choice
        return [(slider.index + by) % len(slider.options) for by in (1, -1)], "index"
    near = slider.value + slider.step
    if near > slider.max:
        near = slider.value - slider.step
    far = slider.min + round(0.85 * (slider.max - slider.min) / slider.step) * slider.step
    return (near, far), "value"

def moved(explorer):
    controls = list(explorer.controls.values())
    sliders = [c for c in controls if hasattr(c, "step")] or [explorer.controls["keep"]]
    picture, words = explorer._picture, explorer._words
    values, name = places(sliders[0])
    for value in values:
        before = picture.value, words.value
        setattr(sliders[0], name, value)
        if explorer.error:
            raise explorer.error
        assert picture.value != before[0], f"the picture stays as it was at {value}"
        assert words.value != before[1], f"the sentence stays as it was at {value}"

moved(explorer)
"""
FIRST_FAILURE = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Kernels inherit these, so that a notebook prints the same on every run."""
    with mock.patch.dict(os.environ, KERNEL_ENVIRONMENT if isinstance(item, IPyNbCell) else {}):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check one notebook wholly; after the last cell of one with an explorer, a cell moves it."""
    last_cells: dict[pytest.Collector | None, int] = {}
    explorers: set[pytest.Collector | None] = set()
    for place, item in enumerate(items):
        if isinstance(item, IPyNbCell):
            last_cells[item.parent] = place
            if item.path.name == WHOLLY_CHECKED:
                item.options["check"] = True
            if item.cell.source.rstrip().endswith("\nexplorer"):
                explorers.add(item.parent)
    for notebook, place in reversed(last_cells.items()):
        if notebook in explorers:
            number = items[place].cell_num + 1
            move = IPyNbCell.from_parent(
                notebook,
                name="explorer",
                cell_num=number,
                cell=new_code_cell(MOVE),
                options=defaultdict(bool),
            )
            items.insert(place + 1, move)


def is_checked(cell: IPyNbCell) -> bool:
    """Whether the author asked, by tag or comment, for this cell's output to be compared."""
    options = {
        **dict(find_metadata_tags(cell.cell.metadata)),
        **dict(find_comment_markers(cell.cell.source)),
    }
    return bool(options.get("check")) and not options.get("skip")


def has_comparable_output(cell: IPyNbCell) -> bool:
    """Whether anything is stored that nbval compares (it does not compare images)."""
    skipped = cell.parent.skip_compare
    return any(
        out.get("text", "").strip() or set(out.get("data", {})) - set(skipped)
        for out in cell.cell.outputs
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop before the kernel runs a cell whose result would mean nothing."""
    if not isinstance(item, IPyNbCell):
        return
    name = item.path.name
    failed = item.parent.stash.get(FIRST_FAILURE, None)
    if failed is not None:
        pytest.skip(f"an earlier cell failed (cell {failed} of {name})")
    kernel = item.parent.nb.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        pytest.fail(f"{name}: the kernelspec must be python3, not {kernel}.", pytrace=False)
    if is_checked(item) and not has_comparable_output(item):
        pytest.fail(
            f"{name}, code cell {item.cell_num}: tagged nbval-check-output, but no output is "
            "stored to compare with; run `make notebooks`.",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a notebook's first failing cell."""
    report = yield
    if report.failed and isinstance(item, IPyNbCell):
        item.parent.stash.setdefault(FIRST_FAILURE, item.cell_num)
    return report
