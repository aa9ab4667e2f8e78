"""A full disk, a locked database: temporary problems, and their effect on the store."""

import errno
import os
import resource
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.problems import CommitFailedError, LinkedDatabaseError, StoreUnavailableError, explain
from fibcore.stores import sqlite_file
from fibcore.stores.sqlite import WAL_PAGES, SqliteStore
from tests.stores.conftest import index_on_disk
from tests.support.disks import SmallDisk, fill

# Temporary problems


@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_on_a_full_disk_is_opened_once_there_is_space(
    tmp_path: Path, small_disk: SmallDisk, is_there: bool
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        if is_there:
            sqlite_file.create(database, 5)
        filler = fill(disk)
        with pytest.raises(StoreUnavailableError) as unavailable:
            SqliteStore(database)
        assert "Free disk space" in explain(unavailable.value)
        assert database.exists() == is_there, "nothing is left half made"
        filler.unlink()
        with closing(SqliteStore(database)) as store:
            assert store.read() == 5 * is_there


def test_reserving_the_wal_can_be_retried(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_file.create(database, 5)
    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: len(data) // 2], at))
        with pytest.raises(StoreUnavailableError, match="No space left"):
            SqliteStore(database)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5


def step_on_a_full_disk(disk: Path) -> None:
    """One store makes steps, and the next one, too."""
    with closing(SqliteStore(disk / "fibcore.db")) as store:
        fill(disk)
        store.advance(1)
    for life in (1, 2):
        with closing(SqliteStore(disk / "fibcore.db")) as store:
            for _ in range(3 * WAL_PAGES):
                store.advance(1)
        assert index_on_disk(disk / "fibcore.db") == 1 + life * 3 * WAL_PAGES


def test_a_full_disk_does_not_prevent_steps(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk") as disk:
        step_on_a_full_disk(disk)


def test_an_unreserved_wal_would_fail_on_a_full_disk(
    tmp_path: Path, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteStore, "_reserve_wal", lambda _: None)
    with small_disk(tmp_path / "disk") as disk, pytest.raises(CommitFailedError, match="full"):
        step_on_a_full_disk(disk)


def test_a_commit_without_space_fails_and_leaves_the_last_index(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        index = 0
        with (
            closing(SqliteStore(database)) as store,
            closing(sqlite3.connect(database, isolation_level=None)) as reader,
        ):
            # While it reads, the WAL can't restart, and outgrows its space.
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM sequence")
            filler = fill(disk)

            def commit_many_times() -> None:
                nonlocal index
                for _ in range(10_000):
                    store.commit(index + 1)
                    index += 1

            with pytest.raises(CommitFailedError, match="full"):
                commit_many_times()
        filler.unlink()
        with closing(SqliteStore(database)) as store:
            assert store.read() in (index, index + 1)


def test_a_commit_waits_for_a_program_that_holds_the_write_lock(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing has been written by then, so the process need not exit."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.01)
    tries = []
    commit = SqliteStore.commit

    def count(store: SqliteStore, index: int, *made: Mapping[bytes, int]) -> None:
        tries.append(index)
        if len(tries) == 3:
            other.execute("ROLLBACK")
        commit(store, index, *made)

    with (
        closing(SqliteStore(database)) as store,
        closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(SqliteStore, "commit", count)
        assert store.advance(2) == 2
        assert tries == [2, 2, 2]
        assert [each.message for each in caplog.records].count(
            f"Another program has locked the database {database} against writing. Nothing is "
            "lost; steps wait until it unlocks it. End that program."
        ) == 1
        assert index_on_disk(database) == 2


def test_a_commit_that_may_have_written_is_not_retried(database: Path) -> None:
    """The control: only the lock is retried."""
    with closing(SqliteStore(database)) as store:
        store._connection.close()
        with pytest.raises(CommitFailedError):
            store.advance(1)


def test_a_database_with_a_second_name_is_invalid(database: Path, tmp_path: Path) -> None:
    """A server in another folder would step it too, with a WAL and a lock of its own."""
    sqlite_file.create(database, 5)
    other = tmp_path / "other.db"
    other.hardlink_to(database)
    for name in (database, other):
        with pytest.raises(LinkedDatabaseError, match="another name") as linked:
            SqliteStore(name)
        assert f"-samefile {name}" in explain(linked.value)
    other.unlink()
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5


def test_a_limit_on_file_size_is_temporary(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EFBIG, from ``ulimit -f``, does not make the database invalid."""
    sqlite_file.create(database, 5)

    def pwrite(*_: object) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(resource, "getrlimit", lambda _: (51_200, 51_200))
        with pytest.raises(StoreUnavailableError, match="ulimit -f"):
            SqliteStore(database)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5


def test_a_database_locked_by_another_program_is_not_invalid(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.01)
    sqlite_file.create(database, 5)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        for begin in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
            other.execute(begin)
            with pytest.raises(StoreUnavailableError, match="in use by another program"):
                SqliteStore(database)
            other.execute("ROLLBACK")
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5
