"""The backup program as a process: its copy is valid, whatever happens to the database."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from fibcore.command.cli import main
from tests.support.invalid_databases import change
from tests.support.raw_clients import serving
from tests.support.servers import ServerProcess
from tests.support.waiting import PATIENCE, until

Copied: TypeAlias = Callable[[], int | None]

pytestmark = pytest.mark.processes

BACKUP: Final = (sys.executable, "-m", "supervise.backup", "0.05")


@pytest.fixture
def backup(database: Path) -> Iterator[ServerProcess]:
    with ServerProcess(database, name="backup", command=BACKUP) as backup:
        backup.log.expect(f"{database} is copied every 0.05 s if its index has changed")
        yield backup


@pytest.fixture
def copied(database: Path, capsys: pytest.CaptureFixture[str]) -> Copied:
    """The index of the copy, None if there is none; a copy must be good."""

    def index() -> int | None:
        copy = Path(f"{database}.backup")
        if not copy.exists():
            return None
        capsys.readouterr()
        assert main(["verify", "--json", "--database", str(copy)]) == 0
        return int(json.loads(capsys.readouterr().out)["index"])

    return index


def put(database: Path, index: int) -> None:
    assert main(["set-index", str(index), "--lower", "--database", str(database)]) == 0


def wait_for_rounds(backup: ServerProcess) -> None:
    """Wait until it has looked at the database again, and is done: it sleeps once in a round."""

    def sleeps() -> int:
        status = Path(f"/proc/{backup.pid}/status").read_text()
        return int(re.findall(r"(?m)^voluntary_ctxt_switches:\s*(\d+)", status)[0])

    before = sleeps()
    until(lambda: sleeps() > before + 20, "the backup goes on")


def test_the_copy_follows_the_index_and_stays_if_there_was_no_step(
    backup: ServerProcess, database: Path, copied: Copied
) -> None:
    wait_for_rounds(backup)
    assert not database.exists()
    for index in (1, 2, 1_000_000):
        put(database, index)
        until(lambda: copied() == index, "it is copied")  # noqa: B023
    before = Path(f"{database}.backup").stat()
    wait_for_rounds(backup)
    after = Path(f"{database}.backup").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert backup.log.text.count("a verified backup copy") == 1, "they are logged once an hour"


def test_a_copy_that_is_deleted_or_damaged_is_made_again(
    backup: ServerProcess, database: Path, copied: Copied
) -> None:
    """Even while no step is made."""
    put(database, 5)
    copy = Path(f"{database}.backup")
    backup.log.expect("a verified backup copy at index 5")
    copy.unlink()
    backup.log.expect("a verified backup copy at index 5")
    for damage in (b"", b"not a database"):
        copy.write_bytes(damage)
        backup.log.expect("is damaged. The database is valid, and a new copy replaces")
        until(lambda: copy.stat().st_size > 1000, "it is replaced")
        assert copied() == 5


def test_an_invalid_database_leaves_the_copy_and_is_reported_once(
    backup: ServerProcess, database: Path, copied: Copied
) -> None:
    put(database, 5)
    until(lambda: copied() == 5, "it is copied")
    change(database, "UPDATE sequence SET n = 7")
    backup.log.expect(f"The backup copy {database}.backup was not refreshed. ")
    wait_for_rounds(backup)
    assert backup.log.text.count("does not match the digest") == 1
    assert copied() == 5
    put(database, 8)
    until(lambda: copied() == 8, "the repaired database is copied")


def test_a_database_with_a_lower_index_leaves_the_copy(
    backup: ServerProcess, database: Path, copied: Copied, tmp_path: Path
) -> None:
    """As if a person had put an old file in its place."""
    put(tmp_path / "old.db", 9)
    put(database, 10)
    until(lambda: copied() == 10, "it is copied")
    (tmp_path / "old.db").rename(database)
    backup.log.expect(
        "is at index 9, but fibcore.db.backup beside it shows that index 10 was committed"
    )
    assert copied() == 10


def test_a_step_is_copied_only_once_it_is_recorded(
    database: Path, listener: socket.socket, copied: Copied
) -> None:
    """A server that is killed in a commit leaves a step that can be read, but may not be synced."""
    put(database, 1)
    mark = Path(f"{database}.mark")
    recorded = mark.read_bytes()
    put(database, 2)
    mark.write_bytes(recorded)
    with ServerProcess(database, name="backup", command=BACKUP) as backup:
        wait_for_rounds(backup)
        assert copied() is None
        with serving(database, listener):
            until(lambda: copied() == 2, "the server has synced and recorded it")


def test_backup_and_writer_do_not_wait_for_each_other(
    backup: ServerProcess, database: Path, copied: Copied
) -> None:
    put(database, 7)
    backup.log.expect("a verified backup copy at index 7")
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        Path(f"{database}.backup").unlink()
        backup.log.expect("a verified backup copy at index 7")
        writer.execute("ROLLBACK")
    assert copied() == 7


@pytest.mark.usefixtures("backup")
def test_the_wal_stays_bounded_under_a_steady_load_beside_the_backup(
    database: Path, listener: socket.socket, copied: Copied
) -> None:
    with serving(database, listener, FIB_SYNCHRONOUS="off") as server:
        wal = Path(f"{database}-wal")
        reserved = wal.stat().st_size
        with closing(server.client.connect()) as connection:
            for _ in range(5000):
                assert server.client.request_on(connection, "GET", "/next").status == 200
                assert wal.stat().st_size == reserved
        until(lambda: copied() == 5000, "the last step is copied")
    # The control: what was written is more than the WAL has room for.
    assert 2 * reserved < 5000 * 4096


def test_health_has_the_reason_until_a_copy_can_be_made(
    backup: ServerProcess, database: Path, listener: socket.socket, copied: Copied
) -> None:
    """Steps continue."""
    copy = Path(f"{database}.backup")
    with serving(database, listener) as server:

        def warnings() -> list[str]:
            assert server.client.get("/next").status == 200
            answer = server.client.get("/health")
            assert answer.status == 200
            return list(json.loads(answer.body).get("warnings", []))

        until(copy.exists, "it is copied")
        copy.unlink()
        copy.mkdir()
        backup.log.expect("was not refreshed")
        until(lambda: any("backup copy" in each for each in warnings()), "/health has a warning")
        assert str(database) not in str(warnings())
        copy.rmdir()
        until(lambda: not any("backup copy" in each for each in warnings()), "it is gone")
    until(lambda: copied() is not None, "it is copied")


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the program where it ends."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FIB_")}
    return subprocess.run(
        BACKUP, env=others | settings, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_the_backup_exits_if_there_is_nothing_to_do() -> None:
    done = run(FIB_STORE="redis://127.0.0.1:1/0")
    assert done.returncode == 0
    assert "its engine is responsible for backups" in done.stderr
    done = run(FIB_PORT="many", FIB_LOG_FORMAT="json")
    assert done.returncode == os.EX_CONFIG
    assert json.loads(done.stderr)["event"] == "invalid"


def test_the_backup_exits_with_supervisord(database: Path) -> None:
    read, nobody_reads = os.pipe()
    os.close(read)
    settings = os.environ | {"FIB_STATE": str(database), "SUPERVISOR_ENABLED": "1"}
    gone = subprocess.run(BACKUP, env=settings, stdout=nobody_reads, timeout=PATIENCE, check=False)
    os.close(nobody_reads)
    assert gone.returncode == 0
