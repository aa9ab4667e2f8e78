"""The database: created and copied completely or not at all, and untouched if invalid."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore.problems import (
    DatabaseInvalidError,
    NoRightError,
    StoreBusyError,
    StoreNotThereError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import files, sqlite_file
from tests.support.crash_points import killed_at_each_line
from tests.support.invalid_databases import change, change_in_the_wal, contents

# Creation


def test_a_new_database_is_at_0_and_is_the_only_file(database: Path) -> None:
    sqlite_file.create(database)
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert sqlite_file.verify_file(database) == 0


def test_a_database_has_an_application_id(database: Path) -> None:
    sqlite_file.create(database)
    with closing(sqlite_file.connect(database)) as connection:
        for pragma, value in [
            ("application_id", int.from_bytes(b"FIBC", "big")),
            ("user_version", 1),
            ("journal_mode", "wal"),
        ]:
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)


def test_a_path_may_have_odd_characters(tmp_path: Path) -> None:
    database = tmp_path / "100% ?mode=ro&x#y ü.db"
    sqlite_file.create(database, 7)
    assert sqlite_file.verify_file(database) == 7
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


@pytest.mark.processes
def test_killed_at_any_line_creation_leaves_a_valid_database_or_none(tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    found = set()
    for database in killed_at_each_line(
        original, Path(sqlite_file.__file__), "sqlite_file.create(database, 5)", least=3
    ):
        found.add(database.exists())
        if not database.exists():
            # Leftovers of the first attempt do not prevent the second.
            sqlite_file.create(database, 5)
        assert sqlite_file.verify_file(database) == 5
        assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert found == {False, True}


def test_a_new_database_and_its_folder_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    folder = tmp_path / "var"
    folder.mkdir()
    database = folder / "fibcore.db"
    sqlite_file.create(database)
    assert synced == [database.with_name("fibcore.db.unfinished"), folder, tmp_path]


@pytest.mark.parametrize("make", ["create", "copy"])
def test_a_file_is_synced_before_it_is_named_and_its_name_before_use(
    database: Path, monkeypatch: pytest.MonkeyPatch, make: str
) -> None:
    target = database
    if make == "copy":
        sqlite_file.create(database, 5)
        target = files.backup_copy_path(database)
    new = target.with_name(target.name + ".unfinished")
    events: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        events.append(("sync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        sync(fd)

    def renamed(path: Path, to: Path) -> Path:
        events.append((str(path), str(to)))
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    if make == "create":
        sqlite_file.create(target)
    else:
        copy(database, target)
    assert events[:3] == [("sync", str(new)), (str(new), str(target)), ("sync", str(target.parent))]


@pytest.mark.parametrize("remains", ["", "-wal", ".mark", ".backup"])
def test_a_database_is_never_created_over_remains_of_another(database: Path, remains: str) -> None:
    remain = database.with_name(database.name + remains)
    remain.write_bytes(b"something")
    before = contents(database.parent)
    with pytest.raises(DatabaseInvalidError) as invalid:
        sqlite_file.create(database)
    assert contents(database.parent) == before
    message = explain(invalid.value)
    assert str(database) in message
    assert f"it existed: its folder still has {remain.name}" in message
    assert "Nothing has been changed." in message
    assert "fibcore restore FILE" in message


# Failures: test_sqlite_store.py covers invalid files


def test_a_missing_database_is_invalid_and_not_created(database: Path) -> None:
    with pytest.raises(StoreNotThereError):
        sqlite_file.verify_file(database)
    assert contents(database.parent) == {}


@given(at=st.integers(0, 2**16), bit=st.integers(0, 7))
@example(at=-1, bit=0)  # the last bit of the digest, which is the last thing in the file
@example(at=-9, bit=0)  # the last bit of the index, which is before it
def test_a_flipped_bit_never_changes_the_index(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    good = tmp_path_factory.getbasetemp() / "good.db"
    if not good.exists():
        sqlite_file.create(good, 123_456_789)
    data = bytearray(good.read_bytes())
    data[at % len(data)] ^= 1 << bit
    flipped = good.with_name("flipped.db")
    flipped.write_bytes(data)
    try:
        index = sqlite_file.verify_file(flipped)
    except DatabaseInvalidError:
        return
    assert index == 123_456_789


# Reading


@pytest.mark.processes
def test_steps_in_the_wal_are_read_and_reading_changes_nothing(database: Path) -> None:
    sqlite_file.create(database, 5)
    change_in_the_wal(database, f"UPDATE sequence SET n = 6, digest = x'{digest(6)}'")
    before = contents(database.parent)
    with closing(sqlite_file.connect(database, mode="ro")) as connection:
        assert sqlite_file.verify(connection, database) == 6
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM sequence")
    assert contents(database.parent) == before


def digest(index: int) -> str:
    return sqlite_file.index_digest(index).hex()


# Copies


def copy(database: Path, target: Path) -> int:
    with closing(sqlite_file.connect(database, mode="ro")) as connection:
        return sqlite_file.copy(connection, database, target)


@pytest.mark.processes
def test_a_copy_is_an_independent_database_and_the_only_new_file(database: Path) -> None:
    sqlite_file.create(database, 5)
    change_in_the_wal(database, f"UPDATE sequence SET n = 6, digest = x'{digest(6)}'")
    backup_copy = files.backup_copy_path(database)
    before = contents(database.parent)
    assert copy(database, backup_copy) == 6
    after = contents(database.parent)
    assert after.keys() - before.keys() == {backup_copy.name}
    assert before.items() <= after.items()
    elsewhere = database.parent / "elsewhere" / "restored.db"
    elsewhere.parent.mkdir()
    backup_copy.rename(elsewhere)
    assert sqlite_file.verify_file(elsewhere) == 6


@pytest.mark.parametrize(
    "statement", ["UPDATE sequence SET n = 6", "DELETE FROM sequence", "PRAGMA user_version = 2"]
)
def test_a_copy_that_fails_verification_leaves_the_older_one(
    database: Path, statement: str
) -> None:
    sqlite_file.create(database, 5)
    backup_copy = files.backup_copy_path(database)
    copy(database, backup_copy)
    kept = backup_copy.read_bytes()
    change(database, statement)
    with pytest.raises(DatabaseInvalidError):
        copy(database, backup_copy)
    assert backup_copy.read_bytes() == kept
    assert not backup_copy.with_name(backup_copy.name + ".unfinished").exists()


@pytest.mark.processes
def test_killed_at_any_line_copying_leaves_a_complete_copy(tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    sqlite_file.create(original / "fibcore.db", 6)
    sqlite_file.create(original / "fibcore.db.backup", 5)
    program = """
with closing(sqlite_file.connect(database, mode="ro")) as connection:
    sqlite_file.copy(connection, database, files.backup_copy_path(database))
"""
    found = set()
    for database in killed_at_each_line(original, Path(sqlite_file.__file__), program, least=3):
        backup_copy = files.backup_copy_path(database)
        found.add(sqlite_file.verify_file(backup_copy))
        assert sqlite_file.verify_file(database) == 6
        # Leftovers of the first attempt do not prevent the second.
        assert copy(database, backup_copy) == 6
        assert contents(database.parent).keys() == {database.name, backup_copy.name}
    assert found == {5, 6}


# Explanations


def failure(number: int | str) -> sqlite3.Error | OSError:
    """An error of SQLite, by its name, or of the system."""
    if isinstance(number, int):
        return OSError(number, "it failed")
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{number}")
    return error


@pytest.mark.parametrize(
    "number",
    # A file that can't be opened may appear later.
    [*("FULL", "IOERR_FSYNC", "IOERR_READ", "NOMEM", "CANTOPEN"), errno.ENOSPC, errno.EIO],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_temporary_error_makes_the_store_unavailable(
    database: Path, number: int | str, is_there: bool
) -> None:
    if is_there:
        database.touch()
    explained = sqlite_file.explain(failure(number), database)
    assert isinstance(explained, StoreUnavailableError)
    message = explain(explained)
    assert message.startswith(f"{database} is unavailable: ")
    assert "it failed" in message
    assert "The server retries automatically." in message
    assert "The server" not in explain(explained, "")
    assert "no space is left" not in message


@pytest.mark.parametrize(
    ("number", "kind", "begins"),
    [
        ("BUSY", StoreBusyError, ""),
        *(
            (each, DatabaseInvalidError, "The database {} is invalid: ")
            for each in ("CORRUPT", "NOTADB", "READONLY", "PERM", "MISUSE", errno.ENOENT)
        ),
        *(
            (each, NoRightError, f"This user may not use {{}}: {os.strerror(each)}. ")
            for each in (errno.EACCES, errno.EPERM, errno.EROFS)
        ),
    ],
)
def test_a_lock_an_invalid_database_and_a_missing_permission_differ(
    database: Path, number: int | str, kind: type[Exception], begins: str
) -> None:
    database.touch()
    explained = sqlite_file.explain(failure(number), database)
    assert isinstance(explained, kind)
    assert explain(explained).startswith(begins.format(database))


def test_a_path_on_which_no_file_can_exist_is_invalid(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    for path in (tmp_path / "file" / "x", tmp_path):
        explained = sqlite_file.explain(failure("CANTOPEN"), path)
        assert type(explained) is DatabaseInvalidError
    # Only a path that can't be opened is checked for being a file.
    explained = sqlite_file.explain(failure("PROTOCOL"), tmp_path)
    assert type(explained) is StoreUnavailableError
