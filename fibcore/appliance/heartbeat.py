"""Tells a watchdog that the event loop turns, by ``fibcore/appliance/beats.py``.

A beat is due four times a second, and comes from the loop itself: from a timer while little
happens, and under a load from the turns that are made (``web/http/turns.py``). A timer alone would
not do, as libuv polls again and again before it runs one, so that a flood puts it off. A thread of
its own would prove nothing: it beats beside a loop that hangs. A request in an endless loop makes
no turn, and no beat.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fibcore.appliance.beats import Pulse
from fibcore.appliance.settings import Settings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # which the watchdog has no use for


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
    return max(
        LEAST_SECONDS, TURN_SECONDS * (settings.max_connections + settings.max_waiting_steps)
    )


class Heartbeat:
    """The heartbeat of a server.

    Args:
        patience: asked at each beat for how many seconds there may be none after it.
    """

    def __init__(self, patience: Callable[[], float]) -> None:
        self._patience = patience
        self._pulse = Pulse()
        self._is_closed = False
        self._beaten = 0.0
        """When it last did, by the monotonic clock."""

    def beat(self) -> None:
        """Say once that this process is well."""
        self._beaten = time.monotonic()
        self._pulse.beat(self._patience())

    def turned(self) -> None:
        """Say so if it is time: the loop has made a turn."""
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            self.beat()

    def beat_on(self, loop: "AbstractEventLoop") -> None:
        """Beat from now on, for as long as ``loop`` turns."""
        if not self._is_closed:
            self.beat()
            loop.call_later(BEAT_SECONDS, self.beat_on, loop)

    def close(self) -> None:
        """Beat no more."""
        self._is_closed = True
        self._pulse.close()
