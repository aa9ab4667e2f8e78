"""Tells a watchdog that the event loop turns, in the words of sd_notify(3).

The messages go to the datagram socket that ``NOTIFY_SOCKET`` names: no crowd of clients stands in
their way, and they cost no disk. Where nobody listens they are lost, and nothing waits for them.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fibcore.settings import Settings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # which the watchdog has no use for

__all__ = ["BEAT_SECONDS", "STARTING_SECONDS", "Heartbeat", "longest_turn"]

BEAT_SECONDS: Final = 0.25
"""How often it beats, if the turns of the loop are not longer."""

STARTING_SECONDS: Final = 120.0
"""For a server that has just taken over. The numbers at an index of 10^9 take a minute."""

LEAST_SECONDS: Final = 2.0
TURN_SECONDS: Final = 100e-6
"""For each request of a turn, several times what it takes."""


def longest_turn(settings: Settings) -> float:
    """Seconds of processor time past which a turn of the loop hangs, whatever clients do.

    Every connection may have a request in it, and every step that may wait be answered in it.
    """
    return max(LEAST_SECONDS, TURN_SECONDS * (settings.max_connections + settings.max_waiting))


class Heartbeat:
    """The heartbeat of one process.

    Args:
        address: of the watchdog's socket, as in ``NOTIFY_SOCKET``; None when there is no watchdog.
        patience: asked at each beat for how many seconds there may be none after it.
    """

    def __init__(self, address: str | None, patience: Callable[[], float]) -> None:
        self._address = address or ""
        self._patience = patience
        self._socket: socket.socket | None = None
        if address:
            if address[0] == "@":  # as systemd writes a name that is no file's
                self._address = "\0" + address[1:]
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def beat(self) -> None:
        """Say once that this process is well."""
        if self._socket is None:
            return
        message = f"WATCHDOG=1\nWATCHDOG_USEC={round(self._patience() * 1e6)}"
        with contextlib.suppress(OSError):  # Nobody listens, or reads: that is not our business.
            self._socket.sendto(message.encode(), self._address)

    def beat_on(self, loop: "AbstractEventLoop") -> None:
        """Beat from now on, for as long as ``loop`` turns."""
        if self._socket is not None:
            self.beat()
            loop.call_later(BEAT_SECONDS, self.beat_on, loop)

    def close(self) -> None:
        """Beat no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
