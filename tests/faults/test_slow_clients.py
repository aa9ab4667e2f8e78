"""Clients that are slow, or that do nothing: they are closed in time, and nobody waits for them.

That one of them is closed at its deadline, or evicted for another, is shown in
``tests/http/test_deadlines.py`` and ``tests/http/test_hub.py``. Here they are many, they persist,
and others step meanwhile.
"""

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.load import Load
from tests.faults.server_variants import evicts_nobody, keeps_no_deadlines, variant
from tests.faults.servers import Servers, until_idle
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

CLIENTS: Final = 8
"""The others: how many there are."""

MEGABYTE: Final = 2**20


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection on which it has answered nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


# What drips


DRIPPING: Final = {
    "a head": (b"GET /next HTTP/1.1\r\nX: ", b"x"),
    "a body": (b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"x"),
    "chunks": (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "trailers": (
        b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: y\r\n",
    ),
}

DEADLINE: Final = {"FIB_RECEIVE_TIMEOUT": "1", "FIB_SEND_TIMEOUT": "1"}

NO_DEADLINE: Final = 3.0
"""Seconds after which it is plain that there is none."""


def drip(servers: Servers, seconds: float) -> int:
    """Send a little on each of many connections, again and again; return how many are left.

    That is none as soon as the server has closed them all.
    """
    with ExitStack() as stack:
        left: dict[socket.socket, bytes] = {}
        for begin, more in 5 * list(DRIPPING.values()):
            connection = stack.enter_context(servers.client.raw())
            connection.sendall(begin)
            left[connection] = more
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            for connection in [each for each in left if is_closed(each)]:
                del left[connection]
            for connection, more in left.items():
                with suppress(ConnectionError):
                    connection.sendall(more)
            time.sleep(0.05)
        return len(left)


@pytest.mark.proves(
    "clients",
    "send a head, a body, chunks or trailers a byte at a time",
    "closed at the deadline; nothing steps, others are answered",
)
def test_what_drips_is_closed_at_the_deadline_and_nothing_steps(tmp_path: Path) -> None:
    with Servers(tmp_path / "fibcore.db", tmp_path, settings=DEADLINE) as servers:
        with Load(servers.port, clients=CLIENTS, rate=200) as load:
            assert drip(servers, PATIENCE) == 0
            load.wait_for_steps()
        load.check(first=0, last=servers.client.index)
        assert load.refused == load.unanswered == load.errors.total() == 0


@pytest.mark.proves("clients", "send a head, a body…", control="without deadlines they stay")
@pytest.mark.long
def test_what_drips_would_stay_without_deadlines(tmp_path: Path) -> None:
    command = variant(keeps_no_deadlines)
    with Servers(tmp_path / "a.db", tmp_path, settings=DEADLINE, command=command) as servers:
        assert drip(servers, NO_DEADLINE) == 5 * len(DRIPPING)


# What is idle

IDLE: Final = 1000

IDLERS: Final = {"FIB_MAX_CONNECTIONS": str(IDLE), "FIB_RECEIVE_TIMEOUT": "60"}


@pytest.mark.proves(
    "clients",
    "do nothing, on 1,000 connections",
    "nobody is disturbed, memory is bounded; past the bound the longest idle give way",
)
@pytest.mark.proves("pairs", "a crowd", "few connections")
def test_a_thousand_idle_connections_disturb_nobody(tmp_path: Path) -> None:
    """They make room for new ones."""
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, settings=IDLERS) as servers,
        ExitStack() as stack,
    ):
        before = servers.memory
        idle = [stack.enter_context(servers.client.raw()) for _ in range(IDLE)]
        until(lambda: servers.connections == IDLE, "all are accepted")
        until_idle()
        with Load(servers.port, clients=CLIENTS, rate=400) as load:
            load.wait_for_steps(100)
        load.check(first=0, last=servers.client.index)
        assert load.refused == load.unanswered == load.errors.total() == 0

        new = [stack.enter_context(servers.client.raw()) for _ in range(100)]
        closed = 0

        def enough_are_closed() -> bool:
            nonlocal closed
            closed = sum(map(is_closed, idle))
            return closed >= len(new)

        until(enough_are_closed, "there is room for the new ones")
        assert closed <= len(new) + CLIENTS
        assert all(map(is_closed, idle[:closed])), "those that were idle for longest"
        assert not any(map(is_closed, new))
        assert servers.memory - before < 24 * MEGABYTE


@pytest.mark.proves(
    "clients",
    "do nothing, on 1,000 connections",
    control="kept their places: others are turned away",
)
def test_idle_connections_in_their_places_would_shut_out_all(tmp_path: Path) -> None:
    """There are a thousand of them."""
    command = variant(evicts_nobody)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, settings=IDLERS, command=command) as servers,
        ExitStack() as stack,
    ):
        for _ in range(IDLE):
            stack.enter_context(servers.client.raw())
        assert servers.client.get("/health").status == 503
