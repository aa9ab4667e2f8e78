"""``AsyncClient``: the same calls for asyncio."""

import asyncio
import ssl
import time
from typing import Self

from fibcore.client.blocking import BaseClient
from fibcore.client.calls import Ask, Call, Node, T
from fibcore.client.number import Number
from fibcore.client.replies import BrokenReplyError, Lost, Reply, ReplyReader


class AsyncClient(BaseClient["_Connection"]):
    """``Client`` for asyncio: the same arguments, calls, and errors.

    Tasks of one event loop may share it; another loop gets connections of its own. A cancelled
    call to ``next`` may have stepped: with a key from ``new_key`` it can be repeated.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See ``Client.close``."""
        loop = asyncio.get_running_loop()
        while self._idle:
            for connection in self._idle.popitem()[1]:
                if connection.loop is loop:
                    connection.transport.abort()
        # The loop closes aborted connections in its next turn.
        await asyncio.sleep(0)

    async def next(self, *, key: str | None = None, timeout: float | None = None) -> Number:
        """See ``Client.next``."""
        return await self._run(self._calls.next(key, timeout))

    async def current(self, *, timeout: float | None = None) -> Number:
        """See ``Client.current``."""
        return await self._run(self._calls.current(timeout))

    async def previous(self, *, timeout: float | None = None) -> Number:
        """See ``Client.previous``."""
        return await self._run(self._calls.previous(timeout))

    async def number(self, index: int, *, timeout: float | None = None) -> Number:
        """See ``Client.number``."""
        return await self._run(self._calls.number(index, timeout))

    async def new_key(self) -> str:
        """See ``Client.new_key``."""
        return await self._run(self._calls.new_key())

    async def _run(self, call: Call[T]) -> T:
        result: Reply | Lost | None = None
        while True:
            try:
                asked = call.send(result)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if isinstance(asked, Ask):
                result = await self._ask(asked)
            else:
                await asyncio.sleep(asked.seconds)
                result = None

    async def _ask(self, ask: Ask) -> Reply | Lost:
        connection = None
        try:
            async with asyncio.timeout(ask.deadline - time.monotonic()):
                connection = self._kept(ask.node) or await _connect(ask.node, self._tls)
                reply = await connection.exchange(ask.request)
        except (OSError, BrokenReplyError) as error:
            return Lost.by(error, sent=connection is not None)
        else:
            if reply.reusable:
                self._idle.setdefault(ask.node, []).append(connection)
                connection = None
            return reply
        finally:
            if connection is not None:
                connection.transport.abort()

    def _kept(self, node: Node) -> "_Connection | None":
        """An idle connection that is still open.

        Those of another loop are dropped: only that loop could use or close them.
        """
        loop = asyncio.get_running_loop()
        kept = self._idle.get(node)
        while kept:
            connection = kept.pop()
            if connection.loop is loop and not connection.transport.is_closing():
                return connection
        return None


async def _connect(node: Node, tls: ssl.SSLContext | None) -> "_Connection":
    """Raises OSError: the node accepts no connection."""
    _, connection = await asyncio.get_running_loop().create_connection(
        _Connection, node.host, node.port, ssl=tls if node.secure else None
    )
    return connection


class _Connection(asyncio.Protocol):
    """Carries one request at a time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._reader: ReplyReader | None = None
        self._answered: asyncio.Future[Reply] | None = None

    async def exchange(self, request: bytes) -> Reply:
        """Raises OSError, BrokenReplyError: no complete answer arrived."""
        self._reader = ReplyReader()
        self._answered = self.loop.create_future()
        self.transport.write(request)
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answered is None or self._answered.done():
            # No request is waiting for this data.
            self.transport.abort()
            return
        try:
            self._reader.feed(data)
        except BrokenReplyError as error:
            self._answered.set_exception(error)
        else:
            if self._reader.reply is not None:
                self._answered.set_result(self._reader.reply)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            ended = ConnectionError("the connection ended before the end of an answer")
            self._answered.set_exception(error or ended)
