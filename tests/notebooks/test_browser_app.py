"""The app in a browser (`make app`, under Voila): every tab answers, and nothing ever jumps.

Needs what test_browser.py needs. One server, one page, for all tests.
"""

from __future__ import annotations

import pytest
from helpers import ROOT
from test_browser import CHROMIUM, FLAGS, pictured, served
from test_browser import pytestmark as pytestmark  # skipped without a browser, as there

TABS = (
    "sentence", "a real language model", "remove", "activations", "trade-off", "used x unique",
    "twins", "delete one", "texts", "replay", "budget",
)  # fmt: skip
PATIENCE = 240_000  # milliseconds; a kernel has to start
TAB = ".lm-TabBar-tab"
CURRENT = f"{TAB}.lm-mod-current"
OPEN = ".widget-tab-contents > :not(.lm-mod-hidden)"
STATUS = f"{OPEN} p[role=status]"
# how far everything that is scrolled is, and how far it could be
SCROLLED = """() => [...document.querySelectorAll('*')].filter(e => e.scrollTop > 0)
  .map(e => [e.scrollTop, e.scrollHeight - e.clientHeight])"""
# the page's last line on the screen, so that any loss of height would move it
TO_THE_END = """() => {
  for (const e of document.querySelectorAll('*'))
    if (e.scrollHeight > e.clientHeight + 1) e.scrollTop = e.scrollHeight;
}"""
FOCUS = "e => e.focus({preventScroll: true})"
WIDER_THAN_THE_SCREEN = "() => document.documentElement.scrollWidth > window.innerWidth + 1"
COLUMNS = f"{OPEN} .widget-html-content strong"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A page that shows the app."""
    from playwright.sync_api import sync_playwright

    command = ("voila", str(ROOT / "notebooks/app/explorers.ipynb"))
    with served(tmp_path_factory.mktemp("voila"), *command) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address, timeout=PATIENCE)
        page.locator(STATUS).wait_for(timeout=PATIENCE)
        yield page
        browser.close()


def answer(page):
    """What the open tab shows below its controls: texts or a picture, and the sentence."""
    inner = page.locator(f"{OPEN} .widget-html-content")
    return inner.nth(-2).inner_html(), inner.last.inner_text()


def settled(page):
    """Wait for the open tab's explorer, and until it computes no more."""
    page.wait_for_function(
        """selector => {
          const said = [...document.querySelectorAll(selector)].map(e => e.innerText);
          return said.length > 0 && said.every(text => !text.includes('computing'));
        }""",
        arg=STATUS,
        timeout=PATIENCE,
    )


def opened(page, tab):
    """Open a tab."""
    page.locator(f"{TAB}Label").get_by_text(tab, exact=True).click(timeout=PATIENCE)
    settled(page)


def changes(page, move):
    """What is shown after a move; fails where it stays, the tab changes, or the page scrolls."""
    before = answer(page)
    tab = page.locator(CURRENT).inner_text()
    scrolled = page.evaluate(SCROLLED)
    move()
    for _ in range(PATIENCE // 50):
        page.wait_for_timeout(50)
        assert page.locator(CURRENT).inner_text() == tab
        after = answer(page)
        if after[0] != before[0] and after[1] != before[1] and "computing" not in after[1]:
            page.wait_for_timeout(300)
            tops = [top for top, _ in scrolled]
            now = page.evaluate(SCROLLED)  # a lower picture may leave less to scroll
            assert [top for top, _ in now] == [
                min(top, most) for top, (_, most) in zip(tops, now, strict=True)
            ]
            return after
    pytest.fail(f"nothing changed; the sentence is still: {after[1]}")


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_asks_and_its_explorer_answers_without_a_jump(app, tab):
    app.set_viewport_size({"width": 1280, "height": 500})  # lower than any tab
    assert tuple(app.locator(f"{TAB}Label").all_inner_texts()) == TABS
    opened(app, tab)
    question = app.locator(f"{OPEN} .widget-html-content p").first.inner_text()
    assert question.endswith("?")
    slider = app.locator(f"{OPEN} .noUi-handle").first
    slider.evaluate(FOCUS)
    app.evaluate(TO_THE_END)
    app.wait_for_timeout(300)
    key = "ArrowLeft" if tab == TABS[1] else "ArrowRight"  # its slider starts at the right end
    changes(app, lambda: app.keyboard.press(key))
    assert slider.evaluate("e => e === document.activeElement")  # the next key goes on
    app.set_viewport_size({"width": 1280, "height": 900})
    pictured(app, f"app-{tab}-1280")


@pytest.mark.parametrize("tab", TABS[:2])
def test_the_two_texts_stand_beside_each_other_and_on_a_phone_below(app, tab):
    opened(app, tab)
    for width, beside in ((1280, True), (400, False)):
        app.set_viewport_size({"width": width, "height": 900})
        app.wait_for_timeout(500)
        dense, pruned = (app.locator(COLUMNS).nth(n).bounding_box() for n in (0, 1))
        assert (dense["y"] == pruned["y"]) == beside
        assert (dense["x"] == pruned["x"]) != beside
        assert not app.evaluate(WIDER_THAN_THE_SCREEN)
        pictured(app, f"app-{tab}-{width}")
    app.set_viewport_size({"width": 1280, "height": 900})


def test_a_prompt_of_your_own_is_answered_and_one_that_cannot_be_says_so(app):
    opened(app, TABS[0])
    box = app.locator(f"{OPEN} input[type=text]")
    box.fill("name[Blue Boat], food[<b>Thai</b>] ->")
    page, _ = changes(app, lambda: app.keyboard.press("Enter"))
    assert "&lt;b&gt;Thai" in page
    box.fill("")
    app.keyboard.press("Enter")
    app.locator(f"{OPEN} p[role=alert]").wait_for(timeout=PATIENCE)
    assert "The prompt is empty" in app.locator(f"{OPEN} p[role=alert]").inner_text()
    pictured(app, "app-empty-prompt")
    box.fill("name[Blue Boat] ->")
    app.keyboard.press("Enter")
    app.locator(STATUS).wait_for(timeout=PATIENCE)
