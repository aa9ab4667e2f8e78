"""A browser for all tests of the page, and who looks at it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from bench.heads import chromium
from tests.page.viewer import Viewer
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
        playwright.chromium.launch(
            executable_path=chromium.program() or requires.program("chromium"),
            args=["--no-sandbox", "--no-proxy-server", "--disable-gpu"],
        )
    ) as browser:
        yield browser


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    with closing(browser.new_context(permissions=["clipboard-read", "clipboard-write"])) as context:
        yield Viewer(context.new_page())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path, 24_998) as client:
        yield client
