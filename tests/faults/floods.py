"""Floods: crowds that request again as soon as they are answered, in a separate process.

    with Flood(port, "pages, many") as flood:
        until(lambda: flood.answered > 1000, "the flood has begun")

Each client sends a batch of requests, and the next batch once that is answered. A client whose
connection is closed connects again.
"""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Self

import uvloop

from tests.support.waiting import Log

HOST: Final = b"HTTP/1.1\r\nHost: x\r\n"
numbers = itertools.count()


def get(path: bytes) -> Callable[[], bytes]:
    request = b"GET %b %b\r\n" % (path, HOST)
    return lambda: request


def with_list(path: bytes, field: bytes, item: bytes) -> Callable[[], bytes]:
    """A request with a new list of one kilobyte in a field."""
    most = item * (990 // len(item))
    return lambda: b"GET %b %b%b: a%d,%b\r\n\r\n" % (path, HOST, field, next(numbers), most)


class Kind(NamedTuple):
    """A kind of crowd."""

    clients: int
    pipelined: int
    """Requests that each client sends at once."""
    requests: tuple[Callable[[], bytes], ...]
    """Distributed over the clients in turn."""


REQUESTS: Final[Mapping[str, Callable[[], bytes]]] = {
    "current": get(b"/current"),
    "metrics": get(b"/metrics"),
    "status": get(b"/status"),
    "nothing": get(b"/nothing/there"),
    "accept": with_list(b"/current", b"Accept", b"a/b;c,"),
    "metrics accept": with_list(b"/metrics", b"Accept", b"text/plain;version=1.0.0,"),
    "tags": with_list(b"/current", b"If-None-Match", b'"1",'),
    "page": get(b"/"),
    "openapi": get(b"/openapi.json"),
}

FLOODS: Final[Mapping[str, Kind]] = {
    "current, many": Kind(1900, 1, (REQUESTS["current"],)),
    "metrics, many and pipelined": Kind(1900, 8, (REQUESTS["metrics"],)),
    "new lists, pipelined": Kind(
        150, 32, (REQUESTS["accept"], REQUESTS["metrics accept"], REQUESTS["tags"])
    ),
    "pages, many": Kind(1900, 1, (REQUESTS["page"], REQUESTS["openapi"])),
    "everything, many and pipelined": Kind(1900, 32, tuple(REQUESTS.values())),
}


class Client(asyncio.Protocol):
    """A client of the crowd."""

    answered = 0
    """Answered requests of all clients."""

    def __init__(self, make: Callable[[], bytes], pipelined: int) -> None:
        self._make = make
        self._pipelined = pipelined
        self._left = 0
        self._tail = b""
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._left = self._pipelined
        self._transport.write(b"".join(self._make() for _ in range(self._pipelined)))

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        answered = data.count(b"HTTP/1.1 ")
        self._tail = data[-8:]
        Client.answered += answered
        self._left -= answered
        if self._left <= 0:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.gone.set_result(None)


async def be_one(port: int, make: Callable[[], bytes], pipelined: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, client = await loop.create_connection(
                lambda: Client(make, pipelined), "127.0.0.1", port
            )
        except OSError:
            await asyncio.sleep(0.1)
        else:
            await client.gone


async def be_all(port: int, kind: Kind) -> None:
    makes = itertools.cycle(kind.requests)
    clients = [
        asyncio.create_task(be_one(port, next(makes), kind.pipelined)) for _ in range(kind.clients)
    ]
    while True:
        await asyncio.sleep(0.1)
        print(Client.answered, flush=True)
        assert not any(each.done() for each in clients)


class Flood:
    """A crowd of one kind at ``port``."""

    def __init__(self, port: int, name: str) -> None:
        self._command = [sys.executable, "-m", "tests.faults.floods", str(port), name]

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / "answered"
        self._log = Log(path)
        with path.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, cwd=Path(__file__).parents[2]
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    @property
    def answered(self) -> int:
        """Answered requests so far."""
        assert self._process.poll() is None, "the flood has ended"
        return int((self._log.text.rsplit("\n", 2) or ["0"])[-2] or 0) if self._log.text else 0


if __name__ == "__main__":
    uvloop.run(be_all(int(sys.argv[1]), FLOODS[sys.argv[2]]))
