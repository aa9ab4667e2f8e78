"""What the page shows when something is wrong: a problem, a takeover, no server."""

import re
import signal
import socket
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.endpoints.page.viewer import ENDED, PATIENCE, Viewer
from tests.support.servers import Client, ServerProcess, listening_socket

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("status", [409, 503])
def test_a_problem_is_shown_with_its_status_until_a_step_is_made(
    viewer: Viewer, client: Client, status: int
) -> None:
    problem = {"status": status, "detail": "This request has not stepped."}
    viewer.page.route("**/next", lambda route: route.fulfill(status=status, json=problem), times=1)
    viewer.page.clock.install()
    viewer.opens(client)
    viewer.clicks("Next number")
    viewer.sees("#message", f"{status}: This request has not stepped.")
    with viewer.page.expect_request_finished(lambda each: each.url.endswith("/status")):
        viewer.page.clock.run_for(1_000)
    viewer.sees("#message", f"{status}: This request has not stepped.")
    viewer.clicks("Next number")
    viewer.sees("#message", "Stepped to F(24,999).")


def test_a_takeover_after_kill_9_is_shown_without_a_reload(
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


def test_an_outage_is_shown_without_a_reload(viewer: Viewer, database: Path) -> None:
    """A step that was requested meanwhile is made once, when the server is back."""
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
