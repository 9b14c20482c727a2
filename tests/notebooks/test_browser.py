"""What only a browser can show: a notebook run in JupyterLab (the app: test_browser_app.py).

That the other notebooks run, and that their explorers answer, nbval sees without one.

Needs Debian's chromium and playwright (extra `test`). GUMLAB_BROWSER=required, as in .ci/run, makes
a missing browser a failure instead of a skip. GUMLAB_SCREENSHOTS=FOLDER keeps a picture of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from helpers import ROOT

NOTEBOOK = "01_a_gpt_you_can_look_inside.ipynb"  # whose explorer has a picture and sliders
CHROMIUM = shutil.which("chromium")
MISSING = [
    name for name, found in (("chromium", CHROMIUM), ("playwright", find_spec("playwright")))
    if not found
]  # fmt: skip
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
STATE = """() => {
  const found = {errors: [], unrun: 0, explorers: []};
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
  for (let i = 0; i < cells.length; i++) {
    const cell = cells.get(i);
    if (cell.type !== 'code') continue;
    const skipped = (cell.getMetadata('tags') || []).includes('skip-execution');
    if (cell.executionCount == null && !skipped) found.unrun += 1;
    if (cell.sharedModel.source.trim().endsWith('explorer')) found.explorers.push(i);
    for (let k = 0; k < cell.outputs.length; k++) {
      const output = cell.outputs.get(k).toJSON();
      if (output.output_type === 'error') found.errors.push(output.ename + ': ' + output.evalue);
    }
  }
  return found;
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and os.environ.get("GUMLAB_BROWSER") != "required",
        reason=f"needs {' and '.join(MISSING)}: apt install chromium, pip install playwright",
    ),
    pytest.mark.filterwarnings("default::ResourceWarning"),  # of playwright's own pipes
]


@contextlib.contextmanager
def served(folder, *command, **environment):
    """The address of a Jupyter server that was started with this command, and answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
            env=os.environ | environment | {"HF_HUB_OFFLINE": "1"},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(1200):
            time.sleep(0.1)
            if server.poll() is not None:
                pytest.fail(f"{command[0]} stopped:\n{(folder / 'log').read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    """Where JupyterLab's copy of the notebooks is."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(lab_folder):
    """The address of a JupyterLab that serves a copy of the notebooks."""
    folder = lab_folder
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    # all cells stay in the page, so that a test finds them
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    command = (
        "jupyter", "lab", "--allow-root", "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder / 'notebooks'}",
    )  # fmt: skip
    with served(folder, *command, JUPYTERLAB_SETTINGS_DIR=str(folder / "settings")) as address:
        yield f"{address}/lab"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def opened(browser, lab, notebook, width=1300):
    """A page with the notebook open and its stored outputs drawn."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    workspace = uuid.uuid4().hex  # a new one, or JupyterLab opens the last page's notebooks too
    page.goto(f"{lab}/workspaces/{workspace}/tree/{notebook}", timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-MarkdownOutput", timeout=120_000)
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel != null",
        timeout=120_000,
    )
    return page


def explorer_in(page, cell):
    """The output area of an explorer's cell, on the screen."""
    area = page.locator(".jp-Cell").nth(cell).locator(".jp-OutputArea")
    area.scroll_into_view_if_needed()
    return area


def shown(area):
    """Picture and sentence of a live explorer."""
    return area.locator("img").first.get_attribute("src"), area.locator("p").last.inner_text()


def changes(page, area, move) -> tuple[str, str]:
    """What an explorer shows after a move; fails where picture or sentence stay as they were."""
    before = shown(area)
    move()
    for _ in range(150):
        page.wait_for_timeout(100)
        after = shown(area)
        if after[0] != before[0] and after[1] != before[1] and "computing" not in after[1]:
            return after
    pytest.fail(f"nothing changed within 15 s; the sentence is still: {after[1]}")


def moved(page, area):
    """The first slider of an explorer goes one step by the keyboard, then far by the mouse."""
    area.locator("p[role=status]").wait_for(timeout=120_000)
    area.locator(".noUi-handle").first.focus()
    changes(page, area, lambda: page.keyboard.press("ArrowRight"))
    box = area.locator(".noUi-base").first.bounding_box()
    spot = box["x"] + 0.85 * box["width"], box["y"] + box["height"] / 2
    changes(page, area, lambda: page.mouse.click(*spot))


def pictured(page, name):
    """Keep a picture of the page where GUMLAB_SCREENSHOTS asks for it."""
    if folder := os.environ.get("GUMLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_notebook_runs_and_its_explorer_answers_and_fits_a_narrow_screen(browser, lab):
    page = opened(browser, lab, NOTEBOOK)
    (cell,) = page.evaluate(STATE)["explorers"]
    assert explorer_in(page, cell).locator("img").count() == 1  # before any run
    page.evaluate(RUN_ALL)
    state = page.evaluate(STATE)
    assert state["errors"] == []
    assert state["unrun"] == 0
    assert state["explorers"] == [cell]
    area = explorer_in(page, cell)
    moved(page, area)
    pictured(page, NOTEBOOK)
    page.set_viewport_size({"width": 480, "height": 1000})
    page.wait_for_timeout(500)
    area = explorer_in(page, cell)
    picture, room = area.locator("img").first.bounding_box(), area.bounding_box()
    assert room["width"] < 480
    assert picture["x"] + picture["width"] <= room["x"] + room["width"] + 1
    page.evaluate(SHUT_DOWN)
    page.close()


def a_notebook_to_touch(path):
    """Write a notebook that shows one explorer of a built-in model's neurons."""
    cell = nbformat.v4.new_code_cell(
        "import gumlab as gl\n"
        'base, tokenizer = gl.load("tiny-gpt2")\n'
        'gl.explore.removal(base, tokenizer, gl.load_task("restaurants"), examples=4)'
    )
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(metadata=kernel, cells=[cell])
    nbformat.write(notebook, path)


def touched(page, name):
    """Point at a neuron, click it, and go on by the keyboard; pictures at two widths are kept."""
    layer = page.locator(".gumlab-pointer").last
    layer.wait_for(timeout=600_000)
    layer.scroll_into_view_if_needed()
    label, words = page.locator(".gumlab-label").last, page.locator("p[role=status]").last
    picture = layer.locator("xpath=..").locator("img").bounding_box()
    spot = picture["x"] + 0.25 * picture["width"], picture["y"] + 0.3 * picture["height"]
    page.mouse.move(*spot)
    label.wait_for(timeout=10_000)
    pointed = label.inner_text()
    assert re.fullmatch(r"layer \d+, neuron \d+: (stays|goes), score .+", pointed)
    page.mouse.click(*spot)
    selected = page.locator(".gumlab-selected").last
    selected.wait_for(timeout=10_000)
    answered = page.get_by_text(f"Selected: {pointed}. Its twin is neuron").last
    answered.wait_for(timeout=600_000)
    pictured(page, f"{name}-1280")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    beside = label.inner_text()
    assert beside != pointed
    assert words.inner_text().count("Selected: ") == 1  # Enter alone selects
    page.keyboard.press("Enter")
    page.get_by_text(f"Selected: {beside}. Its twin is neuron").last.wait_for(timeout=60_000)
    assert "«" in words.inner_text().splitlines()[-1]
    page.keyboard.press("Escape")
    label.wait_for(state="hidden", timeout=10_000)
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_timeout(1000)
    layer.scroll_into_view_if_needed()
    picture, mark = (
        one.bounding_box() for one in (layer.locator("xpath=..").locator("img"), selected)
    )
    assert picture["x"] < mark["x"] < picture["x"] + picture["width"] / 2  # in the map, still
    page.mouse.move(picture["x"] + 0.4 * picture["width"], picture["y"] + 0.4 * picture["height"])
    label.wait_for(timeout=10_000)
    box = label.bounding_box()
    assert picture["x"] - 1 <= box["x"]
    assert box["x"] + box["width"] <= picture["x"] + picture["width"] + 1
    pictured(page, f"{name}-400")


def test_a_neuron_is_touched_in_jupyterlab(browser, lab, lab_folder):
    a_notebook_to_touch(lab_folder / "notebooks" / "touch.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{lab}/workspaces/{uuid.uuid4().hex}/tree/touch.ipynb", timeout=600_000)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel != null",
        timeout=600_000,
    )
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")  # room for the picture
    page.evaluate(RUN_ALL)
    touched(page, "touch-lab")
    assert page.evaluate(STATE)["errors"] == []
    cell = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    assert page.evaluate(f"() => {cell}") == 0  # the arrow keys were the pointer's alone
    page.evaluate(SHUT_DOWN)
    page.close()


def test_a_neuron_is_touched_under_voila(browser, tmp_path):
    a_notebook_to_touch(tmp_path / "touch.ipynb")
    with served(tmp_path, "voila", str(tmp_path / "touch.ipynb")) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address, timeout=600_000)
        touched(page, "touch-voila")
        page.close()
