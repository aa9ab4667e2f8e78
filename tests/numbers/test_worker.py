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
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fibcore.admission import OverloadedError
from fibcore.numbers import queue, worker, worker_process
from fibcore.numbers.outline import outline
from fibcore.numbers.queue import SHORT
from fibcore.numbers.worker_process import most_digits
from tests.support.long_numbers import LONG, Held, workers_of
from tests.support.raw_clients import body_of, read_all
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess
from tests.support.waiting import PATIENCE, in_a_loop, until, until_ended


@pytest.fixture
def served(database: Path, listener: socket.socket, processes: None) -> Iterator[ServerProcess]:  # noqa: ARG001
    with ServerProcess(database, listener) as server:
        yield server.wait_until_it_serves()


@pytest.mark.processes
def test_the_server_does_not_take_over_the_priority_of_its_worker() -> None:
    """Scheduling priority is shared by a session: sched(7)."""
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


def test_the_worker_starts_at_the_first_long_number_with_low_priority(
    served: ServerProcess,
) -> None:
    served.client.get(f"/numbers/{SHORT}")
    assert workers_of(served.pid) == []
    served.client.get(f"/numbers/{SHORT + 1}")
    (worker_pid,) = workers_of(served.pid)
    assert os.sched_getscheduler(worker_pid) == os.SCHED_IDLE
    assert os.getsid(worker_pid) == worker_pid != os.getsid(served.pid)
    assert Path(f"/proc/{worker_pid}/oom_score_adj").read_text() == "1000\n"
    served.client.get(f"/numbers/{SHORT + 2}")
    assert workers_of(served.pid) == [worker_pid]


def test_the_worker_ends_with_its_server(served: ServerProcess) -> None:
    served.client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    with served.client.raw() as connection:
        # It is in the middle of a number.
        connection.sendall(b"GET /numbers/10000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: served.client.index == 0, "it serves")
        served.signal(signal.SIGKILL)
        served.wait()
    until_ended(worker_pid)


def queued(client: Client) -> int:
    return int(json.loads(client.get("/status").body)["waiting_numbers"])


def test_clients_that_wait_get_503_when_the_worker_is_killed(served: ServerProcess) -> None:
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


def test_a_stop_waits_for_the_numbers_that_clients_wait_for(served: ServerProcess) -> None:
    client = served.client
    client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    os.kill(worker_pid, signal.SIGSTOP)
    with ExitStack() as stack:
        asking = [stack.enter_context(client.raw()) for _ in range(4)]
        for number, connection in enumerate(asking):
            index = 30_001 + number // 2
            connection.sendall(b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % index)
        until(lambda: queued(client) == 2, "it is asked for both")
        served.signal(signal.SIGTERM)
        served.log.expect("Shutting down")
        served.signal(signal.SIGTERM)  # Repeating it changes nothing.
        os.kill(worker_pid, signal.SIGCONT)
        for number, connection in enumerate(asking):
            digits = digits_of(30_001 + number // 2).decode()
            assert body_of(read_all(connection)) == f'{{"number": {digits}}}'
    assert served.wait() == 0
    until_ended(worker_pid)


@pytest.mark.processes
def test_a_worker_that_cannot_be_started_is_503(
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
@in_a_loop
async def test_an_idle_worker_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


async def stopped(monkeypatch: pytest.MonkeyPatch) -> Held:
    """A queue whose process is stopped while it computes a number."""
    monkeypatch.setattr(worker_process, "CHECK_SECONDS", 0.01)
    it = Held(monkeypatch, works=False)
    it.find(SHORT + 1)
    await it.wait_for(1)
    process = it.queue._worker._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    it.find(SHORT + 2)
    return it


@pytest.mark.processes
def test_a_stopped_worker_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_a_loop
    async def test() -> None:
        it = await stopped(monkeypatch)
        await it.wait_for(2)
        assert isinstance(it.found[1][1], OverloadedError)
        it.find(SHORT + 3)
        await it.wait_for(3)
        assert it.found[2] == (SHORT + 3, digits_of(SHORT + 3))
        await it.queue.close()

    test()
    assert f"The number at index {SHORT + 2} is not computed (EOFError" in caplog.text


@pytest.mark.processes
@in_a_loop
async def test_without_a_watch_a_stopped_worker_would_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_process, "MAX_SILENT", sys.maxsize)
    it = await stopped(monkeypatch)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(it.wait_for(2), 1)
    await it.queue.close()


@pytest.mark.processes
@in_a_loop
async def test_a_worker_that_takes_too_long_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


@pytest.mark.processes
def test_a_worker_that_gets_no_processor_time_is_not_replaced() -> None:
    """It is runnable, so it is only starved."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        assert worker_process._is_runnable(busy.pid)
        before = worker_process._processor_seconds(busy.pid)
        until(lambda: worker_process._processor_seconds(busy.pid) > before, "it has some")
        busy.send_signal(signal.SIGSTOP)
        until(lambda: not worker_process._is_runnable(busy.pid), "it is stopped")
        busy.kill()
    assert not worker_process._is_runnable(busy.pid)
    assert worker_process._processor_seconds(busy.pid) == 0.0


def test_the_worker_answers_each_line_with_its_number() -> None:
    told = io.BytesIO()
    worker.answer(io.BytesIO(b"0\n93\n20578\n"), told)
    told.seek(0)
    for index in (0, 93, 20_578):
        assert told.read(int(told.readline())) == digits_of(index)
    assert told.read() == b""


@given(st.integers(0, 10**9))
def test_the_largest_number_of_digits_is_known(index: int) -> None:
    assert outline(index).digits <= most_digits(index) <= outline(index).digits + 1
