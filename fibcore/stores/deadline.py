"""One moment by which the whole of a reply must have come, however little each read brings.

The timeout of a socket is for each read. A server that sends a byte a second would keep whoever
waits for as many seconds as its reply has bytes.
"""

import contextlib
import io
import math
import select
import time
from collections.abc import Iterator
from typing import Any


def has_input(descriptor: int, seconds: float = 0.0) -> bool:
    """Whether there is something to read from a socket, or its end, within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, 1000 * seconds)))


class Deadline:
    """What is left of the time that something may take."""

    def __init__(self) -> None:
        self._end = math.inf

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Have what is done in it end within so many seconds, or sooner if that is set."""
        before = self._end
        self._end = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._end = before

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("it has not replied in time")
        return seconds


class BoundedSocket:
    """A socket, with or without TLS, that reads and writes until ``deadline`` alone.

    All else is the socket's own. One that does not block stays so.
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
        """See ``socket.sendall``, which takes its timeout for the whole."""
        self._begin()
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """See ``socket.recv``."""
        self._begin()
        received: bytes = self._socket.recv(size)
        return received

    def recv_into(self, buffer: Any) -> int:
        """See ``socket.recv_into``."""
        self._begin()
        count: int = self._socket.recv_into(buffer)
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """See ``socket.makefile``; to read bytes from alone."""
        assert mode == "rb"
        return io.BufferedReader(_Reader(self, self._socket.makefile(mode, buffering=0)))


class _Reader(io.RawIOBase):
    """Reads from a bounded socket; ``file`` keeps that open until it is closed."""

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
