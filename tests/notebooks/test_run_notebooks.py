"""Normal form and check of notebooks, on hand-made ones; no kernel runs here."""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import pytest
import run_notebooks as tool
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SKIP = {"tags": ["skip-execution", "nbval-skip"]}


@pytest.fixture
def messy() -> NotebookNode:
    """A notebook as a front end would save it."""
    result = new_output("execute_result", data={"text/plain": "4"}, execution_count=17)
    widget = {tool.WIDGET_VIEW: {"model_id": "f00"}, "text/plain": "Explorer", "image/png": "aGk="}
    bar = {tool.WIDGET_VIEW: {"model_id": "f01"}, "text/plain": "  0%|          | 0/5"}
    outputs = [
        new_output("stream", name="stdout", text="one "),
        new_output("stream", name="stdout", text="line\n"),
        new_output("stream", name="stderr", text="\r 50%|#####     | 1/2 [00:01, 1.0it/s]"),
        new_output("display_data", data=widget),
        new_output("display_data", data=bar),
        result,
    ]
    timing = {"execution": {"iopub.execute_input": "12:00"}, "collapsed": False}
    nb = new_notebook(
        cells=[
            new_markdown_cell("# Why?"),
            new_code_cell("2 + 2", outputs=outputs, execution_count=17, metadata=timing),
            new_code_cell("on_a_gpu()", outputs=[], execution_count=3, metadata=SKIP),
            new_code_cell("5", outputs=[], execution_count=99),
        ]
    )
    nb.metadata.update(widgets={"state": {}}, kernelspec={"name": "my-env", "display_name": "x"})
    nb.metadata.gumlab = {"source_sha": tool.source_sha(nb)}
    return nb


@pytest.fixture
def tidy(messy) -> NotebookNode:
    return tool.normalise(messy)


def problems(nb: NotebookNode, folder: Path) -> str:
    path = folder / "nb.ipynb"
    path.write_text(tool.serialise(nb), encoding="utf-8")
    return "\n".join(tool.problems(path))


def test_normalise_cells_and_metadata(tidy):
    assert "widgets" not in tidy.metadata
    assert tidy.metadata.kernelspec == tool.KERNELSPEC
    assert tidy.metadata.language_info == {"name": "python"}
    assert [cell.id for cell in tidy.cells] == ["cell-00", "cell-01", "cell-02", "cell-03"]
    assert [cell.execution_count for cell in tool.code_cells(tidy)] == [1, None, 2]
    assert tidy.cells[1].metadata == {}
    assert tidy.cells[2].metadata == SKIP


def test_normalise_outputs(tidy):
    stream, widget, result = tidy.cells[1].outputs
    assert stream.text == "one line\n"
    assert widget.data == {"text/plain": "Explorer", "image/png": "aGk="}
    assert result.execution_count == 1


def test_normalise_keeps_a_warning_and_output_order():
    texts = [("stdout", "a"), ("stderr", "a warning"), ("stdout", "b")]
    outputs = [new_output("stream", name=name, text=text) for name, text in texts]
    assert [(o.name, o.text) for o in tool.normal_outputs(outputs)] == texts


def test_a_progress_bar_between_two_parts_of_a_stream_leaves_one_stream():
    parts = [("stdout", "a\n"), ("stderr", "\r 3%|  | 1.2it/s"), ("stdout", "b\n")]
    outputs = [new_output("stream", name=name, text=text) for name, text in parts]
    assert [(o.name, o.text) for o in tool.normal_outputs(outputs)] == [("stdout", "a\nb\n")]


def test_normalise_twice_changes_nothing(tidy):
    once = tool.serialise(tidy)
    assert tool.serialise(tool.normalise(copy.deepcopy(tidy))) == once
    assert once.startswith('{\n "cells"')
    assert once.endswith("}\n")


def test_a_tidy_notebook_has_no_problems(tidy, tmp_path):
    assert problems(tidy, tmp_path) == ""


def test_a_messy_notebook_is_not_in_normal_form(messy, tmp_path):
    assert problems(messy, tmp_path) == "is not in normal form"


def test_edited_code_is_stale_but_edited_prose_is_not(tidy, tmp_path):
    tidy.cells[0].source = "# How?"
    assert problems(tidy, tmp_path) == ""
    tidy.cells[2].source = "on_two_gpus()"  # never run here, so no output is older than it
    assert problems(tidy, tmp_path) == ""
    tidy.cells[1].source = "2 + 3"
    assert "is stale" in problems(tidy, tmp_path)


def test_a_cell_that_was_not_run_is_named(tidy, tmp_path):
    tidy.cells[3].execution_count = None
    assert problems(tidy, tmp_path) == "code cell 2 has not been run"


def test_both_skip_tags_are_needed(tidy, tmp_path):
    tidy.cells[2].metadata.tags = ["skip-execution"]
    assert "code cell 1 must be tagged both" in problems(tidy, tmp_path)


def test_a_stored_error_is_named_unless_it_is_meant(tidy, tmp_path):
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    tidy.cells[3].outputs = [error]
    assert problems(tidy, tmp_path) == "code cell 2 stores an error (ValueError)"
    tidy.cells[3].metadata.tags = ["raises-exception"]
    assert problems(tidy, tmp_path) == ""


@pytest.mark.parametrize(
    "text", [f"{tool.ROOT}/x", f"{Path.home()}/x", "/home/me/x", "<object at 0x7f01>"]
)
def test_machine_paths_in_outputs_are_named(tidy, tmp_path, text):
    tidy.cells[3].outputs = [new_output("stream", name="stdout", text=text)]
    assert "shows a path or address of one machine" in problems(tidy, tmp_path)


def test_a_large_file_is_named(tidy, tmp_path):
    tidy.cells[0].source = "x" * tool.MAX_BYTES
    assert "the limit is 600,000" in problems(tidy, tmp_path)


def test_a_file_that_is_no_notebook_is_named(tmp_path, capsys):
    path = tmp_path / "nb.ipynb"
    path.write_text("nonsense", encoding="utf-8")
    assert tool.main(["--check", str(path)]) == 1
    assert "nb.ipynb is not a notebook" in capsys.readouterr().err


def test_the_guard_runs_kernels_in_the_same_environment():
    source = (tool.ROOT / "notebooks" / "conftest.py").read_text(encoding="utf-8")
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "KERNEL_ENVIRONMENT"
    ]
    assert values == [tool.KERNEL_ENVIRONMENT]
