"""Network namespaces as hosts: each has a link to one bridge, which can be cut in two ways.

with Network() as network, network.host() as one, network.host() as two:
    with one.entered():
        ...                     processes started and sockets created here are on that host
    one.address                 reachable from all other hosts, and from this one
    with one.cut(): ...         its link is down, and nobody notices
    with one.deaf(two): ...     what two sends does not arrive
"""

import contextlib
import ctypes
import itertools
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from tests.support import requires

CLONE_NEWNET: Final = 0x40000000
NAMESPACES: Final = Path("/run/netns")

NETWORK: Final = "198.19"
"""Reserved for benchmarks, never routed: RFC 2544."""


def ip(*arguments: str) -> None:
    """Run ``ip``, see ip(8)."""
    subprocess.run([requires.program("ip"), *arguments], check=True, timeout=10)


class Host:
    """One network namespace, from ``__enter__`` to ``__exit__``.

    Args:
        network: its network.
        number: its number there, from 2.
    """

    def __init__(self, network: "Network", number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{number}"
        self._bridge = network.bridge
        self._link = f"{network.name}l{number}"

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        try:
            ip("-n", self.name, "link", "set", "lo", "up")
            ip("link", "add", self._link, "type", "veth", "peer", "eth", "netns", self.name)
            ip("link", "set", self._link, "master", self._bridge, "up")
            ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth")
            ip("-n", self.name, "link", "set", "eth", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # It would disappear with the namespace, but later.
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", self._link)
        ip("netns", "delete", self.name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread to the host: what it starts and opens meanwhile stays there."""
        with contextlib.ExitStack() as stack:
            home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
            stack.callback(os.close, home)
            there = os.open(NAMESPACES / self.name, os.O_RDONLY)
            stack.callback(os.close, there)
            _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(home)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Let nothing pass, unnoticed: a cable that is cut beyond the next switch."""
        ip("link", "set", self._link, "nomaster")
        try:
            yield
        finally:
            ip("link", "set", self._link, "master", self._bridge)

    @contextlib.contextmanager
    def deaf(self, other: "Host") -> Iterator[None]:
        """Drop what ``other`` sends here."""
        inside = (requires.program("ip"), "netns", "exec", self.name)
        filtering = (*inside, requires.program("iptables"), "--wait")
        rule = ("INPUT", "--source", other.address, "-j", "DROP")
        subprocess.run([*filtering, "-A", *rule], check=True, timeout=10)
        try:
            yield
        finally:
            subprocess.run([*filtering, "-D", *rule], check=True, timeout=10)


class Network:
    """A bridge, from ``__enter__`` to ``__exit__``; all names contain the process id."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.name = f"fib{pid}"
        self.bridge = f"{self.name}s"
        self.prefix = f"{NETWORK}.{pid % 256}"
        self._numbers = itertools.count(2)

    def __enter__(self) -> Self:
        _remove_what_was_left()
        try:
            ip("link", "add", self.bridge, "type", "bridge")
            ip("link", "set", self.bridge, "up")
            # For this process.
            ip("addr", "add", f"{self.prefix}.1/24", "dev", self.bridge)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", self.bridge)

    def host(self) -> Host:
        """Another host, to be entered."""
        return Host(self, next(self._numbers))


def _remove_what_was_left() -> None:
    """Remove leftovers of killed tests."""
    names = [path.name for path in NAMESPACES.glob("fib*-*")]
    names += [path.name for path in Path("/sys/class/net").glob("fib*s")]
    for name in names:
        found = re.fullmatch(r"fib(\d+)(-\d+|s)", name)
        if found and not Path("/proc", found[1]).exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns" if "-" in name else "link", "delete", name)


def _set_namespace(descriptor: int) -> None:
    # os.setns is of Python 3.12.
    if _libc.setns(descriptor, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


_libc: Final = ctypes.CDLL(None, use_errno=True)
