"""Clients of a simulated machine: what they ask, and what they were answered."""

from bench.checker import ENDPOINTS, Endpoint, Operation, index_of, residue_of
from tests.simulation.network import ClientSocket, Listener
from tests.simulation.process import Process
from tests.simulation.world import Violation

PATIENCE_SECONDS = 30.0
"""That no client ever waits for an answer while its connection is whole."""
PROMPT_SECONDS = 5.0
"""In which all is answered when all is well."""


class MachineClient:
    """A client in a thread of ``process``.

    Args:
        process: the machine of clients.
        name: for the trace.
        listener: whom it asks.
        operations: takes note of what was asked, for ``bench.checker``.
        unavailable: takes note of each 503: when and to whom.
    """

    def __init__(
        self,
        process: Process,
        name: str,
        listener: Listener,
        operations: list[Operation],
        unavailable: list[tuple[float, str]],
    ) -> None:
        self.process = process
        self.name = name
        self.patience = PATIENCE_SECONDS
        self._listener = listener
        self._operations = operations
        self._unavailable = unavailable
        self._socket: ClientSocket | None = None
        self._received = b""

    def ask(self, *endpoints: Endpoint, expected: int | None = None) -> tuple[int, int | None]:
        """Ask, for several things at once; return the last status and index.

        The status is 0 where the connection ended without an answer.
        """
        world = self.process.world
        start = world.now
        if world.tracing:
            condition = "" if expected is None else f" if it stands at {expected}"
            world.say(self.name, f"asks for {', '.join(endpoints)}{condition}")
        if self._socket is None:
            self._socket = ClientSocket(self.process, self._listener)
            self._received = b""
        status, index, left = 0, None, list(endpoints)
        self._socket.send(b"".join(request(each, expected) for each in endpoints))
        try:
            while left:
                status, index, body = self._answer(start + self.patience)
                self._note(left.pop(0), start, expected, status, index, body)
        except TimeoutError as error:
            raise Violation(f"{self.name} has waited in vain since {start:.3f} s") from error
        except ConnectionError as error:
            world.say(self.name, f"is told nothing: {error!r}")
            self._socket.close()
            self._socket = None
            status = 0
        self._operations += [Operation(each, start, expected=expected) for each in left]
        return status, index

    def _answer(self, end: float) -> tuple[int, int | None, bytes]:
        while (at := self._received.find(b"\r\n\r\n")) < 0:
            self._receive(end)
        head = self._received[:at].lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields.get(b"content-length", b"0"))
        while len(self._received) < at + 4 + size:
            self._receive(end)
        body = self._received[at + 4 : at + 4 + size]
        self._received = self._received[at + 4 + size :]
        etag = fields.get(b"etag")
        return int(head[9:12]), None if etag is None else index_of(etag.decode()), body

    def _receive(self, end: float) -> None:
        assert self._socket is not None
        received = self._socket.receive(max(0.0, end - self.process.world.now))
        if not received:
            raise ConnectionError("it was closed")
        self._received += received

    def _note(
        self,
        endpoint: Endpoint,
        start: float,
        expected: int | None,
        status: int,
        index: int | None,
        body: bytes,
    ) -> None:
        world = self.process.world
        if world.tracing:
            world.say(self.name, f"is answered {status}, index {index}")
        match status:
            case 200:
                self._operations.append(
                    Operation(
                        endpoint, start, world.now, index, residue_of(endpoint, body), expected
                    )
                )
            case 412:
                assert index not in (None, expected), "it stands where it was to stand"
                self._operations.append(Operation("current", start, world.now, index))
            case 503:
                self._unavailable.append((world.now, self.name))
            case 409:
                pass
            case _:
                raise Violation(f"{self.name} was answered {status}: {body!r}")

    def run(self, kind: str, requests: int, pause: float) -> None:
        """Ask so many times, as a client of this kind does."""
        random = self.process.world.random
        index = 0
        for number in range(requests):
            match kind:
                case "next":
                    self.ask("next")
                case "mixed":
                    self.ask(random.choice(ENDPOINTS))
                case "condition":
                    _, there = self.ask("next", expected=index)
                    index = index if there is None else there
                case "recipe":
                    # As the README says: a step whose answer was lost is asked for again.
                    status = 0
                    while status not in (200, 409):
                        status, there = self.ask("next", expected=index)
                        index = index if there is None else there
                        if status in (0, 503):
                            self.process.sleep(1.0)
                case "piped":
                    self.ask(*random.choices(("next", "next", "current"), k=random.randint(2, 5)))
                case "crowd":
                    one = MachineClient(
                        self.process,
                        f"{self.name}.{number}",
                        self._listener,
                        self._operations,
                        self._unavailable,
                    )
                    self.process.spawn(lambda one=one: one.ask("next"))  # type: ignore[misc]
            if pause:
                self.process.sleep(pause * random.random())


def last_script(client: MachineClient, answered: list[int]) -> None:
    """What is asked when all is well again: it is answered, and promptly."""
    client.patience = PROMPT_SECONDS
    for endpoint in ENDPOINTS:
        status, _ = client.ask(endpoint)
        answered.append(status)


def request(endpoint: Endpoint, expected: int | None = None) -> bytes:
    """The bytes of a request."""
    condition = b"" if expected is None else b'If-Match: "%d"\r\n' % expected
    return b"GET /%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (endpoint.encode(), condition)
