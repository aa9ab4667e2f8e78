"""What is particular to a store that is a file: what is not served from, full disks, and copies.

tests/crash shows what a power cut leaves, at any moment; tests/stores/test_contract.py what each
store does.
"""

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fibcore.problems import (
    CommitFailedError,
    CopyFailedError,
    DatabaseInvalidError,
    ForeignDatabaseError,
    InTheWayError,
    LowerError,
    StoreUnavailableError,
    explain,
)
from fibcore.stores import IndexConflictError
from tests.support.disks import SmallDisk, fill
from tests.support.invalid_databases import (
    DAMAGED,
    FOREIGN,
    INVALID_DATABASES,
    change,
    contents,
)
from tests.support.stores import Place, Synchronous, Writer, file_at, key, outcome, step
from tests.support.waiting import PATIENCE

LEVELS: Final[tuple[Synchronous, ...]] = ("full", "normal", "off")

BESIDE: Final = ("-wal", ".mark", ".backup")
"""Ends of the names of files beside a database that show that it existed."""


@pytest.fixture
def place(database: Path) -> Place:
    """Where no database is yet."""
    return file_at(database)


def beside(database: Path, end: str) -> Path:
    return database.with_name(database.name + end)


def without_lock(database: Path) -> dict[str, str]:
    found = contents(database.parent)
    found.pop(f"{database.name}.lock", None)
    return found


def index_of(place: Place) -> int:
    """The index from which it is served."""
    with place.opened() as store:
        return store.read()


def invalid(place: Place) -> str:
    """What is said of a database that is not served from, which is left as it was."""
    assert place.database is not None
    before = without_lock(place.database)
    with pytest.raises(DatabaseInvalidError) as caught, place.opened():
        pass
    with suppress(DatabaseInvalidError):
        assert place.opener().create(0) is not None
    assert without_lock(place.database) == before
    said = explain(caught.value)
    assert str(place.database) in said
    assert "\n" not in said
    return said


def killed(place: Place, steps: int = 5) -> int:
    """Step it in a process that is killed; return the last index."""
    with Writer(place, 100_000) as writer:
        for _ in range(steps):
            last = writer.index()
        writer.kill()
        return [last, *writer.rest()][-1]


# What is not served from


@pytest.mark.processes
@pytest.mark.parametrize("name", INVALID_DATABASES)
def test_a_database_that_cannot_be_trusted_is_not_served_from(place: Place, name: str) -> None:
    assert place.database is not None
    place.opener().create(5)
    INVALID_DATABASES[name](place.database)
    said = invalid(place)
    assert f"The database {place.database} is invalid: " in said
    assert "nothing is served from it" in said
    assert "FIB_STORE" in said


@pytest.mark.parametrize("end", BESIDE)
def test_a_missing_database_that_existed_does_not_start_again_at_0(
    place: Place, database: Path, end: str
) -> None:
    beside(database, end).write_bytes(b"something")
    said = invalid(place)
    assert beside(database, end).name in said
    assert "fibcore restore FILE" in said
    assert not database.exists()


@given(at=st.integers(0, 2**16), bit=st.integers(0, 7))
@example(at=-1, bit=0)
@example(at=-9, bit=0)
def test_a_flipped_bit_never_changes_the_index(at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = file_at(Path(folder, "fibcore.db"))
        assert place.database is not None
        place.opener().create(123_456_789)
        data = bytearray(place.database.read_bytes())
        data[at % len(data)] ^= 1 << bit
        place.database.write_bytes(data)
        try:
            assert index_of(place) == 123_456_789
        except DatabaseInvalidError:
            assert place.database.read_bytes() == data


def test_a_database_with_a_second_name_is_not_served_from(place: Place, database: Path) -> None:
    """A server in another folder would step it too, with a WAL and a lock of its own."""
    place.opener().create(5)
    other = database.with_name("other.db")
    other.hardlink_to(database)
    for each in (place, file_at(other)):
        assert "another name" in invalid(each)
    other.unlink()
    assert index_of(place) == 5


@pytest.mark.parametrize("path", ["100% ?mode=ro&x#y ü.db", "var/of/it.db"])
def test_a_path_may_be_any(tmp_path: Path, path: str) -> None:
    place = file_at(tmp_path / path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    with place.created(7) as store:
        assert store.advance(1) == 8
    assert index_of(place) == 8
    assert (tmp_path / path).exists()


# The high-water mark


@pytest.mark.processes
@pytest.mark.parametrize("level", LEVELS)
def test_a_database_that_lost_its_wal_is_not_served_from(
    database: Path, level: Synchronous
) -> None:
    place = file_at(database, level)
    last = killed(place)
    beside(database, "-wal").unlink()
    assert f"{database.name}.mark beside it shows that index" in invalid(place)
    with pytest.raises(DatabaseInvalidError, match="was committed"):
        place.opener().backup(database.with_name("copy"))
    assert not database.with_name("copy").exists()
    with pytest.raises(LowerError):
        place.opener().set_index(last - 1)
    # Of the last batch, nobody got the index.
    place.opener().set_index(last + 1)
    assert index_of(place) == last + 1


@pytest.mark.processes
@pytest.mark.parametrize("level", LEVELS)
def test_a_killed_process_leaves_what_is_served_from(database: Path, level: Synchronous) -> None:
    place = file_at(database, level)
    last = 0
    for _ in range(3):
        last = killed(place)
        assert place.index in (last, last + 1)
    assert index_of(place) in (last, last + 1)


def test_an_older_copy_in_its_place_is_not_served_from(place: Place, database: Path) -> None:
    with place.created(5):
        pass
    kept = database.read_bytes()
    with place.opened() as store:
        store.advance(3)
    database.write_bytes(kept)
    assert "index 8 was committed" in invalid(place)


def test_a_database_below_its_backup_copy_is_not_served_from_its_index(
    place: Place, database: Path
) -> None:
    place.opener().create(5)
    with file_at(database.with_name("later.db")).created(9):
        pass
    database.with_name("later.db").rename(beside(database, ".backup"))
    assert "index 9" in invalid(place)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"index 5\n", b"\xff" * 9999])
def test_a_missing_or_foreign_mark_is_made_again(
    place: Place, database: Path, content: bytes | None
) -> None:
    mark = beside(database, ".mark")
    with place.created(5) as store:
        store.advance(1)
    mark.unlink()
    if content is not None:
        mark.write_bytes(content)
    assert index_of(place) == 6
    database.unlink()
    assert f"{database.name}.mark" in invalid(place)


def test_a_mark_with_a_flipped_bit_is_not_believed(place: Place, database: Path) -> None:
    with place.created(5) as store:
        store.advance(1)
    good = beside(database, ".mark").read_bytes()
    for bit in range(0, 8 * len(good.rstrip(b"\0")), 3):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        beside(database, ".mark").write_bytes(flipped)
        assert place.index == 6
    assert index_of(place) == 6


# Other programs


def test_a_write_of_another_program_ends_the_process(place: Place, database: Path) -> None:
    with place.created(5) as store:
        assert store.advance(1) == 6
        other = file_at(database.with_name("other.db"))
        other.opener().create(9)
        change(
            database,
            f"ATTACH '{other.database}' AS other",
            "UPDATE sequence SET (n, digest) = (SELECT n, digest FROM other.sequence)",
        )
        with pytest.raises(CommitFailedError, match="no longer at index 6"):
            store.advance(1)
    assert place.index == 9


@pytest.mark.processes
def test_without_its_lock_a_second_writer_ends_the_first(place: Place, database: Path) -> None:
    with place.created(5) as store:
        assert store.advance(1) == 6
        beside(database, ".lock").unlink()
        with Writer(place, 3) as other:
            assert other.rest() == [7, 8, 9]
        with pytest.raises(CommitFailedError):
            store.advance(1)
    assert place.index == 9


def test_a_step_waits_for_a_program_that_holds_the_write_lock(place: Place, database: Path) -> None:
    """Nothing has been written by then, so the process need not exit."""
    reached: list[int] = []
    with place.created(5) as store, closing(sqlite3.connect(database)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: reached.append(store.advance(2)))
        thread.start()
        assert other.execute("SELECT n FROM sequence").fetchone() == (5,)
        assert reached == []
        other.execute("ROLLBACK")
        thread.join(PATIENCE)
        assert reached == [7]


def test_a_database_in_use_by_another_program_is_only_unavailable(
    place: Place, database: Path
) -> None:
    place.opener().create(5)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailableError, match="in use"), place.opened():
            pass
    assert index_of(place) == 5


@pytest.mark.processes
def test_a_reader_holds_up_no_step_and_no_takeover(place: Place, database: Path) -> None:
    last = killed(place)
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        (seen,) = reader.execute("SELECT n FROM sequence").fetchone()
        assert seen in (last, last + 1)
        for index in range(seen, seen + 4):
            with place.opened() as store:
                assert store.advance(1, expected=index) == index + 1
        assert reader.execute("SELECT n FROM sequence").fetchone() == (seen,)
    assert place.index == seen + 4


def test_the_wal_is_bounded(database: Path) -> None:
    with file_at(database, "off").created() as store:
        store.advance(1)
        reserved = beside(database, "-wal").stat().st_size
        for _ in range(3_000):
            store.advance(1)
        assert beside(database, "-wal").stat().st_size == reserved < 2**22


# Full disks and rights


@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_on_a_full_disk_is_opened_once_there_is_space(
    tmp_path: Path, small_disk: SmallDisk, is_there: bool
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        place = file_at(disk / "fibcore.db")
        if is_there:
            place.opener().create(5)
        filler = fill(disk)
        with pytest.raises(StoreUnavailableError) as unavailable, place.opened():
            pass
        assert "Free disk space" in explain(unavailable.value)
        assert (disk / "fibcore.db").exists() == is_there
        filler.unlink()
        assert index_of(place) == 5 * is_there


def test_a_disk_that_becomes_full_holds_up_no_step(tmp_path: Path, small_disk: SmallDisk) -> None:
    with small_disk(tmp_path / "disk") as disk:
        place = file_at(disk / "fibcore.db")
        with place.created() as store:
            fill(disk)
            for _ in range(500):
                store.advance(1)
        with place.opened() as store:
            assert store.advance(500) == 1_000


def test_a_commit_without_space_fails_and_leaves_the_last_index(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        place = file_at(disk / "fibcore.db")
        index = 0
        with place.created() as store, closing(sqlite3.connect(disk / "fibcore.db")) as reader:
            # While it reads, the WAL can't restart, and outgrows its space.
            reader.isolation_level = None
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM sequence").fetchone()
            filler = fill(disk)

            def step_many_times() -> None:
                nonlocal index
                for _ in range(10_000):
                    index = store.advance(1)

            with pytest.raises(CommitFailedError, match="full"):
                step_many_times()
        filler.unlink()
        assert index_of(place) in (index, index + 1)


@contextmanager
def nobody(folder: Path) -> Iterator[None]:
    """Root becomes another user."""
    os.chown(folder, 65534, 65534)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="fibcore-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("mode", [0o000, 0o200, 0o444])
def test_a_missing_permission_is_named_and_may_be_granted(open_folder: Path, mode: int) -> None:
    database = open_folder / "fibcore.db"
    place = file_at(database)
    with nobody(open_folder):
        place.opener().create(5)
        database.chmod(mode)
        with pytest.raises(StoreUnavailableError) as refused, place.opened():
            pass
        assert "permission" in explain(refused.value)
        assert "is invalid" not in explain(refused.value)
        for each in open_folder.iterdir():
            each.chmod(0o600)
        assert index_of(place) == 5


@pytest.mark.usefixtures("root")
def test_files_made_by_root_belong_to_the_owner_of_the_folder(open_folder: Path) -> None:
    os.chown(open_folder, 65534, 65534)
    place = file_at(open_folder / "fibcore.db")
    place.opener().set_index(5)
    place.opener().set_index(6)
    assert {path.stat().st_uid for path in open_folder.iterdir()} == {65534}


# What a person does


@pytest.mark.processes
@pytest.mark.parametrize("name", DAMAGED)
def test_an_invalid_file_is_kept_when_the_index_is_set(
    place: Place, database: Path, name: str
) -> None:
    kept: dict[Path, bytes] = {}
    for index in (5, 6, 7):
        if index > 5:
            DAMAGED[name](database)
            damaged = database.read_bytes()
        moved = place.opener().set_index(index)
        assert moved.before is None
        if moved.kept is not None:
            kept[moved.kept] = damaged
        assert len(kept) == index - 5
        assert index_of(place) == index
        assert all(path.read_bytes() == data for path, data in kept.items())


@pytest.mark.processes
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_a_database_of_ours_is_never_replaced(
    place: Place, database: Path, name: str
) -> None:
    place.opener().create(5)
    FOREIGN[name](database)
    before = without_lock(database)
    with pytest.raises(ForeignDatabaseError):
        place.opener().set_index(6)
    assert without_lock(database) == before


def test_a_lowered_database_is_served_from(place: Place, database: Path) -> None:
    with place.created(50) as store:
        used = key(50)
        assert step(store, used) == 51
        place.opener().backup(database.with_name("copy.db"))
    database.with_name("copy.db").rename(beside(database, ".backup"))
    assert place.opener().set_index(40, lower=True).before == 51
    with place.opened() as store:
        assert outcome(store, used) is None
        with pytest.raises(IndexConflictError):
            store.advance(1, expected=51)
        assert store.advance(1) == 41
    assert index_of(place) == 41


@pytest.mark.parametrize("end", ["", "-journal", "-shm", "-wal", ".lock", ".mark", ".backup"])
def test_a_copy_never_replaces_a_file_of_the_database(
    place: Place, database: Path, end: str
) -> None:
    with place.created(50):
        before = contents(database.parent)
        target = database.parent / ".." / database.parent.name / (database.name + end)
        with pytest.raises(InTheWayError):
            place.opener().backup(target)
        assert contents(database.parent) == before


@pytest.mark.parametrize("statement", ["UPDATE sequence SET n = 6", "DELETE FROM sequence"])
def test_a_database_that_is_not_valid_leaves_the_older_copy(
    place: Place, database: Path, statement: str
) -> None:
    target = database.with_name("copy.db")
    place.opener().create(5)
    assert place.opener().backup(target) == 5
    kept = target.read_bytes()
    change(database, statement)
    with pytest.raises(DatabaseInvalidError):
        place.opener().backup(target)
    assert target.read_bytes() == kept


def test_a_copy_that_cannot_be_written_leaves_the_older_one(
    place: Place, tmp_path: Path, small_disk: SmallDisk
) -> None:
    place.opener().create(50)
    with small_disk(tmp_path / "disk") as disk:
        target = disk / "copy.db"
        place.opener().backup(target)
        place.opener().set_index(51)
        filler = fill(disk)
        with pytest.raises(CopyFailedError, match="full"):
            place.opener().backup(target)
        assert {path.name for path in disk.iterdir()} == {target.name, filler.name}
        filler.unlink()
        assert file_at(target).index == 50
