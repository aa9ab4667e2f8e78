"""Steps, when the store fails under a server."""

import os
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.disks import SmallDisk, fill
from tests.support.invalid_databases import change
from tests.support.raw_clients import read_all, read_first, send_step, serving
from tests.support.servers import Client, ServerProcess
from tests.support.stores import file_at
from tests.support.waiting import until

pytestmark = pytest.mark.processes


# When the store fails


def test_a_failed_commit_ends_the_server_with_74(database: Path, listener: socket.socket) -> None:
    """Its steps are not answered."""
    with serving(database, listener) as server:
        server.client.get("/next")
        other = database.with_name("other.db")
        file_at(other).opener().create(9)
        change(
            database,
            f"ATTACH '{other}' AS other",
            "INSERT OR REPLACE INTO sequence SELECT * FROM other.sequence",
        )
        with send_step(server.client) as step:
            assert read_all(step) == b""
        assert server.wait() == os.EX_IOERR
    assert "another process has written to it" in server.log.text
    with serving(database, listener) as server:
        assert server.client.get("/next").index == 10


def test_without_disk_space_a_step_is_unanswered_but_none_is_lost(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        settings = {"FIB_STATE": str(database)}
        with ServerProcess(tmp_path / "first", listener, settings) as server:
            client = server.wait_until_it_serves().client
            client.get("/next")
            with closing(sqlite3.connect(database, isolation_level=None)) as reader:
                # While it reads, the WAL can't be reset, and outgrows its reserve.
                reader.execute("BEGIN")
                reader.execute("SELECT * FROM sequence")
                filler = fill(disk)
                acknowledged = step_until_it_fails(client)
            assert server.wait() == os.EX_IOERR
        filler.unlink()
        with ServerProcess(tmp_path / "second", listener, settings) as server:
            assert client.get("/next").index in (acknowledged + 1, acknowledged + 2)


def test_a_lack_of_space_for_the_lock_file_is_retried(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    """Until then both answer 503."""
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
            assert one.client.get("/health").status == 503
            for other in others:
                other.unlink()
            until(
                lambda: sorted(str(each.process.poll()) for each in (one, two)) == ["75", "None"],
                "one serves, the other ends and is started again as the standby",
            )
            assert one.client.get("/next").index == 1
            for server in (one, two):
                assert server.log.text.count("No space left on device") == 1


def test_on_a_full_disk_every_answer_is_503_until_there_is_space(
    tmp_path: Path, listener: socket.socket, small_disk: SmallDisk
) -> None:
    """The server recovers automatically."""
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        file_at(database).opener().create(5)
        filler = fill(disk)
        settings = {"FIB_STATE": str(database)}
        with ServerProcess(tmp_path / "server", listener, settings) as server:
            for path in ("/current", "/next", "/previous", "/health"):
                answer = server.client.get(path)
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert b"the server's log has the reason" in answer.body
                assert b"This request has not stepped." in answer.body
            assert "full" in server.log.text
            assert "Free disk space" in server.log.text
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
