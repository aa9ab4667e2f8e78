"""An idle node, and one whose sequence is moved far ahead."""

from threading import Event

import pytest

from fibcore import Sequence, shared_stepper
from fibcore.appliance.settings import Settings
from fibcore.problems import CatchingUpError, IndexPastLimitError, explain
from fibcore.shared_stepper import ASK_SECONDS, OVERDUE_SECONDS
from fibcore.stepper import Failure
from tests.support.blocking_store import BlockingStore
from tests.support.connections import Loop
from tests.support.fake_stores import DOWN
from tests.support.stepper_harness import Harness
from tests.support.waiting import PATIENCE, in_a_loop
from web.service import Service

FAR = 300_000_000


def test_an_idle_node_queries_its_store_every_second(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        loop.pass_time(3 * ASK_SECONDS)
        assert it.store.asked == [(0, None)] * 3
        it.store.index = 9
        loop.pass_time(ASK_SECONDS)
        assert it.stepper.recent is not None
        assert it.stepper.recent.index == 9


def test_a_busy_node_makes_no_extra_queries(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        for _ in range(4):
            it.read()
            loop.pass_time(ASK_SECONDS / 2)
            it.ask("a")
            loop.pass_time(ASK_SECONDS / 2)
        assert it.store.asked == [(0, None), (1, None)] * 4


def test_only_one_extra_query_is_under_way(loop: Loop) -> None:
    """Reads that arrive meanwhile wait for the next query, and a stop waits for both."""
    with Harness(loop, 5, shared=True, blocking=True) as it:
        loop.pass_time(2 * ASK_SECONDS)
        assert it.store.asked == [(0, None)]
        it.ask("a")
        it.read()
        loop.settle()
        assert it.store.asked == [(0, None)]
        drained = loop.create_task(it.stepper.drain())
        it.reply()
        assert it.store.asked == [(0, None), (1, None)]
        assert not drained.done()
        it.reply()
        assert drained.done()
        assert (it.answers, it.looks) == ([("a", 6, None)], [6])


def test_an_idle_node_notices_a_problem(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.store.error = DOWN
        loop.pass_time(ASK_SECONDS)
        assert it.stepper.problem is DOWN
        assert it.stepper.recent is None
        it.store.error = None
        loop.pass_time(ASK_SECONDS)
        assert it.stepper.problem is None
        assert it.stepper.recent is not None


def test_without_replies_no_index_is_shown(loop: Loop) -> None:
    with Harness(loop, 5, shared=True, blocking=True) as it:
        loop.pass_time(OVERDUE_SECONDS)
        assert it.stepper.recent is not None
        loop.pass_time(0.5)
        assert it.stepper.recent is None


def test_an_index_that_was_long_in_doubt_is_not_shown_as_recent(loop: Loop) -> None:
    """The batch was committed when it was sent; others have stepped since, which is shown."""
    with Harness(loop, 5, shared=True, blocking=True) as it:
        it.ask("a")
        loop.settle()
        loop.pass_time(OVERDUE_SECONDS - 0.5)
        it.reply()
        assert it.stepper.recent is not None
        it.ask("b")
        loop.settle()
        loop.pass_time(OVERDUE_SECONDS + 0.5)
        it.reply()
        assert it.stepper.sequence.index == 7
        assert it.stepper.recent is None


# A sequence moved far ahead


def test_an_index_past_the_largest_is_not_computed(loop: Loop) -> None:
    """The node continues once the index has been lowered."""
    with Harness(loop, 5, shared=True, max_index=9) as it:
        it.store.index = FAR
        loop.pass_time(ASK_SECONDS)
        assert isinstance(it.stepper.problem, IndexPastLimitError)
        assert f"at index {FAR}, past FIB_MAX_INDEX=9" in explain(it.stepper.problem)
        assert (it.stepper.sequence.index, it.stepper.recent) == (5, None)
        it.ask("a")
        it.read()
        loop.settle()
        assert (it.answers, it.looks) == ([("a", 5, Failure.UNAVAILABLE)], [None])
        it.store.index = 7
        loop.pass_time(ASK_SECONDS)
        it.ask("b")
        loop.settle()
        assert it.answers[1:] == [("b", 8, None)]


def test_a_batch_that_finds_an_index_past_the_largest_is_unavailable(loop: Loop) -> None:
    with Harness(loop, 5, shared=True, blocking=True, max_index=9) as it:
        it.ask("a")
        it.ask("b", condition=lambda index: index == 5)
        loop.settle()
        it.store.index = FAR
        it.reply()
        assert it.answers == [("a", 5, Failure.UNAVAILABLE), ("b", 5, Failure.UNAVAILABLE)]
        assert it.store.index == FAR


def test_while_a_distant_number_is_computed_that_is_the_reason(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is computed, the reply that led to it is already old."""
    computed = Event()

    def compute(sequence: Sequence, index: int) -> None:
        it.store.asking = not computed.is_set()
        loop.stirred.set()
        assert computed.wait(PATIENCE)
        it.store.asking = False
        sequence.advance(index - sequence.index)

    with Harness(loop, 5, shared=True) as it:
        monkeypatch.setattr(shared_stepper, "advance_to", compute)
        it.store.index = 5_000
        it.read()
        loop.settle()
        loop.pass_time(OVERDUE_SECONDS)
        assert isinstance(it.stepper.problem, CatchingUpError)
        assert "is computing the number there" in explain(it.stepper.problem)
        assert (it.looks, it.stepper.recent) == ([None], None)
        it.store.asking = False
        computed.set()
        loop.settle()
        monkeypatch.undo()
        assert it.stepper.problem is None
        it.read()
        loop.settle()
        assert it.looks == [None, 5_000]


@pytest.mark.parametrize("kind", ["exclusive", "shared"])
def test_a_start_past_the_largest_index_computes_nothing(kind: str) -> None:
    """It is not served, in a file or an engine, and /health has the reason."""

    class Far(BlockingStore):
        exclusive = kind == "exclusive"

        def read(self) -> int:
            return FAR

    async def test() -> None:
        settings = Settings.from_environ({})
        async with Service(settings, Far) as service:
            assert service.stepper is None
            assert service.snapshot is None
            assert isinstance(service.problem, IndexPastLimitError)
            assert f"at index {FAR}, past FIB_MAX_INDEX=10000000" in (service.reason or "")

    in_a_loop(test)()
