"""Runs ``python -m web`` as a process; a client that sends exact bytes."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from tests.support.checker import index_of
from tests.support.prepared import start
from tests.support.waiting import PATIENCE, Log, until

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def index(self) -> int:
        """From the ETag."""
        return index_of(self.headers["etag"])


class Client:
    """Sends requests to ``url`` unchanged, each on a new connection.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        headers: sent with each request.
    """

    def __init__(self, url: str, headers: Headers = ()) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http", url
        assert parts.hostname is not None, url
        self.host = parts.hostname
        self.port = parts.port or 80
        self._headers = list(dict(headers).items())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def raw(self, *, receive_buffer: int | None = None, address: str = "") -> socket.socket:
        """Open a connection; a small ``receive_buffer`` blocks the server until data is read.

        ``address``: of the client; by default the system chooses.
        """
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if address:
            connection.bind((address, 0))
        connection.connect((self.host, self.port))
        return connection

    def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | None = None
    ) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            return self.request_on(connection, method, target, headers, body)

    def request_on(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
    ) -> Answer:
        listed = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        has_host = any(name.lower() == "host" for name, _ in listed)
        connection.putrequest(method, target, skip_host=has_host, skip_accept_encoding=True)
        for name, value in (*self._headers, *listed):
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def get(self, target: str, headers: Headers = ()) -> Answer:
        return self.request("GET", target, headers)

    @property
    def index(self) -> int:
        """The current index."""
        return self.get("/current").index

    @property
    def status(self) -> Answer:
        """The current status, bypassing the server's cache of a quarter of a second."""
        began = time.time()
        answers: list[Answer] = []

        def is_of_now() -> bool:
            answers[:] = [self.get("/status")]
            return bool(json.loads(answers[0].body)["now"] >= began)

        until(is_of_now, "/status is current")
        return answers[0]


def listening_socket() -> socket.socket:
    """Open a listening socket on a free port of the loopback interface, like supervisord's."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


SERVER: Final = (sys.executable, "-m", "web")
"""The command that runs the server."""

HOST: Final = "x"
"""The Host of hand-written requests: each server here answers for it."""


class ServerProcess:
    """A running ``python -m web``; ``__exit__`` stops it.

    Args:
        database: the path of a database, or the URL of an engine.
        listener: becomes the standard input of the process.
        settings: additional environment variables, such as ``{"FIB_MAX_INDEX": "5"}``.
        name: of its log.
        logs: the folder of the log; by default that of the database.
        command: run instead of ``python -m web``.
    """

    def __init__(
        self,
        database: Path | str,
        listener: socket.socket | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        name: str = "server",
        logs: Path | None = None,
        command: Sequence[str] = SERVER,
    ) -> None:
        self.database = database
        self.listener = listener
        foreign = {key: value for key, value in os.environ.items() if key[:4] != "FIB_"}
        variable = "FIB_STORE" if isinstance(database, str) else "FIB_STATE"
        ours = {variable: str(database), "FIB_ALLOWED_HOSTS": HOST}
        self._environment = foreign | ours | dict(settings or {})
        folder = database.parent if logs is None and isinstance(database, Path) else logs
        assert folder is not None, "an engine needs a folder for logs"
        log = folder / f"{name}.log"
        self.log = Log(log)
        with log.open("ab") as output:
            self.process = start(
                command,
                subprocess.DEVNULL if listener is None else listener.fileno(),
                output.fileno(),
                self._environment,
                # In another folder: commands of other tests would take it for their own server.
                folder,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                assert error is not None, "the server does not stop on SIGTERM"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def client(self) -> Client:
        assert self.listener is not None
        return Client(f"http://127.0.0.1:{self.listener.getsockname()[1]}")

    def wait_until_it_serves(self) -> Self:
        self.log.expect("serving from index")
        return self

    def wait_until_it_stands_by(self) -> Self:
        self.log.expect("standing by")
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return the exit status, negative for a signal."""
        return self.process.wait(PATIENCE)
