"""The number at any index: the short ones at once, the long ones one after the other in a thread.

Whoever asks for a long number waits for it in a queue that has a bound, and the thread is so nice
that the steps hardly notice. Those who wait for the same number share it, and the last ones are
kept. What a number takes while it is worked out counts as bytes in flight.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeAlias

from fibcore.admission import Admission, OverloadedError
from fibcore.gmp import WORKING_MEMORY, fibonacci_digits, most_digits

__all__ = ["MAX_KEPT", "MAX_QUEUED", "SHORT", "Lookup"]

logger = logging.getLogger("fibcore")

SHORT: Final = 19_000
"""Up to this index a number is worked out at once, in some 40 microseconds; it has fewer digits
than are counted as bytes in flight."""

MAX_QUEUED: Final = 64
"""Numbers that may wait to be worked out; past it those who ask for another are shed."""

MAX_KEPT: Final = 8 * 2**20
"""Bytes of the numbers that were asked for last: four of ten million."""

NICENESS: Final = 19

Deliver: TypeAlias = Callable[[bytes | OverloadedError], None]
"""Takes the digits, or why there are none."""


class Lookup:
    """Finds numbers, exact ones. It belongs to the event loop.

    Args:
        admission: counts what is worked out, and those who are shed.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._waiting: dict[int, list[Deliver]] = {}
        """Who waits for each number, in the order in which they are worked out."""
        self._under_way: int | None = None
        self._reserved = 0
        self._indexes: SimpleQueue[int | None] = SimpleQueue()
        """What the thread is to work out; None is its end."""
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def queued(self) -> int:
        """How many numbers wait to be worked out, with the one that is being."""
        return len(self._waiting)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the numbers that are kept."""
        return self._kept_bytes

    def find(self, index: int, deliver: Deliver) -> None:
        """Have ``deliver`` called once, on the loop, with the digits of F(``index``).

        It is at once for a number that is short or kept.

        Raises:
            OverloadedError: too many numbers wait, or this one would be too many bytes.
        """
        if index <= SHORT:
            deliver(fibonacci_digits(index))
            return
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            deliver(kept)
            return
        waiting = self._waiting.get(index)
        if waiting is not None:
            waiting.append(deliver)
            return
        if len(self._waiting) >= MAX_QUEUED:
            raise self._admission.overloaded(
                "numbers", f"{MAX_QUEUED} numbers wait to be worked out already"
            )
        self._admission.admit_work(WORKING_MEMORY * most_digits(index))
        self._waiting[index] = [deliver]
        self._begin()

    def close(self) -> None:
        """End the thread, without waiting for what it is at. Nobody who waits is told."""
        self._indexes.put(None)

    def _begin(self) -> None:
        """Have the next number worked out, of those for which there is memory."""
        while self._waiting and self._under_way is None:
            index = next(iter(self._waiting))
            size = WORKING_MEMORY * most_digits(index)
            try:
                self._admission.admit_work(size)
            except OverloadedError as error:
                self._deliver(index, error)
                continue
            self._under_way, self._reserved = index, size
            self._admission.in_flight.used += size
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                threading.Thread(target=self._work, name="lookup", daemon=True).start()
            self._indexes.put(index)

    def _finish(self, index: int, found: bytes | None) -> None:
        self._admission.in_flight.used -= self._reserved
        self._under_way = None
        if found is None:
            why = "there is no memory left to work out the number"
            self._deliver(index, self._admission.overloaded("numbers", why))
        else:
            self._keep(index, found)
            self._deliver(index, found)
        self._begin()

    def _deliver(self, index: int, found: bytes | OverloadedError) -> None:
        for deliver in self._waiting.pop(index):
            try:
                deliver(found)
            except Exception:
                logger.exception("the number at index %d can't be delivered", index)

    def _keep(self, index: int, digits: bytes) -> None:
        if len(digits) > MAX_KEPT:
            return
        self._kept[index] = digits
        self._kept_bytes += len(digits)
        while self._kept_bytes > MAX_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)

    def _work(self) -> None:
        """Work out what the loop asks for, one after the other."""
        # Not everywhere allowed; it is the GIL that is let go of that matters most.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        assert self._loop is not None
        while (index := self._indexes.get()) is not None:
            try:
                found: bytes | None = fibonacci_digits(index)
            except MemoryError:
                found = None
            try:
                self._loop.call_soon_threadsafe(self._finish, index, found)
            except RuntimeError:  # The loop is closed, and with it all who wait.
                return
