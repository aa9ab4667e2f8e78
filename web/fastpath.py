"""The fast path: the plainest requests are answered with one write, by the connection itself.

A request takes it when its head arrives whole, is known to be plain (``web.heads``), and no
other request of the connection is under way. Everything else goes to uvicorn and Starlette byte
for byte. Both ways lead to the same answers; the fast path keeps what it has rendered for as
long as it stays right.
"""

import asyncio
from functools import partial
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from fibcore import Sequence, State
from fibcore.budget import UNCOUNTED_DIGITS
from fibcore.stepper import OverloadedError, Refusal
from web import answers
from web.answers import Answer, Header, Number
from web.connection import CLOSE, Connection, Connections, render
from web.endpoints import CURRENT, NEXT, PREVIOUS, Endpoint, exhausted, overloaded
from web.heads import MAX_HEAD_SIZE, Heads
from web.negotiation import Representation
from web.service import Service

__all__ = ["FastConnection", "FastConnections"]

UNKNOWN: Final = Endpoint("", (), None, lambda *_: None)
"""Stands in a look-up for a head that has not been seen."""


class Template:
    """The answer about one of the numbers, rendered but for the index and the digits.

    It is made from an answer of ``web.answers``, so that it can't differ from one.
    """

    def __init__(self, kind: Number, headers: list[Header]) -> None:
        answer = answers.number(kind, 0, b"", Representation.JSON)
        before, _, after = (piece.replace(b"%", b"%%") for piece in answer.body)
        slots = {b"content-length": b"%d", b"etag": b'"%d"'}
        lines = [STATUS_LINE[answer.status]]
        for name, value in (*headers, *answer.headers):
            lines += (name, b": ", slots.get(name, value.replace(b"%", b"%%")), b"\r\n")
        self.head = b"".join((*lines, b"\r\n", before))
        self.whole = self.head + b"%b" + after
        self.after = answer.body[-1]
        self.around = sum(map(len, answer.body))

    def fill(self, index: int, digits: bytes) -> tuple[bytes, ...]:
        """The pieces to write: one for a short number; the digits themselves for a long one."""
        size = self.around + len(digits)
        if size < UNCOUNTED_DIGITS:
            return (self.whole % (size, index, digits),)
        return (self.head % (size, index), digits, self.after)


class FastConnections(Connections):
    """What the connections of the fast path share: the known heads, and what is rendered.

    Rendered answers grow stale with the date, for which uvicorn makes its list of default
    headers anew, and with a step, after which the sequence has a new state.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.heads = Heads()
        self.known = self.heads.known
        self.headers: list[Header] = []
        self.state: State | None = None
        self.current: tuple[bytes, ...] = ()
        self.previous: tuple[bytes, ...] = ()
        self.renew_headers(self.headers)

    def renew_headers(self, headers: list[Header]) -> None:
        """Render what goes with ``headers``."""
        self.headers = headers
        self.state = None
        self.templates = {kind: Template(kind, headers) for kind in (CURRENT, NEXT, PREVIOUS)}
        self.next = self.templates[NEXT]
        self.healthy = render(answers.healthy(), headers)

    def renew_state(self, state: State) -> None:
        """Render the answers to reads of ``state``."""
        self.state = state
        self.current = self.templates[CURRENT].fill(state.index, state.current)
        self.previous = self.templates[PREVIOUS].fill(state.index, state.previous)


class FastConnection(Connection):
    """One client, answered directly where its requests are plain."""

    hub: ClassVar[FastConnections]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn logs requests where it answers them, so with the log on it answers them all.
        self._disabled = self.access_log
        self._stepping = False
        """Whether a step of the fast path waits for its commit, or for its refusal."""
        self._closing = False
        """Whether to close when that step is answered."""
        self._arrived: list[bytes] = []
        """What has arrived meanwhile."""

    def data_received(self, data: bytes) -> None:
        hub = self.hub
        if self._stepping:
            self._arrived.append(data)
            self.flow.pause_reading()
            return
        if len(data) <= MAX_HEAD_SIZE:
            endpoint = hub.known.get(data, UNKNOWN)
            if endpoint is UNKNOWN:
                endpoint = hub.heads.learn(data)
            # All that came before is answered and sent, and uvicorn awaits a new request?
            if endpoint is not None and not (
                self._unanswered or self._midway or self.flow.write_paused or self._disabled
            ):
                number = endpoint.number
                if self._step() if number is NEXT else self._read(number):
                    return
        super().data_received(data)

    def _step(self) -> bool:
        """See to it that the request is answered; tell whether that could be done."""
        stepper = self.hub.service.stepper
        if stepper is None:
            return False
        self._stepping = True
        self.receiving = False
        try:
            stepper.submit(self._stepped)
        except OverloadedError as error:
            refuse = partial(self._refused, stepper.sequence, str(error))
            self.hub.service.refusals.submit(refuse)
        return True

    def _read(self, number: Number | None) -> bool:
        """Answer the request; tell whether that could be done."""
        hub = self.hub
        stepper = hub.service.stepper
        if stepper is None:
            return False
        if self.server_state.default_headers is not hub.headers:
            hub.renew_headers(self.server_state.default_headers)
        if number is None:
            if hub.service.complaint is not None:
                return False
            self.transport.write(hub.healthy)
        else:
            state = stepper.sequence.state
            if state is not hub.state:
                hub.renew_state(state)
            pieces = hub.current if number is CURRENT else hub.previous
            if len(pieces) == 1:
                self.transport.write(pieces[0])
            elif hub.budget.fits_shared(pieces[1]):
                self._write_long(pieces)
            else:
                return False
        self.receiving = False
        self.since = hub.now
        return True

    def _stepped(self, state: State, refusal: Refusal | None) -> None:
        """Answer the step that waited; what arrived meanwhile comes next."""
        self._stepping = False
        if self.transport.is_closing():
            return
        hub = self.hub
        self.since = hub.now
        if self.server_state.default_headers is not hub.headers:
            hub.renew_headers(self.server_state.default_headers)
        if refusal is not None:
            self._write_rare(exhausted(state.index))
        elif self._closing:
            self._write_rare(answers.number(NEXT, state.index, state.current, Representation.JSON))
        else:
            pieces = hub.next.fill(state.index, state.current)
            if len(pieces) == 1:
                self.transport.write(pieces[0])
            else:
                self._write_long(pieces)
        self._take_arrived()

    def _refused(self, sequence: Sequence, reason: str) -> None:
        """Answer the step that is past a bound; what arrived meanwhile comes next."""
        self._stepping = False
        if self.transport.is_closing():
            return
        self.since = self.hub.now
        self._write_rare(overloaded(reason, sequence.index))
        self._take_arrived()

    def _take_arrived(self) -> None:
        if self._arrived:
            data = b"".join(self._arrived)
            self._arrived.clear()
            self.flow.resume_reading()
            self.data_received(data)

    def _write_long(self, pieces: tuple[bytes, ...]) -> None:
        self.transport.writelines(pieces)
        if self.transport.get_write_buffer_size():
            self.hold(pieces[1])

    def _write_rare(self, answer: Answer) -> None:
        if self._closing:
            answer = answer._replace(headers=(*answer.headers, CLOSE))
        for piece in answer.body:
            self.hold(piece)
        self.transport.write(render(answer, self.server_state.default_headers))
        if self._closing:
            self.transport.close()
        self._release_when_sent()

    # What uvicorn calls.

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # What follows an upgrade is for uvicorn to make sense of.
            self._disabled = True

    def shutdown(self) -> None:
        if self._stepping:
            self._closing = True
        else:
            super().shutdown()

    def is_answered(self) -> bool:
        return not self._stepping and super().is_answered()
