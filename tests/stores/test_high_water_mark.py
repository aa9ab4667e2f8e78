"""The high-water mark: only a database that has lost steps is invalid; with controls."""

import os
import shutil
import signal
from contextlib import closing
from pathlib import Path

import pytest

from fibcore.problems import (
    CommitFailedError,
    DatabaseInvalidError,
    StoreBusyError,
    StoreUnavailableError,
    explain,
    typed,
)
from fibcore.stores import files, high_water_mark, sqlite_file
from fibcore.stores.high_water_mark import HighWaterMark, Record, read
from fibcore.stores.sqlite import SYNCHRONOUS, SqliteStore, Synchronous
from tests.support.disks import SmallDisk, fill
from tests.support.invalid_databases import contents
from tests.support.store_processes import (
    COMMITTED,
    copy,
    index_of,
    run,
    serve_and_be_killed,
    without_high_water_mark,
)

# Its purpose


@pytest.mark.processes
@pytest.mark.parametrize("level", SYNCHRONOUS)
def test_a_database_whose_wal_was_lost_is_invalid(database: Path, level: Synchronous) -> None:
    """Without its mark it would be at a lower index."""
    serve_and_be_killed(database, level)
    files.wal_path(database).unlink()
    before = contents(database.parent)
    with pytest.raises(DatabaseInvalidError) as invalid:
        SqliteStore(database, level)
    assert contents(database.parent) == before
    message = explain(invalid.value)
    assert message.startswith(f"The database {database} is invalid: it is at index 0, but ")
    assert f"{database.name}.mark beside it shows that index {COMMITTED} was committed" in message
    assert "It has not been changed, and nothing is served from it." in message
    assert f"with no step lost: {typed(f'fibcore set-index {COMMITTED}')}." in message

    assert index_of(without_high_water_mark(database)) == 0


def test_the_mark_shows_that_an_older_copy_is_invalid(database: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(database)) as store:
        copy(database, tmp_path / "backup")
        store.commit(COMMITTED)
    shutil.copyfile(tmp_path / "backup", database)
    assert index_of(without_high_water_mark(database)) == 0
    with pytest.raises(DatabaseInvalidError, match=f"index {COMMITTED} was committed"):
        SqliteStore(database)


def test_a_deleted_database_does_not_start_again_at_0(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(COMMITTED)
    database.unlink()
    assert index_of(without_high_water_mark(database)) == 0
    with pytest.raises(DatabaseInvalidError, match=f"its folder still has {database.name}.mark"):
        SqliteStore(database)


# No reasons to be invalid


@pytest.mark.processes
@pytest.mark.parametrize("level", SYNCHRONOUS)
def test_a_killed_process_does_not_make_the_database_invalid(
    database: Path, level: Synchronous
) -> None:
    serve_and_be_killed(database, level)
    assert index_of(database) == COMMITTED


@pytest.mark.processes
def test_a_mark_behind_its_commit_does_not_make_the_database_invalid(database: Path) -> None:
    program = """
store = SqliteStore(database)
store.commit(4)
high_water_mark.HighWaterMark.record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.commit(5)
"""
    assert run(program, database) == -signal.SIGKILL
    assert read(database) == Record(4, "full", high_water_mark._boot())
    assert index_of(database) == 5
    assert read(database) == Record(5, "full", high_water_mark._boot())


def test_a_mark_is_lowered_only_by_a_person(database: Path) -> None:
    """A mark takes up one block."""

    def made(index: int, *, lower: bool | None = None) -> None:
        said = {} if lower is None else {"lower": lower}
        with closing(HighWaterMark(database, "full", index, **said)):
            pass

    made(9)
    assert files.high_water_mark_path(database).stat().st_size == 4096
    with pytest.raises(StoreBusyError):
        made(8)
    assert read(database) == Record(9, "full", high_water_mark._boot())
    made(8, lower=True)
    assert read(database) == Record(8, "full", high_water_mark._boot())


def test_a_mark_with_a_flipped_bit_proves_nothing(database: Path) -> None:
    with closing(SqliteStore(database)) as store:
        store.commit(COMMITTED)
    path = files.high_water_mark_path(database)
    good = path.read_bytes()
    assert len(good) == high_water_mark.FILE_SIZE
    for bit in range(8 * high_water_mark.RECORD_SIZE):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert read(database) is None
    assert index_of(database) == COMMITTED
    assert path.read_bytes() == good


@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"index 5\n", b"\xff" * 9999])
def test_a_missing_or_foreign_mark_is_created_again(database: Path, content: bytes | None) -> None:
    sqlite_file.create(database, COMMITTED)
    if content is not None:
        files.high_water_mark_path(database).write_bytes(content)
    assert read(database) is None
    assert index_of(database) == COMMITTED
    assert read(database) == Record(COMMITTED, "full", high_water_mark._boot())


# Commits and their records


def test_a_mark_is_recorded_between_a_commit_and_its_return(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    record = HighWaterMark.record

    def look_and_record(self: HighWaterMark, index: int) -> None:
        with closing(sqlite_file.connect(database, mode="ro")) as other:
            seen.append((index, sqlite_file.verify(other, database)))
        record(self, index)

    with closing(SqliteStore(database)) as store:
        monkeypatch.setattr(HighWaterMark, "record", look_and_record)
        store.commit(4)
        store.commit(COMMITTED)
        assert seen == [(4, 4), (COMMITTED, COMMITTED)]
        assert read(database) == Record(COMMITTED, "full", high_water_mark._boot())


def test_a_failed_commit_is_not_recorded(database: Path) -> None:
    """Not even if another process has committed instead."""
    with closing(SqliteStore(database)) as store, closing(SqliteStore(database)) as other:
        other.commit(3)
        with pytest.raises(CommitFailedError):
            store.commit(4)
        assert read(database) == Record(3, "full", high_water_mark._boot())


def test_the_high_water_mark_is_readable_text(database: Path) -> None:
    with closing(SqliteStore(database, "normal")) as store:
        store.commit(25_000)
    text = files.high_water_mark_path(database).read_bytes()[: high_water_mark.RECORD_SIZE].decode()
    assert text.split()[:2] == ["25000", "normal"]
    assert text.endswith("\n")


# Problems


def test_a_mark_without_space_can_be_created_later(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk") as disk:
        database = disk / "fibcore.db"
        sqlite_file.create(database, COMMITTED)
        filler = fill(disk)
        with pytest.raises(StoreUnavailableError) as unavailable:
            HighWaterMark(database, "full", COMMITTED)
        message = explain(unavailable.value)
        assert f"{database}.mark is unavailable: " in message
        assert "No space left on device" in message
        filler.unlink()
        assert index_of(database) == COMMITTED
        assert read(database) == Record(COMMITTED, "full", high_water_mark._boot())


def test_a_record_needs_no_space_in_a_preallocated_file(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    program = """
taken = high_water_mark.HighWaterMark(database, "full", 5)
if sys.argv[2] == "hole":
    os.truncate(files.high_water_mark_path(database), 0)
    os.truncate(files.high_water_mark_path(database), high_water_mark.FILE_SIZE)
with open(database.with_name("filler"), "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
for index in range(6, 1000):
    taken.record(index)
assert high_water_mark.read(database).index == 999
"""
    for content, status in (("whole", 0), ("hole", -signal.SIGBUS)):
        with small_disk(tmp_path / content) as disk:
            assert run(program, disk / "fibcore.db", content) == status


@pytest.mark.processes
def test_a_truncated_mark_ends_the_process_unanswered(database: Path) -> None:
    program = """
store = SqliteStore(database)
os.truncate(files.high_water_mark_path(database), 0)
store.commit(5)
"""
    assert run(program, database) == -signal.SIGBUS
    assert index_of(database) == 5
    assert read(database) == Record(5, "full", high_water_mark._boot())


def test_a_foreign_file_in_place_of_a_mark_makes_the_store_unavailable(database: Path) -> None:
    sqlite_file.create(database, COMMITTED)
    path = files.high_water_mark_path(database)
    path.mkdir()
    with pytest.raises(StoreUnavailableError, match="Is a directory"):
        SqliteStore(database)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(StoreUnavailableError, match="Illegal seek"):
        SqliteStore(database)
    path.unlink()
    assert index_of(database) == COMMITTED
