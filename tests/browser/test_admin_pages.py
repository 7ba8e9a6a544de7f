"""The admin pages in a real browser: by keyboard, on a phone, with and without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.admin_server import PATHS, AdminServer, admin_server
from tests.browser.chromium import Watched, chromium, needs_chromium
from tests.gateway.admin.admin_port import TOKEN, number

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdminServer]:
    with admin_server(tmp_path) as running:
        yield running


@pytest.fixture
def watched(browser: Browser, server: AdminServer) -> Iterator[Watched]:
    # With the server, so that it goes first: a page may still load its icon when a test ends.
    context = browser.new_context()
    yield (watched := Watched(context))
    context.close()
    assert watched.complaints == []


def test_no_page_makes_the_browser_complain(watched: Watched, server: AdminServer) -> None:
    for path in PATHS:
        answer = watched.page.goto(server.url + path)
        assert answer is not None
        assert answer.ok
        expect(watched.page.locator("h1")).to_have_count(1)
        expect(watched.page.locator("main")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, server: AdminServer, scheme: str) -> None:
    """WCAG AA: at least 4.5 to 1 between a text and what is behind it."""
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    for path in PATHS:
        page.goto(server.url + path)
        assert page.evaluate(_CONTRAST) == [], path
    context.close()


def test_nothing_is_wider_than_a_phone(browser: Browser, server: AdminServer) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    for path in PATHS:
        page.goto(server.url + path)
        for details in page.locator("details:not([open]) > summary").all():
            details.click()
        assert page.evaluate(_TOO_WIDE) == [], path
    context.close()


def test_everything_to_operate_has_a_name(browser: Browser, server: AdminServer) -> None:
    page = browser.new_page()
    for path in PATHS:
        page.goto(server.url + path)
        assert page.evaluate(_UNNAMED) == [], path
        assert page.evaluate("document.documentElement.lang") == "en"
        for table in page.locator("table").all():
            assert table.locator("caption").count() == 1, path
    page.close()


def test_a_reject_is_allowed_by_keyboard_alone(watched: Watched, server: AdminServer) -> None:
    page = watched.page
    page.goto(f"{server.url}/decisions?decision=reject")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    _tab_to(page, f'a[href="/decisions/{number(1)}"]')
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Rejected by red-and-triangle")
    _tab_to(page, 'input[name="why"]')
    page.keyboard.type("an innocent drawing")
    page.keyboard.press("Enter")  # neither allows nor denies
    expect(page.locator('input[name="why"]')).to_have_value("an innocent drawing")
    assert len(server.port.overrides.current) == 0
    _tab_to(page, 'input[name="alike"]')
    page.keyboard.press("Space")
    _tab_to(page, "button.allow")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("From now on these bytes are allowed")
    (entry,) = server.port.overrides.current.entries
    assert (entry.action, entry.note, entry.perceptual) == ("allow", "an innocent drawing", True)
    expect(page.locator("main")).to_contain_text("an innocent drawing")


def _tab_to(page: Page, selector: str) -> None:
    wanted = page.locator(selector).first
    for _ in range(200):
        page.keyboard.press("Tab")
        if wanted.evaluate("found => found === document.activeElement"):
            outline = wanted.evaluate("found => getComputedStyle(found).outlineStyle")
            assert outline != "none", f"focus does not show on {selector}"
            return
    raise AssertionError(f"{selector} can't be reached by Tab")


def test_sliders_move_what_is_shown(watched: Watched, server: AdminServer) -> None:
    page = watched.page
    page.goto(f"{server.url}/what-if")
    expect(page.locator("#effect")).to_contain_text("Nothing is moved")
    slider = page.get_by_label("red", exact=True)
    slider.focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#effect")).to_contain_text("2 of 72 decisions would have come out")
    expect(page.locator("#effect pre")).to_contain_text("thresholds = { red = 0.157 }")
    expect(page.locator(".slider.moved output")).to_have_text("0.157")
    assert "g0.t0=0.157" in page.url
    page.reload()
    expect(page.locator("#effect")).to_contain_text("2 of 72 decisions would have come out")
    page.locator("#effect a", has_text=":").first.click()
    expect(page.locator("h1")).to_contain_text("Rejected")


def test_the_what_if_works_without_scripts(browser: Browser, server: AdminServer) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server.url}/what-if")
    page.get_by_label("red", exact=True).focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Show the effect").click()
    expect(page.locator("#effect")).to_contain_text("2 of 72 decisions would have come out")
    context.close()


def test_pages_are_turned(watched: Watched, server: AdminServer) -> None:
    page = watched.page
    page.goto(f"{server.url}/decisions")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(25)
    page.get_by_role("link", name="Newer").click()
    expect(rows).to_have_count(50)
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("State").select_option("unscanned")
    page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)


def test_logging_in(browser: Browser, tmp_path: Path) -> None:
    with admin_server(tmp_path, token=TOKEN) as server:
        page = browser.new_page()
        page.goto(f"{server.url}/decisions?cause=overload")
        expect(page.locator("h1")).to_have_text("Log in")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Admin token").fill("not this one")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("That is not the gateway's admin token.")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Admin token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Decisions")
        assert page.url.endswith("/decisions?cause=overload")
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("h1")).to_have_text("Log in")
        page.goto(server.url)
        expect(page.locator("h1")).to_have_text("Log in")
        page.close()


def test_a_frame_of_another_page_stays_empty(browser: Browser, server: AdminServer) -> None:
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    with page.expect_event("console"):
        page.set_content(f'<iframe src="{server.url}/"></iframe>')
    assert any(re.search("frame-ancestors|X-Frame-Options", text) for text in refused)
    page.close()


_TOO_WIDE = """() => {
  if (document.documentElement.scrollWidth <= 360) return [];
  const right = (one) => one.getBoundingClientRect().right;
  return [...document.querySelectorAll("body *")].filter((one) => right(one) > 360)
    .map((one) => `${one.tagName} ${one.className} ${right(one)}`);
}"""

_UNNAMED = """() => {
  const named = (one) => one.labels?.length || one.getAttribute("aria-label")
    || one.textContent.trim() || one.getAttribute("title");
  const all = "a[href], button, input:not([type=hidden]), select, summary, svg[role=img]";
  const unnamed = [...document.querySelectorAll(all)].filter((one) => !named(one));
  return unnamed.map((one) => one.outerHTML);
}"""

_CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => {
      const c = value / 255;
      return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const svg = element.closest("svg");
    if (svg && element.tagName === "title") continue;
    const ink = luminance(parse(svg ? style.fill : style.color));
    const paper = luminance(behind(svg ? svg.parentElement : element));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) bad.push(`${walker.currentNode.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
}"""
