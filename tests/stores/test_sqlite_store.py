"""The embedded store: what is invalid, what it guards against, and when data is on disk."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from fibcore import MAX_INDEX
from fibcore.problems import (
    AnotherWriterError,
    CommitFailedError,
    DatabaseInvalidError,
    NoRightError,
    StoreBusyError,
    explain,
)
from fibcore.stores import IndexConflictError, sqlite_file
from fibcore.stores.high_water_mark import HighWaterMark, read
from fibcore.stores.sqlite import SYNCHRONOUS, WAL_PAGES, SqliteStore, Synchronous
from tests.stores.conftest import index_on_disk
from tests.support.invalid_databases import INVALID_DATABASES, InvalidDatabase, change, contents


def wal_of(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


# Opening


def test_closing_twice_is_allowed(database: Path) -> None:
    store = SqliteStore(database)
    store.close()
    store.close()


@pytest.mark.processes
@pytest.mark.parametrize("invalid", INVALID_DATABASES, ids=lambda invalid: invalid.name)
def test_a_database_that_cannot_be_trusted_is_invalid(
    database: Path, invalid: InvalidDatabase
) -> None:
    sqlite_file.create(database, 5)
    assert index_on_disk(database) == 5
    invalid.make(database)
    before = contents(database.parent)
    with pytest.raises(DatabaseInvalidError) as caught:
        SqliteStore(database)
    assert contents(database.parent) == before
    message = explain(caught.value)
    assert message.startswith(f"The database {database} is invalid: ")
    assert invalid.complaint in message
    assert "It has not been changed, and nothing is served from it." in message
    assert re.search("fibcore restore FILE|Move it away if", message)
    assert "FIB_STORE" in message
    assert "\n" not in message


def test_a_database_that_cannot_commit_a_step_is_invalid(database: Path) -> None:
    sqlite_file.create(database, 5)
    change(
        database,
        "CREATE TRIGGER stop BEFORE UPDATE ON sequence BEGIN SELECT RAISE(ABORT, 'stopped'); END",
    )
    with pytest.raises(DatabaseInvalidError, match=": stopped"):
        SqliteStore(database)


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder of an unprivileged user, to which this process switches if it is root."""
    # Not under tmp_path, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="fibcore-"))
    folder.chmod(0o755)
    nobody = 65534
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, nobody, nobody)
        os.setresuid(nobody, nobody, 0)
    try:
        yield folder
    finally:
        if was_root:
            os.setresuid(0, 0, 0)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        (0o000, "unable to open database file"),
        (0o200, "unable to open database file"),
        (0o444, "Permission denied"),
    ],
    ids=["neither", "not read", "not written"],
)
def test_a_missing_permission_is_named_and_may_be_granted(
    folder_of_nobody: Path, mode: int, complaint: str
) -> None:
    database = folder_of_nobody / "fibcore.db"
    sqlite_file.create(database, 5)
    database.chmod(mode)
    with pytest.raises(NoRightError) as refused:
        SqliteStore(database)
    assert str(refused.value) == f"{database}: {refused.value.reason}"
    assert complaint in refused.value.reason
    assert "is invalid" not in explain(refused.value)
    database.chmod(0o600)
    beside = list(folder_of_nobody.glob("fibcore.db-*"))
    if beside:
        # They have the permissions of the database.
        with pytest.raises(NoRightError, match=r"\.db-(wal|shm): "):
            SqliteStore(database)
        for each in beside:
            each.chmod(0o600)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5


# Committing


def test_a_step_is_visible_when_commit_returns(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        for index in (1, 2, 100, 2**40, MAX_INDEX):
            store.commit(index)
            assert index_on_disk(database) == index


@pytest.mark.processes
def test_old_frames_in_the_wal_do_not_count(database: Path, tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from fibcore.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
for index in range(1, 6):
    store.commit(index)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, database], check=True)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 5
        cut = tmp_path / "cut.db"
        for end in range(0, 6 * (24 + sqlite_file.PAGE_SIZE), 100):
            shutil.copyfile(database, cut)
            wal_of(cut).write_bytes(wal_of(database).read_bytes()[:end])
            assert index_on_disk(cut) == 5


@pytest.mark.parametrize("level", SYNCHRONOUS)
def test_the_wal_of_an_earlier_process_is_synced_at_any_level(
    database: Path, level: Synchronous, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_file.create(database, 5)
    statements: list[str] = []
    connect = sqlite_file.connect

    def traced(path: Path, mode: Literal["rw", "ro"] = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
        if path == database and mode == "rw":
            connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite_file, "connect", traced)
    SqliteStore(database, level).close()
    before = statements[: statements.index("PRAGMA wal_checkpoint(RESTART)")]
    assert [each for each in before if "synchronous" in each] == ["PRAGMA synchronous = full"]


@pytest.mark.parametrize(("level", "number"), [("off", 0), ("normal", 1), ("full", 2)])
def test_the_level_of_durability_is_set_explicitly(
    database: Path, level: Synchronous, number: int
) -> None:
    with closing(SqliteStore(database, level)) as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (number,)
    assert SYNCHRONOUS[0] == "full", "the default"


def test_the_wal_is_bounded(database: Path) -> None:
    with closing(SqliteStore(database, "off")) as store:
        reserved = wal_of(database).stat().st_size
        for index in range(1, 3 * WAL_PAGES):
            store.commit(index)
        assert wal_of(database).stat().st_size == reserved
        # The header, and twice the pages, while a reader uses it.
        assert reserved == 32 + 2 * WAL_PAGES * (sqlite_file.PAGE_SIZE + 24)


def test_a_wal_larger_than_its_reserve_is_taken_over(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(7)
        monkeypatch.setattr("fibcore.stores.sqlite.WAL_PAGES", 1)
        copy = database.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{database}{suffix}", f"{copy}{suffix}")
    with closing(SqliteStore(copy)) as store:
        assert store.read() == 7
        store.commit(8)
    assert index_on_disk(copy) == 8


def test_a_commit_after_a_write_of_another_process_fails(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(5)
        digest = sqlite_file.index_digest(9).hex()
        change(database, f"UPDATE sequence SET n = 9, digest = x'{digest}'")
        with pytest.raises(CommitFailedError) as failed:
            store.commit(6)
        message = explain(failed.value)
        assert "is no longer at index 5: another process has written to it" in message
        assert "Nothing was committed." in message
    assert index_on_disk(database) == 9


def open_while_another_commits(database: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """As after a deleted lock file: the index that was read is stale at the write.

    Returns:
        The high-water mark then; the other store is at 6.
    """
    with closing(SqliteStore(database)) as store:
        store.commit(5)
        reserve = SqliteStore._reserve_wal

        def reserve_late(late: SqliteStore) -> None:
            reserve(late)
            store.commit(6)

        monkeypatch.setattr(SqliteStore, "_reserve_wal", reserve_late)
        with pytest.raises(StoreBusyError):
            SqliteStore(database)
        record = read(database)
        assert record is not None
        store.commit(7)
        return record.index


def test_a_store_opened_beside_a_commit_leaves_its_mark_alone(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_while_another_commits(database, monkeypatch) == 6


def test_a_mark_taken_over_after_the_read_would_be_lowered(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def take_over(late: SqliteStore, synchronous: Synchronous) -> None:
        late._high_water_mark = HighWaterMark(database, synchronous, late._index, lower=True)

    monkeypatch.setattr(SqliteStore, "_take_over_the_high_water_mark", take_over)
    assert open_while_another_commits(database, monkeypatch) == 5


def test_a_store_whose_first_commit_meets_a_writer_is_busy(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_file.create(database, 5)
    take_over = SqliteStore._take_over_the_high_water_mark
    digest = sqlite_file.index_digest(9).hex()

    def take_over_late(late: SqliteStore, synchronous: Synchronous) -> None:
        take_over(late, synchronous)
        change(database, f"UPDATE sequence SET n = 9, digest = x'{digest}'")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_take_over_the_high_water_mark", take_over_late)
        with pytest.raises(StoreBusyError):
            SqliteStore(database)
    with closing(SqliteStore(database)) as store:
        assert store.read() == 9


def test_a_database_not_in_wal_mode_is_put_back_into_it(database: Path) -> None:
    sqlite_file.create(database, 5)
    change(database, "PRAGMA journal_mode = delete")
    with closing(SqliteStore(database)) as store:
        store.commit(6)
        assert wal_of(database).stat().st_size > 0
    assert index_on_disk(database) == 6


def test_a_step_starts_at_the_index_and_respects_the_limit(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        assert store.advance(5) == 5
        assert store.advance(2, 5) == 7
        assert store.advance(3, limit=10) == 10
        for expected, limit in ((9, None), (11, None), (None, 10)):
            with pytest.raises(IndexConflictError) as elsewhere:
                store.advance(1, expected, limit)
            assert elsewhere.value.index == 10
        assert store.read() == 10
    assert index_on_disk(database) == 10


def test_a_commit_without_its_row_fails(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        change(database, "DELETE FROM sequence")
        with pytest.raises(AnotherWriterError):
            store.commit(1)


def test_an_error_in_a_commit_is_explained(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        store._connection.close()
        with pytest.raises(CommitFailedError) as failed:
            store.commit(1)
    message = explain(failed.value)
    assert (
        f"The commit of index 1 to {database} failed: Cannot operate on a closed database"
        in message
    )
    assert "Its steps are not answered" in message
    assert isinstance(failed.value.__cause__, sqlite3.Error)
