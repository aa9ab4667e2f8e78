"""A missing permission, even at the start: the server logs it, waits, and recovers."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from tests.support.servers import SERVER, Answer, ServerProcess
from tests.support.stores import file_at
from tests.support.waiting import until

pytestmark = pytest.mark.processes

LIMITED: Final = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""A prefix for commands of root that makes file permissions apply to them."""

Start: TypeAlias = Callable[..., ServerProcess]

BACKUP: Final = (sys.executable, "-m", "supervise.backup", "0.05")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a database at index 5 that has been served."""
    path = tmp_path / "var"
    path.mkdir()
    database = path / "fibcore.db"
    file_at(database).opener().create(5)
    Path(f"{database}.lock").touch()
    yield path
    path.chmod(0o700)


@pytest.fixture
def start(folder: Path, tmp_path: Path, listener: socket.socket) -> Start:
    def begin(name: str, what: Sequence[str] = SERVER) -> ServerProcess:
        command = (*LIMITED, *what) if os.geteuid() == 0 else what
        database = folder / "fibcore.db"
        return ServerProcess(database, listener, name=name, logs=tmp_path, command=command)

    return begin


def health_of(server: ServerProcess) -> Answer:
    return server.client.get("/health")


def test_a_permission_missing_at_the_start_is_waited_for(folder: Path, start: Start) -> None:
    """tests/stores covers permissions of each file; this is about their folder."""
    folder.chmod(0)
    with start("server") as server:
        server.log.expect("This user may not use ")
        server.log.expect("Give this user read and write permission. The server retries")
        answer = health_of(server)
        assert answer.status == 503
        assert b"may not use the store" in answer.body
        folder.chmod(0o700)
        server.wait_until_it_serves()
        assert server.client.get("/next").index == 6
        assert health_of(server).status == 200
    assert "invalid" not in server.log.text
    assert str(folder) in server.log.text


def test_a_standby_without_a_permission_answers_only_if_nobody_serves(
    folder: Path, start: Start
) -> None:
    with start("server").wait_until_it_serves() as server, start("standby") as standby:
        standby.wait_until_it_stands_by()
        folder.chmod(0)
        with start("late") as late:
            late.log.expect("This user may not use ")
            assert {health_of(server).status for _ in range(50)} == {200}
            standby.signal(signal.SIGKILL)
            server.signal(signal.SIGKILL)
            assert health_of(late).status == 503
            folder.chmod(0o700)
            late.wait_until_it_serves()
            assert late.client.index == 5


def test_of_two_servers_without_a_permission_one_serves_and_one_restarts(
    folder: Path, start: Start
) -> None:
    """The other exits with a status on which supervisord restarts it, as the standby."""
    folder.chmod(0)
    with start("one") as one, start("two") as two:
        for each in (one, two):
            each.log.expect("listening at")
        folder.chmod(0o700)
        until(
            lambda: any(each.process.poll() is not None for each in (one, two)),
            "one of them has ended",
        )
        left, ended = (one, two) if one.process.poll() is None else (two, one)
        assert ended.wait() == os.EX_TEMPFAIL
        ended.log.expect("serves the database")
        assert left.client.get("/next").index == 6


def test_the_backup_also_waits_for_a_permission_for_the_folder(folder: Path, start: Start) -> None:
    folder.chmod(0)
    with start("backup", BACKUP) as backup:
        backup.log.expect(f"was not refreshed. This user may not use {folder}: Permission denied")
        folder.chmod(0o700)
        backup.log.expect("a verified backup copy at index 5")
        assert "Traceback" not in backup.log.text
