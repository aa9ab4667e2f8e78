"""Group commit, over a store whose commits end when the test says so; nothing depends on time."""

import asyncio
from pathlib import Path

import pytest

from fibcore import Snapshot
from fibcore.admission import UNCOUNTED_DIGITS, OverloadedError
from fibcore.stepper import Failure, Outcome
from tests.support.reference import crossing, digits_of
from tests.support.stepper_harness import harness
from tests.support.waiting import in_a_loop, until_idle


@pytest.mark.proves("1", "nothing is answered or shown before its commit")
@in_a_loop
async def test_nothing_is_answered_or_shown_before_its_commit() -> None:
    async with harness() as it:
        it.ask("a", "b")
        assert await it.begun() == 2
        await until_idle()
        assert it.answers == []
        assert it.sequence.index == 0

        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None)]
        assert it.sequence.index == 2


@in_a_loop
async def test_steps_that_are_asked_for_together_share_one_commit() -> None:
    async with harness() as it:
        it.store.finish()
        it.ask(*map(str, range(100)))
        await it.stepper.drain()
        assert it.store.committed == [100]
        assert [index for _, index, _ in it.answers] == list(range(1, 101))


@in_a_loop
async def test_steps_that_come_beside_many_join_the_batch() -> None:
    async with harness() as it:
        it.ask("a", "b")
        # In the next turn of the loop, as the clients of the batch before do.
        asyncio.get_running_loop().call_soon(it.ask, "c")
        assert await it.begun() == 3


@in_a_loop
async def test_a_step_that_waits_alone_does_not_wait_for_others() -> None:
    async with harness() as it:
        it.ask("a")
        asyncio.get_running_loop().call_soon(it.ask, "b")
        assert await it.begun() == 1


@in_a_loop
async def test_few_that_come_do_not_hold_up_many() -> None:
    async with harness() as it:

        def ask_in_each_turn(count: int) -> None:
            it.ask("late")
            if count > 1:
                asyncio.get_running_loop().call_soon(ask_in_each_turn, count - 1)

        it.ask(*map(str, range(16)))
        asyncio.get_running_loop().call_soon(ask_in_each_turn, 10)
        assert await it.begun() == 17


@in_a_loop
async def test_as_long_as_each_turn_brings_many_they_join_the_batch() -> None:
    async with harness() as it:

        def ask_in_each_turn(count: int) -> None:
            it.ask(*map(str, range(16)))
            if count > 1:
                asyncio.get_running_loop().call_soon(ask_in_each_turn, count - 1)

        ask_in_each_turn(5)
        assert await it.begun() == 5 * 16


@in_a_loop
async def test_few_join_each_other_and_one_waits_for_none() -> None:
    async with harness() as it:
        it.ask(*map(str, range(16)))
        it.store.finish()
        await it.stepper.drain()
        assert await it.begun() == 16
        it.ask("a", "b")
        asyncio.get_running_loop().call_soon(it.ask, "c")
        assert await it.begun() == 16 + 3
        it.store.finish()
        await it.stepper.drain()
        it.ask("d")
        asyncio.get_running_loop().call_soon(it.ask, "e")
        assert await it.begun() == 16 + 3 + 1


@pytest.mark.proves("commit", "more steps")
@in_a_loop
async def test_steps_that_come_during_a_commit_share_the_next_one() -> None:
    async with harness() as it:
        it.ask("a")
        assert await it.begun() == 1
        it.ask("b")
        await until_idle()
        it.ask("c", "d")
        await until_idle()
        assert not it.store.is_committing()
        assert it.stepper.pending == 4

        it.store.finish()
        assert await it.begun() == 4
        assert it.answers == [("a", 1, None)]
        it.store.finish()
        await it.stepper.drain()
        assert it.store.committed == [1, 4]
        assert it.answers == [("a", 1, None), ("b", 2, None), ("c", 3, None), ("d", 4, None)]


@in_a_loop
async def test_a_step_asked_for_by_an_answer_is_in_the_next_commit() -> None:
    async with harness() as it:

        def answer_and_ask(snapshot: Snapshot, failure: Outcome, name: str) -> None:
            it.deliver(snapshot, failure, name)
            it.ask("second")

        it.stepper.submit(answer_and_ask, None, "first")
        it.store.finish()
        assert await it.begun() == 1
        assert await it.begun() == 2
        assert it.answers == [("first", 1, None)]
        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("first", 1, None), ("second", 2, None)]


@pytest.mark.proves("commit", "reads")
@in_a_loop
async def test_reads_during_a_commit_show_the_committed_snapshot() -> None:
    async with harness(start=30_000) as it:
        it.ask("a")
        await it.begun()
        snapshot = it.sequence.snapshot
        assert (snapshot.index, snapshot.current) == (30_000, digits_of(30_000))
        assert it.store.committed == []


@in_a_loop
async def test_a_commit_under_way_is_seen_and_its_time_counted() -> None:
    async with harness() as it:
        assert it.stepper.stalled_for() == 0
        it.ask("a")
        await it.begun()
        earlier = it.stepper.stalled_for()
        assert it.stepper.stalled_for() > earlier
        it.store.finish()
        await it.stepper.drain()
        assert it.stepper.stalled_for() == 0


@in_a_loop
async def test_a_look_returns_the_committed_snapshot_at_once() -> None:
    async with harness(start=5) as it:
        it.ask("a")
        await it.begun()
        seen: list[Snapshot | None] = []
        it.stepper.read(seen.append)
        assert seen == [it.sequence.snapshot]
        assert it.sequence.index == 5


@in_a_loop
async def test_the_waits_the_commits_and_their_sizes_are_counted() -> None:
    now = 100.0
    async with harness(clock=lambda: now) as it:
        it.ask("a")
        now = 101.0
        it.ask("b")
        await it.begun()
        now = 103.0
        assert it.stepper.stalled_for() == 2.0
        it.ask("c")
        now = 105.0
        it.store.finish()
        await it.begun()
        now = 111.0
        it.store.finish()
        await it.stepper.drain()
        it.ask("no step", condition=lambda _: False)
        await it.stepper.drain()
        counted = it.stepper
        assert (counted.batch_steps.total, sum(counted.batch_steps.counts)) == (2 + 1, 2)
        assert (counted.commit_seconds.total, sum(counted.commit_seconds.counts)) == (4 + 6, 2)
        assert (counted.batch_wait_seconds.total, sum(counted.batch_wait_seconds.counts)) == (
            5 + 8,
            3,
        )


@in_a_loop
async def test_the_thread_that_commits_is_known_by_its_name() -> None:
    async with harness() as it:
        it.ask("a")
        await it.begun()
        assert "commit\n" in [each.read_text() for each in Path("/proc/self/task").glob("*/comm")]


# Bounds


@in_a_loop
async def test_a_step_past_the_bound_on_waiting_ones_is_shed() -> None:
    async with harness(max_waiting=3) as it:
        it.ask("a")
        await it.begun()
        it.ask("b", "c")
        with pytest.raises(OverloadedError, match="3 steps already wait"):
            it.ask("shed")
        it.store.finish(2)
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None), ("c", 3, None)]
        assert it.store.committed[-1] == it.sequence.index == 3

        it.ask("d")
        it.store.finish()
        await it.stepper.drain()
        assert it.answers[-1] == ("d", 4, None)


@pytest.mark.proves(
    "bounds",
    "waiting steps",
    "bytes in flight: those that wait are counted with the bytes that they will be",
)
@in_a_loop
async def test_the_bound_on_bytes_goes_with_the_length_of_the_numbers() -> None:
    start = crossing(UNCOUNTED_DIGITS - 2) - 1
    async with harness(start=start, max_in_flight=1) as it:
        it.ask("a")
        it.store.finish()
        await it.stepper.drain()
        with pytest.raises(OverloadedError, match="FIB_MAX_ANSWER_BYTES"):
            it.ask("shed")


@in_a_loop
async def test_the_first_step_is_bounded_by_its_bytes_as_are_others() -> None:
    start = crossing(UNCOUNTED_DIGITS - 2)
    async with harness(start=start, max_in_flight=1) as it:
        with pytest.raises(OverloadedError, match="FIB_MAX_ANSWER_BYTES"):
            it.ask("shed")
    async with harness(start=start - 1, max_in_flight=1) as it:
        it.ask("a")


# Failures


@in_a_loop
async def test_each_condition_is_given_the_index_it_starts_from() -> None:
    async with harness(start=7) as it:
        asked: list[int] = []

        def stands_at_7(index: int) -> bool:
            asked.append(index)
            return index == 7

        it.ask("a", condition=stands_at_7)
        it.ask("b", condition=stands_at_7)
        it.ask("c")
        assert asked == []
        it.store.finish()
        await it.stepper.drain()
        assert asked == [7, 8]
        assert it.answers == [("a", 8, None), ("b", 8, Failure.PRECONDITION), ("c", 9, None)]
        assert it.store.committed == [9]


@pytest.mark.proves("commit", "conditions")
@in_a_loop
async def test_a_condition_on_the_batch_before_is_met_by_its_commit() -> None:
    async with harness() as it:
        it.ask("a")
        await it.begun()
        it.ask("b", condition=lambda index: index == 1)
        it.store.finish(2)
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None)]


@pytest.mark.proves("commit", "the largest index")
@pytest.mark.proves("bounds", "waiting steps", "largest index")
@in_a_loop
async def test_a_step_past_the_largest_index_is_not_made() -> None:
    async with harness(start=10, max_index=12) as it:
        it.ask("a", "b", "c", "d")
        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [
            ("a", 11, None),
            ("b", 12, None),
            ("c", 12, Failure.EXHAUSTED),
            ("d", 12, Failure.EXHAUSTED),
        ]
        assert it.store.committed == [12]


@in_a_loop
async def test_a_sequence_past_the_largest_index_makes_no_step() -> None:
    async with harness(start=12, max_index=10) as it:
        it.ask("a", "b")
        await it.stepper.drain()
        assert it.answers == [("a", 12, Failure.EXHAUSTED), ("b", 12, Failure.EXHAUSTED)]
        assert it.store.committed == []


@pytest.mark.proves("commit", "the largest index")
@in_a_loop
async def test_an_unmet_condition_counts_before_the_largest_index() -> None:
    async with harness(start=12, max_index=12) as it:
        it.ask("a", condition=lambda index: index == 11)
        it.ask("b", condition=lambda index: index == 12)
        await it.stepper.drain()
        assert it.answers == [("a", 12, Failure.PRECONDITION), ("b", 12, Failure.EXHAUSTED)]


@in_a_loop
async def test_steps_none_of_which_is_made_need_no_commit() -> None:
    async with harness() as it:
        it.ask("a", "b", condition=lambda _: False)
        await it.stepper.drain()
        assert it.answers == [("a", 0, Failure.PRECONDITION), ("b", 0, Failure.PRECONDITION)]
        assert it.store.committed == []
        assert not it.store.is_committing()


@in_a_loop
async def test_a_failure_waits_for_the_steps_before_it() -> None:
    async with harness() as it:
        it.ask("a")
        it.ask("failed", condition=lambda _: False)
        await it.begun()
        await until_idle()
        assert it.answers == []
        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("failed", 1, Failure.PRECONDITION)]
