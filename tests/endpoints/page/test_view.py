"""The charts of the page, and its accessibility."""

import re
import shutil
import socket
from pathlib import Path
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.endpoints.page.viewer import PATIENCE, Viewer
from tests.support.servers import Client, ServerProcess

pytestmark = pytest.mark.processes

ALTERNATIVE: Final = re.compile(r"[\w ]+ in the last 1 minute\.( [A-Z][^.]+: .+, at most .+\.)+")
"""The state that is audited at each size: an audit takes longer than everything else."""


def test_rates_commits_and_the_server_are_shown(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.sees_at("#backup", "None yet")
        shutil.copy(database, f"{database}.backup")
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


@pytest.mark.parametrize(
    ("width", "state"), [(320, "No answer"), (1440, "Healthy")], ids=["phone", "desktop"]
)
def test_the_page_is_accessible_and_fits_at_each_size(
    viewer: Viewer, client: Client, width: int, state: str
) -> None:
    """In both color schemes."""
    viewer.page.set_viewport_size({"width": width, "height": 800})
    viewer.opens(client)
    viewer.clicks("Next number")
    viewer.sees_at("#message", "Stepped to")
    if state == "No answer":
        viewer.page.route("**/status", lambda route: route.abort())
    viewer.sees("#state", state)
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        viewer.page.emulate_media(color_scheme=scheme)
        found = Axe().run(viewer.page)
        assert found.violations_count == 0, found.generate_report()
    viewer.page.evaluate("document.querySelector('#next').textContent = ''")
    assert Axe().run(viewer.page).violations_count > 0  # The control.


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
