"""One deadline for a whole reply, however little each read returns.

A socket's timeout applies to each read: a server that sends one byte a second could make its client
wait for as many seconds as the reply has bytes.
"""

import contextlib
import io
import math
import select
import time
from collections.abc import Iterator
from typing import Any


def has_input(descriptor: int, seconds: float = 0.0) -> bool:
    """Whether data, or the end of the stream, can be read from a socket within ``seconds``."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, 1000 * seconds)))


class Deadline:
    """The time left for an operation."""

    def __init__(self) -> None:
        self._end = math.inf

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Limit the block to ``seconds``, or to an earlier deadline around it."""
        before = self._end
        self._end = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._end = before

    def left(self) -> float:
        """Seconds left.

        Raises:
            TimeoutError: none.
        """
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("it has not replied in time")
        return seconds


class BoundedSocket:
    """A socket, with or without TLS, whose reads and writes end at ``deadline``.

    Everything else is the socket's own. A non-blocking socket stays non-blocking.
    """

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _begin(self) -> None:
        if self._socket.gettimeout() != 0:
            self._socket.settimeout(self._deadline.left())

    def sendall(self, data: Any) -> None:
        """``socket.sendall``, whose timeout covers the whole."""
        self._begin()
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """``socket.recv``."""
        self._begin()
        received: bytes = self._socket.recv(size)
        return received

    def recv_into(self, buffer: Any) -> int:
        """``socket.recv_into``."""
        self._begin()
        count: int = self._socket.recv_into(buffer)
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """``socket.makefile``, only for reading bytes."""
        assert mode == "rb"
        return io.BufferedReader(_Reader(self, self._socket.makefile(mode, buffering=0)))


class _Reader(io.RawIOBase):
    """Reads from a bounded socket, which ``file`` keeps open until it is closed."""

    def __init__(self, sock: BoundedSocket, file: io.RawIOBase) -> None:
        self._socket = sock
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
