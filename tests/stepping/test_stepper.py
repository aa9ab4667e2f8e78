"""Group commit: which steps share a commit, when they are answered, and the bounds.

On a shared store the same holds. tests/simulation shows that no step is lost or made twice,
whatever fails.
"""

from pathlib import Path

import pytest

from fibcore import Snapshot
from fibcore.admission import UNCOUNTED_DIGITS, OverloadedError
from fibcore.stepper import Condition, Failure, Outcome
from tests.support.connections import Loop
from tests.support.reference import crossing, digits_of
from tests.support.stepper_harness import Harness

EXHAUSTED, PRECONDITION = Failure.EXHAUSTED, Failure.PRECONDITION


@pytest.fixture(params=[False, True], ids=["exclusive", "shared"])
def blocking(request: pytest.FixtureRequest, loop: Loop) -> Harness:
    """A stepper, at index 0, whose commits the test completes."""
    return Harness(loop, shared=request.param, blocking=True)


def test_no_step_is_answered_or_shown_before_its_commit(blocking: Harness, loop: Loop) -> None:
    with blocking as it:
        it.ask("a", "b")
        loop.settle()
        assert it.store.committing == 2
        assert (it.answers, it.sequence.index) == ([], 0)
        it.reply()
        assert it.answers == [("a", 1, None), ("b", 2, None)]
        assert it.sequence.index == 2


@pytest.mark.parametrize(
    ("counts", "batch"),
    [
        ([100], 100),
        # A step that waits alone does not wait for others.
        ([1, 1], 1),
        # Steps that arrive among many join the batch until its commit begins.
        ([2, 1], 3),
        ([16] * 5, 80),
        # Few do not delay many.
        ([16] + [1] * 10, 17),
    ],
)
def test_steps_that_arrive_among_many_join_their_batch(
    blocking: Harness, loop: Loop, counts: list[int], batch: int
) -> None:
    with blocking as it:
        # It is the same after another batch, large or small.
        for before in (0, 1, 50):
            it.ask(*["before"] * before)
            loop.settle()
            while it.store.asking:
                it.reply()
            it.ask_in_turns(counts)
            loop.settle()
            assert it.store.committing == batch
            while it.store.asking:
                it.reply()
        indexes = [index for _, index, _ in it.answers]
        assert indexes == list(range(1, 3 * sum(counts) + 52))


def test_steps_that_arrive_during_a_commit_share_the_next_one(
    blocking: Harness, loop: Loop
) -> None:
    with blocking as it:
        it.ask("a")
        loop.settle()
        it.ask("b")
        loop.settle()
        it.ask("c", "d")
        loop.settle()
        assert (it.batches, it.stepper.pending) == ([1], 4)
        it.reply()
        assert it.answers == [("a", 1, None)]
        assert it.batches == [1, 3]
        it.reply()
        assert it.answers[1:] == [("b", 2, None), ("c", 3, None), ("d", 4, None)]


def test_a_step_requested_after_an_answer_is_in_the_next_commit(
    blocking: Harness, loop: Loop
) -> None:
    with blocking as it:

        def answer_and_ask(snapshot: Snapshot, failure: Outcome, name: str) -> None:
            it.deliver(snapshot, failure, name)
            it.ask("second")

        it.stepper.submit(answer_and_ask, None, "first")
        loop.settle()
        it.reply()
        assert it.answers == [("first", 1, None)]
        it.reply()
        assert it.answers[1:] == [("second", 2, None)]


def test_reads_during_a_commit_show_the_committed_snapshot(loop: Loop) -> None:
    with Harness(loop, 30_000, blocking=True) as it:
        it.ask("a")
        loop.settle()
        seen: list[Snapshot | None] = []
        it.stepper.read(seen.append)
        assert seen == [it.sequence.snapshot]
        snapshot = it.sequence.snapshot
        assert (snapshot.index, snapshot.current) == (30_000, digits_of(30_000))


def test_waits_commits_and_batch_sizes_are_counted(blocking: Harness, loop: Loop) -> None:
    with blocking as it:
        assert it.stepper.stalled_for() == 0.0
        it.ask("a")
        loop.now += 1.0
        it.ask("b")
        loop.settle()
        loop.pass_time(2.0)
        assert it.stepper.stalled_for() == 2.0
        it.ask("c")
        it.reply()
        assert it.stepper.stalled_for() == 0.0
        loop.pass_time(0.5)
        it.reply()
        it.read()
        loop.settle()
        counted = it.stepper
        assert (counted.batch_steps.total, sum(counted.batch_steps.counts)) == (2 + 1, 2)
        assert (counted.commit_seconds.total, sum(counted.commit_seconds.counts)) == (2.5, 2)
        # From the first step of the batch on.
        waits = counted.batch_wait_seconds
        assert (waits.total, sum(waits.counts)) == (3.0 + 0.5, 2)


def test_the_committing_thread_has_a_name(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a")
        loop.settle()
        assert "commit\n" in [each.read_text() for each in Path("/proc/self/task").glob("*/comm")]


# Bounds


def test_a_step_past_the_bound_on_waiting_steps_is_shed(loop: Loop) -> None:
    with Harness(loop, blocking=True, max_waiting=3) as it:
        it.ask("a")
        loop.settle()
        it.ask("b", "c")
        with pytest.raises(OverloadedError, match="3 steps already wait"):
            it.ask("shed")
        it.reply()
        it.reply()
        it.ask("d")
        loop.settle()
        it.reply()
        assert [name for name, *_ in it.answers] == ["a", "b", "c", "d"]
        assert it.store.index == it.sequence.index == 4


@pytest.mark.parametrize("steps", [0, 1])
def test_the_bound_on_bytes_counts_the_length_of_the_numbers(loop: Loop, steps: int) -> None:
    start = crossing(UNCOUNTED_DIGITS - 2) - steps
    with Harness(loop, start, max_in_flight=1) as it:
        it.ask(*["a"] * steps)
        loop.settle()
        with pytest.raises(OverloadedError, match="FIB_MAX_ANSWER_BYTES"):
            it.ask("shed")


# Failures


def test_each_condition_gets_the_index_before_its_step(loop: Loop) -> None:
    with Harness(loop, 7) as it:
        asked: list[int] = []

        def is_at_7(index: int) -> bool:
            asked.append(index)
            return index == 7

        it.ask("a", "b", condition=is_at_7)
        it.ask("c")
        assert asked == []
        loop.settle()
        assert asked == [7, 8]
        assert it.answers == [("a", 8, None), ("b", 8, PRECONDITION), ("c", 9, None)]
        assert it.batches == [2]


def test_a_condition_on_an_index_under_way_is_met_by_its_commit(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a")
        loop.settle()
        it.ask("b", condition=lambda index: index == 1)
        it.reply()
        it.reply()
        assert it.answers == [("a", 1, None), ("b", 2, None)]


def at(index: int) -> Condition:
    return lambda start: start == index


@pytest.mark.parametrize(
    ("start", "conditions", "made", "outcomes"),
    [
        (10, [None] * 4, 2, [None, None, EXHAUSTED, EXHAUSTED]),
        (12, [None] * 2, 0, [EXHAUSTED] * 2),
        (13, [None] * 2, 0, [EXHAUSTED] * 2),
        # A condition that does not hold counts first.
        (12, [at(11), at(12)], 0, [PRECONDITION, EXHAUSTED]),
        (10, [at(11), at(11)], 0, [PRECONDITION] * 2),
    ],
)
def test_a_step_past_the_largest_index_is_not_made(
    loop: Loop,
    start: int,
    conditions: list[Condition | None],
    made: int,
    outcomes: list[Failure | None],
) -> None:
    with Harness(loop, start, max_index=12) as it:
        for condition in conditions:
            it.ask("a", condition=condition)
        loop.settle()
        indexes = [start + min(number, made) for number in range(1, len(outcomes) + 1)]
        assert it.answers == [
            ("a", index, outcome) for index, outcome in zip(indexes, outcomes, strict=True)
        ]
        # Steps none of which is made need no commit.
        assert it.batches == [made] * bool(made)


def test_a_failure_waits_for_the_steps_before_it(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a")
        it.ask("failed", condition=lambda _: False)
        loop.settle()
        assert it.answers == []
        it.reply()
        assert it.answers == [("a", 1, None), ("failed", 1, PRECONDITION)]
