"""The number at any index: the short ones at once, the long ones one after the other in a process.

Whoever asks for a long number waits for it in a queue that has a bound, and the process runs when
nothing else wants to, so that the steps hardly notice. Those who wait for the same number share it,
and the last ones are kept. What a number takes while it is worked out counts as bytes in flight.
"""

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

import gmpy2

from fibcore.admission import Admission, OverloadedError

__all__ = ["MAX_KEPT", "MAX_QUEUED", "SHORT", "WORKING_MEMORY", "Lookup", "most_digits"]

logger = logging.getLogger("fibcore")

SHORT: Final = 19_000
"""Up to this index a number is worked out at once, in some 40 microseconds; it has fewer digits
than are counted as bytes in flight."""

MAX_QUEUED: Final = 64
"""Numbers that may wait to be worked out; past it those who ask for another are shed."""

MAX_KEPT: Final = 8 * 2**20
"""Bytes of the numbers that were asked for last: four of ten million."""

WORKING_MEMORY: Final = 6
"""Bytes that are in use at most for each digit, while it is worked out: 3.64 there, and 2 here."""

WAIT_SECONDS: Final = 50.0
"""For how long somebody waits for a number at most; proxies give up after a minute."""

WORK_SECONDS: Final = 600.0
"""After which the process is taken for hung: the dearest number takes it a second, and many where
all else is busy."""

IDLE_SECONDS: Final = 10.0
"""For how long the process is kept when there is nothing to do."""

DIGITS_AN_INDEX: Final = 0.2089876402499787
"""The decimal logarithm of the golden ratio, rounded up."""

Deliver: TypeAlias = Callable[[bytes | OverloadedError], None]
"""Takes the digits, or why there are none."""


def most_digits(index: int) -> int:
    """How many digits F(``index``) has, or one more."""
    return int(index * DIGITS_AN_INDEX) + 1


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
        self._patience: dict[int, asyncio.TimerHandle] = {}
        """When those who wait for a number are told that they wait in vain."""
        self._at: int | None = None
        """What the process is at."""
        self._working: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._ended: list[Process] = []
        """Those that were told to end, and may not have yet."""
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

    def find(self, index: int, deliver: Deliver) -> None:
        """Have ``deliver`` called once, on the loop, with the digits of F(``index``).

        It is at once for a number that is short or kept, and ``WAIT_SECONDS`` later at the most.

        Raises:
            OverloadedError: too many numbers wait, or this one would be too many bytes.
        """
        if index <= SHORT:
            deliver(gmpy2.fib(index).digits().encode("ascii"))
            return
        kept = self._kept.get(index)
        if kept is not None:
            self._kept.move_to_end(index)
            deliver(kept)
            return
        waiting = self._waiting.get(index)
        if waiting is not None:
            waiting.append(deliver)
            self._be_patient(index)
            return
        if len(self._waiting) >= MAX_QUEUED:
            raise self._admission.overloaded(
                "numbers", f"{MAX_QUEUED} numbers wait to be worked out already"
            )
        self._admission.admit_work(WORKING_MEMORY * most_digits(index))
        self._waiting[index] = [deliver]
        self._be_patient(index)
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    def _be_patient(self, index: int) -> None:
        if index not in self._patience:
            loop = asyncio.get_running_loop()
            why = f"the number has not been worked out for {WAIT_SECONDS:g} s"
            self._patience[index] = loop.call_later(WAIT_SECONDS, self._lose_patience, index, why)

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
        self._end_process()
        for process in self._ended:
            await process.wait()

    async def _work(self) -> None:
        """Have all that is waited for worked out, as far as there is memory for it."""
        if self._idle is not None:
            self._idle.cancel()
        while self._waiting:
            index = self._at = next(iter(self._waiting))
            size = WORKING_MEMORY * most_digits(index)
            found: bytes | OverloadedError
            try:
                self._admission.admit_work(size)
            except OverloadedError as error:
                found = error
            else:
                self._admission.in_flight.used += size
                try:
                    found = await self._work_out(index)
                    self._keep(index, found)
                except (OSError, EOFError) as error:
                    logger.warning(
                        "The number at index %d is not worked out (%r): who asked for it is "
                        "answered 503, and the next one has another process. Nothing has stepped.",
                        index,
                        error,
                    )
                    self._end_process()
                    why = "there is no memory, or no process, to work out the number"
                    found = self._admission.overloaded("numbers", why)
                finally:
                    self._admission.in_flight.used -= size
            self._at = None
            self._deliver(index, found)
        self._working = None
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_SECONDS, self._end_process)

    async def _work_out(self, index: int) -> bytes:
        """Have the process work out F(``index``), and start it if there is none.

        Raises:
            OSError: it can't be started or asked, or hangs.
            EOFError: it has ended meanwhile.
        """
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fibcore.calculator"),
                stdin=PIPE,
                stdout=PIPE,
                limit=2**20,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"%d\n" % index)
        async with asyncio.timeout(WORK_SECONDS):
            size = await stdout.readline()
            if not size:
                raise EOFError("the process has ended")
            return await stdout.readexactly(int(size))

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._ended = [each for each in self._ended if each.returncode is None]
            self._ended.append(process)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _deliver(self, index: int, found: bytes | OverloadedError) -> None:
        if (timer := self._patience.pop(index, None)) is not None:
            timer.cancel()
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
