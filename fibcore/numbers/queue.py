"""The number at any index: the short ones at once, the long ones one after the other in a process.

Whoever asks for a long number waits for it in a queue, and the process runs when nothing else wants
to, so that the steps hardly notice. Those who wait for the same number share it, and the last ones
are kept. What a number takes while it is worked out counts as bytes in flight.

The queue is shared fairly between clients: the next number is one of the client that has had the
least worked out, and of its numbers a short one passes a long one. Where the queue is full, the
client that waits for the most loses its longest number.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import gmpy2

from fibcore.admission import Admission, OverloadedError
from fibcore.numbers.worker_process import CalculatorProcess, most_digits

logger = logging.getLogger("fibcore")

SHORT: Final = 19_000
"""Up to this index a number is worked out at once, in some 40 microseconds; it has fewer digits
than are counted as bytes in flight."""

MAX_QUEUED: Final = 64
"""Numbers that may wait to be worked out; past it somebody is shed."""

MAX_WAITING: Final = 256
"""Requests that may wait for these, unless ``Lookup`` is made with fewer; past it one is shed."""

PASS_SECONDS: Final = 5e-6
"""For each digit of a number, how long those of the same client that are shorter and asked for
later pass it: 10 s for two million digits."""

MAX_KEPT: Final = 8 * 2**20
"""Bytes of the numbers that were asked for last: four of ten million."""

WORKING_MEMORY: Final = 6
"""Bytes that are in use at most for each digit, while it is worked out: 3.64 there, and 2 here."""

WAIT_SECONDS: Final = 50.0
"""For how long somebody waits for a number at most; proxies give up after a minute."""

IDLE_SECONDS: Final = 10.0
"""For how long the process is kept when there is nothing to do."""

Deliver: TypeAlias = Callable[[bytes | OverloadedError], None]
"""Takes the digits, or why there are none."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits for a number."""

    client: str
    deliver: Deliver
    since: float
    """By the event loop's clock."""


class Lookup:
    """Finds numbers, exact ones. It belongs to the event loop.

    Args:
        admission: counts what is worked out, and those who are shed.
        max_waiting: how many requests may wait.
    """

    def __init__(self, admission: Admission, max_waiting: int = MAX_WAITING) -> None:
        self._admission = admission
        self._max_waiting = max_waiting
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._waiting: dict[int, list[_Waiter]] = {}
        """Who waits for each number."""
        self._clients: Counter[str] = Counter()
        """How many requests of each client wait."""
        self._had: dict[str, int] = {}
        """Digits that have been worked out for each client that waits, of those that count."""
        self._least_had = 0
        """What a client that comes counts as having had."""
        self._patience: dict[int, asyncio.TimerHandle] = {}
        """When those who wait for a number are told that they wait in vain."""
        self._at: int | None = None
        """What the process is at."""
        self._working: asyncio.Task[None] | None = None
        self._calculator = CalculatorProcess()
        self._idle: asyncio.TimerHandle | None = None
        self._stop: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """How many numbers wait to be worked out, with the one that is being."""
        return len(self._waiting)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the numbers that are kept."""
        return self._kept_bytes

    def find(self, index: int, deliver: Deliver, client: str = "") -> None:
        """Have ``deliver`` called once, on the loop, with the digits of F(``index``).

        It is at once for a number that is short or kept, and ``WAIT_SECONDS`` later at the most.

        Args:
            index: from 0.
            deliver: is called with the reason if there are no digits.
            client: who asks. Each has its share of the queue and of the process.

        Raises:
            OverloadedError: too many wait, or this number would be too many bytes.
        """
        if index <= SHORT:
            deliver(gmpy2.fib(index).digits().encode("ascii"))
            return
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            deliver(kept)
            return
        if index not in self._waiting:
            self._admission.admit_work(WORKING_MEMORY * most_digits(index))
        loop = asyncio.get_running_loop()
        waiter = _Waiter(client, deliver, loop.time())
        self._clients[client] += 1
        self._had.setdefault(client, self._least_had)
        self._waiting.setdefault(index, []).append(waiter)
        if index not in self._patience:
            why = f"the number has not been worked out for {WAIT_SECONDS:g} s"
            self._patience[index] = loop.call_later(WAIT_SECONDS, self._lose_patience, index, why)
        if self._working is None:
            self._working = loop.create_task(self._work())
        self._shed_past_the_bounds(waiter)

    def _shed_past_the_bounds(self, newcomer: _Waiter) -> None:
        """Shed the one that can be dispensed with best, as long as there are too many.

        Raises:
            OverloadedError: that is the newcomer.
        """
        shed: list[_Waiter] = []
        while len(self._waiting) > MAX_QUEUED or self._clients.total() > self._max_waiting:
            index, waiter = self._most_dispensable()
            self._remove(index, waiter)
            shed.append(waiter)
            if waiter is newcomer:
                break
        for waiter in shed:
            waiting = self._clients.total()
            why = f"{waiting} requests wait for numbers that are to be worked out already"
            error = self._admission.overloaded("numbers", why)
            if waiter is newcomer:
                raise error
            _deliver(waiter, error)

    def _most_dispensable(self) -> tuple[int, _Waiter]:
        """Of the client that waits for the most, who waits for the longest number, the last one.

        The number that is being worked out comes last, so that work is not lost.
        """
        most = max(self._clients.values())
        by_size = sorted(self._waiting, reverse=True)
        if self._at in self._waiting:
            by_size.remove(self._at)
            by_size.append(self._at)
        return next(
            (index, waiter)
            for index in by_size
            for waiter in reversed(self._waiting[index])
            if self._clients[waiter.client] == most
        )

    def _remove(self, index: int, waiter: _Waiter) -> None:
        waiters = self._waiting[index]
        waiters.remove(waiter)
        self._discount(waiter)
        if not waiters and index != self._at:
            del self._waiting[index]
            if (timer := self._patience.pop(index, None)) is not None:
                timer.cancel()

    def _discount(self, waiter: _Waiter) -> None:
        self._clients[waiter.client] -= 1
        if not self._clients[waiter.client]:
            del self._clients[waiter.client]
            del self._had[waiter.client]

    def _next(self) -> int:
        """The number to be worked out next, which counts as had by the client that it is for."""
        index, waiter = min(
            ((index, waiter) for index, waiters in self._waiting.items() for waiter in waiters),
            key=lambda each: (
                self._had[each[1].client],
                each[1].since + PASS_SECONDS * most_digits(each[0]),
            ),
        )
        self._least_had = self._had[waiter.client]
        self._had[waiter.client] += most_digits(index)
        return index

    def _lose_patience(self, index: int, why: str) -> None:
        """Tell those who wait for a number that they wait in vain; leave it if it is not begun."""
        self._deliver(index, self._admission.overloaded("numbers", why))
        if index == self._at:
            # Whoever asks again is to have it.
            self._waiting.setdefault(index, [])

    def stop(self, seconds: float) -> None:
        """Have nobody wait for longer than that, as the server has been told to stop."""
        if self._working is not None:
            self._stop = self._working.get_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        for index in list(self._waiting):
            why = "it was told to stop, and the number is not worked out in the time for that"
            self._lose_patience(index, why)

    async def close(self) -> None:
        """End the process, and whatever it is at. Nobody who waits is told: see ``stop``."""
        if self._working is not None:
            self._working.cancel()
            # It may be starting a process, which it then ends itself.
            await asyncio.wait([self._working])
        for timer in (self._idle, self._stop, *self._patience.values()):
            if timer is not None:
                timer.cancel()
        self._calculator.end()
        await self._calculator.ended()

    async def _work(self) -> None:
        """Have all that is waited for worked out, as far as there is memory for it."""
        if self._idle is not None:
            self._idle.cancel()
        while self._waiting:
            index = self._at = self._next()
            size = WORKING_MEMORY * most_digits(index)
            found: bytes | OverloadedError
            try:
                self._admission.admit_work(size)
            except OverloadedError as error:
                found = error
            else:
                self._admission.in_flight.used += size
                try:
                    found = await self._calculator.work_out(index)
                    self._keep(index, found)
                except (OSError, EOFError) as error:
                    logger.warning(
                        "The number at index %d is not worked out (%r): who asked for it is "
                        "answered 503, and the next one has another process. Nothing has stepped.",
                        index,
                        error,
                    )
                    self._calculator.end()
                    why = "there is no memory, or no process, to work out the number"
                    found = self._admission.overloaded("numbers", why)
                finally:
                    self._admission.in_flight.used -= size
            self._at = None
            self._deliver(index, found)
        self._working = None
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_SECONDS, self._calculator.end)

    def _deliver(self, index: int, found: bytes | OverloadedError) -> None:
        if (timer := self._patience.pop(index, None)) is not None:
            timer.cancel()
        waiters = self._waiting.pop(index)
        for waiter in waiters:
            self._discount(waiter)
        for waiter in waiters:
            _deliver(waiter, found)

    def _keep(self, index: int, digits: bytes) -> None:
        if len(digits) > MAX_KEPT:
            return
        self._kept[index] = digits
        self._kept_bytes += len(digits)
        while self._kept_bytes > MAX_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)


def _deliver(waiter: _Waiter, found: bytes | OverloadedError) -> None:
    try:
        waiter.deliver(found)
    except Exception:
        logger.exception("a number can't be delivered")
