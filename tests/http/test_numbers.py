"""The queue of long numbers, from outside: fair, bounded, shared, and harmless to steps."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.limits import Served, limited, read_answer
from tests.support.reference import digits_of
from tests.support.wire import READ

pytestmark = pytest.mark.processes

LONG: Final = 100_000
"""An index whose number is computed in a process of its own."""

QUEUED: Final = 64
"""Numbers that may wait."""


def number(index: int) -> bytes:
    return b"GET /numbers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % index


def worker_of(served: Served) -> int:
    """The process that computes, which the first long number starts."""
    assert served.client.get(f"/numbers/{LONG - 1}").status == 200
    pid = served.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(worker)


@contextmanager
def paused(served: Served) -> Iterator[None]:
    """Compute nothing during the block, which takes less than the time of a hang."""
    worker = worker_of(served)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_long_numbers_are_exact_and_the_cached_answer_is_the_same(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        for _ in range(2):
            answer = served.client.get(f"/numbers/{10 * LONG}")
            assert answer.status == 200
            assert answer.body == b'{"number": %b}' % digits_of(10 * LONG)
        head = served.client.request("HEAD", f"/numbers/{10 * LONG}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]
        etag = {"If-None-Match": answer.headers["etag"]}
        assert served.client.get(f"/numbers/{10 * LONG}", etag).status == 304


def test_past_the_bound_of_the_queue_a_number_is_503_and_steps_go_on(tmp_path: Path) -> None:
    with limited(tmp_path) as served, paused(served):
        clients = [served.connect(number(LONG + each)) for each in range(2 * QUEUED)]
        served.settle()
        shed = [each for each in clients if answered(each)]
        assert len(shed) == QUEUED
        for each in shed:
            status, head, body = read_answer(each)
            assert (status, b"retry-after: 1\r\n" in head) == (503, True)
            assert b"requests wait for numbers already" in body
        for index in range(1, 51):
            step = served.client.get("/next")
            assert (step.status, step.index) == (200, index)
        seen = served.status()
        assert seen["waiting_numbers"] == QUEUED
        assert seen["shed_requests"]["numbers"] == QUEUED


def answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(60)


def test_clients_waiting_for_numbers_shut_no_newcomer_out(tmp_path: Path) -> None:
    """At most an eighth of the connections wait for numbers."""
    with limited(tmp_path, MAX_CONNECTIONS="40") as served, paused(served):
        for each in range(84):
            served.connect(number(LONG + each % 6))
        for _ in range(40):
            assert read_answer(served.connect(READ))[0] == 200
        assert served.status()["waiting_numbers"] <= 6


def test_a_client_that_fills_the_queue_leaves_a_place_for_another_client(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        with paused(served):
            greedy = [
                served.connect(number(LONG + each), address="127.0.0.2") for each in range(QUEUED)
            ]
            served.settle()
            modest = served.connect(number(2 * LONG), address="127.0.0.3")
            served.settle()
            assert not answered(modest)
        assert read_answer(modest)[2] == b'{"number": %b}' % digits_of(2 * LONG)
        assert {read_answer(each)[0] for each in greedy} == {200, 503}


def test_clients_waiting_for_the_same_number_share_it(tmp_path: Path) -> None:
    with limited(tmp_path) as served:
        with paused(served):
            clients = [served.connect(number(LONG)) for _ in range(20)]
            served.settle()
            served.until("waiting_numbers", 1)
        expected = b'{"number": %b}' % digits_of(LONG)
        assert [read_answer(each)[2] for each in clients] == [expected] * 20


def test_when_its_process_is_killed_a_number_is_503_and_the_next_is_computed(
    tmp_path: Path,
) -> None:
    with limited(tmp_path) as served:
        worker = worker_of(served)
        os.kill(worker, signal.SIGSTOP)
        client = served.connect(number(LONG))
        served.until("waiting_numbers", 1)
        os.kill(worker, signal.SIGKILL)
        status, _, body = read_answer(client)
        assert (status, b"the process that computes numbers failed" in body) == (503, True)
        begun = time.monotonic()
        assert served.client.get(f"/numbers/{LONG}").status == 200
        assert time.monotonic() - begun < 30
