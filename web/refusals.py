"""The pace at which steps past a bound are refused.

A refusal takes some of the time in which the server could have made a step, and a client that is
refused at once can ask again at once, whatever ``Retry-After`` says: a crowd of such clients would
have the server do nothing but refuse. So only so many refusals leave in a second; a request past
that waits for its own, which costs nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["AT_ONCE", "INTERVAL_SECONDS", "Refusals"]

INTERVAL_SECONDS: Final = 0.05
AT_ONCE: Final = 50
"""Refusals in an interval: 1,000 a second, which takes a core a few hundredths of its time, or a
tenth if none is plain enough for the fast path. As many as there may be connections, 2,000, wait
for 2 s."""


class Refusals:
    """Calls back those who are to be refused, in their order. It belongs to the event loop.

    Args:
        limit: how many may wait. Those who have gone meanwhile wait, too, so that it may be reached
            by clients that come and go; past it there is no pace.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = AT_ONCE
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, refuse: Callable[[], None]) -> None:
        """Call ``refuse`` once: at once if the pace allows it, else when its turn comes."""
        if self._timer is None:
            self._start()
        if self._left and not self._waiting:
            self._left -= 1
            refuse()
        elif len(self._waiting) < self._limit:
            self._waiting.append(refuse)
        else:
            refuse()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTERVAL_SECONDS, self._begin_interval)

    def _begin_interval(self) -> None:
        self._timer = None
        self._left = AT_ONCE
        if self._waiting:
            self._start()
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
