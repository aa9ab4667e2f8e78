"""What may be taken in: the steps that wait, the bytes of answers in flight, and the pace of 503.

Past a bound a request is shed, before anything steps. How many connections there may be is a bound
of the protocol's: ``web/http/hub.py``.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

UNCOUNTED_DIGITS: Final = 4096
"""A number of fewer digits isn't counted: the bound on connections bounds those."""


class Budget:
    """Counts the digits that answers hold, each number once however many answers share it.

    Some of it is lent: to the kernel, which holds what it has not sent yet
    (``web/http/kernel.py``). Not for several threads: it belongs to the event loop.

    Args:
        limit: bytes.
    """

    __slots__ = ("_holders", "lent", "limit", "most", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes held now."""
        self.most = 0
        """The most that was held since somebody set this back."""
        self.lent = 0
        """Bytes that are lent now."""
        # The digits stand in the value so that their id stays theirs while they are counted.
        self._holders: dict[int, tuple[bytes, int]] = {}

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` more bytes stay within the limit."""
        return size < UNCOUNTED_DIGITS or self.used + self.lent + size <= self.limit

    @property
    def lendable(self) -> int:
        """Bytes that may be lent: up to half of the limit, and less as answers need more."""
        return max(0, min(self.limit // 2, self.limit - 2 * self.used))

    def lend(self, size: int) -> bool:
        """Lend ``size`` bytes; tell whether there are as many to be lent."""
        if self.lent + size > self.lendable:
            return False
        self.lent += size
        return True

    def take_back(self, size: int) -> None:
        """Undo ``lend``."""
        self.lent -= size

    def fits_shared(self, digits: bytes) -> bool:
        """Tell whether one more answer with ``digits`` stays within the limit."""
        return id(digits) in self._holders or self.fits(len(digits))

    def hold(self, digits: bytes) -> None:
        """Count an answer that holds ``digits``. A caller that may shed asks ``fits`` first."""
        if len(digits) < UNCOUNTED_DIGITS:
            return
        _, holders = self._holders.get(id(digits), (digits, 0))
        if not holders:
            self.used += len(digits)
            self.most = max(self.most, self.used)
        self._holders[id(digits)] = (digits, holders + 1)

    def release(self, digits: bytes) -> None:
        """Undo one ``hold`` of the same object."""
        if len(digits) < UNCOUNTED_DIGITS:
            return
        _, holders = self._holders[id(digits)]
        if holders > 1:
            self._holders[id(digits)] = (digits, holders - 1)
        else:
            del self._holders[id(digits)]
            self.used -= len(digits)


SHED_INTERVAL_SECONDS: Final = 0.05
SHED_AT_ONCE: Final = 50
"""Sheds in an interval: 1,000 a second, which takes a core a few hundredths of its time. As many as
there may be connections, 2,000, wait for 2 s."""


class ShedPace:
    """Calls back those who are to be shed, in their order. It belongs to the event loop.

    To shed takes some of the time in which the server could have made a step, and a client that is
    shed at once can ask again at once, whatever ``Retry-After`` says: a crowd of such clients would
    have the server do nothing else. So only so many leave in a second; a request past that waits
    for its own, which costs nothing.

    Args:
        limit: how many may wait. Those who have gone meanwhile wait, too, so that it may be reached
            by clients that come and go; past it there is no pace.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = SHED_AT_ONCE
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, shed: Callable[[], None]) -> None:
        """Call ``shed`` once: at once if the pace allows it, else when its turn comes."""
        if self._timer is None:
            self._start()
        if self._left and not self._waiting:
            self._left -= 1
            shed()
        elif len(self._waiting) < self._limit:
            self._waiting.append(shed)
        else:
            shed()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SHED_INTERVAL_SECONDS, self._begin_interval)

    def _begin_interval(self) -> None:
        self._timer = None
        self._left = SHED_AT_ONCE
        if self._waiting:
            self._start()
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()


class OverloadedError(Exception):
    """A bound is reached; the message says which. Nothing has stepped, and nothing will."""


Bound: TypeAlias = Literal["waiting", "in_flight", "connections", "pages", "numbers"]
"""What a request was shed by: the steps that wait, the bytes of answers in flight, the connections,
the requests under way that are not the table's, or the numbers that are to be worked out."""


NO_ROOM: Final = "the answers that are being sent take up all their memory"


class Admission:
    """The bounds on what is taken in, for the stepper and for reads. It belongs to the event loop.

    Args:
        max_waiting: how many steps may wait for their commit.
        max_in_flight: bytes of answers that have been made and not yet sent.
        max_shed: how many requests may wait for their 503.
    """

    def __init__(self, *, max_waiting: int, max_in_flight: int, max_shed: int = 0) -> None:
        self.in_flight = Budget(max_in_flight)
        self.pace = ShedPace(max_shed)
        self.max_waiting = max_waiting
        self.shed: dict[Bound, int] = dict.fromkeys(get_args(Bound), 0)
        """How many requests were shed, by each of the bounds."""

    def overloaded(self, bound: Bound, why: str) -> OverloadedError:
        """Count a request that is shed by ``bound``; return what to raise, with a clause."""
        self.shed[bound] += 1
        return OverloadedError(why)

    def admit_work(self, size: int) -> None:
        """Let something be made that takes ``size`` bytes while it is made.

        Raises:
            OverloadedError: beside the answers in flight, or even alone, these are too many.
        """
        if size > self.in_flight.limit:
            why = f"it would take {size} bytes, and FIB_MAX_ANSWER_BYTES is {self.in_flight.limit}"
            raise self.overloaded("in_flight", why)
        if not self.in_flight.fits(size):
            raise self.overloaded("in_flight", NO_ROOM)

    def admit_step(self, waiting: int, size: int) -> None:
        """Let one more step in beside ``waiting`` ones, whose answers have ``size`` bytes each.

        Raises:
            OverloadedError: too many steps wait, or their answers would be too many bytes.
        """
        if waiting >= self.max_waiting:
            raise self.overloaded("waiting", f"{waiting} steps wait for the disk already")
        if size >= UNCOUNTED_DIGITS and not self.in_flight.fits(size * (waiting + 1)):
            raise self.overloaded("in_flight", NO_ROOM)

    def admit_answer(self, digits: bytes) -> None:
        """Let one more answer with ``digits`` be made.

        Raises:
            OverloadedError: the answers would be too many bytes.
        """
        if len(digits) >= UNCOUNTED_DIGITS and not self.in_flight.fits_shared(digits):
            raise self.overloaded("in_flight", NO_ROOM)
