"""Network namespaces as hosts: each has a link to one bridge, which can be cut in several ways.

    with Network() as network, network.host() as one, network.host() as two:
        with one.entered():
            ...                     what is started here, and each socket made here, is on that host
        one.address                 reached from all other hosts, and from this one
        with one.cut(): ...         its link to the others is gone, without a word to anybody
        with one.deaf(two): ...     what two sends does not arrive
        with one.mute(two): ...     what it sends to two does not arrive

A host has two links: one to the other hosts, which is cut, and one to where the clients are. So a
node that is cut off from its store can still be asked.
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

FRONT: Final = "198.18"
BACK: Final = "198.19"
"""Networks that are for measurements, which no route leads to: RFC 2544."""


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
        self.address = f"{network.back}.{number}"
        """What other hosts know it by."""
        self.front = f"{network.front}.{number}"
        """What clients know it by."""
        self._network = network
        self._links = {
            "back": (f"{network.name}b{number}", network.switch, f"{self.address}/24"),
            "front": (f"{network.name}f{number}", network.hub, f"{self.front}/24"),
        }

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        try:
            ip("-n", self.name, "link", "set", "lo", "up")
            for inside, (outside, bridge, address) in self._links.items():
                ip("link", "add", outside, "type", "veth", "peer", inside, "netns", self.name)
                ip("link", "set", outside, "master", bridge, "up")
                ip("-n", self.name, "addr", "add", address, "dev", inside)
                ip("-n", self.name, "link", "set", inside, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Its links would end with it, but later.
        for link in self._links.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("link", "delete", link[0])
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
        """Nothing passes, and nobody is told: a cable that is cut beyond the next switch."""
        outside, bridge, _ = self._links["back"]
        ip("link", "set", outside, "nomaster")
        try:
            yield
        finally:
            ip("link", "set", outside, "master", bridge)

    @contextlib.contextmanager
    def deaf(self, other: "Host") -> Iterator[None]:
        """What ``other`` sends does not arrive here."""
        with self._dropping("INPUT", "--source", other.address):
            yield

    @contextlib.contextmanager
    def mute(self, other: "Host") -> Iterator[None]:
        """What is sent from here does not arrive at ``other``."""
        with self._dropping("OUTPUT", "--destination", other.address):
            yield

    @contextlib.contextmanager
    def _dropping(self, *rule: str) -> Iterator[None]:
        inside = (requires.program("ip"), "netns", "exec", self.name)
        filtering = (*inside, requires.program("iptables"), "--wait")
        subprocess.run([*filtering, "-A", *rule, "-j", "DROP"], check=True, timeout=10)
        try:
            yield
        finally:
            subprocess.run([*filtering, "-D", *rule, "-j", "DROP"], check=True, timeout=10)


class Network:
    """Two bridges, from ``__enter__`` to ``__exit__``; their names begin with the process's."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.name = f"fib{pid}"
        self.hub = f"{self.name}h"
        """Where the clients are: this process has an address there."""
        self.switch = f"{self.name}s"
        """Where the hosts meet."""
        self.front = f"{FRONT}.{pid % 256}"
        self.back = f"{BACK}.{pid % 256}"
        self._numbers = itertools.count(2)

    def __enter__(self) -> Self:
        _remove_what_was_left()
        try:
            for bridge in (self.hub, self.switch):
                ip("link", "add", bridge, "type", "bridge")
                ip("link", "set", bridge, "up")
            ip("addr", "add", f"{self.front}.1/24", "dev", self.hub)
            # To look at the store from here, whatever is cut.
            ip("addr", "add", f"{self.back}.1/24", "dev", self.switch)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for bridge in (self.hub, self.switch):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("link", "delete", bridge)

    def host(self) -> Host:
        """One more; enter it."""
        return Host(self, next(self._numbers))


def _remove_what_was_left() -> None:
    """Remove what tests had that were killed."""
    names = [path.name for path in NAMESPACES.glob("fib*-*")]
    names += [path.name for path in Path("/sys/class/net").glob("fib*[hs]")]
    for name in names:
        found = re.fullmatch(r"fib(\d+)(-\d+|[hs])", name)
        if found and not Path("/proc", found[1]).exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns" if "-" in name else "link", "delete", name)


def _set_namespace(descriptor: int) -> None:
    # os.setns is of Python 3.12.
    if _libc.setns(descriptor, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


_libc: Final = ctypes.CDLL(None, use_errno=True)
