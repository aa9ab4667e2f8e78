"""The embedded store: what it refuses, what it guards against, and what is on disk when."""

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
from fibcore.stores import (
    AnotherWriterError,
    CommitFailedError,
    StandsElsewhereError,
    StateRefusedError,
    Store,
    StoreBusyError,
    StoreUnavailableError,
    statefile,
)
from fibcore.stores.mark import Mark, read
from fibcore.stores.sqlite import LOG_PAGES, SYNCHRONOUS, SqliteStore, Synchronous
from fibcore.words import explain
from tests.disk import fill, small_disk
from tests.spoiling import SPOILED, Spoiled, change, change_in_the_log, contents


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "fibcore.db"


def log_of(state: Path) -> Path:
    return state.with_name(state.name + "-wal")


def index_on_disk(state: Path) -> int:
    """What a process would find that opened the state now."""
    with closing(statefile.connect(state, mode="ro")) as connection:
        return statefile.verify(connection, state)


# Opening


def test_a_state_that_has_never_been_is_created_at_0(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        assert store.read() == 0
    assert index_on_disk(state) == 0


def test_a_state_is_taken_up_where_it_was_left(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        store.commit(5)
        assert store.read() == 5
    with closing(SqliteStore(state)) as store:
        assert store.read() == 5


def test_it_is_a_store(state: Path) -> None:
    store: Store = SqliteStore(state)
    store.close()


def test_closing_twice_is_allowed(state: Path) -> None:
    store = SqliteStore(state)
    store.close()
    store.close()


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled.name)
def test_a_state_that_can_not_be_trusted_is_refused_and_left_as_it_is(
    state: Path, spoiled: Spoiled
) -> None:
    statefile.create(state, 5)
    assert index_on_disk(state) == 5
    spoiled.spoil(state)
    before = contents(state.parent)
    with pytest.raises(StateRefusedError) as refused:
        SqliteStore(state)
    assert contents(state.parent) == before
    message = explain(refused.value)
    assert message.startswith(f"The database {state} is invalid: ")
    assert spoiled.complaint in message
    assert "It has not been changed and nothing is served from it." in message
    assert re.search("fibcore restore FILE|Move it away if", message)
    assert "FIB_STORE" in message
    assert "\n" not in message


def test_a_state_in_which_no_step_can_be_committed_is_refused(state: Path) -> None:
    statefile.create(state, 5)
    change(
        state,
        "CREATE TRIGGER stop BEFORE UPDATE ON sequence BEGIN SELECT RAISE(ABORT, 'stopped'); END",
    )
    with pytest.raises(StateRefusedError, match=": stopped"):
        SqliteStore(state)


@pytest.mark.parametrize("remains", ["-wal", ".spare"])
def test_a_state_that_was_lost_is_refused_and_does_not_begin_at_0_again(
    state: Path, remains: str
) -> None:
    statefile.create(state, 5)
    state.rename(state.with_name(state.name + remains))
    before = contents(state.parent)
    with pytest.raises(StateRefusedError, match="is missing, but"):
        SqliteStore(state)
    assert contents(state.parent) == before


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder that an unprivileged user owns, which this process then is if it was root."""
    # Not under tmp_path, which its owner alone may enter.
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
        (0o444, "attempt to write a readonly database"),
    ],
    ids=["neither", "not read", "not written"],
)
def test_a_state_that_may_not_be_read_and_written_is_refused(
    folder_of_nobody: Path, mode: int, complaint: str
) -> None:
    state = folder_of_nobody / "fibcore.db"
    statefile.create(state, 5)
    state.chmod(mode)
    with pytest.raises(StateRefusedError) as refused:
        SqliteStore(state)
    assert str(state) in str(refused.value)
    assert complaint in str(refused.value)
    state.chmod(0o600)
    assert index_on_disk(state) == 5


# Committing


def test_what_is_committed_is_seen_by_others_when_commit_returns(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        for index in (1, 2, 100, 2**40, MAX_INDEX):
            store.commit(index)
            assert index_on_disk(state) == index


def test_what_is_committed_survives_the_end_of_the_process(state: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from fibcore.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
store.commit(7)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, state], check=True)
    assert log_of(state).stat().st_size
    with closing(SqliteStore(state)) as store:
        assert store.read() == 7


def test_nothing_that_is_served_rests_on_the_log_of_an_earlier_life(
    state: Path, tmp_path: Path
) -> None:
    statefile.create(state, 5)
    digest = statefile.index_digest(6).hex()
    change_in_the_log(state, f"UPDATE sequence SET n = 6, digest = x'{digest}'")
    with closing(SqliteStore(state)) as store:
        assert store.read() == 6
        without_log = tmp_path / "without-log.db"
        shutil.copyfile(state, without_log)
        assert index_on_disk(without_log) == 6


def test_what_is_left_in_the_log_of_an_earlier_life_counts_for_nothing(
    state: Path, tmp_path: Path
) -> None:
    program = """
import os, sys
from pathlib import Path
from fibcore.stores.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
for index in range(1, 6):
    store.commit(index)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, state], check=True)
    with closing(SqliteStore(state)) as store:
        assert store.read() == 5
        cut = tmp_path / "cut.db"
        for end in range(0, 6 * (24 + statefile.PAGE_SIZE), 100):
            shutil.copyfile(state, cut)
            log_of(cut).write_bytes(log_of(state).read_bytes()[:end])
            assert index_on_disk(cut) == 5


@pytest.mark.parametrize("level", SYNCHRONOUS)
def test_the_log_of_an_earlier_life_is_synced_at_any_level(
    state: Path, level: Synchronous, monkeypatch: pytest.MonkeyPatch
) -> None:
    statefile.create(state, 5)
    statements: list[str] = []
    connect = statefile.connect

    def traced(path: Path, mode: Literal["rw", "ro"] = "rw") -> sqlite3.Connection:
        connection = connect(path, mode)
        if path == state and mode == "rw":
            connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(statefile, "connect", traced)
    SqliteStore(state, level).close()
    before = statements[: statements.index("PRAGMA wal_checkpoint(RESTART)")]
    assert [each for each in before if "synchronous" in each] == ["PRAGMA synchronous = full"]


@pytest.mark.parametrize(("level", "number"), [("off", 0), ("normal", 1), ("full", 2)])
def test_the_level_of_durability_is_set_in_so_many_words(
    state: Path, level: Synchronous, number: int
) -> None:
    with closing(SqliteStore(state, level)) as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (number,)


def test_the_default_is_full_durability(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert SYNCHRONOUS[0] == "full"


def test_the_log_does_not_grow_without_bound(state: Path) -> None:
    with closing(SqliteStore(state, "off")) as store:
        reserved = log_of(state).stat().st_size
        for index in range(1, 3 * LOG_PAGES):
            store.commit(index)
        assert log_of(state).stat().st_size == reserved
        assert reserved <= 2 * LOG_PAGES * (statefile.PAGE_SIZE + 24)


def test_a_log_that_is_larger_than_its_reserve_is_taken_over(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(state)) as store:
        store.commit(7)
        monkeypatch.setattr("fibcore.stores.sqlite.LOG_PAGES", 1)
        copy = state.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{state}{suffix}", f"{copy}{suffix}")
    with closing(SqliteStore(copy)) as store:
        assert store.read() == 7
        store.commit(8)
    assert index_on_disk(copy) == 8


def test_a_commit_over_what_another_process_wrote_fails_and_changes_nothing(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        store.commit(5)
        digest = statefile.index_digest(9).hex()
        change(state, f"UPDATE sequence SET n = 9, digest = x'{digest}'")
        with pytest.raises(CommitFailedError) as failed:
            store.commit(6)
        message = explain(failed.value)
        assert "no longer stands at index 5: another process has written to it" in message
        assert "Nothing was committed." in message
    assert index_on_disk(state) == 9


def open_while_another_commits(state: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """As when the lock file was deleted: what is read is old when it comes to write.

    Returns:
        What the mark says then; the other store stands at 6.
    """
    with closing(SqliteStore(state)) as store:
        store.commit(5)
        reserve = SqliteStore._reserve_log

        def reserve_late(late: SqliteStore) -> None:
            reserve(late)
            store.commit(6)

        monkeypatch.setattr(SqliteStore, "_reserve_log", reserve_late)
        with pytest.raises(StoreBusyError):
            SqliteStore(state)
        note = read(state)
        assert note is not None
        store.commit(7)
        return note.index


def test_a_store_that_is_opened_while_another_commits_leaves_the_mark_as_that_noted_it(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_while_another_commits(state, monkeypatch) == 6


def test_a_mark_that_is_taken_over_as_the_state_was_read_would_be_set_back(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""

    def take_over(late: SqliteStore, synchronous: Synchronous) -> None:
        late._mark = Mark(state, synchronous, late._index, lower=True)

    monkeypatch.setattr(SqliteStore, "_take_over_the_mark", take_over)
    assert open_while_another_commits(state, monkeypatch) == 5


def test_a_store_whose_first_commit_meets_another_writer_is_not_opened(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statefile.create(state, 5)
    take_over = SqliteStore._take_over_the_mark
    digest = statefile.index_digest(9).hex()

    def take_over_late(late: SqliteStore, synchronous: Synchronous) -> None:
        take_over(late, synchronous)
        change(state, f"UPDATE sequence SET n = 9, digest = x'{digest}'")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "_take_over_the_mark", take_over_late)
        with pytest.raises(StoreBusyError):
            SqliteStore(state)
    with closing(SqliteStore(state)) as store:
        assert store.read() == 9


def test_a_database_that_somebody_took_out_of_wal_mode_is_put_back(state: Path) -> None:
    statefile.create(state, 5)
    change(state, "PRAGMA journal_mode = delete")
    with closing(SqliteStore(state)) as store:
        store.commit(6)
        assert log_of(state).stat().st_size > 0
    assert index_on_disk(state) == 6


def test_it_advances_from_where_it_stands_and_no_further_than_it_may(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        assert store.advance(5) == 5
        assert store.advance(2, 5) == 7
        assert store.advance(3, limit=10) == 10
        for asked in ({"expected": 9}, {"expected": 11}, {"limit": 10}):
            with pytest.raises(StandsElsewhereError) as elsewhere:
                store.advance(1, **asked)
            assert elsewhere.value.index == 10
        assert store.read() == 10
    assert index_on_disk(state) == 10


def test_a_commit_whose_row_is_gone_fails(state: Path) -> None:
    with closing(SqliteStore(state)) as store:
        change(state, "DELETE FROM sequence")
        with pytest.raises(AnotherWriterError):
            store.commit(1)


def test_an_error_of_sqlite_at_a_commit_says_what_it_means(state: Path) -> None:
    store = SqliteStore(state)
    store.close()
    with pytest.raises(CommitFailedError) as failed:
        store.commit(1)
    message = explain(failed.value)
    assert (
        f"The commit of index 1 to {state} failed: Cannot operate on a closed database" in message
    )
    assert "Its steps are not answered" in message
    assert isinstance(failed.value.__cause__, sqlite3.Error)


# Trouble that can pass


def test_a_full_disk_is_trouble_that_can_pass_and_creation_leaves_nothing_half_made(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        state = disk / "fibcore.db"
        filler = fill(disk)
        with pytest.raises(StoreUnavailableError) as unavailable:
            SqliteStore(state)
        assert "Free disk space" in explain(unavailable.value)
        assert not state.exists()
        filler.unlink()
        with closing(SqliteStore(state)) as store:
            assert store.read() == 0


def test_a_state_on_a_full_disk_is_not_served_until_a_step_could_be_committed(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        state = disk / "fibcore.db"
        statefile.create(state, 5)
        filler = fill(disk)
        with pytest.raises(StoreUnavailableError):
            SqliteStore(state)
        filler.unlink()
        with closing(SqliteStore(state)) as store:
            assert store.read() == 5


def test_a_log_that_gets_less_space_than_it_asks_for_is_trouble_that_can_pass(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statefile.create(state, 5)
    pwrite = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: len(data) // 2], at))
        with pytest.raises(StoreUnavailableError, match="No space left"):
            SqliteStore(state)
    with closing(SqliteStore(state)) as store:
        assert store.read() == 5


def test_a_full_disk_does_not_keep_a_state_that_is_being_served_from_stepping(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        state = disk / "fibcore.db"
        with closing(SqliteStore(state)) as store:
            fill(disk)
            for index in range(1, 3 * LOG_PAGES):
                store.commit(index)
        assert index_on_disk(state) == index


def test_a_commit_for_which_there_is_no_space_fails_and_the_index_before_it_stays(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        state = disk / "fibcore.db"
        index = 0
        with (
            closing(SqliteStore(state)) as store,
            closing(sqlite3.connect(state, isolation_level=None)) as reader,
        ):
            # For as long as it reads, the log can't begin anew, and outgrows its space.
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
        with closing(SqliteStore(state)) as store:
            assert store.read() in (index, index + 1)


def test_a_state_that_another_program_holds_is_not_served_and_not_refused(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefile, "BUSY_SECONDS", 0.01)
    statefile.create(state, 5)
    with closing(sqlite3.connect(state, isolation_level=None)) as other:
        for begin in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
            other.execute(begin)
            with pytest.raises(StoreUnavailableError, match="in use by another program"):
                SqliteStore(state)
            other.execute("ROLLBACK")
        with closing(SqliteStore(state)) as store:
            other.execute("BEGIN")
            other.execute("SELECT * FROM sequence")
            store.commit(6)
        with pytest.raises(StoreUnavailableError, match="in use by another program"):
            SqliteStore(state)
        other.execute("ROLLBACK")
    with closing(SqliteStore(state)) as store:
        assert store.read() == 6
