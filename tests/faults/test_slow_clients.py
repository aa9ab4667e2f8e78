"""A thousand clients that do nothing: others step meanwhile, and newcomers get their slots.

``tests/http/test_deadlines.py`` and ``tests/http/test_hub.py`` test deadlines and evictions.
"""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.load import Load
from tests.faults.server_variants import evicts_nobody, variant
from tests.faults.servers import Servers, until_idle
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("descriptors")]

CLIENTS: Final = 8
"""The number of others."""

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


IDLE: Final = 1000

IDLERS: Final = {"FIB_MAX_CONNECTIONS": str(IDLE), "FIB_RECEIVE_TIMEOUT": "60"}


def test_a_thousand_idle_connections_do_no_harm(tmp_path: Path) -> None:
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


def test_idle_connections_that_were_never_evicted_would_shut_all_out(tmp_path: Path) -> None:
    command = variant(evicts_nobody)
    with (
        Servers(tmp_path / "fibcore.db", tmp_path, settings=IDLERS, command=command) as servers,
        ExitStack() as stack,
    ):
        for _ in range(IDLE):
            stack.enter_context(servers.client.raw())
        assert servers.client.get("/health").status == 503
