"""The product's server (life, service, protocol) in a simulated process."""

import asyncio
from collections.abc import Callable

from fibcore.problems import DatabaseInvalidError, InUseError
from fibcore.stores import Opener
from tests.simulation.network import Listener
from tests.simulation.process import Process
from tests.simulation.product import life_of, protocol_of


def do_nothing() -> None:
    """Do nothing, as the begin or end of a fault."""


class Server:
    """A server from start to exit; with a file it first stands by for the lock.

    Args:
        process: where it runs.
        listener: where it accepts connections.
        opener: opens the store.
        max_index: the largest index.
        another_serves: whether another process serves the same store.
    """

    def __init__(
        self,
        process: Process,
        listener: Listener,
        opener: Opener,
        max_index: int,
        another_serves: Callable[[], bool] = lambda: False,
    ) -> None:
        self.process = process
        self.serves = False
        self.life = life_of(process, opener, max_index, another_serves)
        self._listener = listener
        self._stopping = process.loop.create_future()
        self._protocol, self._state = protocol_of(self.life, process)
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
        await self.life.stand_by()
        async with self.life.serving(self._stop):
            self.serves = True
            process.world.log(process.name, "serves")
            self._listener.serve(process.loop, self._protocol)
            await self._stopping
            self._listener.pause(process)
            for protocol in list(self._state.connections):
                protocol.shutdown()
            end = process.loop.time() + service.settings.stop_timeout
            while self._state.connections and process.loop.time() < end:
                await asyncio.sleep(0.1)

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
