"""The server as a process: start, takeover, stop, what is invalid, and how it bounds clients."""

import contextlib
import re
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fibcore import MAX_EXACT_INDEX
from fibcore.admission import SHED_AT_ONCE
from fibcore.stepper import EXIT_COMMIT_FAILED
from fibcore.stores import files, sqlite_file
from fibcore.stores.files import high_water_mark_path, lock_path
from fibcore.stores.lock import WriterLock
from tests.support.disks import SmallDisk, fill
from tests.support.invalid import SPOILED, Spoiled, change, contents
from tests.support.ports import free_port
from tests.support.reference import digits_of
from tests.support.servers import Answer, Client, ServerProcess
from tests.support.waiting import until
from web.server import EXIT_DATABASE_INVALID, EXIT_SETTINGS_INVALID

pytestmark = pytest.mark.processes


@contextmanager
def serving(database: Path, listener: socket.socket, **settings: str) -> Iterator[ServerProcess]:
    with ServerProcess(database, listener, settings) as server:
        yield server.wait_until_it_serves()


@contextmanager
def held(database: Path) -> Iterator[sqlite3.Connection]:
    """Keep the server in the middle of its next commit, at most as long as SQLite waits: 5 s."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def wait_until_all_is_read(client: Client) -> None:
    """Wait until the server has taken in all that was sent to it.

    It looks at what it has been sent before it accepts another connection.
    """
    local = f"{client.port:04X}"

    def nothing_is_queued() -> bool:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        connections = [line.split() for line in lines]
        return not any(
            fields[1].endswith(f":{local}") and fields[3] == "01" and int(fields[4][-8:], 16)
            for fields in connections
        )

    until(nothing_is_queued, "the server reads what it was sent")


def send_step(client: Client) -> socket.socket:
    """Ask for a step on a connection of its own, without waiting for the answer."""
    connection = client.raw()
    connection.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(2**20):
            received += data
    return received


def body_of(received: bytes) -> str:
    return received.partition(b"\r\n\r\n")[2].decode()


# Start


def test_a_server_binds_its_own_port_where_it_is_not_given_a_socket(database: Path) -> None:
    port = free_port()
    settings = {"FIB_HOST": "127.0.0.1", "FIB_PORT": str(port)}
    with ServerProcess(database, settings=settings) as server:
        server.wait_until_it_serves()
        client = Client(f"http://127.0.0.1:{port}")
        until(lambda: is_listening(client), "it listens")
        assert client.get("/next").body == b'{"next": 1}'


def is_listening(client: Client) -> bool:
    try:
        client.raw().close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_standard_input_that_is_no_listening_socket_is_not_served(database: Path) -> None:
    port = free_port()
    ours, theirs = socket.socketpair()
    with ours, theirs, ServerProcess(database, theirs, {"FIB_PORT": str(port)}) as server:
        server.wait_until_it_serves()
        client = Client(f"http://127.0.0.1:{port}")
        until(lambda: is_listening(client), "it listens")
        assert client.get("/next").body == b'{"next": 1}'


def test_a_server_whose_standard_input_is_closed_binds_its_own_port(database: Path) -> None:
    command = ("sh", "-c", 'exec "$0" -m web <&-', sys.executable)
    with ServerProcess(database, settings={"FIB_PORT": "0"}, command=command) as server:
        server.wait_until_it_serves()


def test_a_missing_folder_is_made_for_the_database(tmp_path: Path, listener: socket.socket) -> None:
    settings = {"FIB_STATE": str(tmp_path / "a" / "b" / "fibcore.db")}
    with ServerProcess(tmp_path / "unused", listener, settings) as server:
        assert server.wait_until_it_serves().client.get("/next").body == b'{"next": 1}'
    assert sqlite_file.verify_file(tmp_path / "a" / "b" / "fibcore.db") == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_goes_on_where_the_last_one_ended(
    database: Path, listener: socket.socket, end: signal.Signals
) -> None:
    for start in (0, 3, 6):
        with serving(database, listener) as server:
            for reached in range(start + 1, start + 4):
                assert server.client.get("/next").body == b'{"next": %b}' % digits_of(reached)
            server.signal(end)
            assert server.wait() == (-9 if end == signal.SIGKILL else 0)


def test_what_is_served_and_how_is_in_the_log(database: Path, listener: socket.socket) -> None:
    sqlite_file.create(database, 7)
    with serving(database, listener, FIB_SYNCHRONOUS="normal") as server:
        assert "serving from index 7; synchronous=normal, integers=exact" in server.log.text


def test_that_uint64_numbers_are_not_exact_is_in_the_log(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_INTEGERS="uint64") as server:
        assert re.search("WARNING .*not Fibonacci numbers past F.93.", server.log.text)
        assert "integers=uint64" in server.log.text


def test_exact_numbers_need_no_warning(database: Path, listener: socket.socket) -> None:
    with serving(database, listener) as server:
        assert "WARNING" not in server.log.text


def limited(database: Path, listener: socket.socket, descriptors: str) -> ServerProcess:
    command = ("prlimit", f"--nofile={descriptors}", sys.executable, "-m", "web")
    return ServerProcess(database, listener, command=command)


def test_a_server_takes_the_descriptors_that_its_connections_need(
    database: Path, listener: socket.socket
) -> None:
    with limited(database, listener, "500:4000") as server:
        server.wait_until_it_serves()
        soft, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        assert 2000 < soft < 4000
        assert "WARNING" not in server.log.text


def test_that_the_system_gives_too_few_descriptors_and_what_that_allows_is_in_the_log(
    database: Path, listener: socket.socket
) -> None:
    with limited(database, listener, "500:500") as server:
        server.wait_until_it_serves()
        assert "gives this process 500 descriptors, and FIB_MAX_CONNECTIONS" in server.log.text
        assert "It takes 404 connections instead" in server.log.text


@pytest.mark.parametrize("setting", ["on", "off"])
def test_requests_are_logged_where_that_was_asked_for(
    database: Path, listener: socket.socket, setting: str
) -> None:
    with serving(database, listener, FIB_ACCESS_LOG=setting) as server:
        server.client.get("/next")
        server.client.get("/nowhere")
    assert ('"GET /next HTTP/1.1" 200' in server.log.text) == (setting == "on")
    assert ('"GET /nowhere HTTP/1.1" 404' in server.log.text) == (setting == "on")


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


def test_a_standby_says_who_serves(database: Path, listener: socket.socket) -> None:
    with server_and_standby(database, listener) as (server, standby):
        assert f"standing by: process {server.pid} serves {database}" in standby.log.text
        assert lock_path(database).read_text() == f"{server.pid}\n"


def test_a_standby_takes_over_after_kill_9_and_no_connection_is_refused(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        client = server.client
        assert client.get("/next").body == b'{"next": 1}'
        server.signal(signal.SIGKILL)
        assert client.get("/next").body == b'{"next": 1}'
        assert client.get("/next").body == b'{"next": 2}'
        assert server.wait() == -signal.SIGKILL
        assert "taking over" in standby.log.text
        assert lock_path(database).read_text() == f"{standby.pid}\n"


def test_connections_that_queued_while_nobody_served_are_answered_by_the_next_server(
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


def test_a_standby_takes_over_after_sigterm_without_being_told(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        server.client.get("/next")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.client.get("/next").index == 2
        assert standby.process.poll() is None


def test_a_standby_accepts_no_connection_and_has_not_opened_the_database(
    database: Path, listener: socket.socket
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        standby.signal(signal.SIGSTOP)
        for reached in range(1, 51):
            assert server.client.get("/next").index == reached
        open_files = {str(fd.readlink()) for fd in Path(f"/proc/{standby.pid}/fd").iterdir()}
        ours = {name for name in open_files if name.startswith(str(database))}
        # It may be in the middle of a look at how far the sequence is.
        assert ours - {str(high_water_mark_path(database))} == {str(lock_path(database))}
        standby.signal(signal.SIGCONT)


def test_a_standby_never_writes(database: Path, listener: socket.socket) -> None:
    # Another holds the lock, and serves nothing: all that changes is changed by the standby.
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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_standby_that_is_told_to_stop_exits_0(
    database: Path, listener: socket.socket, end: signal.Signals
) -> None:
    with server_and_standby(database, listener) as (server, standby):
        standby.signal(end)
        assert standby.wait() == 0
        assert server.client.get("/next").index == 1


# Stop


def test_a_step_under_way_is_answered_before_the_server_stops(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server, ExitStack() as stack:
        with held(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(3)]
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            server.log.expect("Shutting down")
            assert server.process.poll() is None
        bodies = sorted(body_of(read_all(step)) for step in steps)
        assert bodies == ['{"next": 1}', '{"next": 1}', '{"next": 2}']
        assert server.wait() == 0
    assert sqlite_file.verify_file(database) == 3


def test_idle_connections_do_not_keep_the_server_from_stopping(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server, ExitStack() as stack:
        connections = [stack.enter_context(server.client.raw()) for _ in range(3)]
        server.client.get("/current")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert [read_all(connection) for connection in connections] == [b""] * 3


def test_an_answer_that_nobody_takes_does_not_keep_the_server_from_stopping(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with ExitStack() as stack:
        server = stack.enter_context(serving(database, listener, FIB_GRACEFUL_STOP="1"))
        slow = stack.enter_context(asking_and_not_reading(server.client))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert len(read_all(slow)) < ASKED * len(digits_of(LONG_INDEX))


WORKS_OUT_NOTHING = """
from web import server, service

def no_sequence(*_, **__):
    raise MemoryError("a number was worked out")

service.Sequence = no_sequence
server.main()
"""


def test_a_standby_takes_over_at_a_long_number_without_working_it_out(
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


def test_without_a_number_at_hand_it_would_be_worked_out(
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
        server = stack.enter_context(serving(database, listener, FIB_GRACEFUL_STOP="60"))
        stack.enter_context(asking_and_not_reading(server.client))
        server.signal(signal.SIGINT)
        server.log.expect("Waiting for connections to close")
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait() == 0


OPENS_SLOWLY = """
import sys, time
from pathlib import Path
from fibcore.stores import StoreUnavailableError, sqlite
from web import server

opening, go_on, written = map(Path, sys.argv[1:])

def open_slowly(*_):
    if not opening.exists():  # At first the disk is full, say; from then on it is slow.
        opening.write_text("")
        raise StoreUnavailableError("fibcore.db", "It can't be used now.")
    opening.write_text("again")
    while not go_on.exists():
        time.sleep(0.01)
    written.touch()
    raise StoreUnavailableError("fibcore.db", "It can't be used now.")

sqlite.SqliteStore = open_slowly
"""

LETS_GO_EARLY = """
import os
from fibcore.stores.lock import WriterLock

def acquire_and_be_known(self, *, wait):
    locks.append(self)
    return acquire(self, wait=wait)

def let_go_and_wait_for_the_threads(status):
    locks[-1].release()
    while not written.exists():
        time.sleep(0.01)
    exit_at_once(status)

locks, acquire, WriterLock.acquire = [], WriterLock.acquire, acquire_and_be_known
exit_at_once, os._exit = os._exit, let_go_and_wait_for_the_threads
"""
"""The control: the lock is let go before the process has ended."""


@pytest.mark.parametrize("lets_go_early", [False, True])
def test_a_server_that_is_stopped_while_it_opens_its_store_writes_nothing_once_the_lock_is_free(
    tmp_path: Path, database: Path, listener: socket.socket, lets_go_early: bool
) -> None:
    program = OPENS_SLOWLY + LETS_GO_EARLY * lets_go_early + "server.main()"
    opening, go_on, written = (tmp_path / name for name in ("opening", "go_on", "written"))
    command = (sys.executable, "-c", program, str(opening), str(go_on), str(written))
    with ServerProcess(database, listener, command=command) as server:
        until(lambda: opening.exists() and opening.read_text() == "again", "it opens once more")
        server.signal(signal.SIGTERM)
        lock = WriterLock(database)
        until(lambda: lock.acquire(wait=False), "the lock is free")
        go_on.touch()
        assert server.wait() == 0
        assert written.exists() == lets_go_early
        lock.release()


# What is invalid


@pytest.mark.parametrize(
    "spoiled",
    [each for each in SPOILED if each.name in {"empty", "foreign", "bit flipped"}],
    ids=lambda spoiled: spoiled.name,
)
def test_a_database_that_is_invalid_ends_the_server_with_65_and_the_reason(
    database: Path, listener: socket.socket, spoiled: Spoiled
) -> None:
    sqlite_file.create(database, 5)
    spoiled.spoil(database)
    before = contents(database.parent)
    with ServerProcess(database, listener) as server:
        assert server.wait() == EXIT_DATABASE_INVALID == 65
    assert f"The database {database} is invalid: {spoiled.complaint}" in server.log.text
    assert "Traceback" not in server.log.text
    after = contents(database.parent)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"server.log", lock_path(database).name}


def test_a_database_that_is_invalid_when_the_disk_can_be_used_again_ends_the_server_with_65(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, 3)
    in_the_way = files.high_water_mark_path(database)
    in_the_way.mkdir()
    with ServerProcess(database, listener) as server:
        server.log.expect("can't be used now")
        assert server.client.get("/current").status == 503
        database.write_bytes(b"damaged")
        in_the_way.rmdir()
        assert server.wait() == EXIT_DATABASE_INVALID
        assert f"The database {database} is invalid: file is not a database" in server.log.text


def test_a_database_past_the_largest_exact_index_is_invalid_in_exact_arithmetic_alone(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, MAX_EXACT_INDEX + 1)
    with ServerProcess(database, listener, name="exact") as server:
        assert server.wait() == EXIT_DATABASE_INVALID
    assert f"stands at index {MAX_EXACT_INDEX + 1}, past {MAX_EXACT_INDEX}" in server.log.text
    assert "Traceback" not in server.log.text
    with serving(database, listener, FIB_INTEGERS="uint64") as server:
        assert server.client.get("/next").index == MAX_EXACT_INDEX + 2


def test_a_folder_that_can_not_be_used_ends_the_server_with_65_and_the_reason(
    tmp_path: Path,
) -> None:
    tmp_path.joinpath("file").touch()
    settings = {"FIB_STATE": str(tmp_path / "file" / "fibcore.db")}
    with ServerProcess(tmp_path / "unused", settings=settings) as server:
        assert server.wait() == EXIT_DATABASE_INVALID
    assert f"The folder of the database {tmp_path / 'file'}" in server.log.text
    assert "Traceback" not in server.log.text


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("FIB_PORT", "http", "FIB_PORT must be a whole number from 0 to 65535, and is 'http'"),
        ("FIB_SYNCHRONOUS", "none", "FIB_SYNCHRONOUS must be one of full, normal, off"),
        ("FIB_SYNC", "full", "FIB_SYNC is not a setting"),
    ],
)
def test_a_setting_that_is_invalid_ends_the_server_with_78_and_the_reason(
    database: Path, variable: str, text: str, complaint: str
) -> None:
    with ServerProcess(database, settings={variable: text}) as server:
        assert server.wait() == EXIT_SETTINGS_INVALID == 78
    assert complaint in server.log.text
    assert "Traceback" not in server.log.text
    assert not database.exists()


def test_a_port_that_is_taken_ends_the_server_with_78_and_the_reason(
    database: Path, listener: socket.socket
) -> None:
    port = str(listener.getsockname()[1])
    with ServerProcess(database, settings={"FIB_PORT": port}) as server:
        assert server.wait() == EXIT_SETTINGS_INVALID
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program." in server.log.text
    assert "Traceback" not in server.log.text
    assert not database.exists()


# When the store fails


def test_a_commit_that_fails_ends_the_server_with_74_and_its_steps_unanswered(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener) as server:
        server.client.get("/next")
        change(
            database, f"UPDATE sequence SET n = 9, digest = x'{sqlite_file.index_digest(9).hex()}'"
        )
        with send_step(server.client) as step:
            assert read_all(step) == b""
        assert server.wait() == EXIT_COMMIT_FAILED == 74
    assert "another process has written to it" in server.log.text
    with serving(database, listener) as server:
        assert server.client.get("/next").index == 10


def test_a_step_for_which_the_disk_has_no_space_is_not_answered_and_nothing_answered_is_lost(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        settings = {"FIB_STATE": str(database)}
        with ServerProcess(tmp_path / "first", listener, settings) as server:
            client = server.wait_until_it_serves().client
            client.get("/next")
            with closing(sqlite3.connect(database, isolation_level=None)) as reader:
                # For as long as it reads, the log can't begin anew, and outgrows its space.
                reader.execute("BEGIN")
                reader.execute("SELECT * FROM sequence")
                filler = fill(disk)
                acknowledged = step_until_it_fails(client)
            assert server.wait() == EXIT_COMMIT_FAILED
        filler.unlink()
        with ServerProcess(tmp_path / "second", listener, settings) as server:
            assert client.get("/next").index in (acknowledged + 1, acknowledged + 2)


def test_no_space_for_the_lock_file_is_tried_again_and_so_is_it_by_a_standby(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk", inodes=20) as disk:
        others = [disk / str(number) for number in range(19)]
        for each in others:
            each.touch()
        settings = {"FIB_STATE": str(disk / "fibcore.db")}
        with (
            ServerProcess(tmp_path / "server", listener, settings, name="one") as one,
            ServerProcess(tmp_path / "server", listener, settings, name="two") as two,
        ):
            for server in (one, two):
                server.log.expect("No space left on device")
            for other in others:
                other.unlink()
            assert Client(f"http://127.0.0.1:{listener.getsockname()[1]}").get("/next").index == 1
            until(
                lambda: (
                    sorted("standing by" in each.log.text for each in (one, two)) == [False, True]
                ),
                "one serves, the other stands by",
            )
            for server in (one, two):
                assert server.process.poll() is None
                assert server.log.text.count("No space left on device") == 1


def test_a_server_to_which_no_trouble_can_pass_would_have_ended_at_its_lock_file(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    """The control of the test above."""
    with small_disk(tmp_path / "disk", inodes=1) as disk:
        program = (
            "from fibcore.stores import sqlite_file; from web import server; "
            "sqlite_file.PASSING_ERRNOS.clear(); server.main()"
        )
        settings = {"FIB_STATE": str(disk / "fibcore.db")}
        command = (sys.executable, "-c", program)
        with ServerProcess(tmp_path / "server", settings=settings, command=command) as server:
            assert server.wait() == EXIT_DATABASE_INVALID


def test_while_the_disk_is_full_every_answer_says_so_and_then_the_server_goes_on_by_itself(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        sqlite_file.create(database, 5)
        filler = fill(disk)
        settings = {"FIB_STATE": str(database)}
        with ServerProcess(tmp_path / "server", listener, settings) as server:
            for path in ("/current", "/next", "/previous", "/health"):
                answer = server.client.get(path)
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert b"full" in answer.body
                assert b"Free disk space" in answer.body
                assert b"Nothing has stepped." in answer.body
            filler.unlink()
            server.wait_until_it_serves()
            assert server.client.get("/health").status == 200
            assert server.client.get("/next").index == 6


def step_until_it_fails(client: Client) -> int:
    """Return the index of the last step that was answered."""
    index = client.index
    for _ in range(10_000):
        with send_step(client) as step:
            received = read_first(step)
        if not received:
            return index
        index = int(re.findall(rb'etag: "(\d+)"', received)[0])
    raise AssertionError("it never failed")


def read_first(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(65536)
    return b""


# How clients are bounded


def test_a_head_that_does_not_come_to_an_end_closes_its_connection_alone(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_RECEIVE_TIMEOUT="0.5") as server, ExitStack() as stack:
        slow, silent = (stack.enter_context(server.client.raw()) for _ in range(2))
        slow.sendall(b"GET /current HTTP/1.1\r\n")
        slow.settimeout(0.1)
        received = None
        for _ in range(600):
            assert server.client.get("/current").status == 200
            with contextlib.suppress(TimeoutError):
                # It sends something all the time, and is late all the same.
                slow.sendall(b"X-Y: z\r\n")
                received = read_first(slow)
                break
        assert received == b""
        assert read_all(silent) == b""


def test_a_body_that_does_not_come_to_an_end_closes_its_connection(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_RECEIVE_TIMEOUT="0.5") as server:
        with server.client.raw() as slow:
            slow.sendall(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
            received = read_all(slow)
        assert received == b""
        assert server.client.index == 0


def test_an_answer_that_nobody_takes_closes_its_connection(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with serving(database, listener, FIB_SEND_TIMEOUT="0.5") as server:
        with asking_and_not_reading(server.client) as slow:
            until(lambda: count_connections(server.client) == 0, "the connection is closed")
            assert len(read_all(slow)) < ASKED * len(digits_of(LONG_INDEX))
        assert server.client.get("/health").status == 200


LONG_INDEX = 5_000_000
"""Of a number of 1 MB."""

ASKED = 10
"""As many of them are more than the kernel takes in for a client that does not read."""


@contextmanager
def asking_and_not_reading(client: Client, path: str = "/current") -> Iterator[socket.socket]:
    with client.raw(receive_buffer=4096) as slow:
        slow.sendall(ASKED * f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert slow.recv(1)
        yield slow


def take_all_answers(connection: socket.socket) -> None:
    """Read on where ``asking_and_not_reading`` has read one byte."""
    with connection.makefile("rb") as file:
        for _ in range(ASKED):
            while (line := file.readline()) != b"\r\n":
                if line.startswith(b"content-length: "):
                    length = int(line.split()[1])
            assert len(file.read(length)) == length


def count_connections(client: Client) -> int:
    """How many connections the server holds open."""
    local = f":{client.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(local) and fields[3] == "01" for fields in lines)


def test_past_the_bound_on_connections_the_longest_idle_one_goes(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_CONNECTIONS="3") as server, ExitStack() as stack:
        connections = []
        for _ in range(3):
            connections.append(stack.enter_context(closing(server.client.connect())))
            assert ask(server.client, connections[-1]).status == 200
        assert server.client.get("/health").status == 200
        assert connections[0].sock.recv(1) == b""
        for connection in connections[1:]:
            assert ask(server.client, connection).status == 200


def ask(client: Client, connection: object) -> Answer:
    return client.request_on(connection, "GET", "/current")  # type: ignore[arg-type]


def test_past_the_bound_on_connections_none_of_them_idle_a_new_one_is_turned_away_politely(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_CONNECTIONS="3") as server, ExitStack() as stack:
        with held(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(3)]
            wait_until_all_is_read(server.client)
            answer = server.client.get("/current")
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert answer.headers["content-type"] == "application/problem+json"
            assert b"as many connections as it takes" in answer.body
        for step in steps:
            assert step.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.client.get("/current").index == 3


def test_a_request_whose_body_has_not_arrived_gives_way_to_a_new_connection_and_nothing_steps(
    database: Path, listener: socket.socket
) -> None:
    with (
        serving(database, listener, FIB_MAX_CONNECTIONS="1") as server,
        server.client.raw() as slow,
    ):
        slow.sendall(b"POST /next HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234")
        assert server.client.get("/current").status == 200
        assert read_all(slow) == b""
        assert server.client.get("/current").index == 0


def test_a_client_that_is_still_taking_its_answer_is_not_idle(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with ExitStack() as stack:
        server = stack.enter_context(serving(database, listener, FIB_MAX_CONNECTIONS="1"))
        slow = stack.enter_context(asking_and_not_reading(server.client))
        assert server.client.get("/current").status == 503
        take_all_answers(slow)
        until(lambda: server.client.get("/current").status == 200, "it is idle now")
        assert slow.recv(1) == b""


def test_past_the_bound_on_bytes_in_flight_steps_are_503_and_shared_numbers_go_on(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    two_numbers = str(2 * len(digits_of(LONG_INDEX)) + 1_000)
    with serving(database, listener, FIB_MAX_IN_FLIGHT=two_numbers) as server, ExitStack() as stack:
        client = server.client
        first = stack.enter_context(asking_and_not_reading(client))
        assert client.get("/next").index == LONG_INDEX + 1
        stack.enter_context(asking_and_not_reading(client))
        answer = client.get("/next")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert b"take up all their memory" in answer.body
        assert answer.index == LONG_INDEX + 1
        assert client.get("/current").status == 200
        assert client.get("/previous").status == 200
        # The connection stays open: it is what was read that no longer counts.
        take_all_answers(first)
        until(lambda: client.get("/next").status == 200, "a step fits again")
        assert client.get("/current").index == LONG_INDEX + 2


@pytest.mark.parametrize("header", ["Host: x", "Host: x\r\nConnection: close"])
def test_a_number_for_a_client_that_has_gone_is_not_in_flight(
    header: str, database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    with serving(database, listener, FIB_MAX_IN_FLIGHT=str(2**20)) as server:  # of one number
        with held(database):
            with server.client.raw() as gone:
                gone.sendall(f"GET /next HTTP/1.1\r\n{header}\r\n\r\n".encode())
                wait_until_all_is_read(server.client)
            assert server.client.get("/health").status == 200
        until(lambda: server.client.get("/current").index > LONG_INDEX, "the step is made")
        until(lambda: server.client.get("/next").status == 200, "there is room for a number")


def test_a_read_of_a_number_that_does_not_fit_beside_those_in_flight_is_503(
    database: Path, listener: socket.socket
) -> None:
    sqlite_file.create(database, LONG_INDEX)
    one_number = str(len(digits_of(LONG_INDEX)) + 1_000)
    settings = {"FIB_MAX_IN_FLIGHT": str(max(int(one_number), 2**20))}
    with serving(database, listener, **settings) as server:
        with asking_and_not_reading(server.client, "/previous"):
            answer = server.client.get("/current")
            assert answer.status == 503
            assert b"take up all their memory" in answer.body
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.index == LONG_INDEX
        until(lambda: server.client.get("/current").status == 200, "it fits again")


def test_past_the_bound_on_waiting_steps_a_step_is_503_and_reads_go_on(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_WAITING="2") as server, ExitStack() as stack:
        with held(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(2)]
            wait_until_all_is_read(server.client)
            for headers in ({}, {"Connection": "close"}):  # with and without the fast path
                answer = server.client.get("/next", headers)
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert b"2 steps wait for the disk already" in answer.body
                assert answer.index == 0
            assert server.client.get("/current").body == b'{"current": 0}'
            assert server.client.get("/health").status == 200
        for step in steps:
            assert step.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.client.get("/next").index == 3


def test_a_stop_answers_the_steps_that_wait_for_their_503(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_MAX_WAITING="1") as server, ExitStack() as stack:
        with held(database):
            steps = [stack.enter_context(send_step(server.client)) for _ in range(6 * SHED_AT_ONCE)]
            wait_until_all_is_read(server.client)
            server.signal(signal.SIGTERM)
            for step in steps[1:]:
                assert read_all(step).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert read_all(steps[0]).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.wait() == 0
