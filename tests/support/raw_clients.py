"""Clients that send raw bytes, or do not read the answers, and a server for them."""

import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.support.kernel_sockets import ESTABLISHED, LISTENING, sockets_at
from tests.support.servers import SERVER, Client, ServerProcess
from tests.support.waiting import until


@contextmanager
def locked(database: Path) -> Iterator[sqlite3.Connection]:
    """Lock the database: the next commit waits for it, at most 5 s."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def wait_until_all_is_read(client: Client) -> None:
    """Wait until the server has accepted all connections and read all that was sent.

    It processes received data before it accepts another connection.
    """

    def nothing_is_queued() -> bool:
        return not any(
            each.unread
            for each in sockets_at(client.port)
            if each.state in (ESTABLISHED, LISTENING)
        )

    until(nothing_is_queued, "the server reads what it was sent")


def send_step(client: Client) -> socket.socket:
    """Request a step on a new connection, without waiting for the answer."""
    connection = client.raw()
    connection.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(2**20):
            received += data
    return received


def body_of(received: bytes) -> str:
    return received.partition(b"\r\n\r\n")[2].decode()


def read_first(connection: socket.socket) -> bytes:
    with suppress(ConnectionResetError):
        return connection.recv(65536)
    return b""


LONG_INDEX = 5_000_000
"""The index of a number of 1 MB."""

PIPELINED = 10
"""So many such answers exceed the kernel's buffers for a client that does not read."""


@contextmanager
def slow_reader(client: Client, path: str = "/current") -> Iterator[socket.socket]:
    """Provide a client that requests more than the kernel buffers, and reads one byte."""
    with client.raw(receive_buffer=4096) as slow:
        slow.sendall(PIPELINED * f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert slow.recv(1)
        yield slow


@contextmanager
def serving(
    database: Path, listener: socket.socket, *, command: Sequence[str] = SERVER, **settings: str
) -> Iterator[ServerProcess]:
    with ServerProcess(database, listener, settings, command=command) as server:
        yield server.wait_until_it_serves()


def say(client: Client, *pieces: bytes) -> bytes:
    """Send ``pieces``, close the sending half, and return everything received."""
    with client.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The server may already have closed the connection, and the kernel calls it not connected.
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def statuses(received: bytes) -> list[int]:
    return [int(each[:3]) for each in received.split(b"HTTP/1.1 ")[1:]]


def in_the_kernel(client: Client) -> int:
    """Return the bytes of answers in the kernel's buffers, over all connections."""
    ours = {each.other: each.unsent for each in sockets_at(client.port) if each.state != LISTENING}
    return sum(ours.values())
