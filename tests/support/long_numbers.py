"""Helpers of the tests of ``/numbers``: a queue that waits for the test, and its worker process."""

import asyncio
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import pytest

from fibcore.admission import Admission, OverloadedError
from fibcore.numbers.queue import MAX_WAITING, Found, NumberQueue
from fibcore.numbers.worker_process import most_digits

LONG: Final = 1_000_000
"""An index whose number is computed in the worker process."""


def workers_of(server: int) -> list[int]:
    """Return the child processes of a server."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [int(each) for each in children.split()]


class Held:
    """A number queue whose computations wait for ``go_on``."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        max_in_flight: int = 64 * 2**20,
        *,
        works: bool = True,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.admission = Admission(max_waiting=1, max_in_flight=max_in_flight)
        self.queue = NumberQueue(self.admission, max_waiting)
        self.begun: SimpleQueue[int] = SimpleQueue()
        self.go_on: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.found: list[tuple[int, Found]] = []
        self.changed = asyncio.Event()
        if works:
            monkeypatch.setattr(self.queue._worker, "compute", self._compute)

    async def _compute(self, index: int) -> bytes:
        self.begun.put(index)
        if (error := await self.go_on.get()) is not None:
            raise error
        return b"8" * most_digits(index)

    def find(self, index: int, client: str = "") -> None:
        def deliver(found: Found) -> None:
            self.found.append((index, found))
            self.changed.set()

        self.queue.find(index, deliver, client)

    async def wait_for(self, count: int) -> None:
        while len(self.found) < count:
            self.changed.clear()
            await self.changed.wait()

    @property
    def indexes(self) -> list[int]:
        return [index for index, _ in self.found]

    @property
    def shed(self) -> list[int]:
        """The indexes whose requests were shed."""
        return [index for index, found in self.found if isinstance(found, OverloadedError)]

    async def finish(self) -> list[int]:
        """Complete all computations; return their order."""
        for _ in range(self.queue.queued):
            self.go_on.put_nowait(None)
        while self.queue.queued:
            self.changed.clear()
            await self.changed.wait()
        await self.queue.close()
        return [self.begun.get_nowait() for _ in range(self.begun.qsize())]
