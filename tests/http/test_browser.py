"""In a real browser: foreign pages can't step, and rebound names can't.

The names end in ``.test`` and lead to this machine only in this browser.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support import requires
from tests.support.browser import CHROMIUM
from tests.support.implementations import serving
from tests.support.servers import Client

pytestmark = pytest.mark.processes

NAMES_LEAD_HERE: Final = "--host-resolver-rules=MAP *.test 127.0.0.1"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    program = requires.program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*CHROMIUM, NAMES_LEAD_HERE]
        )
        with browser.new_page() as page:
            yield page


class Foreign(BaseHTTPRequestHandler):
    """A foreign site: a page at every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page of somebody else's</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def foreign() -> Iterator[int]:
    """The port of the foreign site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server without settings."""
    with serving(tmp_path_factory.mktemp("server"), 7) as client:
        yield client


def url(client: Client, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{client.port}{path}"


def fetch(page: Page, url: str, **options: object) -> object:
    """The status and the number that a page can see; ``"nothing"`` if the browser hides them."""
    return page.evaluate(
        "([url, options]) => fetch(url, options).then("
        "async answer => [answer.status, answer.headers.get('etag'), await answer.text()], "
        "() => 'nothing')",
        [url, options],
    )


def show_image(page: Page, url: str) -> None:
    page.evaluate(
        "url => new Promise(done => { const image = new Image();"
        " image.onload = image.onerror = () => done(); image.src = url })",
        url,
    )


@contextmanager
def steps(client: Client, expected: int) -> Iterator[None]:
    index = client.index
    yield
    assert client.index == index + expected


def try_to_step(page: Page, next_: str, fields: dict[str, str]) -> None:
    """Every way in which a page can request an address, whether or not it sees the answer."""
    show_image(page, next_)
    for method in ("GET", "POST"):
        for options in ({}, {"mode": "no-cors"}, {"headers": fields}):
            fetch(page, next_, method=method, **options)
    page.evaluate(
        "url => new Promise(done => {"
        "  const frame = document.body.appendChild(document.createElement('iframe'));"
        " frame.onload = () => done(); frame.src = url })",
        next_,
    )
    with page.expect_navigation():  # as by a link
        page.evaluate("url => { location.href = url }", next_)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "stranger.test"])
def test_a_page_of_another_origin_does_not_step(
    page: Page, server: Client, foreign: int, host: str
) -> None:
    page.goto(f"http://{host}:{foreign}/")
    with steps(server, 0):
        try_to_step(page, url(server, "/next"), {"If-Match": "*"})


@pytest.mark.parametrize(
    ("settings", "status", "ours"),
    [
        ({"FIB_ALLOWED_HOSTS": ""}, 421, "localhost"),
        ({"FIB_ALLOWED_HOSTS": "fib.test"}, 421, "fib.test"),
        ({"FIB_ALLOWED_HOSTS": "", "FIB_HOST": "0.0.0.0"}, 200, "fib.test"),
    ],
    ids=["by default", "listed", "any name"],
)
def test_a_rebound_name_does_not_step(
    page: Page,
    settings: dict[str, str],
    status: int,
    ours: str,
    tmp_path: Path,
) -> None:
    """The control: if any name is answered, the browser treats the page as same-origin."""
    with serving(tmp_path, 7, **settings) as client:
        page.goto(url(client, "/health", "evil.test"))
        with steps(client, 2 if status == 200 else 0):
            for method in ("GET", "POST"):
                answer = fetch(page, "/next", method=method)
                assert isinstance(answer, list)
                assert answer[0] == status
        page.goto(url(client, "/health", ours))
        with steps(client, 1):
            fetch(page, "/next")
