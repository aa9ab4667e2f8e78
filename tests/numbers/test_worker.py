"""The process that computes long numbers: its priority, its end, and its replacement."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.raw_clients import body_of, read_all
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess
from tests.support.waiting import until, until_ended

SHORT = 19_000
"""The largest index whose number the server computes itself."""


@pytest.fixture
def served(database: Path, listener: socket.socket, processes: None) -> Iterator[ServerProcess]:  # noqa: ARG001
    with ServerProcess(database, listener) as server:
        yield server.wait_until_it_serves()


def workers_of(server: int) -> list[int]:
    """Return the child processes of a server."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text()
    return [int(each) for each in children.split()]


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


def test_a_worker_that_stands_still_is_replaced(served: ServerProcess) -> None:
    client = served.client
    client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    os.kill(worker_pid, signal.SIGSTOP)
    answer = client.get("/numbers/30001")
    assert answer.status == 503
    assert b"the process that computes numbers failed" in answer.body
    assert client.get("/numbers/30001").body == b'{"number": %b}' % digits_of(30_001)
    assert workers_of(served.pid) != [worker_pid]
    until_ended(worker_pid)
    served.log.expect("The number at index 30001 is not computed")
