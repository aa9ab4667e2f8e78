"""A client's connection: its phase, the memory held for it, and when it is closed.

A connection takes one request at a time. Pipelined bytes stay unparsed until the request before
them is answered and the answer sent, so a connection holds at most one request and one answer:

    IDLE --bytes--> ARRIVING --the request is whole--> ANSWERING --written--> SENDING --sent--> IDLE
                                                                     \\--sent at once-----------/
    NEW, until the first byte: like IDLE, with a deadline of its own.
    WAITING, from IDLE and ARRIVING: bytes have arrived, but this turn of the loop has no time left.
    CLOSING, from any phase: nothing more is answered, and bytes that still arrive are dropped.

``protocol`` takes the requests and answers them; ``hub`` keeps the bounds on all connections and
the clock of their deadlines.
"""

import asyncio
import enum
from typing import Any, ClassVar, Self

import uvicorn
from uvicorn.server import ServerState

from web.http.heads import Head
from web.http.hub import (
    ALWAYS_KEPT,
    GRACE_SECONDS,
    IDLE_SECONDS,
    JUST_ARRIVED,
    LEAST_RATE,
    LINGER_SECONDS,
    MAX_DROPPED,
    PATIENCE_SECONDS,
    SWEEP_SECONDS,
    Hub,
)
from web.http.kernel import Share
from web.http.parser import Parser


class Phase(enum.Enum):
    """The phase of a connection; see the top of this file."""

    NEW = enum.auto()
    IDLE = enum.auto()
    WAITING = enum.auto()
    ARRIVING = enum.auto()
    ANSWERING = enum.auto()
    SENDING = enum.auto()
    CLOSING = enum.auto()


NEW, IDLE, WAITING, ARRIVING, ANSWERING, SENDING, CLOSING = Phase


class Connection(asyncio.Protocol):
    """A connection; ``bound_to`` makes a class of them for one hub.

    uvicorn's server creates it, counts it, and calls ``shutdown``, as for its own protocol.
    """

    shared_hub: ClassVar[Hub]

    @classmethod
    def bound_to(cls, hub: Hub) -> type[Self]:
        """A class whose connections belong to ``hub``."""
        return type(cls.__name__, (cls,), {"shared_hub": hub})

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # Used at each request: Python finds it faster here than in the class.
        self.hub = self.shared_hub
        self.config = config
        self.server_state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.phase = NEW
        self.deadline = 0.0
        """When the client becomes late, by the hub's clock; unused while WAITING, ANSWERING or
        SENDING."""
        self._head: Head
        """The head of the request being answered, while ANSWERING."""
        self._parser: Parser | None = None
        self._rest = b""
        """Bytes that have arrived behind the request being answered, or that are WAITING."""
        self._resumes = IDLE
        """The phase before WAITING."""
        self._reading = True
        self._taking = False
        """Whether ``_take`` is running."""
        self._more_to_do = False
        """Whether an answer may be followed by anything but waiting for a request. Nearly always
        False."""
        self._last = False
        """Whether the connection closes after the current answer, or else the next."""
        self._ended = False
        """Whether the client has closed its sending side."""
        self._dropping = False
        """Whether some of the client's bytes remain unanswered."""
        self._dropped = 0
        """Bytes that have arrived while CLOSING."""
        self._blocked = False
        """Whether written bytes have not left yet."""
        self._blocked_since = 0.0
        """By the hub's clock; with ``_blocked_size``, the base of the client's pace."""
        self._blocked_size = 0
        """Bytes unsent at that time."""
        self._unsent = 0
        """Bytes unsent at the last check."""
        self._unsent_since = 0.0
        """When that number last fell."""
        self._share: Share
        """Bytes written that the kernel may hold."""
        self._held: bytes | None = None
        """The digits of the answer that is SENDING, if counted in the budget."""

    @property
    def address(self) -> str:
        """The client's address without the port; empty if it has none."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    # Called by the event loop.

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.phase = CLOSING
        self.server_state.connections.discard(self)
        self.hub.discard(self)
        self._forget()
        self._release()
        self._share.end()

    def eof_received(self) -> bool:
        """Return whether the connection stays open because an answer is still due."""
        self._ended = self._more_to_do = True
        if self.phase in (ANSWERING, SENDING, WAITING):
            return True
        self.phase = CLOSING
        return False

    def pause_writing(self) -> None:
        self._blocked = self._more_to_do = True
        self._blocked_size = self._unsent = self.transport.get_write_buffer_size()
        self._blocked_since = self._unsent_since = self.loop.time() - self.hub.stood

    def resume_writing(self) -> None:
        self._blocked = False
        self._release()
        self._share.grow(self.hub.count)
        if self.phase is SENDING:
            self._sent()

    # Called by uvicorn.

    def shutdown(self) -> None:
        """Close as soon as nothing is lost by it: an incomplete request has had no effect."""
        self.hub.stop()
        if self.phase is WAITING:
            # Its request has arrived; see ``take_turn``.
            return
        if self.phase not in (ANSWERING, SENDING):
            self._close()
            return
        self._last = self._more_to_do = True
        if self._rest:
            self._dropping = True
            self._drop_rest()
            self._resume_reading()
        # From now on the client's pace counts.
        self._blocked_size = self.transport.get_write_buffer_size()
        self._blocked_since = self.hub.now

    # Implemented by the protocol.

    def _sent(self) -> None:
        """Continue after an answer that has been sent."""
        raise NotImplementedError

    def _take(self, data: bytes, *, unknown: bool = True) -> None:
        """Answer the requests in ``data`` one after the other, as far as possible now."""
        raise NotImplementedError

    def _answer(self, head: Head) -> None:
        """Answer a complete request."""
        raise NotImplementedError

    # Turns.

    def _put_off(self, data: bytes) -> None:
        """Keep ``data`` until a turn of the loop has time for it."""
        if not self.hub.keep(len(data)):
            # Bytes after a gap can't be interpreted.
            self._dropping = True
            self._close()
            return
        self._rest = data
        if len(data) > ALWAYS_KEPT:
            self._pause_reading()
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._resumes = self.phase
        self.phase = WAITING
        self.hub.turns.put_off(self)

    def take_turn(self) -> None:
        """Continue with the deferred bytes, unless the connection has moved on."""
        if self.phase is not WAITING:
            return
        hub, rest = self.hub, self._rest
        self.phase = self._resumes
        self._rest = b""
        hub.let_go(len(rest))
        if hub.stopping:
            # Answer one more request, whatever else has arrived.
            self._last = self._more_to_do = True
            self._take(rest, unknown=False)
            if self.phase in (IDLE, ARRIVING):
                self._close()
        elif self.phase is IDLE and (head := hub.known.get(rest)) is not None:
            self._answer(head)
        else:
            self._take(rest, unknown=False)

    # Bytes held.

    def _drop(self, size: int) -> None:
        """Drop bytes that arrived while CLOSING; past ``MAX_DROPPED``, stop reading."""
        self._dropped += size
        if self._dropped > MAX_DROPPED:
            self._pause_reading()

    def _keep(self, data: bytes) -> None:
        """Keep ``data`` until its turn, and stop reading until then."""
        if self._last or not self.hub.keep(len(data)):
            # It won't be answered, or there is no room for it.
            self._last = self._dropping = True
            return
        self._rest += data
        self._pause_reading()

    def _drop_rest(self) -> None:
        self.hub.let_go(len(self._rest))
        self._rest = b""

    def _forget(self) -> None:
        """Release all bytes that have arrived and won't be answered."""
        self._drop_rest()
        self.hub.let_part_go(self)
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def _release(self) -> None:
        if self._held is not None:
            self.hub.budget.release(self._held)
            self._held = None

    # Closing.

    def _close(self) -> None:
        self.phase = CLOSING
        self._forget()
        if self._dropping and not self._ended:
            # A close with unread bytes makes the kernel reset the connection, and the client could
            # lose the answer: RFC 9112, 9.6.
            self._linger()
        elif not self.hub.stopping and self._takes_what_is_held():
            # The connection keeps its place until its answer is taken or dropped.
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Send nothing more, and drop incoming bytes for ``LINGER_SECONDS``."""
        self.deadline = self.hub.now + LINGER_SECONDS
        self.transport.write_eof()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            # Whoever answers next must resume it.
            self._more_to_do = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    # Eviction and deadlines.

    def eviction_rank(self) -> tuple[int, float] | None:
        """Lower is evicted first; None: must not be evicted.

        An incomplete request does not count: it has had no effect.
        """
        if self.phase is IDLE:
            return 0, self.deadline - IDLE_SECONDS - SWEEP_SECONDS
        if self.phase is NEW:
            arrived = self.deadline - self.hub.receive_timeout
            # A new connection has not had the time to send a request.
            return (0 if self.hub.now - arrived > GRACE_SECONDS else JUST_ARRIVED[0]), arrived
        if self.phase is ARRIVING:
            return 1, self.deadline
        if self.phase is SENDING and self._is_slow(GRACE_SECONDS):
            return 2, self._blocked_since
        if self.phase is CLOSING and not self._blocked:
            return -1, self.deadline
        return None

    def _is_slow(self, patience: float) -> bool:
        """Whether the client takes its answer too slowly to keep a place that others need."""
        elapsed = self.hub.now - self._blocked_since
        return elapsed > patience and self._taken() < LEAST_RATE * elapsed

    def _taken(self) -> int:
        """Bytes that the client has taken since its answer blocked."""
        return self._blocked_size - self.transport.get_write_buffer_size()

    def _can_finish(self) -> bool:
        """Whether the client, at its pace, will have its whole answer before the stop deadline."""
        elapsed = self.hub.now - self._blocked_since
        left = self.hub.stop_deadline - self.hub.now
        unsent = self.transport.get_write_buffer_size()
        return elapsed < PATIENCE_SECONDS / 2 or unsent * elapsed <= self._taken() * left

    def evict(self) -> None:
        """Close to make room for another."""
        if self.phase in (SENDING, CLOSING) or self._share.held:
            self.abort()
        else:
            self._close()

    def check_deadline(self) -> None:
        """Close the connection if the client is late in sending a request or taking an answer."""
        now = self.hub.now
        self._share.shrink(self.hub.count)
        if self.phase in (SENDING, ANSWERING, WAITING):
            if not self._blocked:
                return
            unsent = self.transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self._unsent_since = unsent, now
                self._share.grow(self.hub.count)
            if (
                now - self._unsent_since > self.hub.send_timeout
                or (self.hub.stopping and not self._can_finish())
                or (self.hub.is_short_of_memory and self._is_slow(PATIENCE_SECONDS))
            ):
                self.abort()
        elif now > self.deadline:
            if self.phase in (IDLE, CLOSING) and self._takes_what_is_held():
                self.deadline = now + LINGER_SECONDS
            elif self.phase is CLOSING or self._blocked or self._share.held:
                self.abort()
            else:
                self._close()

    def _takes_what_is_held(self) -> bool:
        """Whether the kernel holds an answer that the client is not late in taking."""
        now, held = self.hub.now, self._share.held
        if held != self._unsent:
            self._unsent, self._unsent_since = held, now
        return held > 0 and now - self._unsent_since <= self.hub.send_timeout

    def abort(self) -> None:
        """Close at once, sending nothing more."""
        self.phase = CLOSING
        self._forget()
        self._share.drop()
        self.transport.abort()
