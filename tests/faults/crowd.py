"""A crowd of hostile clients, each of which costs the server memory or time.

    with Crowd(port, ["silent", "slow readers"], 2000) as crowd:
        crowd.wait_until_all_have_come()

A client whose connection is closed connects again until the crowd leaves.
"""

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

import uvloop

from tests.support.waiting import until
from web.http.parser import MAX_BODY

PAUSE_SECONDS: Final = 2.0
"""Longest pause before a rejected client connects again."""

PIPED: Final = 33
"""Requests sent at once: one, and the most that may wait behind it."""


class Wire:
    """A client's connection; once it is closed, each call raises OSError."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.number = number
        """Of the client, from 0."""

    async def send(self, data: bytes) -> None:
        """Send everything, however long that takes."""
        await self._loop.sock_sendall(self._connection, data)

    async def take(self, most: int) -> None:
        """Wait for data, and read up to ``most`` bytes."""
        if not await self._loop.sock_recv(self._connection, most):
            raise ConnectionResetError

    async def wait(self) -> None:
        """Read nothing until the connection is closed."""
        while True:
            await asyncio.sleep(1)
            # Leave data unread. An empty read means that the other end has closed.
            try:
                if not self._connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError
            except BlockingIOError:
                continue


async def silent(wire: Wire) -> None:
    """Send nothing."""
    await wire.wait()


async def half_requests(wire: Wire) -> None:
    """Announce a body, and send none."""
    await wire.send(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    await wire.wait()


LONG_LINES: Final = b"".join(b"If-Match: %b\r\n" % (b"1" * 150) for _ in range(97))
"""Nearly the largest head, with nearly the most lines."""


async def half_heads(wire: Wire) -> None:
    """Send a long head except its end."""
    await wire.send(b"GET /next HTTP/1.1\r\nHost: x\r\n" + LONG_LINES)
    await wire.wait()


async def half_pages(wire: Wire) -> None:
    """Send a long request except its last byte, for a page whose body is kept."""
    await wire.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + LONG_LINES)
    await wire.send(b"Content-Length: %d\r\n\r\n" % MAX_BODY + bytes(MAX_BODY - 1))
    await wire.wait()


async def slow_heads(wire: Wire) -> None:
    """Send a header line a second."""
    await wire.send(b"GET /next HTTP/1.1\r\nHost: x\r\n")
    while True:
        await asyncio.sleep(1)
        await wire.send(b"a: b\r\n")


async def slow_bodies(wire: Wire) -> None:
    """Send a byte of the body a second."""
    await wire.send(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n")
    while True:
        await asyncio.sleep(1)
        await wire.send(b" ")


async def slow_readers(wire: Wire) -> None:
    """Request a long number, and read a little of it every second."""
    path = (b"next", b"current", b"previous")[wire.number % 3]
    await wire.send(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    while True:
        await wire.take(512)
        await asyncio.sleep(1)


async def unread_answers(wire: Wire) -> None:
    """Request something short again and again, and read nothing."""
    while True:
        await wire.send(PIPED * b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.2)


KINDS: Final[dict[str, Callable[[Wire], Awaitable[None]]]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        silent,
        half_requests,
        half_heads,
        half_pages,
        slow_heads,
        slow_bodies,
        slow_readers,
        unread_answers,
    )
}


class Crowd:
    """``count`` clients of these kinds at ``port``, from ``__enter__`` to ``__exit__``."""

    def __init__(self, port: int, kinds: Sequence[str], count: int) -> None:
        self._port = port
        self._kinds = kinds
        self._count = count
        self._random = random.Random(count)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd")
        self._came: set[int] = set()
        self.there: Counter[str] = Counter()
        """Connected clients of each kind."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_until_all_have_come(self) -> None:
        """Return when each client has been connected once."""
        until(lambda: len(self._came) == self._count, "each of the crowd has been there")

    def _run(self) -> None:
        async def all_clients() -> None:
            clients = [asyncio.create_task(self._client(each)) for each in range(self._count)]
            await asyncio.to_thread(self._stopping.wait)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_clients())

    async def _client(self, number: int) -> None:
        kind = self._kinds[number % len(self._kinds)]
        while True:
            with socket.socket() as connection:
                connection.setblocking(False)
                # A small buffer, so that unread data stays with the server.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                try:
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(connection, ("127.0.0.1", self._port))
                except OSError:
                    pass
                else:
                    await self._converse(kind, Wire(connection, number))
            await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS))

    async def _converse(self, kind: str, wire: Wire) -> None:
        self.there[kind] += 1
        self._came.add(wire.number)
        try:
            await KINDS[kind](wire)
        except OSError:
            pass  # the server may close it
        finally:
            self.there[kind] -= 1
