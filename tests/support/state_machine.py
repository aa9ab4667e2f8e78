"""A state machine: many connections on one service, in any order of events.

Clients send pieces of requests of every kind, pipe them, close their sending half, are gone, read
slowly; commits take their time, the process is killed and another takes over, bounds are low, time
passes, a stop comes. After each of these all is looked at: see ``check``.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.client_model import KINDS, ClientModel, Ledger
from tests.support.connections import Loop
from tests.support.fake_stores import FakeSharedStore, FakeStore
from tests.support.in_process import PROTOCOL, InProcessService
from tests.support.waiting import PATIENCE
from web.http.connection import Connection as ServedConnection
from web.http.connection import Phase
from web.http.hub import MAX_TURNED_AWAY

START: Final = 20_000
"""Of a number that is long enough to be counted: 4,180 digits."""

BOUNDS: Final[dict[str, Any]] = {
    "max_connections": 4,
    "max_waiting_steps": 2,
    "max_index": START + 40,
}
GRACEFUL_STOP: Final = 5.0

LOW: Final = {
    "web.http.hub.ALWAYS_KEPT": 0,
    "web.http.hub.MAX_KEPT": 150,
    "web.http.hub.MAX_PARTS": 150,
    "web.http.turns.AT_ONCE": 2,
    "web.http.protocol.MAX_CYCLES": 1,
    "web.http.turns.TURN_SECONDS": -1.0,
    "web.http.turns.UNTIMED": 1,
}
"""Bounds that are no settings, as they are where the connections are crowded."""

some = st.integers(0, 7)
"""Which of the clients, counted around."""
kinds = st.sampled_from([*KINDS, "a step", "a step", "a step", "a step if"])
rooms = st.sampled_from([None, None, 0, 100, 6_000])
"""How much a client takes of what it is sent before it waits."""


class ServiceMachine(RuleBasedStateMachine):
    """The service and its clients, over the lives of several processes."""

    kind: type[FakeStore] = FakeStore
    is_crowded = False
    max_in_flight = 10_500
    """Two numbers, and some."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        if self.is_crowded:
            for name, value in LOW.items():
                self.patch.setattr(name, value)
        self.loop = Loop()
        self.ledger = Ledger(START)
        self.index = START
        self.others = 0
        """Steps that other nodes have made."""
        self.former: list[ClientModel] = []
        """Of the processes that have ended."""
        self.begin()

    def begin(self) -> None:
        """A process takes over, where the last one has left the store."""
        self.clients: list[ClientModel] = []
        self.store = self.kind(self.loop, self.index)
        self.served = InProcessService(
            self.loop,
            PROTOCOL,
            self.store,
            stop_timeout=GRACEFUL_STOP,
            max_answer_bytes=self.max_in_flight,
            **BOUNDS,
        )
        self.store.blocking = True
        self.stopped_at: float | None = None

    def settle(self) -> None:
        """Let all happen that can, and look at it."""
        self.loop.settle()
        self.check()
        if self.stopped_at is None:
            return
        if all(each.connection.lost for each in self.clients) and not self.store.asking:
            self.served.close()
            self.end_life()
        elif self.loop.now - self.stopped_at > GRACEFUL_STOP:
            self.kill(committed=False)

    def kill(self, *, committed: bool) -> None:
        self.served.kill(committed=committed)
        self.check_answers()
        self.end_life()

    def end_life(self) -> None:
        self.index = self.store.index
        self.former += self.clients
        self.begin()
        self.check()

    @property
    def has_been_asked(self) -> bool:
        """Whether this process has been asked for something: until then little can go wrong."""
        return sum(len(each.asked) for each in self.clients) > 5

    @property
    def places_taken(self) -> int:
        return sum(not each.connection.lost for each in self.clients)

    def one(self, number: int, condition: Callable[[ClientModel], bool]) -> ClientModel | None:
        able = [each for each in self.clients if condition(each)]
        return able[number % len(able)] if able else None

    # What clients do.

    def let_come(self, room: int | None) -> None:
        # What has been sent has arrived: else one that has asked would give way as if it had not.
        self.settle()
        if self.stopped_at is None:
            client = ClientModel(self.served.connect(room), self.ledger)
            client.collect(self.store.index)
            self.clients.append(client)

    @precondition(lambda self: self.has_been_asked and self.places_taken < 6)
    @rule(room=rooms)
    def connect(self, room: int | None) -> None:
        self.let_come(room)
        self.settle()

    @rule(
        number=some,
        kinds=st.lists(kinds, min_size=1, max_size=4),
        distance=st.sampled_from([0, 0, 0, -1, 1]),
        half=st.none() | st.integers(1, 90),
        room=rooms,
        at_once=st.booleans(),
    )
    def ask(
        self,
        number: int,
        kinds: list[str],
        distance: int,
        half: int | None,
        room: int | None,
        at_once: bool,
    ) -> None:
        """Someone pipes requests, of which the last may be half; there are three at the least."""
        if self.places_taken < 3 or not any(each.can_ask for each in self.clients):
            self.let_come(room)
        client = self.one(number, lambda each: each.can_ask)
        if client is not None:
            client.ask([KINDS[each] for each in kinds], self.store.index + distance, half)
        if not at_once:
            self.settle()

    @precondition(lambda self: any(each.is_sending for each in self.clients))
    @rule(number=some, size=st.none() | st.integers(1, 50), at_once=st.booleans())
    def go_on(self, number: int, size: int | None, at_once: bool) -> None:
        client = self.one(number, lambda each: each.is_sending)
        assert client is not None
        client.go_on(size)
        if not at_once:
            self.settle()

    @precondition(lambda self: any(each.can_send and each.asked for each in self.clients))
    @rule(number=some, is_rude=st.sampled_from([False, False, True]), at_once=st.booleans())
    def leave(self, number: int, is_rude: bool, at_once: bool) -> None:
        """Someone has sent all that it will, or is gone."""
        client = self.one(number, lambda each: each.can_send and bool(each.asked))
        assert client is not None
        if is_rude:
            client.connection.reset()
        else:
            client.end()
        if not at_once:
            self.settle()

    @precondition(lambda self: any(each.is_behind for each in self.clients))
    @rule(number=some, size=st.none() | st.integers(1, 6_000))
    def take(self, number: int, size: int | None) -> None:
        client = self.one(number, lambda each: each.is_behind)
        assert client is not None
        client.connection.take(size)
        self.settle()

    # What becomes of the server.

    @precondition(lambda self: self.store.asking)
    @rule()
    def reply(self) -> None:
        self.loop.stirred.clear()
        self.store.finish()
        # It comes behind what is there to be done already.
        assert self.loop.stirred.wait(PATIENCE)
        self.settle()

    @precondition(lambda self: self.has_been_asked)
    @rule(seconds=st.sampled_from([0.1, 0.1, 1.0, 1.0, 3.0, 6.0, 12.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.settle()
        self.loop.pass_time(seconds)
        self.settle()

    @precondition(lambda self: self.has_been_asked)
    @rule(how=st.sampled_from(["stop", "stop", "kill before", "kill after"]))
    def replace(self, how: str) -> None:
        """The process is told to stop, or is killed, before or after a commit came to the disk."""
        self.settle()
        if how != "stop":
            self.kill(committed=how == "kill after")
        elif self.stopped_at is None:
            self.stopped_at = self.loop.now
            for client in self.clients:
                client.may_be_dropped = True
            self.served.stop()
            self.settle()

    # What is then so.

    def check(self) -> None:
        self.check_answers()
        self.check_steps()
        self.check_counts()

    def check_answers(self) -> None:
        """Each answer is to its request, in order; none is missing where the client is there."""
        for client in self.clients:
            client.collect(self.store.index)
            if client.connection.closed and not (client.is_excused or self.is_crowded):
                assert not client.unanswered, "it was asked, and closed unanswered"

    def check_steps(self) -> None:
        """Each step that was made was asked for, and is answered, or its client has gone."""
        clients = [*self.former, *self.clients]
        made = self.store.index - START - self.others
        whole = [each for client in clients for each in client.asked if each.is_whole]
        asked = sum(each.kind.steps for each in whole)
        assert made + self.store.committing <= asked, "a step was made of what was not whole"
        if self.store.asking:
            return
        assert self.served.stepper.pending == 0
        lost = sum(
            each.kind.steps
            for client in clients
            if client.connection.is_gone
            for each in client.unanswered
        )
        assert made - len(self.ledger.steps) <= lost, "a step was made and not answered"

    def check_counts(self) -> None:
        """What is counted is what is held."""
        hub, server = self.served.hub, self.served.server
        there = [each.connection for each in self.clients if not each.connection.lost]
        protocols = [each.protocol for each in there]
        assert server.connections == set(protocols)
        assert hub._open.keys() <= server.connections
        assert len(hub._open) <= BOUNDS["max_connections"]
        assert len(hub._turned_away) <= MAX_TURNED_AWAY
        swept: set[object] = {*hub._open, *hub._turned_away}
        for each in there:
            assert each.is_closing() or each.protocol in swept, "nobody checks its deadline"
        assert self.served.stepper.pending <= BOUNDS["max_waiting_steps"]
        pieces = {
            id(piece): len(piece)
            for each in there
            if each.unsent
            for piece in each.pieces
            if len(piece) >= 4096
        }
        assert hub.budget.used == sum(pieces.values()), "the bytes in flight"
        # Beside the steps that wait, reads of the number and the one before keep a place.
        assert hub.budget.used <= self.max_in_flight + 2 * 4_190
        held = [each for each in protocols if isinstance(each, ServedConnection)]
        assert len(held) == len(protocols)
        assert hub.kept == sum(len(each._rest) for each in held), "what is piped"
        parts = [
            each._parser.size
            for each in held
            if each.phase is Phase.ARRIVING and each._parser is not None
        ]
        assert hub.parts == sum(parts), "what is not whole"
        pages = sum(each._cycle is not None for each in held)
        assert hub.cycles == len(server.tasks) == pages, "what Starlette answers"

    def teardown(self) -> None:
        """Once the disk answers, and the clients read, all that waits is answered."""
        try:
            self.settle()
            self.finish()
        finally:
            self.served.abandon()
            self.loop.close()
            self.patch.undo()

    def has_more_to_come(self) -> bool:
        return (
            self.store.asking
            or self.served.stepper.trouble is not None
            or any(each.is_behind for each in self.clients)
        )

    def finish(self) -> None:
        clients, served = self.clients, self.served
        while self.has_more_to_come():
            for client in clients:
                client.connection.take()
            if self.store.asking:
                self.store.finish()
            self.loop.settle()
            self.loop.pass_time(0.5)
            self.check()
        for client in clients:
            is_closed = self.is_crowded and client.connection.closed
            assert client.is_excused or is_closed or not client.unanswered, "it was never answered"
            if client.can_send:
                client.end()
        self.loop.settle()
        self.loop.pass_time(2.0)
        self.check()
        assert all(each.connection.lost for each in clients)
        hub = served.hub
        assert (hub.budget.used, hub.kept, hub.parts, hub.cycles) == (0, 0, 0, 0)
        assert not hub._open
        assert not served.server.connections
        assert not served.server.tasks
        served.close()


class CrowdedMachine(ServiceMachine):
    """All the more bounds are low: who pipes much, or sends half of much, may be closed for it."""

    is_crowded = True
    max_in_flight = 6_000


class SharedStoreMachine(ServiceMachine):
    """The store is one that others step, too, that takes its time to be read, and fails over."""

    kind = FakeSharedStore

    @precondition(lambda self: self.store.asking)
    @rule(steps=st.integers(1, 3))
    def others_step(self, steps: int) -> None:
        # A node serves nothing past its largest index, as long as the sequence is there.
        steps = min(steps, self.served.service.settings.max_index - self.store.index)
        self.store.index += steps
        self.others += steps

    @precondition(lambda self: self.has_been_asked)
    @rule()
    def fail_over(self) -> None:
        """The store is down, or up again."""
        assert isinstance(self.store, FakeSharedStore)
        self.store.is_down = not self.store.is_down

    def finish(self) -> None:
        assert isinstance(self.store, FakeSharedStore)
        self.store.is_down = False
        super().finish()


MACHINES: Final = (ServiceMachine, CrowdedMachine, SharedStoreMachine)
