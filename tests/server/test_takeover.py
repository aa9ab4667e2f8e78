"""Standby, takeover and stop of the server as a process."""

import ctypes
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fibcore.stores import sqlite_file
from fibcore.stores.files import high_water_mark_path, lock_path
from fibcore.stores.lock import WriterLock
from tests.support.invalid_databases import contents
from tests.support.raw_clients import LONG_INDEX, serving, slow_reader
from tests.support.reference import digits_of
from tests.support.servers import ServerProcess
from tests.support.waiting import until

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
        assert lock_path(database).read_text() == f"{server.pid}\n"
        assert client.get("/next").body == b'{"next": 1}'
        server.signal(signal.SIGKILL)
        assert client.get("/next").body == b'{"next": 1}'
        assert client.get("/next").body == b'{"next": 2}'
        assert server.wait() == -signal.SIGKILL
        assert "taking over" in standby.log.text
        assert lock_path(database).read_text() == f"{standby.pid}\n"


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
        assert ours - {str(high_water_mark_path(database))} == {str(lock_path(database))}
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
    sqlite_file.create(database, 5)
    lock = WriterLock(database)
    assert lock.acquire(wait=False)
    log = database.with_name("server.log").name
    before = contents(database.parent)
    with ServerProcess(database, listener) as standby:
        standby.wait_until_it_stands_by()
        after = contents(database.parent)
        assert {name: kept for name, kept in after.items() if name != log} == before
        lock.release()
        assert standby.wait_until_it_serves().client.get("/next").index == 6


# Stop


WORKS_OUT_NOTHING = """
from web import server, service

def no_sequence(*_, **__):
    raise MemoryError("a number was worked out")

service.Sequence = no_sequence
server.main()
"""


def test_a_standby_takes_over_without_computing_the_number(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, 1_000_000)
    command = (sys.executable, "-c", WORKS_OUT_NOTHING)
    with ServerProcess(database, listener, name="first") as first:
        first.wait_until_it_serves()
        with ServerProcess(database, listener, name="second", command=command) as second:
            second.log.expect("the number at index 1000000 is at hand")
            assert first.client.get("/next").index == 1_000_001
            first.process.kill()
            first.wait()
            answer = second.client.get("/current", {"Accept": "text/plain"})
            assert answer.body == digits_of(1_000_001)


def test_without_a_precomputed_number_a_takeover_would_compute_it(
    database: Path, listener: socket.socket
) -> None:
    """The control of the test above."""
    sqlite_file.create(database, 1_000_000)
    command = (sys.executable, "-c", WORKS_OUT_NOTHING)
    with ServerProcess(database, listener, command=command) as server:
        server.log.expect("a number was worked out")


def test_a_second_interrupt_stops_the_server_at_once(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with ExitStack() as stack:
        server = stack.enter_context(serving(database, listener, FIB_STOP_TIMEOUT="60"))
        stack.enter_context(slow_reader(server.client))
        server.signal(signal.SIGINT)
        server.log.expect("Waiting for connections to close")
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait() == 0


OPENS_SLOWLY = """
import sys, threading
from pathlib import Path
from fibcore.problems import StoreUnavailableError
from fibcore.stores import sqlite_opener
from web import server

opening, go_on, written = map(Path, sys.argv[1:])
has_written = threading.Event()

def open_slowly(*_):
    if not opening.exists():  # At first the disk is full, say; from then on it is slow.
        opening.write_text("")
        raise StoreUnavailableError("fibcore.db", "It is unavailable.")
    opening.write_text("again")
    go_on.open("rb", buffering=0).read(1)  # a pipe: until there is something in it
    written.touch()
    has_written.set()
    raise StoreUnavailableError("fibcore.db", "It is unavailable.")

sqlite_opener.SqliteStore = open_slowly
"""

LETS_GO_EARLY = """
import os
from fibcore.stores.lock import WriterLock

def acquire_and_be_known(self, *, wait):
    locks.append(self)
    return acquire(self, wait=wait)

def let_go_and_wait_for_the_threads(status):
    locks[-1].release()
    has_written.wait()
    exit_at_once(status)

locks, acquire, WriterLock.acquire = [], WriterLock.acquire, acquire_and_be_known
exit_at_once, os._exit = os._exit, let_go_and_wait_for_the_threads
"""
"""The control: the lock is released before the process has exited."""


@pytest.mark.parametrize("lets_go_early", [False, True])
def test_a_stop_while_the_store_opens_writes_only_with_the_lock(
    tmp_path: Path, database: Path, listener: socket.socket, lets_go_early: bool
) -> None:
    """The control: a process that releases the lock before its threads end writes without it."""
    program = OPENS_SLOWLY + LETS_GO_EARLY * lets_go_early + "server.main()"
    opening, go_on, written = (tmp_path / name for name in ("opening", "go_on", "written"))
    os.mkfifo(go_on)
    command = (sys.executable, "-c", program, str(opening), str(go_on), str(written))
    with (
        go_on.open("r+b", buffering=0) as pipe,
        ServerProcess(database, listener, command=command) as server,
    ):
        until(lambda: opening.exists() and opening.read_text() == "again", "it opens once more")
        server.signal(signal.SIGTERM)
        lock = WriterLock(database)
        until(lambda: lock.acquire(wait=False), "the lock is free")
        pipe.write(b"x")
        assert server.wait() == 0
        assert written.exists() == lets_go_early
        lock.release()
