"""Two bounds at their limits at once, each with each other: nothing is lost, and nothing stays.

The server has narrow bounds (``has_narrow_bounds``), so that a few clients bring each to its limit.
Then whoever comes is answered all the same, the index is right, and when the clients have gone the
server holds nothing of them and steps.
"""

import itertools
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from fibcore.stores import sqlite_file
from tests.faults.server_variants import NARROW, has_narrow_bounds, hold_of, variant
from tests.faults.servers import Servers, no_descriptor_from
from tests.support.servers import Answer
from tests.support.waiting import until
from tests.support.wire import HOST, READ, STEP

INDEX: Final = 2_600_000
"""Of a number of 543,364 digits: where ``bytes_in_flight`` is at its limit one fits, two don't."""

SETTINGS: Final = {
    "FIB_MAX_CONNECTIONS": "40",
    "FIB_MAX_WAITING_STEPS": "8",
    "FIB_MAX_ANSWER_BYTES": str(2**24),
    "FIB_MAX_INDEX": str(INDEX + 1000),
    "FIB_RECEIVE_TIMEOUT": "600",
    "FIB_SEND_TIMEOUT": "600",
}


class Clients:
    """What was sent to a server, on connections of their own, and what comes of it."""

    def __init__(self, servers: Servers, database: Path, stack: ExitStack) -> None:
        self.servers = servers
        self.stack = stack
        self.hold = hold_of(database)
        """While this file is there no commit comes to its end."""
        self._received: dict[socket.socket, bytearray] = {}
        self._asked = self._answered = 0
        """How many steps."""

    def send(self, data: bytes = b"", *, receive_buffer: int | None = None) -> socket.socket:
        """Send it on a new connection, and take nothing yet."""
        connection = self.servers.client.raw(receive_buffer=receive_buffer)
        self.stack.callback(connection.close)
        connection.setblocking(False)
        self._asked += data.count(b" /next ")
        with suppress(ConnectionError):
            connection.send(data)
        self._received[connection] = bytearray()
        return connection

    def unread(self, data: bytes) -> socket.socket:
        """Send it, and have none of the answer taken."""
        return self.send(data, receive_buffer=4096)

    def has_ended(self, connection: socket.socket) -> bool:
        """Take what has come; tell whether the server has closed the connection."""
        try:
            while data := connection.recv(65536):
                self._received[connection] += data
        except BlockingIOError:
            return False
        except OSError:
            pass  # it is reset, or we have closed it
        return True

    def ask(self, path: str) -> Answer:
        """Ask until there is an answer: a connection may be closed to make room for another."""
        found: list[Answer] = []

        def is_answered() -> bool:
            self._asked += path == "/next"
            with suppress(OSError, HTTPException):
                found.append(self.servers.client.get(path))
            return bool(found)

        until(is_answered, f"{path} is answered")
        self._answered += path == "/next" and found[0].status == 200
        return found[0]

    def status(self) -> Any:
        """What the server says of itself."""
        began = time.time()
        found: list[Any] = []

        def is_of_now() -> bool:
            found[:] = [json.loads(self.ask("/status").body)]
            return bool(found[0]["now"] >= began)

        until(is_of_now, "/status is of now")
        return found[0]

    def shed(self, bound: str) -> int:
        """How many requests were shed because of a bound."""
        return int(self.status()["shed_requests"].get(bound, 0))

    def leave(self) -> None:
        """Close all connections, when what has come has been taken."""
        for connection in self._received:
            self.has_ended(connection)
            connection.close()

    def check(self, index: int) -> None:
        """Fail if the steps that were asked for and answered don't lead to ``index``."""
        answered = sum(said.count(b'{"next": ') for said in self._received.values())
        assert self._answered + answered <= index - INDEX <= self._asked


# What brings each bound to its limit. On return it is there.


def size_of_a_request(clients: Clients) -> None:
    long = clients.send(b"GET /next HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 20_000)
    until(lambda: clients.has_ended(long), "it is closed")


def parts_of_requests(clients: Clients) -> None:
    half = b"GET /next HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 15_000
    halves = [clients.send(half) for _ in range(2 * NARROW // len(half))]
    until(lambda: any(map(clients.has_ended, halves)), "some have given way")


def connections(clients: Clients) -> None:
    idle = [clients.send() for _ in range(60)]
    until(lambda: any(map(clients.has_ended, idle)), "some have given way")


def largest_index(clients: Clients) -> None:
    until(lambda: clients.ask("/next").status == 409, "it is reached")


def bytes_in_flight(clients: Clients) -> None:
    clients.unread(READ)
    until(lambda: clients.ask("/previous").status == 503, "a second number does not fit")
    assert clients.shed("in_flight")


def bytes_piped(clients: Clients) -> None:
    # While the first answer of each is being sent, the others wait.
    for _ in range(4):
        clients.unread(READ + READ * (NARROW // 2 // len(READ)))
    until(lambda: clients.status()["in_flight_bytes"] > 0, "their first answers begin to leave")


def waiting_steps(clients: Clients) -> None:
    clients.hold.touch()

    def one_is_shed() -> bool:
        clients.send(STEP)
        return clients.shed("waiting") > 0

    until(one_is_shed, "a step is one too many")


def time_to_receive(clients: Clients) -> None:
    late = clients.send(STEP[:-2])
    until(lambda: clients.has_ended(late), "who is late is closed")


def time_to_send(clients: Clients) -> None:
    clients.unread(READ)
    until(lambda: clients.status()["in_flight_bytes"] > 0, "the answer begins to leave")
    until(lambda: clients.status()["in_flight_bytes"] == 0, "who takes nothing is closed")


def descriptors(clients: Clients) -> None:
    idle = [clients.send() for _ in range(3)]
    assert clients.ask("/health").status == 200  # when they have been accepted
    most = max(clients.servers.descriptors)
    clients.stack.enter_context(no_descriptor_from(most + 1, clients.servers.server.pid))
    until(lambda: clients.has_ended(clients.send()), "there is none for a newcomer")
    # So that there is one for who asks.
    for connection in idle:
        connection.close()


def stop(clients: Clients) -> None:
    server = clients.servers.server
    server.signal(signal.SIGTERM)
    server.log.expect("Shutting down")
    clients.hold.unlink(missing_ok=True)
    assert server.wait() == 0


Pressure: TypeAlias = Callable[[Clients], None]

PRESSURES: Final[dict[Pressure, Mapping[str, str]]] = {
    size_of_a_request: {},
    parts_of_requests: {},
    connections: {},
    largest_index: {"FIB_MAX_INDEX": str(INDEX + 1)},
    bytes_in_flight: {"FIB_MAX_ANSWER_BYTES": str(2**20)},
    bytes_piped: {},
    waiting_steps: {},
    time_to_receive: {"FIB_RECEIVE_TIMEOUT": "1"},
    time_to_send: {"FIB_SEND_TIMEOUT": "1"},
    descriptors: {},
    stop: {},
}
"""With the settings that each needs; in an order in which one does not keep the next away."""

APART: Final = {
    # Which of the two is reached first is the stepper's, as is shown in
    # tests/stepping/test_stepper.py.
    (largest_index, waiting_steps),
    (bytes_in_flight, waiting_steps),
    # Whoever gives way leaves a descriptor behind; that there are fewer of them than places is
    # what tests/faults/test_descriptors.py is about.
    (connections, descriptors),
}


@contextmanager
def bounded(tmp_path: Path, *pressures: Pressure) -> Iterator[Clients]:
    """A server with narrow bounds, checked in the end."""
    database = tmp_path / "fibcore.db"
    sqlite_file.create(database, INDEX)
    settings = dict(SETTINGS)
    for each in pressures:
        settings |= PRESSURES[each]
    with (
        Servers(database, tmp_path, settings=settings, command=variant(has_narrow_bounds)) as it,
        ExitStack() as stack,
    ):
        log = it.server.log
        clients = Clients(it, database, stack)
        yield clients
        clients.hold.unlink(missing_ok=True)
        clients.leave()
        if stop not in pressures:
            stack.close()
            until(lambda: holds_nothing(clients.status()), "the server holds nothing of them")
            last = 409 if largest_index in pressures else 200
            until(lambda: clients.ask("/next").status == last, "a step is made")
            clients.check(it.client.index)
        assert "ERROR" not in log.text
        assert "Traceback" not in log.text
    clients.check(sqlite_file.verify_file(database))


def holds_nothing(status: Any) -> bool:
    """Whether the server has no client but the one that asks."""
    held = tuple(status[each] for each in ("in_flight_bytes", "waiting_steps", "connections"))
    return held == (0, 0, 1)


PAIRS: Final = [pair for pair in itertools.combinations(PRESSURES, 2) if pair not in APART]


@pytest.mark.proves(
    "clients",
    "bring two bounds to their limits at once, each with each other",
    "others are answered, the index is right, nothing of them stays",
)
@pytest.mark.proves(
    "bounds",
    "any of these",
    "any other: others are answered, the index is right, and nothing of it stays",
)
@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join(each.__name__ for each in pair))
def test_two_bounds_at_their_limits_leave_others_answered(
    pair: tuple[Pressure, Pressure], tmp_path: Path
) -> None:
    """When they have gone, nothing of them is left behind."""
    with bounded(tmp_path, *pair) as clients:
        for press in pair:
            press(clients)
        if stop not in pair:
            assert clients.ask("/health").status == 200
            assert clients.ask("/current").status == 200


@pytest.mark.proves("bounds", "all of these that go together", "at once: nothing of them stays")
@pytest.mark.processes
def test_all_bounds_at_their_limits_leave_nothing_behind(tmp_path: Path) -> None:
    """They are all of those that can be there together."""
    pressures = (
        size_of_a_request,
        parts_of_requests,
        connections,
        largest_index,
        bytes_in_flight,
        bytes_piped,
        time_to_receive,
        descriptors,
    )
    with bounded(tmp_path, *pressures) as clients:
        for press in pressures:
            press(clients)
            assert clients.ask("/health").status == 200
