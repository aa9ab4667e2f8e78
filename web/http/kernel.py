"""The part of a connection's answers that the kernel holds, beside what the server counts.

**The kernel's part is a share of the budget of bytes in flight.** A connection starts with the
least share. A client that takes its answers gets a larger one, so that an answer leaves in one
call; a client that takes nothing never does. Larger shares use at most half of the budget together,
and shrink, within a sweep, when answers waiting in the server need it. A connection counts until
the kernel has sent what it holds, or until it is reset, which makes the kernel drop it: after a
plain close the kernel would keep it for minutes.
"""

import fcntl
import socket
import struct
import termios
from asyncio import Transport
from typing import Final

from fibcore.admission import UNCOUNTED_DIGITS, Budget

LEAST_SHARE: Final = 32 * 1024
"""Bytes of the least share, if half of the budget suffices for one per connection."""

FLOOR: Final = 4096
"""Bytes of the least share otherwise."""

MOST_SHARE: Final = 4 * 2**20
"""Bytes of the largest share; more would not speed up any answer."""

RECEIVES: Final = 16 * 1024
"""Receive buffer requested of the kernel, in bytes. The kernel doubles it for its own overhead, and
its memory counts as the server's."""

RESET: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: a close drops unsent bytes and resets the connection."""


def least_share(limit: int, connections: int) -> int:
    """The guaranteed share, in bytes, of each of ``connections`` in a budget of ``limit``."""
    return max(FLOOR, min(LEAST_SHARE, limit // 2 // connections))


class Share:
    """The bytes that the kernel may hold for a connection: TCP_NOTSENT_LOWAT in tcp(7).

    It limits unsent bytes; bytes on their way to the client come on top.

    Args:
        transport: the connection's.
        budget: the budget that the share is part of.
        least: guaranteed bytes; see ``least_share``.
    """

    __slots__ = ("_budget", "_least", "_lent", "_socket")

    def __init__(self, transport: Transport, budget: Budget, least: int) -> None:
        self._budget = budget
        self._least = least
        self._lent = 0
        """Bytes borrowed from the budget; 0 for the least share."""
        found = transport.get_extra_info("socket")
        self._socket = None if found is None or found.family == socket.AF_UNIX else found
        if self._socket is not None:
            # Also for clients that connected before this process had the listening socket.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVES)
            self._allow(least)

    def _allow(self, size: int) -> None:
        assert self._socket is not None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def grow(self, connections: int) -> None:
        """Enlarge the share, if the budget allows it beside ``connections`` others."""
        share = self._of_each(connections)
        # Not for a small gain: it takes two system calls.
        if share < 2 * max(self._lent, self._least) or self._socket is None:
            return
        if self._budget.lend(share - self._lent):
            self._lent = share
            self._allow(share)

    def shrink(self, connections: int) -> None:
        """Reduce the share, if there are more connections or answers than when it grew."""
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
        """Return the share to the budget."""
        self._budget.take_back(self._lent)
        self._lent = 0

    def _of_each(self, connections: int) -> int:
        return min(MOST_SHARE, self._budget.lendable // max(1, connections))

    @property
    def held(self) -> int:
        """Bytes that the client has not taken; 0 if too few to count."""
        if self._socket is None:
            return 0
        try:
            unsent = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # It is closed.
            return 0
        size = int.from_bytes(unsent, "little")
        return size if size >= UNCOUNTED_DIGITS else 0

    def drop(self) -> None:
        """Make the close of the connection drop what the kernel holds, if that is counted."""
        if self._socket is not None and self.held:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
