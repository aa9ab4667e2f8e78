"""Group commit on a shared store, with simulated time: what is waited for, and logged.

Every moment is exact: nothing happens, and no time passes, unless the test causes it.
"""

import logging
from typing import Final, NoReturn

import pytest

from fibcore import Snapshot
from fibcore.problems import EngineUnavailableError, IndexRegressedError, explain
from fibcore.stepper import Failure
from fibcore.stores import DurabilityWarning, Risk
from tests.support.connections import Loop
from tests.support.fake_stores import DOWN
from tests.support.stepper_harness import Harness

MINUTE: Final = 60.0
LATE: Final = "it has not replied for 3 s"
UNAVAILABLE: Final = Failure.UNAVAILABLE
ELSEWHERE: Final = EngineUnavailableError("nowhere", "it is a replica, not the primary")
UNSYNCED: Final = DurabilityWarning("fsync=off", Risk.POWER_CUT)
LOOSE: Final = DurabilityWarning("appendonly=no", Risk.RESTART)


# Problems


def test_a_cut_off_node_is_unavailable_and_retries_every_second(loop: Loop) -> None:
    with Harness(loop, 3, shared=True) as it:
        it.store.error = DOWN
        it.ask("a", "b")
        it.read()
        loop.settle()
        assert it.answers == [("a", 3, UNAVAILABLE), ("b", 3, UNAVAILABLE)]
        assert it.looks == [None]
        assert it.stepper.problem is DOWN
        assert it.store.asked == [(2, None)]
        for tries in range(1, 4):
            loop.pass_time(0.9)
            assert len(it.store.asked) == tries
            it.ask("c")
            it.read()
            loop.settle()
            assert it.answers[-1] == ("c", 3, UNAVAILABLE)
            assert it.looks == [None] * (tries + 1)
            loop.pass_time(0.1)
            assert it.store.asked == [(2, None)] + [(0, None)] * tries
        it.store.error = None
        it.store.index = 7
        loop.pass_time(1.0)
        assert it.stepper.problem is None
        it.ask("d")
        it.read()
        loop.settle()
        assert it.answers[5:] == [("d", 8, None)]
        assert it.looks[4:] == [8]
        assert it.store.index == 8


def test_while_a_reply_is_missing_only_its_own_steps_wait(loop: Loop) -> None:
    """All others get the answer that the store is unavailable."""
    with Harness(loop, shared=True, blocking=True) as it:
        it.read()
        it.ask("in doubt")
        loop.settle()
        it.ask("waits", condition=lambda _: True)
        it.read()
        loop.pass_time(2.9)
        assert it.stepper.problem is None
        loop.pass_time(0.1)
        assert str(it.stepper.problem) == str(EngineUnavailableError("nowhere", LATE))
        assert it.answers == [("waits", 0, UNAVAILABLE)]
        assert it.looks == [None, None]
        it.ask("late")
        it.read()
        loop.settle()
        assert it.answers[1:] == [("late", 0, UNAVAILABLE)]
        assert it.looks == [None] * 3
        loop.pass_time(MINUTE)
        it.reply()
        assert it.stepper.problem is None
        assert it.answers[2:] == [("in doubt", 1, None)]
        it.ask("free")
        loop.settle()
        it.reply()
        # Nothing is answered twice, and the condition of a rejected step applies to no later one.
        assert it.store.asked == [(1, None), (1, None)]
        assert it.answers[3:] == [("free", 2, None)]
        assert it.looks == [None] * 3


def test_a_reply_that_arrives_is_not_missed(loop: Loop) -> None:
    with Harness(loop, shared=True) as it:
        it.ask("a")
        loop.pass_time(MINUTE)
        assert it.stepper.problem is None
        assert it.stepper.stalled_for() == 0.0
        it.store.error = DOWN
        it.ask("b")
        loop.settle()
        assert it.stepper.stalled_for() == 0.0
        for _ in range(10):
            loop.pass_time(0.9)
            assert it.stepper.problem is DOWN


def test_all_waiting_requests_get_a_problem_once_and_in_order(loop: Loop) -> None:
    with Harness(loop, shared=True, blocking=True) as it:
        it.ask("a", "b", "c")
        loop.settle()
        it.ask("d", "e")
        it.store.error = DOWN
        it.reply()
        assert it.answers == [(name, 0, UNAVAILABLE) for name in "abcde"]
        assert it.stepper.pending == 0
        drained = loop.create_task(it.stepper.drain())
        loop.settle()
        assert drained.done()


def test_each_new_problem_and_its_end_are_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Harness(loop, 3, shared=True) as it:
        it.ask("a")
        loop.settle()
        assert caplog.records == []
        it.store.error = DOWN
        it.ask("b")
        loop.pass_time(5.5)
        it.store.error = ELSEWHERE
        loop.pass_time(5.0)
        it.store.error = None
        loop.pass_time(5.0)
        said = [(each.levelname, each.getMessage()) for each in caplog.records]
        assert said == [
            ("ERROR", explain(DOWN)),
            ("ERROR", explain(ELSEWHERE)),
            ("INFO", "nowhere replies again, at index 4"),
        ]
        assert caplog.records[2].__dict__["fields"] == {"index": "4"}


# Weaknesses


def test_each_new_weakness_of_the_store_is_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    with Harness(loop, shared=True, warnings=(UNSYNCED,)) as it:
        assert len(caplog.records) == 1
        for warnings in ((UNSYNCED,), (UNSYNCED, LOOSE), (LOOSE,), (UNSYNCED,)):
            it.store.warnings = warnings
            for _ in range(2):
                it.ask("a")
                loop.settle()
            assert it.stepper.warnings == warnings
        said = [(each.levelname, each.getMessage()) for each in caplog.records]
        assert said == [
            ("WARNING", each.explain("nowhere")) for each in (UNSYNCED, LOOSE, UNSYNCED)
        ]


# Reads


def test_reads_join_a_query_while_each_turn_brings_many(loop: Loop) -> None:
    with Harness(loop, shared=True) as it:

        def look_in_each_turn(count: int) -> None:
            for _ in range(16):
                it.read()
            if count > 1:
                loop.call_soon(look_in_each_turn, count - 1)

        look_in_each_turn(5)
        loop.settle()
        assert it.looks == [0] * 80
        assert it.store.asked == [(0, None)]


# Conditions


def test_a_condition_applies_only_to_its_own_batch(loop: Loop) -> None:
    with Harness(loop, 5, shared=True) as it:
        it.ask("a", condition=lambda _: True)
        loop.settle()
        it.ask("b")
        loop.settle()
        assert it.store.asked == [(1, 5), (1, None)]


def test_a_store_at_the_largest_index_makes_no_step(loop: Loop) -> None:
    with Harness(loop, 5, shared=True, blocking=True, max_index=9) as it:
        it.ask("free")
        it.ask("not here", condition=lambda index: index == 5)
        it.ask("here", condition=lambda index: index == 9)
        it.read()
        loop.settle()
        it.store.index = 9
        it.reply()
        assert it.answers == [
            ("free", 9, Failure.EXHAUSTED),
            ("not here", 9, Failure.PRECONDITION),
            ("here", 9, Failure.EXHAUSTED),
        ]
        assert it.looks == [9]
        assert len(it.store.asked) == 1


def test_retried_steps_come_before_later_ones(loop: Loop) -> None:
    with Harness(loop, shared=True, blocking=True) as it:
        it.ask("a", "b", condition=lambda _: True)
        it.ask("free")
        it.read()
        loop.settle()
        it.store.index = 7
        it.ask("c", "d", condition=lambda _: True)
        it.reply()
        # The reads have been replied to.
        assert it.looks == [7]
        assert it.answers == []
        it.reply()
        assert it.answers == [("free", 8, None)]
        it.reply()
        assert it.answers[1:] == [("a", 9, None), ("b", 10, None), ("c", 11, None), ("d", 12, None)]
        assert it.store.asked == [(3, 0), (1, None), (4, 8)]


# Measurements


# The end


def test_an_idle_node_can_be_closed(loop: Loop) -> None:
    with Harness(loop, shared=True) as it:
        it.stepper.close()
        assert it.store.did == ["closed"]


@pytest.mark.parametrize("is_told_in_time", [True, False])
def test_a_node_closed_while_unavailable_retries_nothing(
    loop: Loop, caplog: pytest.LogCaptureFixture, is_told_in_time: bool
) -> None:
    with Harness(loop, shared=True, blocking=True) as it:
        it.ask("a")
        loop.settle()
        it.store.error = DOWN
        it.store.finish()
        if is_told_in_time:
            loop.settle()
        it.stepper.close()
        loop.pass_time(MINUTE)
        assert it.stepper.problem is DOWN
        assert it.store.asked == [(1, None)]
        assert [each.getMessage() for each in caplog.records] == [explain(DOWN)]


# What ends the process


@pytest.mark.parametrize("steps", [0, 1])
def test_a_fallen_index_stops_the_node(loop: Loop, steps: int) -> None:
    with Harness(loop, 5, shared=True, start=9) as it:
        if steps:
            it.ask("a")
        it.read()
        loop.settle()
        (error,) = it.failures
        assert isinstance(error, IndexRegressedError)
        assert (error.index, error.known) == (5, 9)
        assert (it.answers, it.looks) == ([], [])


def test_an_error_that_leaves_the_batch_unknown_stops_the_node(loop: Loop) -> None:
    with Harness(loop, shared=True) as it:
        it.store.error = MemoryError()
        it.ask("a")
        it.read()
        loop.settle()
        assert it.failures == [it.store.error]
        assert (it.answers, it.looks) == ([], [])


def test_a_read_that_cannot_be_answered_stops_the_node(loop: Loop) -> None:
    error = ValueError("it can't be delivered")

    def fail(_: Snapshot | None) -> NoReturn:
        raise error

    with Harness(loop, shared=True) as it:
        it.stepper.read(fail)
        loop.settle()
        assert it.failures == [error]
