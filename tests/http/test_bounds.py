"""Two bounds at their limits at once, each with each other: nothing is lost, and nothing is kept.

The bounds are low, so that few clients reach them. New clients are then still answered, the index
is right, and when the clients have left, the server holds nothing of them and steps.
tests/faults/test_descriptors.py covers descriptors.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import pytest

from tests.support.connections import Connection, Loop
from tests.support.served import Service, statuses
from tests.support.wire import HALF, HOST, READ, STEP

INDEX: Final = 20_000
"""Of a number with 4,180 digits: one fits the bound of ``bytes_in_flight``, two do not."""

NARROW: Final = 2_000
SETTINGS: Final = {
    "max_connections": 12,
    "max_waiting_steps": 4,
    "max_answer_bytes": 100_000,
    "max_index": INDEX + 1_000,
    "receive_timeout": 600.0,
    "send_timeout": 600.0,
}
PREVIOUS: Final = READ.replace(b"current", b"previous")
HEALTH: Final = READ.replace(b"current", b"health")


class Clients:
    """The clients of a server, each with its own connection."""

    def __init__(self, loop: Loop, settings: Mapping[str, Any]) -> None:
        self.loop = loop
        self.served = Service(loop, INDEX, **settings)
        self.all: list[Connection] = []
        self._asked = 0
        """The number of steps that were requested."""

    def send(self, data: bytes = b"", room: int | None = None) -> Connection:
        self._asked += data.count(b" /next ")
        self.all.append(self.served.client(data, room=room))
        return self.all[-1]

    def ask(self, data: bytes) -> int:
        """Request until the answer is not the 503 of the bound on connections."""
        for _ in range(20):
            shed = self.served.service.admission.shed["connections"]
            found = statuses(self.send(data))
            if found and self.served.service.admission.shed["connections"] == shed:
                return found[0]
            self.loop.pass_time(0.5)
        raise AssertionError("nobody is answered")

    def leave(self) -> None:
        self.served.store.blocking = False
        if self.served.store.asking:
            self.served.store.finish()
        self.loop.settle()
        for client in self.all:
            client.reset()
        self.loop.settle()
        answered = sum(client.sent.count(b'{"next": ') for client in self.all)
        assert answered <= self.served.store.index - INDEX <= self._asked
        hub = self.served.hub
        assert (hub.budget.used, hub.kept, hub.parts, hub.pages) == (0, 0, 0, 0)
        assert not hub._open
        assert self.served.stepper.pending == 0


# Each reaches a bound before it returns.


def size_of_a_request(clients: Clients) -> None:
    assert statuses(clients.send(HALF + b"X: " + b"x" * 20_000)) == [400]


def parts_of_requests(clients: Clients) -> None:
    halves = [
        clients.send(b"GET /next HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 900) for _ in range(3)
    ]
    assert any(each.lost for each in halves)


def connections(clients: Clients) -> None:
    idle = [clients.send() for _ in range(20)]
    clients.loop.pass_time(0.5)
    idle += [clients.send() for _ in range(5)]
    assert any(each.lost for each in idle)


def largest_index(clients: Clients) -> None:
    assert 409 in [clients.ask(STEP) for _ in range(3)]


def bytes_in_flight(clients: Clients) -> None:
    clients.send(READ, room=0)
    assert clients.ask(PREVIOUS) == 503
    assert clients.served.service.admission.shed["in_flight"]


def bytes_pipelined(clients: Clients) -> None:
    # While the first answer to each is being sent, the others wait.
    for _ in range(4):
        clients.send(READ + READ * (NARROW // 2 // len(READ)), room=0)
    assert NARROW // 2 < clients.served.hub.kept <= NARROW


def waiting_steps(clients: Clients) -> None:
    clients.served.store.blocking = True
    for _ in range(SETTINGS["max_waiting_steps"] + 1):  # type: ignore[call-overload]
        clients.send(STEP)
    assert clients.served.service.admission.shed["waiting"]


def time_to_receive(clients: Clients) -> None:
    late = clients.send(HALF)
    clients.loop.pass_time(3.0)
    assert late.lost


def time_to_send(clients: Clients) -> None:
    late = clients.send(READ, room=0)
    clients.loop.pass_time(3.0)
    assert late.lost


def stop(clients: Clients) -> None:
    clients.served.stop()
    clients.loop.settle()


Pressure: TypeAlias = Callable[[Clients], None]

PRESSURES: Final[dict[Pressure, Mapping[str, Any]]] = {
    size_of_a_request: {},
    parts_of_requests: {},
    connections: {},
    largest_index: {"max_index": INDEX + 1},
    bytes_in_flight: {"max_answer_bytes": 6_500},
    bytes_pipelined: {},
    waiting_steps: {},
    time_to_receive: {"receive_timeout": 1.0},
    time_to_send: {"send_timeout": 1.0},
    stop: {},
}
"""Each with its settings, in an order in which none prevents the next."""

APART: Final = {(largest_index, waiting_steps), (bytes_in_flight, waiting_steps)}
"""tests/stepping/test_stepper.py covers which of the two is reached first."""

PAIRS: Final = [pair for pair in itertools.combinations(PRESSURES, 2) if pair not in APART]
TOGETHER: Final = tuple(each for each in PRESSURES if each not in (waiting_steps, stop))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_KEPT", NARROW), ("MAX_PARTS", NARROW), ("ALWAYS_KEPT", 0)):
        monkeypatch.setattr(f"web.http.hub.{name}", value)


@pytest.mark.parametrize(
    "pressures", [*PAIRS, TOGETHER], ids=lambda each: " ".join(one.__name__ for one in each)
)
def test_with_all_bounds_reached_others_are_still_answered(
    loop: Loop, pressures: tuple[Pressure, ...], caplog: pytest.LogCaptureFixture
) -> None:
    settings = dict(SETTINGS)
    for each in pressures:
        settings |= PRESSURES[each]
    clients = Clients(loop, settings)
    for press in pressures:
        press(clients)
        if stop not in pressures:
            assert clients.ask(HEALTH) == 200
    if stop not in pressures:
        assert clients.ask(READ) == 200
    clients.leave()
    if stop not in pressures:
        assert clients.ask(STEP) == (409 if largest_index in pressures else 200)
    assert "ERROR" not in caplog.text
