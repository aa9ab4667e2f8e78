"""Hostile crowds, in a process of their own.

    with Crowd(port, "silent", "slow readers") as crowd:
        crowd.wait_until_it_is_there()

A client whose connection is closed connects again.
"""

import asyncio
import itertools
import random
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import uvloop

from tests.support.waiting import Log, until

CLIENTS: Final = 1900
HOST: Final = b"HTTP/1.1\r\nHost: x\r\n"
LINES: Final = b"".join(b"If-Match: %b\r\n" % (b"1" * 150) for _ in range(97))
"""With these a head is nearly the largest, and has nearly the most lines."""

numbers = itertools.count()


class Wire:
    """A client's connection; once it is closed, each call raises OSError."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)

    async def take(self, most: int) -> bytes:
        if not (data := await self._loop.sock_recv(self._connection, most)):
            raise ConnectionResetError
        return data

    async def wait(self) -> None:
        """Read nothing until the connection is closed."""
        while True:
            await asyncio.sleep(1)
            try:
                if not self._connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError
            except BlockingIOError:
                continue


async def silent(wire: Wire) -> None:
    """Send nothing."""
    await wire.wait()


async def half_bodies(wire: Wire) -> None:
    """Send a long request except its last byte."""
    size = 65_536
    await wire.send(b"POST / %b%bContent-Length: %d\r\n\r\n" % (HOST, LINES, size))
    await wire.send(bytes(size - 1))
    await wire.wait()


async def slow_heads(wire: Wire) -> None:
    """Send a long head, and then a line a second."""
    await wire.send(b"GET /next %b%b" % (HOST, LINES[: len(LINES) // 2]))
    while True:
        await asyncio.sleep(1)
        await wire.send(b"a: b\r\n")


async def slow_readers(wire: Wire) -> None:
    """Request a long number, and read a little of it every second."""
    path = (b"next", b"current", b"previous")[next(numbers) % 3]
    await wire.send(b"GET /%b %b\r\n" % (path, HOST))
    while True:
        await wire.take(512)
        await asyncio.sleep(1)


async def unread_answers(wire: Wire) -> None:
    """Pipeline requests again and again, and read nothing."""
    while True:
        await wire.send(33 * (b"GET /health %b\r\n" % HOST))
        await asyncio.sleep(0.2)


async def pipelined(wire: Wire) -> None:
    """Pipeline requests for whatever there is, and the next as soon as they are answered."""
    paths = (b"/current", b"/metrics", b"/status", b"/nothing", b"/", b"/openapi.json")
    varying = b"Accept: a%d,%b" % (next(numbers), b"a/b;c," * 160)
    requests = b"".join(b"GET %b %b%b\r\n\r\n" % (path, HOST, varying) for path in paths)
    while True:
        await wire.send(requests)
        answered = 0
        while answered < len(paths):
            answered += (await wire.take(65536)).count(b"HTTP/1.1 ")


async def reconnecting(wire: Wire) -> None:
    """Step once on each connection."""
    await wire.send(b"GET /next %bConnection: close\r\n\r\n" % HOST)
    while True:
        await wire.take(65536)


async def huge_numbers(wire: Wire) -> None:
    """Request long numbers, each a different one."""
    while True:
        await wire.send(b"GET /numbers/%d %b\r\n" % (9_000_000 + next(numbers) % 10**6, HOST))
        await wire.take(65536)


KINDS: Final[dict[str, Callable[[Wire], Awaitable[None]]]] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        silent,
        half_bodies,
        slow_heads,
        slow_readers,
        unread_answers,
        pipelined,
        reconnecting,
        huge_numbers,
    )
}


async def be_one(port: int, kind: Callable[[Wire], Awaitable[None]], came: set[int]) -> None:
    me = next(numbers)
    while True:
        with socket.socket() as connection:
            connection.setblocking(False)
            # A small buffer, so that unread data stays with the server.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, ("127.0.0.1", port))
                came.add(me)
                await kind(Wire(connection))
            except OSError:
                pass  # the server may close it
        if kind is not reconnecting:
            await asyncio.sleep(random.uniform(0, 2))


async def be_all(port: int, kinds: list[str]) -> None:
    came: set[int] = set()
    all_of_them = [
        asyncio.create_task(be_one(port, KINDS[kind], came))
        for kind, _ in zip(itertools.cycle(kinds), range(CLIENTS), strict=False)
    ]
    while len(came) < CLIENTS:
        await asyncio.sleep(0.1)
    print("all have come", flush=True)
    await asyncio.gather(*all_of_them)


class Crowd:
    """A crowd of these kinds at ``port``, from ``__enter__`` to ``__exit__``."""

    def __init__(self, port: int, *kinds: str) -> None:
        self._command = [sys.executable, "-m", "tests.faults.crowds", str(port), *kinds]

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / "log"
        self._log = Log(path)
        with path.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=Path(__file__).parents[2]
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def wait_until_it_is_there(self) -> None:
        """Return when each client has been connected once."""

        def all_have_come() -> bool:
            assert self._process.poll() is None, self._log.text
            return "all have come" in self._log.text

        until(all_have_come, "each of the crowd has been there")


if __name__ == "__main__":
    uvloop.run(be_all(int(sys.argv[1]), sys.argv[2:]))
