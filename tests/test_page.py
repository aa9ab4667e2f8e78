"""The status page, in a real browser: steps are clicked, numbers are exact, a takeover is seen.

``chromium`` is Debian's; Playwright steers it.
"""

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, expect, sync_playwright

from bench.heads import chromium
from fibcore.stores import files, sqlite_file
from tests.support import requires
from tests.support.implementations import IMPLEMENTATIONS, assert_problem, serving
from tests.support.reference import digits_of, fibonacci_modulo
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.test_status import NEVER_OPENS
from web.endpoints import TABLE

pytestmark = pytest.mark.processes

PATIENCE: Final = 30_000
"""Milliseconds."""

SIZES: Final = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}

ENDED: Final = re.compile(r"ERR_(CONNECTION|EMPTY_RESPONSE|SOCKET|NETWORK)|status of 503")
"""What the browser itself logs of an answer that doesn't come, or is an error."""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with closing(
        playwright.chromium.launch(
            executable_path=chromium.program() or requires.program("chromium"),
            args=["--no-sandbox", "--no-proxy-server", "--disable-gpu"],
        )
    ) as browser:
        yield browser


@dataclass
class Viewer:
    """A person who looks at the page."""

    page: Page
    said: list[str] = field(default_factory=list)
    """What is in the browser's console, and errors."""
    asked: list[str] = field(default_factory=list)
    """What was asked for."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _note(self, message: ConsoleMessage) -> None:
        self.said.append(message.text)

    def opens(self, client: Client) -> None:
        self.page.goto(f"http://127.0.0.1:{client.port}/")

    def sees(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until it says so."""
        expect(self.page.locator(selector)).to_have_text(text, timeout=PATIENCE)

    def sees_at(self, selector: str, text: str) -> None:
        """Wait until it has that somewhere in it."""
        expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE)

    def clicks(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    @property
    def digits(self) -> tuple[str, str]:
        """The first and the last ones that are shown."""
        first, last = (self.page.locator(each).inner_text() for each in ("#first", "#last"))
        return first, last


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    with closing(browser.new_context(permissions=["clipboard-read", "clipboard-write"])) as context:
        yield Viewer(context.new_page())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path, 24_998) as client:
        yield client


# What it is made of


FILES: Final = ("page.css", "page.js", "charts.js", "words.js", "icon.svg")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_its_headers_keep_others_out_and_have_it_asked_for_anew(
    tmp_path: Path, implementation: str
) -> None:
    with serving(tmp_path, 7, implementation) as client:
        for path in ("/", *(f"/page/{name}" for name in FILES)):
            answer = client.get(path)
            name = path.rpartition("/")[2] or "index.html"
            assert answer.status == 200
            assert answer.body == (resources.files("web") / "page" / name).read_bytes()
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
            tag = answer.headers["etag"]
            again = client.get(path, {"If-None-Match": f'"x", {tag}'})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
            assert client.get(path, {"If-None-Match": '"x"'}).status == 200
            head = client.request("HEAD", path)
            assert (head.status, head.headers["content-length"]) == (200, str(len(answer.body)))
        assert len(list((resources.files("web") / "page").iterdir())) == len(FILES) + 1
        answer = client.request("POST", "/")
        assert_problem(answer, 405, "/ does not take POST")
        assert answer.headers["allow"] == "GET, HEAD"
        assert_problem(client.get("/page/"), 404, "The paths are /, /current")
        assert client.index == 7


def test_it_links_to_each_path_that_programs_read(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    links = viewer.page.get_by_role("navigation", name="For programs").get_by_role("link")
    found = {link.evaluate("link => new URL(link.href).pathname") for link in links.all()}
    assert found == {row.path for row in TABLE.rows if "{" not in row.path} - {"/next"}
    for path in found:
        assert client.get(path).status == 200


def test_it_asks_for_nothing_from_elsewhere_and_logs_no_error(
    viewer: Viewer, client: Client
) -> None:
    viewer.opens(client)
    viewer.sees("#state", "Healthy")
    viewer.clicks("Next number")
    viewer.sees("#place", "24999")
    with viewer.page.expect_request("**/status"):
        pass
    assert all(url.startswith(f"http://127.0.0.1:{client.port}/") for url in viewer.asked)
    assert viewer.said == []
    # The control: both are noticed.
    viewer.page.evaluate("console.error('wrong'); fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert viewer.said[0] == "wrong"
    assert any("Content Security Policy" in each for each in viewer.said)


def test_no_foreign_script_runs_and_no_foreign_page_frames_it(
    viewer: Viewer, client: Client
) -> None:
    viewer.opens(client)
    viewer.page.evaluate(
        "const script = document.createElement('script');"
        "script.append('window.ran = true'); document.body.append(script)"
    )
    assert viewer.page.evaluate("window.ran") is None
    viewer.page.goto("about:blank")
    viewer.page.set_content(f"<iframe src='http://127.0.0.1:{client.port}/'></iframe>")
    frame = viewer.page.frames[1]
    frame.wait_for_url("chrome-error://chromewebdata/", timeout=PATIENCE)


# The number


def test_a_click_steps_and_the_number_is_exact(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    viewer.sees("#place", "24998")
    for index in (24_999, 25_000):
        viewer.clicks("Next number")
        viewer.sees("#place", str(index))
        viewer.sees("#message", f"Stepped to F({index:,}).")
        digits = digits_of(index).decode()
        assert viewer.digits == (digits[:60], digits[-60:])
        assert client.index == index
    viewer.sees("#index", "25,000")
    viewer.sees("#size", " · 5,225 digits")
    viewer.sees("#between", "5,105 digits between")
    # So it is, too, as /status says it.
    viewer.page.reload()
    viewer.sees("#place", "25000")
    assert viewer.digits == (digits[:60], digits[-60:])


def test_what_others_step_is_shown(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    viewer.sees("#place", "24998")
    client.get("/next")
    viewer.sees("#place", "24999")


@pytest.mark.parametrize("index", [0, 93, 286, 573])
def test_a_short_number_is_shown_whole(viewer: Viewer, tmp_path: Path, index: int) -> None:
    """From 60 digits on in two parts, past 120 of them with what is left out said."""
    with serving(tmp_path, index) as client:
        viewer.opens(client)
        viewer.sees("#place", str(index))
        for at in (index, index + 1, index + 2):
            digits = digits_of(at).decode()
            assert viewer.digits == (digits[:60], digits[60:][-60:])
            expect(viewer.page.locator("#between")).to_be_visible(visible=len(digits) > 120)
            viewer.clicks("Next number")
            viewer.sees("#place", str(at + 1))


def test_an_index_past_2_to_the_53_is_exact(viewer: Viewer, tmp_path: Path) -> None:
    """Where JavaScript's numbers end: this one would be even."""
    index = 2**53 + 1
    with serving(tmp_path, index, FIB_INTEGERS="uint64") as client:
        viewer.opens(client)
        viewer.sees("#index", f"{index:,}")
        assert "".join(viewer.digits) == str(fibonacci_modulo(index))
        viewer.clicks("Next number")
        viewer.sees("#place", str(index + 1))
        viewer.sees("#message", f"Stepped to F({index + 1:,}).")
        assert "".join(viewer.digits) == str(fibonacci_modulo(index + 1))
        expect(viewer.page.locator("#modulo")).to_be_visible()


@pytest.mark.parametrize("clipboard", ["clipboard", "no clipboard"])
def test_all_digits_are_copied(viewer: Viewer, client: Client, clipboard: str) -> None:
    """Also where the page is on plain HTTP from elsewhere, and the browser has no clipboard."""
    if clipboard == "no clipboard":
        viewer.page.add_init_script(
            "window.kept = navigator.clipboard;"
            "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
        )
    viewer.opens(client)
    viewer.clicks("Copy all digits")
    viewer.sees("#message", "Copied 5,224 digits: F(24,998).")
    copied = viewer.page.evaluate("(window.kept ?? navigator.clipboard).readText()")
    assert copied == digits_of(24_998).decode()


def test_all_digits_are_saved(viewer: Viewer, client: Client, tmp_path: Path) -> None:
    viewer.opens(client)
    with viewer.page.expect_download() as download:
        viewer.clicks("Download")
    assert download.value.suggested_filename == "fibonacci-24998.txt"
    download.value.save_as(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == digits_of(24_998)
    viewer.sees("#message", "Saved 5,224 digits as fibonacci-24998.txt.")


# When something is wrong


def test_a_step_that_is_shed_is_said_plainly(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener, {"FIB_MAX_WAITING": "1"}) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.sees("#place", "0")
        with closing(sqlite_file.connect(database)) as other, closing(client.raw()) as waits:
            # The server is in the middle of a commit for as long.
            other.execute("BEGIN IMMEDIATE")
            waits.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
            while json.loads(client.get("/status").body)["waiting"]["steps"] == 0:
                pass
            viewer.clicks("Next number")
            viewer.sees_at("#message", "503: The server has reached a bound: 1 steps wait for the")
            viewer.sees_at("#message", "Nothing has stepped. Ask again after 1 s.")
            viewer.sees_at("#away", "1 unavailable")
            viewer.sees_at("#away", "waiting 1")
        viewer.sees("#place", "1")
        viewer.clicks("Next number")
        viewer.sees("#message", "Stepped to F(2).")
    assert all(ENDED.search(each) for each in viewer.said)


def test_the_largest_index_is_said_plainly(viewer: Viewer, tmp_path: Path) -> None:
    with serving(tmp_path, 7, FIB_MAX_INDEX="7") as client:
        viewer.opens(client)
        viewer.clicks("Next number")
        viewer.sees_at("#message", "409: The sequence stands at index 7, the largest")


def test_a_store_that_can_not_be_used_is_said_plainly(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    command = (sys.executable, "-c", NEVER_OPENS)
    with ServerProcess(database, listener, command=command) as server:
        server.log.expect("It is broken")
        viewer.opens(server.client)
        viewer.sees("#state", "Unavailable")
        viewer.sees_at("#banner", "It is broken")
        viewer.clicks("Next number")
        viewer.sees_at("#message", "503: x.db can't be used now: It is broken")
        assert "Unavailable" in viewer.page.title()
    assert all(ENDED.search(each) for each in viewer.said)


def test_a_takeover_after_kill_9_is_seen_without_a_reload(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener, name="first") as first:
        client = first.wait_until_it_serves().client
        viewer.opens(client)
        viewer.page.evaluate("window.same = true")
        viewer.clicks("Next number")
        viewer.sees("#place", "1")
        viewer.sees_at("#server", f"process {first.pid}")
        viewer.sees_at("#standby", "None")
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            viewer.sees_at("#standby", "Ready")
            first.signal(signal.SIGKILL)
            viewer.sees_at("#events", f"Process {second.pid} serves: the server before was killed")
            viewer.sees_at("#takeovers", "the server before was killed or had crashed")
            viewer.sees_at("#server", f"process {second.pid}")
            drawn = viewer.page.locator("svg path.event").all()
            assert all(
                re.fullmatch(r"M\d+\.\d 80V0", each.get_attribute("d") or "") for each in drawn
            )
            viewer.sees("#state", "Healthy")
            viewer.clicks("Next number")
            viewer.sees("#place", "2")
            assert viewer.page.evaluate("window.same")
    assert all(ENDED.search(each) for each in viewer.said)


def test_a_server_gone_and_back_is_seen_without_a_reload(viewer: Viewer, database: Path) -> None:
    with listening_socket() as listener, ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.clicks("Next number")
        viewer.sees("#place", "1")
        viewer.page.evaluate("window.same = true")
    viewer.sees("#state", "No answer")
    viewer.sees_at("#banner", "and is asked again each second")
    viewer.clicks("Next number")
    viewer.sees_at("#message", "No answer came. Whether it has stepped shows above")
    with ServerProcess(database, settings={"FIB_PORT": str(client.port)}) as server:
        server.wait_until_it_serves()
        viewer.sees("#state", "Healthy")
        viewer.sees_at("#events", f"Process {server.pid} serves: the server was started anew")
        viewer.sees("#place", "1")
        assert viewer.page.evaluate("window.same")
    assert all(ENDED.search(each) for each in viewer.said)


# What it shows beside


def test_rates_commits_and_what_serves_are_shown(
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
            assert "at the most" in (svg.get_attribute("aria-label") or "")


def test_who_does_not_look_does_not_ask(viewer: Viewer, client: Client) -> None:
    viewer.page.clock.install()
    viewer.opens(client)
    viewer.sees("#state", "Healthy")

    def asks(hidden: str) -> int:
        viewer.page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        # The question that was under way, or due, has had its turn.
        viewer.page.clock.run_for(2_000)
        viewer.page.evaluate("fetch('health').then(() => 0)")
        viewer.asked.clear()
        viewer.page.clock.run_for(3_000)
        viewer.page.evaluate("fetch('health').then(() => 0)")
        return sum(url.endswith("/status") for url in viewer.asked)

    assert asks("true") == 0
    assert asks("false") > 0


# For everybody


@pytest.fixture(scope="module")
def at_25_000(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving(tmp_path_factory.mktemp("at_25_000"), 25_000) as client:
        yield client


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_accessible_and_fits_at_each_size(
    browser: Browser, at_25_000: Client, size: str, scheme: Literal["light", "dark"]
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        is_mobile=size == "phone",
    )
    with closing(context):
        viewer = Viewer(context.new_page())
        viewer.opens(at_25_000)
        viewer.clicks("Next number")
        viewer.sees_at("#message", "Stepped to")
        for state in ("Healthy", "No answer"):
            if state == "No answer":
                viewer.page.route("**/status", lambda route: route.abort())
            viewer.sees("#state", state)
            found = Axe().run(viewer.page)
            assert found.violations_count == 0, found.generate_report()
            assert viewer.page.evaluate("document.documentElement.scrollWidth") <= width
        viewer.page.evaluate("document.querySelector('#next').textContent = ''")
        assert Axe().run(viewer.page).violations_count > 0  # The control.


def test_the_keyboard_alone_will_do(viewer: Viewer, client: Client) -> None:
    viewer.opens(client)
    viewer.sees("#place", "24998")

    def focused() -> object:
        return viewer.page.evaluate("document.activeElement.id")

    viewer.page.keyboard.press("Tab")
    assert focused() == "next"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert viewer.page.evaluate(outline) == "solid"
    for key, index in (("Enter", "24999"), ("Space", "25000")):
        viewer.page.keyboard.press(key)
        viewer.sees("#place", index)
        assert focused() == "next"
    viewer.page.keyboard.press("Tab")
    viewer.page.keyboard.press("Enter")
    viewer.sees("#message", "Copied 5,225 digits: F(25,000).")
    assert focused() == "copy"
    viewer.page.keyboard.press("Tab")
    with viewer.page.expect_download():
        viewer.page.keyboard.press("Enter")
    viewer.page.keyboard.press("Tab")
    assert viewer.page.evaluate("document.activeElement.href").endswith("/current")
