"""The service in this process, and connections without sockets to it."""

from typing import Any, ClassVar, Final

from tests.support.connections import Connection, Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import PROTOCOL, InProcessService
from tests.support.parsing import Answer, answers_in
from web.http.hub import SWEEP_SECONDS

LONG: Final = 3_000_000
"""An index whose number has 626,963 digits: several seconds at the least rate."""


LATE: Final = 2 * SWEEP_SECONDS
"""How late a deadline may be noticed: the time between two sweeps, at either end."""


class Service(InProcessService):
    """A service at an index, with the default settings but for those that are given."""

    opened: ClassVar[list["Service"]] = []
    """Those that have not been closed."""

    def __init__(
        self, loop: Loop, index: int = 0, *, blocking: bool = False, **settings: Any
    ) -> None:
        super().__init__(loop, PROTOCOL, FakeStore(loop, index, blocking=blocking), **settings)
        # So that a time that has not been set is long past.
        loop.now += 1000
        loop.settle()
        self.opened.append(self)

    def close(self) -> None:
        self.opened.remove(self)
        super().close()

    def commit(self) -> None:
        """Let the commits that wait be made, one after the other."""
        while self.store.committing:
            self.store.finish()
            self.loop.settle()

    def client(self, *pieces: bytes, room: int | None = None) -> Connection:
        """A connection that has sent this; the server has read it."""
        client = self.connect(room)
        client.send(*pieces)
        self.loop.settle()
        return client


def statuses(client: Connection) -> list[int]:
    return [each.status for each in answers_in(client.sent)]


def answer(client: Connection) -> Answer:
    (only,) = answers_in(client.sent)
    return only
