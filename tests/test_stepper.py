"""Group commit, over a store whose commits end when the test says so; nothing depends on time."""

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fibcore import Sequence, Snapshot, stepper
from fibcore.admission import UNCOUNTED_DIGITS, Admission, OverloadedError
from fibcore.stepper import (
    EXIT_COMMIT_FAILED,
    Condition,
    Deliver,
    Failure,
    Stepper,
    fail_stop,
)
from fibcore.stores import CommitFailedError, FellBackError
from tests.support.held import HeldStore, turns_of_the_loop
from tests.support.reference import crossing, digits_of
from tests.support.waiting import PATIENCE, in_a_loop


class ProcessEnded(BaseException):
    """What stands for the end of the process where it is called on the event loop."""


class FailStop:
    """Stands in for the end of the process: whoever calls it goes no further."""

    def __init__(self) -> None:
        self.errors: SimpleQueue[BaseException] = SimpleQueue()

    def __call__(self, error: BaseException) -> NoReturn:
        self.errors.put(error)
        if threading.current_thread() is threading.main_thread():
            raise ProcessEnded
        while True:
            threading.Event().wait()


class Stage:
    """A stepper over a held store, and what it has answered so far."""

    def __init__(
        self,
        *,
        start: int = 0,
        max_index: int = 1_000_000,
        max_waiting: int = 1_000,
        max_in_flight: int = 2**20,
        fail_stop: Callable[[BaseException], NoReturn] | None = None,
    ) -> None:
        self.store = HeldStore()
        self.sequence = Sequence(start)
        self.answers: list[tuple[str, int, Failure | None]] = []
        self.admission = Admission(max_waiting=max_waiting, max_in_flight=max_in_flight)
        self.stepper = Stepper(
            self.sequence,
            self.store,
            asyncio.get_running_loop(),
            self.admission,
            max_index=max_index,
            fail_stop=FailStop() if fail_stop is None else fail_stop,
        )

    def deliver(self, name: str) -> Deliver:
        def answered(snapshot: Snapshot, failure: Failure | None) -> None:
            assert snapshot is self.sequence.snapshot, "the answer is not what is shown"
            self.answers.append((name, snapshot.index, failure))

        return answered

    def ask(self, *names: str, condition: Condition | None = None) -> None:
        """Ask for one step in each name."""
        for name in names:
            self.stepper.submit(self.deliver(name), condition)

    async def begun(self) -> int:
        """Wait until a commit is under way; return what it commits."""
        return await asyncio.to_thread(self.store.begun)


@contextlib.asynccontextmanager
async def stage(**arguments: object) -> AsyncIterator[Stage]:
    made = Stage(**arguments)  # type: ignore[arg-type]
    yield made
    made.store.finish(made.stepper.pending + 1)
    await made.stepper.drain()
    made.stepper.close()


@in_a_loop
async def test_a_step_is_answered_with_the_snapshot_after_it() -> None:
    async with stage() as it:
        it.store.finish()
        it.ask("a")
        await it.stepper.drain()
        assert it.answers == [("a", 1, None)]
        assert it.store.committed == [1]


@in_a_loop
async def test_nothing_is_answered_or_shown_before_its_commit() -> None:
    async with stage() as it:
        it.ask("a", "b")
        assert await it.begun() == 2
        await turns_of_the_loop()
        assert it.answers == []
        assert it.sequence.index == 0

        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None)]
        assert it.sequence.index == 2


@in_a_loop
async def test_steps_that_are_asked_for_together_share_one_commit() -> None:
    async with stage() as it:
        it.store.finish()
        it.ask(*map(str, range(100)))
        await it.stepper.drain()
        assert it.store.committed == [100]
        assert [index for _, index, _ in it.answers] == list(range(1, 101))


@in_a_loop
async def test_steps_that_come_while_many_do_join_the_batch_before_its_commit() -> None:
    async with stage() as it:
        it.ask("a", "b")
        # In the next turn of the loop, as the clients of the batch before do.
        asyncio.get_running_loop().call_soon(it.ask, "c")
        assert await it.begun() == 3


@in_a_loop
async def test_a_step_that_waits_alone_does_not_wait_for_others() -> None:
    async with stage() as it:
        it.ask("a")
        asyncio.get_running_loop().call_soon(it.ask, "b")
        assert await it.begun() == 1


@in_a_loop
async def test_few_that_come_do_not_hold_up_many() -> None:
    async with stage() as it:

        def ask_in_each_turn(count: int) -> None:
            it.ask("late")
            if count > 1:
                asyncio.get_running_loop().call_soon(ask_in_each_turn, count - 1)

        it.ask(*map(str, range(16)))
        asyncio.get_running_loop().call_soon(ask_in_each_turn, 10)
        assert await it.begun() == 17


@in_a_loop
async def test_steps_that_come_during_a_commit_share_the_next_one() -> None:
    async with stage() as it:
        it.ask("a")
        assert await it.begun() == 1
        it.ask("b")
        await turns_of_the_loop()
        it.ask("c", "d")
        await turns_of_the_loop()
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
async def test_a_step_asked_for_by_an_answer_waits_for_the_next_commit() -> None:
    async with stage() as it:
        first = it.deliver("first")

        def answer_and_ask(snapshot: Snapshot, failure: Failure | None) -> None:
            first(snapshot, failure)
            it.ask("second")

        it.stepper.submit(answer_and_ask)
        it.store.finish()
        assert await it.begun() == 1
        assert await it.begun() == 2
        assert it.answers == [("first", 1, None)]
        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("first", 1, None), ("second", 2, None)]


@in_a_loop
async def test_reads_during_a_commit_answer_at_once_with_the_committed_snapshot() -> None:
    async with stage(start=30_000) as it:
        it.ask("a")
        await it.begun()
        snapshot = it.sequence.snapshot
        assert (snapshot.index, snapshot.current) == (30_000, digits_of(30_000))
        assert it.store.committed == []


@in_a_loop
async def test_a_commit_under_way_is_seen_and_its_time_counted() -> None:
    async with stage() as it:
        assert it.stepper.stalled_for() == 0
        it.ask("a")
        await it.begun()
        earlier = it.stepper.stalled_for()
        assert it.stepper.stalled_for() > earlier
        it.store.finish()
        await it.stepper.drain()
        assert it.stepper.stalled_for() == 0


@in_a_loop
async def test_who_looks_is_told_at_once_what_is_committed() -> None:
    async with stage(start=5) as it:
        it.ask("a")
        await it.begun()
        seen: list[Snapshot | None] = []
        it.stepper.look(seen.append)
        assert seen == [it.sequence.snapshot]
        assert it.sequence.index == 5


@in_a_loop
async def test_how_long_steps_wait_and_commits_take_and_how_many_share_one_is_counted() -> None:
    now = 100.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepper, "time", SimpleNamespace(monotonic=lambda: now))
        async with stage() as it:
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
            assert (counted.batch_sizes.total, sum(counted.batch_sizes.counts)) == (2 + 1, 2)
            assert (counted.commit_seconds.total, sum(counted.commit_seconds.counts)) == (4 + 6, 2)
            assert (counted.wait_seconds.total, sum(counted.wait_seconds.counts)) == (5 + 8, 3)


@in_a_loop
async def test_the_thread_that_commits_is_told_from_others_by_its_name() -> None:
    async with stage() as it:
        it.ask("a")
        await it.begun()
        assert "commit\n" in [each.read_text() for each in Path("/proc/self/task").glob("*/comm")]


# Bounds


@in_a_loop
async def test_a_step_past_the_bound_on_waiting_ones_is_shed_and_nothing_steps() -> None:
    async with stage(max_waiting=3) as it:
        it.ask("a")
        await it.begun()
        it.ask("b", "c")
        with pytest.raises(OverloadedError, match="3 steps wait"):
            it.ask("shed")
        it.store.finish(2)
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None), ("c", 3, None)]
        assert it.store.committed[-1] == it.sequence.index == 3

        it.ask("d")
        it.store.finish()
        await it.stepper.drain()
        assert it.answers[-1] == ("d", 4, None)


@in_a_loop
async def test_a_step_whose_answer_would_not_fit_in_memory_is_shed_and_nothing_steps() -> None:
    size = 2 * UNCOUNTED_DIGITS
    start = next(n for n in range(39_000, 40_000) if len(digits_of(n)) == size)
    async with stage(start=start, max_in_flight=2 * (size + 1)) as it:
        it.ask("a", "b")
        with pytest.raises(OverloadedError, match="memory"):
            it.ask("shed")
        it.store.finish()
        await it.stepper.drain()
        assert it.sequence.index == start + 2

        answer_in_flight = it.sequence.current
        it.admission.in_flight.hold(answer_in_flight)
        it.ask("c")
        with pytest.raises(OverloadedError, match="memory"):
            it.ask("shed")
        it.admission.in_flight.release(answer_in_flight)
        it.ask("d")
        it.store.finish()
        await it.stepper.drain()
        assert [name for name, _, _ in it.answers] == ["a", "b", "c", "d"]


@in_a_loop
async def test_the_answers_to_short_numbers_are_bounded_by_the_waiting_steps_alone() -> None:
    async with stage(max_in_flight=1, max_waiting=5) as it:
        it.ask("a", "b", "c", "d", "e")
        assert it.stepper.pending == 5


@in_a_loop
async def test_the_bound_on_bytes_goes_with_the_length_of_the_numbers() -> None:
    start = crossing(UNCOUNTED_DIGITS - 2) - 1
    async with stage(start=start, max_in_flight=1) as it:
        it.ask("a")
        it.store.finish()
        await it.stepper.drain()
        with pytest.raises(OverloadedError, match="memory"):
            it.ask("shed")


@in_a_loop
async def test_the_first_step_is_bounded_by_its_bytes_as_those_that_follow() -> None:
    start = crossing(UNCOUNTED_DIGITS - 2)
    async with stage(start=start, max_in_flight=1) as it:
        with pytest.raises(OverloadedError, match="memory"):
            it.ask("shed")
    async with stage(start=start - 1, max_in_flight=1) as it:
        it.ask("a")


# Failures


@in_a_loop
async def test_conditions_are_looked_at_in_turn_with_the_index_that_each_starts_from() -> None:
    async with stage(start=7) as it:
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


@in_a_loop
async def test_a_condition_on_a_step_of_the_batch_before_is_met_after_its_commit() -> None:
    async with stage() as it:
        it.ask("a")
        await it.begun()
        it.ask("b", condition=lambda index: index == 1)
        it.store.finish(2)
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("b", 2, None)]


@in_a_loop
async def test_a_step_past_the_largest_index_is_not_made_and_the_ones_before_it_are_made() -> None:
    async with stage(start=10, max_index=12) as it:
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
async def test_a_sequence_that_stands_past_the_largest_index_makes_no_step() -> None:
    async with stage(start=12, max_index=10) as it:
        it.ask("a", "b")
        await it.stepper.drain()
        assert it.answers == [("a", 12, Failure.EXHAUSTED), ("b", 12, Failure.EXHAUSTED)]
        assert it.store.committed == []


@in_a_loop
async def test_a_condition_that_is_not_met_counts_before_the_largest_index() -> None:
    async with stage(start=12, max_index=12) as it:
        it.ask("a", condition=lambda index: index == 11)
        it.ask("b", condition=lambda index: index == 12)
        await it.stepper.drain()
        assert it.answers == [("a", 12, Failure.PRECONDITION), ("b", 12, Failure.EXHAUSTED)]


@in_a_loop
async def test_steps_none_of_which_is_made_need_no_commit() -> None:
    async with stage() as it:
        it.ask("a", "b", condition=lambda _: False)
        await it.stepper.drain()
        assert it.answers == [("a", 0, Failure.PRECONDITION), ("b", 0, Failure.PRECONDITION)]
        assert it.store.committed == []
        assert not it.store.is_committing()


@in_a_loop
async def test_a_failure_waits_for_the_steps_before_it() -> None:
    async with stage() as it:
        it.ask("a")
        it.ask("failed", condition=lambda _: False)
        await it.begun()
        await turns_of_the_loop()
        assert it.answers == []
        it.store.finish()
        await it.stepper.drain()
        assert it.answers == [("a", 1, None), ("failed", 1, Failure.PRECONDITION)]


# The end


@in_a_loop
async def test_draining_an_idle_stepper_returns_at_once() -> None:
    async with stage() as it:
        await it.stepper.drain()


@in_a_loop
async def test_draining_waits_for_every_step_that_was_asked_for() -> None:
    async with stage() as it:
        it.ask("a")
        await it.begun()
        it.ask("b")
        draining = asyncio.ensure_future(it.stepper.drain())
        it.store.finish()
        await it.begun()
        await turns_of_the_loop()
        assert not draining.done()
        it.store.finish()
        await draining
        assert it.answers == [("a", 1, None), ("b", 2, None)]


@in_a_loop
async def test_closing_closes_the_store() -> None:
    async with stage() as it:
        assert not it.store.closed
    assert it.store.closed


@in_a_loop
async def test_closing_waits_for_the_commit_under_way() -> None:
    it = Stage()
    it.ask("one")
    await it.begun()
    closing = threading.Thread(target=it.stepper.close)
    closing.start()
    # Time enough for one that did not wait; one that does is never too late.
    await asyncio.to_thread(closing.join, 0.2)
    assert not it.store.closed
    it.store.finish()
    await asyncio.to_thread(closing.join)
    assert it.store.committed == [1]
    assert it.store.closed


# Fail-stop


def failures() -> list[BaseException]:
    return [
        CommitFailedError("fibcore.db", 1, "the disk says no"),
        OSError("no such device"),
        MemoryError(),
    ]


@pytest.mark.parametrize("error", failures(), ids=lambda error: type(error).__name__)
def test_a_failed_commit_stops_the_process_and_nothing_is_answered(error: BaseException) -> None:
    async def test() -> None:
        fail_stop = FailStop()
        it = Stage(fail_stop=fail_stop)
        it.ask("a", "b")
        assert await it.begun() == 2
        it.ask("c")
        it.store.fail(error)
        assert await asyncio.to_thread(fail_stop.errors.get, timeout=PATIENCE) is error
        await turns_of_the_loop()
        assert it.answers == []
        assert it.sequence.index == 0

    in_a_loop(test)()


@in_a_loop
async def test_without_fail_stop_a_failed_commit_would_be_answered() -> None:
    """The control of the test above: it is fail-stop that it sees, not chance."""
    errors = FailStop().errors
    async with stage(fail_stop=cast("Callable[[BaseException], NoReturn]", errors.put)) as it:
        it.ask("a")
        it.store.fail(CommitFailedError("fibcore.db", 1, "the disk says no"))
        await it.stepper.drain()
        assert errors.get(timeout=PATIENCE)
        assert it.answers == [("a", 1, None)]
        assert it.store.committed == []


@in_a_loop
async def test_a_committed_step_that_can_not_be_computed_stops_the_process() -> None:
    class NoMemory:
        index = 0
        current = b"0"

        def advance(self) -> NoReturn:
            raise MemoryError

    fail_stop = FailStop()
    it = Stage(fail_stop=fail_stop)
    it.stepper.sequence = cast("Sequence", NoMemory())
    ended = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, __: ended.set())
    it.ask("a")
    it.store.finish()
    await ended.wait()
    assert isinstance(fail_stop.errors.get(timeout=PATIENCE), MemoryError)
    assert it.answers == []
    it.stepper.close()


@in_a_loop
async def test_a_committed_step_whose_answer_fails_stops_the_process() -> None:
    def answer(snapshot: Snapshot, failure: Failure | None) -> None:
        raise RecursionError(f"{snapshot} {failure}")

    fail_stop = FailStop()
    it = Stage(fail_stop=fail_stop)
    asyncio.get_running_loop().set_exception_handler(lambda _, __: None)
    it.stepper.submit(answer)
    it.ask("b")
    it.store.finish()
    error = await asyncio.to_thread(fail_stop.errors.get, timeout=PATIENCE)
    assert isinstance(error, RecursionError)
    assert it.answers == []
    it.stepper.close()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CommitFailedError("fibcore.db", 7, "the disk says no"), 74, "The commit of index 7"),
        (FellBackError("an engine", 9, 7), 65, "an engine"),
        (MemoryError(), 74, "A step that may be committed can't be answered"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_status_of_a_fail_stop_says_whether_the_next_process_may_go_on_by_itself(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    fail_stop(error)
    assert ended == [status]
    assert said in caplog.text


@in_a_loop
async def test_an_exclusive_store_is_never_in_trouble() -> None:
    async with stage() as it:
        assert it.stepper.trouble is None
        assert it.stepper.exclusive


@pytest.mark.processes
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            'CommitFailedError("fibcore.db", 1, "the disk says no")',
            "The commit of index 1 to fibcore.db failed: the disk says no",
        ),
        (
            'OSError("no such device")',
            "A step that may be committed can't be answered: OSError('no such device')",
        ),
    ],
    ids=["a failed commit", "another error"],
)
def test_fail_stop_ends_the_process_at_once_with_its_status_and_says_why(
    error: str, said: str
) -> None:
    program = f"""
        import asyncio, atexit, sys
        from fibcore import Sequence
        from fibcore.admission import Admission
        from fibcore.stepper import Stepper
        from fibcore.stores import CommitFailedError

        class Broken:
            def advance(self, steps, expected):
                raise {error}

        async def main():
            loop = asyncio.get_running_loop()
            admission = Admission(max_waiting=9, max_in_flight=1)
            stepper = Stepper(Sequence(), Broken(), loop, admission, max_index=9)
            stepper.submit(lambda snapshot, failure: print("answered"))
            await stepper.drain()

        atexit.register(print, "a handler ran")
        asyncio.run(main())
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == EXIT_COMMIT_FAILED == 74
    assert done.stdout == ""
    assert said in done.stderr
    assert "The process ends" in done.stderr


@pytest.mark.processes
def test_a_commit_that_hangs_keeps_no_process_from_ending() -> None:
    program = """
        import asyncio, threading
        from fibcore import Sequence
        from fibcore.admission import Admission
        from fibcore.stepper import Stepper

        hangs = threading.Event()

        class Broken:
            def advance(self, steps, expected):
                hangs.set()
                threading.Event().wait()

        async def main():
            admission = Admission(max_waiting=9, max_in_flight=1)
            loop = asyncio.get_running_loop()
            stepper = Stepper(Sequence(), Broken(), loop, admission, max_index=9)
            stepper.submit(print)
            await asyncio.to_thread(hangs.wait)
            raise SystemExit(7)

        asyncio.run(main())
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == 7


# Any order of events


class AnyOrder(RuleBasedStateMachine):
    """Steps and commits in any order, against the model: a list of batches."""

    @initialize(start=st.integers(0, 100), room=st.integers(0, 20))
    def begin(self, start: int, room: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.max_index = start + room

        async def make() -> Stage:
            return Stage(start=start, max_index=self.max_index, max_waiting=8)

        self.stage = self.loop.run_until_complete(make())
        self.names = map(str, range(10**9))
        self.shown = start
        self.waiting: list[tuple[str, int | None]] = []
        self.batch: list[tuple[str, int, Failure | None]] = []
        self.answered: list[tuple[str, int, Failure | None]] = []

    def model_begins(self) -> None:
        index = self.shown
        for name, wanted in self.waiting:
            if wanted is not None and wanted != index:
                failure: Failure | None = Failure.PRECONDITION
            elif index == self.max_index:
                failure = Failure.EXHAUSTED
            else:
                failure, index = None, index + 1
            self.batch.append((name, index, failure))
        self.waiting = []
        if index == self.shown:
            self.model_answers()

    def model_answers(self) -> None:
        if self.batch:
            self.shown = self.batch[-1][1]
        self.answered += self.batch
        self.batch = []
        if self.waiting:
            self.model_begins()

    @rule(ahead=st.none() | st.integers(-2, 6))
    def ask(self, ahead: int | None) -> None:
        name = next(self.names)
        wanted = None if ahead is None else self.shown + ahead
        condition = None if wanted is None else lambda index: index == wanted
        if len(self.waiting) + len(self.batch) == 8:
            with pytest.raises(OverloadedError):
                self.stage.ask(name, condition=condition)
        else:
            self.stage.ask(name, condition=condition)
            self.waiting.append((name, wanted))

    @rule()
    def run_the_loop(self) -> None:
        self.loop.run_until_complete(turns_of_the_loop())
        if not self.batch:
            self.model_begins()

    @precondition(lambda self: self.batch)
    @rule()
    def finish_the_commit(self) -> None:
        assert self.stage.store.begun() == self.batch[-1][1]
        self.stage.store.finish()
        self.model_answers()
        expected = len(self.answered)

        async def answers() -> None:
            async with asyncio.timeout(PATIENCE):
                while len(self.stage.answers) < expected:
                    await asyncio.sleep(0)
            await turns_of_the_loop()

        self.loop.run_until_complete(answers())

    @invariant()
    def what_is_shown_and_answered_is_what_the_model_says(self) -> None:
        assert self.stage.sequence.index == self.shown
        assert self.stage.answers == self.answered

    def teardown(self) -> None:
        async def end() -> None:
            self.stage.store.finish(self.stage.stepper.pending + 1)
            await self.stage.stepper.drain()

        self.loop.run_until_complete(end())
        self.stage.stepper.close()
        self.loop.close()


TestAnyOrderOfStepsAndCommits = AnyOrder.TestCase
