"""A simulated process with threads, an event loop and clocks; it can be killed and stopped."""

import asyncio
import contextlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

import greenlet

from tests.simulation.world import Thread, Violation, World


class Queue:
    """``queue.SimpleQueue`` for simulated threads, one of which may wait."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._items: deque[Any] = deque()
        self._waiting: tuple[Thread, int] | None = None

    def put(self, item: object) -> None:
        self._items.append(item)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._world.wake(*waiting)

    def get(self, timeout: float | None = None) -> Any:
        """Return the next item. Raises TimeoutError."""
        while not self._items:
            thread = greenlet.getcurrent()
            assert isinstance(thread, Thread)
            # The number of the wait that ``park`` starts.
            self._waiting = thread, thread.wait_number + 1
            if not self._world.park(timeout):
                self._waiting = None
                raise TimeoutError
        return self._items.popleft()


class Process:
    """A process of a machine, until it is killed or exits.

    Args:
        world: provides time and events.
        name: its name in the trace.
        host: its machine's name in the network.
    """

    def __init__(self, world: World, name: str, host: str = "") -> None:
        self.world = world
        self.name = name
        self.host = host or name
        self.alive = True
        self.stopped = False
        """By SIGSTOP."""
        self.status: int | None = None
        """The exit status, if it exited."""
        self.deferred: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        """Events due while it is stopped."""
        self.at_end: list[Callable[[], object]] = []
        """Called at its end, however it ends, in place of the kernel's cleanup."""
        self.loop = Loop(self)  # type: ignore[abstract]

    def __repr__(self) -> str:
        return self.name

    # Faults.

    def kill(self) -> None:
        """Kill it as by SIGKILL."""
        if self.alive:
            self.alive = False
            self.world.log(self.name, "is killed")
            self._end()

    def stop(self) -> None:
        """Stop it as by SIGSTOP."""
        self.stopped = True
        self.world.log(self.name, "is stopped")

    def resume(self) -> None:
        """Continue it as by SIGCONT; deferred events happen at once, in order."""
        if self.alive and self.stopped:
            self.stopped = False
            self.world.log(self.name, "is resumed")
            deferred, self.deferred = self.deferred, []
            for number, (action, arguments) in enumerate(deferred):
                self.world.after(1e-6 * (number + 1), self, action, *arguments)

    def end(self, status: int) -> NoReturn:
        """Exit as by ``os._exit``, from any of its threads."""
        if self.alive:
            self.alive, self.status = False, status
            self.world.log(self.name, f"exits with status {status}")
            self._end()
        self.world.block_forever()
        raise AssertionError

    def _end(self) -> None:
        self.deferred.clear()
        for each in self.at_end:
            each()

    # Called by its threads.

    def after(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        """Schedule a call; see ``World.after``."""
        self.world.after(seconds, self, action, *arguments)

    def monotonic(self) -> float:
        """Return ``time.monotonic()``."""
        return self.world.now

    def sleep(self, seconds: float) -> None:
        """Sleep as ``time.sleep``."""
        self.world.park(seconds)

    def spawn(self, run: Callable[[], object]) -> Thread:
        """Start a thread; an exception that leaves it is a violation."""

        def guarded() -> None:
            try:
                run()
            except greenlet.GreenletExit:
                pass
            except BaseException as error:
                self.report_error(error)

        return self.world.spawn(self, guarded)

    def run(self, main: Coroutine[Any, Any, object]) -> None:
        """Run ``main`` on the event loop, in a new thread."""
        self.loop.track(main)
        self.spawn(partial(self.loop.run, main))

    def report_error(self, error: BaseException) -> None:
        """Report an unhandled exception as a violation."""
        if self.alive and not self.world.closing and self.world.violation is None:
            if not isinstance(error, AssertionError):
                found = Violation(f"unhandled exception in {self.name}: {error!r}")
                found.__cause__ = error
                error = found
            self.world.violation = error


def calling_process() -> Process:
    """Return the simulated process of the caller."""
    thread = greenlet.getcurrent()
    assert isinstance(thread, Thread)
    return thread.process


class Loop(asyncio.AbstractEventLoop):
    """An event loop on simulated time.

    Callbacks run in order. The seed determines when an iteration starts, and what other threads and
    the network add in between.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._world = process.world
        self._ready: deque[asyncio.Handle] = deque()
        self._waiting: tuple[Thread, int] | None = None
        self._coroutines: list[Coroutine[Any, Any, object]] = []
        """The coroutines of its tasks."""

    def time(self) -> float:
        return self.process.monotonic()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._post(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.process.after(max(0.0, when - self.time()), self._due, handle)
        return handle

    def _due(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            self._post(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _post(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        if self._waiting is not None:
            parked, self._waiting = self._waiting, None
            self._world.wake(*parked)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        # The tasks of a killed process never finish.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.track(coro)
        return task

    def track(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Remember a coroutine, to close it at the end."""
        self._coroutines.append(coroutine)

    def close(self) -> None:
        """Close the coroutines of unfinished tasks."""
        for each in self._coroutines:
            with contextlib.suppress(GeneratorExit, greenlet.GreenletExit, Exception):
                for _ in range(9):
                    # A coroutine that awaits something in its cleanup ignores the first attempts.
                    with contextlib.suppress(RuntimeError):
                        each.close()
                        break
        self._coroutines.clear()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        assert executor is None
        future = self.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            try:
                result = func(*args)
            except greenlet.GreenletExit:
                raise
            except BaseException as error:
                self.call_soon_threadsafe(settle, None, error)
            else:
                self.call_soon_threadsafe(settle, result, None)

        self.process.spawn(run)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            error = Violation(f"{self.process.name}: {context['message']}")
        self.process.report_error(error)

    def run(self, main: Coroutine[Any, Any, object]) -> None:
        """Run until ``main`` is done, in the calling thread."""
        world = self._world
        ready = self._ready
        events._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        handle._run()
                if not ready:
                    if task.done():
                        break
                    thread = greenlet.getcurrent()
                    assert isinstance(thread, Thread)
                    self._waiting = thread, thread.wait_number + 1
                    world.park()
                elif world.random.random() < 0.3:
                    world.park(world.random.random() * 1e-4)
            task.result()
        finally:
            events._set_running_loop(None)
