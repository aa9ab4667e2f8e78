"""The end of a stepper: it drains and closes, or a commit fails and the process exits."""

import subprocess
import sys
import textwrap
from typing import NoReturn, cast

import pytest

from fibcore import Sequence, Snapshot
from fibcore.appliance.ending import End, fail_stop
from fibcore.problems import CommitFailedError, IndexRegressedError
from fibcore.stepper import Outcome
from tests.support.connections import Loop
from tests.support.stepper_harness import Harness
from tests.support.waiting import PATIENCE

# The end


def test_draining_waits_for_every_requested_step(loop: Loop) -> None:
    with Harness(loop, blocking=True) as it:
        loop.run_until_complete(it.stepper.drain())
        it.ask("a")
        loop.settle()
        it.ask("b")
        draining = loop.create_task(it.stepper.drain())
        it.reply()
        assert not draining.done()
        it.reply()
        assert draining.done()
        assert it.answers == [("a", 1, None), ("b", 2, None)]


@pytest.mark.parametrize("shared", [False, True])
def test_the_store_is_closed_after_its_last_reply(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    with Harness(loop, blocking=True, shared=shared) as it:
        it.ask("a")
        loop.settle()
        join = it.stepper._worker._thread.join

        def reply_and_join() -> None:
            it.store.finish()
            join()

        monkeypatch.setattr(it.stepper._worker._thread, "join", reply_and_join)
        it.stepper.close()
        assert it.store.did == ["replied", "closed"]
        assert it.store.index == 1


# Fail-stop

FAILED = CommitFailedError("fibcore.db", 1, "the disk says no")


@pytest.mark.parametrize(
    "error",
    [FAILED, OSError("no such device"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_commit_answers_nothing_and_ends_the_process(
    loop: Loop, error: BaseException
) -> None:
    with Harness(loop, blocking=True) as it:
        it.ask("a", "b")
        loop.settle()
        it.ask("c")
        it.store.error = error
        it.reply()
        assert it.failures == [error]
        assert (it.answers, it.sequence.index) == ([], 0)


def test_without_fail_stop_steps_of_a_failed_commit_would_be_answered(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: fail-stop makes the difference."""
    with Harness(loop) as it:
        monkeypatch.setattr(it.store, "advance", lambda *_: 0)
        it.ask("a")
        loop.settle()
        assert (it.answers, it.store.index) == ([("a", 1, None)], 0)


def raising_memory_error() -> NoReturn:
    raise MemoryError


class NoMemory:
    index = 0
    current = b"0"

    def advance(self) -> NoReturn:
        raise MemoryError


def fail(snapshot: Snapshot, failure: Outcome, _: None) -> NoReturn:
    raise RecursionError(f"{snapshot} {failure}")


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_a_committed_step_that_cannot_be_answered_ends_the_process(
    loop: Loop, error: type[Exception]
) -> None:
    loop.set_exception_handler(lambda *_: None)
    with Harness(loop) as it:
        if error is MemoryError:
            it.stepper.sequence = cast("Sequence", NoMemory())
        else:
            it.stepper.submit(fail)
        it.ask("a")
        loop.settle()
        assert [type(each) for each in it.failures] == [error]
        assert it.answers == []
        it.stepper.close()


def test_an_error_between_a_commit_and_its_answers_ends_the_process(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Harness(loop) as it:
        monkeypatch.setattr(it.stepper, "_go_on", raising_memory_error)
        it.ask("a")
        loop.settle()
        assert [type(each) for each in it.failures] == [MemoryError]


def test_steps_that_no_commit_picks_up_are_reported_as_waiting(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.set_exception_handler(lambda *_: None)
    with Harness(loop) as it:
        monkeypatch.setattr(it.stepper, "_begin", raising_memory_error)
        it.ask("a")
        loop.settle()
        loop.pass_time(12.0)
        assert it.stepper.stalled_for() == 12.0


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CommitFailedError("fibcore.db", 7, "the disk says no"), 74, "The commit of index 7"),
        (IndexRegressedError("an engine", 9, known=7), 65, "an engine"),
        (MemoryError(), 74, "A step that may be committed can't be answered"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_exit_status_tells_whether_the_next_process_may_serve(
    error: BaseException, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may resume, or must wait for a person."""
    ended: list[int] = []
    fail_stop(error, cast("End", ended.append))
    assert ended == [status]
    assert said in caplog.text


@pytest.mark.processes
def test_a_hanging_commit_does_not_keep_a_process_from_exiting() -> None:
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
