"""A client's connection: its phase, what is held for it, and when it is closed.

A connection takes one request at a time. What a client pipes behind it stays in bytes until it is
answered and the answer has left, so that a connection holds one request and one answer:

    IDLE --bytes--> ARRIVING --the request is whole--> ANSWERING --written--> SENDING --sent--> IDLE
                                                                     \\--sent at once-----------/
    NEW, until its first byte: IDLE, for a time of its own.
    WAITING, from IDLE and ARRIVING: bytes are there, and the turn of the loop has no time for them.
    CLOSING, from everywhere: nothing more is answered, and what still arrives is dropped.

``protocol`` takes the requests and answers them; ``hub`` keeps the bounds on all
connections and the clock of their deadlines.
"""

import asyncio
import enum
from typing import Any, ClassVar, Self

import uvicorn
from uvicorn.server import ServerState

from web.http.asgi import AsgiCycle
from web.http.heads import Head
from web.http.hub import (
    ALWAYS_KEPT,
    GRACE_SECONDS,
    IDLE_SECONDS,
    JUST_COME,
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
    """What a connection is about. See the top of this file."""

    NEW = enum.auto()
    IDLE = enum.auto()
    WAITING = enum.auto()
    ARRIVING = enum.auto()
    ANSWERING = enum.auto()
    SENDING = enum.auto()
    CLOSING = enum.auto()


NEW, IDLE, WAITING, ARRIVING, ANSWERING, SENDING, CLOSING = Phase


class Connection(asyncio.Protocol):
    """A connection, of the ``hub`` that ``bound_to`` binds it to.

    uvicorn's server makes it, counts it, and asks it to ``shutdown``, as uvicorn's own protocol.
    """

    bound: ClassVar[Hub]

    @classmethod
    def bound_to(cls, hub: Hub) -> type[Self]:
        """The class of the connections of ``hub``."""
        return type(cls.__name__, (cls,), {"bound": hub})

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # Looked up at each request, which Python does faster than in the class.
        self.hub = self.bound
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.phase = NEW
        self.deadline = 0.0  # pragma: no mutate: set before it is read
        """When the client is late, by the hub's clock; while ANSWERING it can't be."""
        self._head: Head
        """Of the request that is being answered, while ANSWERING."""
        self._parser: Parser | None = None
        self._rest = b""
        """What has arrived behind the request that is being answered, or is WAITING."""
        self._resumes = IDLE
        """The phase that it was in before it was WAITING."""
        self._partly = False  # pragma: no mutate boolean: nothing is kept of it
        """Whether some of a request that is not whole is kept."""
        self._reading = True
        self._taking = False
        """Whether requests are being taken out of ``_rest`` now."""
        self._more_to_do = False  # pragma: no mutate boolean: the longer way ends as the other
        """Whether an answer is followed by more than the wait for a request. Where it isn't, as
        nearly always, none of what follows here is so."""
        self._last = False
        """Whether the connection is closed behind the answer that comes next."""
        self._ended = False
        """Whether the client has sent all that it will."""
        self._dropping = False
        """Whether some of what the client sends is not answered."""
        self._dropped = 0
        """Bytes that have arrived while CLOSING."""
        self._blocked = False
        """Whether something that was written has not left."""
        self._blocked_since = 0.0  # pragma: no mutate: set before it is read
        """By the loop's clock; with ``_blocked_size``, what the client's pace is reckoned from."""
        self._blocked_size = 0  # pragma: no mutate: set before it is read
        """Bytes that had not left then."""
        self._unsent = 0  # pragma: no mutate: set before it is read
        """Bytes that had not left when that was last looked at."""
        self._unsent_since = 0.0  # pragma: no mutate: set before it is read
        """When that was last less than before."""
        self._share: Share
        """What the kernel may hold of what is written."""
        self._held: bytes | None = None
        """The digits of the answer that is SENDING, if they are counted."""
        self._cycle: AsgiCycle | None = None
        """With Starlette, while it answers."""

    @property
    def address(self) -> str:
        """The client's, without its port; empty where it has none."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    # What the event loop calls.

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.phase = CLOSING
        self.server_state.connections.discard(self)
        self.hub.discard(self)
        self._forget()
        self._release()
        self._share.end()
        if self._cycle is not None:
            self._cycle.disconnect()
            self._end_cycle()

    def eof_received(self) -> bool:
        """Whether the connection stays open, for what the client is still to be sent."""
        self._ended = self._more_to_do = True
        if self.phase in (ANSWERING, SENDING, WAITING):
            return True
        self.phase = CLOSING
        return False

    def pause_writing(self) -> None:
        self._blocked = self._more_to_do = True
        self._blocked_size = self._unsent = self.transport.get_write_buffer_size()
        self._blocked_since = self._unsent_since = self.loop.time()
        if self._cycle is not None:
            self._cycle.flow.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        self._release()
        self._share.grow(self.hub.count)
        if self._cycle is not None:
            self._cycle.flow.resume_writing()
        elif self.phase is SENDING:
            self._sent()

    # What uvicorn calls.

    def shutdown(self) -> None:
        """Close as soon as nothing is lost by it: a request that is not whole has done nothing."""
        self.hub.stop()
        if self.phase is WAITING:
            # What it asks for has arrived; see ``take_turn``.
            return
        if self.phase not in (ANSWERING, SENDING):
            self._close()
            return
        self._last = self._more_to_do = True
        if self._cycle is not None:
            self._cycle.close_behind()
        if self._rest:
            self._dropping = True
            self._drop_rest()
            self._resume_reading()
        # From now on the pace counts.
        self._blocked_size = self.transport.get_write_buffer_size()
        self._blocked_since = self.hub.now

    # What the protocol does.

    def _sent(self) -> None:
        """Go on behind an answer that has left."""
        raise NotImplementedError  # pragma: no mutate removal: it never comes to it

    def _take(self, data: bytes, *, unknown: bool = True) -> None:
        """Answer the requests in ``data`` one after the other, as far as that can be done now."""
        raise NotImplementedError  # pragma: no mutate removal: it never comes to it

    def _answer(self, head: Head) -> None:
        """Answer a request that is whole."""
        raise NotImplementedError  # pragma: no mutate removal: it never comes to it

    # Its turn.

    def _put_off(self, data: bytes) -> None:
        """Keep what has arrived until a turn of the loop has time for it."""
        if not self.hub.keep(len(data)):
            # Behind a part that is missing nothing can be told.
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
        """Go on with what was put off; what is no more need not."""
        if self.phase is not WAITING:
            return
        hub, rest = self.hub, self._rest
        self.phase = self._resumes
        self._rest = b""
        hub.let_go(len(rest))
        if hub.stopping:
            # It is the last, however much there is.
            self._last = self._more_to_do = True
            self._take(rest, unknown=False)
            if self.phase in (IDLE, ARRIVING):
                self._close()
        elif self.phase is IDLE and (head := hub.known.get(rest)) is not None:
            self._answer(head)
        else:
            self._take(rest, unknown=False)

    # What is held.

    def _drop(self, size: int) -> None:
        """Drop so many bytes that have arrived while CLOSING, and in the end hear no more."""
        self._dropped += size
        if self._dropped > MAX_DROPPED:
            self._pause_reading()

    def _keep(self, data: bytes) -> None:
        """Keep what has arrived until it is its turn, and let no more arrive."""
        self._more_to_do = True
        if self._last or not self.hub.keep(len(data)):
            # Nothing of it will be answered, or there is no room for it.
            self._last = self._dropping = True
            return
        self._rest += data
        self._pause_reading()

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

    def _release(self) -> None:
        if self._held is not None:
            self.hub.budget.release(self._held)
            self._held = None

    def _end_cycle(self) -> None:
        if self._cycle is not None:
            self._cycle = None
            self.hub.cycles -= 1

    # Its end.

    def _close(self) -> None:
        self.phase = CLOSING
        self._forget()
        if self._dropping and not self._ended:
            # Closed now, what is unread would have the kernel reset the connection, and the client
            # could lose the answer: RFC 9112, 9.6.
            self._linger()
        elif not self.hub.stopping and self._takes_what_is_held():
            # It counts until its answer has been taken, or is dropped.
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Send nothing more, and drop what arrives for a while."""
        self.deadline = self.hub.now + LINGER_SECONDS
        self.transport.write_eof()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()

    # Bounds.

    def eviction_rank(self) -> tuple[int, float] | None:
        """Lower is evicted first; None: must not be evicted.

        A request counts for nothing until it is whole: until then nothing is done.
        """
        if self.phase is IDLE:
            return 0, self.deadline - IDLE_SECONDS - SWEEP_SECONDS
        if self.phase is NEW:
            came = self.deadline - self.hub.receive_timeout
            # One that has just come has not had the time to ask.
            return (0 if self.hub.now - came > GRACE_SECONDS else JUST_COME[0]), came
        if self.phase is ARRIVING:
            return 1, self.deadline  # pragma: no mutate number: the second field decides
        if self.phase is SENDING and self._is_slow(GRACE_SECONDS):
            return 2, self._blocked_since  # pragma: no mutate number: their order counts
        if self.phase is CLOSING and not self._blocked:
            return -1, self.deadline  # pragma: no mutate number: their order counts
        return None

    def _is_slow(self, patience: float) -> bool:
        """Whether the client takes its answer more slowly than others can wait for."""
        elapsed = self.hub.now - self._blocked_since
        # pragma: no mutate boundary: at that very moment either does
        return elapsed > patience and self._taken() < LEAST_RATE * elapsed

    def _taken(self) -> int:
        """Bytes that the client has taken since its answer was blocked."""
        return self._blocked_size - self.transport.get_write_buffer_size()

    def _can_finish(self) -> bool:
        """Whether the client, at its pace, takes all of its answer before a stop is over."""
        elapsed = self.hub.now - self._blocked_since
        left = self.hub.stop_deadline - self.hub.now
        unsent = self.transport.get_write_buffer_size()
        # pragma: no mutate boundary, number: a chosen figure; at that very moment either does
        return elapsed < PATIENCE_SECONDS / 2 or unsent * elapsed <= self._taken() * left

    def evict(self) -> None:
        """Close to make room for another."""
        if self.phase in (SENDING, CLOSING) or self._share.held:
            self.abort()
        else:
            self._close()

    def check_deadline(self) -> None:
        """Close the connection if its client is late with a request or with taking an answer."""
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
                # pragma: no mutate boundary: at that very moment either does
                now - self._unsent_since > self.hub.send_timeout
                or (self.hub.stopping and not self._can_finish())
                or (self.hub.is_short_of_memory and self._is_slow(PATIENCE_SECONDS))
            ):
                self.abort()
        elif now > self.deadline:  # pragma: no mutate boundary: at that very moment either does
            if self.phase in (IDLE, CLOSING) and self._takes_what_is_held():
                self.deadline = now + LINGER_SECONDS
            elif self.phase is CLOSING or self._blocked or self._share.held:
                self.abort()
            else:
                self._close()

    def _takes_what_is_held(self) -> bool:
        """Whether the client has an answer to take from the kernel, and is not late with it."""
        now, held = self.hub.now, self._share.held
        if held != self._unsent:
            self._unsent, self._unsent_since = held, now
        return held > 0 and now - self._unsent_since <= self.hub.send_timeout

    def abort(self) -> None:
        """Close at once: nothing more is sent."""
        self.phase = CLOSING
        self._forget()
        self._share.drop()
        self.transport.abort()
