"""One client's connection: the endpoints of the table are answered here, with one write each.

A connection takes one request at a time. What a client pipes behind it stays in bytes until it is
answered and the answer has left, so that a connection holds one request and one answer:

    IDLE --bytes--> ARRIVING --the request is whole--> ANSWERING --written--> SENDING --sent--> IDLE
                                                                     \\--sent at once-----------/
    CLOSING, from everywhere: nothing more is answered, and what still arrives is dropped.

``connections`` keeps the bounds on all connections and the clock of their deadlines; ``parser``
says when a request is whole; ``asgi`` hands what is not in the table to Starlette.
"""

import asyncio
import enum
import logging
import socket
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.server import ServerState

from web import answers
from web.answers import Answer, Header
from web.asgi import Exchange, log_access
from web.connections import (
    KERNEL_RECEIVES,
    KERNEL_SENDS,
    LEAST_RATE,
    LINGER_SECONDS,
    MAX_EXCHANGES,
    PATIENCE_SECONDS,
    Connections,
)
from web.heads import Head, MalformedError
from web.parser import Parser, fields_of

__all__ = ["CLOSE", "Phase", "Protocol"]

logger = logging.getLogger("fibcore")

CLOSE: Final[Header] = (b"connection", b"close")
KEEP_ALIVE: Final[Header] = (b"connection", b"keep-alive")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

AT_ONCE: Final = 32
"""Requests of one connection that are answered in a turn of the loop, before others have theirs."""


class Phase(enum.Enum):
    """What a connection is about. See the top of this file."""

    IDLE = enum.auto()
    ARRIVING = enum.auto()
    ANSWERING = enum.auto()
    SENDING = enum.auto()
    CLOSING = enum.auto()


IDLE, ARRIVING, ANSWERING, SENDING, CLOSING = Phase


class Protocol(asyncio.Protocol):
    """A connection, of the ``hub`` that ``bound_to`` binds it to, for uvicorn's ``http=``.

    uvicorn's server makes it, counts it, and asks it to ``shutdown``, as uvicorn's own protocol.
    """

    hub: ClassVar[Connections]

    @classmethod
    def bound_to(cls, hub: Connections) -> "type[Protocol]":
        """The class of the connections of ``hub``."""
        return type(cls.__name__, (cls,), {"hub": hub})

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.phase = IDLE
        self.deadline = 0.0
        """When the client is late, by the hub's clock; while ANSWERING it can't be."""
        self._head: Head
        """Of the request that is being answered, while ANSWERING."""
        self._parser: Parser | None = None
        self._rest = b""
        """What has arrived behind the request that is being answered."""
        self._partly = False
        """Whether some of a request that is not whole is kept."""
        self._reading = True
        self._taking = False
        """Whether requests are being taken out of ``_rest`` now."""
        self._more_to_do = config.access_log
        """Whether an answer is followed by more than the wait for a request. Where it isn't, as
        nearly always, none of what follows here is so."""
        self._last = False
        """Whether the connection is closed behind the answer that comes next."""
        self._ended = False
        """Whether the client has sent all that it will."""
        self._dropping = False
        """Whether some of what the client sends is not answered."""
        self._blocked = False
        """Whether something that was written has not left."""
        self._blocked_since = 0.0
        """By the hub's clock; with ``_blocked_size``, what the client's pace is reckoned from."""
        self._blocked_size = 0
        """Bytes that had not left then."""
        self._unsent = 0
        """Bytes that had not left when that was last looked at."""
        self._unsent_since = 0.0
        """When that was last less than before."""
        self._held: bytes | None = None
        """The digits of the answer that is SENDING, if they are counted."""
        self._exchange: Exchange | None = None
        """With Starlette, while it answers."""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        # Blocked as long as anything is unsent.
        transport.set_write_buffer_limits(high=0)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            # Also on those who had connected before the listening socket was ours.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_SENDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_RECEIVES)
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        if not self.hub.add(self):
            answer = answers.unavailable(
                "The server has as many connections as it takes, and none of them is idle."
            )
            self._write_last(answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.phase = CLOSING
        self.server_state.connections.discard(self)
        self.hub.discard(self)
        self._forget()
        self._release()
        if self._exchange is not None:
            self._exchange.disconnect()
            self._end_exchange()

    def data_received(self, data: bytes) -> None:
        if self.phase is IDLE:
            head = self.hub.heads.known.get(data)
            if head is not None:
                self._answer(head)
            else:
                self._take(data)
        elif self.phase is ARRIVING:
            self._take(data)
        elif self.phase is not CLOSING:
            self._keep(data)

    def eof_received(self) -> bool:
        """Whether the connection stays open, for what the client is still to be sent."""
        self._ended = self._more_to_do = True
        if self.phase in (ANSWERING, SENDING):
            return True
        self.phase = CLOSING
        return False

    def pause_writing(self) -> None:
        self._blocked = self._more_to_do = True
        self._blocked_size = self._unsent = self.transport.get_write_buffer_size()
        self._blocked_since = self._unsent_since = self.hub.now
        if self._exchange is not None:
            self._exchange.flow.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        self._release()
        if self._exchange is not None:
            self._exchange.flow.resume_writing()
        elif self.phase is SENDING:
            self._sent()

    # What uvicorn calls.

    def shutdown(self) -> None:
        """Close as soon as nothing is lost by it: a request that is not whole has done nothing."""
        self.hub.stop()
        if self.phase not in (ANSWERING, SENDING):
            self._close()
            return
        self._last = self._more_to_do = True
        if self._exchange is not None:
            self._exchange.close_behind()
        if self._rest:
            self._dropping = True
            self._drop_rest()
            self._resume_reading()
        # From now on the pace counts.
        self._blocked_size = self.transport.get_write_buffer_size()
        self._blocked_since = self.hub.now

    # Requests.

    def _take(self, data: bytes) -> None:
        """Answer the requests in ``data`` one after the other, as far as that can be done now."""
        at = taken = 0
        self._taking = True
        known = self.hub.heads.known
        while at < len(data):
            if self.phase is CLOSING:
                break
            if self.phase in (ANSWERING, SENDING):
                self._keep(data[at:])
                break
            if taken == AT_ONCE:
                self._keep(data[at:])
                self.loop.call_soon(self._take_rest)
                break
            taken += 1
            if self.phase is IDLE:
                if at:
                    end = data.find(b"\r\n\r\n", at) + 4
                    head = known.get(data[at:end])
                    if head is not None:
                        at = end
                        self._answer(head)
                        continue
                self._begin()
            at = self._parse(data, at)
        self._taking = False
        if self.phase is ARRIVING and self._parser is not None:
            self._partly = True
            self.hub.keep_part(self, self._parser.size)
        if not self._rest and self.phase in (IDLE, ARRIVING):
            if self._ended:
                self._close()
            else:
                self._resume_reading()

    def _begin(self) -> None:
        """Await the rest of a request, of which the first bytes are there."""
        self.phase = ARRIVING
        self.deadline = self.hub.receive_deadline
        if self._parser is None:
            self._parser = Parser(self.hub.heads)

    def _parse(self, data: bytes, at: int) -> int:
        """Parse up to the end of a request, and answer it if that is there; return where it is."""
        parser = self._parser
        assert parser is not None
        begun = parser.head is not None
        try:
            end = parser.feed(data, at)
        except MalformedError as error:
            self._reject(str(error))
            return len(data)
        head = parser.head
        if not parser.whole:
            if head is not None and head.awaits_continue and not begun:
                self.transport.write(CONTINUE)
            return end
        assert head is not None
        if self._partly:
            self._partly = False
            self.hub.let_part_go(self)
        raw, body = parser.raw, parser.body
        parser.begin()
        if head.endpoint is None:
            self._ask_starlette(head, fields_of(raw), body)
        else:
            if head.length == 0:
                self.hub.heads.remember(raw, head)
            self._answer(head)
        return end

    def _keep(self, data: bytes) -> None:
        """Keep what has arrived until it is its turn, and let no more arrive."""
        self._more_to_do = True
        if self._last or not self.hub.keep(len(data)):
            # Nothing of it will be answered, or there is no room for it.
            self._last = self._dropping = True
            return
        self._rest += data
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _take_rest(self) -> None:
        if self.phase in (IDLE, ARRIVING):
            rest = self._rest
            self._drop_rest()
            self._take(rest)

    def _drop_rest(self) -> None:
        self.hub.let_go(len(self._rest))
        self._rest = b""

    def _forget(self) -> None:
        """Let go of all that has arrived and will not be answered."""
        self._drop_rest()
        self.hub.let_part_go(self)
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    # Answers.

    def _answer(self, head: Head) -> None:
        self.phase = ANSWERING
        self._head = head
        try:
            head.respond(self.hub.service, head.request, self._reply)
        except Exception:
            logger.exception("%s %r failed", head.method, head.target)
            self._last = True
            self._reply(answers.failed())

    def _reply(self, answer: Answer) -> None:
        """Send the answer to the request that waits for it, if its client is still there."""
        if self.phase is not ANSWERING or self.transport.is_closing():
            return
        hub = self.hub
        headers = self.server_state.default_headers
        if headers is not hub.headers:
            hub.renew_lines(headers)
        head = self._head
        if head.plain and not self._last:
            pieces = answer.render(hub.lines)
            self._write(pieces)
            if not self._more_to_do:
                self.phase = IDLE
                self.deadline = hub.idle_deadline
                return
        else:
            if not head.keep_alive:
                self._last = True
            more = (CLOSE,) if self._last else (KEEP_ALIVE,) if head.version == "1.0" else ()
            pieces = answer.render_anew(hub.lines, *head.more, *more, body=head.method != "HEAD")
            self._write(pieces)
        if self._blocked:
            # The one piece that is long, if there is one.
            self._held = max(pieces, key=len)
            hub.budget.hold(self._held)
        if self.config.access_log:
            log_access(self.transport, head, answer.status)
        self._answered()

    def _write(self, pieces: tuple[bytes, ...]) -> None:
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)

    def _write_last(self, answer: Answer) -> None:
        """Send an answer to nothing that was asked, behind which the connection is closed."""
        hub = self.hub
        hub.renew_lines(self.server_state.default_headers)
        self._write(answer.render_anew(hub.lines, CLOSE, body=True))
        self._close()

    def _release(self) -> None:
        if self._held is not None:
            self.hub.budget.release(self._held)
            self._held = None

    def _answered(self) -> None:
        """Go on behind an answer that has been written."""
        if self._blocked:
            self.phase = SENDING
        else:
            self._sent()

    def _sent(self) -> None:
        """Go on behind an answer that has left."""
        if self._last or (self._ended and not self._rest and not self._taking):
            self._close()
            return
        self.phase = IDLE
        self.deadline = self.hub.idle_deadline
        if self._taking:
            return
        if self._rest:
            self._take_rest()
        else:
            self._resume_reading()
            self._more_to_do = self.config.access_log

    def _reject(self, reason: str) -> None:
        """Answer 400 to what can't be parsed, and close."""
        logger.warning("A client sent what is no valid request: %s.", reason)
        self._dropping = True
        self._write_last(answers.bad_request(reason))

    def _close(self) -> None:
        self.phase = CLOSING
        self._forget()
        if self._dropping and not self._ended:
            # Closed now, what is unread would have the kernel reset the connection, and the client
            # could lose the answer: RFC 9112, 9.6.
            self.deadline = self.hub.now + LINGER_SECONDS
            self.transport.write_eof()
            self._resume_reading()
        else:
            self.transport.close()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    # Starlette.

    def _ask_starlette(self, head: Head, fields: list[Header], body: bytes) -> None:
        self.phase = ANSWERING
        self._head = head
        if self.hub.exchanges >= MAX_EXCHANGES:
            self._reply(answers.unavailable("The server has as many pages under way as it may."))
            return
        self.hub.exchanges += 1
        self._exchange = Exchange(
            self.config,
            self.server_state,
            self.app_state,
            self.transport,
            head,
            fields,
            body,
            self._starlette_answered,
        )
        if self._last:
            self._exchange.close_behind()

    def _starlette_answered(self) -> None:
        self._end_exchange()
        if self.transport.is_closing():
            self.phase = CLOSING
        else:
            # Not at once: what comes next is not to be answered inside of Starlette.
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.phase is ANSWERING:
            self._answered()

    def _end_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange = None
            self.hub.exchanges -= 1

    # Bounds.

    def rank(self) -> tuple[int, float] | None:
        """How well the connection can be dispensed with, the least the best; None if not at all.

        A request counts for nothing until it is whole: until then nothing is done.
        """
        if self.phase is IDLE:
            return 0, self.deadline
        if self.phase is ARRIVING:
            return 1, self.deadline
        if self.phase is SENDING and self._is_slow():
            return 2, self._blocked_since
        if self.phase is CLOSING and not self._blocked:
            return -1, self.deadline
        return None

    def _is_slow(self) -> bool:
        """Whether the client takes its answer more slowly than others can wait for."""
        elapsed = self.hub.now - self._blocked_since
        return elapsed > PATIENCE_SECONDS and self._taken() < LEAST_RATE * elapsed

    def _taken(self) -> int:
        """Bytes that the client has taken since its answer was blocked."""
        return self._blocked_size - self.transport.get_write_buffer_size()

    def _can_finish(self) -> bool:
        """Whether the client, at its pace, takes all of its answer before a stop is over."""
        elapsed = self.hub.now - self._blocked_since
        left = self.hub.stop_deadline - self.hub.now
        unsent = self.transport.get_write_buffer_size()
        return elapsed < PATIENCE_SECONDS / 2 or unsent * elapsed <= self._taken() * left

    def give_way(self) -> None:
        """Close for another's sake."""
        if self.phase in (SENDING, CLOSING):
            self._abort()
        else:
            self._close()

    def check_deadline(self) -> None:
        """Close the connection if its client is late with a request or with taking an answer."""
        now = self.hub.now
        if self.phase in (SENDING, ANSWERING):
            if not self._blocked:
                return
            unsent = self.transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self._unsent_since = unsent, now
            if (
                now - self._unsent_since > self.hub.send_timeout
                or (self.hub.stopping and not self._can_finish())
                or (self.hub.is_short_of_memory and self._is_slow())
            ):
                self._abort()
        elif now > self.deadline:
            if self.phase is CLOSING or self._blocked:
                self._abort()
            else:
                self._close()

    def _abort(self) -> None:
        self.phase = CLOSING
        self._forget()
        self.transport.abort()
