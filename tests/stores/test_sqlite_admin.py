"""Setting the index of a database, and copying it: safe beside a server, and if interrupted."""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import fibcore
from fibcore import MAX_INDEX
from fibcore.problems import (
    CopyFailedError,
    DatabaseInvalidError,
    ForeignDatabaseError,
    InTheWayError,
    InUseError,
    LowerError,
    NoFolderError,
    OwnFileError,
)
from fibcore.stores import Moved, files, sqlite_file
from fibcore.stores.high_water_mark import read
from fibcore.stores.keys import KeyConflictError
from fibcore.stores.lock import WriterLock
from fibcore.stores.sqlite import SqliteStore
from fibcore.stores.sqlite_opener import SqliteOpener, verified_index
from supervise.backup import BackupCopy
from tests.support.crash_points import killed_at_each_line
from tests.support.disks import SmallDisk, fill
from tests.support.invalid_databases import INVALID_DATABASES, InvalidDatabase, contents
from tests.support.keys import key, step
from tests.support.servers import ServerProcess
from tests.support.store_processes import serve_and_be_killed


def index_of(database: Path) -> int:
    """The index that is served from the database."""
    with closing(SqliteStore(database)) as store:
        return store.read()


def make(database: Path, index: int) -> None:
    """Create a served database at ``index``, and its backup copy."""
    with closing(SqliteStore(database)) as store:
        store.commit(index)
        BackupCopy(database).refresh()


# Setting the index


@pytest.mark.parametrize("index", [0, 1, 10**9, MAX_INDEX])
def test_a_missing_database_is_created_at_the_index(database: Path, index: int) -> None:
    assert SqliteOpener(database).set_index(index) == Moved(None, None)
    assert index_of(database) == index


@pytest.mark.parametrize("index", [50, 51, 10**9])
def test_the_index_can_be_raised(database: Path, index: int) -> None:
    make(database, 50)
    assert SqliteOpener(database).set_index(index) == Moved(50, None)
    assert index_of(database) == index


def test_the_index_is_lowered_only_with_lower(database: Path) -> None:
    make(database, 50)
    SqliteOpener(database).set_index(50)
    before = contents(database.parent)
    with pytest.raises(LowerError, match="index 50: going back to 49"):
        SqliteOpener(database).set_index(49)
    assert contents(database.parent) == before
    assert SqliteOpener(database).set_index(49, lower=True) == Moved(50, None)
    assert index_of(database) == 49


def test_a_lowered_database_is_served_after_a_power_cut(database: Path) -> None:
    make(database, 50)
    SqliteOpener(database).set_index(49, lower=True)
    record = read(database)
    assert record is not None
    assert (record.index, record.synchronous) == (49, "full")
    backup_copy = BackupCopy(database)
    backup_copy.refresh()
    assert sqlite_file.verify_file(files.backup_copy_path(database)) == 49


@pytest.mark.processes
@pytest.mark.parametrize("level", ["full", "normal"])
def test_a_database_that_lost_steps_is_set_to_its_former_index(database: Path, level: str) -> None:
    serve_and_be_killed(database, "normal" if level == "normal" else "full")
    files.wal_path(database).unlink()
    with pytest.raises(LowerError, match="has reached index 5"):
        SqliteOpener(database).set_index(4)
    assert SqliteOpener(database).set_index(5) == Moved(
        None, database.with_name(f"{database.name}.invalid-1")
    )
    assert index_of(database) == 5


@pytest.mark.processes
@pytest.mark.parametrize("invalid", INVALID_DATABASES[::2], ids=lambda invalid: invalid.name)
def test_an_invalid_file_is_kept_and_a_foreign_one_untouched(
    database: Path, invalid: InvalidDatabase
) -> None:
    sqlite_file.create(database, 5)
    invalid.make(database)
    before = contents(database.parent)
    try:
        _, kept = SqliteOpener(database).set_index(6)
    except ForeignDatabaseError:
        after = contents(database.parent)
        assert after.pop(f"{database.name}.lock")
        assert after == before
        return
    assert kept is not None
    assert index_of(database) == 6
    after = contents(database.parent)
    for name, content in before.items():
        if name.startswith(database.name):
            name = name.replace(database.name, kept.name)
        assert after[name] == content


NO_FILES = [
    each for each in INVALID_DATABASES if re.match("it is (not a file|a link)", each.complaint)
]


@pytest.mark.parametrize("invalid", NO_FILES, ids=lambda invalid: invalid.name)
def test_a_folder_a_link_or_a_pipe_is_not_set_aside(
    database: Path, invalid: InvalidDatabase
) -> None:
    """A folder given instead of a database may be that of a running server."""
    sqlite_file.create(database, 5)
    invalid.make(database)
    before = database.lstat().st_ino
    with pytest.raises(ForeignDatabaseError, match=invalid.complaint):
        SqliteOpener(database).set_index(6)
    assert database.lstat().st_ino == before


def test_a_file_set_aside_does_not_replace_an_earlier_one(database: Path) -> None:
    for number in (1, 2, 3):
        database.write_bytes(b"damaged %d" % number)
        SqliteOpener(database).set_index(number)
    kept = {path.name: path.read_bytes() for path in database.parent.glob("*.invalid-*")}
    assert kept == {
        f"{database.name}.invalid-{number}": b"damaged %d" % number for number in (1, 2, 3)
    }


def test_nothing_is_set_while_another_process_holds_the_lock(database: Path) -> None:
    make(database, 50)
    server = WriterLock(database)
    assert server.acquire(wait=False)
    before = contents(database.parent)
    with pytest.raises(InUseError, match=rf"in use by process {os.getpid()}"):
        SqliteOpener(database).set_index(60)
    assert contents(database.parent) == before
    server.release()
    SqliteOpener(database).set_index(60)


@pytest.mark.processes
def test_a_server_that_starts_meanwhile_continues_from_the_index(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[ServerProcess] = []
    write = sqlite_file.write

    def write_while_a_server_starts(path: Path, index: int) -> None:
        servers.append(ServerProcess(database).wait_until_it_stands_by())
        write(path, index)

    monkeypatch.setattr(sqlite_file, "write", write_while_a_server_starts)
    SqliteOpener(database).set_index(70)
    with servers[0] as server:
        server.log.expect("serving from index 70")


@pytest.mark.usefixtures("root")
def test_files_created_by_root_belong_to_the_owner_of_the_folder() -> None:
    # Not under tmp_path, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="fibcore-"))
    try:
        os.chown(folder, 65534, 65534)
        database = folder / "fibcore.db"
        SqliteOpener(database).set_index(5)
        SqliteOpener(database).set_index(6)
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
        assert os.geteuid() == 0
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("moment", ["before the copy has its name", "when it has it"])
def test_a_copy_being_made_is_no_evidence_against_a_lower_index(
    database: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    make(database, 50)
    files.backup_copy_path(database).unlink()
    rename = Path.rename

    def rename_and_lower(self: Path, target: Path) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            if moment == "when it has it":
                rename(self, target)
            SqliteOpener(database).set_index(40, lower=True)
            if moment != "when it has it":
                rename(self, target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_and_lower)
        BackupCopy(database).refresh()
    assert index_of(database) == 40
    BackupCopy(database).refresh()
    assert sqlite_file.verify_file(files.backup_copy_path(database)) == 40


def test_a_copy_made_while_lowering_is_no_evidence_against_it(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(database, 50)
    commit = SqliteStore._commit

    def copy_and_commit(self: SqliteStore, index: int, write: Callable[[int], None]) -> None:
        BackupCopy(database).refresh()
        commit(self, index, write)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_commit", copy_and_commit)
        SqliteOpener(database).set_index(40, lower=True)
    assert index_of(database) == 40


# Interrupted


def healthy(database: Path) -> None:
    make(database, 50)


def killed(database: Path) -> None:
    make(database, 3)
    serve_and_be_killed(database)


def without_its_wal(database: Path) -> None:
    killed(database)
    files.wal_path(database).unlink()


def damaged(database: Path) -> None:
    killed(database)
    # The WAL of a server that was killed early has all pages, so it is damaged, too.
    for path in (database, files.wal_path(database)):
        path.write_bytes(b"damaged")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("prepare", "index", "expected"),
    [
        (healthy, 60, {50, 60}),
        (healthy, 40, {50, 40, None}),
        (killed, 2, {5, 2, None}),
        (without_its_wal, 5, {None, 5}),
        (damaged, 2, {None, 2}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_interrupted_anywhere_the_index_is_the_old_or_the_new_one(
    tmp_path: Path, prepare: Callable[[Path], None], index: int, expected: set[int | None]
) -> None:
    original = tmp_path / "original"
    original.mkdir()
    prepare(original / "fibcore.db")
    assert (
        left_behind(original, f"SqliteOpener(database).set_index({index}, lower=True)", index)
        == expected
    )


@pytest.mark.processes
def test_without_the_mark_first_an_interruption_would_start_at_0(tmp_path: Path) -> None:
    """The mark is set before the database is written."""
    original = tmp_path / "original"
    original.mkdir()
    (original / "fibcore.db").write_bytes(
        b"damaged, and there is neither a high-water mark nor a backup copy"
    )
    program = "SqliteOpener(database).set_index(9)"
    assert left_behind(original, program, 9) == {None, 9}
    without = f"sqlite_opener._move_high_water_mark = lambda *_: None; {program}"
    assert left_behind(original, without, 9) == {None, 0, 9}


def keyed(database: Path) -> None:
    make(database, 50)
    with closing(SqliteStore(database)) as store:
        assert step(store, key(1, since=50)) == 51


KEYS_DROPPED_FIRST = """
def set_index(store, index):
    store._connection.execute("DELETE FROM keys")
    store._keys, store._dropped = None, index
    store.commit(index)
sqlite_opener.SqliteStore.set_index = set_index
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("order", "expected"), [("", {51, None}), (KEYS_DROPPED_FIRST, {51, None, 52})]
)
def test_interrupted_anywhere_no_used_key_counts_as_new(
    tmp_path: Path, order: str, expected: set[int | None]
) -> None:
    """A key gets the number of its step, or is rejected. Repeated, the index is 52."""
    original = tmp_path / "original"
    original.mkdir()
    keyed(original / "fibcore.db")
    program = f"{order}\nSqliteOpener(database).set_index(60)"
    found: set[int | None] = set()
    for database in killed_at_each_line(original, Path(fibcore.__file__).parent, program, least=6):
        with closing(SqliteStore(database)) as store:
            try:
                found.add(step(store, key(1, since=50)))
            except KeyConflictError as conflict:
                found.update(conflict.found.values())
        shutil.rmtree(database.parent)
    assert found == expected


def left_behind(original: Path, program: str, index: int) -> set[int | None]:
    """The index of the database, or None if it is invalid, after the program was killed anywhere.

    Repeated, the program leads to ``index``, whatever it had left.
    """
    found: set[int | None] = set()
    databases = killed_at_each_line(original, Path(fibcore.__file__).parent, program, least=6)
    for database in databases:
        again = database.parent / "again"
        shutil.copytree(database.parent, again)
        try:
            found.add(index_of(database))
        except DatabaseInvalidError:
            found.add(None)
        SqliteOpener(again / database.name).set_index(index, lower=True)
        assert index_of(again / database.name) == index
    for database in databases:
        shutil.rmtree(database.parent)
    return found


# Copies


def test_a_database_is_copied_while_it_is_written_to(database: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(database)) as store:
        for index in range(1, 20):
            store.commit(index)
            assert SqliteOpener(database).backup(tmp_path / "backup.db") == index


@pytest.mark.processes
def test_a_database_that_lost_steps_is_not_copied(database: Path, tmp_path: Path) -> None:
    without_its_wal(database)
    with pytest.raises(DatabaseInvalidError, match="index 5 was committed"):
        SqliteOpener(database).backup(tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


@pytest.mark.parametrize("suffix", ["", "-journal", "-shm", "-wal", ".lock", ".mark", ".backup"])
def test_a_backup_never_replaces_a_file_of_the_database(database: Path, suffix: str) -> None:
    make(database, 50)
    before = contents(database.parent)
    target = database.parent / ".." / database.parent.name / (database.name + suffix)
    with pytest.raises(OwnFileError):
        SqliteOpener(database).backup(target)
    assert contents(database.parent) == before


def test_a_backup_never_replaces_a_foreign_file(database: Path, tmp_path: Path) -> None:
    make(database, 50)
    target = tmp_path / "letter.txt"
    target.write_text("Dear")
    before = contents(tmp_path)
    with pytest.raises(InTheWayError, match=target.name):
        SqliteOpener(database).backup(target)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", [".lock", ".mark"])
def test_a_backup_never_replaces_another_database(
    database: Path, tmp_path: Path, suffix: str
) -> None:
    make(database, 50)
    other = tmp_path / "other" / "fibcore.db"
    other.parent.mkdir()
    with closing(SqliteStore(other)) as store:
        store.commit(7)
        files.lock_path(other).touch()
        for each in {".lock", ".mark"} - {suffix}:
            other.with_name(f"{other.name}{each}").rename(tmp_path / each)
        with pytest.raises(InTheWayError, match=f"fibcore.db{suffix} is beside it"):
            SqliteOpener(database).backup(other)
        assert store.advance(1) == 8
    assert sqlite_file.verify_file(other) == 8


def test_a_persons_file_named_new_is_left_alone(database: Path, tmp_path: Path) -> None:
    """It may become the next database, or be an earlier copy."""
    for path in (database, tmp_path / "copy.db"):
        sqlite_file.create(path.with_name(f"{path.name}.new"), 9)
    make(database, 5)
    SqliteOpener(database).backup(tmp_path / "copy.db")
    for path in (database, tmp_path / "copy.db"):
        assert sqlite_file.verify_file(path.with_name(f"{path.name}.new")) == 9


def test_a_copy_that_another_process_also_writes_is_not_reported(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verified file gets the name, although both write the same file first."""
    make(database, 5)
    target = tmp_path / "copy.db"
    SqliteOpener(database).backup(target)
    verify = sqlite_file.verify

    def verified_while_another_begins(connection: sqlite3.Connection, path: Path) -> int:
        index = verify(connection, path)
        if path == files.new_path(target):
            path.unlink()
            path.write_bytes(b"half of")
        return index

    monkeypatch.setattr(sqlite_file, "verify", verified_while_another_begins)
    with pytest.raises(CopyFailedError, match="another process writes a copy there, too"):
        SqliteOpener(database).backup(target)
    assert sqlite_file.verify_file(target) == 5
    assert files.new_path(target).read_bytes() == b"half of"


def test_a_copy_that_cannot_be_written_leaves_the_older_one(
    database: Path, tmp_path: Path, small_disk: SmallDisk
) -> None:
    make(database, 50)
    with pytest.raises(NoFolderError):
        SqliteOpener(database).backup(tmp_path / "missing" / "backup.db")
    with small_disk(tmp_path / "disk") as disk:
        target = disk / "backup.db"
        SqliteOpener(database).backup(target)
        SqliteOpener(database).set_index(51)
        filler = fill(disk)
        with pytest.raises(CopyFailedError, match="database or disk is full"):
            SqliteOpener(database).backup(target)
        assert {path.name for path in disk.iterdir()} == {target.name, filler.name}
        assert sqlite_file.verify_file(target) == 50
    assert verified_index(database) == 51
