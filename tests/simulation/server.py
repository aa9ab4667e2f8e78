"""The product's server (life, service, protocol) in a simulated process."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from fibcore.appliance.settings import Settings
from fibcore.problems import DatabaseInvalidError, InUseError
from fibcore.stores import Opener
from tests.simulation.network import Listener, Transport
from tests.simulation.process import Process, SimulatedWorker
from web.endpoints.table import TABLE
from web.http.connection import ANSWERING
from web.http.hub import Hub, InOrder
from web.http.protocol import Protocol
from web.life import Life

DEFAULTS: Final = Settings.from_environ({})
CONFIG: Final = cast("uvicorn.Config", None)
"""Only needed for pages, which no client here requests."""


def do_nothing() -> None:
    """Do nothing, as the begin or end of a fault."""


class Server:
    """A server from start to exit; with a file it first stands by for the lock.

    Args:
        process: where it runs.
        listener: where it accepts connections.
        settings: the server's settings.
        opener: opens the store.
        on_serving: called when the store is open.
        on_waiting: called when it starts to answer 503 without a store.
    """

    def __init__(
        self,
        process: Process,
        listener: Listener,
        settings: Settings,
        opener: Opener,
        on_serving: Callable[[], object] = do_nothing,
        on_waiting: Callable[[], object] = do_nothing,
    ) -> None:
        self.process = process
        self.serves = False
        self.unanswered = 0
        """Complete requests without an answer at a graceful stop."""
        self.life = Life(
            settings, opener, process.end, worker=SimulatedWorker, clock=process.monotonic
        )
        self._on_serving = on_serving
        self._on_waiting = on_waiting
        self._listener = listener
        self._state = ServerState()
        self._state.connections = InOrder()  # type: ignore[assignment]
        self._stopping = process.loop.create_future()
        bound = Protocol.bound_to(Hub(self.life.service, TABLE))
        self._protocol: Any = lambda: bound(CONFIG, self._state, {}, process.loop)
        process.spawn(lambda: self.life.live(self._work))

    def _work(self) -> None:
        try:
            self.process.loop.run(self._serve())
        except DatabaseInvalidError as error:
            self.process.world.log(self.process.name, f"refuses to serve: {error}")
            raise
        except InUseError:
            raise
        except Exception as error:
            self.process.report_error(error)
            raise

    async def _serve(self) -> None:
        process, service = self.process, self.life.service
        unanswered: list[Transport] = []
        await self.life.stand_by()
        async with self.life.serving(self._stop):
            self.serves = True
            if service.opening is None:
                self._on_serving()
            else:
                self._on_waiting()
                service.opening.add_done_callback(self._has_opened)
            process.world.log(process.name, "serves")
            self._listener.serve(process.loop, self._protocol)
            await self._stopping
            self._listener.pause(process)
            unanswered = self._unanswered_transports()
            for protocol in list(self._state.connections):
                protocol.shutdown()
            end = process.loop.time() + service.settings.stop_timeout
            while self._state.connections and process.loop.time() < end:
                await asyncio.sleep(0.1)
        self.unanswered = sum(not each.has_written for each in unanswered)

    def _has_opened(self, opening: asyncio.Task[None]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._on_serving()

    def _unanswered_transports(self) -> list[Transport]:
        """Return the connections with a request that is not answered yet."""
        unanswered: list[Transport] = []
        for each in self._state.connections:
            transport: Any = each.transport
            transport.has_written = False
            if each.phase is ANSWERING and not transport.is_left:  # type: ignore[union-attr]
                unanswered.append(transport)
        return unanswered

    def stop(self) -> None:
        """Stop gracefully, as by SIGTERM; a standby ends at once."""
        if self.serves:
            self.process.world.log(self.process.name, "receives SIGTERM")
            self.process.after(0.0, self._stop)
        else:
            self.process.kill()

    def _stop(self) -> None:
        if not self._stopping.done():
            self._stopping.set_result(None)
            self.process.loop.call_soon_threadsafe(do_nothing)
