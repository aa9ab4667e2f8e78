"""Clients of every kind on real sockets: half-closed, pipelining, upgrading, slow, at a stop.

The controls remove the protection from the server (``tests.faults.server_variants``).
"""

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from fibcore.stores import sqlite_file
from tests.faults.server_variants import lets_the_kernel_take_what_it_likes, variant
from tests.support.raw_clients import (
    LONG_INDEX,
    in_the_kernel,
    locked,
    read_all,
    serving,
    statuses,
    wait_until_all_is_read,
)
from tests.support.servers import SERVER
from tests.support.waiting import until
from tests.support.wire import READ, STEP

pytestmark = pytest.mark.processes


# Pipelined, and malformed


def test_a_client_that_sends_a_megabyte_of_rubbish_can_read_the_reason(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        for _ in range(20):
            with server.client.raw() as connection:
                connection.sendall(b"rubbish\r\n" * 2**16)
                received = read_all(connection)
            assert statuses(received) == [400]
            assert received.endswith(b"}")


# A stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_answers_every_step_that_it_makes(
    database: Path, listener: socket.socket, number: signal.Signals
) -> None:
    """Half a request does not delay it: otherwise it would take the longest possible time."""
    with (
        serving(database, listener, FIB_STOP_TIMEOUT="60") as server,
        server.client.raw() as connection,
        server.client.raw() as half,
    ):
        half.sendall(STEP[:-2])
        with locked(database):
            connection.sendall(STEP + STEP)
            wait_until_all_is_read(server.client)
            server.signal(number)
            server.log.expect("Shutting down")
        received = read_all(connection)
        assert server.process.wait(30) == 0
        assert read_all(half) == b""
    assert statuses(received) == [200]
    assert b"connection: close\r\n" in received
    assert sqlite_file.verify_file(database) == 1


# Slow readers


def unread_by_one_that_queued(
    database: Path, listener: socket.socket, command: Sequence[str] = SERVER
) -> int:
    """Bytes in the kernel for a client that connected before the server started."""
    sqlite_file.create(database, LONG_INDEX)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as early:
        early.sendall(READ * 4)
        with serving(database, listener, command=command) as server:
            until(lambda: in_the_kernel(server.client) > 0, "the answer has begun to leave")
            # The kernel has taken as much as it takes at once: another client has been served
            # since.
            assert server.client.get("/health").status == 200
            return in_the_kernel(server.client)


def test_data_queued_at_the_socket_does_not_fill_memory(
    database: Path, listener: socket.socket
) -> None:
    """It connected before the server started; the memory is the kernel's."""
    assert unread_by_one_that_queued(database, listener) < 2**18


def test_without_a_bound_queued_data_would_fill_memory(
    database: Path, listener: socket.socket
) -> None:
    command = variant(lets_the_kernel_take_what_it_likes)
    taken = unread_by_one_that_queued(database, listener, command)
    assert taken > 2**19
