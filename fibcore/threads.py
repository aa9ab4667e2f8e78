"""A worker thread of the event loop, and the name of a thread for the operating system."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, TypeAlias

Task: TypeAlias = Callable[[], Callable[[], object]]
"""Runs in the worker's thread; the function that it returns is then called on the event loop."""


class Worker:
    """One thread that runs one task after the other, and reports each to the event loop.

    Args:
        name: the name of the thread.
        loop: where the results of the tasks are called, in the order of the tasks.
        fail_stop: called with any exception of a task, or of the function that it returned. It must
            not return.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        fail_stop: Callable[[BaseException], NoReturn],
    ) -> None:
        self._loop = loop
        self._fail_stop = fail_stop
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        """None ends the thread."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, task: Task) -> None:
        """Queue ``task``."""
        self._tasks.put(task)

    def close(self) -> None:
        """End the thread, after the tasks in its queue, and wait for that."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        name_thread()
        self._work()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._loop.call_soon_threadsafe(self._report, task())
            except BaseException as error:
                self._fail_stop(error)

    def _report(self, done: Callable[[], object]) -> None:
        try:
            done()
        except BaseException as error:
            self._fail_stop(error)


def name_thread() -> None:
    """Make ``top -H`` and ``ps -L`` show the calling thread under its Python name.

    Python does so itself from 3.14 on. Only 15 characters count: see prctl(2), PR_SET_NAME.
    """
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_text(threading.current_thread().name)
