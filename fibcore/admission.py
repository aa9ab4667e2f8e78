"""Admission: the bounds on waiting steps and on bytes of answers in flight, and the pace of 503.

Past a bound a request is shed, before anything steps. The bound on connections belongs to the
protocol: ``web/http/hub.py``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

from fibcore.events import event

logger = logging.getLogger("fibcore.shed")

UNCOUNTED_DIGITS: Final = 4096
"""Shorter numbers are not counted: the bound on connections bounds them as well."""


class Budget:
    """Counts the bytes of digits that answers hold, each number once, however many answers share
    it.

    A part is lent to the kernel, for what it has not sent yet (``web/http/kernel.py``). Not
    thread-safe: for the event loop alone.

    Args:
        limit: bytes.
    """

    __slots__ = ("_holders", "lent", "limit", "most", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes that answers hold now."""
        self.most = 0
        """The largest ``used`` since the last reset."""
        self.lent = 0
        """Bytes lent now."""
        # The value holds the digits, so that no other object gets their id while they are counted.
        self._holders: dict[int, tuple[bytes, int]] = {}

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` more bytes stay within the limit."""
        return size < UNCOUNTED_DIGITS or self.used + self.lent + size <= self.limit

    @property
    def lendable(self) -> int:
        """Bytes that may be lent: up to half of the limit, less as answers need more."""
        return max(0, min(self.limit // 2, self.limit - 2 * self.used))

    def lend(self, size: int) -> bool:
        """Lend ``size`` bytes if that many may be lent; tell whether they were."""
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
        """Count an answer that holds ``digits``. To shed instead, call ``fits`` first."""
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
"""503 answers per interval: 1,000 per second, which takes a few percent of a core. With the default
bound of 2,000 connections the last waits 2 s."""


class ShedPace:
    """Calls back the requests to be shed, in order, at a bounded pace. For the event loop alone.

    Shedding takes time in which the server could step, and a client that is shed at once can ask
    again at once, whatever ``Retry-After`` says: a crowd of such clients would keep the server from
    everything else. Beyond that rate a request waits for its 503, which costs nothing.

    Args:
        limit: how many may wait. Clients that have left meanwhile count, so that clients that come
            and go can reach it; past the limit requests are shed at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Callable[[], None]] = deque()
        self._left = SHED_AT_ONCE
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, shed: Callable[[], None]) -> None:
        """Call ``shed`` once: now if the pace allows it, otherwise in its turn."""
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
    """A bound is reached; the message names it. The request has not stepped, and will not."""

    is_lasting = False
    """Whether retrying never helps."""


class NeverFitsError(OverloadedError):
    """The request alone exceeds the bound."""

    is_lasting = True


Bound: TypeAlias = Literal["waiting", "in_flight", "connections", "pages", "numbers"]
"""The bound that a request was shed by: waiting steps, bytes of answers in flight, connections,
requests for Starlette under way, or numbers waiting to be computed."""


SETTING_OF: Final[dict[Bound, str]] = {
    "waiting": " (FIB_MAX_WAITING_STEPS)",
    "in_flight": " (FIB_MAX_ANSWER_BYTES)",
    "connections": " (FIB_MAX_CONNECTIONS)",
}


class Admission:
    """The bounds on steps and reads. For the event loop alone.

    Args:
        max_waiting: steps that may wait for their commit.
        max_in_flight: bytes of answers that have been made and not yet sent.
        max_shed: requests that may wait for their 503.
    """

    def __init__(self, *, max_waiting: int, max_in_flight: int, max_shed: int = 0) -> None:
        self.in_flight = Budget(max_in_flight)
        self.pace = ShedPace(max_shed)
        self.max_waiting = max_waiting
        self.shed: dict[Bound, int] = dict.fromkeys(get_args(Bound), 0)
        """Requests shed, by bound."""

    def overloaded(
        self, bound: Bound, reason: str, kind: type[OverloadedError] = OverloadedError
    ) -> OverloadedError:
        """Count and log a request that ``bound`` sheds; return the error to raise."""
        self.shed[bound] += 1
        logger.getChild(bound).warning(
            "A request is answered 503 and has not stepped: %s%s.",
            # Where it never fits, the reason names the setting.
            *(reason, "" if kind.is_lasting else SETTING_OF.get(bound, "")),
            extra=event("shed", by=bound),
        )
        return kind(reason)

    def _no_room(self, size: int) -> OverloadedError:
        """There is no room for ``size`` bytes, now or ever."""
        limit = self.in_flight.limit
        if size > limit:
            reason = f"{size} bytes are needed, and FIB_MAX_ANSWER_BYTES is {limit}"
            return self.overloaded("in_flight", reason, NeverFitsError)
        reason = "answers in flight use all the memory reserved for them"
        return self.overloaded("in_flight", reason)

    def admit_work(self, size: int) -> None:
        """Admit a computation that uses ``size`` bytes while it runs.

        Raises:
            OverloadedError: there is not enough memory for it, now or ever.
        """
        if not self.in_flight.fits(size):
            raise self._no_room(size)

    def admit_step(self, waiting: int, size: int) -> None:
        """Admit a step while ``waiting`` others wait, each with an answer of ``size`` bytes.

        Raises:
            OverloadedError: too many steps wait, or their answers would have too many bytes.
        """
        if waiting >= self.max_waiting:
            raise self.overloaded("waiting", f"{waiting} steps already wait for the disk")
        if size >= UNCOUNTED_DIGITS and not self.in_flight.fits(size * (waiting + 1)):
            raise self._no_room(size)

    def admit_answer(self, digits: bytes) -> None:
        """Admit one more answer with ``digits``.

        Raises:
            OverloadedError: the answers in flight would have too many bytes.
        """
        if len(digits) >= UNCOUNTED_DIGITS and not self.in_flight.fits_shared(digits):
            raise self._no_room(len(digits))
