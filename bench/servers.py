"""The measured servers: fibcore of this checkout or another one, and nginx as the yardstick."""

import contextlib
import grp
import http.client
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gmpy2

from bench import machine
from tests.support.checker import Integers, index_of
from tests.support.ports import free_port
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``integers`` is None if its answer is a constant."""

    port: int
    pid: int
    integers: Integers | None = None

    def index(self) -> int:
        """Where its sequence is."""
        status, etag = self.get("/current")
        assert status == 200, status
        return index_of(etag)

    def get(self, path: str) -> tuple[int, str | None]:
        """Status and ETag of one request, on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status, response.headers["ETag"]

    def answers(self) -> bool:
        """Whether it is healthy."""
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, on a disk: /tmp may be in memory, where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fibcore-bench-") as name:
        yield Path(name)


def python_of(checkout: Path) -> Path:
    """The interpreter of a checkout, in whose environment it is installed."""
    return Path(sys.executable) if checkout == machine.ROOT else checkout / ".venv/bin/python"


def environment(checkout: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without settings of fibcore, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIB_")}
    return {**kept, "PYTHONPATH": str(checkout), **settings}


def set_index(checkout: Path, index: int, settings: Mapping[str, str], place: Path) -> None:
    """Create the sequence of these settings, or set it to ``index``."""
    command = (python_of(checkout), "-m", "fibcore", "set-index", str(index))
    with (place / "set-index.log").open("wb") as log:
        subprocess.run(
            command, env=environment(checkout, settings), cwd=place, stdout=log, check=True
        )


@contextlib.contextmanager
def _running(
    command: Sequence[str], place: Path, server: Server, settings: Mapping[str, str]
) -> Iterator[Server]:
    """Start the command, wait until it is healthy, and finally end it."""
    log = place / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=place,
            env=dict(settings),
        )
    try:
        until(
            lambda: process.poll() is not None or server.answers(),
            f"{' '.join(command)} is healthy",
        )
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} ended: {log.read_text()[-2000:]}")
        yield Server(server.port, process.pid, server.integers)
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def fibcore(
    checkout: Path, index: int, integers: Integers, store: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """One process of fibcore, without supervisord, at ``index``.

    Args:
        checkout: whose environment is in its .venv.
        store: the settings of an engine; without them, a new database.
    """
    with folder() as place:
        settings = {
            "FIB_PORT": str(free_port()),
            "FIB_INTEGERS": integers,
            **(store or {"FIB_STATE": str(place / "fibcore.db")}),
        }
        set_index(checkout, index, settings, place)
        command = machine.pinned(machine.SERVER_CORE, python_of(checkout), "-m", "web")
        server = Server(int(settings["FIB_PORT"]), 0, integers)
        with _running(command, place, server, environment(checkout, settings)) as running:
            yield running


@contextlib.contextmanager
def nginx(index: int, *, static: bool = False) -> Iterator[Server]:
    """nginx with one worker, with fibcore's answer to /current at ``index`` on every path.

    Args:
        static: from a file, which large numbers need; otherwise a constant in its configuration.
    """
    port = free_port()
    body = f'{{"current": {gmpy2.fib(index)}}}'
    answer = "root .; try_files /number =404;" if static else f"return 200 '{body}';"
    user = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    text = Path(__file__).with_name("nginx.conf").read_text()
    for name, value in (("@PORT@", str(port)), ("@ANSWER@", answer), ("@USER@", user)):
        text = text.replace(name, value)
    with folder() as place:
        (place / "number").write_text(body)
        (place / "nginx.conf").write_text(text)
        command = ("/usr/sbin/nginx", "-p", place, "-c", "nginx.conf", "-e", "error.log")
        pinned = machine.pinned(machine.SERVER_CORE, *command)
        with _running(pinned, place, Server(port, 0), os.environ) as server:
            yield server
