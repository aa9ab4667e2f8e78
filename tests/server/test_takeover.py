"""Standby, takeover and stop of the server as a process."""

import ctypes
import fcntl
import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support.invalid_databases import contents
from tests.support.raw_clients import LONG_INDEX, serving, slow_reader
from tests.support.servers import ServerProcess
from tests.support.stores import file_at

pytestmark = pytest.mark.processes


# Standby and takeover


@contextmanager
def server_and_standby(
    database: Path, listener: socket.socket
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with (
        serving(database, listener) as server,
        ServerProcess(database, listener, name="standby") as other,
    ):
        yield server, other.wait_until_it_stands_by()


def test_a_standby_takes_over_after_kill_9_and_refuses_nobody(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        client = server.client
        assert f"standing by: process {server.pid} serves {database}" in standby.log.text
        assert Path(f"{database}.lock").read_text() == f"{server.pid}\n"
        assert client.get("/next").body == b'{"next": 1}'
        server.signal(signal.SIGKILL)
        assert client.get("/next").body == b'{"next": 1}'
        assert client.get("/next").body == b'{"next": 2}'
        assert server.wait() == -signal.SIGKILL
        assert "taking over" in standby.log.text
        assert Path(f"{database}.lock").read_text() == f"{standby.pid}\n"


def test_a_standby_takes_over_beside_a_program_that_keeps_reading(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, _):
        client = server.client
        assert client.get("/next").body == b'{"next": 1}'
        with closing(sqlite3.connect(database, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM sequence")
            server.signal(signal.SIGKILL)
            answer = client.get("/next")
            assert (answer.status, answer.body) == (200, b'{"next": 1}')


def test_after_kill_9_a_key_gets_the_number_of_its_step(
    database: Path, listener: socket.socket
) -> None:
    key = {"Idempotency-Key": '"0:abcdefghijklmnop"'}
    with server_and_standby(database, listener) as (server, _):
        client = server.client
        assert client.request("POST", "/next", key).body == b'{"next": 1}'
        client.get("/next")
        assert client.get("/next").body == b'{"next": 2}'
        server.signal(signal.SIGKILL)
        answer = client.request("POST", "/next", key)
        assert (answer.status, answer.index, answer.body) == (200, 1, b'{"next": 1}')
        assert client.index == 3
        now = json.loads(client.status.body)
        assert (now["kept_keys"], now["max_keys"], now["repeated_steps"]) == (1, 10_000, 1)


def test_connections_queued_while_nobody_serves_are_answered_by_the_next(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        client = server.client
        client.get("/next")
        server.signal(signal.SIGKILL)
        server.wait()
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(client.get, "/next") for _ in range(20)]
        stack.enter_context(serving(database, listener))
        assert sorted(answer.result().index for answer in answers) == list(range(2, 22))


def test_a_standby_accepts_nothing_and_has_no_database_open(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        standby.signal(signal.SIGSTOP)
        for reached in range(1, 51):
            assert server.client.get("/next").index == reached
        open_files = {str(fd.readlink()) for fd in Path(f"/proc/{standby.pid}/fd").iterdir()}
        ours = {name for name in open_files if name.startswith(str(database))}
        # It may be polling the index.
        assert ours - {f"{database}.mark"} == {f"{database}.lock"}
        standby.signal(signal.SIGCONT)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_standby_exits_whichever_thread_gets_the_signal(
    database: Path, listener: socket.socket, end: signal.Signals
) -> None:
    """With SIGCONT, for example, the kernel may deliver it to another thread than the main one."""
    with server_and_standby(database, listener) as (server, standby):
        threads = [int(each.name) for each in Path(f"/proc/{standby.pid}/task").iterdir()]
        other = next(each for each in threads if each != standby.pid)
        assert ctypes.CDLL(None).tgkill(standby.pid, other, end) == 0
        assert standby.wait() == 0
        assert server.client.get("/next").index == 1


def test_a_standby_never_writes(database: Path, listener: socket.socket) -> None:
    # Another process holds the lock and serves nothing: only the standby could change anything.
    file_at(database).opener().create(5)
    with Path(f"{database}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = database.with_name("server.log").name
        before = contents(database.parent)
        with ServerProcess(database, listener) as standby:
            standby.wait_until_it_stands_by()
            after = contents(database.parent)
            assert {name: kept for name, kept in after.items() if name != log} == before
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert standby.wait_until_it_serves().client.get("/next").index == 6


# Stop


def test_a_second_interrupt_stops_the_server_at_once(
    database: Path, listener: socket.socket
) -> None:
    file_at(database).opener().create(LONG_INDEX)
    with ExitStack() as stack:
        server = stack.enter_context(serving(database, listener, FIB_STOP_TIMEOUT="60"))
        stack.enter_context(slow_reader(server.client))
        server.signal(signal.SIGINT)
        server.log.expect("Waiting for connections to close")
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait() == 0
