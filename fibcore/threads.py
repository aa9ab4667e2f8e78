"""A thread that works for the event loop, and what the operating system is told of one."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, TypeAlias

Task: TypeAlias = Callable[[], Callable[[], object]]
"""What a worker is to do, in its thread; what it returns is called on the event loop then."""


class Worker:
    """One thread that does one task after the other, and tells the event loop of each.

    Args:
        name: of the thread.
        loop: where the results of the tasks are called, in the order of the tasks.
        fail_stop: called in the thread with what a task raises. It must not return.
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
        """None is the end of the thread."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, task: Task) -> None:
        """Have ``task`` done behind those before it."""
        self._tasks.put(task)

    def close(self) -> None:
        """End the thread and wait for that, which is after the tasks that it was given."""
        self._tasks.put(None)
        self._thread.join()

    def _run(self) -> None:
        name_thread()
        self._work()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                done = task()
            except BaseException as error:
                self._fail_stop(error)
            else:
                self._loop.call_soon_threadsafe(done)


def name_thread() -> None:
    """Have ``top -H`` and ``ps -L`` show the calling thread by the name that Python has for it.

    Python does so itself from 3.14 on. Of the name 15 characters count: see prctl(2),
    PR_SET_NAME.
    """
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_text(threading.current_thread().name)
