"""The page in Debian's chromium: it is quiet, fast, keyboard can reach it, and print is whole.

Skipped where playwright (extra `browser`) or chromium (`apt install chromium`) is not there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import report_world
from pie_fast.report import write_report

pytestmark = pytest.mark.browser

#: features of the page that most tests open: a few more than it shows at first
K, SHOWN = 30, 24

#: bytes, and seconds until the first cards are there
LARGEST_PAGE, SLOWEST = 15_000_000, 3.0


@dataclass
class Heard:
    """What a page said and asked for."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)


Open = Callable[..., tuple[Any, Heard]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(report_world.write_run(folder / "run", K), folder / "report.html")


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Open]:
    contexts = []

    def open_page(
        path: Path = report, width: int = 1440, scheme: str = "light"
    ) -> tuple[Any, Heard]:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page, heard = context.new_page(), Heard()
        page.on("console", lambda message: heard.said.append(message.text))
        page.on("pageerror", lambda error: heard.said.append(str(error)))
        page.on("request", lambda request: heard.asked.append(request.url))
        page.on("dialog", lambda dialog: (heard.alerts.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector(".card")
        return page, heard

    yield open_page
    for context in contexts:
        context.close()


def draw_all(page: Any) -> None:
    for box in page.locator(".plot").all():
        box.scroll_into_view_if_needed()
        box.locator(".main-svg").first.wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_it_is_quiet_fits_and_passes_axe(
    opened: Open, report: Path, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")
    page, heard = opened(width=width, scheme=scheme)
    draw_all(page)
    page.locator(".node").first.click()
    page.fill("#search", page.locator("#cards .key").first.inner_text())
    page.locator("#cards details summary").first.click()
    assert heard == Heard(asked=[report.as_uri()])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 30
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_it_cannot_ask_anybody_for_anything(opened: Open, report: Path) -> None:
    page, heard = opened()
    assert (
        page.evaluate("fetch('http://localhost:9/').then(() => 'answered', () => 'refused')")
        == "refused"
    )
    assert heard.asked == [report.as_uri()]
    assert any("Content Security Policy" in text for text in heard.said)


def test_tokens_that_are_markup_stay_text(opened: Open) -> None:
    page, heard = opened()
    assert page.locator(".token", has_text="<script>alert(1)</script>").count() > 0
    assert page.locator("h1").inner_text() == "<b>ioi</b>"
    assert page.locator("script").count() == 4  # data, plotly as text, ours, plotly when it is run
    assert page.locator("img").count() == 0
    page.locator(".node").first.hover()
    assert "<script>alert(1)</script>" in page.locator("#tip").inner_text()
    assert heard.alerts == []


def test_filters_leave_what_fits(opened: Open) -> None:
    page, _ = opened()
    cards = page.evaluate("JSON.parse(document.getElementById('data').textContent).cards")
    count = page.locator("#count")
    assert count.inner_text() == f"{K} of {K} features"
    assert page.locator("#cards .card").count() == SHOWN
    page.select_option("#layer", "3")
    page.fill("#stability", "50")
    fit = [c for c in cards if c["layer"] == 3 and c["stability"] >= 0.5]
    assert 0 < len(fit) < K
    assert count.inner_text() == f"{len(fit)} of {K} features"
    assert page.locator("#cards .key").all_inner_texts() == [card["key"] for card in fit]
    assert page.locator(".node.out").count() == K - len(fit)
    page.click("text=Reset")
    page.fill("#search", cards[28]["key"].lower())
    assert cards[28]["key"] in page.locator("#cards .key").all_inner_texts()
    page.fill("#search", "no such thing")
    assert count.inner_text() == f"No feature matches (of {K})"
    page.click("text=Reset")
    page.select_option("#order", "size")
    largest = max(cards, key=lambda card: card["size"])
    assert page.locator("#cards .key").first.inner_text() == largest["key"]
    page.click("#more")
    assert page.locator("#cards .card").count() == K


def test_pins_links_and_the_theme(opened: Open) -> None:
    page, _ = opened()
    node = page.locator(".node").nth(3)
    node.click()
    assert node.get_attribute("aria-pressed") == "true"
    pinned = page.locator("#pins .card")
    assert pinned.count() == 1
    assert node.get_attribute("aria-label").startswith(pinned.get_attribute("data-key") + " at ")
    assert page.locator(".edge.pinned").count() > 0
    link = pinned.locator(".links a").first
    target = link.inner_text()
    page.fill("#search", "no such thing")
    link.click()
    page.wait_for_selector(".card:focus")
    assert page.evaluate("document.activeElement.dataset.key") == target
    pinned.locator(".pin").click()
    assert pinned.count() == 0
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != light and page.locator("#theme").inner_text() == "Light"


#: what scrolling tells has been told
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_the_figures_fit_a_phone_and_a_count_has_its_unit(opened: Open) -> None:
    page, _ = opened(width=390)
    box = page.locator("#summary .scroll")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    facts = page.locator(".card .facts").first.inner_text()
    assert "fires in" in facts and "14 texts" in facts


def test_the_tip_covers_nothing_after_a_click_a_scroll_or_a_tap(opened: Open) -> None:
    page, _ = opened()
    node, tip = page.locator(".node").nth(3), page.locator("#tip")
    node.scroll_into_view_if_needed()
    page.evaluate(SETTLED)
    node.hover()
    assert tip.is_visible()
    node.click()
    assert tip.is_hidden()
    page.locator(".node").nth(5).hover()
    assert tip.is_visible()
    page.mouse.wheel(0, 40)
    tip.wait_for(state="hidden")
    node.dispatch_event("pointerenter", {"pointerType": "touch"})
    assert tip.is_hidden()


def test_the_keyboard_reaches_the_graph_and_the_cards(opened: Open) -> None:
    page, _ = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('node')"):
            break
    focused = "document.activeElement.getAttribute('aria-label')"
    first = page.evaluate(focused)
    assert first is not None
    for key in ("ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.classList.contains('node')")
    assert page.locator(".node[tabindex='0']").count() == 1
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("#pins .card").count() == 1
    page.keyboard.press(" ")
    assert page.locator("#pins .card").count() == 0
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('node')")
    page.locator("#search").focus()
    for _ in range(5):  # layer, stability, order, reset, and the first card's button
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "pin"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_paper_has_every_card(opened: Open) -> None:
    page, heard = opened(scheme="dark")
    page.evaluate("addEventListener('afterprint', () => (window.printed = true))")
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) > 5
    assert page.locator("#cards .card").count() == K
    assert page.locator(".main-svg").count() > 0
    assert heard.said == []


def test_800_features_open_fast_and_stay_small(opened: Open, tmp_path: Path) -> None:
    run = report_world.write_run(tmp_path / "run", 800)
    path = write_report(run, tmp_path / "report.html")
    assert path.stat().st_size < LARGEST_PAGE
    took = []
    for _ in range(3):
        start = time.perf_counter()
        page, _ = opened(path)
        took.append(time.perf_counter() - start)
        page.close()
        if took[-1] < SLOWEST:
            break
    print(f"{path.stat().st_size / 1e6:.1f} MB, the first cards after {min(took):.2f} s")
    assert min(took) < SLOWEST
