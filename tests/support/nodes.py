"""Runs several servers on one sequence in an engine."""

import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fibcore.stores import Opener, opener_of
from tests.support.engines import Engine
from tests.support.servers import SERVER, ServerProcess, listening_socket


class Nodes:
    """Servers on one sequence of ``engine``.

    Args:
        engine: must be running.
        logs: folder for the servers' logs.
        stack: stops the servers.
        first: the index at which the sequence is created.
    """

    def __init__(self, engine: Engine, logs: Path, stack: ExitStack, *, first: int = 0) -> None:
        self.engine = engine
        self.sequence = f"test-{uuid.uuid4()}"
        self.opener = self.opener_at(engine.url)
        self._logs = logs
        self._stack = stack
        self._first = first
        self._count = 0

    def opener_at(self, url: str) -> Opener:
        return opener_of(url, self.sequence, "full", 10_000)

    def start(
        self,
        url: str | None = None,
        *,
        make: bool = True,
        listener: socket.socket | None = None,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = SERVER,
    ) -> ServerProcess:
        """Start a server.

        Args:
            url: of the engine, for example through a proxy.
            make: whether to create the sequence if it is missing.
            listener: the socket of an earlier server.
            settings: additional environment variables.
            command: run instead of ``python -m web``.
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
