"""The service in this process, and connections without sockets to it."""

from typing import Any, Final

from tests.support.connections import Connection, Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import PROTOCOL, InProcessService
from tests.support.parsing import Answer, answers_in
from web.http.hub import SWEEP_SECONDS

LONG: Final = 3_000_000
"""Of a number of 626,963 digits: several times what is taken in a second at the least rate."""


LATE: Final = 2 * SWEEP_SECONDS
"""By how much a deadline may be passed: the time between two sweeps, at either end."""


class Service(InProcessService):
    """With the defaults but for what is said, at an index."""

    def __init__(
        self, loop: Loop, index: int = 0, *, blocking: bool = False, **settings: Any
    ) -> None:
        super().__init__(loop, PROTOCOL, FakeStore(loop, index, blocking=blocking), **settings)
        # What has not been set is not to look as if it were of just now.
        loop.now += 1000
        loop.settle()

    def client(self, *pieces: bytes, room: int | None = None) -> Connection:
        """One that has sent this, and has been heard."""
        client = self.connect(room)
        client.send(*pieces)
        self.loop.settle()
        return client


def statuses(client: Connection) -> list[int]:
    return [each.status for each in answers_in(client.sent)]


def answer(client: Connection) -> Answer:
    (only,) = answers_in(client.sent)
    return only
