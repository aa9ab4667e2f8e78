"""One client's exchange with one server: what it sends, and the outcome."""

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
"""The index at the start."""

NO_SETTINGS: Final[Mapping[str, object]] = MappingProxyType({})


class Outcome(NamedTuple):
    """The outcome, when nothing more happens."""

    answers: list[Answer]
    closed: bool
    """Whether the server has closed its sending half."""
    steps: int

    @property
    def outline(self) -> str:
        """The outcome in a line."""
        statuses = ", ".join(str(each.status) for each in self.answers) or "nothing"
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        return f"{statuses}; {steps}; {'closed' if self.closed else 'open'}"

    @property
    def reached(self) -> list[int | None]:
        """The indexes of the answered steps."""
        return [
            each.index
            for each in self.answers
            if each.status == 200 and each.field(b"cache-control") == b"no-store"
        ]

    @property
    def compared(self) -> "Outcome":
        """Without the form of a 400, which is uvicorn's own for malformed requests."""
        answers = [
            Answer(400, ((b"connection", each.field(b"connection") or b""),), b"")
            if each.status == 400
            else each
            for each in self.answers
        ]
        return self._replace(answers=answers)

    @property
    def final(self) -> "Outcome":
        """Without 100s, which depend on how much the client had sent."""
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
    """Send ``pieces`` on a connection to a new server; return the outcome.

    Args:
        loop: the loop of both.
        implementation: the server's.
        pieces: arrive one by one.
        patient: whether the client settles the loop after each.
        ends: whether it then closes its sending half.
        table: the server's endpoints.
        settings: fields that differ from the defaults.
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
