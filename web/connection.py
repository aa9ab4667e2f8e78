"""uvicorn's connection, with the bounds that uvicorn doesn't have.

A request must arrive, and an answer must be taken, within a time; there are only so many
connections, with only so much of a request on each; and the digits of answers that a client is
slow to take are counted.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from web import answers
from web.answers import Answer, Header
from web.service import Service

__all__ = ["CLOSE", "Connection", "Connections", "render"]

SWEEP_SECONDS: Final = 0.5
"""How often deadlines are looked at: they are kept to that accuracy."""

PIECE_SIZE: Final = 16_384
"""Bytes that the parser is given at once; past so many that neither end a head nor belong to a
body the request is refused. Half of it, about, is what other servers take for a head."""

MAX_HEADERS: Final = 100
"""Header lines of a request, and trailer lines: a short one takes thirty times its size."""

MAX_PIPELINED: Final = 32
"""Requests of a connection that wait for an answer to the one before, some 5 KB each."""

HTTP_VERSIONS: Final = ("1.0", "1.1")

CLOSE: Final = (b"connection", b"close")


def render(answer: Answer, headers: Iterable[Header] = ()) -> bytes:
    """The whole answer as uvicorn writes it, after ``headers``."""
    lines = [STATUS_LINE[answer.status]]
    for name, value in (*headers, *answer.headers):
        lines += (name, b": ", value, b"\r\n")
    return b"".join((*lines, b"\r\n", *answer.body))


class _BoundError(Exception):
    """A request is past a bound: the parser gives up, and it is refused as malformed."""


class Connections:
    """The bounds on all connections together, and the clock that their deadlines are kept by."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.budget = service.budget
        self.limit = service.settings.max_connections
        self.receive_timeout = service.settings.receive_timeout
        self.send_timeout = service.settings.send_timeout
        self.now = 0.0
        """The event loop's time, seconds, as of the last sweep or connection."""
        self._open: dict[Connection, None] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def add(self, connection: "Connection") -> bool:
        """Take a new connection in, if need be for the longest idle one; tell whether it may."""
        self.now = connection.loop.time()
        if len(self._open) >= self.limit:
            idle = [each for each in self._open if each.is_idle()]
            if not idle:
                return False
            min(idle, key=lambda each: each.since).transport.close()
        self._open[connection] = None
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return True

    def discard(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""
        self._open.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        for connection in list(self._open):
            connection.check_deadlines()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None


class Connection(HttpToolsProtocol):
    """One client. ``hub`` is set by the subclass that ``bound_to`` makes."""

    hub: ClassVar[Connections]

    @classmethod
    def bound_to(cls, hub: Connections) -> "type[Connection]":
        """The class of the connections of ``hub``, for uvicorn's ``http=``."""
        return type(cls.__name__, (cls,), {"hub": hub})

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = 0.0
        """When the connection last began to wait for a request, by the hub's clock."""
        self.receiving = True
        """Whether a request is awaited that is due within a time: the first, or one begun."""
        self._unanswered = 0
        """How many requests have a head and no answer yet."""
        self._midway = False
        """Whether uvicorn's parser has begun a request and not ended it."""
        self._has_head = False
        """Whether that request has its head."""
        self._fruitless = 0
        """Bytes since a head, a piece of a body, or a request came to its end."""
        self._malformed: str | None = None
        """What to say, after the last good answer, of a request that could not be parsed."""
        self._held: list[bytes] = []
        self._lost = False
        """Whether nothing can be sent any more."""
        self._unsent = 0
        self._unsent_since = 0.0

    # What uvicorn and the event loop call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Paused while anything is unsent, resumed when all is sent: so held digits are released
        # at the moment when they have left.
        transport.set_write_buffer_limits(high=0)
        if self.hub.add(self):
            self.since = self.hub.now
        else:
            self.refuse()

    def refuse(self) -> None:
        """Answer 503 before any request, and close."""
        answer = answers.unavailable(
            "The server has as many connections as it takes, and none of them is idle."
        )
        self.transport.write(render(answer, (*self.server_state.default_headers, CLOSE)))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        self.hub.discard(self)
        self._release()

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE_SIZE):
            if self._malformed is not None or self.transport.is_closing():
                return
            piece = data[at : at + PIECE_SIZE]
            self._fruitless += len(piece)
            super().data_received(piece)
            if self._fruitless > PIECE_SIZE and self._malformed is None:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"fibcore": {"hold": self.hold}}
        self._midway = True
        self._has_head = False
        self.receiving = True
        self.since = self.hub.now

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            raise _BoundError(f"more than {MAX_HEADERS} header lines")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in HTTP_VERSIONS:
            raise _BoundError("a version of HTTP that is not spoken here")
        if self._unanswered > MAX_PIPELINED:
            raise _BoundError(f"more than {MAX_PIPELINED} requests wait for the one before")
        super().on_headers_complete()
        self._has_head = True
        self._fruitless = 0
        self._unanswered += 1

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._fruitless = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._fruitless = 0
        self._midway = False
        self.receiving = False

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: an answer declines the upgrade (RFC 9110, 7.8), as to ``curl --http2``."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed, after the answers to what came before it.

        uvicorn sends the refusal at once, where the client takes it for the answer to an earlier
        request that waits for its own: to a step, perhaps, which is made all the same.
        """
        if self._midway and self._has_head and not self.cycle.response_complete:
            # Its head was good and what followed was not: it gets this answer and no other.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._unanswered -= 1
        self._malformed = msg
        self._refuse_malformed()

    def _refuse_malformed(self) -> None:
        if self._malformed is not None and self._unanswered == 0:
            super().send_400_response(self._malformed)

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        super().on_response_complete()
        # One sweep over all connections looks after this too, on the fast path as well.
        self._unset_keepalive_if_required()
        self.since = self.hub.now
        self._release_when_sent()
        self._refuse_malformed()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._release_when_sent()

    # Bounds.

    def hold(self, digits: bytes) -> None:
        """Count digits that are about to be written until they have left."""
        # The client of an answer that took its time may have gone: that will never be written.
        if not self._lost:
            self.hub.budget.hold(digits)
            self._held.append(digits)

    def _release_when_sent(self) -> None:
        if self._held and self.is_answered() and self.transport.get_write_buffer_size() == 0:
            self._release()

    def _release(self) -> None:
        for digits in self._held:
            self.hub.budget.release(digits)
        self._held.clear()

    def is_answered(self) -> bool:
        """Whether no request waits for its answer, or for the rest of it."""
        return self._unanswered == 0

    def is_idle(self) -> bool:
        """Whether closing the connection would take nothing from its client.

        A request counts for nothing until its body has arrived: until then nothing is done.
        """
        return (
            (self.is_answered() or self._is_arriving())
            and not self.transport.is_closing()
            and self.transport.get_write_buffer_size() == 0
        )

    def _is_arriving(self) -> bool:
        """Whether the one request without an answer is one whose body has not arrived."""
        return (
            self._unanswered == 1
            and self._midway
            and self._has_head
            and not self.cycle.response_started
        )

    def check_deadlines(self) -> None:
        """Close the connection if its client is late with a request or with taking an answer."""
        now = self.hub.now
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent == self._unsent:
            if now - self._unsent_since > self.hub.send_timeout:
                self.transport.abort()
            return
        self._unsent, self._unsent_since = unsent, now
        waited = now - self.since
        if self.receiving:
            if waited > self.hub.receive_timeout:
                self.transport.abort() if unsent else self.transport.close()
        elif waited > self.timeout_keep_alive + SWEEP_SECONDS and self.is_idle():
            self.transport.close()
