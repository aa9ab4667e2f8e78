"""A turn of the event loop is bounded in time, over all connections together.

libuv delivers the input of every connection, polling again up to 48 times, before it runs a timer
or accepts new connections. So a connection first checks here whether this turn has time for its
request. If not, the request waits in a queue that the next turn starts with: in order, a few
requests of each connection at a time. A newcomer is served after one round of the others, however
much each of them has sent.

The watchdog relies on the turns too (``fibcore.appliance.heartbeat``): a turn completes only if the
loop has returned from whatever the connections made it do.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger("fibcore")

TURN_SECONDS: Final = 0.01
"""A turn starts no request later than one and a half times this."""

AT_ONCE: Final = 8
"""Most requests of one connection that are answered before it is the others' turn."""

ROUND: Final = 512
"""Most requests of a round over all waiting connections, unless each has only one."""

UNTIMED: Final = 32
"""Requests between two readings of the clock: a turn may overrun by the time of so many."""


class Waits(Protocol):
    """A connection that waits for a turn with time for it."""

    loop: asyncio.AbstractEventLoop

    def take_turn(self) -> None:
        """Continue; called once, in a later turn."""

    def abort(self) -> None:
        """Close, because ``take_turn`` raised."""


class Turns:
    """The turns of one event loop."""

    __slots__ = ("_began", "_is_marked", "_waiting", "left", "made")

    def __init__(self) -> None:
        self.made: Callable[[], None] = lambda: None
        """Called when a turn has completed."""
        self.left = UNTIMED
        """Requests that may start before the next call of ``has_time``; the caller decrements
        it."""
        self._began = 0.0
        """When this turn, or one of the few before it, began."""
        self._is_marked = False
        """Whether ``_turn`` is scheduled for the next turn."""
        self._waiting: deque[Waits] = deque()

    def has_time(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this turn has time for another request; call it when ``left`` is 0."""
        if self._waiting:
            return False  # The waiting ones go first.
        now = loop.time()
        if self._is_marked:
            if now - self._began > TURN_SECONDS:
                return False
        elif now - self._began > TURN_SECONDS / 2:
            # Marking every turn would cost another poll each.
            self._mark(loop)
            self._began = now
        self.left = UNTIMED
        return True

    def put_off(self, connection: Waits) -> None:
        """Queue ``connection`` for a later turn."""
        self._waiting.append(connection)
        self.left = 0
        if not self._is_marked:
            self._mark(connection.loop)

    @property
    def at_once(self) -> int:
        """Requests of one connection that may be answered now before it is the others' turn."""
        waiting = len(self._waiting)
        return AT_ONCE if waiting * AT_ONCE <= ROUND else max(1, ROUND // waiting)

    def _mark(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_marked = True
        loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a turn with the waiting connections."""
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
                logger.exception("Unexpected error on a connection; it is closed.")
                connection.abort()
            if waiting and loop.time() > end:
                if not self._is_marked:
                    self._mark(loop)
                return
        self.left = UNTIMED
