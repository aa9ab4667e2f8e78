"""The process that computes long numbers."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore.admission import OverloadedError
from fibcore.numbers import queue, worker, worker_process
from fibcore.numbers.outline import outline
from fibcore.numbers.queue import SHORT
from fibcore.numbers.worker_process import most_digits
from tests.faults.server_variants import has_numbers_waited_for_at_a_stop, variant
from tests.support.implementations import IMPLEMENTATIONS
from tests.support.long_numbers import LONG, Held, workers_of
from tests.support.raw_clients import body_of, read_all
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import PATIENCE, in_a_loop, until, until_ended


@pytest.fixture(params=IMPLEMENTATIONS)
def served(
    processes: None,  # noqa: ARG001
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[ServerProcess]:
    command = (sys.executable, "-m", IMPLEMENTATIONS[request.param])
    database = tmp_path / "fibcore.db"
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, command=command) as server,
    ):
        yield server.wait_until_it_serves()


@pytest.mark.processes
def test_who_starts_it_in_their_session_does_not_yield_with_it() -> None:
    """All of a session share in how it yields: sched(7)."""
    program = """
        import pathlib, subprocess, sys
        before = pathlib.Path("/proc/self/autogroup").read_text()
        command = [sys.executable, "-m", "fibcore.numbers.worker"]
        done = subprocess.run(command, input=b"7\\n", capture_output=True, check=True)
        assert done.stdout == b"2\\n13", done
        assert pathlib.Path("/proc/self/autogroup").read_text() == before
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    subprocess.run(command, start_new_session=True, timeout=PATIENCE, check=True)


def test_it_starts_at_the_first_long_number_and_yields_to_all(served: ServerProcess) -> None:
    served.client.get(f"/numbers/{SHORT}")
    assert workers_of(served.pid) == []
    served.client.get(f"/numbers/{SHORT + 1}")
    (worker_pid,) = workers_of(served.pid)
    assert os.sched_getscheduler(worker_pid) == os.SCHED_IDLE
    assert os.getsid(worker_pid) == worker_pid != os.getsid(served.pid)
    assert Path(f"/proc/{worker_pid}/oom_score_adj").read_text() == "1000\n"
    served.client.get(f"/numbers/{SHORT + 2}")
    assert workers_of(served.pid) == [worker_pid]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_server(served: ServerProcess, end: signal.Signals) -> None:
    served.client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    with served.client.raw() as connection:
        # It is in the middle of a number.
        connection.sendall(b"GET /numbers/10000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: served.client.index == 0, "it serves")
        served.signal(end)
        served.wait()
    until_ended(worker_pid)


def queued(client: Client) -> int:
    return int(json.loads(client.get("/status").body)["waiting_numbers"])


def test_who_waits_gets_503_when_it_is_killed(served: ServerProcess) -> None:
    """Another is started."""
    served.client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    os.kill(worker_pid, signal.SIGSTOP)
    with served.client.raw() as connection:
        connection.sendall(b"GET /numbers/30001 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: queued(served.client) == 1, "it is asked for it")
        os.kill(worker_pid, signal.SIGKILL)
        assert connection.recv(12) == b"HTTP/1.1 503"
    assert served.client.get("/numbers/30001").body == b'{"number": %b}' % digits_of(30_001)
    assert workers_of(served.pid) != [worker_pid]
    assert served.client.get("/next").status == 200


@contextmanager
def told_to_stop(
    database: Path, graceful_stop: str, command: Sequence[str]
) -> Iterator[tuple[int, list[socket.socket]]]:
    """What works out numbers and is stopped, and who waits for them; the server is to end."""
    settings = {"FIB_STOP_TIMEOUT": graceful_stop}
    with (
        listening_socket() as listener,
        ServerProcess(database, listener, settings, command=command) as server,
        ExitStack() as stack,
    ):
        client = server.wait_until_it_serves().client
        client.get("/numbers/30000")
        (worker_pid,) = workers_of(server.pid)
        os.kill(worker_pid, signal.SIGSTOP)
        asking = [stack.enter_context(client.raw()) for _ in range(4)]
        for number, connection in enumerate(asking):
            index = 30_001 + number // 2
            connection.sendall(b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % index)
        until(lambda: queued(client) == 2, "it is asked for both")
        server.signal(signal.SIGTERM)
        server.log.expect("Shutting down")
        server.signal(signal.SIGTERM)  # To say it again changes nothing.
        yield worker_pid, asking
        assert server.wait() == 0
        until_ended(worker_pid)


@pytest.mark.proves("pairs", "a stop", "a number that is computed")
@pytest.mark.processes
def test_a_stop_lets_who_waits_for_a_number_have_it(database: Path) -> None:
    with told_to_stop(database, "60", (sys.executable, "-m", "web")) as (worker_pid, asking):
        os.kill(worker_pid, signal.SIGCONT)
        for number, connection in enumerate(asking):
            digits = digits_of(30_001 + number // 2).decode()
            assert body_of(read_all(connection)) == f'{{"number": {digits}}}'


@pytest.mark.proves("pairs", "a stop", "a number that is…")
@pytest.mark.processes
def test_a_stop_answers_503_to_who_waits_for_a_stuck_number(database: Path) -> None:
    # They are told after half of the time, and then there must be some for the answers to leave.
    with told_to_stop(database, "4", (sys.executable, "-m", "web")) as (_, asking):
        for connection in asking:
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert "told to stop" in body_of(answer)


@pytest.mark.proves("pairs", "a stop", "a number that is…", control="is waited for")
@pytest.mark.processes
def test_who_waits_would_get_no_answer_if_no_stop_were_known(database: Path) -> None:
    """The control of the test above."""
    command = variant(has_numbers_waited_for_at_a_stop)
    with told_to_stop(database, "1", command) as (_, asking):
        assert [read_all(connection) for connection in asking] == [b""] * 4


@pytest.mark.processes
def test_what_can_not_be_started_is_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_a_loop
    async def test() -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        it = Held(monkeypatch, works=False)
        it.find(LONG)
        await it.wait_for(1)
        assert isinstance(it.found[0][1], OverloadedError)
        assert it.admission.in_flight.used == 0

    test()
    assert "The number at index 1000000 is not computed (FileNotFoundError" in caplog.text


@pytest.mark.processes
def test_it_is_ended_when_it_has_had_nothing_to_do_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @in_a_loop
    async def test() -> None:
        monkeypatch.setattr(queue, "IDLE_SECONDS", 0.0)
        before = workers_of(os.getpid())
        it = Held(monkeypatch, works=False)
        it.find(SHORT + 1)
        await it.wait_for(1)
        assert it.found == [(SHORT + 1, digits_of(SHORT + 1))]
        await asyncio.to_thread(until, lambda: workers_of(os.getpid()) == before, "it ends")
        it.find(SHORT + 2)
        await it.wait_for(2)
        await it.queue.close()

    test()


@pytest.mark.proves(
    "processes",
    "the process for long numbers is stopped, or loops",
    "it is replaced within a few seconds; only who waited for that number gets 503",
)
@pytest.mark.processes
def test_one_that_is_stopped_is_replaced(served: ServerProcess) -> None:
    """Who waits for its number is answered 503, and the next has another process."""
    served.client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    os.kill(worker_pid, signal.SIGSTOP)
    assert served.client.get("/numbers/30001").status == 503
    until_ended(worker_pid)
    assert served.client.get("/numbers/30001").body == b'{"number": %b}' % digits_of(30_001)


async def stopped(monkeypatch: pytest.MonkeyPatch) -> Held:
    """A queue whose process is stopped, and has been asked for a number."""
    monkeypatch.setattr(worker_process, "CHECK_SECONDS", 0.01)
    it = Held(monkeypatch, works=False)
    it.find(SHORT + 1)
    await it.wait_for(1)
    process = it.queue._worker._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    it.find(SHORT + 2)
    return it


@pytest.mark.proves("processes", "the process for long numbers…")
@pytest.mark.processes
def test_one_that_is_stopped_makes_no_progress(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_a_loop
    async def test() -> None:
        it = await stopped(monkeypatch)
        await it.wait_for(2)
        assert isinstance(it.found[1][1], OverloadedError)
        await it.queue.close()

    test()
    assert f"The number at index {SHORT + 2} is not computed (EOFError" in caplog.text


@pytest.mark.proves(
    "processes", "the process for long numbers…", control="nobody watched it: it stays so"
)
@pytest.mark.processes
def test_one_that_is_stopped_would_stay_if_nobody_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_a_loop
    async def test() -> None:
        monkeypatch.setattr(worker_process, "MAX_SILENT", sys.maxsize)
        it = await stopped(monkeypatch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.wait_for(2), 1)
        await it.queue.close()

    test()


@pytest.mark.proves("processes", "the process for long numbers…")
@pytest.mark.processes
def test_one_that_takes_too_long_for_the_number_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It works without an end."""

    @in_a_loop
    async def test() -> None:
        it = Held(monkeypatch, works=False)
        with monkeypatch.context() as patched:
            patched.setattr(worker_process, "CHECK_SECONDS", 0.01)
            patched.setattr(worker_process, "WORK_SECONDS", 0.0)
            patched.setattr(worker_process, "DIGIT_SECONDS", 0.0)
            it.find(10 * LONG)
            await it.wait_for(1)
        it.find(SHORT + 1)
        await it.wait_for(2)
        assert isinstance(it.found[0][1], OverloadedError)
        assert it.found[1] == (SHORT + 1, digits_of(SHORT + 1))
        await it.queue.close()

    test()


@pytest.mark.proves("processes", "the process for long numbers…")
@pytest.mark.processes
def test_one_that_gets_no_processor_time_is_not_replaced() -> None:
    """It would have some if there was any."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        assert worker_process._is_runnable(busy.pid)
        before = worker_process._processor_seconds(busy.pid)
        until(lambda: worker_process._processor_seconds(busy.pid) > before, "it has some")
        busy.send_signal(signal.SIGSTOP)
        until(lambda: not worker_process._is_runnable(busy.pid), "it is stopped")
        busy.kill()
    assert not worker_process._is_runnable(busy.pid)
    assert worker_process._processor_seconds(busy.pid) == 0.0


def test_it_answers_an_index_a_line() -> None:
    told = io.BytesIO()
    worker.answer(io.BytesIO(b"0\n93\n20578\n"), told)
    told.seek(0)
    for index in (0, 93, 20_578):
        assert told.read(int(told.readline())) == digits_of(index)
    assert told.read() == b""


@given(st.integers(0, 10**9))
def test_how_many_digits_a_number_has_at_most_is_known(index: int) -> None:
    assert outline(index).digits <= most_digits(index) <= outline(index).digits + 1
