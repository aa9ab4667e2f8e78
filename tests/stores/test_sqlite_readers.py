"""Programs that keep a read transaction open: no takeover waits for them."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fibcore.problems import CommitFailedError
from fibcore.stores import files, sqlite, sqlite_file
from fibcore.stores.sqlite import WAL_PAGES, SqliteStore, Synchronous
from tests.stores.conftest import index_on_disk
from tests.support.store_processes import run


@contextmanager
def reading(database: Path, index: int) -> Iterator[sqlite3.Connection]:
    """A program reads ``index``, and keeps its transaction open."""
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT n FROM sequence").fetchone() == (index,)
        yield reader
        assert reader.execute("SELECT n FROM sequence").fetchone() == (index,)


@pytest.fixture
def left_by_a_killed_server(database: Path) -> Path:
    """At index 5, with all of it in the WAL."""
    program = """
store = SqliteStore(database)
for index in range(1, 6):
    store.commit(index)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(program, database) == -signal.SIGKILL
    return database


@pytest.mark.processes
@pytest.mark.parametrize("level", sqlite.SYNCHRONOUS)
def test_a_database_is_opened_and_stepped_beside_a_reader(
    left_by_a_killed_server: Path, level: Synchronous
) -> None:
    """The WAL can't restart."""
    database = left_by_a_killed_server
    with reading(database, 5):
        for index in range(5, 9):
            with closing(SqliteStore(database, level)) as store:
                assert store.read() == index
                store.commit(index + 1)
                assert index_on_disk(database) == index + 1
    assert index_on_disk(database) == 9


@pytest.mark.processes
def test_more_readers_than_sqlite_has_marks_block_nobody(database: Path) -> None:
    sqlite_file.create(database)
    readers = []
    for index in range(8):
        with closing(SqliteStore(database)) as store:
            assert store.read() == index
            readers.append(sqlite3.connect(database, isolation_level=None))
            readers[-1].execute("BEGIN")
            assert readers[-1].execute("SELECT n FROM sequence").fetchone() == (index,)
            store.commit(index + 1)
    for index, reader in enumerate(readers):
        assert reader.execute("SELECT n FROM sequence").fetchone() == (index,)
        reader.close()
    assert index_on_disk(database) == 8


@pytest.mark.processes
def test_a_continued_wal_is_rewritten_before_its_sync(
    left_by_a_killed_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync of the process before, it may be only in the page cache."""
    database = left_by_a_killed_server
    wal = files.wal_path(database)
    monkeypatch.setattr(sqlite, "COPIED_SIZE", 1000)
    written: dict[int, bytes] = {}
    pwrite = os.pwrite

    def write(fd: int, data: bytes, at: int) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink() == wal:
            written[at] = data
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", write)
    before = wal.read_bytes()
    with reading(database, 5):
        SqliteStore(database).close()
        assert b"".join(written[at] for at in sorted(written)) == before
        assert wal.read_bytes()[: sqlite.FRAME_HEADER_SIZE] == before[: sqlite.FRAME_HEADER_SIZE]
    written.clear()
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5
        assert set(b"".join(written.values())) <= {0}, "nobody reads: it is in the database"


def test_a_wal_grown_by_a_reader_is_reported_and_shrinks(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with closing(SqliteStore(database, "off")) as store:
        reserve = files.wal_path(database).stat().st_size
        with reading(database, 0):
            for _ in range(6 * WAL_PAGES):
                store.advance(1)
            assert files.wal_path(database).stat().st_size > 2 * reserve
        assert caplog.text.count("has grown to") == 1
        assert "another program keeps a read transaction open" in caplog.text
        for _ in range(2 * WAL_PAGES):
            store.advance(1)
        assert files.wal_path(database).stat().st_size == reserve
        assert f"is back at {reserve} bytes" in caplog.text
        assert index_on_disk(database) == store.read() == 8 * WAL_PAGES


def test_the_first_commit_after_a_reader_needs_no_space_for_the_wal(database: Path) -> None:
    with closing(SqliteStore(database, "off")) as store:
        wal = files.wal_path(database)
        reserve = wal.stat().st_size
        with reading(database, 0):
            while wal.stat().st_size == reserve:
                store.advance(1)
        store.advance(1)
        assert wal.stat().st_size == reserve


class Unmoved(sqlite3.Connection):
    """The WAL can't be moved into the database; SQLite ignores that after a commit."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA wal_checkpoint(PASSIVE)":
            raise sqlite3.OperationalError("disk I/O error")
        if statement.startswith("PRAGMA wal_autocheckpoint"):
            statement = "PRAGMA wal_autocheckpoint = 0"
        return super().execute(statement, *values)


def test_a_failing_checkpoint_ends_the_server(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program is blamed for that, and the WAL does not grow until the disk is full."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Unmoved))
    with closing(SqliteStore(database, "off")) as store:
        with pytest.raises(CommitFailedError, match="disk I/O error"):
            all(store.advance(1) for _ in range(6 * WAL_PAGES))
        assert "another program" not in caplog.text


def test_a_wal_of_unknown_size_does_not_prevent_commits(database: Path) -> None:
    with closing(SqliteStore(database, "off")) as store:
        files.wal_path(database).unlink()
        for _ in range(2 * WAL_PAGES):
            store.advance(1)
        assert store.read() == 2 * WAL_PAGES
