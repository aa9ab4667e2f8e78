"""``/status``: counts, durations, the process, the backup copy, and takeovers."""

import getpass
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.corpus import request
from tests.support.implementations import serving
from tests.support.limits import limited, read_answer
from tests.support.openapi import Document
from tests.support.ports import free_port
from tests.support.raw_clients import locked, say
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import until

pytestmark = pytest.mark.processes


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path, 30_000) as client:
        yield client


def status(client: Client) -> dict[str, Any]:
    """What it shows now, which matches its description."""
    found: dict[str, Any] = json.loads(client.status.body)
    document = Document(client)
    content = document.response("get", "/status", 200)["content"]
    document.assert_matches(content["application/json"]["schema"], found)
    return found


def test_status_has_the_exact_index_and_the_ends_of_its_number(client: Client) -> None:
    client.get("/next")
    now = status(client)
    assert (now["index"], now["digits"], now["max_index"]) == ("30001", 6270, "10000000")
    assert (now["healthy"], now["reason"]) == (True, None)
    digits = digits_of(30_001).decode()
    assert (now["first"], now["last"]) == (digits[:60], digits[-60:])


def test_it_counts_answers_connections_and_waiting_steps(tmp_path: Path) -> None:
    with limited(tmp_path, MAX_WAITING_STEPS="2", MAX_CONNECTIONS="10") as served:
        for asked in (
            *(request("GET /next"), request("GET /current"), request("GET /previous")),
            *(request("GET /numbers/5"), request("GET /health"), request("GET /nowhere")),
            request("GET /current", "If-None-Match: *"),
            request("GET /next", 'If-Match: "x"'),
            request("GET /previous", 'If-Match: "x"'),
            request("PUT /next", "Content-Length: 0"),
            request("GET /next", "Purpose: prefetch"),
        ):
            say(served.client, asked)
        with locked(tmp_path / "fibcore.db"):
            for _ in range(2):
                served.connect(request("GET /next"))
            served.settle()
            assert read_answer(served.connect(request("GET /next")))[0] == 503
            now = json.loads(say(served.client, request("GET /status")).partition(b"\r\n\r\n")[2])
    assert (now["steps"], now["reads"], now["unavailable"]) == (1, 4, 2)
    rejected = {reason: n for reason, n in now["rejected_requests"].items() if n}
    assert rejected == {"path": 1, "condition": 2, "method": 1}
    shed = {bound: n for bound, n in now["shed_requests"].items() if n}
    assert (shed, now["waiting_steps"], now["limit"]["waiting"]) == ({"waiting": 1}, 2, 2)
    assert (now["connections"], now["accepted_connections"]) == (4, 15)


def test_status_identifies_the_process_its_uptime_and_its_store(client: Client) -> None:
    first, second = status(client), status(client)
    assert first["process"]["pid"] == second["process"]["pid"] != os.getpid()
    assert first["process"]["began"] == second["process"]["began"] <= first["now"] < time.time()
    assert 0 < first["process"]["uptime"] < second["process"]["uptime"]
    assert 10e6 < first["memory_bytes"] < 512e6
    assert (first["store"]["kind"], first["store"]["synchronous"]) == ("sqlite", "full")
    assert (first["store"]["integers"], first["store"]["warnings"]) == ("exact", [])


def test_status_names_the_node_but_not_its_host(client: Client, tmp_path: Path) -> None:
    text = client.get("/status").body.decode()
    for hidden in (socket.gethostname(), getpass.getuser(), str(tmp_path)):
        assert hidden not in text
    assert re.fullmatch("[0-9a-f]{8}", json.loads(text)["process"]["node"])


def test_status_has_the_time_of_the_backup_copy(database: Path, listener: socket.socket) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        assert status(client)["backup_copy"] is None
        copy = Path(shutil.copy(database, f"{database}.backup"))
        assert status(client)["backup_copy"] == {"at": copy.stat().st_mtime}


def test_health_has_a_warning_while_no_backup_copy_can_be_made(
    database: Path, listener: socket.socket
) -> None:
    with ServerProcess(database, listener) as server:
        client = server.wait_until_it_serves().client
        assert status(client)["backup_failing"] is False
        problem = Path(f"{database}.backup-problem")
        problem.write_text("The disk is full.")
        until(lambda: status(client)["backup_failing"], "the server has read the problem")
        warnings = ["No backup copy is made. The disk is full."]
        healthy = {"status": "healthy", "warnings": warnings}
        assert json.loads(client.get("/health").body) == healthy
        problem.unlink()
        until(lambda: not status(client)["backup_failing"], "it has seen that it is over")
        assert json.loads(client.get("/health").body) == {"status": "healthy"}


def test_status_reports_an_unavailable_store_and_its_reason(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    with listening_socket() as listener, ServerProcess(url, listener, logs=tmp_path) as server:
        now = status(server.client)
        assert now["healthy"] is False
        assert "the server's log has the reason" in now["reason"]
        names = ("index", "first", "digits", "commit_seconds", "batch_wait_seconds")
        assert {name: now[name] for name in names} == dict.fromkeys(names)
        assert now["steps"] == 0
        assert server.client.get("/health").status == 503


def stops(server: ServerProcess) -> None:
    server.signal(signal.SIGTERM)


def is_killed(server: ServerProcess) -> None:
    server.signal(signal.SIGKILL)


@pytest.mark.parametrize(("ends", "after"), [(stops, "stopped"), (is_killed, "killed")])
def test_a_takeover_is_counted_with_how_the_previous_server_ended(
    database: Path, listener: socket.socket, ends: Callable[[ServerProcess], None], after: str
) -> None:
    with ServerProcess(database, listener, name="first") as first:
        client = first.wait_until_it_serves().client
        assert status(client)["standby"] is False
        assert status(client)["takeovers"]["number"] == 0
        with ServerProcess(database, listener, name="second") as second:
            second.wait_until_it_stands_by()
            until(lambda: status(client)["standby"], "it waits for the lock")
            begun = time.time()
            ends(first)
            first.wait()
            until(lambda: status(client)["takeovers"]["number"] == 1, "it is counted")
            now = status(client)
            assert (now["process"]["pid"], now["steps"]) == (second.pid, 0)
            assert now["takeovers"]["after"] == after
            assert begun <= now["takeovers"]["at"] <= now["now"]
            assert 0 < now["takeovers"]["seconds"] < now["now"] - begun
