"""Runs the service in this process, with connections without sockets."""

from typing import Any, ClassVar, Final

from tests.support.connections import Connection, Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import PROTOCOL, InProcessService
from tests.support.parsing import Answer, answers_in
from web.http.hub import SWEEP_SECONDS

LONG: Final = 3_000_000
"""The index of a number with 626,963 digits, which take seconds at the minimum rate."""


LATE: Final = 2 * SWEEP_SECONDS
"""A deadline is noticed at most this late: one sweep interval at either end."""


class Service(InProcessService):
    """A service at ``index``, with default settings except those given."""

    opened: ClassVar[list["Service"]] = []
    """Services not closed yet."""

    def __init__(
        self, loop: Loop, index: int = 0, *, blocking: bool = False, **settings: Any
    ) -> None:
        super().__init__(loop, PROTOCOL, FakeStore(loop, index, blocking=blocking), **settings)
        # A time of 0 must be long past.
        loop.now += 1000
        loop.settle()
        self.opened.append(self)

    def close(self) -> None:
        self.opened.remove(self)
        super().close()

    def commit(self) -> None:
        """Complete the waiting commits, one after the other."""
        while self.store.committing:
            self.store.finish()
            self.loop.settle()

    def client(self, *pieces: bytes, room: int | None = None) -> Connection:
        """Open a connection and send these pieces; the server has read them on return."""
        client = self.connect(room)
        client.send(*pieces)
        self.loop.settle()
        return client


def statuses(client: Connection) -> list[int]:
    return [each.status for each in answers_in(client.sent)]


def answer(client: Connection) -> Answer:
    (only,) = answers_in(client.sent)
    return only
