"""Clients and a store in any order of events: each request is answered, the accounting exact.

tests/simulation checks the content of the answers, with servers that exit.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.connections import Connection, Loop
from tests.support.corpus import CHUNKED, length, request
from tests.support.fake_stores import FakeSharedStore, FakeStore
from tests.support.in_process import PROTOCOL, InProcessService
from tests.support.parsing import Answer, answers_in
from tests.support.waiting import PATIENCE
from web.http.connection import Connection as ServedConnection
from web.http.connection import Phase
from web.http.hub import MAX_TURNED_AWAY, Hub

START: Final = 20_000
"""An index whose number is long enough to count in the budget: 4,180 digits."""

REQUESTS: Final = {
    "step": request("GET /next"),
    "step in chunks": request("POST /next", CHUNKED, body=b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"),
    "step if": request("GET /next", f'If-Match: "{START}"'),
    "last step": request("GET /next", "Connection: close"),
    "read": request("GET /current"),
    "text": request("GET /previous", "Accept: text/plain"),
    "page": request("POST /", length(b"a"), body=b"a"),
    "rubbish": b"rubbish\r\n\r\n",
}
STATUSES: Final = {"step if": {200, 412, 503}, "page": {405, 503}, "rubbish": {400}}
"""The valid statuses, if not 200 and 503."""
LAST: Final = ("last step", "rubbish")
"""Requests after these are not answered."""

BOUNDS: Final[dict[str, Any]] = {"max_connections": 4, "max_waiting_steps": 2}
CROWDED: Final = {
    "web.http.connection.ALWAYS_KEPT": 0,
    "web.http.hub.ALWAYS_KEPT": 0,
    "web.http.hub.MAX_KEPT": 150,
    "web.http.hub.MAX_PARTS": 150,
    "web.http.turns.AT_ONCE": 2,
    "web.http.protocol.MAX_PAGES": 1,
    "web.http.turns.TURN_SECONDS": -1.0,
    "web.http.turns.UNTIMED": 1,
}
"""Bounds that are not settings, with low values."""


class Client:
    """A connection, the requests sent on it, and the rest of a partly sent one."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked: list[str] = []
        self.rest: tuple[str, bytes] | None = None
        self.has_ended = False
        self.was_turned_away = False
        """Whether it got a 503 because all slots were taken."""

    @property
    def can_send(self) -> bool:
        return not (self.has_ended or self.connection.is_gone or self.connection.lost)

    @property
    def can_ask(self) -> bool:
        return self.can_send and self.rest is None and not set(self.asked[-1:]) & set(LAST)

    @property
    def answers(self) -> list[Answer]:
        return answers_in(self.connection.sent)

    @property
    def unanswered(self) -> list[str]:
        return [] if self.was_turned_away else self.asked[len(self.answers) :]


class Event(NamedTuple):
    name: str
    which: int
    """The client, modulo their number."""
    kind: str
    size: int | None
    """Bytes to send of a request, or to read of an answer; None for all."""


EVENTS: Final = (
    *("come", "ask", "ask", "ask", "ask half", "send the rest", "end", "reset", "take"),
    *("reply", "reply", "pass time", "others step", "fail over"),
)
orders = st.lists(
    st.builds(
        Event,
        st.sampled_from(EVENTS),
        st.integers(0, 5),
        st.sampled_from([*REQUESTS, "step", "step"]),
        st.sampled_from([None, None, 1, 50, 1_000, 6_000]),
    ),
    min_size=20,
    max_size=80,
)


class Crowd:
    """Clients of one server, with a store whose commits end at an event."""

    def __init__(self, loop: Loop, kind: type[FakeStore], *, is_crowded: bool) -> None:
        self.loop = loop
        self.store = kind(loop, START)
        self.limit = 6_000 if is_crowded else 10_500
        self.served = InProcessService(
            loop, PROTOCOL, self.store, max_answer_bytes=self.limit, **BOUNDS
        )
        self.store.blocking = True
        self.is_crowded = is_crowded
        self.clients: list[Client] = []
        self.others = 0
        """Steps made by other nodes."""

    def pick(self, which: int, able: Callable[[Client], bool]) -> Client | None:
        found = [each for each in self.clients if able(each)]
        return found[which % len(found)] if found else None

    def take_place(self, event: Event) -> None:
        """Apply the event, if possible."""
        name, which, kind, size = event
        store = self.store
        if name == "come" or (name == "ask" and not any(each.can_ask for each in self.clients)):
            # Deliver first: otherwise a client with a request under way would be evicted as idle.
            self.loop.settle()
            self.clients.append(Client(self.served.connect(size)))
            self.note_who_was_turned_away()
        if name == "ask" and (client := self.pick(which, lambda each: each.can_ask)):
            client.asked.append(kind)
            client.connection.send(REQUESTS[kind])
            return  # The next request may be pipelined behind it.
        if name == "ask half" and (client := self.pick(which, lambda each: each.can_ask)):
            kind = "step" if kind == "rubbish" else kind  # It is answered before it is complete.
            data, cut = REQUESTS[kind], min(size or 9, len(REQUESTS[kind]) - 1)
            client.rest = kind, data[cut:]
            client.connection.send(data[:cut])
        if name == "send the rest" and (client := self.pick(which, is_sending)):
            assert client.rest is not None
            (begun, rest), client.rest = client.rest, None
            client.asked.append(begun)
            client.connection.send(rest)
        if name == "end" and (client := self.pick(which, lambda each: each.can_send)):
            client.has_ended = True
            client.connection.end()
        if name == "reset" and (client := self.pick(which, lambda each: each.can_send)):
            client.connection.reset()
        if name == "take" and (client := self.pick(which, lambda each: each.connection.unsent > 0)):
            client.connection.take(size)
        if name == "reply" and store.asking:
            self.reply()
        if name == "pass time":
            self.loop.settle()
            self.loop.pass_time((size or 1) / 100)
        if name == "others step" and store.asking and isinstance(store, FakeSharedStore):
            store.index += 1
            self.others += 1
        if name == "fail over" and isinstance(store, FakeSharedStore):
            store.is_down = not store.is_down
        self.loop.settle()
        self.check()

    def note_who_was_turned_away(self) -> None:
        for client in self.clients:
            client.was_turned_away |= not client.asked and bool(client.connection.sent)

    def reply(self) -> None:
        self.loop.stirred.clear()
        self.store.finish()
        # It is queued behind the present work.
        assert self.loop.stirred.wait(PATIENCE)

    def check(self) -> None:
        """The invariants at any moment."""
        self.note_who_was_turned_away()
        taken = [
            each.index
            for client in self.clients
            for each in client.answers
            if each.status == 200 and each.field(b"cache-control") == b"no-store"
        ]
        assert len(set(taken)) == len(taken), "an index is answered twice"
        for client in self.clients:
            if not client.was_turned_away:
                assert len(client.answers) <= len(client.asked), "it answers what is not whole"
                for asked, answer in zip(client.asked, client.answers, strict=False):
                    assert answer.status in STATUSES.get(asked, {200, 503}), "out of order"
        made = self.store.index - START - self.others
        assert made + self.store.committing <= sum(
            map(steps_in, (each.asked for each in self.clients))
        )
        if not self.store.asking:
            gone = (each.unanswered for each in self.clients if each.connection.is_gone)
            assert made - len(taken) <= sum(map(steps_in, gone)), "a step is answered to nobody"
        self.check_counts()

    def check_counts(self) -> None:
        hub, server = self.served.hub, self.served.server
        there = [each.connection for each in self.clients if not each.connection.lost]
        held = [each.protocol for each in there if isinstance(each.protocol, ServedConnection)]
        assert server.connections == set(held)
        assert len(held) == len(there)
        assert hub._open.keys() <= server.connections
        assert len(hub._open) <= BOUNDS["max_connections"]
        assert len(hub._turned_away) <= MAX_TURNED_AWAY
        swept: set[object] = {*hub._open, *hub._turned_away}
        for each in there:
            assert each.is_closing() or each.protocol in swept, "nobody checks its deadline"
        for protocol in held:
            awaits = protocol.phase in (Phase.NEW, Phase.IDLE, Phase.ARRIVING)
            assert protocol._reading or not awaits, "what it waits for is never read"
        assert self.served.stepper.pending <= BOUNDS["max_waiting_steps"]
        numbers = {
            id(piece): len(piece)
            for each in there
            if each.unsent
            for piece in each.pieces
            if len(piece) >= 4096
        }
        assert hub.budget.used == sum(numbers.values()), "the bytes in flight"
        # Waiting steps leave room for reads of the current and the previous number.
        assert hub.budget.used <= self.limit + 2 * 4_190
        assert hub.kept == sum(len(each._rest) for each in held), "pipelined requests"
        arriving = [each for each in held if each.phase is Phase.ARRIVING]
        parts = sum(each._parser.size for each in arriving if each._parser is not None)
        assert hub.parts == parts, "what is not whole"
        assert hub.pages == len(server.tasks), "what Starlette answers"

    def finish(self) -> None:
        """Once the store replies and the clients read, everything that waits is answered."""
        self.loop.settle()
        if isinstance(self.store, FakeSharedStore):
            self.store.is_down = False
        while (
            self.store.asking
            or self.served.stepper.problem is not None
            or any(each.connection.unsent and not each.connection.lost for each in self.clients)
        ):
            for client in self.clients:
                client.connection.take()
            if self.store.asking:
                self.reply()
            self.loop.settle()
            self.loop.pass_time(0.5)
            self.check()
        for client in self.clients:
            was_closed = self.is_crowded and client.connection.closed
            if not (was_closed or client.connection.is_gone):
                assert not client.unanswered, "it was never answered"
            if client.can_send:
                client.connection.end()
        self.loop.pass_time(40.0)
        hub = self.served.hub
        assert all(each.connection.lost for each in self.clients)
        assert (hub.budget.used, hub.kept, hub.parts, hub.pages) == (0, 0, 0, 0)
        assert not [*hub._open, *self.served.server.connections, *self.served.server.tasks]


def is_sending(client: Client) -> bool:
    return client.can_send and client.rest is not None


def steps_in(asked: list[str]) -> int:
    return sum("step" in each for each in asked)


def run(order: list[Event], kind: type[FakeStore], *, is_crowded: bool) -> None:
    loop = Loop()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in CROWDED.items() if is_crowded else ():
            patched.setattr(name, value)
        crowd = Crowd(loop, kind, is_crowded=is_crowded)
        try:
            for event in order:
                crowd.take_place(event)
            crowd.finish()
        finally:
            crowd.served.abandon()
            loop.close()


CASES: Final = {
    "its own store": (FakeStore, False),
    "crowded": (FakeStore, True),
    "a shared store": (FakeSharedStore, False),
}


@pytest.mark.parametrize(("kind", "is_crowded"), CASES.values(), ids=CASES)
@given(order=orders)
def test_in_any_order_all_is_answered_and_memory_is_accounted_for(
    order: list[Event], kind: type[FakeStore], is_crowded: bool
) -> None:
    run(order, kind, is_crowded=is_crowded)


def keeps_no_pipelined_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServedConnection, "_keep", lambda *_: None)


def forgets_to_release_pipelined_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "let_go", lambda *_: None)


def holds_what_a_client_that_is_gone_was_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServedConnection, "_release", lambda _: None)


def never_reads_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServedConnection, "_resume_reading", lambda _: None)


def lets_one_that_waits_be_evicted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServedConnection, "eviction_rank", lambda self: (0, self.deadline))


@pytest.mark.parametrize(
    "breaking",
    [
        keeps_no_pipelined_requests,
        forgets_to_release_pipelined_requests,
        holds_what_a_client_that_is_gone_was_sent,
        never_reads_again,
        lets_one_that_waits_be_evicted,
    ],
)
def test_without_a_protection_some_order_fails(
    breaking: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch)

    @hypothesis.settings(
        max_examples=1_000,
        database=None,
        derandomize=True,
        deadline=None,
        phases=(hypothesis.Phase.generate,),
    )
    @given(order=orders)
    def search(order: list[Event]) -> None:
        run(order, FakeStore, is_crowded=False)

    with pytest.raises(AssertionError):
        search()
