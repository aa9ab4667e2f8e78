"""Ports for what tests start: no two tests, in any process, get the same one."""

import random
import socket
from contextlib import ExitStack
from typing import Final

PORTS: Final = range(20_000, 30_000)
"""Below those that the system gives to connections, of which any may be taken next."""

_reserved = ExitStack()
"""UDP sockets that reserve ports until this process ends."""


def free_ports(count: int) -> int:
    """The first of ``count`` ports of the loopback in a row on which nothing listens now.

    Nobody else who asks here is given one of them, as long as this process lives.
    """
    while True:
        first = random.SystemRandom().randrange(PORTS.start, PORTS.stop - count)
        with ExitStack() as kept, ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    reserved = kept.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    reserved.bind(("127.0.0.1", port))
                    probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            _reserved.push(kept.pop_all())
            return first


def free_port() -> int:
    """One such port."""
    return free_ports(1)
