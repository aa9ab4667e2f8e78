"""A server with low bounds and short deadlines, and raw clients that go past them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.kernel_sockets import LISTENING, sockets_at
from tests.support.raw_clients import wait_until_all_is_read
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import until
from tests.support.wire import READ

NEWCOMER_SECONDS: Final = 0.3
"""A connection that has sent nothing for so long counts as idle."""


class Served:
    """A running server; its raw clients are closed at the end.

    Args:
        server: serves.
        stack: closes the clients.
    """

    def __init__(self, server: ServerProcess, stack: ExitStack) -> None:
        self.process = server
        self.client: Client = server.client
        self._stack = stack

    def connect(
        self, data: bytes = b"", *, room: int | None = None, address: str = ""
    ) -> socket.socket:
        """Open a connection and send ``data``.

        Args:
            data: sent at once.
            room: the client's receive buffer, where little is to fit.
            address: of the client.
        """
        connection = self.client.raw(receive_buffer=room, address=address)
        self._stack.enter_context(connection)
        connection.sendall(data)
        return connection

    def asked(self) -> socket.socket:
        """A connection that has been answered and is kept."""
        connection = self.connect(READ)
        assert read_answer(connection)[0] == 200
        return connection

    def settle(self) -> None:
        """Return when the server has read what it was sent."""
        wait_until_all_is_read(self.client)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.client.status.body)
        return found

    def until(self, name: str, value: object) -> None:
        """Wait until ``/status`` shows ``value``."""
        until(lambda: self.status()[name] == value, f"{name} is {value}")

    @property
    def held(self) -> int:
        """Connections that the server has accepted and not closed."""
        ours = sockets_at(self.client.port)
        return len({each.other for each in ours if each.held and each.state != LISTENING})


@contextmanager
def limited(folder: Path, *, index: int = 0, **settings: str) -> Iterator[Served]:
    """A server at ``index`` with these settings, such as ``MAX_CONNECTIONS="2"``."""
    database = folder / "fibcore.db"
    if index and not database.exists():
        subprocess.run(
            [sys.executable, "-m", "fibcore", "set-index", str(index)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "FIB_STATE": str(database)},
        )
    named = {f"FIB_{name}": value for name, value in settings.items()}
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, named) as server,
        ExitStack() as stack,
    ):
        yield Served(server.wait_until_it_serves(), stack)


def newcomers_are_idle(seconds: float = NEWCOMER_SECONDS) -> None:
    """Return when each connection so far has had the time to send a request."""
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > seconds, "they are newcomers no more")


def read_answer(connection: socket.socket) -> tuple[int, bytes, bytes]:
    """Read one answer: its status, its head, its body. A closed connection has status 0."""
    received = b""
    with suppress(ConnectionError):
        while b"\r\n\r\n" not in received:
            if not (data := connection.recv(1)):
                return 0, received, b""
            received += data
        size = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = b""
        while len(body) < size and (data := connection.recv(size - len(body))):
            body += data
        return int(received[9:12]), received, body
    return 0, received, b""


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed it, having sent nothing more."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.setblocking(True)
        connection.settimeout(60)


def until_closed(connection: socket.socket) -> None:
    """Wait until the server has closed a connection on which nothing more arrives."""
    until(lambda: is_closed(connection), "the connection is closed")
