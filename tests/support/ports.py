"""Free ports for tests: no two tests, in any process, get the same one."""

import random
import socket
from contextlib import ExitStack
from typing import Final

PORTS: Final = range(20_000, 30_000)
"""Below the ephemeral ports, any of which the system may use next."""

_reserved = ExitStack()
"""UDP sockets that reserve ports until this process ends."""


def free_ports(count: int) -> int:
    """Return the first of ``count`` consecutive free ports of the loopback interface.

    They stay reserved for the caller while this process lives.
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
    return free_ports(1)
