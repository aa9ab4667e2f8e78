"""What the page says when something is wrong: a bound, a takeover, no server."""

import json
import re
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fibcore.stores import sqlite_file
from tests.endpoints.page.viewer import ENDED, PATIENCE, Viewer
from tests.support.implementations import serving
from tests.support.programs import NEVER_OPENS
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import until

pytestmark = pytest.mark.processes


def test_a_step_that_is_shed_is_said_plainly(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener, {"FIB_MAX_WAITING_STEPS": "1"}) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.sees("#index", "0")
        with closing(sqlite_file.connect(database)) as other, closing(client.raw()) as waits:
            # The server is in the middle of a commit for as long.
            other.execute("BEGIN IMMEDIATE")
            waits.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: json.loads(client.get("/status").body)["waiting_steps"] > 0, "it waits")
            viewer.clicks("Next number")
            viewer.sees_at("#message", "503: The server has reached a limit: 1 steps already wait")
            viewer.sees_at("#message", "This request has not stepped. Retry after 1 s.")
            viewer.sees_at("#away", "1 unavailable")
            viewer.sees_at("#away", "waiting 1")
        viewer.sees("#index", "1")
        viewer.clicks("Next number")
        viewer.sees("#message", "Stepped to F(2).")
    assert all(ENDED.search(each) for each in viewer.said)


def test_the_largest_index_is_said_plainly(viewer: Viewer, tmp_path: Path) -> None:
    with serving(tmp_path, 7, FIB_MAX_INDEX="7") as client:
        viewer.opens(client)
        viewer.clicks("Next number")
        viewer.sees_at("#message", "409: The sequence is at index 7, the largest")
        # It is so still, whatever else is answered.
        for _ in range(2):
            with viewer.page.expect_request_finished(lambda each: each.url.endswith("/status")):
                pass
        viewer.sees_at("#message", "409: ")


def test_a_store_that_can_not_be_used_is_said_plainly(
    viewer: Viewer, database: Path, listener: socket.socket
) -> None:
    command = (sys.executable, "-c", NEVER_OPENS)
    with ServerProcess(database, listener, command=command) as server:
        server.log.expect("It is broken")
        viewer.opens(server.client)
        viewer.sees("#state", "Unavailable")
        viewer.sees_at("#banner", "the server's log has the reason")
        viewer.sees("#first", "unknown")
        viewer.clicks("Next number")
        viewer.sees_at("#message", "503: The store is unavailable: the server's log has the reason")
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
        viewer.sees("#index", "1")
        viewer.sees_at("#server", f"process {first.pid}")
        viewer.sees_at("#standby", "None")
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            viewer.sees_at("#standby", "Ready")
            first.signal(signal.SIGKILL)
            viewer.sees_at(
                "#events",
                f"Process {second.pid} took over: the previous server was killed or crashed",
            )
            viewer.sees_at("#takeovers", "the previous server was killed or crashed")
            viewer.sees_at("#server", f"process {second.pid}")
            when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\s\S+ . Process"
            assert re.match(when, viewer.text("#events"))
            alternative = re.compile(r"\. Taken over once\.$")
            for svg in viewer.page.locator("#charts svg").all():
                expect(svg).to_have_attribute("aria-label", alternative, timeout=PATIENCE)
            drawn = viewer.page.locator("svg path.event").all()
            assert all(
                re.fullmatch(r"M\d+\.\d 80V0", each.get_attribute("d") or "") for each in drawn
            )
            viewer.sees("#state", "Healthy")
            viewer.clicks("Next number")
            viewer.sees("#index", "2")
            assert viewer.page.evaluate("window.same")
    assert all(ENDED.search(each) for each in viewer.said)


def test_a_server_gone_and_back_is_seen_without_a_reload(viewer: Viewer, database: Path) -> None:
    """A step that was asked for meanwhile is made then, once."""
    with listening_socket() as listener, ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        viewer.opens(client)
        viewer.clicks("Next number")
        viewer.sees("#index", "1")
        viewer.page.evaluate("window.same = true")
    viewer.sees("#state", "No answer")
    viewer.sees_at("#banner", "Retrying every second; the values below are the last known.")
    viewer.clicks("Next number")
    viewer.sees_at("#message", "No answer yet. Requesting the same step again")
    with ServerProcess(database, settings={"FIB_PORT": str(client.port)}) as server:
        server.wait_until_it_serves()
        viewer.sees("#message", "Stepped to F(2).")
        viewer.sees("#state", "Healthy")
        viewer.sees_at("#events", f"Process {server.pid} serves: the server was restarted")
        viewer.sees("#index", "2")
        assert viewer.page.evaluate("window.same")
    assert all(ENDED.search(each) for each in viewer.said)


def test_what_was_old_and_the_red_message_go_when_it_is_over(
    viewer: Viewer, client: Client
) -> None:
    viewer.opens(client)
    viewer.sees("#index", "24,998")
    number = viewer.page.locator("#number")
    fresh = number.evaluate("each => getComputedStyle(each).color")
    for path in ("status", "current"):
        viewer.page.route(f"**/{path}", lambda route: route.abort())
    viewer.sees("#state", "No answer")
    since = r"Can't reach the server since \d\d:\d\d:\d\d \S+\. Retrying every second; "
    viewer.sees("#banner", re.compile(f"{since}the values below are the last known."))
    viewer.clicks("Copy all digits")
    viewer.sees("#message", "The server did not answer.")
    viewer.sees("#age", re.compile(r"Last known .*[2-9] s ago"))
    assert number.evaluate("each => getComputedStyle(each).color") != fresh
    viewer.page.unroute_all()
    viewer.sees("#state", "Healthy")
    viewer.sees("#message", "")
    expect(viewer.page.locator("#message.bad")).to_have_count(0)
    expect(viewer.page.locator("#age")).to_be_hidden()
    expect(viewer.page.locator("#banner")).to_be_hidden()
    assert number.evaluate("each => getComputedStyle(each).color") == fresh
    assert all(ENDED.search(each) or "ERR_FAILED" in each for each in viewer.said)


def test_without_javascript_nothing_looks_like_a_button(browser: Browser, client: Client) -> None:
    with closing(browser.new_context(java_script_enabled=False)) as context:
        viewer = Viewer(context.new_page())
        viewer.opens(client)
        assert "This page needs JavaScript." in viewer.text("main")
        assert viewer.page.get_by_role("button").count() == 0
        assert viewer.page.get_by_role("textbox").count() == 0
    with closing(browser.new_context()) as context:  # The control.
        viewer = Viewer(context.new_page())
        viewer.opens(client)
        expect(viewer.page.get_by_role("button")).to_have_count(4, timeout=PATIENCE)
