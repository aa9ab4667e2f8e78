"""The process that computes long numbers, and what is known of a number without computing it."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import gmpy2
import pytest

from fibcore import MAX_EXACT_INDEX
from fibcore.command.cli import main
from tests.support.raw_clients import body_of, read_all
from tests.support.reference import digits_of, fibonacci_modulo
from tests.support.servers import ServerProcess
from tests.support.stores import file_at
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


def test_a_stop_waits_for_the_numbers_that_clients_wait_for(served: ServerProcess) -> None:
    client = served.client
    client.get("/numbers/30000")
    (worker_pid,) = workers_of(served.pid)
    os.kill(worker_pid, signal.SIGSTOP)
    with client.raw() as connection:
        connection.sendall(b"GET /numbers/30001 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: b'"waiting_numbers": 1' in client.get("/status").body, "it waits")
        served.signal(signal.SIGTERM)
        served.log.expect("Shutting down")
        os.kill(worker_pid, signal.SIGCONT)
        assert body_of(read_all(connection)) == f'{{"number": {digits_of(30_001).decode()}}}'
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


def show(capsys: pytest.CaptureFixture[str], index: int, *options: str) -> str:
    """What the command prints of a sequence at ``index``."""
    with TemporaryDirectory() as folder:
        file_at(database := Path(folder, "fibcore.db")).opener().create(index)
        assert main(["show", "--database", str(database), *options]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("index", [0, 7, 97, 98, 93, 94, 1_000, 123_456, MAX_EXACT_INDEX])
def test_the_ends_of_a_number_are_known_at_once(
    capsys: pytest.CaptureFixture[str], index: int
) -> None:
    if index == MAX_EXACT_INDEX:
        last = str(gmpy2.lucasu_mod(1, -1, index, 10**20)).zfill(20)
        shown = f"...{last} (208987640 digits)"
    else:
        text = digits_of(index).decode()
        shown = text if len(text) <= 20 else f"{text[:20]}...{text[-20:]}"
    assert shown in show(capsys, index)


@pytest.mark.parametrize("index", [0, 93, 20_000, 6_000_000])
def test_all_digits_are_printed(capsys: pytest.CaptureFixture[str], index: int) -> None:
    """The last of these takes more than one piece."""
    assert show(capsys, index, "--digits").encode() == digits_of(index) + b"\n"
    assert show(capsys, index, "--integers", "uint64", "--digits") == f"{fibonacci_modulo(index)}\n"
