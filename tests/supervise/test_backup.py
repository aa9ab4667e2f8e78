"""The backup copy is valid, whatever happens to the database."""

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fibcore.appliance.settings import Settings
from fibcore.problems import StoreUnavailableError
from fibcore.stores import files, high_water_mark, sqlite, sqlite_file
from fibcore.stores.sqlite import SqliteStore
from supervise import backup
from supervise.backup import LOGGED_SECONDS, BackupCopy


@pytest.fixture
def store(database: Path) -> Iterator[SqliteStore]:
    """The database, opened as by a server."""
    store = SqliteStore(database, "off")
    yield store
    store.close()


def copied(database: Path) -> int:
    """The index of the backup copy, which must be valid."""
    return sqlite_file.verify_file(files.backup_copy_path(database))


def test_the_copy_is_verified_and_at_the_index_of_the_database(
    store: SqliteStore, database: Path
) -> None:
    backup_copy = BackupCopy(database)
    for index in (1, 2, 1_000_000):
        store.commit(index)
        backup_copy.refresh()
        assert copied(database) == index


def test_nothing_is_done_when_nothing_has_changed(store: SqliteStore, database: Path) -> None:
    store.commit(1)
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    before = files.backup_copy_path(database).stat()
    backup_copy.refresh()
    BackupCopy(database).refresh()
    after = files.backup_copy_path(database).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_database_and_its_wal_are_not_written_to(store: SqliteStore, database: Path) -> None:
    for index in range(1, 10):
        store.commit(index)
    files = [database, database.with_name(database.name + "-wal")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    BackupCopy(database).refresh()
    assert copied(database) == 9
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


def test_backup_and_writer_do_not_wait_for_each_other(store: SqliteStore, database: Path) -> None:
    store.commit(7)
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        BackupCopy(database).refresh()
        writer.execute("ROLLBACK")
    assert copied(database) == 7


RESERVED = sqlite.wal_reserve(sqlite_file.PAGE_SIZE)
"""Bytes reserved for the WAL from the start."""


def largest_wal(store: SqliteStore, database: Path) -> int:
    """Step far past the space of the WAL, while copying; return its size in bytes."""
    backup_copy = BackupCopy(database)
    largest = 0
    for index in range(1, 5 * sqlite.WAL_PAGES):
        store.commit(index)
        if index % 25 == 0:
            backup_copy.refresh()
            largest = max(largest, files.wal_path(database).stat().st_size)
    return largest


def test_the_wal_stays_bounded_under_a_steady_load(store: SqliteStore, database: Path) -> None:
    assert largest_wal(store, database) == RESERVED


def test_without_checkpoints_the_wal_would_grow_past_its_bound(
    store: SqliteStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store._connection.execute("PRAGMA wal_autocheckpoint = 0")
    monkeypatch.setattr(store, "_make_room_in_wal", lambda: None)
    assert largest_wal(store, database) > 2 * RESERVED


def test_a_permission_missing_after_a_copy_is_reported(
    store: SqliteStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = sqlite_file.copy

    def copy_and_lose_the_right(*arguments: Any) -> int:
        index = copy(*arguments)
        monkeypatch.setattr(files, "is_there", Mock(side_effect=PermissionError(13, "denied")))
        return index

    store.commit(1)
    monkeypatch.setattr(sqlite_file, "copy", copy_and_lose_the_right)
    BackupCopy(database).refresh()
    assert "may not use" in files.backup_problem_path(database).read_text()


def test_health_has_the_reason_until_a_copy_is_made(store: SqliteStore, database: Path) -> None:
    problem = files.backup_problem_path(database)
    store.commit(1)
    backup_copy = BackupCopy(database)
    with pytest.MonkeyPatch.context() as patched:
        full = StoreUnavailableError(database, "database or disk is full")
        patched.setattr(sqlite_file, "copy", Mock(side_effect=full))
        backup_copy.refresh()
    assert problem.read_text() == full.public
    assert str(database) not in problem.read_text()
    backup_copy.refresh()
    assert copied(database) == 1
    assert not problem.exists()


def copied_of_a_step_that_is_not_recorded(database: Path) -> tuple[int, int]:
    """The index of the copy before and after a takeover from a server killed in a commit.

    That server has written step 2 to the WAL, but neither synced nor recorded it.
    """
    with closing(SqliteStore(database)) as store:
        store.commit(1)
        with closing(sqlite3.connect(database, isolation_level=None)) as killed:
            killed.execute("UPDATE sequence SET n = 2, digest = ?", (sqlite_file.index_digest(2),))
            backup_copy = BackupCopy(database)
            store.close()
            backup_copy.refresh()
            before = copied(database) if files.backup_copy_path(database).exists() else 0
    with closing(SqliteStore(database)):
        backup_copy.refresh()
    return before, copied(database)


def test_a_step_is_copied_only_once_it_is_recorded(database: Path) -> None:
    assert copied_of_a_step_that_is_not_recorded(database) == (0, 2)


def test_without_the_mark_an_unsynced_step_would_be_copied(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(high_water_mark, "read", lambda _: None)
    assert copied_of_a_step_that_is_not_recorded(database) == (2, 2)


def test_a_missing_database_is_not_created(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    BackupCopy(database).refresh()
    assert list(database.parent.iterdir()) == []
    assert caplog.text == ""


def test_a_damaged_database_leaves_the_copy_and_is_reported_once(
    store: SqliteStore, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.commit(1)
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    with closing(sqlite3.connect(database, isolation_level=None)) as vandal:
        for index in (2, 2, 1, 2):
            vandal.execute("UPDATE sequence SET n = ?", [index])
            backup_copy.refresh()
    assert copied(database) == 1
    assert caplog.text.count("does not match the digest") == 2
    assert f"The backup copy {files.backup_copy_path(database)} was not refreshed." in caplog.text


def test_copies_are_logged_once_an_hour(
    store: SqliteStore,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, "backup")
    backup_copy = BackupCopy(database)
    for index, passed in ((1, 0.0), (2, LOGGED_SECONDS), (3, 1.0), (4, 1.0)):
        now += passed
        store.commit(index)
        backup_copy.refresh()
    said = [each.getMessage().partition(": ")[2] for each in caplog.records]
    assert said == [
        f"a verified backup copy at index {index}; {index} made so far" for index in (1, 3)
    ]


def test_a_database_with_a_lower_index_leaves_the_copy(
    store: SqliteStore, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.commit(10)
    BackupCopy(database).refresh()
    store.commit(9)
    BackupCopy(database).refresh()
    assert copied(database) == 10
    assert (
        "is at index 9, but fibcore.db.backup beside it shows that index 10 was committed"
        in caplog.text
    )


@pytest.mark.parametrize("damage", [b"", b"not a database"])
def test_a_damaged_copy_is_replaced(
    store: SqliteStore, database: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.commit(3)
    BackupCopy(database).refresh()
    files.backup_copy_path(database).write_bytes(damage)
    BackupCopy(database).refresh()
    assert copied(database) == 3
    assert "Check the disk" in caplog.text


def test_a_copy_damaged_between_two_checks_is_replaced(store: SqliteStore, database: Path) -> None:
    """Even while no step is made: ``fibcore verify`` promises that it is replaced."""
    store.commit(3)
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    os.truncate(files.backup_copy_path(database), 100)
    backup_copy.refresh()
    assert copied(database) == 3


def test_a_deleted_copy_is_made_again(store: SqliteStore, database: Path) -> None:
    store.commit(6)
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    files.backup_copy_path(database).unlink()
    backup_copy.refresh()
    assert copied(database) == 6


def test_a_full_disk_leaves_the_copy_and_the_loop_continues(
    store: SqliteStore,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    store.commit(1)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", _no_space)
        backup_copy.refresh()
    assert copied(database) == 0
    assert "No space left on device" in caplog.text
    backup_copy.refresh()
    assert copied(database) == 1


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class NoMoreSleepError(Exception):
    """Ends an endless loop."""


def test_the_database_is_checked_every_few_seconds(
    store: SqliteStore,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []

    def sleep(seconds: float) -> None:
        seen.append((seconds, copied(database)))
        if len(seen) == 2:
            raise NoMoreSleepError
        store.commit(5)

    monkeypatch.setenv("FIB_STATE", str(database))
    monkeypatch.setattr(time, "sleep", sleep)
    store.commit(4)
    caplog.set_level(logging.INFO, "backup")
    with pytest.raises(NoMoreSleepError):
        backup.main(["7"])
    assert seen == [(7.0, 4), (7.0, 5)]
    assert f"{database} is copied every 7 s if its index has changed" in caplog.text


def test_with_a_shared_store_the_program_exits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "backup")
    monkeypatch.setattr(Settings, "database", None)
    assert backup.main(["5"]) == 0
    assert "its engine is responsible for backups" in caplog.text
