"""The bounds on all connections together, and the clock of their deadlines."""

import asyncio
import itertools
import logging
import operator
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from fibcore.appliance import process
from web.http.access_log import FIELDS, AccessLog
from web.http.answers import Header, ServerHeaders
from web.http.heads import Heads
from web.http.kernel import least_share
from web.http.routing import Backend, Table
from web.http.turns import Turns

logger = logging.getLogger("fibcore")

KEEP_ALIVE: Final[Header] = (b"connection", b"keep-alive")
"""For answers to HTTP/1.0 after which the connection stays open: RFC 9112, 9.3 and C.2.2."""

SWEEP_SECONDS: Final = 0.5
"""How often deadlines are checked, which is their accuracy."""

CHARGED_SECONDS: Final = 2 * SWEEP_SECONDS
"""Most of the time between two readings of the clock that counts. If more has passed, the server
was stopped or its machine paused; what clients sent meanwhile has not been read yet."""

IDLE_SECONDS: Final = 5.0
"""How long a connection is kept between two requests."""

LINGER_SECONDS: Final = 1.0
"""How long incoming bytes are dropped before a connection is closed: RFC 9112, 9.6."""

MAX_DROPPED: Final = 256 * 1024
"""Bytes dropped per connection; past that, reading stops."""

MAX_TURNED_AWAY: Final = 128
"""Rejected connections that linger, so that their 503 is not lost. Past it the oldest is closed: a
client that has read its answer closes its end anyway."""

MAX_KEPT: Final = 4 * 2**20
"""Bytes of all connections together that are pipelined behind requests being answered, or that wait
for a turn of the loop."""

ALWAYS_KEPT: Final = 2048
"""Bytes of one connection that are always accepted: no crowd keeps a short request out."""

MAX_PARTS: Final = 4 * 2**20
"""Bytes of incomplete requests kept for all connections together; they take up to four times as
much memory. Past it the request that has been arriving for longest is evicted; a request that
arrives at once never is."""

MAX_PAGES: Final = 32
"""Requests that Starlette answers at the same time; more get a 503."""

LEAST_RATE: Final = 65_536
"""Bytes per second of its answer that a client must take to keep its place when others need it."""

JUST_ARRIVED: Final = (3, 0.0)
"""The eviction rank of a new connection: evicted only if there is no other candidate."""

FEW: Final = 64
"""Connections scanned for an eviction candidate when scanning all costs too much."""

PATIENCE_SECONDS: Final = 2.0
"""How long a client may be slower than ``LEAST_RATE``, as at the start of a connection."""

GRACE_SECONDS: Final = 0.25
"""The same when a new connection has no other place; the client that has been slow for longest is
evicted first. If this were as long as ``PATIENCE_SECONDS``, clients that read nothing and reconnect
in time could never be evicted. Also the time that a new connection has to send a request before it
is considered idle."""


class InOrder(dict[object, None]):
    """A set in insertion order: a stop handles the oldest connections first."""

    def add(self, each: object) -> None:
        """Add ``each`` at the end, unless it is there."""
        self[each] = None

    def discard(self, each: object) -> None:
        """Remove ``each``, if it is there."""
        self.pop(each, None)


class Member(Protocol):
    """A connection as the hub sees it; see ``web.http.connection``."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    deadline: float

    def eviction_rank(self) -> tuple[int, float] | None:
        """Lower is evicted first; None: must not be evicted."""

    def evict(self) -> None:
        """Close to make room for another."""

    def check_deadline(self) -> None:
        """Close if the client is late."""


class Hub:
    """What the connections of a server share.

    Args:
        backend: the source of the answers.
        table: the endpoints.
        access: the access log, if requests are logged.
    """

    def __init__(self, backend: Backend, table: Table, access: AccessLog | None = None) -> None:
        self.backend = backend
        self.budget = backend.admission.in_flight
        self.turns = Turns()
        settings = backend.settings
        self.heads = Heads(
            table,
            backend.answered,
            settings.allowed_origins,
            settings.answered_hosts,
            frozenset() if access is None else FIELDS,
        )
        self.known = self.heads.known
        self.access = access
        self.stopping = False
        """Whether the server is stopping."""
        self.stop_deadline = 0.0
        """When the stop ends in any case."""
        self.headers: Sequence[Header] = ()
        self.lines = ServerHeaders()
        """The server's own header lines, made from ``headers``."""
        self.kept_lines = ServerHeaders()
        """The same for an HTTP/1.0 connection that stays open."""
        self.pages = 0
        """Requests that Starlette is answering."""
        self.now = 0.0
        """The hub's clock, seconds, as of the last sweep or connection: the event loop's without
        ``stood``."""
        self.stood = 0.0
        """Seconds in which the server did not run; no client is late for them."""
        self.idle_deadline = 0.0
        """The deadline of a connection that becomes idle now."""
        self.receive_deadline = 0.0
        """The deadline of a request that begins to arrive now."""
        self.send_timeout = settings.send_timeout
        """Seconds within which a client must take some of its answer."""
        self._limit = settings.max_connections
        self.least_share = least_share(self.budget.limit, self._limit)
        """Bytes that the kernel may hold for each connection in any case."""
        self.receive_timeout = settings.receive_timeout
        self._open: dict[Member, None] = {}
        backend.connections = self._open
        self._turned_away: dict[Member, None] = {}
        """Rejected connections whose 503 may still be under way, oldest first."""
        self._candidates: deque[tuple[Member, tuple[int, float]]] = deque()
        """At the limit: the eviction candidates of the last scan in order, each with its rank."""
        self._scanned = 0.0
        self._sweeping: asyncio.TimerHandle | None = None
        self.kept = 0
        """Bytes pipelined behind requests, or waiting for a turn."""
        self._parts: dict[Member, int] = {}
        """Bytes of each incomplete request, in the order in which they began to arrive."""
        self.parts = 0
        """Bytes of all incomplete requests."""

    def renew_lines(self, headers: Sequence[Header]) -> None:
        """Adopt the server's own headers; uvicorn makes a new list when the date changes."""
        if headers is not self.headers:
            self.headers = headers
            self.lines = ServerHeaders(headers)
            self.kept_lines = ServerHeaders((*headers, KEEP_ALIVE))

    def add(self, connection: Member) -> bool:
        """Admit a new connection, if need be by evicting another; return whether it is admitted."""
        self._tell_time(connection.loop)
        self.backend.accepted += 1
        if len(self._open) >= self._limit and not self._make_room():
            reason = f"{len(self._open)} connections are open, and none of them is idle"
            self.backend.admission.overloaded("connections", reason)
            return False
        self._open[connection] = None
        connection.deadline = self.receive_deadline
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return True

    def discard(self, connection: Member) -> None:
        """Forget a connection that is closed."""
        self._open.pop(connection, None)
        self._turned_away.pop(connection, None)

    def turn_away(self, connection: Member) -> None:
        """Let a rejected connection linger, for ``LINGER_SECONDS`` or until others need its
        place."""
        self._turned_away[connection] = None
        if len(self._turned_away) > MAX_TURNED_AWAY:
            oldest = next(iter(self._turned_away))
            self.discard(oldest)
            oldest.evict()

    def stop(self) -> None:
        """Begin to stop."""
        if not self.stopping:
            self.stopping = True
            seconds = self.backend.settings.stop_timeout
            self.stop_deadline = self.now + seconds
            # The other half is for sending the answers.
            self.backend.stop(seconds / 2)

    def keep(self, size: int) -> bool:
        """Count bytes pipelined behind a request; return whether there is room for them."""
        if size > ALWAYS_KEPT and self.kept + size > MAX_KEPT:
            return False
        self.kept += size
        return True

    def let_go(self, size: int) -> None:
        """Undo ``keep``."""
        self.kept -= size

    def keep_part(self, connection: Member, size: int) -> None:
        """Count ``size`` bytes of an incomplete request, which may evict the oldest one."""
        self.parts += size - self._parts.get(connection, 0)
        self._parts[connection] = size
        while self.parts > MAX_PARTS:
            oldest = next(iter(self._parts))
            self.let_part_go(oldest)
            oldest.evict()

    def let_part_go(self, connection: Member) -> None:
        """Undo ``keep_part``, if there was one."""
        self.parts -= self._parts.pop(connection, 0)

    @property
    def count(self) -> int:
        """Number of open connections."""
        return len(self._open)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether the answers in flight leave little room for others."""
        return self.budget.used > (self.budget.limit - self.budget.lent) // 2

    def _tell_time(self, loop: asyncio.AbstractEventLoop) -> None:
        passed = loop.time() - self.stood - self.now
        self.stood += max(0.0, passed - CHARGED_SECONDS)
        self.now = now = loop.time() - self.stood
        self.idle_deadline = now + IDLE_SECONDS + SWEEP_SECONDS
        self.receive_deadline = now + self.receive_timeout

    def _make_room(self) -> bool:
        """Evict the connection of the lowest rank; return whether there was one."""
        if self._evict_one():
            return True
        self._scan_for_eviction()
        return self._evict_one()

    def _evict_one(self) -> bool:
        while self._candidates:
            connection, then = self._candidates.popleft()
            now = connection.eviction_rank() if connection in self._open else None
            # A connection used since the scan may rank higher now.
            if now is not None and now <= then:
                self.discard(connection)
                connection.evict()
                return True
        return False

    def _scan_for_eviction(self) -> None:
        """Find eviction candidates."""
        if self.now - self._scanned > SWEEP_SECONDS / 10:
            self._scanned = self.now
            scanned = list(self._open)
        else:
            # Scanning all costs more than admitting one: each newcomer in a burst scans a few, and
            # each scans different ones.
            scanned = list(itertools.islice(self._open, FEW))
            for each in scanned:
                del self._open[each]
                self._open[each] = None
        ranks = {each: rank for each in scanned if (rank := each.eviction_rank()) is not None}
        if any(rank < JUST_ARRIVED for rank in ranks.values()):
            ranks = {each: rank for each, rank in ranks.items() if rank < JUST_ARRIVED}
        self._candidates.extend(sorted(ranks.items(), key=operator.itemgetter(1)))

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = None
        self._tell_time(loop)
        self._candidates.clear()
        try:
            for connection in (*self._open, *self._turned_away):
                try:
                    connection.check_deadline()
                except Exception:
                    logger.exception("A connection's deadline can't be checked; it is closed.")
                    self.discard(connection)
                    connection.transport.abort()
        finally:
            self._relieve()
            if self._open or self._turned_away:
                self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop)

    def _relieve(self) -> None:
        """Return memory to the system after a crowd has gone."""
        budget = self.budget
        if budget.most > process.KEPT_MEMORY and budget.used < budget.most // 4:
            budget.most = budget.used
            process.give_back_memory()
