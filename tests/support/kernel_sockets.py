"""Reads the kernel's list of TCP sockets; see proc_net_tcp(5)."""

from pathlib import Path
from typing import Final, NamedTuple

ESTABLISHED: Final = "01"
LISTENING: Final = "0A"


class KernelSocket(NamedTuple):
    """An IPv4 socket."""

    local: int
    """The port."""
    other: str
    """Address and port of the peer."""
    state: str
    unsent: int
    """Bytes that the peer has not acknowledged."""
    unread: int
    """Bytes to be read; of a listening socket: connections to be accepted."""
    held: bool
    """Whether a process has it open."""


def sockets_at(port: int) -> list[KernelSocket]:
    """Return the sockets at ``port``. One may be listed twice while others open and close."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, other, state, queues, _, _, _, _, inode, *_ = line.split()
        unsent, unread = (int(each, 16) for each in queues.split(":"))
        at = int(local.partition(":")[2], 16)
        found.append(KernelSocket(at, other, state, unsent, unread, inode != "0"))
    return [each for each in found if each.local == port]
