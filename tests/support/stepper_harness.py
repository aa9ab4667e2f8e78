"""A stepper over a store whose commits end when the test says so: nothing depends on time."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import NoReturn

from fibcore import Sequence, Snapshot
from fibcore.admission import Admission
from fibcore.stepper import Condition, Outcome, Stepper
from fibcore.stores.keys import Key
from tests.support.blocking_store import BlockingStore


class ProcessEnded(BaseException):
    """What stands for the end of the process where it is called on the event loop."""


class FailStop:
    """Stands in for the end of the process: whoever calls it goes no further."""

    def __init__(self) -> None:
        self.errors: SimpleQueue[BaseException] = SimpleQueue()

    def __call__(self, error: BaseException) -> NoReturn:
        self.errors.put(error)
        if threading.current_thread() is threading.main_thread():
            raise ProcessEnded
        while True:
            threading.Event().wait()


class StepperHarness:
    """A stepper over a blocking store, and what it has answered so far."""

    def __init__(
        self,
        *,
        start: int = 0,
        max_index: int = 1_000_000,
        max_waiting: int = 1_000,
        max_in_flight: int = 2**20,
        fail_stop: Callable[[BaseException], NoReturn] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = BlockingStore()
        self.sequence = Sequence(start)
        self.answers: list[tuple[str, int, Outcome]] = []
        self._answered = asyncio.Event()
        self.admission = Admission(max_waiting=max_waiting, max_in_flight=max_in_flight)
        self.stepper = Stepper(
            self.sequence,
            self.store,
            asyncio.get_running_loop(),
            self.admission,
            max_index=max_index,
            fail_stop=FailStop() if fail_stop is None else fail_stop,
            clock=clock,
        )

    def deliver(self, snapshot: Snapshot, failure: Outcome, name: str) -> None:
        assert snapshot is self.sequence.snapshot, "the answer is not what is shown"
        self.answers.append((name, snapshot.index, failure))
        self._answered.set()

    def ask(self, *names: str, condition: Condition | None = None, key: Key | None = None) -> None:
        """Ask for one step in each name."""
        for name in names:
            self.stepper.submit(self.deliver, condition, name, key)

    async def answered(self, count: int) -> None:
        """Wait until so many have been answered."""
        while len(self.answers) < count:
            self._answered.clear()
            await self._answered.wait()

    async def begun(self) -> int:
        """Wait until a commit is under way; return what it commits."""
        return await asyncio.to_thread(self.store.begun)


@contextlib.asynccontextmanager
async def harness(**arguments: object) -> AsyncIterator[StepperHarness]:
    made = StepperHarness(**arguments)  # type: ignore[arg-type]
    yield made
    made.store.finish(made.stepper.pending + 1)
    await made.stepper.drain()
    made.stepper.close()
