"""What a machine of many connections comes upon, and that it would find what is broken."""

from collections.abc import Callable
from typing import Final

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from fibcore.stepper import Stepper
from fibcore.stores.keys import Keys
from tests.support.fake_stores import FakeSharedStore
from tests.support.state_machine import CrowdedMachine, ServiceMachine, SharedStoreMachine
from web.http.connection import Connection
from web.http.hub import Hub
from web.http.parser import Parser

TestConnections = ServiceMachine.TestCase
TestCrowdedConnections = CrowdedMachine.TestCase
TestConnectionsOfANode = SharedStoreMachine.TestCase
TestConnections.settings = TestCrowdedConnections.settings = TestConnectionsOfANode.settings = (
    # Each example goes through fifty events.
    hypothesis.settings(max_examples=hypothesis.settings().max_examples // 2)
)


# Controls: with a protection taken away the machine finds it.


def is_whole_with_its_head(patch: pytest.MonkeyPatch) -> None:
    class Hasty(Parser):
        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.whole = True

    patch.setattr("web.http.protocol.Parser", Hasty)


def answers_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Stepper, steps: int, keys: Keys) -> Callable[[], None]:
        self._loop.call_soon_threadsafe(self._answer)
        self._store.advance(steps, self._store.read(), keys=keys)
        return lambda: None

    patch.setattr(Stepper, "_commit", commit)


def looks_at_no_condition(patch: pytest.MonkeyPatch) -> None:
    submit = Stepper.submit
    patch.setattr(Stepper, "submit", lambda self, *asked: submit(self, asked[0], None, *asked[2:]))


def keeps_nothing_that_is_piped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "_keep", lambda *_: None)


def forgets_to_let_go_of_what_was_piped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "let_go", lambda *_: None)


def holds_what_a_client_that_is_gone_was_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "_release", lambda _: None)


def closes_a_client_that_half_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "eof_received", lambda _: False)


def lets_one_that_waits_give_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "eviction_rank", lambda self: (0, self.deadline))


def commits_wherever_a_shared_store_stands(patch: pytest.MonkeyPatch) -> None:
    commit = FakeSharedStore._commit

    def commit_anyhow(
        self: FakeSharedStore, steps: int, _: int | None, limit: int | None, keys: Keys
    ) -> int:
        return commit(self, steps, None, limit, keys)

    patch.setattr(FakeSharedStore, "_commit", commit_anyhow)


BROKEN: Final = {
    is_whole_with_its_head: ServiceMachine,
    answers_before_the_commit: ServiceMachine,
    looks_at_no_condition: ServiceMachine,
    keeps_nothing_that_is_piped: ServiceMachine,
    forgets_to_let_go_of_what_was_piped: ServiceMachine,
    holds_what_a_client_that_is_gone_was_sent: ServiceMachine,
    closes_a_client_that_half_closes: ServiceMachine,
    lets_one_that_waits_give_way: ServiceMachine,
    commits_wherever_a_shared_store_stands: SharedStoreMachine,
}


@pytest.mark.proves(
    "clients", "do all of that at…", control="a protection were missing: it is found"
)
@pytest.mark.parametrize(("breaking", "machine"), BROKEN.items(), ids=lambda each: each.__name__)
def test_the_machine_finds_a_service_that(
    breaking: Callable[[pytest.MonkeyPatch], None],
    machine: type[ServiceMachine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaking(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SEARCH)


SEARCH: Final = hypothesis.settings(
    hypothesis.settings.get_profile("default"),
    max_examples=1_000,
    database=None,
    derandomize=True,
    phases=(hypothesis.Phase.generate,),
    report_multiple_bugs=False,
)
"""Until it has found something, the same way each time."""
