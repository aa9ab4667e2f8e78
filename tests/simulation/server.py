"""A server in the simulated world: the product's service and protocol, in a simulated process."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.problems import DatabaseInvalidError
from fibcore.settings import Settings
from fibcore.stores import Store
from tests.simulation.network import Listener
from tests.simulation.process import Process, SimulatedWorker
from web.connections import Connections
from web.protocol import Protocol
from web.service import Service

__all__ = ["DEFAULTS", "Server"]

DEFAULTS: Final = Settings.from_environ({})
CONFIG: Final = cast("uvicorn.Config", None)
"""It is asked for pages alone, which no client here asks for."""


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
        self._listener = listener
        self._state = ServerState()
        self._stopping = process.loop.create_future()
        bound = Protocol.bound_to(Connections(self.service))
        self._protocol: Any = lambda: bound(CONFIG, self._state, {}, process.loop)
        process.run(self._serve(), self._ended)

    async def _serve(self) -> None:
        process = self.process
        try:
            async with self.service:
                process.world.say(process.name, "listens")
                self._listener.serve(process.loop, self._protocol)
                await self._stopping
                self._listener.pause()
                for protocol in list(self._state.connections):
                    protocol.shutdown()
                end = process.loop.time() + self.service.settings.graceful_stop
                while self._state.connections and process.loop.time() < end:
                    await asyncio.sleep(0.1)
        except DatabaseInvalidError as error:
            process.world.say(process.name, f"does not serve: {error}")
            process.end(65)

    def _ended(self) -> None:
        self.process.end(0)

    def stop(self) -> None:
        """As SIGTERM does."""
        self.process.world.say(self.process.name, "is told to stop")
        self.process.after(0.0, self._stop)

    def _stop(self) -> None:
        if not self._stopping.done():
            self._stopping.set_result(None)
            self.process.loop.call_soon_threadsafe(lambda: None)
