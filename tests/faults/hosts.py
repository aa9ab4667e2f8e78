"""Network namespaces as hosts: each has a link to one bridge, which can be cut in two ways.

with Network() as network, network.host() as one, network.host() as two:
    with one.entered():
        ...                     what is started here, and each socket made here, is on that host
    one.address                 reached from all other hosts, and from this one
    with one.cut(): ...         its link is gone, and nobody notices
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
"""For measurements; no route leads there: RFC 2544."""


def ip(*arguments: str) -> None:
    """Run ``ip``, see ip(8)."""
    subprocess.run([requires.program("ip"), *arguments], check=True, timeout=10)


class Host:
    """One network namespace, from ``__enter__`` to ``__exit__``.

    Args:
        network: where it is.
        number: of the host in it, from 2.
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
        # It would end with the namespace, but later.
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", self._link)
        ip("netns", "delete", self.name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is on the host: what it starts and opens meanwhile stays there."""
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
        """Nothing passes, and nobody notices: a cable that is cut beyond the next switch."""
        ip("link", "set", self._link, "nomaster")
        try:
            yield
        finally:
            ip("link", "set", self._link, "master", self._bridge)

    @contextlib.contextmanager
    def deaf(self, other: "Host") -> Iterator[None]:
        """What ``other`` sends does not arrive here."""
        inside = (requires.program("ip"), "netns", "exec", self.name)
        filtering = (*inside, requires.program("iptables"), "--wait")
        rule = ("INPUT", "--source", other.address, "-j", "DROP")
        subprocess.run([*filtering, "-A", *rule], check=True, timeout=10)
        try:
            yield
        finally:
            subprocess.run([*filtering, "-D", *rule], check=True, timeout=10)


class Network:
    """A bridge, from ``__enter__`` to ``__exit__``; all names begin with the process's."""

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
        """One more; enter it."""
        return Host(self, next(self._numbers))


def _remove_what_was_left() -> None:
    """Remove what tests had that were killed."""
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
