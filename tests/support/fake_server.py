"""A server for tests of clients: on demand it loses answers, truncates them, or sheds requests.

    with FakeServer() as server:
        server.will(lose, answer, shed)
        ...
        assert server.steps == 2

Steps, keys and numbers are correct. ``will`` sets the faults of the next requests; later ones are
answered.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self, TypeAlias

import gmpy2

PROBLEM: Final = "application/problem+json"


class Asked(NamedTuple):
    method: str
    path: str
    fields: Mapping[str, str]
    """By name in lower case."""
    connection: int
    """The client's port."""


class FakeServer(ThreadingHTTPServer):
    """Serves from ``__enter__`` to ``__exit__``, on a free port of the loopback interface.

    Args:
        index: the current index.
        keeps_keys: whether a keyed step is made only once.
    """

    daemon_threads = True

    def __init__(self, index: int = 0, *, keeps_keys: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.index = index
        self.asked: list[Asked] = []
        self.released = threading.Event()
        """Set at the end; ends hanging requests."""
        self._keeps_keys = keeps_keys
        self._keys: dict[str, int] = {}
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=lambda: self.serve_forever(0.01))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def keys(self) -> list[str | None]:
        """The keys of all steps."""
        return [each.fields.get("idempotency-key") for each in self.asked if each.method == "POST"]

    def will(self, *faults: "Fault") -> None:
        """Set the faults of the next requests, in this order."""
        self._faults.extend(faults)

    def heal(self) -> None:
        """Answer all requests from now on."""
        self._faults.clear()

    def take(self, asked: Asked) -> "tuple[Fault, int, int]":
        """Execute a request; return its fault, its index, and the index of the number to send."""
        with self._lock:
            self.asked.append(asked)
            fault = self._faults.popleft() if self._faults else answer
            if fault in NO_STEP:
                return fault, self.index, self.index
            if asked.path.startswith("/numbers/"):
                index = int(asked.path.rpartition("/")[2])
                return fault, index, index
            if asked.path == "/previous":
                return fault, self.index, max(self.index - 1, 0)
            if asked.path == "/next":
                key = asked.fields.get("idempotency-key") if self._keeps_keys else None
                index = self._keys.get(key or "", self.index + 1)
                if key:
                    self._keys[key] = index
                self.index = max(index, self.index)
                return fault, index, index
            return fault, self.index, self.index

    def handle_error(self, *_: object) -> None:
        """Ignore it: the client went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, fields, self.client_address[1])
        fault, index, shown = self.server.take(asked)
        body = gmpy2.fib(shown).digits().encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        head += b'ETag: "%d-text"\r\n' % index
        fault(self, head, body)
        self.wfile.flush()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


Fault: TypeAlias = Callable[[Handler, bytes, bytes], None]
"""Sends some of an answer, given as a head without its length and end, and a body."""


def answer(handler: Handler, head: bytes, body: bytes) -> None:
    """Send the whole answer."""
    handler.wfile.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))


def hint(handler: Handler, head: bytes, body: bytes) -> None:
    """Send an interim answer, then the whole answer."""
    handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    answer(handler, head, body)


def close_later(handler: Handler, head: bytes, body: bytes) -> None:
    """Send the whole answer, then close the connection without having announced it."""
    answer(handler, head, body)
    handler.close_connection = True


def lose(handler: Handler, head: bytes, body: bytes) -> None:  # noqa: ARG001
    """Execute the request, then close the connection without an answer."""
    handler.close_connection = True


def cut(handler: Handler, head: bytes, body: bytes) -> None:
    """Send all but the last byte."""
    handler.wfile.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body[:-1]))
    handler.close_connection = True


def without_length(handler: Handler, head: bytes, body: bytes) -> None:
    """Send all but the last byte without a length: the end of the connection ends the body."""
    handler.wfile.write(b"%b\r\n%b" % (head, body[:-1]))
    handler.close_connection = True


def hang(handler: Handler, head: bytes, body: bytes) -> None:  # noqa: ARG001
    """Send nothing and keep the connection."""
    handler.server.released.wait()
    handler.close_connection = True


def shed(handler: Handler, head: bytes, body: bytes) -> None:  # noqa: ARG001
    """Answer 503 without a step."""
    problem = b'{"status": 503, "detail": "It is busy."}'
    handler.wfile.write(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        b"Retry-After: 0\r\nContent-Length: %d\r\n\r\n%b" % (len(problem), problem)
    )


def raw(text: str) -> Fault:
    """Return a fault that sends this text without a step.

    The blank line after the head separates the body, whose length is added.
    """
    head, _, body = text.partition("\n\n")
    lines = "".join(f"{line}\r\n" for line in head.splitlines())
    sent = f"{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()

    def fault(handler: Handler, head: bytes, body: bytes) -> None:  # noqa: ARG001
        handler.wfile.write(sent)

    NO_STEP.add(fault)
    return fault


NO_STEP: Final[set[Fault]] = {shed}
