"""The rest of the page, and its accessibility."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ViewportSize, expect

from fibcore.stores import files, sqlite_file
from tests.endpoints.page.viewer import PATIENCE, Viewer
from tests.support.implementations import serving
from tests.support.servers import Client, ServerProcess
from tests.support.waiting import until

pytestmark = pytest.mark.processes

SIZES: Final = {"phone": (390, 844), "desktop": (1440, 900)}
ALTERNATIVE: Final = re.compile(r"[\w ]+ in the last 1 minute\.( [A-Z][^.]+: .+, at most .+\.)+")
AUDITED: Final = {"phone": "No answer", "desktop": "Healthy"}
"""The state that is audited at each size: an audit takes longer than everything else."""
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


def test_rates_commits_and_the_server_are_shown(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.sees_at("#backup", "None yet")
        with closing(sqlite_file.connect(database, mode="ro")) as reader:
            sqlite_file.copy(reader, database, files.backup_copy_path(database))
        viewer.sees_at("#backup", "old")
        viewer.sees_at("#store", "sqlite, full")
        client.get("/next")
        client.get("/current")
        charts = viewer.page.locator("#charts")
        for label in ("steps", "reads", "commit", "latency", "steps in a batch", "resident"):
            value = charts.locator("p", has_text=re.compile(rf"{label}\b")).locator("span").first
            expect(value).to_have_text(re.compile(r"^0\.[1-9]|^[1-9]"), timeout=PATIENCE)
        for svg in charts.locator("svg").all():
            expect(svg).to_have_attribute("aria-label", ALTERNATIVE, timeout=PATIENCE)


def test_a_hidden_page_does_not_poll(browser: Browser, still: Client) -> None:
    def asks(hidden: str) -> int:
        viewer.page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        # A request that was under way, or due, has completed.
        viewer.page.clock.run_for(2_000)
        viewer.page.evaluate("fetch('health').then(() => 0)")
        viewer.asked.clear()
        viewer.page.clock.run_for(3_000)
        viewer.page.evaluate("fetch('health').then(() => 0)")
        return sum(url.endswith("/status") for url in viewer.asked)

    # A clock belongs to a window.
    with closing(browser.new_context()) as context:
        viewer = Viewer(context.new_page())
        viewer.page.clock.install()
        viewer.opens(still)
        viewer.sees("#state", "Healthy")
        assert asks("true") == 0
        until(lambda: asks("false") > 0, "it asks again")


@contextmanager
def seen_at(size: str, browser: Browser, window: BrowserContext) -> Iterator[Viewer]:
    """A viewer with a window of this size; a phone has a mobile window."""
    width, height = SIZES[size]
    viewport: ViewportSize = {"width": width, "height": height}
    if size == "phone":
        with closing(browser.new_context(viewport=viewport, is_mobile=True)) as phone:
            yield Viewer(phone.new_page())
    else:
        with closing(window.new_page()) as page:
            page.set_viewport_size(viewport)
            yield Viewer(page)


@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_accessible_and_fits_at_each_size(
    browser: Browser, window: BrowserContext, client: Client, size: str
) -> None:
    """In both color schemes."""
    width, _ = SIZES[size]
    with seen_at(size, browser, window) as viewer:
        viewer.opens(client)
        assert viewer.page.evaluate("innerWidth") == width
        viewer.clicks("Next number")
        viewer.sees_at("#message", "Stepped to")
        for state in ("Healthy", "No answer"):
            if state == "No answer":
                viewer.page.route("**/status", lambda route: route.abort())
            viewer.sees("#state", state)
            assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
            if state != AUDITED[size]:
                continue
            for scheme in SCHEMES:
                viewer.page.emulate_media(color_scheme=scheme)
                found = Axe().run(viewer.page)
                assert found.violations_count == 0, found.generate_report()
        viewer.page.evaluate("document.querySelector('#next').textContent = ''")
        assert Axe().run(viewer.page).violations_count > 0  # The control.


def test_the_longest_index_fits_a_narrow_window(viewer: Viewer, tmp_path: Path) -> None:
    """320 px: a window of 1280 px at a zoom of 400 % (WCAG 2.1, 1.4.10)."""
    with serving(tmp_path, 2**63 - 1, FIB_INTEGERS="uint64") as client:
        viewer.page.set_viewport_size({"width": 320, "height": 256})
        viewer.opens(client)
        viewer.sees("#index", f"{2**63 - 1:,}")
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_page_can_be_used_with_the_keyboard_alone(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    viewer.sees("#index", "24,998")

    def focused() -> object:
        return viewer.page.evaluate("document.activeElement.id")

    viewer.page.keyboard.press("Tab")
    assert focused() == "next"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert viewer.page.evaluate(outline) == "solid"
    for key, index in (("Enter", "24,999"), ("Space", "25,000")):
        viewer.page.keyboard.press(key)
        viewer.sees("#index", index)
        assert focused() == "next"
    viewer.page.keyboard.press("Tab")
    viewer.page.keyboard.press("Enter")
    viewer.sees("#message", "Copied 5,225 digits: F(25,000).")
    assert focused() == "copy"
    viewer.page.keyboard.press("Tab")
    with viewer.page.expect_download():
        viewer.page.keyboard.press("Enter")
    viewer.page.keyboard.press("Tab")
    assert focused() == "wanted"
    viewer.page.keyboard.type("1,000")
    viewer.page.keyboard.press("Enter")
    viewer.sees("#found", "F(1,000) has 209 digits.")
    for _ in range(2):
        viewer.page.keyboard.press("Tab")
    assert viewer.page.evaluate("document.activeElement.href").endswith("/current")
