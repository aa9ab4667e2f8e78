"""nginx and haproxy in front of a server, as configured by the files in programs/."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import machine
from bench.heads.drivers import PROGRAMS, found
from tests.support.ports import free_port


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Mapping[str, int]]:
    """The ports of nginx-default, nginx-usual and nginx-traced. Raises MissingError."""
    program = found("nginx", "nginx-light")
    home = folder / "nginx"
    home.mkdir(exist_ok=True)
    ways = ("default", "usual", "traced")
    command = [program, "-p", str(home), "-c", "nginx.conf", "-e", "error.log"]
    with _started("nginx", command, home / "nginx.conf", upstream, ways) as ports:
        yield ports


@contextlib.contextmanager
def haproxy(folder: Path, upstream: int) -> Iterator[Mapping[str, int]]:
    """The port of haproxy-usual. Raises MissingError."""
    program = found("haproxy", "haproxy")
    path = folder / "haproxy.cfg"
    command = [program, "-db", "-q", "-f", str(path)]
    with _started("haproxy", command, path, upstream, ("usual",)) as ports:
        yield ports


@contextlib.contextmanager
def _started(
    name: str, command: list[str], path: Path, upstream: int, ways: tuple[str, ...]
) -> Iterator[Mapping[str, int]]:
    text = (PROGRAMS / path.name).read_text().replace("@UPSTREAM@", f"127.0.0.1:{upstream}")
    ports = {}
    for way in ways:
        ports[f"{name}-{way}"] = port = free_port()
        text = text.replace(f"@{way.upper()}@", str(port))
    path.write_text(text)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        machine.wait_until(lambda: all(map(_listens, ports.values())), 30, f"{name} listens")
        yield ports
    finally:
        process.terminate()
        process.wait(15)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
