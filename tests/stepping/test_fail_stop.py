"""How a stepper ends: it drains, it closes, or a commit fails and the process stops unanswered."""

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
from typing import NoReturn, cast

import pytest

from fibcore import Sequence, Snapshot
from fibcore.appliance.ending import End, fail_stop
from fibcore.problems import CommitFailedError, IndexRegressedError
from fibcore.stepper import Outcome
from tests.support.stepper_harness import FailStop, StepperHarness, harness
from tests.support.waiting import PATIENCE, in_a_loop, until_idle

# The end


@in_a_loop
async def test_draining_an_idle_stepper_returns_at_once() -> None:
    async with harness() as it:
        await it.stepper.drain()


@in_a_loop
async def test_draining_waits_for_every_step_that_was_asked_for() -> None:
    async with harness() as it:
        it.ask("a")
        await it.begun()
        it.ask("b")
        draining = asyncio.ensure_future(it.stepper.drain())
        it.store.finish()
        await it.begun()
        await until_idle()
        assert not draining.done()
        it.store.finish()
        await draining
        assert it.answers == [("a", 1, None), ("b", 2, None)]


@in_a_loop
async def test_closing_waits_for_the_commit_under_way() -> None:
    it = StepperHarness()
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


@pytest.mark.proves("5", "nothing of the batch is answered, whatever the error")
@pytest.mark.parametrize("error", failures(), ids=lambda error: type(error).__name__)
def test_a_failed_commit_answers_nothing_and_ends_the_process(error: BaseException) -> None:
    async def test() -> None:
        fail_stop = FailStop()
        it = StepperHarness(fail_stop=fail_stop)
        it.ask("a", "b")
        assert await it.begun() == 2
        it.ask("c")
        it.store.fail(error)
        assert await asyncio.to_thread(fail_stop.errors.get, timeout=PATIENCE) is error
        await until_idle()
        assert it.answers == []
        assert it.sequence.index == 0

    in_a_loop(test)()


@in_a_loop
async def test_without_fail_stop_a_failed_commit_would_be_answered() -> None:
    """The control of the test above: it is fail-stop that it sees, not chance."""
    async with harness() as it:
        advance = it.store.advance

        def advance_anyhow(steps: int, expected: int | None = None) -> int:
            with contextlib.suppress(CommitFailedError):
                return advance(steps, expected)
            return 0

        it.store.advance = advance_anyhow  # type: ignore[method-assign,assignment]
        it.ask("a")
        it.store.fail(CommitFailedError("fibcore.db", 1, "the disk says no"))
        await it.stepper.drain()
        assert it.answers == [("a", 1, None)]
        assert it.store.committed == []


@in_a_loop
async def test_a_step_committed_and_not_computed_ends_the_process() -> None:
    class NoMemory:
        index = 0
        current = b"0"

        def advance(self) -> NoReturn:
            raise MemoryError

    fail_stop = FailStop()
    it = StepperHarness(fail_stop=fail_stop)
    it.stepper.sequence = cast("Sequence", NoMemory())
    ended = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda _, __: ended.set())
    it.ask("a")
    it.store.finish()
    await ended.wait()
    assert isinstance(fail_stop.errors.get(timeout=PATIENCE), MemoryError)
    assert it.answers == []
    it.stepper.close()


@pytest.mark.proves("5", "nothing is answered when the step is on disk and its answer fails")
@in_a_loop
async def test_a_committed_step_whose_answer_fails_stops_the_process() -> None:
    def answer(snapshot: Snapshot, failure: Outcome, _: None) -> None:
        raise RecursionError(f"{snapshot} {failure}")

    fail_stop = FailStop()
    it = StepperHarness(fail_stop=fail_stop)
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
        (IndexRegressedError("an engine", 9, known=7), 65, "an engine"),
        (MemoryError(), 74, "A step that may be committed can't be answered"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_status_says_whether_the_next_process_may_go_on(
    error: BaseException, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may go on by itself, or is to wait for a person."""
    ended: list[int] = []
    fail_stop(error, cast("End", ended.append))
    assert ended == [status]
    assert said in caplog.text


@pytest.mark.processes
def test_a_commit_that_hangs_keeps_no_process_from_ending() -> None:
    program = """
        import asyncio, threading
        from fibcore import Sequence
        from fibcore.admission import Admission
        from fibcore.appliance.ending import fail_stop
        from fibcore.stepper import Stepper

        hangs = threading.Event()

        class Broken:
            def advance(self, steps, expected):
                hangs.set()
                threading.Event().wait()

        async def main():
            admission = Admission(max_waiting=9, max_in_flight=1)
            loop = asyncio.get_running_loop()
            bounds = dict(max_index=9, fail_stop=fail_stop)
            stepper = Stepper(Sequence(), Broken(), loop, admission, **bounds)
            stepper.submit(print)
            await asyncio.to_thread(hangs.wait)
            raise SystemExit(7)

        asyncio.run(main())
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == 7
