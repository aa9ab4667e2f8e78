"""The server as a process: its start, and databases and settings that it rejects."""

import os
import re
import resource
import signal
import socket
import sys
from pathlib import Path

import pytest

from fibcore import MAX_EXACT_INDEX
from tests.support.invalid_databases import INVALID_DATABASES, contents
from tests.support.ports import free_port
from tests.support.raw_clients import serving
from tests.support.reference import digits_of
from tests.support.servers import Client, ServerProcess
from tests.support.stores import file_at
from tests.support.waiting import until

pytestmark = pytest.mark.processes


# Start


def test_a_server_without_an_inherited_socket_binds_its_own_port(database: Path) -> None:
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


def test_a_standard_input_that_is_not_a_listening_socket_is_ignored(database: Path) -> None:
    port = free_port()
    ours, theirs = socket.socketpair()
    with ours, theirs, ServerProcess(database, theirs, {"FIB_PORT": str(port)}) as server:
        server.wait_until_it_serves()
        client = Client(f"http://127.0.0.1:{port}")
        until(lambda: is_listening(client), "it listens")
        assert client.get("/next").body == b'{"next": 1}'


def test_a_server_without_standard_input_binds_its_own_port(database: Path) -> None:
    command = ("sh", "-c", 'exec "$0" -m web <&-', sys.executable)
    with ServerProcess(
        database, settings={"FIB_PORT": str(free_port())}, command=command
    ) as server:
        server.wait_until_it_serves()


def test_a_missing_folder_of_the_database_is_created(
    tmp_path: Path, listener: socket.socket
) -> None:
    settings = {"FIB_STATE": str(tmp_path / "a" / "b" / "fibcore.db")}
    with ServerProcess(tmp_path / "unused", listener, settings) as server:
        assert server.wait_until_it_serves().client.get("/next").body == b'{"next": 1}'
    assert file_at(tmp_path / "a" / "b" / "fibcore.db").index == 1


def test_a_server_continues_where_the_last_one_ended(
    database: Path, listener: socket.socket
) -> None:
    for start, end in ((0, signal.SIGTERM), (3, signal.SIGINT), (6, signal.SIGKILL), (9, None)):
        with serving(database, listener) as server:
            for reached in range(start + 1, start + 4):
                assert server.client.get("/next").body == b'{"next": %b}' % digits_of(reached)
            if end is not None:
                server.signal(end)
                assert server.wait() == (-9 if end == signal.SIGKILL else 0)


def test_the_log_has_a_warning_that_uint64_is_not_exact(
    database: Path, listener: socket.socket
) -> None:
    with serving(database, listener, FIB_INTEGERS="uint64") as server:
        assert re.search("WARNING .*past F.93. they are not Fibonacci numbers", server.log.text)
        assert "integers=uint64" in server.log.text


def warnings_in(log: str) -> list[str]:
    """Except for that of a database in memory, which tests may have."""
    return [line for line in log.splitlines() if "WARNING" in line and "tmpfs" not in line]


def test_the_index_the_durability_and_the_integers_are_logged(
    database: Path, listener: socket.socket
) -> None:
    """Exact numbers need no warning, and requests are logged only on demand."""
    file_at(database).opener().create(7)
    with serving(database, listener, FIB_SYNCHRONOUS="normal") as server:
        server.client.get("/next")
        log = server.log.text
    assert "serving from index 7; synchronous=normal, integers=exact" in log
    assert not warnings_in(log)
    assert "GET" not in log


def limited(database: Path, listener: socket.socket, descriptors: str) -> ServerProcess:
    command = ("prlimit", f"--nofile={descriptors}", sys.executable, "-m", "web")
    return ServerProcess(database, listener, command=command)


def test_a_server_raises_its_limit_of_descriptors(database: Path, listener: socket.socket) -> None:
    with limited(database, listener, "500:4000") as server:
        server.wait_until_it_serves()
        soft, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        assert 2000 < soft < 4000
        assert not warnings_in(server.log.text)


def test_too_few_descriptors_are_logged_with_the_number_of_connections(
    database: Path, listener: socket.socket
) -> None:
    with limited(database, listener, "500:500") as server:
        server.wait_until_it_serves()
        assert "allows this process 500 descriptors, but FIB_MAX_CONNECTIONS" in server.log.text
        assert re.search(r"The limit is now [1-4]\d\d connections", server.log.text)


# Invalid databases and settings


def test_an_invalid_database_ends_the_server_with_65(
    database: Path, listener: socket.socket
) -> None:
    """tests/stores covers every kind of invalid database."""
    file_at(database).opener().create(5)
    INVALID_DATABASES["foreign"](database)
    before = contents(database.parent)
    with ServerProcess(database, listener) as server:
        assert server.wait() == os.EX_DATAERR
    assert f"The database {database} is invalid: another program made it" in server.log.text
    assert "Traceback" not in server.log.text
    after = contents(database.parent)
    changed = {name for name, content in after.items() if before.get(name) != content}
    assert changed == {"server.log", "fibcore.db.lock"}
    assert before.keys() <= after.keys()


def test_past_the_largest_exact_index_only_exact_is_invalid(
    database: Path, listener: socket.socket
) -> None:
    file_at(database).opener().create(MAX_EXACT_INDEX + 1)
    with ServerProcess(database, listener, name="exact") as server:
        assert server.wait() == os.EX_DATAERR
    assert f"is at index {MAX_EXACT_INDEX + 1}, past {MAX_EXACT_INDEX}" in server.log.text
    assert "Traceback" not in server.log.text
    with serving(database, listener, FIB_INTEGERS="uint64") as server:
        assert server.client.get("/next").index == MAX_EXACT_INDEX + 2


def test_an_invalid_setting_ends_the_server_with_78(database: Path) -> None:
    with ServerProcess(database, settings={"FIB_PORT": "http"}) as server:
        assert server.wait() == os.EX_CONFIG
    complaint = "FIB_PORT is 'http'; it must be a whole number from 1 to 65535."
    assert complaint in server.log.text
    assert "Traceback" not in server.log.text
    assert not database.exists()


def test_a_port_in_use_ends_the_server_with_78(database: Path, listener: socket.socket) -> None:
    port = str(listener.getsockname()[1])
    with ServerProcess(database, settings={"FIB_PORT": port}) as server:
        assert server.wait() == os.EX_CONFIG
    assert f"FIB_PORT={port} at 127.0.0.1 is in use by another program." in server.log.text
    assert "Traceback" not in server.log.text
    assert not database.exists()
