"""A server in the simulated world: the product's service and protocol, in a simulated process."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.appliance.settings import Settings
from fibcore.problems import DatabaseInvalidError
from fibcore.stores import Store
from tests.simulation.network import Listener, Transport
from tests.simulation.process import Process, SimulatedWorker
from web.http.connection import ANSWERING
from web.http.hub import Connections
from web.http.protocol import Protocol
from web.service import Service

DEFAULTS: Final = Settings.from_environ({})
CONFIG: Final = cast("uvicorn.Config", None)
"""It is asked for pages alone, which no client here asks for."""


class InOrder(set[Any]):
    """A set that is gone through in the order in which it was filled: a stop has one order."""

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[Any, None] = {}

    def add(self, item: Any) -> None:
        self._items[item] = None

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Server:
    """One process that serves, from its start to its end.

    Args:
        process: in which.
        listener: whose connections.
        settings: its own.
        open_store: see ``Service``.
    """

    def __init__(
        self,
        process: Process,
        listener: Listener,
        settings: Settings,
        open_store: Callable[[], Store],
    ) -> None:
        self.process = process
        self.service = Service(
            settings,
            open_store,
            fail_stop=process.fail_stop,
            worker=SimulatedWorker,
            clock=process.monotonic,
        )
        self.unanswered = 0
        """How many whole requests were not answered before a stop."""
        self._owed: list[Transport] = []
        self._listener = listener
        self._state = ServerState()
        self._state.connections = InOrder()
        self._stopping = process.loop.create_future()
        bound = Protocol.bound_to(Connections(self.service))
        self._protocol: Any = lambda: bound(CONFIG, self._state, {}, process.loop)
        process.run(self._serve(), self._ended)

    async def _serve(self) -> None:
        process = self.process
        try:
            async with self.service:
                if self.service.opening is not None:
                    self.service.opening.add_done_callback(self._stop_if_failed)
                process.world.say(process.name, "listens")
                self._listener.serve(process.loop, self._protocol)
                await self._stopping
                self._listener.pause()
                self._owed = self._owed_to()
                for protocol in list(self._state.connections):
                    protocol.shutdown()
                end = process.loop.time() + self.service.settings.stop_timeout
                while self._state.connections and process.loop.time() < end:
                    await asyncio.sleep(0.1)
        except DatabaseInvalidError as error:
            process.world.say(process.name, f"does not serve: {error}")
            process.end(65)

    def _owed_to(self) -> list[Transport]:
        """Those of whom a request has arrived that is not answered."""
        owed: list[Transport] = []
        for each in self._state.connections:
            transport: Any = each.transport
            transport.has_answered = False
            if each.phase is ANSWERING and not transport.is_left:  # type: ignore[union-attr]
                owed.append(transport)
        return owed

    def _stop_if_failed(self, opening: asyncio.Task[None]) -> None:
        if not opening.cancelled() and opening.exception() is not None:
            self._stop()

    def _ended(self) -> None:
        for each in self._owed:
            if not each.has_answered:
                self.unanswered += 1
        self.process.end(0)

    def stop(self) -> None:
        """As SIGTERM does."""
        self.process.world.say(self.process.name, "is told to stop")
        self.process.after(0.0, self._stop)

    def _stop(self) -> None:
        if not self._stopping.done():
            self._stopping.set_result(None)
            self.process.loop.call_soon_threadsafe(lambda: None)
