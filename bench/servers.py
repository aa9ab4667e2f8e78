"""The measured servers: each starts at an index, in its own cgroup."""

import contextlib
import grp
import http.client
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import gmpy2

from bench import machine
from bench.cgroup import MemoryLimit, unlimited
from fibcore.stores import sqlite_file
from fibcore.stores.files import lock_path
from tests.support.checker import Integers
from tests.support.ports import free_port

PEERS = machine.ROOT / "bench" / "peers"

memory_limit: MemoryLimit = unlimited("none was requested")
"""The limit of every server that is started from now on; ``main`` sets it."""


@dataclass(slots=True)
class Server:
    """A running server. `integers` is None if its answer is a constant."""

    peer: str
    port: int
    pid: int
    integers: Integers | None
    synchronous: str  # durability of the store, or a description if there is none
    index: int = 0  # the last known index
    database: Path | None = None

    def get(self, path: str) -> tuple[int, str | None, bytes]:
        """Status, ETag and body of one request, on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers["ETag"], response.read()

    def pids(self) -> list[int]:
        return machine.tree(self.pid)

    def lock_holder(self) -> int:
        """The serving process; under supervisord, another one stands by."""
        assert self.database is not None
        return int(lock_path(self.database).read_text())


Starting: TypeAlias = contextlib.AbstractContextManager[Server]
"""Starts the server on entry, and stops it on exit."""

Start: TypeAlias = Callable[[Path, int, Integers], Starting]
"""Arguments: a folder for the server, its first index, and the kind of numbers."""


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without settings of fibcore, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIB_")}
    return {**kept, "PYTHONPATH": str(machine.ROOT), **settings}


@contextlib.contextmanager
def _running(
    command: list[str],
    folder: Path,
    server: Server,
    environment: Mapping[str, str] | None = None,
    core: int = machine.SERVER_CORE,
) -> Iterator[Server]:
    """Start the command in a cgroup, wait for /health, and finally end it with its children."""
    log = folder / f"{server.peer.replace(' ', '-').replace('/', '-')}-{server.port}.log"
    with memory_limit.around(machine.pinned(core, command)) as limited, log.open("wb") as output:
        process = subprocess.Popen(
            limited,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(environment or {}),
        )
        server.pid = process.pid

        def healthy() -> bool:
            if process.poll() is not None:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(
                    f"{server.peer} exited with {process.returncode} at start:\n{tail}"
                )
            try:
                return server.get("/health")[0] == 200
            except OSError:
                return False

        try:
            machine.wait_until(healthy, 60, f"{server.peer} answers /health")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                for pid in machine.tree(process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def _python_server(
    peer: str, module: str, folder: Path, index: int, integers: Integers, **more: str
) -> Iterator[Server]:
    port = free_port()
    database = folder / f"database-{port}.db"
    sqlite_file.create(database, index)
    settings = {
        "FIB_PORT": str(port),
        "FIB_STATE": str(database),
        "FIB_INTEGERS": integers,
        "FIB_SYNCHRONOUS": "full",
        **more,
    }
    server = Server(peer, port, 0, integers, settings["FIB_SYNCHRONOUS"], index, database)
    with _running([sys.executable, "-m", module], folder, server, settings):
        yield server


def fibcore(folder: Path, index: int, integers: Integers) -> Starting:
    """fibcore, one process, without supervisord."""
    return _python_server("fibcore", "web", folder, index, integers)


def logged(folder: Path, index: int, integers: Integers) -> Starting:
    """fibcore with an access log."""
    return _python_server("fibcore logged", "web", folder, index, integers, FIB_ACCESS_LOG="on")


def uncounted(folder: Path, index: int, integers: Integers) -> Starting:
    """fibcore without its counting."""
    module = "bench.peers.uncounted"
    return _python_server("fibcore uncounted", module, folder, index, integers)


@contextlib.contextmanager
def node(
    folder: Path, peer: str, store: Mapping[str, str], integers: Integers, core: int
) -> Iterator[Server]:
    """fibcore on the shared store of the settings `store`."""
    port = free_port()
    settings = {"FIB_PORT": str(port), "FIB_INTEGERS": integers, **store}
    server = Server(peer, port, 0, integers, "full")
    with _running([sys.executable, "-m", "web"], folder, server, settings, core):
        yield server


def stock(folder: Path, index: int, integers: Integers) -> Starting:
    """The same application and store on stock uvicorn."""
    return _python_server("stock", "tests.support.stock", folder, index, integers)


@contextlib.contextmanager
def supervised(folder: Path, index: int, integers: Integers) -> Iterator[Server]:
    """The appliance as `make run` starts it: supervisord, two servers, watchdog and backup."""
    home = folder / f"appliance-{free_port()}"
    (home / "var" / "log").mkdir(parents=True)
    shutil.copy(machine.ROOT / "supervisord.conf", home)
    (home / ".venv").symlink_to(sys.prefix)
    port = free_port()
    database = home / "var" / "fibcore.db"
    sqlite_file.create(database, index)
    settings = {"FIB_HOST": "127.0.0.1", "FIB_PORT": str(port), "FIB_INTEGERS": integers}
    server = Server("fibcore supervised", port, 0, integers, "full", index, database)
    command = [f"{home}/.venv/bin/supervisord", "-n", "-c", f"{home}/supervisord.conf"]
    with _running(command, home, server, settings) as running:
        yield running


def _reference_program(folder: Path) -> str:
    """Compile the Go peer, if it is not there yet: offline, with Debian's packages."""
    program = folder / "reference"
    if not program.exists():
        settings = {
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": str(machine.GO_PATH),
            "GOFLAGS": "",
            "GOCACHE": str(folder / "go-cache"),
        }
        command = (machine.tool("go"), "build", "-o", program, PEERS / "reference.go")
        subprocess.run(command, env=settings, check=True)
    return str(program)


@contextlib.contextmanager
def reference(folder: Path, index: int, integers: Integers) -> Iterator[Server]:
    """The reference design in Go; its index is in memory only."""
    port = free_port()
    peer = "Go uint64" if integers == "uint64" else "Go math/big"
    command = [
        _reference_program(folder),
        *("-listen", f"127.0.0.1:{port}", "-integers", integers, "-index", str(index)),
    ]
    server = Server(peer, port, 0, integers, "in memory", index)
    with _running(command, folder, server):
        yield server


@contextlib.contextmanager
def reference_redis(folder: Path, redis_port: int) -> Iterator[Server]:
    """The reference design in Go on Redis, which stores a number before the answer."""
    port = free_port()
    command = [
        _reference_program(folder),
        *("-listen", f"127.0.0.1:{port}", "-redis", f"127.0.0.1:{redis_port}"),
    ]
    server = Server("Go, Redis awaited", port, 0, "uint64", "full")
    with _running(command, folder, server):
        yield server


@contextlib.contextmanager
def nginx(folder: Path, index: int, *, static: bool) -> Iterator[Server]:
    """nginx with one worker, with fibcore's answer to /current at `index` on every path.

    Args:
        static: from a file, which large numbers need; otherwise a constant in its configuration.
    """
    port = free_port()
    home = folder / f"nginx-{port}"
    home.mkdir()
    body = f'{{"current": {gmpy2.fib(index)}}}'
    (home / "number").write_text(body)
    answer = "root .; try_files /number =404;" if static else f"return 200 '{body}';"
    template = (PEERS / "nginx.conf").read_text()
    user = f"{pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    (home / "nginx.conf").write_text(
        template.replace("@PORT@", str(port)).replace("@ANSWER@", answer).replace("@USER@", user)
    )
    peer = "nginx static" if static else "nginx constant"
    command = [machine.tool("nginx"), "-p", str(home), "-c", "nginx.conf", "-e", "error.log"]
    with _running(command, home, Server(peer, port, 0, None, "constant")) as server:
        yield server
