"""The site: built without a warning, whole, self-contained, and read in a browser.

The browser is Debian's chromium, driven by playwright. GUMLAB_BROWSER=required, as in .ci/run,
makes a missing browser a failure instead of a skip.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import make_playground
import numpy as np
import pytest

from gumlab.course import plots

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
WIDE = 1280
NARROW = 400

needs_a_browser = pytest.mark.skipif(
    not (CHROMIUM and find_spec("playwright")) and os.environ.get("GUMLAB_BROWSER") != "required",
    reason="needs chromium and playwright: apt install chromium, pip install playwright",
)


class Page(HTMLParser):
    """What a page says of itself: its anchors, and what it links to and loads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "link" and given.get("href"):
            self.loads.append(given["href"])
        if tag in ("script", "img", "iframe", "source", "video", "object") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "img":
            self.pictures.append(given)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site; the build fails with the first warning."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stderr == ""
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """Every page of the site by its path."""
    return {str(file.relative_to(site)): Page(file) for file in sorted(site.rglob("*.html"))}


def test_every_part_is_there(pages):
    texts = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.rst")]
    expected = {file.relative_to(ROOT / "docs").with_suffix(".html") for file in texts}
    expected |= {Path("notebooks", notebook.stem + ".html") for notebook in NOTEBOOKS}
    expected |= {Path("results", file.stem + ".html") for file in (ROOT / "results").glob("*.md")}
    expected |= {
        Path(f"{name}.html") for name in ("TEACHING", "CONTRIBUTING", "CHANGELOG", "search")
    }
    assert expected <= {Path(name) for name in pages}
    assert len(NOTEBOOKS) == 14


def test_no_link_leads_nowhere(site, pages):
    broken = []
    for name, page in pages.items():
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            if not target.is_file():
                broken.append(f"{name}: {address}")
                continue
            other = pages.get(str(target.resolve().relative_to(site.resolve())))
            if parts.fragment and other and unquote(parts.fragment) not in other.anchors:
                broken.append(f"{name}: {address}")
    assert broken == []


def test_every_page_is_found_from_the_front(site, pages):
    found = {"index.html", "search.html"}  # the search is a form, not a link
    waiting = ["index.html"]
    while waiting:
        name = waiting.pop()
        for address in pages[name].links:
            parts = urlsplit(address)
            if parts.scheme or not parts.path.endswith(".html"):
                continue
            target = ((site / name).parent / unquote(parts.path)).resolve()
            linked = str(target.relative_to(site.resolve()))
            if linked not in found:
                found.add(linked)
                waiting.append(linked)
    assert set(pages) == found


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for name, page in pages.items():
        for address in page.loads:
            assert not urlsplit(address).netloc, f"{name} loads {address}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)[\"' ]*(https?:)?//", text), style.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_its_stored_pictures_and_says_what_they_show(pages, notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    kinds = {"image/png", "image/svg+xml"}
    pictured = [  # where there is HTML, as of the sentence explorer, it is shown in its place
        output["data"]
        for output in outputs
        if kinds & output.get("data", {}).keys() and "text/html" not in output["data"]
    ]
    assert pictured
    sentences = [" ".join("".join(data["text/plain"]).split()) for data in pictured]
    shown = pages[f"notebooks/{notebook.stem}.html"].pictures
    alts = [picture["alt"] for picture in shown if "_images/" in picture["src"]]
    assert [" ".join(alt.split()) for alt in alts] == sentences


def test_the_front_page_shows_a_neuron_and_says_what_it_shows(site, pages):
    drawing = plots.neuron("whole")
    (shown,) = [one for one in pages["index.html"].pictures if "neuron" in one["src"]]
    assert shown["alt"] == drawing.sentence
    assert (site / shown["src"]).read_text(encoding="utf-8") == drawing.svg + "\n"


def test_the_api_pages_show_every_public_name(site):
    import gumlab

    shown = "".join(file.read_text(encoding="utf-8") for file in (site / "api").glob("*.html"))
    modules = {name for name in gumlab.__all__ if name in gumlab._MODULES}
    for name in set(gumlab.__all__) - modules:
        assert f'id="gumlab.{name}"' in shown, name
    for name in modules:
        assert f"gumlab.{name}" in shown, name


# --- in a browser ---------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Where a web server of this computer serves the site."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def watched(browser, origin: str, width: int = WIDE, **options) -> Iterator:
    """A tab whose complaints, failed requests and requests to elsewhere fail the test."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, **options)
    tab = context.new_page()
    troubles: list[str] = []

    def requested(request) -> None:
        if not request.url.startswith((origin, "data:")):
            troubles.append(f"{tab.url} asks for {request.url}")

    def failed(request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the tab went on before it had the icon
            troubles.append(f"{request.url}: {request.failure}")

    def answered(response) -> None:
        if response.status >= 400:
            troubles.append(f"{response.status} for {response.url}")

    def said(message) -> None:
        if message.type in ("error", "warning"):
            troubles.append(f"{tab.url} says {message.text}")

    tab.on("request", requested)
    tab.on("response", answered)
    tab.on("console", said)
    tab.on("pageerror", lambda error: troubles.append(f"{tab.url} raises {error}"))
    tab.on("requestfailed", failed)
    yield tab
    context.close()
    assert troubles == []


PICTURES = """() => Promise.all([...document.images].map(image => {
  image.loading = 'eager';
  return image.complete || new Promise(done => { image.onload = image.onerror = done });
}))"""
STATE = """() => ({
  unseen: [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src),
  flat: [...document.querySelectorAll('math')].filter(
    m => !m.closest('details') && !m.getBoundingClientRect().width).map(m => m.textContent),
  unread: [...document.querySelectorAll('merror')].length,
  overflow: Math.max(...[document.documentElement, ...document.querySelectorAll('.content')]
    .map(e => e.scrollWidth - e.clientWidth)),
  raw: [...document.querySelectorAll('article p, article li, article td')]
    .map(e => [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data).join(' '))
    .filter(t => /\\$[^$]+\\$|\\\\(frac|sum|mathrm)|:::|```/.test(t)),
})"""


@pytest.mark.slow
@needs_a_browser
@pytest.mark.filterwarnings("default::ResourceWarning")  # of playwright's own pipes
@pytest.mark.parametrize("over", ["http", "file"])
def test_every_page_reads_well(browser, site, pages, address, over):
    origin = address if over == "http" else site.as_uri()
    width = WIDE if over == "http" else NARROW
    with watched(browser, origin, width) as tab:
        for name in pages:
            tab.goto(f"{origin}/{name}")
            tab.evaluate(PICTURES)
            state = tab.evaluate(STATE)
            expected = {"unseen": [], "flat": [], "unread": 0, "overflow": 0, "raw": []}
            assert state == expected, name
            print(f"{over} {width} {name}: {tab.title()}")


@pytest.mark.slow
@needs_a_browser
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_search_finds_and_the_dark_is_dark(browser, site, address):
    with watched(browser, address) as tab:
        tab.goto(f"{address}/index.html")
        tab.fill("input.sidebar-search", "twin filter")
        tab.press("input.sidebar-search", "Enter")
        tab.wait_for_selector("#search-results li a")
        found = tab.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
        assert any("notebooks/08_gum.html" in link for link in found)
    brightness = "getComputedStyle(document.body).{}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    for scheme, dark in (("light", False), ("dark", True)):
        with watched(browser, address, color_scheme=scheme) as tab:
            tab.goto(f"{address}/guide/lifecycle.html")
            paper = sum(tab.evaluate(brightness.format("backgroundColor")))
            ink = sum(tab.evaluate(brightness.format("color")))
            assert abs(paper - ink) > 400
            assert (paper < ink) == dark


class Playground:
    """The site's playground in a tab, by the data that it should show."""

    def __init__(self, tab) -> None:
        self.tab = tab
        self.tiny, *self.others = make_playground.read()

    def said(self, part: str) -> str:
        return self.tab.inner_text(f"#pg-{part}")

    def marked(self, part: str) -> int:
        return self.tab.locator(f"#pg-{part} :is(ins, del)").count()

    def cells(self) -> int:
        return self.tab.get_attribute("#pg-map .cell", "d").count("M")

    def cut(self, **named) -> dict:
        (found,) = [one for one in self.tiny["cuts"] if named.items() <= one.items()]
        return found

    def shows(self, cut: dict) -> None:
        """Fail unless texts, marks, losses and the map are those of a cut of the first prompt."""
        assert self.said("pruned").split() == cut["texts"][0].split()
        assert self.said("dense").split() == self.tiny["dense"][0].split()
        same = len(self.said("dense").split()) - self.marked("dense")
        assert len(self.said("pruned").split()) - self.marked("pruned") == same
        sentence = self.said("written")
        assert f"{same} of the {len(self.tiny['dense'][0].split())} words" in sentence
        assert sentence.startswith(f"{cut['keep']} % of the neurons stay.")
        loss, dense_loss = map(float, re.findall(r"\d+\.\d\d", sentence))
        assert loss == pytest.approx(cut["loss"], abs=0.0051)
        assert dense_loss == pytest.approx(self.tiny["dense_loss"], abs=0.0051)
        twin = self.cut(**{name: cut[name] for name in ("method", "scope", "keep")}, refit=False)
        bits = np.unpackbits(np.frombuffer(base64.b64decode(twin["mask"]), np.uint8))
        ends = np.cumsum(self.tiny["widths"])[:-1]
        widths = [int(layer.sum()) for layer in np.split(bits, ends)]
        assert ", ".join(map(str, widths)) + " by layer" in self.said("lost")
        assert self.cells() == sum(widths)


@pytest.mark.slow
@needs_a_browser
@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.parametrize(("over", "width"), [("http", WIDE), ("file", NARROW)])
def test_the_playground_answers_by_keyboard_and_by_pointer(browser, site, address, over, width):
    origin = address if over == "http" else site.as_uri()
    with watched(browser, origin, width) as tab:
        tab.goto(f"{origin}/playground.html")
        page = Playground(tab)
        page.shows(page.cut(method="greedy_obs", scope="layer", keep=50, refit=False))
        tab.focus("#pg-keep")
        tab.keyboard.press("ArrowLeft")
        page.shows(page.cut(method="greedy_obs", scope="layer", keep=40, refit=False))
        tab.focus("#pg-refit")
        tab.keyboard.press("Space")
        page.shows(page.cut(method="greedy_obs", scope="layer", keep=40, refit=True))
        tab.select_option("#pg-method", "magnitude")
        tab.select_option("#pg-scope", "global")
        page.shows(page.cut(method="magnitude", scope="global", keep=40, refit=True))
        tab.focus("#pg-keep")
        tab.keyboard.press("End")
        assert page.marked("dense") == page.marked("pruned") == 0
        assert page.cells() == sum(page.tiny["widths"])

        tab.fill("#pg-neuron", "77")
        tab.keyboard.press("Tab")
        assert page.said("told").startswith("Layer 0, neuron 77 stays.")
        assert f"Sensitivity {page.tiny['sensitivity'][0][77]:g} " in page.said("told")
        tab.fill("#pg-neuron", "100000")  # no such neuron: the last
        tab.keyboard.press("Tab")
        assert page.said("told").startswith(f"Layer 0, neuron {page.tiny['widths'][0] - 1} ")
        told = page.said("told")
        tab.locator("#pg-map").click(position={"x": 8, "y": 24})
        assert page.said("told").startswith("Layer 0, neuron ")
        assert page.said("told") != told
        told = page.said("told")
        tab.locator("#pg-cloud").hover()  # its middle
        assert page.said("told") != told
        assert 0 <= tab.locator("#pg-keep").bounding_box()["y"] < 120  # in sight there too
        live = tab.eval_on_selector_all("[aria-live=polite]", "all => all.map(one => one.id)")
        assert {"pg-written", "pg-told"} <= set(live)

        for number, other in enumerate(page.others, start=1):
            tab.select_option("#pg-model", str(number))
            assert not tab.locator("#pg-map").is_visible()
            assert page.said("given") == other["prompts"][0]
            assert page.said("dense").split() == other["dense"][0].split()
