"""A browser for all tests of the page, and who looks at it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

from bench.heads.drivers import CHROMIUM
from tests.endpoints.page.viewer import Viewer
from tests.support import requires
from tests.support.implementations import serving
from tests.support.servers import Client


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with closing(
        playwright.chromium.launch(executable_path=requires.program("chromium"), args=CHROMIUM)
    ) as browser:
        yield browser


@pytest.fixture(scope="package")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """One window for all who look: to open one takes longer than most of what is looked at."""
    with closing(browser.new_context(permissions=["clipboard-read", "clipboard-write"])) as context:
        context.new_page()  # The window closes with the last of its tabs.
        yield context


@pytest.fixture
def viewer(window: BrowserContext) -> Iterator[Viewer]:
    """Each has a tab; the page keeps nothing in the browser."""
    with closing(window.new_page()) as page:
        yield Viewer(page)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path, 24_998) as client:
        yield client
