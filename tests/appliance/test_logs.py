"""The log of a server: nothing waits for it, and each event is one line, as text or as JSON."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import ServerProcess, listening_socket
from tests.support.waiting import PATIENCE, until
from tests.support.wire import READ

pytestmark = pytest.mark.processes

JSON = {"FIB_LOG_FORMAT": "json"}


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.text.splitlines()]


@contextlib.contextmanager
def unread(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose log is a pipe that nobody reads."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = ("sh", "-c", f'exec "$0" -m web >{fifo} 2>&1', sys.executable)
    settings = {"FIB_ACCESS_LOG": "on"}
    with (
        listening_socket() as listener,
        ServerProcess(tmp_path / "fibcore.db", listener, settings, command=command) as server,
    ):
        yield server
    os.close(reader)


def test_a_server_with_an_unread_log_serves_and_stops(tmp_path: Path) -> None:
    with unread(tmp_path) as server:
        # More than the pipe and a queue of log lines have room for.
        for _ in range(2000):
            with server.client.raw() as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(READ)
                assert connection.recv(4096).split()[1] == b"200"
                # No port is kept.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_starts_takeovers_and_stops_are_events(database: Path, listener: socket.socket) -> None:
    with ServerProcess(database, listener, JSON, name="first") as first:
        first.log.expect("listening at")
        with ServerProcess(database, listener, JSON, name="second") as second:
            second.log.expect("standing by")
            first.client.get("/next")
            first.signal(signal.SIGKILL)
            until(lambda: '"event": "listening"' in second.log.text, "it has taken over")
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
    events = [each["event"] for each in lines(first)]
    # The tests may keep their databases in memory.
    assert [each for each in events if each != "weakness"] == [
        "start",
        "new",
        "serving",
        "listening",
    ]
    found = {each["event"]: each for each in lines(second)}
    assert found["standby"]["server"] == first.pid
    assert (found["serving"]["index"], found["stopped"]["index"]) == ("1", "1")
    assert {"start", "taking over", "listening", "stopping"} <= set(found)
    for each in lines(second):
        assert each.keys() >= {"time", "level", "pid", "event", "message"}


def test_invalid_settings_are_a_critical_event(database: Path, listener: socket.socket) -> None:
    with ServerProcess(database, listener, {**JSON, "FIB_PORT": "x"}) as server:
        assert server.wait() == os.EX_CONFIG
    (found,) = lines(server)
    assert (found["event"], found["level"], found["status"]) == ("invalid", "critical", 78)
