"""What the kernel holds of the answers of a connection, beside what the server counts.

**What the kernel may hold is a share of the budget of bytes in flight.** A connection begins with
the least share. A client that takes its answers gets a greater one, up to half of the budget for
all of them together, so that their answers leave in one call; one that takes nothing never does.
What answers that wait in the server need goes before: the greater shares shrink, within a sweep. A
connection stays counted until the kernel has sent what it holds, or is reset, which has the kernel
drop it: a socket that is closed would keep it for minutes.
"""

import fcntl
import socket
import struct
import termios
from asyncio import Transport
from typing import Final

from fibcore.admission import UNCOUNTED_DIGITS, Budget

LEAST_SHARE: Final = 32 * 1024
"""Bytes of the least share, if half of the budget is enough for that on each connection."""

FLOOR: Final = 4096
"""Bytes of the least share otherwise."""

MOST_SHARE: Final = 4 * 2**20
"""Bytes: with more no answer leaves faster."""

RECEIVES: Final = 16 * 1024
"""Bytes that the kernel is asked to take from a client before they are read; it takes twice that,
with what it needs for itself, and a connection's memory counts as the server's."""

RESET: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: a close drops what is unsent, and says so to the client."""


def least_share(limit: int, connections: int) -> int:
    """The share that each of so many connections has in any case, of a budget of ``limit``."""
    return max(FLOOR, min(LEAST_SHARE, limit // 2 // connections))


class Share:
    """What the kernel may hold for a connection: TCP_NOTSENT_LOWAT in tcp(7).

    That is of what it has not sent; what is on its way to the client comes on top.

    Args:
        transport: of the connection.
        budget: of which it is a share.
        least: bytes that it has in any case; see ``least_share``.
    """

    __slots__ = ("_budget", "_least", "_lent", "_socket")

    def __init__(self, transport: Transport, budget: Budget, least: int) -> None:
        self._budget = budget
        self._least = least
        self._lent = 0
        """Bytes, or 0 for the least share."""
        found = transport.get_extra_info("socket")
        self._socket = None if found is None or found.family == socket.AF_UNIX else found
        if self._socket is not None:
            # Also on those who had connected before the listening socket was ours.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVES)
            self._allow(least)

    def _allow(self, size: int) -> None:
        assert self._socket is not None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def grow(self, connections: int) -> None:
        """Have a greater share, if there is one to be had beside those of ``connections``."""
        share = self._of_each(connections)
        # Not for a little more: it takes two system calls.
        if share < 2 * max(self._lent, self._least) or self._socket is None:
            return
        if self._budget.lend(share - self._lent):
            self._lent = share
            self._allow(share)

    def shrink(self, connections: int) -> None:
        """Have a smaller share, if there are more connections or answers than when it grew."""
        share = self._of_each(connections)
        if self._lent <= 2 * share:
            return
        if share <= self._least:
            share = 0
        allowed = max(share, self._least)
        self._allow(allowed)
        if self.held <= allowed:
            self._budget.take_back(self._lent - share)
            self._lent = share

    def end(self) -> None:
        """Give it back."""
        self._budget.take_back(self._lent)
        self._lent = 0

    def _of_each(self, connections: int) -> int:
        return min(MOST_SHARE, self._budget.lendable // max(1, connections))

    @property
    def held(self) -> int:
        """Bytes that the client has not taken; 0 where they are too few to be counted."""
        if self._socket is None:
            return 0
        try:
            unsent = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # It is closed.
            return 0
        size = int.from_bytes(unsent, "little")
        return size if size >= UNCOUNTED_DIGITS else 0

    def drop(self) -> None:
        """Have the close of the connection drop what the kernel holds, if that counts."""
        if self._socket is not None and self.held:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
