"""A flood of requests for long numbers that are never finished: steps are answered."""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from fibcore.numbers.queue import MAX_QUEUED, SHORT
from tests.faults.conftest import Fault
from tests.support.long_numbers import LONG, workers_of
from tests.support.servers import Client, ServerProcess, listening_socket
from tests.support.waiting import until

pytestmark = pytest.mark.processes

REQUESTS: Final = 2 * MAX_QUEUED
STEPS: Final = 100

GROWTH: Final = 16 * 2**20
"""Bytes that a server with so many connections may grow."""


UNWATCHED: Final = """
import runpy, sys
from fibcore.numbers import worker_process

worker_process.MAX_SILENT = sys.maxsize
runpy.run_module(sys.argv[1], run_name="__main__")
"""
"""A hanging process is not replaced."""


@contextmanager
def served(
    folder: Path, command: Sequence[str], settings: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """A server whose process for long numbers hangs."""
    with (
        listening_socket() as listener,
        ServerProcess(folder / "fibcore.db", listener, settings, command=command) as server,
    ):
        server.wait_until_it_serves().client.get(f"/numbers/{SHORT + 1}")
        (worker,) = workers_of(server.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            yield server
        finally:
            os.kill(worker, signal.SIGKILL)


def status(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.status.body)
    return found


def readable(connections: Sequence[socket.socket]) -> list[socket.socket]:
    return select.select(connections, [], [], 0)[0]


def request(index: int) -> bytes:
    return b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % index


def test_steps_are_answered_during_a_flood_for_long_numbers(fault: Fault, tmp_path: Path) -> None:
    with served(tmp_path, (sys.executable, "-c", UNWATCHED, "web")) as server, ExitStack() as stack:
        client = server.client
        before = status(client)["memory_bytes"]
        flood = [stack.enter_context(client.raw()) for _ in range(REQUESTS)]
        for number, connection in enumerate(flood):
            connection.sendall(request(LONG + number))
        until(lambda: len(readable(flood)) == REQUESTS - MAX_QUEUED, "all but these are shed")
        assert {shed.recv(12) for shed in readable(flood)} == {b"HTTP/1.1 503"}
        with closing(client.connect()) as stepping:
            for number in fault.tries(short=STEPS, long=STEPS, share=0):
                answer = client.request_on(stepping, "GET", "/next")
                assert (answer.status, answer.index) == (200, number + 1)
        now = status(client)
        assert now["waiting_numbers"] == MAX_QUEUED
        assert now["shed_requests"]["numbers"] == REQUESTS - MAX_QUEUED
        assert now["memory_bytes"] - before < GROWTH


WAITERS: Final = 84
"""More than the bound on connections."""

FEW: Final = {"FIB_MAX_CONNECTIONS": "40"}


def newcomers_served(folder: Path, code: str) -> int:
    """The number of answered newcomers, of 40, while others wait for a few numbers."""
    command = (sys.executable, "-c", code, "web")
    served_ones = 0
    with served(folder, command, FEW) as server, ExitStack() as stack:
        for number in range(WAITERS):
            waiting = stack.enter_context(server.client.raw())
            waiting.sendall(b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (LONG + number % 6))
        for _ in range(40):
            with closing(server.client.raw()) as newcomer:
                newcomer.sendall(b"GET /current HTTP/1.1\r\nHost: x\r\n\r\n")
                with suppress(ConnectionError):
                    served_ones += newcomer.recv(12) == b"HTTP/1.1 200"
    return served_ones


def test_clients_waiting_for_numbers_shut_no_newcomer_out(tmp_path: Path) -> None:
    assert newcomers_served(tmp_path, UNWATCHED) == 40


@pytest.mark.long
def test_unbounded_waiting_clients_would_shut_newcomers_out(tmp_path: Path) -> None:
    unbounded = (
        "from web import service as s\nQ = s.NumberQueue\ns.NumberQueue = lambda a, _: Q(a)\n"
    )
    assert newcomers_served(tmp_path, unbounded + UNWATCHED) < 10


BLOCKS: Final = """
import subprocess, sys
from fibcore.numbers.worker_process import WorkerProcess
from web import server

worker = subprocess.Popen(
    [sys.executable, "-m", "fibcore.numbers.worker"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    start_new_session=True,
)

async def compute(self, index):
    worker.stdin.write(b"%d\\n" % index)
    worker.stdin.flush()
    print("computing", index, file=sys.stderr, flush=True)
    return worker.stdout.read(int(worker.stdout.readline()))

WorkerProcess.compute = compute
server.main()
"""
"""The event loop itself waits for the number."""


@pytest.mark.long
def test_steps_would_wait_for_a_number_computed_in_the_event_loop(tmp_path: Path) -> None:
    with served(tmp_path, (sys.executable, "-c", BLOCKS)) as server, ExitStack() as stack:
        asking, stepping = (stack.enter_context(server.client.raw()) for _ in range(2))
        asking.sendall(request(LONG))
        server.log.expect(f"computing {LONG}")
        stepping.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        stepping.settimeout(1)
        with pytest.raises(TimeoutError):
            stepping.recv(12)
