"""The simulated world: its time, its events in order, and its threads, of which one runs at a time.

A thread is a greenlet. Whatever would block parks it, and an event at a simulated time resumes it.
Between two events no time passes. Events of one moment come in an order that the seed decides.
"""

import random
from asyncio import events
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import greenlet

if TYPE_CHECKING:
    from tests.simulation.process import Process

EPOCH: Final = 1_800_000_000.0
"""What a clock that is right shows at the beginning, in seconds since 1970."""

MAX_EVENTS: Final = 200_000
"""A run that takes more has a loop in it that makes no progress."""


class Violation(AssertionError):  # noqa: N818 - as ``WrongAnswer``: a finding
    """A run has broken a promise; the text says which."""


class Thread(greenlet.greenlet):  # type: ignore[misc]
    """A thread of a process."""

    process: "Process"
    wait_number = 0
    """Counts what it has waited for, so that what is late for one wait ends no other."""


class World:
    """All that a run consists of. ``close`` it, so that no greenlet ends later, at any moment.

    Args:
        seed: decides everything.
        tracing: whether a person is to read what happens.
    """

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        """Seconds since the beginning."""
        self.tracing = tracing
        self.trace: list[str] = []
        self.is_over = False
        """Whether nothing more need happen."""
        self.closing = False
        self.events = 0
        """How many have happened."""
        self.violation: BaseException | None = None
        """The first thing that was found wrong while running; it ends the run."""
        self._heap: list[tuple[float, float, int, Process | None, Callable[..., object], Any]] = []
        self._number = 0
        self._hub = greenlet.getcurrent()
        self._threads: list[Thread] = []

    def log(self, who: str, what: str) -> None:
        """Write a line into the trace; ask ``tracing`` first where ``what`` is dear to make."""
        if self.tracing:
            self.trace.append(f"{self.now:12.6f}  {who:<12} {what}")

    def after(
        self,
        seconds: float,
        process: "Process | None",
        action: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Call ``action`` in so many seconds, if ``process`` lives and as soon as it runs."""
        self._number += 1
        heappush(
            self._heap,
            (
                self.now + seconds,
                self.random.random(),
                self._number,
                process,
                action,
                arguments,
            ),
        )

    def run(self, until: float) -> None:
        """Let happen all that happens up to a time.

        Raises:
            Violation: it never ends, or something was found wrong.
        """
        heap = self._heap
        while heap and heap[0][0] <= until and not self.is_over:
            self.now, _, _, process, action, arguments = heappop(heap)
            if process is not None:
                if not process.alive:
                    continue
                if process.stopped:
                    process.deferred.append((action, arguments))
                    continue
            self.events += 1
            action(*arguments)
            if self.violation is not None:
                raise self.violation
            if self.events > MAX_EVENTS:
                raise Violation("the run does not end: something goes on at once, again and again")
        if not self.is_over:
            self.now = until

    def spawn(self, process: "Process", run: Callable[[], object]) -> Thread:
        """Start a thread of ``process``."""
        thread = Thread(run, self._hub)
        thread.process = process
        self._threads.append(thread)
        self.after(self.random.random() * 1e-4, process, self._resume, thread, 0, True)
        return thread

    def park(self, seconds: float | None = None) -> bool:
        """Have the calling thread wait until it is woken, or for so many seconds; tell which."""
        thread = greenlet.getcurrent()
        if self.closing:
            raise greenlet.GreenletExit
        assert isinstance(thread, Thread), "only a thread of a process waits"
        thread.wait_number += 1
        if seconds is not None:
            self.after(seconds, thread.process, self._resume, thread, thread.wait_number, False)
        loop = events._get_running_loop()
        if loop is None:
            return bool(self._hub.switch())
        # Others run on loops of their own meanwhile.
        events._set_running_loop(None)
        try:
            return bool(self._hub.switch())
        finally:
            events._set_running_loop(loop)

    def wake(self, thread: Thread, wait_number: int, within: float = 2e-4) -> None:
        """End the wait of a thread that had this ``wait_number``, soon: see ``Thread.wait_number``."""
        self.after(
            self.random.random() * within, thread.process, self._resume, thread, wait_number, True
        )

    def block_forever(self) -> None:
        """Have the calling thread run no more."""
        while not self.closing:
            self._hub.switch()
        raise greenlet.GreenletExit

    def _resume(self, thread: Thread, wait_number: int, woken: bool) -> None:
        if thread.wait_number == wait_number and not thread.dead:
            thread.wait_number += 1
            thread.switch(woken) if wait_number else thread.switch()

    def close(self) -> None:
        """End all threads, of which nothing is heard any more."""
        self.closing = True
        self._heap.clear()
        for thread in self._threads:
            thread.process.alive = False
            while thread and not thread.dead:
                thread.throw()
        for thread in self._threads:
            thread.process.loop.close()
        self._threads.clear()
