"""The simulated world: time, ordered events, and threads, of which one runs at a time.

A thread is a greenlet. A call that would block parks it; an event at a simulated time resumes it.
No time passes between two events. The seed determines the order of simultaneous events.
"""

import random
from asyncio import events
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import greenlet

if TYPE_CHECKING:
    from tests.simulation.process import Process

MAX_EVENTS: Final = 200_000
"""Limit per run: one that needs more is in a loop without progress."""


class Violation(AssertionError):  # noqa: N818 - like ``WrongAnswer``
    """A run has broken a promise; the message says which."""


class Thread(greenlet.greenlet):  # type: ignore[misc]
    """A thread of a process."""

    process: "Process"
    wait_number = 0
    """Number of the current wait: a late wake-up for an earlier one is ignored."""


class World:
    """Everything in a run. ``close`` it: otherwise the garbage collector ends its greenlets later.

    Args:
        seed: the only source of randomness.
        tracing: whether to write ``trace``.
    """

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        """Seconds since the start."""
        self.tracing = tracing
        self.trace: list[str] = []
        self.is_over = False
        """Whether the run may end now."""
        self.closing = False
        self.events = 0
        """Number of events so far."""
        self.violation: BaseException | None = None
        """The first violation; it ends the run."""
        self._heap: list[tuple[float, float, int, Process | None, Callable[..., object], Any]] = []
        self._number = 0
        self._hub = greenlet.getcurrent()
        self._threads: list[Thread] = []

    def log(self, who: str, what: str) -> None:
        """Write a line to the trace; check ``tracing`` before expensive formatting."""
        if self.tracing:
            self.trace.append(f"{self.now:12.6f}  {who:<12} {what}")

    def after(
        self,
        seconds: float,
        process: "Process | None",
        action: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Schedule a call, unless ``process`` is dead by then; deferred while it is stopped."""
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
        """Process events up to the time ``until``.

        Raises:
            Violation: a promise was broken, or the run makes no progress.
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
                raise Violation(f"the run makes no progress: {MAX_EVENTS} events")
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
        """Block the calling thread; return whether ``wake`` ended the wait, and not the timeout."""
        thread = greenlet.getcurrent()
        if self.closing:
            raise greenlet.GreenletExit
        assert isinstance(thread, Thread), "only a simulated thread may block"
        thread.wait_number += 1
        if seconds is not None:
            self.after(seconds, thread.process, self._resume, thread, thread.wait_number, False)
        loop = events._get_running_loop()
        if loop is None:
            return bool(self._hub.switch())
        # Meanwhile other threads run loops of their own.
        events._set_running_loop(None)
        try:
            return bool(self._hub.switch())
        finally:
            events._set_running_loop(loop)

    def wake(self, thread: Thread, wait_number: int, within: float = 2e-4) -> None:
        """Resume a thread within so many seconds if it is still in this wait."""
        self.after(
            self.random.random() * within, thread.process, self._resume, thread, wait_number, True
        )

    def block_forever(self) -> None:
        """Block the calling thread until the world is closed."""
        while not self.closing:
            self._hub.switch()
        raise greenlet.GreenletExit

    def _resume(self, thread: Thread, wait_number: int, woken: bool) -> None:
        if thread.wait_number == wait_number and not thread.dead:
            thread.wait_number += 1
            thread.switch(woken) if wait_number else thread.switch()

    def close(self) -> None:
        """End all threads; whatever they do meanwhile has no effect."""
        self.closing = True
        self._heap.clear()
        for thread in self._threads:
            thread.process.alive = False
            while thread and not thread.dead:
                thread.throw()
        for thread in self._threads:
            thread.process.loop.close()
        self._threads.clear()
