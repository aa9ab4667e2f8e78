"""A conversation with one connection of the server, byte for byte, without a network.

The same chunks can be said to the connection with the fast path and to the one without it.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.settings import Settings
from web.app import create_app
from web.connection import Connection, Connections
from web.fastpath import FastConnection, FastConnections
from web.service import Service

__all__ = [
    "FakeTransport",
    "Heard",
    "MemoryStore",
    "converse",
    "fast",
    "open_service",
    "over_the_network",
    "stock",
]

HEADERS: Final = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"uvicorn")]
PATIENCE: Final = 60.0


class MemoryStore:
    """A store whose commits take no time."""

    def __init__(self, index: int = 0) -> None:
        self.index = index

    def read(self) -> int:
        return self.index

    exclusive = True

    def advance(self, steps: int, *_: int | None) -> int:
        self.index += steps
        return self.index

    def close(self) -> None:
        pass


class FakeTransport(asyncio.Transport):
    """Takes all that is written at once, or nothing while ``stuck``, and then keeps it."""

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8080), "peername": ("127.0.0.1", 50000)})
        self.protocol: Connection
        self.written = bytearray()
        self.unsent = bytearray()
        self.stuck = stuck
        self.closing = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closing:
            return
        (self.unsent if self.stuck else self.written).extend(data)
        if self.unsent:
            self.protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def unstick(self) -> None:
        """Let what is unsent leave, and all that follows."""
        self.stuck = False
        self.written += self.unsent
        self.unsent.clear()
        self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == (0, None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


@dataclass(frozen=True)
class Heard:
    """What came back, and what it led to."""

    data: bytes
    closed: bool
    index: int


def open_service(index: int = 0, **settings: str) -> Service:
    """A service that stands at ``index`` in memory; ``settings`` are environment variables."""
    return Service(Settings.from_environ(settings), lambda: MemoryStore(index))


def stock(service: Service) -> type[Connection]:
    """The connections without the fast path."""
    return Connection.bound_to(Connections(service))


def fast(service: Service) -> type[Connection]:
    """The connections with it."""
    return FastConnection.bound_to(FastConnections(service))


def connect(
    kind: type[Connection],
    service: Service,
    transport: FakeTransport,
    *,
    access_log: bool = False,
) -> Connection:
    """A connection that has just been made."""
    config = uvicorn.Config(
        create_app(service), log_config=None, access_log=access_log, lifespan="off", ws="none"
    )
    config.load()
    state = ServerState()
    state.default_headers = list(HEADERS)
    connection = kind(config, state, {})
    transport.protocol = connection
    connection.connection_made(cast(asyncio.Transport, transport))
    return connection


async def settle(service: Service, connection: Connection, transport: FakeTransport) -> None:
    """Wait until the connection has nothing more to do with what it has been told."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await asyncio.sleep(0)
            if service.stepper is not None:
                await service.stepper.drain()
            if not connection.tasks and connection.is_answered() and not connection.pipeline:
                return
            waits_for_more = connection._midway and connection._malformed is None
            if waits_for_more and connection._unanswered <= 1 and not connection.pipeline:
                # The rest of a request is missing. Some paths answer without it.
                for _ in range(20):
                    await asyncio.sleep(0)
                return
            if transport.closing and not connection.tasks:
                return


async def converse(
    kind: Any, chunks: Sequence[bytes], *, index: int = 0, patient: bool = False, **settings: str
) -> Heard:
    """Say ``chunks`` to a new connection of a new service.

    Args:
        kind: ``fast`` or ``stock``.
        chunks: each arrives by itself.
        index: where the service stands.
        patient: whether each chunk waits until the ones before it have been dealt with.
        settings: environment variables.
    """
    service = open_service(index, **settings)
    async with service:
        transport = FakeTransport()
        connection = connect(kind(service), service, transport)
        for chunk in chunks:
            async with asyncio.timeout(PATIENCE):
                while not transport.reading and not transport.closing:
                    await asyncio.sleep(0)
            if transport.closing:
                break
            connection.data_received(chunk)
            if patient:
                await settle(service, connection, transport)
        await settle(service, connection, transport)
        assert service.state is not None
        heard = Heard(bytes(transport.written), transport.closing, service.state.index)
        connection.connection_lost(None)
        async with asyncio.timeout(PATIENCE):
            while connection.tasks:
                await asyncio.sleep(0)
        assert service.budget.used == 0
        return heard


async def over_the_network(
    kind: Any, conversations: Sequence[Sequence[bytes]], *, index: int = 0
) -> list[Heard]:
    """The same with one service of a real uvicorn, each conversation on a connection of its own.

    The last chunk of each must make the server close the connection.
    """
    service = open_service(index, FIB_RECEIVE_TIMEOUT="0.5")
    config = uvicorn.Config(
        create_app(service),
        http=kind(service),
        log_config=None,
        access_log=False,
        date_header=False,
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    heard = []
    async with service:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            running = asyncio.create_task(server._serve([listener]))
            for chunks in conversations:
                reader, writer = await asyncio.open_connection(*address)
                async with asyncio.timeout(PATIENCE):
                    for chunk in chunks:
                        writer.write(chunk)
                        await writer.drain()
                    data = await reader.read()
                writer.close()
                assert service.state is not None
                heard.append(Heard(data, True, service.state.index))
            server.should_exit = True
            await running
    return heard
