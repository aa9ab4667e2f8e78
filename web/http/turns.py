"""A turn of the event loop is bounded in time, over all connections together.

**A server that makes progress is alive, whatever a request costs; a turn of the loop is bounded in
time over all connections; what can be asked for by many at a price is rendered once.**

libuv hands over what has arrived on every connection, and polls again up to 48 times, before it
runs a timer or accepts the next newcomers. So a connection asks here whether this turn has time for
its request. If it has none, the request waits in a queue, and the next turn begins with that: in
order, a few requests of each connection at a time. A newcomer is served after one round of the
others, however much each of them has sent.

The turns are also what the watchdog goes by (``fibcore.appliance.heartbeat``): one is made only if
the loop has come back from whatever a connection had it do.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger("fibcore")

TURN_SECONDS: Final = 0.01
"""What is begun in a turn is begun within one and a half times this."""

AT_ONCE: Final = 8  # pragma: no mutate number: a chosen figure
"""Requests of one connection that are answered before others have their turn, at the most."""

ROUND: Final = 512
"""Requests after which all who wait have had a turn, if each may have more than one in it."""

UNTIMED: Final = 32
"""Requests after which the clock is read: between two such moments a turn takes some more time, of
so many requests."""


class Waits(Protocol):
    """What is put off until a turn has time for it."""

    loop: asyncio.AbstractEventLoop

    def take_turn(self) -> None:
        """Go on; called once, in a later turn."""

    def abort(self) -> None:
        """End, as ``take_turn`` has raised."""


class Turns:
    """The turns of one event loop.

    Args:
        made: called when a turn has been made: after so many requests, and not after each.
    """

    __slots__ = ("_began", "_is_marked", "_waiting", "left", "made")

    def __init__(self, made: Callable[[], None] = lambda: None) -> None:
        self.made = made
        self.left = UNTIMED
        """Requests that may be begun before ``has_time`` is asked; who begins one counts it off."""
        self._began = 0.0
        """When this turn did, or one of the few before it."""
        self._is_marked = False
        """Whether the next turn begins with a call of ``_turn``."""
        self._waiting: deque[Waits] = deque()

    def has_time(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether this turn has time for another request; ask when none is left."""
        if self._waiting:
            return False  # Nobody goes before those who wait.
        now = loop.time()
        if self._is_marked:
            if now - self._began > TURN_SECONDS:
                return False
        elif now - self._began > TURN_SECONDS / 2:
            # To mark each turn would cost each another poll.
            self._mark(loop)
            self._began = now
        self.left = UNTIMED
        return True

    def put_off(self, connection: Waits) -> None:
        """Have ``connection`` take its turn later, behind those who wait already."""
        self._waiting.append(connection)
        self.left = 0
        if not self._is_marked:
            self._mark(connection.loop)

    @property
    def at_once(self) -> int:
        """Requests of one connection that are answered now before others have their turn."""
        waiting = len(self._waiting)
        return AT_ONCE if waiting * AT_ONCE <= ROUND else max(1, ROUND // waiting)

    def _mark(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_marked = True
        loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a turn, with those who wait."""
        self._is_marked = False
        self.made()
        waiting = self._waiting
        self._began = loop.time()
        end = self._began + TURN_SECONDS
        while waiting:
            connection = waiting.popleft()
            try:
                connection.take_turn()
            except Exception:
                logger.exception("A connection can't go on; it is closed.")
                connection.abort()
            if waiting and loop.time() > end:
                if not self._is_marked:
                    self._mark(loop)
                return
        self.left = UNTIMED
