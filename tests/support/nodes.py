"""Several servers on one sequence of a shared store."""

import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fibcore.appliance.settings import Settings
from fibcore.stores.engine import EngineOpener
from tests.support.engines import Engine
from tests.support.servers import SERVER, ServerProcess, listening_socket


class Nodes:
    """Servers on one sequence of ``engine``.

    Args:
        engine: it runs.
        logs: the folder of the servers' logs.
        stack: ends them.
        first: the index at which the sequence is made.
    """

    def __init__(self, engine: Engine, logs: Path, stack: ExitStack, *, first: int = 0) -> None:
        self.engine = engine
        self.sequence = f"test-{uuid.uuid4()}"
        self.opener = self.opener_at(engine.url)
        self._logs = logs
        self._stack = stack
        self._first = first
        self._count = 0

    def opener_at(self, url: str) -> EngineOpener:
        settings = Settings.from_environ({"FIB_STORE": url, "FIB_SEQUENCE": self.sequence})
        opener = settings.opener()
        assert isinstance(opener, EngineOpener)
        return opener

    def start(
        self,
        url: str | None = None,
        *,
        make: bool = True,
        listener: socket.socket | None = None,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = SERVER,
    ) -> ServerProcess:
        """Start one.

        Args:
            url: of the engine, if that is to be reached in another way.
            make: the sequence, if it is not there.
            listener: its socket, if it is that of one before.
            settings: more of the environment.
            command: what to run instead of ``python -m web``.
        """
        self._count += 1
        if make:
            self.opener.create(self._first)
        listener = listener or self._stack.enter_context(listening_socket())
        return self._stack.enter_context(
            ServerProcess(
                url or self.engine.url,
                listener,
                {"FIB_SEQUENCE": self.sequence, **(settings or {})},
                logs=self._logs,
                name=f"node-{self._count}",
                command=command,
            )
        )
