"""A browser for all tests of the page, and a viewer for each."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

from tests.endpoints.page.viewer import Viewer
from tests.support import requires
from tests.support.browser import CHROMIUM
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
    """One window for all viewers: opening one takes longer than most tests."""
    with closing(browser.new_context(permissions=["clipboard-read", "clipboard-write"])) as context:
        context.new_page()  # The window closes with the last of its tabs.
        yield context


@pytest.fixture
def viewer(window: BrowserContext) -> Iterator[Viewer]:
    """A viewer with its own tab; the page stores nothing in the browser."""
    with closing(window.new_page()) as page:
        yield Viewer(page)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A server for one test, which may step it."""
    with serving(tmp_path, 24_998) as client:
        yield client


@pytest.fixture(scope="package")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server for all tests that do not step."""
    with serving(tmp_path_factory.mktemp("still"), 24_998) as client:
        yield client
