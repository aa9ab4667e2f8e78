"""Numbers at any index: short ones are computed at once, long ones one by one in a process.

Requests for long numbers wait in a queue, and the process has idle priority, so it hardly slows
steps down. Requests for the same number share it, and the last numbers are cached. The memory
that a number takes while it is computed counts as bytes in flight.

Clients share the queue fairly: the next number belongs to the client for which the fewest digits
have been computed, and among its numbers a short one passes a long one. If the queue is full, the
client with the most requests in it loses its longest number.
"""

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, TypeAlias

import gmpy2

from fibcore.admission import Admission, OverloadedError
from fibcore.numbers.worker_process import WorkerProcess, most_digits

logger = logging.getLogger("fibcore")

SHORT: Final = 19_000
"""Up to this index a number is computed at once, in some 40 microseconds; it has fewer digits than
are counted as bytes in flight."""

MAX_QUEUED: Final = 64
"""Numbers that may wait to be computed; past it a request is shed."""

MAX_WAITING: Final = 256
"""Default for the requests that may wait for these; past it one is shed."""

PASS_SECONDS: Final = 5e-6
"""A client's later request overtakes its longer number only if it arrives within this time per
digit of difference: 10 s for two million digits."""

MAX_KEPT: Final = 8 * 2**20
"""Bytes of cached numbers: four at index ten million."""

WORKING_MEMORY: Final = 6
"""Peak bytes per digit while computing: 3.64 in the worker, 2 in the server."""

WAIT_SECONDS: Final = 50.0
"""How long a request may wait for its number; proxies give up after a minute."""

IDLE_SECONDS: Final = 10.0
"""How long an idle process is kept."""

Found: TypeAlias = bytes | OverloadedError
"""The digits, or why there are none."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits for a number."""

    client: str
    found: asyncio.Future[Found]
    since: float
    """By the event loop's clock."""


class NumberQueue:
    """Finds exact numbers. Use it only on the event loop.

    Args:
        admission: counts what is computed, and the requests that are shed.
        max_waiting: how many requests may wait.
    """

    def __init__(self, admission: Admission, max_waiting: int = MAX_WAITING) -> None:
        self._admission = admission
        self._max_waiting = max_waiting
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.kept_bytes = 0
        """The bytes of cached numbers."""
        self._waiting: dict[int, list[_Waiter]] = {}
        """The requests for each number."""
        self._clients: Counter[str] = Counter()
        """How many requests of each client wait."""
        self._had: dict[str, int] = {}
        """Digits charged to each waiting client."""
        self._least_had = 0
        """The charge that a new client starts with."""
        self._at: int | None = None
        """The index whose number is being computed."""
        self._worker = WorkerProcess()
        self._working: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._stop_seconds = math.inf
        """How long a request may wait that comes during a stop."""
        self._waits: set[asyncio.Task[None]] = set()
        """One task for each waiting request, and one for a stop."""

    @property
    def queued(self) -> int:
        """How many numbers wait to be computed, including the one being computed."""
        return len(self._waiting)

    def find(self, index: int, deliver: Callable[[Found], None], client: str = "") -> None:
        """Call ``deliver`` once, on the loop, with the digits of F(``index``).

        This happens at once for a short or cached number, and within ``WAIT_SECONDS`` for others.

        Args:
            index: from 0.
            deliver: gets the error instead if there are no digits.
            client: its address. Each client has its share of the queue and of the process.

        Raises:
            OverloadedError: too many requests wait, or this number would take too many bytes.
        """
        if index <= SHORT:
            deliver(gmpy2.fib(index).digits().encode("ascii"))
            return
        if (kept := self._kept.get(index)) is not None:
            self._kept.move_to_end(index)
            deliver(kept)
            return
        if index not in self._waiting:
            self._admission.admit_work(WORKING_MEMORY * most_digits(index))
        loop = asyncio.get_running_loop()
        waiter = _Waiter(client, loop.create_future(), loop.time())
        self._clients[client] += 1
        self._had.setdefault(client, self._least_had)
        self._waiting.setdefault(index, []).append(waiter)
        self._shed_past_the_bounds(waiter)
        if self._working is None:
            self._working = loop.create_task(self._work())
        self._asked.set()
        self._start(loop, self._wait(index, waiter, deliver))

    def _start(self, loop: asyncio.AbstractEventLoop, wait: Coroutine[None, None, None]) -> None:
        task = loop.create_task(wait)
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)

    async def _wait(self, index: int, waiter: _Waiter, deliver: Callable[[Found], None]) -> None:
        patience = min(WAIT_SECONDS, self._stop_seconds)
        await asyncio.wait([waiter.found], timeout=patience)
        if not waiter.found.done():
            self._shed(index, waiter, f"it took longer than {patience:g} s")
        try:
            deliver(waiter.found.result())
        except Exception:
            logger.exception("a number can't be delivered")

    def _shed_past_the_bounds(self, newcomer: _Waiter) -> None:
        """While there are too many requests, shed the least important one.

        Raises:
            OverloadedError: that is ``newcomer``.
        """
        while len(self._waiting) > MAX_QUEUED or self._clients.total() > self._max_waiting:
            index, waiter = self._least_important()
            reason = f"{self._clients.total() - 1} requests wait for numbers already"
            error = self._shed(index, waiter, reason)
            if waiter is newcomer:
                raise error

    def _shed(self, index: int, waiter: _Waiter, reason: str) -> OverloadedError:
        error = self._admission.overloaded("numbers", reason)
        self._remove(index, waiter, error)
        return error

    def _least_important(self) -> tuple[int, _Waiter]:
        """Of the client that waits for the most, the last request for its longest number.

        The number that is being computed comes last, so that work is not lost.
        """
        most = max(self._clients.values())
        return next(
            (index, waiter)
            for index in sorted(self._waiting, key=lambda each: (each == self._at, -each))
            for waiter in reversed(self._waiting[index])
            if self._clients[waiter.client] == most
        )

    def _remove(self, index: int, waiter: _Waiter, found: Found) -> None:
        waiter.found.set_result(found)
        waiters = self._waiting[index]
        waiters.remove(waiter)
        if not waiters and index != self._at:  # One being computed is kept for the next request.
            del self._waiting[index]
        self._clients[waiter.client] -= 1
        if not self._clients[waiter.client]:
            del self._clients[waiter.client]
            del self._had[waiter.client]

    def _next(self) -> int:
        """The index to compute next; its digits are charged to the client that waits for it."""
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

    def stop(self, seconds: float) -> None:
        """Shed the requests that still wait after ``seconds``: the server is stopping.

        A later request waits as long.
        """
        self._stop_seconds = seconds
        if self._working is not None:
            loop = self._working.get_loop()
            self._start(loop, self._give_up(loop.time() + seconds))

    async def _give_up(self, end: float) -> None:
        await asyncio.sleep(end - asyncio.get_running_loop().time())
        reason = "the server is stopping"
        for index, waiters in list(self._waiting.items()):
            for waiter in list(waiters):
                self._shed(index, waiter, reason)

    async def close(self) -> None:
        """End the process and its computation. Waiting requests get no answer; see ``stop``."""
        tasks = {*self._waits, *filter(None, [self._working])}
        for task in tasks:
            task.cancel()
        if tasks:
            # One may be starting a process, which it then ends itself.
            await asyncio.wait(tasks)
        self._worker.end()
        await self._worker.ended()

    async def _work(self) -> None:
        """Compute the requested numbers one by one; end the process when it has been idle."""
        while True:
            while self._waiting:
                self._at = index = self._next()
                found = await self._computed(index)
                self._at = None
                for waiter in list(self._waiting[index]):
                    self._remove(index, waiter, found)
                self._waiting.pop(index, None)
            self._asked.clear()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                self._worker.end()
                await self._asked.wait()

    async def _computed(self, index: int) -> Found:
        """The number at ``index``, or why it is not computed."""
        size = WORKING_MEMORY * most_digits(index)
        try:
            self._admission.admit_work(size)
        except OverloadedError as error:
            return error
        self._admission.in_flight.used += size
        try:
            digits = await self._worker.compute(index)
        except Exception as error:
            # Whatever it is, such as a MemoryError: the next number must be computed.
            logger.warning(
                "The number at index %d is not computed (%r): requests for it are answered 503, "
                "and the next number gets a new process. Nothing has stepped.",
                index,
                error,
            )
            self._worker.end()
            reason = "the process that computes numbers failed, perhaps for lack of memory"
            return self._admission.overloaded("numbers", reason)
        finally:
            self._admission.in_flight.used -= size
        self._keep(index, digits)
        return digits

    def _keep(self, index: int, digits: bytes) -> None:
        if len(digits) > MAX_KEPT:
            return
        self._kept[index] = digits
        self.kept_bytes += len(digits)
        while self.kept_bytes > MAX_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self.kept_bytes -= len(oldest)
