"""Simulated clients: what they ask, and how; and what they were told, for the judge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.checker import Endpoint, Operation, index_of, residue_of
from tests.simulation.network import ClientSocket, Listener
from tests.simulation.process import Process

__all__ = ["Answer", "Client", "History"]

PATIENCE: Final = 30.0
"""Seconds that no client ever waits for an answer while its connection is whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered."""

    status: int
    index: int | None
    """The one that its ETag names, if it has one."""
    body: bytes


class History:
    """What the clients of a run were told."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.refused: list[tuple[float, Answer]] = []
        """When somebody was answered with an error that no condition explains, and how."""
        self.waited: list[tuple[float, float]] = []
        """When somebody began to wait in vain, and for how long."""
        self.answered: list[tuple[float, str]] = []
        """When a step was answered, and by which server's listener."""


class LostAnswerError(Exception):
    """The connection ended before the whole answer was there."""


class Client:
    """A client in a thread of ``process``; see the kinds of clients in ``KINDS``.

    Args:
        process: the machine of clients.
        name: for the trace.
        listener: whom it asks.
        history: takes what it was told.
    """

    def __init__(self, process: Process, name: str, listener: Listener, history: History) -> None:
        self.process = process
        self.name = name
        self.listener = listener
        self.history = history
        self.patience = PATIENCE
        self._socket: ClientSocket | None = None
        self._received = b""

    def start(self, script: Callable[["Client"], object]) -> None:
        """Run ``script`` in a thread of its own."""
        self.process.spawn(lambda: script(self))

    # One request.

    def ask(self, endpoint: Endpoint, expected: int | None = None) -> Answer | None:
        """Ask once and take note; return the answer, or None if there was none."""
        world = self.process.world
        start = world.now
        if world.tracing:
            condition = "" if expected is None else f" if it stands at {expected}"
            world.say(self.name, f"asks for {endpoint}{condition}")
        answer: Answer | None = None
        try:
            self.send(endpoint, expected)
            answer = self.answer()
        except TimeoutError:
            self.history.waited.append((start, world.now - start))
            world.say(self.name, "has waited in vain")
            self.close()
        except (ConnectionError, LostAnswerError) as error:
            world.say(self.name, f"is told nothing: {error!r}")
            self.close()
        self.note(endpoint, expected, start, answer)
        return answer

    def send(self, endpoint: Endpoint, expected: int | None = None) -> None:
        """Send a request, on the connection that there is or on a new one."""
        self.socket.send(request(endpoint, expected))

    @property
    def socket(self) -> ClientSocket:
        """The connection, which is made if there is none."""
        if self._socket is None:
            self._socket = ClientSocket(self.process, self.listener)
            self._received = b""
        return self._socket

    def close(self) -> None:
        """Leave the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def answer(self) -> Answer:
        """Receive the next answer."""
        end = self.process.world.now + self.patience
        while (at := self._received.find(b"\r\n\r\n")) < 0:
            self._receive(end)
        head = self._received[:at].lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields.get(b"content-length", b"0"))
        status = int(head[9:12])
        if status in (204, 304):
            size = 0
        while len(self._received) < at + 4 + size:
            self._receive(end)
        body = self._received[at + 4 : at + 4 + size]
        self._received = self._received[at + 4 + size :]
        etag = fields.get(b"etag")
        return Answer(status, None if etag is None else index_of(etag.decode()), body)

    def _receive(self, end: float) -> None:
        received = self.socket.receive(max(0.0, end - self.process.world.now))
        if not received:
            raise LostAnswerError
        self._received += received

    def note(
        self, endpoint: Endpoint, expected: int | None, start: float, answer: Answer | None
    ) -> None:
        """Take note of what was asked, and what was answered."""
        world, history = self.process.world, self.history
        if answer is None:
            history.operations.append(Operation(endpoint, start, expected=expected))
            return
        if world.tracing:
            world.say(self.name, f"is answered {answer.status}, index {answer.index}")
        if answer.status == 200:
            assert answer.index is not None
            history.operations.append(
                Operation(
                    endpoint,
                    start,
                    world.now,
                    answer.index,
                    residue_of(endpoint, answer.body),
                    expected,
                )
            )
            if endpoint == "next":
                history.answered.append((world.now, self.listener.host))
        elif answer.status != 412 or expected is None:
            history.refused.append((world.now, answer))

    def pause(self, seconds: float) -> None:
        """Do nothing for so long."""
        self.process.sleep(seconds)


def request(endpoint: Endpoint, expected: int | None = None) -> bytes:
    """The bytes of a request."""
    condition = b"" if expected is None else b'If-Match: "%d"\r\n' % expected
    return b"GET /%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (endpoint.encode(), condition)
