"""Fixtures and helpers for the tests of the command."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from fibcore.command.cli import main
from tests.support.ports import free_port
from tests.support.servers import ServerProcess, listening_socket

Fibcore = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the checkout, since the command would find its settings and a server running there."""
    for name in [each for each in os.environ if each.startswith("FIB_")]:
        monkeypatch.delenv(name)
    edit(tmp_path, f"FIB_PORT={free_port()}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configured path, where nothing exists yet."""
    database = tmp_path / "fibcore.db"
    monkeypatch.setenv("FIB_STATE", str(database))
    return database


@pytest.fixture
def fibcore(capsys: pytest.CaptureFixture[str]) -> Fibcore:
    """Run the command in this process; return its exit status, its output and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def server(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """The server of the settings."""
    with listening_socket() as listener:
        port = str(listener.getsockname()[1])
        monkeypatch.setenv("FIB_PORT", port)
        with ServerProcess(database, listener, {"FIB_PORT": port}) as server:
            yield server.wait_until_it_serves()


def edit(folder: Path, line: str) -> None:
    """Add a line to the settings of ``folder``."""
    with (folder / "fibcore.conf").open("a") as file:
        file.write(f"{line}\n")


def command(*arguments: object) -> list[str]:
    """The command as a process."""
    return [sys.executable, "-m", "fibcore", *map(str, arguments)]


def rows(output: str) -> dict[str, str]:
    """The two columns of the output."""
    return {line[:17].strip(): line[17:] for line in output.splitlines()}


class Replies(ThreadingHTTPServer):
    """Another program: it replies to each request with ``body``."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.credentials: set[str | None] = set()
        """The Authorization of each request."""
        replies = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                replies.credentials.add(self.headers["authorization"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
