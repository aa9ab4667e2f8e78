"""What a high-water mark and a backup copy prove after a power cut."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.problems import DatabaseInvalidError, StoreUnavailableError, explain
from fibcore.stores import files, high_water_mark, sqlite_file
from fibcore.stores.high_water_mark import HighWaterMark, Record, read
from fibcore.stores.sqlite import SqliteStore, Synchronous
from tests.support.invalid_databases import contents
from tests.support.store_processes import (
    COMMITTED,
    copy,
    index_of,
    serve_and_be_killed,
    without_high_water_mark,
)


@pytest.fixture
def after_a_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A function that boots the machine."""

    def boot() -> None:
        boot_id = tmp_path / "boot_id"
        boot_id.write_text("0f9d2b6e-1c47-4f58-9a53-7c1e5b0d8a21\n")
        monkeypatch.setattr(high_water_mark, "BOOT_ID", boot_id)

    return boot


# After a power cut


def lose_the_wal_in_a_power_cut(
    database: Path, level: Synchronous, after_a_boot: Callable[[], None]
) -> None:
    serve_and_be_killed(database, level)
    files.wal_path(database).unlink()
    after_a_boot()


@pytest.mark.processes
def test_after_a_power_cut_a_mark_made_under_full_counts(
    database: Path, after_a_boot: Callable[[], None]
) -> None:
    lose_the_wal_in_a_power_cut(database, "full", after_a_boot)
    with pytest.raises(DatabaseInvalidError, match=f"index {COMMITTED} was committed"):
        SqliteStore(database)


@pytest.mark.processes
@pytest.mark.parametrize("level", ["normal", "off"])
def test_after_a_power_cut_at_a_lower_level_the_database_is_served(
    database: Path, level: Synchronous, after_a_boot: Callable[[], None]
) -> None:
    """The lower levels may lose steps."""
    lose_the_wal_in_a_power_cut(database, level, after_a_boot)
    assert index_of(database) == 0


@pytest.mark.parametrize(("level", "counts"), [("full", True), ("normal", False), ("off", False)])
def test_if_the_boot_is_unknown_only_the_level_counts(
    database: Path,
    level: Synchronous,
    counts: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(high_water_mark, "BOOT_ID", tmp_path / "no proc")
    with closing(SqliteStore(database, level)):
        pass
    assert read(database) == Record(0, level, "")
    assert Record(0, level, "").counts is counts


def test_a_change_of_level_is_on_disk_before_a_step(
    database: Path, monkeypatch: pytest.MonkeyPatch, after_a_boot: Callable[[], None]
) -> None:
    """So is the first record of a takeover, unlike that of a process killed before its sync."""
    sqlite_file.create(database)
    synced = []
    fsync = os.fsync

    def counted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", counted)
    path = files.high_water_mark_path(database)
    with closing(HighWaterMark(database, "full", 0)) as first:
        assert synced == [path, path.parent]
        first.record(1)
    with closing(HighWaterMark(database, "full", 1)):
        assert synced == 2 * [path, path.parent]
    with closing(HighWaterMark(database, "normal", 1)):
        assert synced == 3 * [path, path.parent]
    after_a_boot()
    with closing(HighWaterMark(database, "normal", 1)):
        assert synced == 4 * [path, path.parent]


# The backup copy


def with_a_backup_copy_that_stands_higher(database: Path, level: Synchronous) -> None:
    with closing(SqliteStore(database, level)) as store:
        store.commit(3)
        copy(database, database.with_name("older"))
        store.commit(COMMITTED)
        copy(database, files.backup_copy_path(database))
    database.with_name("older").replace(database)
    with closing(HighWaterMark(database, level, 3, lower=True)):
        pass


def test_a_database_below_its_backup_copy_is_invalid(database: Path) -> None:
    with_a_backup_copy_that_stands_higher(database, "full")
    assert index_of(without_high_water_mark(database)) == 3
    before = contents(database.parent)
    with pytest.raises(DatabaseInvalidError) as invalid:
        SqliteStore(database)
    assert contents(database.parent) == before
    message = explain(invalid.value)
    assert f"it is at index 3, but {database.name}.backup beside it shows that" in message
    assert f"fibcore set-index {COMMITTED}" in message


def test_without_a_mark_a_database_below_its_backup_copy_is_invalid(database: Path) -> None:
    with_a_backup_copy_that_stands_higher(database, "normal")
    files.high_water_mark_path(database).unlink()
    with pytest.raises(DatabaseInvalidError, match="backup shows that"):
        SqliteStore(database)


@pytest.mark.parametrize("level", ["normal", "off"])
def test_steps_that_only_the_backup_copy_has_are_taken_from_it(
    database: Path,
    level: Synchronous,
    after_a_boot: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with_a_backup_copy_that_stands_higher(database, level)
    with pytest.raises(DatabaseInvalidError, match="backup shows that"):
        SqliteStore(database, level)
    after_a_boot()
    assert index_of(database) == COMMITTED
    assert f"is at index 3 and its backup copy at {COMMITTED}" in caplog.text
    assert sqlite_file.verify_file(database) == COMMITTED


def test_a_recovery_from_the_backup_copy_may_be_interrupted(
    database: Path, after_a_boot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mark of this boot at the lower index, the next start would find it invalid."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "a mistake")

    with_a_backup_copy_that_stands_higher(database, "normal")
    after_a_boot()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreUnavailableError, match="a mistake"):
            SqliteStore(database, "normal")
    assert index_of(database) == COMMITTED


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_backup_copy_proves_nothing(database: Path, content: bytes) -> None:
    sqlite_file.create(database, COMMITTED)
    files.backup_copy_path(database).write_bytes(content)
    assert index_of(database) == COMMITTED


def test_a_backup_copy_behind_the_database_is_no_problem(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        copy(database, files.backup_copy_path(database))
        store.commit(COMMITTED)
    assert index_of(database) == COMMITTED
