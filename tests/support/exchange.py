"""One client's exchange with one server: what comes of what it sends."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from tests.support.connections import Loop
from tests.support.fake_stores import FakeStore
from tests.support.in_process import Implementation, InProcessService
from tests.support.parsing import Answer, answers_in
from web.endpoints.table import TABLE
from web.http.routing import Table

START: Final = 5
"""Where the sequence stands when a client begins."""

NO_SETTINGS: Final[Mapping[str, object]] = MappingProxyType({})


class Outcome(NamedTuple):
    """What has come of it, when nothing more comes."""

    answers: list[Answer]
    closed: bool
    """Whether the server has said that it sends nothing more."""
    steps: int

    @property
    def outline(self) -> str:
        """The same in a line."""
        statuses = ", ".join(str(each.status) for each in self.answers) or "nothing"
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        return f"{statuses}; {steps}; {'closed' if self.closed else 'open'}"

    @property
    def reached(self) -> list[int | None]:
        """The indexes that the answered steps have led to."""
        return [
            each.index
            for each in self.answers
            if each.status == 200 and each.field(b"cache-control") == b"no-store"
        ]

    @property
    def compared(self) -> "Outcome":
        """All of it but the form of a 400, which is uvicorn's own for what is no request."""
        answers = [
            Answer(400, ((b"connection", each.field(b"connection") or b""),), b"")
            if each.status == 400
            else each
            for each in self.answers
        ]
        return self._replace(answers=answers)

    @property
    def final(self) -> "Outcome":
        """All of it but that the client was told to go on, which depends on what it has sent."""
        return self._replace(answers=[each for each in self.answers if each.status != 100])


def exchange(
    loop: Loop,
    implementation: Implementation,
    pieces: Iterable[bytes],
    *,
    patient: bool = False,
    ends: bool = False,
    table: Table = TABLE,
    settings: Mapping[str, object] = NO_SETTINGS,
) -> Outcome:
    """Send ``pieces`` on a connection to a server of its own, and see what comes of them.

    Args:
        loop: that of both.
        implementation: how the server is reached.
        pieces: which arrive one by one.
        patient: whether the client waits before each until nothing more comes.
        ends: whether it closes its sending half behind them.
        table: what the server answers.
        settings: that differ from the defaults.
    """
    served = InProcessService(loop, implementation, FakeStore(loop, START), table, **settings)
    client = served.connect()
    for piece in pieces:
        client.send(piece)
        if patient:
            loop.settle()
    if ends:
        client.end()
    loop.settle()
    outcome = Outcome(answers_in(client.sent), client.closed, served.store.index - START)
    served.close()
    return outcome
