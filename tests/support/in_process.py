"""Runs the service in this process, with connections without sockets, in either implementation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fibcore.appliance.settings import Settings
from fibcore.stepper import Stepper
from tests.support.connections import Connection, Failures, Loop
from tests.support.fake_stores import FakeStore
from tests.support.reference import digits_of
from tests.support.servers import HOST
from web.app import create_app
from web.endpoints.table import TABLE
from web.http.answers import SERVERS_OWN
from web.http.hub import Hub
from web.http.protocol import Protocol
from web.http.routing import Table
from web.service import Service

DEFAULTS: Final = Settings.from_environ({"FIB_ALLOWED_HOSTS": HOST})


class Implementation:
    """An HTTP implementation: its name, and the protocol class of its connections."""

    def __init__(self, name: str, protocols: Callable[[Service, Table], Any]) -> None:
        self.name = name
        self.protocols = protocols

    def __repr__(self) -> str:
        return self.name


PROTOCOL: Final = Implementation(
    "protocol", lambda service, table: Protocol.bound_to(Hub(service, table))
)
PLAIN_APPLICATION: Final = Implementation("plain application", lambda *_: HttpToolsProtocol)
"""The Starlette application on uvicorn's protocol: the reference for ``web.http.protocol``."""


async def _compute(index: int) -> bytes:
    return digits_of(index)


class InProcessService:
    """A service on ``store``, and its connections.

    Args:
        loop: the caller closes it.
        implementation: of HTTP.
        table: the endpoints.
        settings: fields that differ from the defaults.
    """

    def __init__(
        self,
        loop: Loop,
        implementation: Implementation,
        store: FakeStore,
        table: Table = TABLE,
        **settings: object,
    ) -> None:
        self.loop = loop
        self.store = store
        self.failures = Failures(loop)
        bounds = replace(DEFAULTS, **settings)  # type: ignore[arg-type]
        self.service = Service(bounds, lambda: store, fail_stop=self.failures.fail_stop)
        # Compute in this process: a worker process would not follow the test's clock.
        self.service.lookup._worker.compute = _compute  # type: ignore[method-assign]
        loop.run_until_complete(self.service.__aenter__())
        loop.awaits.append(self._is_at_work)
        self.config = uvicorn.Config(
            create_app(self.service, table, counts=implementation is not PROTOCOL),
            http=implementation.protocols(self.service, table),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
        )
        self.config.load()
        self.server = ServerState()
        self.server.default_headers = list(SERVERS_OWN)
        self.connections: list[Connection] = []

    @property
    def stepper(self) -> Stepper:
        assert self.service.stepper is not None
        return self.service.stepper

    @property
    def hub(self) -> Hub:
        """The hub that the protocol's connections share."""
        return cast("type[Protocol]", self.config.http_protocol_class).shared_hub

    def _is_at_work(self) -> bool:
        """Whether a thread is working (not blocked) and will notify the loop."""
        assert not self.failures, f"the process would have ended: {self.failures}"
        return self.stepper._commit_began is not None and not self.store.asking

    def connect(self, room: int | None = None) -> Connection:
        """Open a connection; see ``Connection``."""
        protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server, app_state={}, _loop=self.loop
        )
        connection = Connection(self.loop, room)
        self.connections.append(connection)
        return connection.open(protocol)

    def stop(self) -> None:
        """Stop gracefully, as uvicorn's server does."""
        for protocol in list(self.server.connections):
            protocol.shutdown()

    def kill(self, *, committed: bool) -> None:
        """End it as by ``kill -9``: all clients are disconnected.

        Args:
            committed: whether the commit in progress reached the disk.
        """
        for connection in self.connections:
            if not connection.lost:
                connection.is_gone = True
                connection.abort()
        self.loop.settle()
        # From now on it affects neither clients nor the disk.
        self.store.cut_off(committed=committed)
        self.close()

    def abandon(self) -> None:
        """End everything after a failure."""
        self.store.cut_off(committed=False)
        if not self.failures:
            self.stepper.close()

    def close(self) -> None:
        """Abort all connections, complete the commits, and close the service."""
        for connection in self.connections:
            connection.abort()
        self.store.blocking = False
        if self.store.asking:
            self.store.finish()
        self.loop.settle()
        self.loop.run_until_complete(self.service.__aexit__())
        self.loop.awaits.remove(self._is_at_work)
