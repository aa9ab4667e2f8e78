"""Clients that request numbers of 1 MB, and read nothing."""

import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.support.servers import Client

INDEX: Final = 4_800_000
"""Of a number of 1,003,134 digits."""


CROWD: Final = ("next", "next", "next", "current", "previous")
"""The requests of the clients, in turn."""


class Reader(NamedTuple):
    """A client that has sent a request, and reads nothing."""

    path: str
    connection: socket.socket

    def head(self) -> bytes:
        """The head of the answer, which stays unread."""
        head = self.connection.recv(512, socket.MSG_PEEK)
        return head.partition(b"\r\n\r\n")[0]

    def take(self) -> tuple[int, bytes] | None:
        """Read the answer slowly; return the number's index and digits.

        None if the server has closed the connection because others needed the memory.
        """
        received = bytearray()
        while not received.endswith(b"}"):
            try:
                piece = self.connection.recv(4096)
            except ConnectionError:
                return None
            if not piece:
                return None
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        (index,) = re.findall(rb'etag: "(\d+)"', head)
        before = 1 if self.path == "previous" else 0
        return int(index) - before, bytes(body.partition(b": ")[2][:-1])


def crowd(
    client: Client, stack: ExitStack, count: int, paths: Sequence[str] = CROWD
) -> list[Reader]:
    """Send ``count`` requests, each on a connection with a small buffer."""
    readers = []
    for number in range(count):
        path = paths[number % len(paths)]
        connection = stack.enter_context(client.raw(receive_buffer=4096))
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        readers.append(Reader(path, connection))
    return readers
